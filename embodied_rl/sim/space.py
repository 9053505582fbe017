"""Where a simulated robot, its sensors and its cameras stand in space: one tree of frames.

The root is the ``base_frame`` of the embodiment, which is the world of the model. Beneath it stands
the robot, every body a link: ``base_link`` and what hangs on it. A link's frame lies in the axis of
the joint that moves it, as URDF has it. A camera has two frames, ``<camera>_link`` looking along x
and ``<camera>_optical_frame`` looking along z (REP 103).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import mujoco
import numpy as np

from embodied_rl.core.embodiment import ODOMETRY, Embodiment, Stream
from embodied_rl.core.errors import UserError
from embodied_rl.core.frames import OPTICAL, Pose, Transform, rotation_from
from embodied_rl.core.heading import quaternion_of
from embodied_rl.core.streams import BASE_LINK
from embodied_rl.core.window import Sample
from embodied_rl.sim.shapes import Shape, pose_of, shapes
from embodied_rl.sim.worlds.base import CameraSource, World
from embodied_rl.sim.worlds.mobile import ScanSource

FIXED, HINGE, SLIDE = "fixed", "hinge", "slide"
_AT_ORIGIN = Pose(np.eye(3), np.zeros(3))
# of MuJoCo's camera, which looks along -z with x to the right
_FROM_MUJOCO = Pose(np.diag([1.0, -1.0, -1.0]), np.zeros(3))


@dataclass(frozen=True)
class Link:
    """One body of the robot and the joint that it hangs on."""

    name: str
    parent: str  # link; of the root link the frame that it stands in
    body: int
    joint: int  # -1 of a fixed one
    kind: str  # FIXED, HINGE or SLIDE
    origin: Pose  # in the parent, where the joint's angle or way is 0
    axis: np.ndarray  # (3,) unit vector in the link
    address: int  # of the joint in qpos
    offset: np.ndarray  # (3,) m: the link's frame in that of the body

    def pose(self, value: float) -> Pose:
        """In the parent, at a joint value in rad or m."""
        if self.kind == HINGE:
            turn = np.zeros(4)
            mujoco.mju_axisAngle2Quat(turn, self.axis, value)
            return self.origin.after(pose_of(np.zeros(3), turn))
        return self.origin.after(Pose(np.eye(3), value * self.axis))


class Space:
    """The frames of one robot in one world. Reads the model, changes nothing.

    Raises:
        UserError: a body of the robot hangs on more than one joint, or on a ball.
    """

    def __init__(self, model: mujoco.MjModel, world: World, embodiment: Embodiment):
        self.model, self.world, self.embodiment = model, world, embodiment
        self.root = embodiment.base_frame
        root_body = model.body(world.base_body).id
        self.base_moves = bool(
            model.body_jntnum[root_body]
            and model.jnt_type[model.body_jntadr[root_body]] == mujoco.mjtJoint.mjJNT_FREE
        )
        self._root_body = root_body
        self.links = self._links()
        self.base_link = self.links[0].name
        self._of_body = {link.body: link for link in self.links}
        self._moving = [link for link in self.links if link.kind != FIXED]
        self._odometry = [s for s in embodiment.streams.values() if s.type == ODOMETRY]
        self.mounted = self._mounts()  # frames that are no bodies: cameras, sensors, tool
        self.fixed = self._fixed()  # transforms that never change

    # What a robot is made of

    def _links(self) -> tuple[Link, ...]:
        found: dict[int, Link] = {}
        for body in range(self._root_body, self.model.nbody):
            parent = found.get(int(self.model.body_parentid[body]))
            if body == self._root_body:
                found[body] = self._root_link(body)
            elif parent is not None:
                found[body] = self._link(body, parent)
        return tuple(found.values())

    def _root_link(self, body: int) -> Link:
        pose = _AT_ORIGIN
        if self.base_moves:
            children = {
                s.child_frame for s in self.embodiment.streams.values() if s.type == ODOMETRY
            }
            name = min(children, default=BASE_LINK)
        else:
            pose = pose_of(self.model.body_pos[body], self.model.body_quat[body])
            here = np.allclose(pose.rotation, np.eye(3)) and not pose.translation.any()
            name = self.root if here else self._name(body)
        return Link(name, self.root, body, -1, FIXED, pose, np.zeros(3), -1, np.zeros(3))

    def _link(self, body: int, parent: Link) -> Link:
        model, name = self.model, self._name(body)
        at_parent = Pose(np.eye(3), -parent.offset)
        pose = at_parent.after(pose_of(model.body_pos[body], model.body_quat[body]))
        count, joint = int(model.body_jntnum[body]), int(model.body_jntadr[body])
        if count == 0:
            return Link(name, parent.name, body, -1, FIXED, pose, np.zeros(3), -1, np.zeros(3))
        kinds = {mujoco.mjtJoint.mjJNT_HINGE: HINGE, mujoco.mjtJoint.mjJNT_SLIDE: SLIDE}
        kind = kinds.get(mujoco.mjtJoint(int(model.jnt_type[joint])))
        if count > 1 or kind is None:
            raise UserError(
                f"world '{self.world.name}': body '{model.body(body).name}': expected at most one "
                f"hinge or slide, saw {count} joints, the first '{model.joint(joint).name}'"
            )
        offset, address = model.jnt_pos[joint].copy(), int(model.jnt_qposadr[joint])
        at_joint = pose.after(Pose(np.eye(3), offset))
        loose = Link(name, parent.name, body, joint, kind, at_joint, model.jnt_axis[joint].copy(),
                     address, offset)  # fmt: skip
        # MuJoCo's pose of the body is that at qpos0, which need not be 0
        origin = loose.pose(-float(model.qpos0[address]))
        return Link(name, parent.name, body, joint, kind, origin, loose.axis, address, offset)

    def _name(self, body: int) -> str:
        """Of a body's link; no frame of the embodiment may be meant by it."""
        name = self.model.body(body).name.replace("/", "_") or f"body_{body}"
        taken = {self.root, BASE_LINK, *self.embodiment.frames.parents}
        return f"{name}_link" if name in taken else name

    def shapes(self, link: Link) -> list[Shape]:
        """What images show of a link, in its frame."""
        back = Pose(np.eye(3), -link.offset)
        return [
            Shape(shape.kind, shape.size, back.after(shape.pose), shape.rgba)
            for shape in shapes(self.model, link.body)
        ]

    @property
    def body_ids(self) -> frozenset[int]:
        """Numbers of the robot's bodies."""
        return frozenset(self._of_body)

    # What hangs on it

    def optical_frame(self, key: str) -> str:
        """Frame of the images of a camera's stream."""
        stream = self.embodiment.streams[key]
        source = self.world.sources[key]
        assert isinstance(source, CameraSource)
        return stream.sensor_frame or f"{source.camera}_optical_frame"

    def frame(self, stream: Stream) -> str:
        """What the header of a stream's messages names."""
        source = self.world.sources[stream.key]
        if isinstance(source, CameraSource):
            return self.optical_frame(stream.key)
        if isinstance(source, ScanSource):
            return stream.sensor_frame
        return self.root

    def _mounts(self) -> tuple[Transform, ...]:
        """Frames on links, or on the root where a camera stands beside the robot."""
        model, found = self.model, dict[str, Transform]()
        for key, stream in self.embodiment.streams.items():
            source = self.world.sources.get(key)
            if isinstance(source, ScanSource):
                self._mount_site(found, self.frame(stream), source.site)
            elif isinstance(source, CameraSource):
                camera = model.camera(source.camera).id
                optical, body = self.optical_frame(key), f"{source.camera}_link"
                seen = pose_of(model.cam_pos[camera], model.cam_quat[camera]).after(_FROM_MUJOCO)
                parent, pose = self._stands_on(int(model.cam_bodyid[camera]), seen)
                found[body] = Transform(parent, body, pose.after(OPTICAL.inverse()))
                found[optical] = Transform(body, optical, OPTICAL)
        for name, site in self.world.frame_sites.items():
            self._mount_site(found, name, site)
        return tuple(found.values())

    def _mount_site(self, found: dict[str, Transform], name: str, site: str) -> None:
        number = self.model.site(site).id
        pose = pose_of(self.model.site_pos[number], self.model.site_quat[number])
        parent, pose = self._stands_on(int(self.model.site_bodyid[number]), pose)
        if name != parent:  # a sensor that says it is in the robot's own frame
            found[name] = Transform(parent, name, pose)

    def _stands_on(self, body: int, pose: Pose) -> tuple[str, Pose]:
        """The link of a body and the pose in it; the root if the body is none of the robot."""
        link = self._of_body.get(body)
        if link is not None:
            return link.name, Pose(np.eye(3), -link.offset).after(pose)
        while body:
            model = self.model
            pose = pose_of(model.body_pos[body], model.body_quat[body]).after(pose)
            body = int(model.body_parentid[body])
        return self.root, pose

    def _fixed(self) -> tuple[Transform, ...]:
        """Fixed links, what is mounted, and the embodiment's own frames, each child once."""
        base = self.links[0]
        found = [
            Transform(link.parent, link.name, link.origin)
            for link in self.links
            if link.kind == FIXED and link is not base
        ]
        if not self.base_moves and base.name != self.root:
            found.insert(0, Transform(self.root, base.name, base.origin))
        found += self.mounted
        children = {edge.child for edge in found} | {link.name for link in self.links}
        for child, (parent, pose) in self.embodiment.frames.parents.items():
            if child not in children:
                found.append(Transform(parent, child, pose))
        return tuple(found)

    # What moves

    def joints(self, data: mujoco.MjData) -> list[Transform]:
        """The links behind joints, at their angles now."""
        values = data.qpos
        return [
            Transform(link.parent, link.name, link.pose(float(values[link.address])))
            for link in self._moving
        ]

    def base(self, data: mujoco.MjData, samples: Mapping[str, Sample]) -> Transform | None:
        """Where a mobile base stands: as its odometry says where there is one, else as it is.

        None of a robot that is bolted down, and while the odometry says nothing.
        """
        if not self.base_moves:
            return None
        if self._odometry:
            pose = odometry_pose(self._odometry, samples)
        else:
            address = int(self.model.jnt_qposadr[self.model.body_jntadr[self._root_body]])
            state = data.qpos[address : address + 7]
            pose = pose_of(state[:3], state[3:])
        return None if pose is None else Transform(self.root, self.base_link, pose)


