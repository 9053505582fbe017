"""Worlds of a base on two driven wheels, commanded by velocities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import mujoco
import numpy as np

from embodied_rl.core.embodiment import LASER_SCAN, Stream
from embodied_rl.core.errors import UserError
from embodied_rl.core.heading import quaternion_of, wrapped, yaw_of
from embodied_rl.sim.noise import SensorNoise
from embodied_rl.sim.tasks.base import PlaceTask
from embodied_rl.sim.worlds.base import NumberSource, SampledStage, Scene, World

DIMENSIONS = ("linear_x", "angular_z")


@dataclass(frozen=True)
class BaseSource:
    """Stream of the base's true pose or velocity: ``position``, ``yaw``, ``linear_velocity`` or
    ``angular_velocity``, the velocities in the base's own frame; ``sigma`` in the stream's unit."""

    quantity: str
    sigma: float


# A localisation's noise, by the keys that a base's streams have
ODOMETRY_SOURCES = {
    "base_position": BaseSource("position", 0.005),
    "base_yaw": BaseSource("yaw", 0.005),
    "base_linear_velocity": BaseSource("linear_velocity", 0.01),
    "base_angular_velocity": BaseSource("angular_velocity", 0.01),
}


@dataclass(frozen=True)
class ScanSource:
    """Stream of a planar lidar; its beams, angles and ranges are those of the stream.

    The beams lie in the x-y plane of ``site``, 0 rad along its x axis, and end at the first geom
    that is not wholly transparent. Geoms of ``body``, the housing that carries the sensor, are not
    seen; other bodies of the robot are, like anything that stands in a real sensor's way.
    ``sigma`` in m, of each return.
    """

    site: str
    body: str
    sigma: float


@dataclass(frozen=True)
class MobileWorld(World):
    """A world whose commands are velocities of a base and whose tasks are about where it is."""

    wheel_radius_m: float
    track_m: float  # between the wheels
    # `base_body` is on a free joint, its origin in the middle of the axle
    wheels: tuple[str, str] = ("left_wheel", "right_wheel")  # actuators, in rad/s

    def actuation(self, scene: Scene) -> DifferentialDrive:
        return DifferentialDrive(self, scene)

    def stage(self, scene: Scene) -> BaseStage:
        return BaseStage(self, scene)

    def reader(
        self, scene: Scene, stream: Stream, source: NumberSource, noise: SensorNoise
    ) -> Callable[[], np.ndarray]:
        if isinstance(source, ScanSource) != (stream.scan is not None):
            raise UserError(
                f"{scene.embodiment.origin}: streams.{stream.key}.type: expected "
                f"{LASER_SCAN if isinstance(source, ScanSource) else 'another type'}, as world "
                f"'{self.name}' measures it, saw {stream.type}"
            )
        if isinstance(source, ScanSource):
            return Lidar(scene, stream, source, noise).read
        base = FreeBody(scene, self.base_body)
        measure = {
            "position": base.position,
            "yaw": base.yaw,
            "linear_velocity": base.linear_velocity,
            "angular_velocity": base.angular_velocity,
        }[cast(BaseSource, source).quantity]

        def read() -> np.ndarray:
            return measure() + next(noise.rows)

        def read_yaw() -> np.ndarray:
            # as it comes out of the quaternion of a message, so that topics change no bit
            return np.array([wrapped(float(read()[0]))])

        return read_yaw if cast(BaseSource, source).quantity == "yaw" else read


class FreeBody:
    """The state of a body on a free joint, as of the newest physics step."""

    def __init__(self, scene: Scene, name: str):
        joint = int(scene.model.body(name).jntadr[0])
        place, dof = int(scene.model.jnt_qposadr[joint]), int(scene.model.jnt_dofadr[joint])
        self._position = scene.data.qpos[place : place + 3]
        self._turn = scene.data.qpos[place + 3 : place + 7]  # w, x, y, z
        self._velocity = scene.data.qvel[dof : dof + 3]  # in the world's frame
        self._rate = scene.data.qvel[dof + 3 : dof + 6]  # in the body's

    def position(self) -> np.ndarray:
        """``(3,)`` metres."""
        return self._position.copy()

    def yaw(self) -> np.ndarray:
        """``(1,)`` rad."""
        w, x, y, z = self._turn.tolist()
        return np.array([yaw_of((x, y, z, w))])

    def linear_velocity(self) -> np.ndarray:
        """``(3,)`` m/s, in the body's frame."""
        back, velocity = np.zeros(4), np.zeros(3)
        mujoco.mju_negQuat(back, self._turn)
        mujoco.mju_rotVecQuat(velocity, self._velocity, back)
        return velocity

    def angular_velocity(self) -> np.ndarray:
        """``(3,)`` rad/s, in the body's frame."""
        return self._rate.copy()

    def place(self, x: float, y: float, yaw: float | None = None) -> None:
        """Move it over the floor (m), and turn it upright to a yaw (rad) if one is given."""
        self._position[:2] = x, y
        if yaw is not None:
            turn = quaternion_of(yaw)
            self._turn[:] = turn[3], *turn[:3]


