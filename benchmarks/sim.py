"""What the simulator costs: physics against bare ``mj_step``, the frame rate of each camera, and
the world ``apartment`` with its lidar.

Physics: one episode of the expert in ``replace_object`` is taped (a target every 10 ms), then
played back in turn through ``Simulator.step() + read()``, streams and judging included, and
through a loop that only sets ``ctrl`` and calls ``mj_step`` on the same model. The two take turns
every 0.2 s of simulated time, and of each such piece the fastest round counts, so that load from
outside disturbs the ratio little; time is the thread's own processor time for the same reason.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np
import tyro
from _report import report

from embodied_rl.core.embodiment import NANOSECONDS
from embodied_rl.sim.mujoco_sim import MujocoSimulator
from embodied_rl.sim.registry import make_simulator
from embodied_rl.sim.rollout import rollout
from embodied_rl.sim.tasks.expert import make_expert
from embodied_rl.sim.worlds.base import CameraSource

TASK, SEED = "replace_object", 0
PIECE = 20  # simulator steps
TARGETS = {"physics_ratio_to_bare": (">=", 0.9), "apartment_times_real_time": (">=", 30)}


@dataclass(frozen=True)
class Arguments:
    """Physics steps a second against bare mj_step, and frames a second of each camera."""

    rounds: int = 20
    """Times that the taped episode is played through both loops."""
    frames: int = 100
    """Frames a camera; a fifth of it with full meshes."""
    json: Path | None = None
    """Write the figures to this file."""


class _Tape:
    """A simulator that keeps the commands and the controls that it is given."""

    def __init__(self, sim: MujocoSimulator):
        self._sim, self.commands, self.controls = sim, [], []

    def __getattr__(self, name: str):
        return getattr(self._sim, name)

    def step(self, command: np.ndarray) -> None:
        self.commands.append(command.copy())
        self._sim.step(command)
        self.controls.append(self._sim.data.ctrl.copy())


def taped_episode(sim: MujocoSimulator) -> tuple[list[np.ndarray], np.ndarray]:
    """One expert's episode: commands ``(A,)`` of the simulator's steps, ``(K, nu)`` controls."""
    tape = _Tape(sim)
    rollout(tape, make_expert(TASK, sim.embodiment), 0, SEED)
    return tape.commands, np.array(tape.controls)


def play(sim: MujocoSimulator, commands: list[np.ndarray]) -> Iterator[float]:
    """The commands through the simulator; yields the seconds of every piece."""
    sim.reset(SEED)
    for first in range(0, len(commands), PIECE):
        begin = time.thread_time()
        for command in commands[first : first + PIECE]:
            sim.step(command)
            sim.read()
        yield time.thread_time() - begin


def play_bare(sim: MujocoSimulator, controls: np.ndarray) -> Iterator[float]:
    """The same controls through nothing but ``mj_step``; yields the seconds of every piece."""
    sim.reset(SEED)
    model, data = sim.model, sim.data
    substeps = range(sim.step_ns // sim.physics_step_ns)
    for first in range(0, len(controls), PIECE):
        begin = time.thread_time()
        for control in controls[first : first + PIECE]:
            data.ctrl[:] = control
            for _ in substeps:
                mujoco.mj_step(model, data)
        yield time.thread_time() - begin


def physics(rounds: int) -> dict[str, float]:
    """Steps a second of both loops and their ratio."""
    sim, bare_sim = make_simulator("tabletop", TASK), make_simulator("tabletop", TASK)
    commands, controls = taped_episode(sim)
    pairs = [list(zip(play(sim, commands), play_bare(bare_sim, controls))) for _ in range(rounds)]
    if not np.allclose(sim.data.qpos, bare_sim.data.qpos, atol=1e-6):
        raise RuntimeError("the two loops did not simulate the same motion")
    steps = len(commands) * (sim.step_ns // sim.physics_step_ns)
    ours, bare = np.array(pairs).min(axis=0).sum(axis=0)  # (rounds, pieces, 2) seconds
    return {
        "physics_steps_per_s": float(steps / ours),
        "bare_mj_step_steps_per_s": float(steps / bare),
        "physics_ratio_to_bare": float(bare / ours),
        "times_real_time": float(steps * sim.physics_step_ns / NANOSECONDS / ours),
    }


def cameras(visuals: str, frames: int) -> dict[str, float]:
    """Frames a second (by the median frame) of every camera stream, drawn one at a time."""
    sim = make_simulator("tabletop", TASK, cameras=("fixed", "wrist"), visuals=visuals)
    sim.reset(0)
    figures = {}
    for key, source in sim.world.sources.items():
        if not isinstance(source, CameraSource):
            continue
        height, width = sim.embodiment.streams[key].shape[:2]
        sim.render(source.camera, width, height, source.kind)  # opens the context, warms up
        seconds = []
        for _ in range(frames):
            begin = time.perf_counter()
            sim.render(source.camera, width, height, source.kind)
            seconds.append(time.perf_counter() - begin)
        figures[f"{key}_{visuals}_fps"] = 1 / statistics.median(seconds)
    sim.close()
    return figures


def apartment(rounds: int) -> dict[str, float]:
    """How fast the world with the lidar is: physics, odometry and judging, and a scan."""
    sim = make_simulator("apartment", "find_object")
    seconds: dict[str, list[float]] = {"step": [], "scan": []}
    for seed in range(rounds):
        sim.reset(seed, seed)
        for _ in range(PIECE):
            begin = time.thread_time()
            sim.step(np.array([0.1, 1.0]))
            stepped = time.thread_time()
            samples = sim.read()
            read = time.thread_time()
            seconds["step"].append(stepped - begin)
            if "scan" in samples:
                seconds["scan"].append(read - stepped)
    step_s = sim.step_ns / NANOSECONDS
    return {
        "apartment_times_real_time": step_s / statistics.median(seconds["step"]),
        "apartment_scan_ms": 1e3 * statistics.median(seconds["scan"]),
    }


def main(argv: list[str]) -> int:
    arguments = tyro.cli(
        Arguments, args=argv, prog="embodied_rl bench sim", description=Arguments.__doc__
    )
    figures = physics(arguments.rounds)
    figures |= cameras("primitives", arguments.frames)
    figures |= apartment(arguments.rounds)
    figures |= cameras("mesh", max(1, arguments.frames // 5))
    return report("sim", figures, TARGETS, arguments.json)
