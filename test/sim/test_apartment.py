"""The apartment: homes put in place trial by trial, how the robot drives, and what it senses."""

from __future__ import annotations

import math

import mujoco
import numpy as np
import pytest

from embodied_rl.sim.navigation.layout import OBJECT_NAMES
from embodied_rl.sim.registry import make_simulator
from embodied_rl.sim.worlds.apartment import FURNITURE, OUT_OF_SIGHT, TRACK_M, WHEEL_RADIUS_M

AHEAD = ((1, 0), (0, 1), (-1, 0), (0, -1))
LIDAR_M, CAMERA_M, OBJECT_M = 0.2, 0.25, 0.65  # above the floor


@pytest.fixture(scope="module")
def sim():
    made = make_simulator("apartment", "find_object", cameras=("front",), noise=0.0)
    yield made
    made.close()


def stand(sim, x: int, y: int, heading: int) -> None:
    """Puts the robot in the middle of a cell."""
    place, turn = (np.array([x, y]) + 0.5) / 2, heading * math.pi / 2
    sim.data.qpos[:2] = place
    sim.data.qpos[3:7] = math.cos(turn / 2), 0, 0, math.sin(turn / 2)
    mujoco.mj_forward(sim.model, sim.data)


def pose(sim) -> np.ndarray:
    """x, y (m) and yaw (rad), in truth."""
    w, _, _, z = sim.data.qpos[3:7]
    return np.array([*sim.data.qpos[:2], 2 * math.atan2(z, w)])


def drive(sim, v: float, w: float, seconds: float) -> None:
    for _ in range(round(seconds * 1e9 / sim.step_ns)):
        sim.step(np.array([v, w]))


def from_above(sim, x: float, y: float) -> tuple[float, str]:
    """Height (m) and body of what is hit first on the way down to the floor, objects left out."""
    groups = np.array([1, 0, 0, 0, 0, 0], dtype=np.uint8)
    hit = np.zeros(1, dtype=np.int32)
    way = mujoco.mj_ray(
        sim.model, sim.data, [x, y, 3.0], [0.0, 0.0, -1.0], groups, 1, -1, hit, None
    )
    return 3.0 - way, sim.model.body(int(sim.model.geom_bodyid[hit[0]])).name


# The homes


@pytest.mark.parametrize("trial", [0, 5])
def test_walls_furniture_and_objects_stand_where_the_layout_says(sim, trial):
    """Every cell is looked at from above, where nothing but what stands on the floor shows."""
    sim.reset(1, trial)
    layout = sim.task.layout
    pieces = {tuple(cell): name for cell, name in zip(layout.furniture_cells, FURNITURE)}
    for y, x in np.ndindex(layout.obstacles.shape):
        for dx, dy in ((0.25, 0.25), (0.1, 0.1), (0.4, 0.1), (0.1, 0.4), (0.4, 0.4)):
            height, body = from_above(sim, x / 2 + dx, y / 2 + dy)
            assert (height >= 0.9) == layout.obstacles[y, x] and (height >= 0.9 or height == 0)
        assert (x, y) not in pieces or body == pieces[x, y]
    for kind, name in enumerate(OBJECT_NAMES):
        place = sim.data.body(name).xpos
        if kind in layout.object_types:
            x, y = layout.object_cells[list(layout.object_types).index(kind)]
            np.testing.assert_allclose(place, [(x + 0.5) / 2, (y + 0.5) / 2, OBJECT_M])
        else:
            np.testing.assert_allclose(place, OUT_OF_SIGHT)


def test_a_trial_is_one_home_whatever_the_seed_and_the_next_is_another(sim):
    def home(seed: int, trial: int) -> bytes:
        sim.reset(seed, trial)
        return sim.data.mocap_pos.tobytes() + sim.data.mocap_quat.tobytes()

    model = sim.model
    assert home(1, 3) == home(2, 3) != home(2, 4)
    assert home(1, 3) == home(7, 3 + 256)  # the held-out homes go round
    assert sim.model is model


