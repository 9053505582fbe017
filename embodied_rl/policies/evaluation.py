"""Success rate of a policy in a task; the same figures with any number of processes."""

from __future__ import annotations

import hashlib
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from embodied_rl.core.loop import ControlLoop
from embodied_rl.core.parent import start_worker
from embodied_rl.core.policy import ActionChunk, Policy, episode_seed
from embodied_rl.core.window import Observation
from embodied_rl.policies.registry import load_policy
from embodied_rl.sim.base import Simulator
from embodied_rl.sim.registry import make_simulator, world_of
from embodied_rl.sim.rollout import EpisodeResult, rollout
from embodied_rl.training.statistics import wilson_interval


@dataclass(frozen=True)
class Evaluation:
    """What to evaluate: `episodes` episodes, their seeds counted from `seed`, of a policy with
    `options` of its method. Without a `world`, `task` is one of those with a name, which knows its
    world; with one, the task is any of that world's."""

    model: str
    task: str
    episodes: int
    seed: int
    options: Mapping[str, Any] = field(default_factory=dict)
    world: str | None = None
    keep: tuple[str, ...] = ()


def place_of(evaluation: Evaluation) -> tuple[str, str]:
    """World and task of an evaluation.

    Raises:
        UserError: no such task; lists the valid names.
    """
    if evaluation.world is not None:
        return evaluation.world, evaluation.task
    return world_of(evaluation.task), evaluation.task


@dataclass
class _Bench:
    """Simulator and policy of one process; made once, used for many episodes."""

    simulator: Simulator
    policy: Policy

    @classmethod
    def make(cls, evaluation: Evaluation) -> _Bench:
        # State policies need no images, and a camera that nobody looks at still costs a render.
        world, task = place_of(evaluation)
        simulator = make_simulator(world, task)
        embodiment = simulator.embodiment
        policy = load_policy(evaluation.model, embodiment, task, **evaluation.options)
        missing = sorted(set(policy.spec.streams) - set(simulator.streams))
        if missing:
            simulator.close()
            simulator = make_simulator(world, task, cameras=missing)
        return cls(simulator, policy)

    def trials(self, evaluation: Evaluation) -> list[range]:
        """Numbers of the episodes that share one world each; most worlds have trials of one."""
        length, count = self.simulator.episodes_per_trial, evaluation.episodes
        return [range(first, min(first + length, count)) for first in range(0, count, length)]

    def run(self, evaluation: Evaluation, trial: range) -> Iterator[EpisodeResult]:
        """The episodes of a trial, which depend on no other trial."""
        loop = ControlLoop(self.policy, self.simulator.embodiment)
        for episode in trial:
            rows: list[Observation] = []

            def keep(row: Observation, _: ActionChunk | None, rows: list = rows) -> None:
                rows.append(_only(row, evaluation.keep))

            seed = episode_seed(evaluation.seed, episode)
            on_tick = keep if evaluation.keep else None
            result = rollout(self.simulator, self.policy, episode, seed, on_tick=on_tick, loop=loop)
            yield replace(result, observations=rows)


def _only(row: Observation, keys: Sequence[str]) -> Observation:
    """A row without its other streams, images above all."""
    return Observation(
        row.stamp_ns,
        {key: row.values[key] for key in keys},
        {key: row.valid[key] for key in keys},
    )


_bench: _Bench | None = None  # of a worker process


def _start_worker(evaluation: Evaluation) -> None:
    global _bench
    start_worker()
    _bench = _Bench.make(evaluation)


def _run_in_worker(evaluation: Evaluation, trial: range) -> list[EpisodeResult]:
    if _bench is None:
        raise RuntimeError("worker was not started")
    return list(_bench.run(evaluation, trial))


def evaluate_in_process(
    evaluation: Evaluation,
    *,
    workers: int = 1,
    on_episode: Callable[[EpisodeResult], None] | None = None,
) -> list[EpisodeResult]:
    """Runs all episodes; the results come in the order of the episodes.

    Raises:
        UserError: unknown model, task or world, or a model of another embodiment.
    """
    results = []
    for result in _episodes(evaluation, workers):
        results.append(result)
        if on_episode is not None:
            on_episode(result)
    return results


def _episodes(evaluation: Evaluation, workers: int) -> Iterator[EpisodeResult]:
    bench = _Bench.make(evaluation)  # what is wrong is said here, not by a broken pool
    trials = bench.trials(evaluation)
    if workers <= 1 or len(trials) <= 1:
        try:
            for trial in trials:
                yield from bench.run(evaluation, trial)
        finally:
            bench.simulator.close()
        return
    bench.simulator.close()
    # spawn: a forked child would share torch's and MuJoCo's threads and handles in an unknown state
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _start_worker, (evaluation,))
    try:
        futures = [pool.submit(_run_in_worker, evaluation, trial) for trial in trials]
        for future in futures:
            yield from future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def summary(evaluation: Evaluation, results: Sequence[EpisodeResult]) -> dict[str, Any]:
    """The figures of an evaluation as JSON data.

    `failures` counts the reasons of the episodes without success. `commands` is a hash of an
    episode's commands: two runs with equal hashes sent the same ones.
    """
    successes = sum(r.outcome.success for r in results)
    low, high = wilson_interval(successes, len(results))
    failures = Counter(r.outcome.reason for r in results if not r.outcome.success)
    return {
        "model": evaluation.model,
        "task": evaluation.task,
        "episodes": len(results),
        "seed": evaluation.seed,
        "options": dict(evaluation.options),
        "successes": successes,
        "success": successes / len(results),
        "low": low,
        "high": high,
        "score": float(np.mean([r.outcome.score for r in results])),
        "failures": dict(sorted(failures.items())),
        "steps": float(np.mean([r.ticks for r in results])),
        "limited_chunks": sum(r.limited for r in results),
        "outcomes": [
            {
                "episode": r.info.episode,
                "seed": r.info.seed,
                "success": r.outcome.success,
                "reason": r.outcome.reason,
                "steps": r.ticks,
                "commands": hashlib.sha256(np.ascontiguousarray(r.commands)).hexdigest()[:16],
            }
            for r in results
        ],
    }
