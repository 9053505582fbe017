"""A ReLIC checkpoint as a policy on a mobile base: one action of the grid at a time.

The network was trained on a grid of cells. Whenever the base has finished a motion and stands, what
its sensors show is turned into a view of the grid, the network draws the next action, and a
discrete motion carries it out: forward is a cell, a turn a quarter. After ``stop`` the base stands
still until the next episode. All steps of the trial stay in the network's context.

It stands still too, and says why, where it would have to guess: without an instruction that it
knows, after more actions than its position table has rows, outside the home, and when one episode
fills the whole context.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from embodied_rl.core.checkpoint import pack_memory, unpack_memory
from embodied_rl.core.discrete_motion import STEP_M, STREAMS, TARGETS, TURN_RAD, DiscreteMotion
from embodied_rl.core.embodiment import NANOSECONDS, Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import ActionChunk, EpisodeInfo, PolicySpec
from embodied_rl.core.window import Observation
from embodied_rl.nn.device import AUTO, choose_device
from embodied_rl.policies.relic.evaluation import Loaded, load_relic_model
from embodied_rl.policies.relic.memory import TrialMemory
from embodied_rl.policies.relic.perception import (
    DEPTH,
    SCAN,
    SEGMENTATION,
    CropPerception,
)
from embodied_rl.policies.relic.tokens import Tokens
from embodied_rl.sim.navigation.egocentric import STOP, EgocentricNavigation
from embodied_rl.sim.navigation.grid import FORWARD, TURN_LEFT, GridPose
from embodied_rl.sim.navigation.instructions import wanted_type
from embodied_rl.sim.navigation.layout import OBJECT_NAMES
from embodied_rl.sim.navigation.registry import CAMERA_RAD

CONTEXT_STEPS = 65_536
ENCODE_STEPS = 4_096  # of context that are encoded anew at once: 0.2 s on one core
EXECUTE = 2  # control ticks between two looks at the motion
BLOCKED_S = 0.3  # that a step into an obstacle lasts: it is not made, as in the grid
QUARTER = round(math.pi / 2 / TURN_RAD)  # turns of 30 degrees


class RelicController:
    """Deterministic given the seeds of the episodes and the observations.

    Args:
        loaded: a model of an egocentric world.
        embodiment: a base with odometry without drift, lidar, and a camera of
            :data:`CAMERA_RAD` from left to right that tells objects apart.
        context_steps: steps that the context holds at most; whole oldest episodes make room.
        device: of the network.

    Raises:
        UserError: the model acts in another kind of world or needs rewards, or the robot lacks a
            stream or has other commands.
    """

    def __init__(
        self,
        loaded: Loaded,
        embodiment: Embodiment,
        *,
        context_steps: int = CONTEXT_STEPS,
        device: torch.device | str = "cpu",
    ) -> None:
        world = loaded.world
        if (
            not isinstance(world, EgocentricNavigation)
            or world.relative_pose
            or loaded.model.config.previous_reward
        ):
            raise UserError(
                f"policy {loaded.name}: expected a model of a robot's own view, with its place on "
                f"the map and without rewards, saw one of world '{world.name}'; drive "
                "relic_apartment"
            )
        streams = embodiment.require([*STREAMS, SCAN, DEPTH, SEGMENTATION])
        self._perception = CropPerception(world, embodiment, CAMERA_RAD)
        self._motion = DiscreteMotion(embodiment)
        self._world, self._device = world, torch.device(device)
        self._model = loaded.model.to(self._device)
        self._horizon = loaded.model.config.horizon
        self._memory = TrialMemory(
            self._model, capacity=min(256, context_steps), limit=context_steps
        )
        self._cell_steps = round(world.layout_settings.cell_m / STEP_M)
        # the newest image was taken after the base came to rest
        self._settle_ns = max(streams[key].period_ns for key in (DEPTH, SEGMENTATION))
        self.spec = PolicySpec.on(embodiment, loaded.name, streams, chunk=TARGETS, execute=EXECUTE)
        # Matrices this small are no faster on more threads, and sums would depend on their number.
        torch.set_num_threads(1)
        self._begin_trial(seed=0)

    def warm_up(self) -> None:
        """Do once what the first action does: the libraries' first calls take longer than all that
        a robot has time for. Begins a trial."""
        shapes = self.spec.streams
        blank = [np.zeros(shapes[key]) for key in (SCAN, DEPTH, SEGMENTATION)]
        at, cells, _ = self._perception.look(self._perception.centre, *blank)
        self._draw(self._step(self._tokens(cells, 0, at)))
        self._begin_trial(seed=0)

    # ---------------------------------------------------------------- trials and episodes
    def reset(self, episode: EpisodeInfo) -> None:
        """A new trial: the context is forgotten."""
        self._begin_trial(episode.seed)
        self._take(episode.instruction)

    def next_episode(self, episode: EpisodeInfo) -> None:
        """The same home goes on: the context stays."""
        self._begin_episode()
        self._generator.manual_seed(episode.seed)
        self._take(episode.instruction)

    def _begin_trial(self, seed: int) -> None:
        self._memory.clear()
        self._perception.forget()
        self._generator = torch.Generator().manual_seed(seed)
        self._episode = 0  # of the trial
        self._wanted: int | None = None
        self._refused = ""
        self._dropped = 0
        self._sink_mass = self._step_ms = float("nan")
        self._restart()

    def _begin_episode(self) -> None:
        """An episode without a step is none."""
        self._episode += int(self._time > 0)
        self._restart()

    def _restart(self) -> None:
        """Before the first action of an episode."""
        self._time = 0  # actions so far, the stop included
        self._previous = 0  # 1 + the newest action, as in tokens
        self._stopped = False
        self._row: Observation | None = None
        self._ready_ns = 0  # the next action is not drawn before
        self._blocked = 0
        self._motion.reset()

    def _take(self, instruction: str) -> None:
        """Take on what an episode asks for, or stand still in it."""
        self._wanted, self._refused = None, ""
        try:
            self._wanted = self._type_in(instruction)
        except UserError as error:
            self._refused = str(error)

    def instruct(self, text: str) -> None:
        """Look for another type of object. In an episode under way that is a boundary as well: a
        new one begins here.

        Raises:
            UserError: no type of object that it knows; the old one stays wanted.
        """
        wanted = self._type_in(text)
        if wanted == self._wanted:
            return
        if self._time > 0:
            self._begin_episode()
        self._wanted, self._refused = wanted, ""

    def _type_in(self, instruction: str) -> int:
        """The type of object that is asked for.

        Raises:
            UserError: none that there is, or none that the model's map can show.
        """
        wanted, known = wanted_type(instruction), self._world.layout_settings.types
        if wanted >= known:
            raise UserError(
                f"instruction: expected one of {', '.join(OBJECT_NAMES[:known])}, which the map of "
                f"policy {self.spec.name} has, saw '{instruction.strip()}'"
            )
        return wanted

    # ---------------------------------------------------------------- rows
    def observe(self, observation: Observation) -> None:
        """Follow the base; a row without its odometry says nothing of where it is."""
        self._row = observation
        if any(not observation.valid[key] for key in STREAMS):
            return
        stamp_ns = observation.stamp_ns
        self._motion.observe(stamp_ns, _pose(observation), _velocity(observation))
        if not self._motion.at_rest:
            self._ready_ns = stamp_ns + self._settle_ns

    # ---------------------------------------------------------------- acting
    def act(self) -> ActionChunk:
        """The targets of the motion under way, or of rest; draws the next action when the base
        stands."""
        row = self._row
        if row is None or row.missing:
            raise UserError(
                f"policy {self.spec.name}: expected all of {list(self.spec.streams)} in the newest "
                f"row, saw {'no row' if row is None else f'{row.missing} missing'}"
            )
        if self._wanted is not None and not self._stopped and row.stamp_ns >= self._ready_ns:
            refused = ""
            try:
                self._decide(row, self._wanted)
            except UserError as error:
                refused = f"{error}; standing still"
            self._refused = refused
        return self._motion.chunk()

    def _decide(self, row: Observation, wanted: int) -> None:
        """Draw the next action and begin it.

        Raises:
            UserError: outside the home, or no room for another step.
        """
        if self._time == self._horizon:
            raise UserError(
                f"episode: expected at most {self._horizon} actions (the model's position table), "
                "and the next would be one more"
            )
        at, cells, blocked = self._perception.look(
            _pose(row), row.values[SCAN], row.values[DEPTH], row.values[SEGMENTATION]
        )
        action = self._draw(self._step(self._tokens(cells, wanted, at)))
        self._time, self._previous = self._time + 1, action + 1
        self._motion.place(at.centre(self._world.layout_settings.cell_m))
        if action == STOP:
            self._stopped = True
        elif action != FORWARD:
            self._motion.turn(QUARTER if action == TURN_LEFT else -QUARTER)
        elif blocked:
            self._blocked += 1
            self._ready_ns = row.stamp_ns + round(BLOCKED_S * NANOSECONDS)
        else:
            self._motion.forward(self._cell_steps)

    def _tokens(self, cells: Tensor, wanted: int, at: GridPose) -> Tokens:
        """Of one step, ``(1,)``."""
        whole = [torch.tensor([part]) for part in (wanted, *at)]
        view = self._world.view(cells, *whole)
        numbers = torch.tensor([[self._previous], [self._time], [self._episode]])
        previous, passed, episode = numbers.to(self._device)
        blank = torch.zeros(1, device=self._device)
        cells, features = view.cells.to(self._device), view.features.to(self._device)
        return Tokens(cells, features, previous, blank, passed, episode)

    def _step(self, tokens: Tokens) -> Tensor:
        """Scores of the actions ``(1, A)``."""
        begin_s = time.perf_counter()
        self._make_room()
        logits = self._memory.step(tokens).logits.cpu()
        self._step_ms = (time.perf_counter() - begin_s) * 1e3
        mass = self._model.transformer.sink_mass(self._memory.cache)
        self._sink_mass = float(mass.mean())
        return logits

    def _make_room(self) -> None:
        """Whole oldest episodes are forgotten when the context is full.

        What they left behind in the rest goes before an episode's first step: the robot stands, and
        may wait until the rest is encoded anew. A longer context than :data:`ENCODE_STEPS`, whose
        encoding grows with its square, stays as it is.
        """
        memory, running = self._memory, self._time > 0
        limit = memory.cache.limit
        if memory.length == limit:
            self._dropped += memory.make_room(limit - 1, running).episodes
        if not running and memory.stale and memory.length <= ENCODE_STEPS:
            memory.encode()

    def _draw(self, logits: Tensor) -> int:
        return int(torch.multinomial(logits.softmax(dim=-1), 1, generator=self._generator))

    def executed(self, chunk: ActionChunk) -> None:
        """The next targets begin where the limits left the base."""
        self._motion.executed(chunk)

    # ---------------------------------------------------------------- what others see
    def refusal(self) -> str:
        """Why it stands still where it should act."""
        return self._refused

    def figures(self) -> dict[str, float]:
        """Steps and episodes in the context with the bytes allocated for them, the newest step's
        time and share of attention that went to the sinks, episodes forgotten for want of room; and
        of the running episode: actions with the stop included, whether it has stopped, steps that
        were not made because of an obstacle, and motions that did not arrive."""
        return {
            "context_steps": self._memory.length,
            "context_episodes": self._episode + int(self._time > 0) - self._dropped,
            "cache_bytes": self._memory.cache.nbytes,
            "sink_mass": self._sink_mass,
            "step_ms": self._step_ms,
            "dropped_episodes": self._dropped,
            "actions": self._time,
            "stopped": int(self._stopped),
            "blocked": self._blocked,
            "gave_up": self._motion.gave_up,
        }

    # ---------------------------------------------------------------- memory
    def save_memory(self) -> bytes:
        held, arrays = self._memory.state()
        fields: dict[str, Any] = {
            "memory": held,
            "motion": self._motion.state(),
            "episode": self._episode,
            "time": self._time,
            "previous": self._previous,
            "stopped": self._stopped,
            "wanted": self._wanted,
            "refused": self._refused,
            "ready_ns": self._ready_ns,
            "dropped": self._dropped,
            "blocked": self._blocked,
        }
        arrays["generator"] = self._generator.get_state().numpy()
        arrays["known"] = self._perception.known.copy()
        return pack_memory(self._memory.owner, fields, arrays)

    def load_memory(self, blob: bytes) -> None:
        """Goes on from `save_memory`: the same trial, episode, and motion."""
        fields, arrays = unpack_memory(self._memory.owner, blob)
        self._memory.restore(fields["memory"], arrays)
        self._restart()
        self._motion.restore(fields["motion"])
        self._episode, self._time = fields["episode"], fields["time"]
        self._previous, self._stopped = fields["previous"], fields["stopped"]
        self._wanted, self._refused = fields["wanted"], fields["refused"]
        self._ready_ns = fields["ready_ns"]
        self._dropped, self._blocked = fields["dropped"], fields["blocked"]
        self._generator.set_state(torch.from_numpy(np.array(arrays["generator"])))
        self._perception.known[:] = arrays["known"]


def _pose(row: Observation) -> np.ndarray:
    """x and y in m, yaw in rad."""
    return np.array([*row.values["base_position"][:2], row.values["base_yaw"][0]])


def _velocity(row: Observation) -> np.ndarray:
    """Ahead in m/s, turning in rad/s."""
    ahead, turning = row.values["base_linear_velocity"][0], row.values["base_angular_velocity"][2]
    return np.array([ahead, turning])


def load_controller(
    folder: Path,
    embodiment: Embodiment,
    *,
    context_steps: int | None = None,
    device: str = AUTO,
) -> RelicController:
    """A policy from a checkpoint folder.

    Args:
        context_steps: that its memory holds at most; None takes :data:`CONTEXT_STEPS`.
        device: as of `choose_device`.

    Raises:
        UserError: damaged, or checkpoint and robot do not fit each other.
    """
    controller = RelicController(
        load_relic_model(folder),
        embodiment,
        context_steps=CONTEXT_STEPS if context_steps is None else context_steps,
        device=choose_device(device),
    )
    controller.warm_up()
    return controller