def test_objects_hang_clear_of_the_robot_and_touch_nothing(sim):
    sim.reset(0)
    model, data = sim.model, sim.data
    robot = model.body("base_link").id
    for geom in range(model.ngeom):
        centre, half = model.geom_aabb[geom].reshape(2, 3)
        turn = data.geom_xmat[geom].reshape(3, 3)
        middle = data.geom_xpos[geom] + turn @ centre
        low, high = middle[2] - abs(turn[2]) @ half, middle[2] + abs(turn[2]) @ half
        body = int(model.geom_bodyid[geom])
        if model.body(body).name in OBJECT_NAMES:
            assert low > 0.45 or low < -0.3  # or below the floor
            assert not model.geom_contype[geom] and not model.geom_conaffinity[geom]
        elif model.body_rootid[body] == robot:
            assert high < 0.35


def test_furniture_turns_its_back_to_a_wall_or_its_front_to_a_free_cell(sim):
    for trial in range(4):
        sim.reset(0, trial)
        layout = sim.task.layout
        for (x, y), name in zip(layout.furniture_cells, FURNITURE):
            dx, dy = np.round(sim.data.body(name).xmat.reshape(3, 3)[:2, 0]).astype(int)
            assert abs(dx) + abs(dy) == 1
            ways = [layout.obstacles[y + b, x + a] for a, b in AHEAD]
            assert not layout.obstacles[y + dy, x + dx] or all(ways)


# The robot


@pytest.mark.parametrize(("v", "w"), [(0.5, 0.0), (0.0, 1.5), (0.0, -1.5), (0.3, 0.6)])
def test_it_follows_its_command(sim, v, w):
    """In steady state, within 2 % of the closed form of a unicycle."""
    sim.reset(0)
    stand(sim, 8, 8, 0)
    drive(sim, v, w, 0.5)
    x, y, yaw = pose(sim)
    drive(sim, v, w, 1.0)
    after = pose(sim)
    assert math.remainder(after[2] - yaw, math.tau) == pytest.approx(w, rel=0.02, abs=1e-3)
    chord = v * (math.sin(w / 2) / (w / 2) if w else 1.0)
    assert math.dist(after[:2], (x, y)) == pytest.approx(chord, rel=0.02, abs=1e-3)


def test_it_stands_still_without_a_command_and_soon_after_one(sim):
    sim.reset(0)
    stand(sim, 8, 8, 0)
    drive(sim, 0.6, 0.0, 1.0)
    drive(sim, 0.0, 0.0, 0.2)
    before = pose(sim)
    drive(sim, 0.0, 0.0, 3.0)
    assert np.allclose(pose(sim), before, atol=1e-3)


@pytest.mark.parametrize(("row", "face", "slack"), [(2, 0.5, 0.005), (3, 1.0, 0.04)])
def test_walls_and_furniture_hold_it(sim, row, face, slack):
    """Its rim then touches the wall behind the first cell, or the shelf in it."""
    sim.reset(0)
    assert sim.task.layout.obstacles[row, 1] == (row == 3)
    stand(sim, 3, row, 2)
    drive(sim, 0.5, 0.0, 4.0)
    x, y, _ = pose(sim)
    assert face - slack <= x - 0.165 <= face and y == pytest.approx((row + 0.5) / 2, abs=0.05)


def test_the_wheels_have_the_sizes_that_the_drive_computes_with(sim):
    left, right = (sim.model.body(f"{side}_wheel") for side in ("left", "right"))
    assert left.pos[1] - right.pos[1] == pytest.approx(TRACK_M)
    assert sim.model.geom_size[left.geomadr[0]][0] == WHEEL_RADIUS_M
    assert sim.model.body("base_link").pos[2] == WHEEL_RADIUS_M


def test_episodes_start_in_the_middle_of_a_free_cell_at_a_quarter_turn(sim):
    headings = set()
    for seed in range(12):
        sim.reset(seed, seed)
        x, y, heading = sim.task.start
        assert not sim.task.layout.obstacles[y, x]
        here = pose(sim)
        np.testing.assert_allclose(here[:2], [(x + 0.5) / 2, (y + 0.5) / 2], atol=1e-9)
        assert abs(math.remainder(here[2] - heading * math.pi / 2, math.tau)) < 1e-6
        headings.add(heading)
    assert headings == {0, 1, 2, 3}


