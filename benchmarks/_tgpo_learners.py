"""Reinforcement learning without timed subgoals: what a formula asks of the past must be seen.

f_mdp     the state, and for every region whether it has been entered yet (progress flags)
tau_mdp   the last states of a fixed number of steps
rnn       the state alone; a recurrent policy remembers

All see the clock and the margin to every region of their one task. Reward comes at the end.
"""

from __future__ import annotations

import torch
from _tgpo_rivals import ARENA_M, BaselineRun, LearnerSettings
from torch import Tensor, nn

from embodied_rl.policies.tgpo.model import GaussianActorCritic
from embodied_rl.sim.stl_tasks.task import StlTask
from embodied_rl.training.ppo import Evaluation, Rollout, learning_rate, update
from embodied_rl.training.supervised import step_seed


class FormulaMdp:
    """Episodes of one task, in step with each other, as one method sees them."""

    def __init__(self, task: StlTask, method: str, settings: LearnerSettings):
        self._task, self._method, self._settings = task, method, settings
        regions = list(task.regions.values())
        self._centre = torch.tensor([region.centre for region in regions])
        self._radius = torch.tensor([region.radius for region in regions])
        rows = task.dynamics.feature_dim + len(regions)
        count = settings.history if method == "tau_mdp" else 1
        self.observation_dim = 1 + rows * count + (len(regions) if method == "f_mdp" else 0)

    def reset(self, state: Tensor) -> Tensor:
        self.t, self.state = 0, state
        self.positions = [self._task.dynamics.position(state)]
        self._entered = torch.zeros(len(state), len(self._radius), dtype=torch.bool)
        row = self._row()
        self._rows = [row] * self._settings.history
        return self._observe(row)

    def step(self, action: Tensor) -> tuple[Tensor, Tensor]:
        """Observation ``(N, D)`` and reward ``(N,)``."""
        dynamics = self._task.dynamics
        self.state, self.t = dynamics.step(self.state, action), self.t + 1
        self.positions.append(dynamics.position(self.state))
        row = self._row()
        reward = torch.zeros(len(row))
        if self.t == dynamics.steps:
            robustness = self.robustness().float() * (ARENA_M / dynamics.arena_m)
            reward = robustness.clamp(min=self._settings.worst_m)
            reward = reward + self._settings.success * (robustness > 0)
        return self._observe(row), reward

    def robustness(self) -> Tensor:
        """``(N,)`` at the end of the episodes."""
        return self._task.robustness(torch.stack(self.positions, dim=1))

    def _row(self) -> Tensor:
        away = self._centre - self.positions[-1][:, None]
        margin = self._radius - torch.linalg.vector_norm(away, dim=-1)
        self._entered |= margin > 0
        dynamics = self._task.dynamics
        return torch.cat([dynamics.features(self.state), margin / dynamics.arena_m], dim=1)

    def _observe(self, row: Tensor) -> Tensor:
        clock = torch.full((len(row), 1), self.t / self._task.dynamics.steps)
        if self._method == "tau_mdp":
            self._rows = [row, *self._rows[:-1]]
            return torch.cat([clock, *self._rows], dim=1)
        if self._method == "f_mdp":
            return torch.cat([clock, row, self._entered.float()], dim=1)
        return torch.cat([clock, row], dim=1)


class RecurrentActorCritic(nn.Module):
    """A gated recurrent unit before the same two networks; PPO hands out whole episodes."""

    def __init__(self, observation_dim: int, action_dim: int, width: int, log_std: float):
        super().__init__()
        self._memory = nn.GRU(observation_dim, width)
        self._heads = GaussianActorCritic(width, action_dim, width, "tanh", log_std)
        self._hidden: Tensor | None = None

    def forget(self) -> None:
        self._hidden = None

    def remembered(self, observation: Tensor) -> Tensor:
        """The memory ``(N, W)`` after one more observation ``(N, D)``."""
        found, self._hidden = self._memory(observation[None], self._hidden)
        return found[0]

    def act(self, observation: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        return self._heads.act(self.remembered(observation), generator)

    def actor(self, observation: Tensor) -> Tensor:
        return self._heads.actor(self.remembered(observation))

    def evaluate(self, observation: Tensor, action: Tensor) -> Evaluation:
        """On whole episodes ``(T, B, D)``."""
        return self._heads.evaluate(self._memory(observation)[0], action)


Learner = GaussianActorCritic | RecurrentActorCritic


def train_learner(task: StlTask, run: BaselineRun, transitions: int, seed: int) -> Learner:
    """A policy for one task from at least that many transitions, whole episodes."""
    settings, steps = run.learner, task.dynamics.steps
    mdp = FormulaMdp(task, run.method, settings)
    torch.manual_seed(seed)
    sizes = (mdp.observation_dim, task.dynamics.action_dim, settings.width)
    model: Learner = (
        RecurrentActorCritic(*sizes, settings.log_std)
        if run.method == "rnn"
        else GaussianActorCritic(*sizes, "tanh", settings.log_std)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=run.ppo.learning_rate, eps=1e-5, fused=True)
    total = -(-transitions // (settings.environments * steps))
    for iteration in range(total):
        generator = torch.Generator().manual_seed(step_seed(seed, iteration))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(run.ppo, iteration / total)
        rollout = _collect(task, mdp, model, settings.environments, generator)
        last = torch.zeros(settings.environments)
        update(model, optimizer, rollout, last, run.ppo, generator, sequences=run.method == "rnn")
    return model.requires_grad_(False)


@torch.no_grad()
def _collect(
    task: StlTask, mdp: FormulaMdp, model: Learner, count: int, generator: torch.Generator
) -> Rollout:
    """One episode of every environment."""
    observation = mdp.reset(task.start(count, generator))
    if isinstance(model, RecurrentActorCritic):
        model.forget()
    kept: list[tuple[Tensor, ...]] = []
    for _ in range(task.dynamics.steps):
        action, log_probability, value = model.act(observation, generator)
        following, reward = mdp.step(action)
        kept.append((observation, action, log_probability, value, reward))
        observation = following
    ended = torch.zeros(task.dynamics.steps, count, dtype=torch.bool)
    ended[-1] = True
    return Rollout(*(torch.stack(part) for part in zip(*kept)), ended)


@torch.no_grad()
def run_learner(task: StlTask, run: BaselineRun, model: Learner, state: Tensor) -> Tensor:
    """Robustness ``(N,)`` of episodes from states ``(N, n)`` by the mean action."""
    mdp = FormulaMdp(task, run.method, run.learner)
    observation = mdp.reset(state)
    if isinstance(model, RecurrentActorCritic):
        model.forget()
    for _ in range(task.dynamics.steps):
        observation, _ = mdp.step(model.actor(observation))
    return mdp.robustness()
