"""Training a ReLIC policy; a walk from a config to a checkpoint folder (arXiv 2410.02751, 3.3).

One iteration plays whole trials in fresh worlds. It stops for a *partial update* after each chunk:
PPO on all steps so far as one context, with the loss on the newest chunk. Before the trials go on,
memory and values are made anew with the new weights. The last update has its loss on all steps.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from embodied_rl.policies.relic.config import POLICY
from embodied_rl.policies.relic.episodes import Episodes
from embodied_rl.policies.relic.imitation import ImitationFigures, imitate
from embodied_rl.policies.relic.model import RelicModel
from embodied_rl.policies.relic.rollout import Trials, collect, joined, shuffled
from embodied_rl.policies.relic.run import RelicRun
from embodied_rl.sim.navigation.base import TRAIN
from embodied_rl.sim.navigation.registry import make_trial_world
from embodied_rl.training.config import as_mapping, run_fingerprint
from embodied_rl.training.iterations import run_iterations
from embodied_rl.training.ppo import UpdateFigures, learning_rate, update
from embodied_rl.training.publish import publish
from embodied_rl.training.state import TrainState
from embodied_rl.training.supervised import FitResult, step_seed

LOGGED_EPISODES = 8


def train_relic(
    run: RelicRun, *, out: Path, work: Path, resume: bool = False, quiet: bool = False
) -> FitResult:
    """Trains and, when it ran to its end, writes the checkpoint folder ``out``.

    The run is a function of its seed: what iteration k draws follows from (seed, k), so a run that
    was interrupted and resumed ends in the same weights.

    Args:
        work: folder of the resumable state and the log.
        resume: go on from the state that an interrupted run left in ``work``.

    Raises:
        UserError: a state of other settings.
    """
    settings = run.training
    torch.manual_seed(settings.seed)
    model = RelicModel(run.model)
    optimizer = torch.optim.Adam(model.parameters(), lr=run.ppo.learning_rate, eps=1e-5, fused=True)
    state = TrainState(model, optimizer, None)
    learner = Learner(run, model)
    total = -(-settings.transitions // learner.transitions)
    result = run_iterations(
        run.name,
        state,
        total,
        lambda state: learner.iterate(state, total),
        work=work,
        fingerprint=run_fingerprint(run),
        save_every=settings.save_every,
        resume=resume,
        quiet=quiet,
    )
    if result.finished:
        _publish(run, learner, out, result)
    return result


class Learner:
    """Plays and learns, one iteration after another."""

    def __init__(self, run: RelicRun, model: RelicModel) -> None:
        self._run, self.model = run, model
        settings = run.training
        world = make_trial_world(settings.world)
        self._worlds = world.worlds(TRAIN)
        self._trials = Trials(model, world, settings.trials, settings.trial_steps, LOGGED_EPISODES)

    @property
    def transitions(self) -> int:
        """Of one iteration."""
        return self._run.training.trials * self._run.training.trial_steps

    def iterate(self, state: TrainState, total: int) -> tuple[dict[str, Any], str]:
        """One iteration; the record for the log, and a line of text."""
        iteration, settings = state.step, self._run.training
        generator = torch.Generator().manual_seed(step_seed(settings.seed, iteration))
        warm = min(1.0, (iteration + 1) / max(1, settings.warmup))
        imitations = -(-self._run.imitation.transitions // self.transitions)
        rate = learning_rate(self._run.ppo, iteration / total)
        if iteration < imitations:
            rate = self._run.imitation.learning_rate
        for group in state.optimizer.param_groups:
            group["lr"] = warm * rate
        learned: ImitationFigures | UpdateFigures
        if iteration < imitations:
            learned = self.imitate(state.optimizer, iteration / imitations, generator)
        else:
            learned = self.learn(state.optimizer, generator)
        state.step += 1
        figures = episode_means(self._trials.table.episodes())
        record = {"iteration": state.step, "transitions": state.step * self.transitions}
        returns, successes = figures["return"], figures["success"]
        text = (
            f"return {returns[0]:.2f} -> {returns[-1]:.2f}, "
            f"success {successes[0]:.2f} -> {successes[-1]:.2f}"
        )
        return {**record, **figures, **vars(learned)}, text

    def imitate(
        self, optimizer: torch.optim.Optimizer, progress: float, generator: torch.Generator
    ) -> ImitationFigures:
        """Trials in new worlds beside the teacher."""
        run, trials = self._run, self._trials
        self._begin(generator)
        steps = run.training.trial_steps
        return imitate(
            self.model, optimizer, trials, steps, progress, run.imitation, run.ppo, generator
        )

    def _begin(self, generator: torch.Generator) -> None:
        count = self._run.training.trials
        chosen = torch.randint(len(self._worlds), (count,), generator=generator)
        self._trials.begin(self._worlds[chosen], generator)

    def learn(self, optimizer: torch.optim.Optimizer, generator: torch.Generator) -> UpdateFigures:
        """Trials in new worlds with partial updates on the way; figures of the last update."""
        settings, trials = self._run.training, self._trials
        self._begin(generator)
        chunk, rollout = settings.trial_steps // settings.updates, None
        for left in reversed(range(settings.updates)):
            played = collect(trials, chunk, generator)
            rollout = played if rollout is None else joined(rollout, played)
            learned = update(
                self.model,
                optimizer,
                rollout,
                trials.next_value,
                self._run.ppo,
                generator,
                sequences=True,
                loss_from=rollout.reward.shape[0] - chunk if left else 0,
            )
            if left:
                if settings.shuffle:
                    rollout = shuffled(rollout, generator)
                rollout.value = trials.refresh(rollout.observation)
        return learned


def episode_means(episodes: Episodes) -> dict[str, list[float]]:
    """Mean over the trials of each episode's figures; those that no trial finished are left out."""
    count = episodes.finished.sum(dim=0)
    known = count > 0

    def mean(part: Tensor) -> list[float]:
        total = (part * episodes.finished).sum(dim=0)
        return [round(x, 4) for x in (total / count)[known].tolist()]

    found = {
        "return": mean(episodes.returned),
        "success": mean(episodes.success),
        "efficiency": mean(episodes.efficiency),
    }
    # a trial of long episodes may be over before its first one is
    return found if bool(known.any()) else {key: [math.nan] for key in found}


def _publish(run: RelicRun, learner: Learner, out: Path, result: FitResult) -> None:
    settings = run.training
    parts = {key: as_mapping(value) for key, value in vars(run).items() if key != "name"}
    publish(
        out,
        policy=POLICY,
        name=run.name,
        task=settings.world,
        parts=parts,
        model=learner.model,
        seed=settings.seed,
        data=f"{result.step * learner.transitions:,} steps in {result.wall_s:.0f} s, in trials of "
        f"{settings.trial_steps} steps in the training worlds of `{settings.world}`.",
    )
