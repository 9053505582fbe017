"""The action of each control tick, from the commands in a bag.

The action at tick ``k`` is the target to be reached at ``t_k + period``, as it stood at ``t_k``:
commands stamped later had not been given yet. The last target of a trajectory stays in force until
the next command or the end of the episode, because a controller holds it. A command without a
stamp counts from its arrival, which is known on the clock of the stamps when all has been read.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from embodied_rl.core.commands import TrajectoryTrack
from embodied_rl.core.decode import stamp_ns as stamp_of
from embodied_rl.core.decode_commands import (
    read_named,
    read_targets,
    read_trajectory,
    target_stamp_ns,
)
from embodied_rl.core.embodiment import JOINT_TRAJECTORY, NANOSECONDS, Embodiment

# A base whose commands fall silent stops by a timeout of its own (0.5 s by default in ros2_control)
# that a bag does not tell: for longer than this only rest is known to last.
VELOCITY_LASTS_NS = NANOSECONDS // 2
FEEDBACK_GAP_NS = NANOSECONDS // 2  # a longer silence of an action server is between two goals
FAR_NS = 10 * NANOSECONDS  # stamps of commands this far from their arrivals are of another clock

# log times (N,) on the clock of the stamps
Dated = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class _Given:
    """One command: from when on it counts, its targets, and its place among all messages."""

    stamp_ns: int  # 0: from its arrival on
    log_ns: int
    after_ns: np.ndarray  # (T,) from when on to each target; empty for those in force at once
    values: np.ndarray  # (T, n), or (n,); NaN for a joint that it does not tell
    number: int

    @property
    def times_ns(self) -> np.ndarray:
        """``(T,)``."""
        return self.stamp_ns + self.after_ns


class _Group:
    """The commands of one group of joints."""

    def __init__(self, width: int):
        self._width = width
        self.items: list[_Given] = []
        self.foreign = 0  # commands dated by arrival, because their stamps are of another clock

    def at(
        self, ticks_ns: np.ndarray, period_ns: int, since_ns: int, dated: Dated
    ) -> tuple[np.ndarray, np.ndarray]:
        """Targets ``(K, n)`` one period after each tick, and where there is one ``(K,)``.

        What was stamped before ``since_ns`` belongs to an earlier episode.
        """
        items = [item for item in self._dated(dated) if item.stamp_ns >= since_ns]
        items.sort(key=lambda item: item.stamp_ns)  # stable: the last of equals rules
        return self._filled(items, ticks_ns, period_ns)

    def _filled(
        self, items: list[_Given], ticks_ns: np.ndarray, period_ns: int
    ) -> tuple[np.ndarray, np.ndarray]:
        values = np.full((len(ticks_ns), self._width), np.nan)
        valid = np.zeros(len(ticks_ns), dtype=bool)
        for row, target in self._targets(items, ticks_ns, period_ns):
            values[row], valid[row] = target, True
        return values, valid

    def _dated(self, dated: Dated) -> list[_Given]:
        """The commands, each with a time from which on it counts."""
        self.foreign = 0
        if not self.items:
            return []
        arrived = dated(np.array([item.log_ns for item in self.items], dtype=np.int64))
        stamps = np.array([item.stamp_ns for item in self.items], dtype=np.int64)
        stamped = stamps != 0
        if stamped.any() and abs(np.median(stamps[stamped] - arrived[stamped])) > FAR_NS:
            self.foreign = int(stamped.sum())
            stamped[:] = False
        given = np.where(stamped, stamps, arrived).tolist()
        return [replace(item, stamp_ns=ns) for item, ns in zip(self.items, given, strict=True)]

    def _targets(
        self, items: list[_Given], ticks_ns: np.ndarray, period_ns: int
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Row and target ``(n,)`` of each tick that has one, from commands in the order of time."""
        raise NotImplementedError


