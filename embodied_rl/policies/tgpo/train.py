"""Training a TGPO policy; a walk from a config to a checkpoint folder.

One iteration: every environment draws a task, a start and an assignment of times (uniformly, or by
a chain that the critic guides), plays one whole episode, and PPO learns from all of them. There is
nothing to bootstrap at the end: the horizon is finite and the clock is observed. Returns end at a
failure, too: what a robot earns by its other subgoals must not make it pay to give one up.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from embodied_rl.nn.device import choose_device, device_of, new_tensors_on
from embodied_rl.policies.tgpo.allocate import metropolis_hastings, uniform
from embodied_rl.policies.tgpo.config import POLICY, TgpoRun
from embodied_rl.policies.tgpo.groundings import Groundings
from embodied_rl.policies.tgpo.mdp import AugmentedMdp
from embodied_rl.policies.tgpo.model import GaussianActorCritic
from embodied_rl.policies.tgpo.planner import Critic, temperature
from embodied_rl.policies.tgpo.runtime import make_model
from embodied_rl.sim.dynamics.registry import make_dynamics
from embodied_rl.sim.stl_tasks.generate import FAMILIES, generate
from embodied_rl.sim.stl_tasks.task import StlTask, load_task
from embodied_rl.training.config import as_mapping, run_fingerprint
from embodied_rl.training.iterations import run_iterations
from embodied_rl.training.ppo import Rollout, learning_rate, update
from embodied_rl.training.publish import publish
from embodied_rl.training.state import TrainState
from embodied_rl.training.supervised import FitResult, step_seed


def training_tasks(run: TgpoRun) -> list[StlTask]:
    """The tasks of the config and the generated ones, which need not all be feasible."""
    settings = run.training
    tasks = [] if settings.hold_out else [load_task(name) for name in settings.tasks]
    dynamics = make_dynamics(run.model.dynamics)
    families = sorted(FAMILIES)
    for i in range(settings.generated):
        seed = settings.generated_seed + i
        tasks.append(generate(f"generated_{seed}", dynamics, families[i % len(families)], seed))
    return tasks


@dataclass(frozen=True)
class EpisodeFigures:
    """What an iteration's episodes were like; shares of episodes but for ``reward``."""

    reward: float
    success: float  # all subgoals met and nothing violated
    hits: float  # share of subgoals met
    violated: float
    infeasible: float  # share of uniform draws that had to be repeated
    accepted: float  # share of the chains' proposals


