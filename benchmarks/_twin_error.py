"""How far the simulated base is from the batched dynamics that stand in for it in training.

Both are given the same random actions. The twin moves in explicit Euler steps of ``dt``, with the
old speed and heading throughout; the base has mass, ramps its speed and turns while it drives, and
its tyres slip. Two figures: the error of a single step from where the base is, which is what a
policy meets that looks again at every step, and the drift of a whole trace driven blindly.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from embodied_rl.core.commands import ChunkFollower
from embodied_rl.core.policy import ActionChunk
from embodied_rl.sim.dynamics.base import Dynamics
from embodied_rl.sim.mujoco_sim import MujocoSimulator
from embodied_rl.sim.registry import make_simulator
from embodied_rl.sim.rollout import started_gate
from embodied_rl.sim.stl_tasks.task import load_task

# (state now (4,), state one step of the twin later (4,)) -> velocity targets (ticks, 2)
Targets = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class TwinErrors:
    """Distances in m, headings in rad between base and twin, over ``N`` traces of ``T`` steps."""

    step_m: np.ndarray  # (N, T), one step from the base's own state
    step_rad: np.ndarray
    drift_m: np.ndarray  # (N, T + 1), from the common start on; the first is 0
    drift_rad: np.ndarray


def twin_errors(targets: Targets, task: str, count: int = 16, seed: int = 0) -> TwinErrors:
    """Errors over random actions, uniform and independent at every step, without sensor noise.

    Commands take their way through limits and actuators as in an episode.

    Args:
        targets: how a step of the twin becomes velocity targets; that of the policy's adapter.
        task: gives the starts, the dynamics and the length of the traces.

    Raises:
        UserError: there is no such task, or it is not for a base.
    """
    sim, dynamics = make_simulator("arena", task, noise=0.0), load_task(task).dynamics
    generator = torch.Generator().manual_seed(seed)
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for trace in range(count):
        actions = 2.0 * torch.rand(dynamics.steps, dynamics.action_dim, generator=generator) - 1.0
        steps = _trace(sim, targets, dynamics, actions, seed + trace, look=True)
        drift = _trace(sim, targets, dynamics, actions, seed + trace, look=False)
        found.append((steps[1:], drift))
    sim.close()
    steps, drifts = (np.stack(part) for part in zip(*found, strict=True))
    return TwinErrors(steps[..., 0], steps[..., 1], drifts[..., 0], drifts[..., 1])


def _trace(
    sim: MujocoSimulator,
    targets: Targets,
    dynamics: Dynamics,
    actions: torch.Tensor,
    seed: int,
    look: bool,
) -> np.ndarray:
    """Distance and turn ``(T + 1, 2)`` between base and twin; with ``look`` the twin begins every
    step where the base is, without it only the first."""
    sim.reset(seed)
    gate, period_ns = started_gate(sim), sim.embodiment.period_ns
    follower = ChunkFollower(sim.embodiment, sim.time_ns, sim.command)
    twin = base = _state(sim)
    errors = [(0.0, 0.0)]
    for action in actions:
        now = base if look else twin
        twin = _stepped(dynamics, now, action)
        chunk = gate.accept(ActionChunk(sim.time_ns, period_ns, targets(now, twin)), sim.time_ns)
        assert chunk is not None
        follower.follow(chunk)
        while sim.time_ns < chunk.end_ns:
            if sim.time_ns % period_ns == 0:
                gate.next_target(sim.time_ns)
            sim.step(follower.target(sim.time_ns + sim.step_ns))
        base = _state(sim)
        errors.append(
            (math.dist(base[:2], twin[:2]), abs(math.remainder(base[2] - twin[2], math.tau)))
        )
    return np.array(errors)


def _stepped(dynamics: Dynamics, state: np.ndarray, action: torch.Tensor) -> np.ndarray:
    after = dynamics.step(torch.tensor(state, dtype=torch.float64)[None], action.double()[None])
    return after[0].numpy()


def _state(sim: MujocoSimulator) -> np.ndarray:
    """x, y (m), heading (rad) and forward speed (m/s)."""
    samples = sim.read()
    x, y, _ = samples["base_position"].value
    speed = samples["base_linear_velocity"].value[0]
    return np.array([x, y, samples["base_yaw"].value[0], speed])