class _Trajectories(_Group):
    """Trajectories of one group of joints; a later one replaces the tail of an earlier one.

    A teleoperation streams trajectories of one point that often end before the next tick, so the
    target that is held after an end counts as much as those on the way. A trajectory that tells
    some of the joints leaves the others to what they were told last.
    """

    def _filled(
        self, items: list[_Given], ticks_ns: np.ndarray, period_ns: int
    ) -> tuple[np.ndarray, np.ndarray]:
        if not any(np.isnan(item.values).any() for item in items):
            return super()._filled(items, ticks_ns, period_ns)
        whole = np.full((len(ticks_ns), self._width), np.nan)
        for joint in range(self._width):
            told = [
                replace(item, values=item.values[:, joint : joint + 1])
                for item in items
                if not np.isnan(item.values[:, joint]).any()
            ]
            for row, target in self._targets(told, ticks_ns, period_ns):
                whole[row, joint] = target[0]
        return whole, np.isfinite(whole).all(axis=1)

    def _targets(
        self, items: list[_Given], ticks_ns: np.ndarray, period_ns: int
    ) -> Iterator[tuple[int, np.ndarray]]:
        track: TrajectoryTrack | None = None
        place, known_ns = 0, 0
        for row, tick in enumerate(ticks_ns.tolist()):
            while place < len(items) and items[place].stamp_ns <= tick:
                item = items[place]
                if track is None:
                    # where the robot stood before the first command is not in it, so the way to
                    # its first point is unknown
                    track = TrajectoryTrack(item.stamp_ns, item.values[0])
                    known_ns = int(item.times_ns[0])
                elif item.after_ns[0] == 0:  # in force at once, without a way to it
                    track = TrajectoryTrack(item.stamp_ns, item.values[0])
                track.follow(item.stamp_ns, item.times_ns, item.values)
                place += 1
            due = tick + period_ns
            if track is not None and known_ns <= due:
                yield row, track.target(due)


class _Arrays(_Group):
    """Unstamped targets of one group, in force from their arrival until the next one; what arrives
    during a period belongs to its tick."""

    def _targets(
        self, items: list[_Given], ticks_ns: np.ndarray, period_ns: int
    ) -> Iterator[tuple[int, np.ndarray]]:
        times = [item.stamp_ns for item in items]
        for row, tick in enumerate(ticks_ns.tolist()):
            newest = bisect_left(times, tick + period_ns) - 1
            if newest >= 0:
                yield row, items[newest].values


class _Velocities(_Arrays):
    """Velocities of a base, in force from their stamp, or else their arrival, like arrays; but
    one that is not zero does not last."""

    def _targets(
        self, items: list[_Given], ticks_ns: np.ndarray, period_ns: int
    ) -> Iterator[tuple[int, np.ndarray]]:
        times = [item.stamp_ns for item in items]
        for row, values in super()._targets(items, ticks_ns, period_ns):
            tick = int(ticks_ns[row])
            given = times[bisect_left(times, tick + period_ns) - 1]
            if tick - given <= VELOCITY_LASTS_NS or not values.any():
                yield row, values


class _Desired(_Group):
    """Where an action server says that the joints should be: straight lines in between, and the
    last place is held, also while nothing is executed."""

    def _targets(
        self, items: list[_Given], ticks_ns: np.ndarray, period_ns: int
    ) -> Iterator[tuple[int, np.ndarray]]:
        times = [item.stamp_ns for item in items]
        for row, tick in enumerate(ticks_ns.tolist()):
            due = tick + period_ns
            after = bisect_right(times, due)
            if not after:
                continue
            before = items[after - 1]
            if after == len(items) or times[after] - before.stamp_ns > FEEDBACK_GAP_NS:
                yield row, before.values
                continue
            share = (due - before.stamp_ns) / (times[after] - before.stamp_ns)
            yield row, before.values + (items[after].values - before.values) * share


