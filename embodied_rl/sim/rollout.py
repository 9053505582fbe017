"""One episode in one process: the same loop, gate and following as over ROS topics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from embodied_rl.core.commands import ChunkFollower
from embodied_rl.core.gate import CommandGate, GateState
from embodied_rl.core.loop import ControlLoop
from embodied_rl.core.measured import StateWatch
from embodied_rl.core.policy import ActionChunk, EpisodeInfo, Outcome, Policy, Reporting
from embodied_rl.core.window import Observation
from embodied_rl.sim.base import Simulator


@dataclass(frozen=True)
class EpisodeResult:
    """How an episode went. ``commands[k]`` is the limited target in force one period after row
    ``observations[k]``: what a demonstration teaches as that row's action."""

    info: EpisodeInfo
    outcome: Outcome
    ticks: int
    limited: int  # chunks that the limiter had to change
    commands: np.ndarray  # (ticks, A) float64
    observations: list[Observation] = field(default_factory=list, repr=False)
    figures: dict[str, float] = field(default_factory=dict)  # of a policy that reports some


def begin(sim: Simulator, episode: int, seed: int) -> EpisodeInfo:
    """Reset the simulator and describe the episode that begins."""
    trial = episode // sim.episodes_per_trial
    sim.reset(seed, trial)
    return EpisodeInfo(episode, seed, sim.task_name, sim.instruction, sim.time_ns, trial)


def started_gate(sim: Simulator) -> CommandGate:
    """A command gate that knows where the robot of a simulator is."""
    gate, watch = CommandGate(sim.embodiment), StateWatch(sim.embodiment)
    samples = sim.read()
    for key in watch.keys:
        watch.add(key, samples[key])
    gate.start(sim.time_ns, watch.state(sim.time_ns))
    return gate


def rollout(
    sim: Simulator,
    policy: Policy,
    episode: int = 0,
    seed: int = 0,
    *,
    loop: ControlLoop | None = None,
    keep_observations: bool = False,
    on_tick: Callable[[Observation, ActionChunk | None], bool | None] | None = None,
) -> EpisodeResult:
    """Run one episode to its end; the task's time limit ends it at the latest.

    Args:
        sim: the simulator; it must give every stream that the policy asks for.
        policy: any policy, a scripted expert included.
        episode: number of the episode in its run.
        seed: seed of the episode (see :func:`embodied_rl.core.policy.episode_seed`).
        loop: that of the episode before this one in its trial, so that a policy that learns in
            context keeps its memory; None for a new one.
        keep_observations: return the rows too (memory: images are kept).
        on_tick: called with the row of every control tick and, where a chunk comes into force,
            that chunk as the gate let it through; answers True to break the episode off there (its
            outcome then is not done).
    """
    info = begin(sim, episode, seed)
    loop, gate = loop or ControlLoop(policy, sim.embodiment), started_gate(sim)
    loop.reset(info)
    follower = ChunkFollower(sim.embodiment, sim.time_ns, sim.command)
    observations: list[Observation] = []
    commands: list[np.ndarray] = []
    while not sim.outcome().done:
        for key, sample in sim.read().items():
            if key in policy.spec.streams:
                loop.add(key, sample)
        if sim.time_ns >= loop.next_tick_ns:
            observation, chunk = loop.tick()
            if chunk is not None:
                chunk = gate.accept(chunk, observation.stamp_ns)
            target = gate.next_target(observation.stamp_ns)
            if gate.state is not GateState.FOLLOWING:
                chunk = target  # what the gate made itself, to hold still
            if chunk is not None:
                follower.follow(chunk)
                loop.executed(chunk)
            if keep_observations:
                observations.append(observation)
            commands.append(target.values[0])
            if on_tick is not None and on_tick(observation, chunk):
                break
        sim.step(follower.target(sim.time_ns + sim.step_ns))
    limited = gate.counts["limited chunks"]
    figures = policy.figures() if isinstance(policy, Reporting) else {}
    return EpisodeResult(
        info, sim.outcome(), len(commands), limited, np.array(commands), observations, figures
    )
