"""Worlds of an arm with a gripper, joint by joint behind servos, and one object that counts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import mujoco
import numpy as np

from embodied_rl.core.embodiment import JOINT_TRAJECTORY, NANOSECONDS, Stream
from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import Outcome
from embodied_rl.sim.noise import SensorNoise
from embodied_rl.sim.tasks.base import ObjectState, ObjectTask, Start, upright_quaternion
from embodied_rl.sim.worlds.base import NumberSource, Scene, World


@dataclass(frozen=True)
class JointBinding:
    """One command joint: its MuJoCo joint and actuator, and control units per radian."""

    joint: str
    actuator: str
    control_per_unit: float = 1.0


@dataclass(frozen=True)
class JointSource:
    """Stream of joint positions or velocities; ``sigma`` in rad or rad/s."""

    quantity: str  # position | velocity
    sigma: float


@dataclass(frozen=True)
class PointSource:
    """Stream of the position of a site or body in the world frame; ``sigma`` in metres.

    ``object`` is the body that the task declares as its object, whatever its name.
    """

    element: str  # site | body | object
    name: str
    sigma: float


@dataclass(frozen=True)
class ArmWorld(World):
    """A world whose commands are positions of joints and whose tasks are about an object."""

    joints: dict[str, JointBinding]
    home: np.ndarray  # (n,) arm joints from which inverse kinematics starts, rad
    tool_down: np.ndarray  # (3, 3) rotation of the tool pointing straight down
    finger_geoms: tuple[str, ...]  # what holds an object when it touches it
    tool_site: str  # tool centre point
    followers: dict[str, tuple[str, float]] = field(default_factory=dict)  # see World.mimics

    @property
    def joint_names(self) -> dict[str, str]:
        return {binding.joint: name for name, binding in self.joints.items()}

    @property
    def mimics(self) -> dict[str, tuple[str, float]]:
        return self.followers

    @property
    def frame_sites(self) -> dict[str, str]:
        return {"tool": self.tool_site}

    def actuation(self, scene: Scene) -> JointServos:
        return JointServos(self, scene)

    def stage(self, scene: Scene) -> ObjectStage:
        return ObjectStage(self, scene)

    def reader(
        self, scene: Scene, stream: Stream, source: NumberSource, noise: SensorNoise
    ) -> Callable[[], np.ndarray]:
        array, index = self._element(scene, stream.joints, source)

        def read() -> np.ndarray:
            # sites and bodies are where the last physics step began: 2 ms behind the joints, as
            # the poses that a real driver computes from its joints are
            return array[index] + next(noise.rows)

        return read

    def _element(
        self, scene: Scene, joints: Sequence[str], source: NumberSource
    ) -> tuple[np.ndarray, int | slice | np.ndarray]:
        """An array of ``MjData`` and the index that gives the stream's value."""
        model, data = scene.model, scene.data
        if isinstance(source, PointSource):
            if source.element == "site":
                return data.site_xpos, model.site(source.name).id
            name = scene.task.object_body if source.element == "object" else source.name
            return data.xpos, model.body(name).id
        if isinstance(source, JointSource) and source.quantity == "position":
            return data.qpos, as_slice(self.addresses(model, joints, model.jnt_qposadr))
        return data.qvel, as_slice(self.addresses(model, joints, model.jnt_dofadr))

    def addresses(
        self, model: mujoco.MjModel, joints: Sequence[str], table: np.ndarray
    ) -> np.ndarray:
        return table[[model.joint(self.joints[joint].joint).id for joint in joints]]


class JointServos:
    """Joints with a trajectory glide to the target within a step, the others jump to it.

    Raises:
        UserError: a commanded joint is none of the world, an actuator is left without a command,
            or a command is of a type that the actuator cannot follow.
    """

    def __init__(self, world: ArmWorld, scene: Scene):
        embodiment, model = scene.embodiment, scene.model
        names = embodiment.action_names
        unknown = [name for name in names if name not in world.joints]
        if unknown:
            raise UserError(
                f"{embodiment.origin}: commands: world '{world.name}' has no joints "
                f"{unknown}; it has {sorted(world.joints)}"
            )
        bindings = [world.joints[name] for name in names]
        actuators = [model.actuator(b.actuator).id for b in bindings]
        if sorted(actuators) != list(range(model.nu)):
            raise UserError(
                f"{embodiment.origin}: commands: world '{world.name}' has "
                f"{model.nu} actuators, the commands move {len(set(actuators))} of them"
            )
        # a servo whose set point is an activation glides; its control is the set point's velocity
        integrates = model.actuator_dyntype == mujoco.mjtDyn.mjDYN_INTEGRATOR
        _check_types(world, scene, {n: bool(integrates[a]) for n, a in zip(names, actuators)})
        self._set_points, self._control = scene.data.act, scene.data.ctrl
        # action order -> order of MuJoCo's controls; a slice where nothing is to be reordered
        self._order = as_slice(np.argsort(actuators))
        self._reached = self._control.copy()  # controls of the last command
        self._scale = np.array([b.control_per_unit for b in bindings])
        self._glides = as_slice(np.flatnonzero(integrates))
        self._jumps = np.where(integrates, 0.0, 1.0)
        self._glide_rate = np.where(integrates, NANOSECONDS / scene.step_ns, 0.0)  # 1/s

    def reset(self, command: np.ndarray) -> None:
        self._reached = (command * self._scale)[self._order]
        self._control[:] = self._reached * self._jumps
        self.end()

    def begin(self, command: np.ndarray) -> None:
        reached = (command * self._scale)[self._order]
        control = np.subtract(reached, self._reached, out=self._control)
        control *= self._glide_rate
        control += reached * self._jumps
        self._reached = reached

    def end(self) -> None:
        # without the rounding of the integration
        self._set_points[:] = self._reached[self._glides]