class ActionLog:
    """Commands of one episode as they are read, and the actions that they make.

    Args:
        embodiment: names the dimensions and the actuator topics.
        feedback: groups of which the bag has no commands, but the feedback of their action server.
        executed: the bag holds ``command/executed``, all dimensions in one; then the actuator
            topics, which say the same in other words, are left aside.
    """

    def __init__(self, embodiment: Embodiment, feedback: Collection[str] = (), *, executed: bool):
        self._embodiment, self._feedback = embodiment, feedback
        self._groups: dict[str, _Group] = {}
        if executed:
            self._groups[""] = _Trajectories(embodiment.action_dim)
            return
        for key, command in embodiment.commands.items():
            kind = _Velocities if command.velocity else _Arrays
            if command.type == JOINT_TRAJECTORY:
                kind = _Desired if key in feedback else _Trajectories
            self._groups[key] = kind(len(command.names))

    def add(self, key: str, topic: str, message: Any, log_time_ns: int, number: int) -> None:
        """Take one command message of group ``key`` ("" for ``command/executed``).

        Args:
            log_time_ns: its arrival, on the recorder's clock.
            number: its place among all messages of the bag.

        Raises:
            MessageError: other joints, times that do not rise, values that are not finite.
        """
        group = self._groups[key]
        if isinstance(group, _Desired):
            values = read_named(message, self._embodiment.commands[key], topic)
            at_once, stamp_ns = np.zeros(0, np.int64), stamp_of(message.header)
            group.items.append(_Given(stamp_ns, log_time_ns, at_once, values, number))
            return
        if isinstance(group, _Arrays):
            command = self._embodiment.commands[key]
            values, stamp_ns = read_targets(message, command), target_stamp_ns(message, command)
            at_once = np.zeros(0, np.int64)
            group.items.append(_Given(stamp_ns, log_time_ns, at_once, values, number))
            return
        names: Sequence[str] = self._embodiment.action_names
        if key:
            names = self._embodiment.commands[key].wire_names
        # a stamp of 0 is the convention for "starts when it arrives"
        stamp_ns, times_ns, values = read_trajectory(message, names, topic, streamed=bool(key))
        after_ns = times_ns - stamp_ns
        group.items.append(_Given(stamp_ns, log_time_ns, after_ns, values, number))

    def split(self, number: int) -> ActionLog:
        """Hand over the commands from message ``number`` on, as a log of their own."""
        rest = ActionLog(self._embodiment, self._feedback, executed="" in self._groups)
        for key, group in self._groups.items():
            rest._groups[key].items = [item for item in group.items if item.number >= number]
            group.items = [item for item in group.items if item.number < number]
        return rest

    def actions(
        self, ticks_ns: np.ndarray, since_ns: int, dated: Dated
    ) -> tuple[np.ndarray, np.ndarray]:
        """Actions ``(K, A)`` float64, NaN where unknown, and ``action_valid (K,)``.

        Args:
            since_ns: start of the episode: older commands do not count.
            dated: log times on the clock of the stamps.
        """
        parts = self._parts(ticks_ns, since_ns, dated)
        values = np.concatenate([values for values, _ in parts.values()], axis=1)
        valid = np.all([valid for _, valid in parts.values()], axis=0)
        values[~valid] = np.nan
        return values, valid

    def known(self, ticks_ns: np.ndarray, since_ns: int, dated: Dated) -> dict[str, int]:
        """Group -> at how many of the ticks it has a target; an action needs all of them."""
        parts = self._parts(ticks_ns, since_ns, dated)
        return {key: int(valid.sum()) for key, (_, valid) in parts.items()}

    def foreign(self) -> dict[str, int]:
        """Group -> commands whose stamps were not used, known after :meth:`actions`."""
        return {key: group.foreign for key, group in self._groups.items() if group.foreign}

    def _parts(
        self, ticks_ns: np.ndarray, since_ns: int, dated: Dated
    ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        period_ns = self._embodiment.period_ns
        groups = self._groups.items()
        return {key: group.at(ticks_ns, period_ns, since_ns, dated) for key, group in groups}
