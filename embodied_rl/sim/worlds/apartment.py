"""World ``apartment``: a small robot with lidar and camera in a furnished flat of four rooms.

The robot and the empty flat stand in ``sim_worlds/apartment/apartment.xml``, furniture and objects
in ``furnishings.xml``, which it includes. Walls, furniture and objects are bodies that a trial puts
in their places (``mocap``), so that one compiled model is every home. World frame is ``odom``, its
origin the corner of the layout: cell (x, y) covers ``[x, x + 1) * cell_m`` by
``[y, y + 1) * cell_m``.

``odom`` carries the true pose and velocity with noise, as a localisation gives them.
"""

from __future__ import annotations

import math
from typing import cast

import mujoco
import numpy as np

from embodied_rl.core.heading import quaternion_of
from embodied_rl.core.policy import Outcome
from embodied_rl.sim.navigation.layout import OBJECT_NAMES, Layout, generate_layout
from embodied_rl.sim.tasks.base import HomeTask
from embodied_rl.sim.worlds.base import CameraSource, Scene, sim_worlds_file
from embodied_rl.sim.worlds.mobile import ODOMETRY_SOURCES, FreeBody, MobileWorld, ScanSource

WHEEL_RADIUS_M, TRACK_M = 0.04, 0.24
FURNITURE = ("wardrobe", "shelf", "cabinet", "fridge", "stove", "bookcase")
OBJECT_HEIGHT_M = 0.65  # of their middles
WALL_HEIGHT_M = 1.2
OUT_OF_SIGHT = (3.25, 3.25, -1.0)  # below the floor, which hides it

BOARD_WIDTH, BOARD_LENGTH, TEXTURE = 32, 256, 512  # pixels
OAK = (0.72, 0.56, 0.39)


def build(visuals: str) -> mujoco.MjSpec:
    """The flat with all that can stand in it; there is one set of ``visuals``."""
    spec = mujoco.MjSpec.from_file(str(sim_worlds_file("apartment/apartment.xml")))
    texture = spec.add_texture(
        name="oak", type=mujoco.mjtTexture.mjTEXTURE_2D, width=TEXTURE, height=TEXTURE, nchannel=3
    )
    texture.data = oak_boards().tobytes()
    home = generate_layout(0)  # every home has as many inner walls and doors
    half = home.settings.cell_m / 2
    for number in range(len(inner_walls(home))):
        block = spec.worldbody.add_body(name=_wall(number), mocap=True)
        block.add_geom(
            spec.find_default("wall"),
            size=[half, half, WALL_HEIGHT_M / 2],
            pos=[0, 0, WALL_HEIGHT_M / 2],
        )
        top = [half, half, 0.003]
        block.add_geom(
            _seen(spec), size=top, pos=[0, 0, WALL_HEIGHT_M], material="wall_top", type=_BOX
        )
    for number in range(len(home.doors)):
        sill = spec.worldbody.add_body(name=_sill(number), mocap=True)
        sill.add_geom(_seen(spec), size=[half, half, 0.001], material="sill", type=_BOX)
    return spec


_BOX = mujoco.mjtGeom.mjGEOM_BOX


def _seen(spec: mujoco.MjSpec) -> mujoco.MjsDefault:
    return spec.find_default("seen")


def _wall(number: int) -> str:
    return f"wall_{number}"


def _sill(number: int) -> str:
    return f"sill_{number}"


def oak_boards() -> np.ndarray:
    """A floor of boards that differ in tone ``(TEXTURE, TEXTURE, 3)`` uint8; it can be tiled."""
    rng = np.random.default_rng(0)
    rows, columns = TEXTURE // BOARD_WIDTH, TEXTURE // BOARD_LENGTH
    shade = np.ones((TEXTURE, TEXTURE))
    for row in range(rows):
        across = slice(row * BOARD_WIDTH, (row + 1) * BOARD_WIDTH)
        board = np.repeat(rng.uniform(0.88, 1.06, columns), BOARD_LENGTH)
        grain = np.repeat(rng.normal(0, 0.012, BOARD_WIDTH), TEXTURE).reshape(BOARD_WIDTH, -1)
        shade[across] = board + grain
        joints = np.arange(columns) * BOARD_LENGTH
        shade[across, joints] = 0.72
        shade[across] = np.roll(shade[across], int(rng.integers(BOARD_LENGTH)), axis=1)
        shade[row * BOARD_WIDTH] = 0.74
    return (255 * np.clip(shade[..., None] * OAK, 0, 1)).astype(np.uint8)


