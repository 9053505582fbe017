"""A stand-in robot: any embodiment, moved by controllers that are as particular as the real ones.

It has no world and no task. It is there to try a graph, an embodiment file or a fault against what
drivers and controllers of real robots do: refuse trajectories that are over, ignore velocities that
are old, freeze at a pendant stop, be led by hand, or have a clock of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from embodied_rl.core.embodiment import JOINT_TRAJECTORY, NANOSECONDS, Embodiment

SERVO_S = 0.03  # time constant with which a joint follows its set point
BASE_S = 0.05  # ... and a base its velocity
SERVO_SPEED = 1.5  # times the limit of the embodiment file: what the joint can do at most


class Refused(Exception):
    """A command that a controller does not carry out, with the reason that it logs."""


@dataclass(frozen=True)
class Trajectory:
    """What a trajectory controller looks at in a ``trajectory_msgs/JointTrajectory``."""

    joint_names: Sequence[str]
    stamp_ns: int
    offsets_ns: Sequence[int]  # (T,) times from start
    positions: Sequence[Sequence[float]]  # (T, n)
    final_velocity: Sequence[float] = ()


class TrajectoryController:
    """Accepts and follows trajectories of positions as ``joint_trajectory_controller`` does.

    The rules are those of Humble, Jazzy, Kilted and Rolling alike (read in their sources): all
    joints of the controller, points at rising times, no velocity at the end, and an end that is not
    in the past of the controller's clock unless the stamp is zero, which stands for now. An
    inactive controller ignores everything. A trajectory replaces the one before it and begins at
    the measured joints.
    """

    def __init__(self, joints: Sequence[str], positions: np.ndarray, active: bool = True):
        self.joints, self.active = tuple(joints), active
        self.target = np.array(positions, dtype=np.float64)  # (n,) set point now
        self._times: np.ndarray | None = None  # (K,) ns
        self._values = np.zeros((0, len(joints)))  # (K, n)
        self._waiting: Trajectory | None = None

    def check(self, trajectory: Trajectory, now_ns: int) -> None:
        """Raises Refused with the reason of the controller.

        Args:
            now_ns: the controller's clock.
        """
        names = list(trajectory.joint_names)
        if len(names) != len(self.joints) or set(names) != set(self.joints):
            raise Refused("joints don't match the controller's joints")
        if not trajectory.positions:
            raise Refused("empty trajectory")
        if any(abs(v) > np.finfo(np.float32).eps for v in trajectory.final_velocity):
            raise Refused("velocity of the last point is not zero")
        end_ns = trajectory.stamp_ns + trajectory.offsets_ns[-1]
        if trajectory.stamp_ns != 0 and end_ns < now_ns:
            raise Refused("ends in the past")
        if any(b <= a for a, b in zip(trajectory.offsets_ns, trajectory.offsets_ns[1:])):
            raise Refused("times are not strictly increasing")
        if any(len(row) != len(names) for row in trajectory.positions):
            raise Refused("wrong number of positions")
        if not np.all(np.isfinite(np.array(trajectory.positions, dtype=np.float64))):
            raise Refused("positions are not finite")

    def accept(self, trajectory: Trajectory, now_ns: int) -> None:
        """Take a trajectory; it comes into force with the next :meth:`update`.

        Raises:
            Refused: against the rules, or the controller is not active.
        """
        if not self.active:
            raise Refused("the controller is not active")
        self.check(trajectory, now_ns)
        self._waiting = trajectory

    def hold(self, measured: np.ndarray) -> None:
        """Stay where the joints are, as on (re)activation."""
        self.target, self._times, self._waiting = np.array(measured), None, None

    def update(self, now_ns: int, measured: np.ndarray) -> np.ndarray:
        """The set point ``(n,)`` at a time; ``measured (n,)`` is where a new trajectory begins."""
        if self._waiting is not None:
            new, self._waiting = self._waiting, None
            start_ns = new.stamp_ns or now_ns
            order = [list(new.joint_names).index(joint) for joint in self.joints]
            times = start_ns + np.array(new.offsets_ns, dtype=np.int64)
            values = np.array(new.positions, dtype=np.float64)[:, order]
            if times[0] > now_ns:
                times = np.concatenate([[now_ns], times])
                values = np.concatenate([measured[None], values])
            self._times, self._values = times, values
        if self._times is not None:
            column = range(len(self.joints))
            self.target = np.array(
                [np.interp(now_ns, self._times, self._values[:, i]) for i in column]
            )
        return self.target


class VelocityController:
    """Takes velocities as ``diff_drive_controller`` does: none that is stamped longer ago than the
    timeout, a zero stamp counts as now, and after so long a silence the base stops."""

    def __init__(self, width: int, timeout_s: float = 0.5):
        self.active = True
        self._timeout_ns = round(timeout_s * NANOSECONDS)
        self.target = np.zeros(width)
        self._stamp_ns = 0

    def accept(self, values: np.ndarray, stamp_ns: int, now_ns: int) -> None:
        """Raises Refused for a velocity that is too old or not finite."""
        if not self.active:
            raise Refused("the controller is not active")
        stamp_ns = stamp_ns or now_ns
        if now_ns - stamp_ns >= self._timeout_ns:
            raise Refused("older than the timeout")
        if not np.all(np.isfinite(values)):
            raise Refused("velocity is not finite")
        self.target, self._stamp_ns = np.array(values), stamp_ns

    def update(self, now_ns: int) -> np.ndarray:
        if now_ns - self._stamp_ns > self._timeout_ns:
            self.target = np.zeros_like(self.target)
        return self.target


@dataclass
class Faults:
    """What is the matter with the robot, its network and its sensors; all may change while it runs.

    Sensors are named by topic; times are seconds.
    """

    pendant_stop: bool = False  # joints frozen, controllers go on
    freedrive: dict[str, float] = field(default_factory=dict)  # joint -> rad/s it is led at
    blocked: list[str] = field(default_factory=list)  # joints that do not move
    inactive: list[str] = field(default_factory=list)  # command groups without active controller
    clock_offset_s: float = 0.0  # of the robot's clock, ahead of ours
    command_delay_s: float = 0.0  # most that a command takes on its way; uniform from 0
    silent: list[str] = field(default_factory=list)  # sensors that say nothing
    nan: list[str] = field(default_factory=list)  # ... that measure nothing
    late_s: dict[str, float] = field(default_factory=dict)  # ... whose messages come late
    stamp_s: dict[str, float] = field(default_factory=dict)  # ... whose clock is ahead of the robot
    thin: dict[str, int] = field(default_factory=dict)  # ... that give one message of so many
    frozen: list[str] = field(default_factory=list)  # ... that repeat a value with new stamps
    shift: dict[str, float] = field(default_factory=dict)  # ... that are off by so much
    glitch: dict[str, float] = field(default_factory=dict)  # ... that are off once in ten messages


class StandInRobot:
    """Joints and a base that follow their controllers, step by step.

    Args:
        start: positions of joints ``(A,)``, velocities are zero; default: the middle of the range,
            or zero where that is within it.
    """

    def __init__(self, embodiment: Embodiment, start: np.ndarray | None = None):
        self.embodiment = embodiment
        self.faults = Faults()
        self.accepted: Counter[str] = Counter()
        self.refused: Counter[tuple[str, str]] = Counter()
        lower, upper, self._rate = embodiment.limits()
        zero_within = (lower <= 0) & (upper >= 0)
        rest = np.where(zero_within, 0.0, (lower + upper) / 2)
        self.state = np.array(rest if start is None else start, dtype=np.float64)  # (A,)
        self.state = embodiment.at_rest(self.state)
        self.pose = np.zeros(3)  # of a base: x m, y m, yaw rad
        self._slices = embodiment.slices()
        self.trajectories: dict[str, TrajectoryController] = {}
        self.bases: dict[str, VelocityController] = {}
        self.targets: dict[str, np.ndarray] = {}  # of groups that take targets at once
        for key, command in embodiment.commands.items():
            now = self.state[self._slices[key]]
            if command.type == JOINT_TRAJECTORY:
                self.trajectories[key] = TrajectoryController(command.wire_names, now)
            elif command.velocity:
                self.bases[key] = VelocityController(len(command.names))
            else:
                self.targets[key] = now.copy()

    def command_trajectory(self, key: str, trajectory: Trajectory, now_ns: int) -> None:
        self._take(key, lambda: self.trajectories[key].accept(trajectory, now_ns))

    def command_velocity(self, key: str, values: np.ndarray, stamp_ns: int, now_ns: int) -> None:
        self._take(key, lambda: self.bases[key].accept(values, stamp_ns, now_ns))

    def command_targets(self, key: str, values: np.ndarray) -> None:
        def take() -> None:
            if key in self.faults.inactive:
                raise Refused("the controller is not active")
            if not np.all(np.isfinite(values)):
                raise Refused("targets are not finite")
            self.targets[key] = np.array(values)

        self._take(key, take)

    def _take(self, key: str, accept) -> None:
        try:
            accept()
        except Refused as reason:
            self.refused[key, str(reason)] += 1
        else:
            self.accepted[key] += 1

    def set_faults(self, faults: Faults) -> None:
        """A controller that becomes active again holds where its joints are."""
        self.faults = faults
        for key, controller in self.trajectories.items():
            active = key not in faults.inactive
            if active and not controller.active:
                controller.hold(self.state[self._slices[key]])
            controller.active = active
        for key, base in self.bases.items():
            base.active = key not in faults.inactive

    def advance(self, now_ns: int, step_s: float) -> None:
        """Controllers and joints move on by ``step_s`` to the robot's time ``now_ns``."""
        names = self.embodiment.action_names
        wanted = self.state.copy()
        for key, controller in self.trajectories.items():
            part = self._slices[key]
            target = controller.update(now_ns, self.state[part])
            if controller.active:
                wanted[part] = target
        for key, targets in self.targets.items():
            wanted[self._slices[key]] = targets
        for key, base in self.bases.items():
            wanted[self._slices[key]] = base.update(now_ns)
        constant = np.where(self.embodiment.velocities, BASE_S, SERVO_S)
        move = (wanted - self.state) * (1 - np.exp(-step_s / constant))
        most = SERVO_SPEED * self._rate * step_s
        move = np.where(self.embodiment.velocities, move, np.clip(move, -most, most))
        if self.faults.pendant_stop:
            move[:] = 0.0
        for place, name in enumerate(names):
            if name in self.faults.freedrive:
                move[place] = self.faults.freedrive[name] * step_s
            if name in self.faults.blocked:
                move[place] = 0.0
        self.state = self.state + move
        self._drive(step_s)

    def _drive(self, step_s: float) -> None:
        named = dict(zip(self.embodiment.action_names, self.state.tolist()))
        forward, sideways = named.get("linear_x", 0.0), named.get("linear_y", 0.0)
        self.pose[2] += named.get("angular_z", 0.0) * step_s
        cos, sin = np.cos(self.pose[2]), np.sin(self.pose[2])
        self.pose[0] += (cos * forward - sin * sideways) * step_s
        self.pose[1] += (sin * forward + cos * sideways) * step_s