# Its sensors


def test_the_lidar_measures_the_way_to_the_next_obstacle(sim):
    """Along the axes of the robot, against the cells of the layout; furniture may stand up to
    4 cm inside its cell."""
    for seed in range(6):
        sim.reset(seed, seed)
        layout, (x, y, heading) = sim.task.layout, sim.task.start
        scan = sim.read()["scan"].value
        assert scan.shape == (360,) and scan.dtype == np.float32
        for quarter in range(4):
            dx, dy = AHEAD[(heading + quarter) % 4]
            cells = 1
            while not layout.obstacles[y + cells * dy, x + cells * dx]:
                cells += 1
            measured = scan[(180 + 90 * quarter) % 360]
            expected = cells / 2 - 0.25
            slack = 0.001 if layout.walls[y + cells * dy, x + cells * dx] else 0.04
            assert expected - 0.001 <= measured <= expected + slack


def test_an_object_shows_where_geometry_projects_it(sim):
    """In segmentation and depth, with a view free of obstacles; the camera is 120 degrees wide."""
    focal = 64 / math.tan(math.radians(60))
    found = 0
    for trial in range(3):
        sim.reset(0, trial)
        layout = sim.task.layout
        for kind, (x, y) in zip(layout.object_types, layout.object_cells):
            for heading, (dx, dy) in enumerate(AHEAD):
                cells = [(x - k * dx, y - k * dy) for k in range(1, 4)]
                if any(layout.obstacles[b, a] for a, b in cells):
                    continue
                stand(sim, *cells[-1], heading)  # 1.5 m away, straight ahead
                ids = sim.render("front", 128, 72, "segmentation")
                depth = sim.render("front", 128, 72, "depth")
                row = 35.5 - focal * (OBJECT_M - CAMERA_M) / 1.5
                near = round(row), 64
                assert ids[near] == 1 + kind
                assert 1.5 - 0.14 <= depth[near] <= 1.5
                rows, columns = np.nonzero(ids == 1 + kind)
                assert rows.min() > row - 12 and rows.max() < row + 8
                assert np.ptp(columns) < 0.30 / 1.3 * focal
                found += 1
    assert found >= 6


def test_the_streams_are_those_of_the_renderer_and_the_robot_is_in_none_of_them(sim):
    sim.reset(4, 1)
    samples = sim.read()
    ids, depth = (samples[f"camera_front_{kind}"].value for kind in ("segmentation", "depth"))
    assert ids.shape == depth.shape == (72, 128) and ids.dtype == np.uint16
    assert samples["camera_front"].value.shape == (90, 160, 3)
    np.testing.assert_array_equal(ids, sim.render("front", 128, 72, "segmentation"))
    assert sim.instances["robot"] not in ids and depth.min() > 0.16
    # the floor in the last row, by its height alone
    focal = 64 / math.tan(math.radians(60))
    assert depth[-1, 64] == pytest.approx(CAMERA_M * focal / 35.5, rel=0.02)


def test_objects_are_the_first_instances_in_the_order_of_their_types(sim):
    assert [sim.instances[name] for name in OBJECT_NAMES] == [1, 2, 3, 4, 5, 6]
    assert set(sim.instances) == {*OBJECT_NAMES, "robot", *FURNITURE}


def test_an_object_behind_a_wall_is_not_seen(sim):
    """From the corner of one room, what hangs in the opposite room shows through no door."""
    sim.reset(0, 0)
    layout = sim.task.layout
    hidden = {
        1 + kind
        for kind, (x, y) in zip(layout.object_types, layout.object_cells)
        if x > 6 and y < 6  # behind the wall at x = 6 whose door lies at y = 5
    }
    assert hidden and not layout.walls[5, 6]
    stand(sim, 1, 1, 0)
    ids = sim.render("front", 128, 72, "segmentation")
    assert not hidden & set(np.unique(ids))