def odometry_pose(streams: Iterable[Stream], samples: Mapping[str, Sample]) -> Pose | None:
    """The pose that the odometry message of these samples carries; None without a position."""
    position, turn = None, np.array([0.0, 0.0, 0.0, 1.0])
    whole = False
    for stream in streams:
        sample = samples.get(stream.key)
        if sample is None:
            continue
        if stream.field == "position":
            position = np.asarray(sample.value, dtype=np.float64)
        elif stream.field == "orientation":
            turn, whole = np.asarray(sample.value, dtype=np.float64), True
        elif stream.field == "yaw" and not whole:
            turn = np.array(quaternion_of(float(sample.value[0])))
    return None if position is None else Pose(rotation_from(turn), position)


def rpy(rotation: np.ndarray) -> tuple[float, float, float]:
    """Fixed-axis roll, pitch and yaw (rad) of ``(3, 3)``: ``R = Rz(yaw) Ry(pitch) Rx(roll)``.

    With the pitch at a right angle only the sum of the others counts: yaw is 0 then.
    """
    r = rotation
    across = math.hypot(r[0, 0], r[1, 0])
    pitch = math.atan2(-r[2, 0], across)
    if across < 1e-9:
        return math.atan2(-r[1, 2], r[1, 1]), pitch, 0.0
    return math.atan2(r[2, 1], r[2, 2]), pitch, math.atan2(r[1, 0], r[0, 0])
