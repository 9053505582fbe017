"""A trained TGPO policy at work: times chosen, subgoals pursued, missed ones planned anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from embodied_rl.core.checkpoint import load_checkpoint
from embodied_rl.core.errors import UserError
from embodied_rl.core.schema import Section
from embodied_rl.nn.device import choose_device
from embodied_rl.nn.weights import load_weights
from embodied_rl.policies.tgpo.allocate import AllocationSettings
from embodied_rl.policies.tgpo.config import POLICY, TgpoConfig
from embodied_rl.policies.tgpo.groundings import Groundings
from embodied_rl.policies.tgpo.mdp import AugmentedMdp, RewardWeights, observation_dim
from embodied_rl.policies.tgpo.model import GaussianActorCritic
from embodied_rl.policies.tgpo.planner import Plan, Planner
from embodied_rl.sim.dynamics.base import Dynamics
from embodied_rl.sim.dynamics.registry import make_dynamics
from embodied_rl.sim.stl_tasks.task import StlTask
from embodied_rl.training.config import read_dataclass

CANDIDATES = 512


@dataclass(frozen=True)
class RunSettings:
    """``candidates`` assignments are scored for each start; 1 is a random one, unjudged.

    Without ``replan`` a subgoal that was missed is given up.
    """

    candidates: int = CANDIDATES
    replan: bool = True

    def __post_init__(self) -> None:
        if self.candidates < 1:
            raise UserError(f"candidates: expected at least 1, saw {self.candidates}")


@dataclass(frozen=True)
class Episodes:
    """What N robots did in one task."""

    positions: Tensor  # (N, T + 1, d) m
    robustness: Tensor  # (N,) m, of the task's own formula on these positions
    certified: Tensor  # (N,) bool: all subgoals of the plan met, nothing violated
    violated: Tensor  # (N,) bool: a region to be avoided by the plan was entered
    replanned: Tensor  # (N,) how often new times were found for missed subgoals
    value: Tensor  # (N,) the critic's, of the first plan


@dataclass(frozen=True)
class TgpoPolicy:
    """Network, its configuration, and how its times are chosen."""

    name: str
    config: TgpoConfig
    model: GaussianActorCritic
    allocation: AllocationSettings

    @property
    def dynamics(self) -> Dynamics:
        return make_dynamics(self.config.dynamics)

    def groundings(self, tasks: Sequence[StlTask]) -> Groundings:
        """The tasks as this policy takes them.

        Raises:
            UserError: a task of another robot, outside the fragment, or larger than the shape.
        """
        for task in tasks:
            if task.dynamics.name != self.config.dynamics:
                raise UserError(
                    f"policy {self.name}: trained for {self.config.dynamics}, task {task.name} is "
                    f"one of {task.dynamics.name}"
                )
        return Groundings(tasks, self.config.shape)

    @torch.no_grad()
    def run(
        self, task: StlTask, state: Tensor, settings: RunSettings, generator: torch.Generator
    ) -> Episodes:
        """Episodes from states ``(N, n)`` by the mean action."""
        pursuit = Pursuit(self, task, settings, generator)
        pursuit.begin(state)
        value = pursuit.plan.value.clone()
        mdp, positions = pursuit.mdp, [task.dynamics.position(state)]
        while not pursuit.over:
            pursuit.arrive(task.dynamics.step(mdp.state, pursuit.act()))
            positions.append(task.dynamics.position(mdp.state))
        trace = torch.stack(positions, dim=1)
        robustness = task.robustness(trace)
        return Episodes(trace, robustness, mdp.success, mdp.violated, pursuit.replanned, value)


class Pursuit:
    """N robots after the subgoals of one task; what a run in the model and a real robot share.

    ``begin``, then ``act`` and ``arrive`` in turn until it is ``over``. Where a robot arrives is
    the caller's business: the model's next state, or a measured one.
    """

    def __init__(
        self,
        policy: TgpoPolicy,
        task: StlTask,
        settings: RunSettings,
        generator: torch.Generator,
    ):
        """Raises UserError as `TgpoPolicy.groundings` does."""
        self._model, self._replan = policy.model, settings.replan
        self.task, self.generator = task, generator
        self.groundings = policy.groundings([task])
        self._planner = Planner(
            policy.model, self.groundings, policy.allocation, settings.candidates
        )
        self.mdp = AugmentedMdp(task.dynamics, RewardWeights())

    @torch.no_grad()
    def begin(self, state: Tensor) -> None:
        """Choose times from states ``(N, n)`` at t = 0."""
        count = len(state)
        task = torch.zeros(count, dtype=torch.long)
        self.plan = self._planner.plan(task, state, self.generator)
        self.mdp.reset(state, self.groundings.schedule(self.plan.chosen, self.plan.times))
        self.hopeful = torch.ones(count, dtype=torch.bool)  # no search for new times was in vain
        self.replanned = torch.zeros(count, dtype=torch.long)

    @property
    def over(self) -> bool:
        return self.mdp.t >= self.task.dynamics.steps

    @torch.no_grad()
    def act(self) -> Tensor:
        """Mean actions ``(N, A)``, after new times for what was missed and can still be met."""
        late = torch.nonzero(self.mdp.missed.any(dim=1) & self.hopeful)[:, 0]
        if self._replan and len(late):
            found = self._planner.replan(self.mdp, late, self.plan, self.generator)
            self.replanned[late[found]] += 1
            self.hopeful[late[~found]] = False
        return self._model.actor(self.mdp.observe())

    def arrive(self, state: Tensor) -> None:
        """One step later the robots are in states ``(N, n)``."""
        self.mdp.arrive(state)

    def memory(self) -> dict[str, Tensor]:
        """All that :meth:`restore` of the same policy and task needs to go on."""
        mdp, plan = self.mdp, self.plan
        return {
            **{key: getattr(plan, key) for key in ("chosen", "times", "value")},
            **{key: getattr(mdp, key) for key in ("state", "done", "missed", "violated")},
            "t": torch.tensor(mdp.t),
            "hopeful": self.hopeful,
            "replanned": self.replanned,
            "generator": self.generator.get_state(),
        }

    def restore(self, memory: Mapping[str, Tensor]) -> None:
        """Go on from a :meth:`memory`."""
        self.plan = Plan(memory["chosen"], memory["times"], memory["value"])
        schedule = self.groundings.schedule(self.plan.chosen, self.plan.times)
        flags = (memory["done"], memory["missed"], memory["violated"])
        self.mdp.restore(int(memory["t"]), memory["state"], schedule, *flags)
        self.hopeful, self.replanned = memory["hopeful"], memory["replanned"]
        self.generator.set_state(memory["generator"])


def load_tgpo(folder: Path, device: str = "cpu") -> TgpoPolicy:
    """A policy from a checkpoint folder, on a device as for `choose_device`.

    Raises:
        UserError: no such device; damaged, not a TGPO checkpoint, or made for another time step,
            episode length or layout of the observation than this version has.
    """
    data, arrays = load_checkpoint(folder)
    root = Section(str(folder / "config.yaml"), "", data)
    root.choice("policy", (POLICY,))
    parts = []
    for key, kind in (("model", TgpoConfig), ("allocation", AllocationSettings)):
        section = root.optional_child(key)
        if section is None:
            root.fail(key, "a mapping", "none")
        parts.append(read_dataclass(kind, section))
    config, allocation = parts
    dynamics = make_dynamics(config.dynamics)
    for key, expected in (("dt_s", dynamics.dt_s), ("steps", dynamics.steps)):
        if root.value(key) != expected:
            root.fail(key, f"{expected} as {dynamics.name} has", root.value(key))
    model = make_model(config)
    load_weights(model, arrays, folder / "weights.safetensors")
    model = model.eval().requires_grad_(False).to(choose_device(device))
    return TgpoPolicy(root.text("name"), config, model, allocation)


def make_model(config: TgpoConfig) -> GaussianActorCritic:
    """An untrained network for the robot and shape of a configuration."""
    dynamics = make_dynamics(config.dynamics)
    return GaussianActorCritic(
        observation_dim(dynamics, config.shape),
        dynamics.action_dim,
        config.width,
        config.activation,
        config.log_std,
    )