def _check_types(world: ArmWorld, scene: Scene, glides: dict[str, bool]) -> None:
    for key, command in scene.embodiment.commands.items():
        for name in command.names:
            if (command.type == JOINT_TRAJECTORY) != glides[name]:
                raise UserError(
                    f"{scene.embodiment.origin}: commands.{key}.type: joint {name} of world "
                    f"'{world.name}' {'glides' if glides[name] else 'jumps'} to its target, "
                    "another type fits it"
                )


class ObjectStage:
    """The tool above the table and the task's object on it; the task judges by both."""

    def __init__(self, world: ArmWorld, scene: Scene):
        self._world, self._task = world, cast(ObjectTask, scene.task)
        model, data = scene.model, scene.data
        self._model, self._data, self._chain = model, data, scene.embodiment.chain
        arm = self._chain.joints if self._chain else ()
        names = scene.embodiment.action_names
        self._arm = np.array([names.index(joint) for joint in arm], dtype=np.int64)
        self._arm_qpos = world.addresses(model, arm, model.jnt_qposadr)
        self._action_dim = len(names)
        body = model.body(self._task.object_body)
        first, joints = int(body.jntadr[0]), int(body.jntnum[0])
        free = joints > 0 and model.jnt_type[first] == mujoco.mjtJoint.mjJNT_FREE
        self._qpos = int(model.jnt_qposadr[first]) if free else None
        self._root = int(model.body_rootid[body.id])
        dof = int(body.dofadr[0])  # a free body's first three are its velocity
        self._velocity = data.qvel[dof : dof + min(int(body.dofnum[0]), 3)]
        self._position = data.xpos[body.id]
        self._tool_position = data.site_xpos[model.site(world.tool_site).id]
        self._object_geoms = set(range(body.geomadr[0], body.geomadr[0] + body.geomnum[0]))
        self._finger_geoms = {model.geom(name).id for name in world.finger_geoms}

    def start(self, rng: np.random.Generator, trial: int) -> np.ndarray:
        start = self._task.start(rng)
        command = np.zeros(self._action_dim)
        if self._chain is not None:
            arm = self._chain.inverse(start.tool_position, self._world.tool_down, self._world.home)
            self._data.qpos[self._arm_qpos] = arm
            command[self._arm] = arm
        self._place_object(start)
        return command

    def _place_object(self, start: Start) -> None:
        place, turn = self._qpos, upright_quaternion(start.object_yaw)
        if place is not None:
            self._data.qpos[place : place + 3] = start.object_position
            self._data.qpos[place + 3 : place + 7] = turn
        else:  # stands on the table, with whatever it is mounted on
            self._model.body_pos[self._root, :2] = start.object_position[:2]
            self._model.body_quat[self._root] = turn

    def begin(self) -> None:
        pass

    def judge(self, elapsed_ns: int) -> Outcome:
        return self._task.update(
            ObjectState(
                time_s=elapsed_ns / NANOSECONDS,
                position=self._position.tolist(),
                speed=math.hypot(*self._velocity.tolist()),
                held=self._held,
                tool=self._tool_position.tolist(),
            )
        )

    def _held(self) -> bool:
        for one, other in self._data.contact.geom[: self._data.ncon]:
            pair = {int(one), int(other)}
            if pair & self._object_geoms and pair & self._finger_geoms:
                return True
        return False


def as_slice(indices: np.ndarray) -> slice | np.ndarray:
    """The same selection as a slice if the indices count up by one: numpy is faster with it."""
    first = int(indices[0])
    if np.array_equal(indices, np.arange(first, first + len(indices))):
        return slice(first, first + len(indices))
    return indices
