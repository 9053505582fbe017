"""The simulated lidar against rays and boxes worked out here."""

from __future__ import annotations

import math
from types import SimpleNamespace

import mujoco
import numpy as np
import pytest

from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.sim.noise import SensorNoise
from embodied_rl.sim.worlds.base import Scene
from embodied_rl.sim.worlds.mobile import BaseSource, MobileWorld, ScanSource

ODOM = "topic: odom, type: nav_msgs/msg/Odometry, field: position, rate_hz: 20, max_age_s: 0.1"
ROBOT = f"""
name: rover
control_rate_hz: 10
streams:
  place: {{{ODOM}}}
  scan: {{topic: scan, type: sensor_msgs/msg/LaserScan, beams: 90,
         angle_min_rad: -3.141592653589793, angle_increment_rad: 0.06981317007977318,
         range_min_m: 0.25, range_max_m: 4.0, rate_hz: 10, max_age_s: 0.2}}
commands:
  base: {{topic: cmd_vel, type: geometry_msgs/msg/TwistStamped, dimensions: [linear_x, angular_z],
         lower: [-1, -1], upper: [1, 1], max_acceleration: [1, 1]}}
"""
# A box close by, one turned, one beyond the limit, a wall that surrounds the origin of its own
# frame from afar, one overhead, one that cannot be seen, and one that is moved about.
BOXES = """
<geom name="near" type="box" size=".1 .3 .5" pos="1 0 .5"/>
<geom name="turned" type="box" size=".4 .2 .5" pos="-1 1.2 .5" euler="0 0 0.5"/>
<geom name="far" type="box" size=".1 9 .5" pos="4.8 0 .5"/>
<geom name="wall" type="box" size="9 .1 .5" pos="0 -2 .5"/>
<geom name="overhead" type="box" size="3 3 .05" pos="0 0 .6"/>
<geom name="glass" type="box" size=".1 .3 .5" pos=".6 0 .5" rgba="1 1 1 0"/>
<body name="movable" mocap="true" pos="0 0 9"><geom name="moved" type="box" size=".2 .2 .5"/></body>
"""
ROVER = f"""
<mujoco>
  <compiler angle="radian"/>
  <worldbody>
    <geom type="plane" size="9 9 1"/>{BOXES}
    <body name="base_link" pos="0 0 .1"><freejoint/>
      <geom type="cylinder" size=".12 .1"/>
      <site name="lidar" pos=".02 .01 .05"/>
      <body name="mast" pos="0 -.3 0"><geom name="mast" type="box" size=".02 .02 .3"/></body>
    </body>
  </worldbody>
</mujoco>
"""
UNSEEN = ("glass",)
SOURCE = ScanSource(site="lidar", body="base_link", sigma=0.01)
BODY = Embodiment.parse(ROBOT, "rover.yaml")
STREAM = BODY.streams["scan"]


def world(source=SOURCE) -> MobileWorld:
    return MobileWorld("test", "", (), lambda visuals: None, {"scan": source}, {}, 0, 0.1, 0.3)


def rover() -> Scene:
    model = mujoco.MjModel.from_xml_string(ROVER)
    task = SimpleNamespace(name="none")
    return Scene(model, mujoco.MjData(model), BODY, task, 2_000_000)


def placed(scene: Scene, x: float, y: float, turn: tuple, moved=(0.0, 0.0, 9.0)) -> None:
    """The robot at x, y and a quaternion w, x, y, z; the movable box where it is asked for."""
    norm = math.hypot(*turn)
    scene.data.qpos[:] = [x, y, 0.1, *(part / norm for part in turn)]
    scene.data.mocap_pos[0] = moved
    mujoco.mj_kinematics(scene.model, scene.data)


def reader(scene: Scene, sigma: float = 0.0, seed: int = 0):
    noise = SensorNoise("scan", sigma, STREAM.shape)
    noise.reset(seed)
    return world().reader(scene, STREAM, SOURCE, noise)


