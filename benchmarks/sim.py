"""What the simulator costs: physics against bare ``mj_step``, and the frame rate of each camera.

Physics: one episode of the expert in ``replace_object`` is taped (a target every 10 ms), then
played back in turn through ``Simulator.step() + read()``, streams and judging included, and
through a loop that only sets ``ctrl`` and calls ``mj_step`` on the same model. The fastest round
of each counts, which load from outside disturbs least.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np
import tyro
from _report import report

from embodied_rl.sim.mujoco_sim import MujocoSimulator
from embodied_rl.sim.registry import make_simulator
from embodied_rl.sim.rollout import rollout
from embodied_rl.sim.tasks.expert import make_expert
from embodied_rl.sim.worlds.base import CameraSource

TASK = "replace_object"
TARGETS = {"physics_ratio_to_bare": (">=", 0.9)}


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
    """A simulator that keeps the commands it is given."""

    def __init__(self, sim: MujocoSimulator):
        self._sim, self.commands = sim, []

    def __getattr__(self, name: str):
        return getattr(self._sim, name)

    def step(self, command: np.ndarray) -> None:
        self.commands.append(command.copy())
        self._sim.step(command)


def taped_episode(sim: MujocoSimulator, seed: int) -> list[np.ndarray]:
    """The commands ``(A,)`` of one expert's episode, one a simulator step."""
    tape = _Tape(sim)
    rollout(tape, make_expert(TASK, sim.embodiment), 0, seed)
    return tape.commands


def play(sim: MujocoSimulator, commands: list[np.ndarray], seed: int) -> float:
    """Seconds for the commands through the simulator."""
    sim.reset(seed)
    begin = time.perf_counter()
    for command in commands:
        sim.step(command)
        sim.read()
    return time.perf_counter() - begin


def play_bare(sim: MujocoSimulator, commands: list[np.ndarray], seed: int) -> float:
    """Seconds for the same commands through nothing but ``mj_step``."""
    sim.reset(seed)
    model, data = sim.model, sim.data
    substeps = sim.step_ns // sim.physics_step_ns
    controls = [sim.to_controls(command) for command in commands]
    begin = time.perf_counter()
    for control in controls:
        data.ctrl[:] = control
        for _ in range(substeps):
            mujoco.mj_step(model, data)
    return time.perf_counter() - begin


def physics(rounds: int) -> dict[str, float]:
    """Steps a second of both loops and their ratio."""
    sim = make_simulator("tabletop", TASK)
    commands = taped_episode(sim, seed=0)
    steps = len(commands) * (sim.step_ns // sim.physics_step_ns)
    play(sim, commands, 0)  # warm up
    pairs = [(play(sim, commands, 0), play_bare(sim, commands, 0)) for _ in range(rounds)]
    sim.close()
    ours, bare = (min(times) for times in zip(*pairs))
    return {
        "physics_steps_per_s": steps / ours,
        "bare_mj_step_steps_per_s": steps / bare,
        "physics_ratio_to_bare": bare / ours,
        "times_real_time": steps * sim.physics_step_ns / 1e9 / ours,
    }


def cameras(visuals: str, frames: int) -> dict[str, float]:
    """Frames a second of every camera stream, drawn one at a time."""
    sim = make_simulator("tabletop", TASK, cameras=("fixed", "wrist"), visuals=visuals)
    sim.reset(0)
    figures = {}
    for key, source in sim.world.sources.items():
        if not isinstance(source, CameraSource):
            continue
        height, width = sim.embodiment.streams[key].shape[:2]
        sim.render(source.camera, width, height, source.kind)  # opens the context, warms up
        begin = time.perf_counter()
        for _ in range(frames):
            sim.render(source.camera, width, height, source.kind)
        figures[f"{key}_{visuals}_fps"] = frames / (time.perf_counter() - begin)
    sim.close()
    return figures


def main(argv: list[str]) -> int:
    arguments = tyro.cli(
        Arguments, args=argv, prog="embodied_rl bench sim", description=Arguments.__doc__
    )
    figures = physics(arguments.rounds)
    figures |= cameras("primitives", arguments.frames)
    figures |= cameras("mesh", max(1, arguments.frames // 5))
    return report("sim", figures, TARGETS, arguments.json)