class Lidar:
    """Ranges of a planar lidar from the geometry of the scene, all beams at one instant."""

    def __init__(self, scene: Scene, stream: Stream, source: ScanSource, noise: SensorNoise):
        assert stream.scan is not None
        self._model, self._data, self._noise = scene.model, scene.data, noise
        self._scan = stream.scan
        self._site = scene.model.site(source.site).id
        self._body = scene.model.body(source.body).id
        angles = stream.scan.angles_rad
        self._beams = np.stack([np.cos(angles), np.sin(angles)])  # (2, beams)
        self._hits = np.zeros(len(angles), dtype=np.int32)

    def read(self) -> np.ndarray:
        """``(beams,)`` float32 m, see :mod:`embodied_rl.core.scan`."""
        place = self._data.site_xpos[self._site]
        turn = self._data.site_xmat[self._site].reshape(3, 3)
        directions, ranges = (turn[:, :2] @ self._beams).T, np.empty(self._scan.beams)
        mujoco.mj_multiRay(
            self._model, self._data, place, np.ascontiguousarray(directions).reshape(-1), None, 1,
            self._body, self._hits, ranges, None, len(ranges), self._scan.range_max_m,
        )  # fmt: skip
        ranges[ranges < 0] = np.inf  # nothing as far as the sensor sees
        return self._scan.readings(ranges + next(self._noise.rows))


class DifferentialDrive:
    """Wheel speeds from a forward velocity v and a turn rate w, as diff_drive_controller has them::

        left = (v - w track / 2) / radius        right = (v + w track / 2) / radius

    Raises:
        UserError: the commands are not velocities along ``linear_x`` and ``angular_z``.
    """

    def __init__(self, world: MobileWorld, scene: Scene):
        embodiment = scene.embodiment
        names = embodiment.action_names
        if sorted(names) != sorted(DIMENSIONS) or not embodiment.velocities.all():
            raise UserError(
                f"{embodiment.origin}: commands: world '{world.name}' takes velocities along "
                f"{list(DIMENSIONS)}, saw {list(names)}"
            )
        half = world.track_m / 2
        columns = {"linear_x": (1.0, 1.0), "angular_z": (-half, half)}
        speeds = np.array([columns[name] for name in names]).T / world.wheel_radius_m
        self._wheel_speeds = np.zeros((scene.model.nu, len(names)))  # rad/s per command unit
        for actuator, row in zip(world.wheels, speeds, strict=True):
            self._wheel_speeds[scene.model.actuator(actuator).id] = row
        self._control = scene.data.ctrl

    def reset(self, command: np.ndarray) -> None:
        self.begin(command)

    def begin(self, command: np.ndarray) -> None:
        self._control[:] = self._wheel_speeds @ command

    def end(self) -> None:
        pass


class BaseStage(SampledStage):
    """The base at rest where the task says; the task judges by where it truly is."""

    def __init__(self, world: MobileWorld, scene: Scene):
        super().__init__(scene)
        self._base = FreeBody(scene, world.base_body)
        self._action_dim = scene.embodiment.action_dim
        self._place = (0.0, 0.0)

    def start(self, rng: np.random.Generator, trial: int) -> np.ndarray:
        x, y, yaw = cast(PlaceTask, self._task).start(rng)
        self._place = (x, y)
        self._base.place(x, y, yaw)
        return np.zeros(self._action_dim)

    def begin(self) -> None:
        self._base.place(*self._place)  # coming to rest has moved it by less than a millimetre
        super().begin()

    def position(self) -> np.ndarray:
        return self._base.position()