class Collector:
    """Plays the episodes of one iteration after another."""

    def __init__(self, run: TgpoRun, model: GaussianActorCritic):
        self._run, self._model = run, model
        self.groundings = Groundings(training_tasks(run), run.model.shape)
        self._mdp = AugmentedMdp(self.groundings.dynamics, run.reward)
        tasks = self.groundings.tasks
        self._low = torch.tensor([task.start_low for task in tasks])
        self._high = torch.tensor([task.start_high for task in tasks])

    @property
    def transitions(self) -> int:
        """Of one iteration."""
        return self._run.training.environments * self.groundings.dynamics.steps

    def starts(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Tasks ``(N,)`` and states ``(N, n)``."""
        count = self._run.training.environments
        task = torch.randint(len(self.groundings.tasks), (count,), generator=generator)
        share = torch.rand(count, self._low.shape[1], generator=generator)
        place = self._low[task] + share * (self._high - self._low)[task]
        return task, self.groundings.dynamics.start(place, generator)

    def assign(
        self, task: Tensor, state: Tensor, iteration: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, float, float]:
        """Alternatives and times; the first ``guided`` share of the episodes has a chain's."""
        settings = self._run.allocation
        chosen, times, infeasible = uniform(self.groundings, task, generator)
        guided = int(settings.guided * len(task))
        if iteration < settings.warmup or not guided:
            return chosen, times, infeasible, float("nan")
        eta = temperature(
            Critic(self._model, self.groundings, state)(chosen, times), task, settings
        )
        critic = Critic(self._model, self.groundings, state[:guided])
        chosen[:guided], times[:guided], _, accepted = metropolis_hastings(
            self.groundings, chosen[:guided], times[:guided], critic, eta, settings, generator
        )
        return chosen, times, infeasible, accepted

    @torch.no_grad()
    def collect(self, iteration: int, generator: torch.Generator) -> tuple[Rollout, EpisodeFigures]:
        """One episode of every environment."""
        task, state = self.starts(generator)
        chosen, times, infeasible, accepted = self.assign(task, state, iteration, generator)
        mdp, steps = self._mdp, self.groundings.dynamics.steps
        observation = mdp.reset(state, self.groundings.schedule(chosen, times))
        kept: list[tuple[Tensor, ...]] = []
        for _ in range(steps):
            action, log_probability, value = self._model.act(observation, generator)
            following, reward = mdp.step(action)
            kept.append((observation, action, log_probability, value, reward, mdp.failed))
            observation = following
        rollout = Rollout(*(torch.stack(part) for part in zip(*kept)))
        rollout.ended[-1] = True
        present = mdp.schedule.present.sum()
        figures = EpisodeFigures(
            float(rollout.reward.sum(dim=0).mean()),
            float(mdp.success.float().mean()),
            float(mdp.done.sum() / present),
            float(mdp.violated.float().mean()),
            infeasible,
            accepted,
        )
        return rollout, figures


def train_tgpo(
    run: TgpoRun,
    *,
    out: Path,
    work: Path,
    device: str = "cpu",
    resume: bool = False,
    quiet: bool = False,
) -> FitResult:
    """Trains and, when it ran to its end, writes the checkpoint folder ``out``.

    The run is a function of its seed: what iteration k draws follows from (seed, k), so a run that
    was interrupted and resumed ends in the same weights.

    Args:
        work: folder of the resumable state and the log.
        device: where robots and networks are computed, see `choose_device`.
        resume: go on from the state that an interrupted run left in ``work``.

    Raises:
        UserError: a task that the shape does not take; a state of other settings; no such device.
    """
    with new_tensors_on(choose_device(device)):
        return _train(run, out, work, resume, quiet)


def _train(run: TgpoRun, out: Path, work: Path, resume: bool, quiet: bool) -> FitResult:
    settings = run.training
    torch.manual_seed(settings.seed)
    model = make_model(run.model)
    optimizer = torch.optim.Adam(model.parameters(), lr=run.ppo.learning_rate, eps=1e-5, fused=True)
    state = TrainState(model, optimizer, None)
    collector = Collector(run, model)
    total = -(-settings.transitions // collector.transitions)
    result = run_iterations(
        run.name,
        state,
        total,
        lambda state: _iterate(run, collector, state, total),
        work=work,
        fingerprint=run_fingerprint(run),
        save_every=settings.save_every,
        resume=resume,
        quiet=quiet,
    )
    if result.finished:
        _publish(run, model, collector, out, state.step, result.wall_s)
    return result


def _iterate(
    run: TgpoRun, collector: Collector, state: TrainState, total: int
) -> tuple[dict[str, Any], str]:
    """Collects and learns once; the record for the log, and a line of text."""
    iteration = state.step
    generator = torch.Generator(device_of(state.model))
    generator.manual_seed(step_seed(run.training.seed, iteration))
    rollout, figures = collector.collect(iteration, generator)
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(run.ppo, iteration / total)
    last_value = torch.zeros(run.training.environments)
    learned = update(state.model, state.optimizer, rollout, last_value, run.ppo, generator)
    state.step += 1
    record = {"iteration": state.step, "transitions": state.step * collector.transitions}
    text = f"return {figures.reward:.2f}, success {figures.success:.3f}"
    return {**record, **vars(figures), **vars(learned)}, text


def _publish(
    run: TgpoRun,
    model: GaussianActorCritic,
    collector: Collector,
    out: Path,
    step: int,
    wall_s: float,
) -> None:
    settings = run.training
    held = "held out" if settings.hold_out else "trained on"
    parts = {key: as_mapping(value) for key, value in vars(run).items() if key != "name"}
    dynamics = collector.groundings.dynamics
    parts["dt_s"], parts["steps"] = dynamics.dt_s, dynamics.steps
    publish(
        out,
        policy=POLICY,
        name=run.name,
        task=dynamics.name,
        parts=parts,
        model=model,
        seed=settings.seed,
        data=f"{step * collector.transitions:,} transitions in {wall_s:.0f} s; "
        f"{len(settings.tasks)} tasks {held} ({', '.join(settings.tasks)}), "
        f"{settings.generated} generated ones trained on.",
    )
