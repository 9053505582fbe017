"""Discrete control of a mobile base: forward by 0.25 m, turns by 30 degrees, in closed loop.

A motion of several steps runs through to its goal without a stop in between. Goals are counted
from where the base *ought* to be, so that what one motion misses the next one makes up for. Speeds
follow the square-root profile of a constant deceleration, ending in a proportional approach, so
that the base comes to rest at the goal and not behind it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from embodied_rl.core.embodiment import NANOSECONDS, Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.heading import wrapped
from embodied_rl.core.policy import ActionChunk

STEP_M = 0.25
TURN_RAD = math.pi / 6
DIMENSIONS = ("linear_x", "angular_z")
STREAMS = ("base_position", "base_yaw", "base_linear_velocity", "base_angular_velocity")

TOLERANCE_M, TOLERANCE_RAD = 0.02, math.radians(2.0)
SLOW_M_S, SLOW_RAD_S = 0.05, 0.1
PATIENCE_S = 2.0  # over twice the time that a motion should take
TARGETS = 4  # control ticks planned ahead
SPEED_SHARE, BRAKE_SHARE = 0.9, 0.6  # of the base's limits; the rest is for corrections
# A base that follows velocities with a first-order lag moves on by velocity times lag when it is
# told to stop. A shorter lag than this one costs time on the last stretch, a longer one precision.
LAG_S = 0.1
GAIN_HZ = 4.0  # speed per distance on the last stretch
LOOKAHEAD_M = 0.25  # to a point on the line that the base steers for
FACING_RAD = 0.35  # it drives only when it faces that point

TURN, FORWARD = "turn", "forward"


@dataclass(frozen=True)
class _Axis:
    """One velocity of the base: its limits and how it approaches a goal, in m or rad and s."""

    lower: float
    upper: float
    acceleration: float
    period_s: float

    def wanted(self, away: float) -> float:
        """The velocity at a signed distance from the goal."""
        brake, distance = BRAKE_SHARE * self.acceleration, abs(away)
        linear = brake / GAIN_HZ**2
        if distance <= linear:
            speed = GAIN_HZ * distance
        else:
            speed = math.sqrt(2 * brake * (distance - linear / 2))
        return min(max(math.copysign(speed, away), self.lower), self.upper)

    def limited(self, wanted: float, before: float) -> float:
        """``wanted``, or what comes nearest to it one control period after ``before``."""
        most = self.acceleration * self.period_s
        return min(max(wanted, before - most), before + most)

    def duration_s(self, distance: float) -> float:
        """About how long a motion from rest to rest takes."""
        brake = BRAKE_SHARE * self.acceleration
        return distance / self.upper + self.upper / brake + 2 / GAIN_HZ


def _axis(embodiment: Embodiment, place: int) -> _Axis:
    lower, upper, acceleration = (float(part[place]) for part in embodiment.limits())
    period_s = embodiment.period_ns / NANOSECONDS
    return _Axis(SPEED_SHARE * lower, SPEED_SHARE * upper, acceleration, period_s)


class DiscreteMotion:
    """Drives a base of velocity commands ``[linear_x, angular_z]`` by discrete motions.

    Every control tick `observe`; when it is not `busy`, `forward` or `turn` begins the next motion;
    `chunk` gives the targets from the newest tick on. Poses are ``(3,)``: x and y in m, yaw in rad.

    Attributes:
        gave_up: motions that did not arrive in time, for example because something was in the way.

    Raises:
        UserError: the robot's commands are no such velocities.
    """

    def __init__(self, embodiment: Embodiment) -> None:
        if embodiment.action_names != DIMENSIONS or not embodiment.velocities.all():
            raise UserError(
                f"{embodiment.origin}: commands: discrete motions expect velocities along "
                f"{list(DIMENSIONS)}, saw {list(embodiment.action_names)}"
            )
        self._linear, self._angular = (_axis(embodiment, place) for place in range(2))
        self._period_ns = embodiment.period_ns
        self.reset()

    def reset(self) -> None:
        """At rest, nowhere in particular; `place` is to follow."""
        self._goal = np.zeros(3)
        self._kind = ""  # of the motion under way
        self._deadline_ns = 0
        self._stamp_ns = 0
        self._coming = np.zeros(3)  # the pose that the base glides to when it is told to stop
        self._in_force: ActionChunk | None = None
        self._resumed = False
        self._slow = True
        self.gave_up = 0

    @property
    def busy(self) -> bool:
        """Whether a motion is under way."""
        return bool(self._kind)

    @property
    def at_rest(self) -> bool:
        """Whether there is no motion under way and the base, as measured, as good as stands."""
        return self._slow and not self._kind

    @property
    def goal(self) -> np.ndarray:
        """The pose that the newest motion leads to, or where the base was placed."""
        return self._goal.copy()

    def place(self, pose: np.ndarray) -> None:
        """Where the base ought to be; ends the motion under way."""
        self._goal, self._kind = np.array(pose, dtype=np.float64), ""

    def forward(self, steps: int) -> None:
        """Begin to drive ``steps`` times 0.25 m along the heading it ought to have."""
        x, y, yaw = self._goal
        distance = steps * STEP_M
        ahead = (x + distance * math.cos(yaw), y + distance * math.sin(yaw), yaw)
        self._begin(FORWARD, np.array(ahead), self._linear.duration_s(distance))

    def turn(self, steps: int) -> None:
        """Begin to turn on the spot, ``steps`` times 30 degrees, to the left when positive.

        Args:
            steps: at most 5 to either side, or the way round would be in doubt.
        """
        if not 1 <= abs(steps) <= 5:
            raise ValueError(f"steps: expected 1 to 5 or -1 to -5, saw {steps}")
        x, y, yaw = self._goal
        turned = np.array([x, y, wrapped(yaw + steps * TURN_RAD)])
        self._begin(TURN, turned, self._angular.duration_s(abs(steps) * TURN_RAD))

    def _begin(self, kind: str, goal: np.ndarray, expected_s: float) -> None:
        self._kind, self._goal = kind, goal
        allowed_s = 2 * expected_s + PATIENCE_S
        self._deadline_ns = self._stamp_ns + round(allowed_s * NANOSECONDS)

    def observe(self, stamp_ns: int, pose: np.ndarray, velocity: np.ndarray) -> None:
        """The measured pose ``(3,)`` and velocity ``(2,)`` (m/s ahead, rad/s) of a control tick;
        ends the motion when it has arrived or its time is over."""
        if self._resumed:  # the time in which nobody drove does not count
            self._deadline_ns += max(stamp_ns - self._stamp_ns - self._period_ns, 0)
            self._resumed = False
        self._stamp_ns = stamp_ns
        self._coming = _moved(np.asarray(pose), np.asarray(velocity), LAG_S)
        self._slow = bool(abs(velocity[0]) < SLOW_M_S and abs(velocity[1]) < SLOW_RAD_S)
        if not self._kind:
            return
        if self._slow and self._arrived(pose):
            self._kind = ""
        elif stamp_ns >= self._deadline_ns:
            self._kind = ""
            self.gave_up += 1

    def _arrived(self, pose: np.ndarray) -> bool:
        away = self._goal - pose
        if abs(wrapped(away[2])) > TOLERANCE_RAD:
            return False
        return self._kind == TURN or math.hypot(away[0], away[1]) <= TOLERANCE_M

    def chunk(self) -> ActionChunk:
        """Targets ``(TARGETS, 2)`` from the newest tick on; without a motion they lead to rest."""
        pose, velocity = self._coming, self._velocity()
        values = np.zeros((TARGETS, 2))
        for row in values:
            wanted = self._wanted(pose) if self._kind else (0.0, 0.0)
            row[0] = self._linear.limited(wanted[0], velocity[0])
            row[1] = self._angular.limited(wanted[1], velocity[1])
            velocity = row
            pose = _moved(pose, row, self._period_ns / NANOSECONDS)
        self._in_force = ActionChunk(self._stamp_ns, self._period_ns, values)
        return self._in_force

    def executed(self, chunk: ActionChunk) -> None:
        """What is in force in place of the newest chunk (see `Policy.executed`)."""
        self._in_force = chunk

    def _velocity(self) -> np.ndarray:
        """The target in force just before the newest tick."""
        chunk = self._in_force
        if chunk is None:
            return np.zeros(2)
        place = (self._stamp_ns - chunk.stamp_ns) // self._period_ns - 1
        # one that was cut short by what came after it, or has run out
        return chunk.values[min(max(place, 0), len(chunk.values) - 1)].astype(np.float64)

    def _wanted(self, pose: np.ndarray) -> tuple[float, float]:
        """The velocities at a pose on the way to the goal."""
        goal_yaw = self._goal[2]
        off = wrapped(goal_yaw - pose[2])
        if self._kind == TURN:
            return 0.0, self._angular.wanted(off)
        away = self._goal[:2] - pose[:2]
        ahead = away[0] * math.cos(goal_yaw) + away[1] * math.sin(goal_yaw)
        beside = away[1] * math.cos(goal_yaw) - away[0] * math.sin(goal_yaw)
        if abs(ahead) <= TOLERANCE_M / 2:
            return 0.0, self._angular.wanted(off)
        # a point behind the base is reached backwards, so the line is steered to the other way
        steer = math.copysign(math.atan2(beside, LOOKAHEAD_M), beside * ahead)
        off = wrapped(goal_yaw + steer - pose[2])
        facing = abs(off) <= FACING_RAD
        return (self._linear.wanted(ahead) if facing else 0.0), self._angular.wanted(off)

    def state(self) -> dict[str, Any]:
        """Plain data that `restore` takes."""
        chunk = self._in_force
        return {
            "goal": self._goal.tolist(),
            "kind": self._kind,
            "deadline_ns": self._deadline_ns,
            "stamp_ns": self._stamp_ns,
            "coming": self._coming.tolist(),
            "slow": self._slow,
            "gave_up": self.gave_up,
            "in_force": None if chunk is None else [chunk.stamp_ns, chunk.values.tolist()],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state`."""
        self._goal, self._coming = np.array(state["goal"]), np.array(state["coming"])
        self._kind, self._deadline_ns = state["kind"], state["deadline_ns"]
        self._stamp_ns, self.gave_up = state["stamp_ns"], state["gave_up"]
        self._slow = state["slow"]
        self._in_force, self._resumed = None, True
        if state["in_force"] is not None:
            stamp_ns, values = state["in_force"]
            self._in_force = ActionChunk(stamp_ns, self._period_ns, np.array(values))


def _moved(pose: np.ndarray, velocity: np.ndarray, time_s: float) -> np.ndarray:
    """The pose after a time at a velocity."""
    turned = velocity[1] * time_s
    middle = pose[2] + turned / 2
    step = velocity[0] * time_s
    return pose + [step * math.cos(middle), step * math.sin(middle), turned]