def turned(quaternion: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Vectors ``(..., 3)`` turned by a unit quaternion w, x, y, z."""
    w, axis = quaternion[0], quaternion[1:]
    across = np.cross(axis, vectors)
    return vectors + 2 * (w * across + np.cross(axis, across))


def expected(scene: Scene) -> np.ndarray:
    """Ranges ``(beams,)`` m to the nearest box or the floor, by the method of slabs."""
    place, turn = scene.data.qpos[:3], scene.data.qpos[3:]
    start = place + turned(turn, np.array([0.02, 0.01, 0.05]))
    angles = -math.pi + np.arange(90) * math.tau / 90
    beams = turned(turn, np.stack([np.cos(angles), np.sin(angles), np.zeros(90)], axis=1))
    with np.errstate(divide="ignore"):
        floor = -start[2] / beams[:, 2]
    nearest = np.where(floor > 0, floor, np.inf)
    for geom in range(scene.model.ngeom):
        name = scene.model.geom(geom).name
        if scene.model.geom_type[geom] != mujoco.mjtGeom.mjGEOM_BOX or name in UNSEEN:
            continue
        # the axes of the box as columns: into its frame by their transpose
        axes = scene.data.geom_xmat[geom].reshape(3, 3)
        origin, along = (start - scene.data.geom_xpos[geom]) @ axes, beams @ axes
        with np.errstate(divide="ignore"):
            sides = (np.array([[-1], [1]]) * scene.model.geom_size[geom] - origin)[:, None] / along
        enter, leave = sides.min(axis=0).max(axis=1), sides.max(axis=0).min(axis=1)
        nearest = np.where((enter <= leave) & (enter > 0), np.minimum(nearest, enter), nearest)
    return nearest


@pytest.mark.parametrize(
    ("x", "y", "turn", "moved"),
    [
        (0.0, 0.0, (1, 0, 0, 0), (0, 0, 9)),
        (0.3, -0.4, (0.8, 0, 0, 0.6), (0.2, 0.9, 0.4)),
        (-0.7, 0.3, (-0.2, 0, 0, 0.9), (-1.4, -0.2, 0.4)),
        (0.1, 0.2, (1, 0.03, -0.05, 0.4), (0.9, 1.0, 0.4)),  # tilted: some beams meet the floor
    ],
)
def test_a_scan_is_what_the_geometry_says(x, y, turn, moved):
    scene = rover()
    read = reader(scene)
    placed(scene, x, y, turn, moved)
    wanted = expected(scene)
    found = read()
    assert found.shape == (90,) and found.dtype == np.float32
    np.testing.assert_allclose(found, np.clip(wanted, 0.25, 4.0), rtol=1e-6)
    assert (found == 4.0).sum() > 3  # free as far as the sensor sees: the far wall is no return
    assert (wanted[found == 4.0] > 4.0).all() and np.isfinite(wanted).sum() > (found < 4.0).sum()
    assert (found == np.float32(0.25)).any() == (wanted < 0.25).any()


def test_the_first_beam_is_the_first_angle_and_they_turn_left():
    scene = rover()
    placed(scene, 0.0, 0.0, (1, 0, 0, 0), (0.0, 1.0, 0.4))
    found, angles = reader(scene)(), STREAM.scan.angles_rad
    ahead, left = found[np.abs(angles).argmin()], found[np.abs(angles - math.pi / 2).argmin()]
    assert ahead == pytest.approx(1 - 0.1 - 0.02, abs=1e-3)  # "near", not the glass before it
    assert left == pytest.approx(1 - 0.2 - 0.01, abs=2e-3)
    assert angles[0] == -math.pi and angles[-1] == pytest.approx(math.pi - math.tau / 90)


def test_the_noise_is_of_the_seed_and_touches_no_missing_return():
    scene = rover()
    placed(scene, 0.0, 0.0, (1, 0, 0, 0))
    exact = reader(scene)()
    one, same, other = (reader(scene, 0.01, seed) for seed in (3, 3, 4))
    first, second = one(), one()
    np.testing.assert_array_equal(first, same())
    np.testing.assert_array_equal(second, same())
    assert (first != second).sum() > 30 and (first != other()).sum() > 30
    returns = (exact > 0.3) & (exact < 3.9)
    off = (np.stack([one() for _ in range(200)]) - exact)[:, returns]
    assert off.std() == pytest.approx(0.01, rel=0.05) and abs(off.mean()) < 5e-4
    np.testing.assert_array_equal(first[exact == 4.0], 4.0)


@pytest.mark.parametrize(
    ("key", "source", "said"),
    [
        ("place", SOURCE, r"streams\.place\.type: expected sensor_msgs/msg/LaserScan, .* saw nav"),
        ("scan", BaseSource("position", 0.0), r"streams\.scan\.type: expected another type"),
    ],
)
def test_a_stream_of_another_type_than_its_source_is_refused(key, source, said):
    stream = BODY.streams[key]
    with pytest.raises(UserError, match=said):
        world(source).reader(rover(), stream, source, SensorNoise(key, 0.0, stream.shape))
