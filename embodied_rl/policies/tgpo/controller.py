"""A TGPO checkpoint as a policy on a robot: the twin's pursuit, driven by what is measured.

Every ``dt_s`` of the twin the network acts on the measured state, the twin says where its action
would lead, and the adapter turns that into the targets of the control ticks in between. Which
subgoals are met is judged on measured states at the twin's instants, counted from the first whole
row of the episode; where a row is missing there, on the next whole one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from embodied_rl.core.checkpoint import pack_memory, unpack_memory
from embodied_rl.core.embodiment import NANOSECONDS, Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.plan import (
    AVOIDED,
    DONE,
    MISSED,
    PENDING,
    Disc,
    PlannedItem,
    PlanRecord,
)
from embodied_rl.core.policy import ActionChunk, EpisodeInfo, PolicySpec, episode_seed
from embodied_rl.core.schema import parse_yaml
from embodied_rl.core.window import Observation
from embodied_rl.nn.device import AUTO, choose_device
from embodied_rl.nn.fingerprint import weights_fingerprint
from embodied_rl.policies.tgpo.adapters import make_adapter
from embodied_rl.policies.tgpo.allocate import uniform
from embodied_rl.policies.tgpo.runtime import (
    CANDIDATES,
    Pursuit,
    RunSettings,
    TgpoPolicy,
    load_tgpo,
)
from embodied_rl.sim.stl_tasks.task import StlTask, load_task, task_from
from embodied_rl.stl.parse import FormulaError

_TASK_FILE = re.compile(r"^(formula|regions)\s*:", re.MULTILINE)
INSTRUCTION = "instruction"


class TgpoController:
    """Deterministic given the episode's seed. Its memory is the task, the plan with its flags and
    clock, and the state of the generator that draws times."""

    def __init__(
        self, policy: TgpoPolicy, task: StlTask, embodiment: Embodiment, settings: RunSettings
    ):
        """
        Raises:
            UserError: the robot is not that of the policy, or the task does not fit the policy.
        """
        dynamics = policy.dynamics
        self._adapter = make_adapter(dynamics.name, dynamics.dt_s, embodiment)
        self._policy, self._own, self._settings = policy, task, settings
        self._period_ns = embodiment.period_ns
        self._dt_ns = round(dynamics.dt_s * NANOSECONDS)
        ticks = self._dt_ns // self._period_ns
        streams = self._adapter.streams
        self.spec = PolicySpec.on(embodiment, policy.name, streams, chunk=ticks, execute=ticks)
        self._owner = f"{policy.name}/{weights_fingerprint(policy.model, repr(policy.config))}"
        # Matrices this small are no faster on more threads, and sums would depend on their number.
        torch.set_num_threads(1)
        self._forget(seed=0)

    # ---------------------------------------------------------------- episodes and rows
    def reset(self, episode: EpisodeInfo) -> None:
        """Back to the task that it was loaded with; the episode's seed sets the times drawn."""
        self._forget(episode.seed)

    def _forget(self, seed: int) -> None:
        self._adapter.reset()
        self._seed, self._instructed, self._told = seed, 0, ""
        self._pursuit = self._pursuit_of(self._own, seed)
        self._next: Pursuit | None = None  # of an instruction, until the next act
        self._row: Observation | None = None
        self._clear()

    def _clear(self) -> None:
        """Before the first state of a pursuit."""
        self._begin_ns: int | None = None
        self._measured: list[Tensor] = []  # states (1, n) at instants that no act has seen yet
        self._begun = False
        self._expected: Tensor | None = None  # where the twin would be at the next instant
        self._follow_error_m = float("nan")
        self._late_steps = 0

    def _pursuit_of(self, task: StlTask, seed: int) -> Pursuit:
        generator = torch.Generator().manual_seed(seed)
        return Pursuit(self._policy, task, self._settings, generator)

    def observe(self, observation: Observation) -> None:
        """Keep the row, and the state of every instant of the twin that has come."""
        self._row = observation
        if observation.missing:
            return
        if self._begin_ns is None:
            self._begin_ns = observation.stamp_ns
        state = self._state(observation)
        while len(self._measured) < self._instants(observation.stamp_ns) - self._known:
            self._measured.append(state)
            self._late_steps += (observation.stamp_ns - self._begin_ns) % self._dt_ns != 0

    @property
    def _known(self) -> int:
        """Instants that the pursuit has dealt with."""
        return self._pursuit.mdp.t + 1 if self._begun else 0

    def _instants(self, now_ns: int) -> int:
        assert self._begin_ns is not None
        steps = (now_ns - self._begin_ns) // self._dt_ns
        return min(steps, self._policy.dynamics.steps) + 1

    def _state(self, row: Observation) -> Tensor:
        return torch.tensor(self._adapter.state(row.values)[None], dtype=torch.float32)

    # ---------------------------------------------------------------- acting
    def act(self) -> ActionChunk:
        """The targets until the next act; at rest once the formula's episode is over.

        Raises:
            UserError: nothing was observed, or a stream is missing in the newest row.
        """
        row = self._row
        if row is None or row.missing:
            raise UserError(
                f"policy {self.spec.name}: expected all of {list(self.spec.streams)} in the newest "
                f"row, saw {'no row' if row is None else f'{row.missing} missing'}"
            )
        if self._next is not None:
            self._pursuit, self._next = self._next, None
            self._clear()
            self.observe(row)
        self._catch_up()
        state = self._state(row)
        now = state[0].double().numpy()
        if self._pursuit.over:
            values = self._adapter.rest(now)
        else:
            self._pursuit.mdp.look(state)  # between two instants after a row was missing
            after = self._policy.dynamics.step(state, self._pursuit.act())
            self._expected = after
            values = self._adapter.targets(now, after[0].double().numpy())
        return ActionChunk(row.stamp_ns, self._period_ns, values)

    def _catch_up(self) -> None:
        """Let the pursuit see the states that have come since the last act."""
        position = self._policy.dynamics.position
        for state in self._measured:
            if not self._begun:
                self._pursuit.begin(state)
                self._begun = True
                continue
            if self._expected is not None:
                away = position(state) - position(self._expected)
                self._follow_error_m, self._expected = float(away.norm()), None
            self._pursuit.arrive(state)
        self._measured.clear()

    def executed(self, chunk: ActionChunk) -> None:
        """The adapter may plan from what the limits let through."""
        self._adapter.executed(chunk)

    # ---------------------------------------------------------------- instructions
    def instruct(self, text: str) -> None:
        """Take on another task, from the next act on and with a clock of its own.

        Args:
            text: a formula over the regions of the present task, or the YAML of a task; keys that
                it leaves out are those of the present one.

        Raises:
            UserError: no task, one of another robot or larger than the policy's shape, or one
                without feasible times; the old task stays in force.
        """
        old = (self._next or self._pursuit).task
        if _words(text) in (_words(old.text), self._told):
            return
        given = parse_yaml(text, INSTRUCTION) if _TASK_FILE.search(text) else {"formula": text}
        plain = {**old.as_mapping(), "name": INSTRUCTION, **given}
        plain.pop("witness", None)  # of another task
        try:
            task = task_from(plain, INSTRUCTION)
        except FormulaError as error:  # of several lines: it points at the column
            raise UserError(f"{INSTRUCTION}: {str(error).splitlines()[0]}") from error
        found = self._pursuit_of(task, episode_seed(self._seed, self._instructed + 1))
        uniform(found.groundings, torch.zeros(1, dtype=torch.long), torch.Generator())
        self._next, self._told = found, _words(text)
        self._instructed += 1

    # ---------------------------------------------------------------- what others see
    def plan(self) -> dict[str, Any] | None:
        """A `PlanRecord` as plain data."""
        if not self._begun or self._begin_ns is None:
            return None
        pursuit, task = self._pursuit, self._pursuit.task
        return PlanRecord(
            task=task.name,
            formula=task.text,
            start_ns=self._begin_ns,
            dt_s=task.dynamics.dt_s,
            steps=task.dynamics.steps,
            step=pursuit.mdp.t,
            value=float(pursuit.plan.value[0]),
            replanned=int(pursuit.replanned[0]),
            violated=bool(pursuit.mdp.violated[0]),
            follow_error_m=self._follow_error_m,
            regions={name: Disc(r.centre, r.radius) for name, r in task.regions.items()},
            items=tuple(_items(pursuit)),
        ).as_mapping()

    def figures(self) -> dict[str, float]:
        """The step of the plan's clock, subgoals done and missed, searches for new times that had
        success, instants judged on a later row, and the newest distance from the twin in m."""
        if not self._begun:
            return {}
        mdp = self._pursuit.mdp
        return {
            "plan_step": mdp.t,
            "subgoals_done": int(mdp.done.sum()),
            "subgoals_missed": int(mdp.missed.sum()),
            "replanned": int(self._pursuit.replanned[0]),
            "late_steps": self._late_steps,
            "follow_error_m": self._follow_error_m,
        }

    # ---------------------------------------------------------------- memory
    def save_memory(self) -> bytes:
        fields: dict[str, Any] = {
            "task": self._pursuit.task.as_mapping(),
            "next": None if self._next is None else self._next.task.as_mapping(),
            "seed": self._seed,
            "instructed": self._instructed,
            "told": self._told,
            "begin_ns": self._begin_ns,
            "begun": self._begun,
            "late_steps": self._late_steps,
        }
        arrays: dict[str, np.ndarray] = {}
        if self._measured:
            arrays["measured"] = torch.cat(self._measured).numpy()
        if self._begun:
            arrays |= {f"pursuit/{k}": v.numpy() for k, v in self._pursuit.memory().items()}
        return pack_memory(self._owner, fields, arrays)

    def load_memory(self, blob: bytes) -> None:
        """Continue from `save_memory`; instants that have passed since are judged on the first row
        to come."""
        fields, arrays = unpack_memory(self._owner, blob)
        self._forget(fields["seed"])
        self._instructed, self._told = fields["instructed"], fields["told"]
        self._pursuit = self._pursuit_of(task_from(fields["task"], "memory"), self._seed)
        if fields["next"] is not None:
            seed = episode_seed(self._seed, self._instructed)
            self._next = self._pursuit_of(task_from(fields["next"], "memory"), seed)
        self._begin_ns, self._begun = fields["begin_ns"], fields["begun"]
        self._late_steps = fields["late_steps"]
        if "measured" in arrays:
            self._measured = list(torch.from_numpy(arrays["measured"].copy()).split(1))
        if self._begun:
            mine = {k: v for k, v in arrays.items() if k.startswith("pursuit/")}
            self._pursuit.restore(
                {k.removeprefix("pursuit/"): torch.from_numpy(v.copy()) for k, v in mine.items()}
            )