def inner_walls(layout: Layout) -> np.ndarray:
    """Cells (x, y) ``(K, 2)`` of all walls but the outer ones; as many in every home."""
    inner = layout.walls[1:-1, 1:-1]
    return np.argwhere(inner)[:, ::-1] + 1


def facing(layout: Layout) -> np.ndarray:
    """Yaw ``(F,)`` of the furniture (rad): its back to a wall, its front to a free cell."""
    yaws = []
    for x, y in layout.furniture_cells:
        ways = ((1, 0), (0, 1), (-1, 0), (0, -1))
        # a wall behind counts less than a way in front
        fits = [
            2 * (not layout.obstacles[y + dy, x + dx]) + int(layout.walls[y - dy, x - dx])
            for dx, dy in ways
        ]
        yaws.append(math.pi / 2 * int(np.argmax(fits)))
    return np.array(yaws)


class ApartmentWorld(MobileWorld):
    """A base in a home that its task chooses."""

    def stage(self, scene: Scene) -> HomeStage:
        return HomeStage(self, scene)


class HomeStage:
    """The home of the trial around the base, which stands where the task says; the task judges by
    its true pose."""

    def __init__(self, world: ApartmentWorld, scene: Scene):
        self._task = cast(HomeTask, scene.task)
        self._base = FreeBody(scene, world.base_body)
        self._model, self._data = scene.model, scene.data
        self._action_dim = scene.embodiment.action_dim

    def start(self, rng: np.random.Generator, trial: int) -> np.ndarray:
        self._task.begin(rng, trial)
        self._furnish(self._task.layout)
        self._base.place(*self._task.start_pose)
        return np.zeros(self._action_dim)

    def begin(self) -> None:
        self._base.place(*self._task.start_pose)  # coming to rest has moved it by a hair

    def judge(self, elapsed_ns: int) -> Outcome:
        return self._task.update(elapsed_ns, self._pose())

    def _pose(self) -> np.ndarray:
        return np.concatenate([self._base.position()[:2], self._base.yaw()])

    def _furnish(self, layout: Layout) -> None:
        walls, doors = layout.centre_m(inner_walls(layout)), layout.centre_m(layout.doors)
        for number, (x, y) in enumerate(walls):
            self._put(_wall(number), (x, y, 0.0))
        for number, (x, y) in enumerate(doors):
            self._put(_sill(number), (x, y, 0.0))
        for name in (*FURNITURE, *OBJECT_NAMES):
            self._put(name, OUT_OF_SIGHT)
        pieces = layout.centre_m(layout.furniture_cells)
        for name, (x, y), yaw in zip(FURNITURE, pieces, facing(layout)):
            self._put(name, (x, y, 0.0), yaw)
        for kind, (x, y) in zip(layout.object_types, layout.centre_m(layout.object_cells)):
            self._put(OBJECT_NAMES[kind], (x, y, OBJECT_HEIGHT_M))

    def _put(self, body: str, place: tuple[float, float, float], yaw: float = 0.0) -> None:
        number = int(self._model.body(body).mocapid[0])
        self._data.mocap_pos[number] = place
        turn = quaternion_of(yaw)
        self._data.mocap_quat[number] = turn[3], *turn[:3]


APARTMENT = ApartmentWorld(
    name="apartment",
    embodiment_file="apartment/home_base.yaml",
    visuals=("primitives",),
    build=build,
    sources={
        **ODOMETRY_SOURCES,
        "scan": ScanSource("lidar", "base_link", 0.01),
        "camera_front": CameraSource("front", "rgb"),
        "camera_front_depth": CameraSource("front", "depth"),
        "camera_front_segmentation": CameraSource("front", "segmentation"),
    },
    # the objects come first: instance 1 + k is the object of type k
    instances={
        **{name: name for name in OBJECT_NAMES},
        "robot": "base_link",
        **{name: name for name in FURNITURE},
    },
    judge_period_ns=100_000_000,
    wheel_radius_m=WHEEL_RADIUS_M,
    track_m=TRACK_M,
)