def _words(text: str) -> str:
    return " ".join(text.split())


def _items(pursuit: Pursuit) -> list[PlannedItem]:
    """Subgoals in the order of their times with how they stand, then what is to be avoided."""
    plan, mdp, groundings = pursuit.plan, pursuit.mdp, pursuit.groundings
    schedule, order = groundings.ordered(plan.chosen, plan.times)
    chosen = int(plan.chosen[0])
    subgoals, avoided = groundings.subgoals[chosen], groundings.avoided[chosen]
    found = []
    for place, item in enumerate(order[0].tolist()):
        if item < len(subgoals):
            state = PENDING
            if mdp.done[0, place] or mdp.missed[0, place]:
                state = DONE if mdp.done[0, place] else MISSED
            first, last = int(schedule.first[0, place]), int(schedule.last[0, place])
            found.append(PlannedItem(subgoals[item].name, first, last, state))
    for place, item in enumerate(avoided):
        first, last = int(schedule.avoid_first[0, place]), int(schedule.avoid_last[0, place])
        found.append(PlannedItem(item.name, first, last, AVOIDED))
    return found


def load_controller(
    folder: Path,
    embodiment: Embodiment,
    task: str | None,
    *,
    samples: int | None = None,
    device: str = AUTO,
) -> TgpoController:
    """A policy from a checkpoint folder.

    Args:
        task: name of a stored task, or a task file.
        samples: assignments of times that a plan is chosen from; None takes the default number.
        device: auto or cpu; networks this small are fastest there.

    Raises:
        UserError: no task; damaged; or checkpoint, robot and task do not fit each other.
    """
    if device != AUTO and choose_device(device).type != "cpu":
        raise UserError(f"device: expected auto or cpu for a tgpo policy, saw '{device}'")
    policy = load_tgpo(folder)
    if task is None:
        raise UserError(
            f"policy {policy.name} needs a task: spec:=NAME of sim_worlds/stl_tasks, or a task file"
        )
    settings = RunSettings(CANDIDATES if samples is None else samples)
    return TgpoController(policy, load_task(task), embodiment, settings)
