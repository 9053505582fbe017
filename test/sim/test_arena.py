"""The arena: how the base drives, what its sensors say, and how its tasks judge."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.sim.registry import make_simulator, world_embodiment
from embodied_rl.sim.stl_tasks.task import load_task, write_task
from embodied_rl.sim.tasks.formula import AVOIDED_RGBA, UNUSED_RGBA, region_colours
from embodied_rl.sim.worlds.arena import ARENA, TRACK_M, WHEEL_RADIUS_M

STREAMS = ("base_position", "base_yaw", "base_linear_velocity", "base_angular_velocity")
TASK = "patrol_two_goals"


@pytest.fixture(scope="module")
def sim():
    made = make_simulator("arena", TASK, noise=0.0)
    yield made
    made.close()


def pose(sim) -> tuple[float, float, float]:
    """x, y (m) and yaw (rad); needs a step at which all streams are due."""
    samples = sim.read()
    x, y, _ = samples["base_position"].value
    return float(x), float(y), float(samples["base_yaw"].value[0])


def drive(sim, v: float, w: float, seconds: float) -> None:
    for _ in range(round(seconds * 1e9 / sim.step_ns)):
        sim.step(np.array([v, w]))


def turned(before: float, after: float) -> float:
    return math.remainder(after - before, 2 * math.pi)


# The base


@pytest.mark.parametrize(("v", "w"), [(1.0, 0.0), (2.0, 0.0), (0.5, 0.5), (1.0, -1.0), (-0.5, 0.3)])
def test_it_drives_the_arc_of_its_command(sim, v, w):
    """In steady state, against the closed form of a unicycle: within 2 % of the way, and 4 %
    of the turn (wheels slip a little sideways, for the centre of mass lies behind the axle)."""
    sim.reset(0)
    drive(sim, v, w, 2.0)
    x, y, yaw = pose(sim)
    seconds = 2.0
    drive(sim, v, w, seconds)
    after = pose(sim)
    turn = w * seconds
    assert turned(yaw, after[2]) == pytest.approx(turn, abs=0.04 * abs(turn) + 1e-3)
    chord = v * seconds * (math.sin(turn / 2) / (turn / 2) if turn else 1.0)
    assert math.hypot(after[0] - x, after[1] - y) == pytest.approx(abs(chord), rel=0.02)
    heading = math.atan2(after[1] - y, after[0] - x) + (math.pi if v < 0 else 0)
    assert abs(turned(yaw + turn / 2, heading)) < 0.04


def test_it_turns_on_the_spot_and_stands_still(sim):
    sim.reset(0)
    drive(sim, 0.0, 1.0, 1.0)
    x, y, yaw = pose(sim)
    drive(sim, 0.0, 1.0, 2.0)
    after = pose(sim)
    assert turned(yaw, after[2]) == pytest.approx(2.0, rel=0.02)
    assert math.hypot(after[0] - x, after[1] - y) < 0.01
    drive(sim, 0.0, 0.0, 0.5)
    still = pose(sim)
    drive(sim, 0.0, 0.0, 2.0)
    assert np.allclose(pose(sim), still, atol=1e-3)


def test_it_drives_a_scripted_course_like_a_unicycle_of_the_same_velocities(sim):
    """Velocities that change within the limits of the embodiment; the twin integrates them in
    steps of a millisecond. Over 16 m of way it ends within 25 cm and 0.1 rad."""
    sim.reset(1)
    x, y, yaw = pose(sim)
    begin_s, travelled, last = sim.time_ns / 1e9, 0.0, (x, y)
    for step in range(round(16e9 / sim.step_ns)):
        t = step * sim.step_ns / 1e9
        v, w = min(t, 1.0), 0.5 * math.sin(0.8 * t)
        sim.step(np.array([v, w]))
        for _ in range(sim.step_ns // 1_000_000):
            yaw += w * 0.5e-3
            x, y = x + v * math.cos(yaw) * 1e-3, y + v * math.sin(yaw) * 1e-3
            yaw += w * 0.5e-3
        here = pose(sim)
        travelled += math.dist(last, here[:2])
        last = here[:2]
    assert sim.time_ns / 1e9 == pytest.approx(begin_s + 16)
    assert travelled == pytest.approx(15.5, rel=0.02)
    assert math.dist((x, y), here[:2]) < 0.25 and abs(turned(yaw, here[2])) < 0.1


def test_braking_at_once_skids_no_further_than_the_wheels_can_hold(sim):
    """An emergency stop at 2 m/s: it stands within a metre and does not tip over."""
    sim.reset(0)
    drive(sim, 2.0, 0.0, 3.0)
    begin = pose(sim)
    tilt = 0.0
    for _ in range(50):
        drive(sim, 0.0, 0.0, 0.02)
        _, x, y, _ = sim.data.qpos[3:7]
        tilt = max(tilt, 2 * math.hypot(x, y))
    assert 0.2 < math.dist(begin[:2], pose(sim)[:2]) < 1.0 and tilt < math.radians(5)
    assert np.abs(sim.read()["base_linear_velocity"].value).max() < 0.01


def test_the_wheels_have_the_sizes_that_the_drive_computes_with(sim):
    model = sim.model
    left, right = (model.body(f"{side}_wheel") for side in ("left", "right"))
    assert left.pos[1] - right.pos[1] == pytest.approx(TRACK_M)
    radii = {model.geom_size[left.geomadr[0]][0], model.geom_size[right.geomadr[0]][0]}
    assert radii == {WHEEL_RADIUS_M}
    assert model.body("base_link").subtreemass[0] == pytest.approx(17, abs=1)
    sim.step(np.array([1.0, 0.5]))
    np.testing.assert_allclose(sim.data.ctrl, [(1 - 0.09) / 0.1, (1 + 0.09) / 0.1])


# Its sensors


def test_odometry_is_the_true_pose_and_the_velocity_in_the_own_frame(sim):
    """Velocities against differences of the poses, in the middle between two of them."""
    sim.reset(2)
    drive(sim, 1.0, 0.6, 2.0)
    x0, y0, yaw0 = pose(sim)
    drive(sim, 1.0, 0.6, 0.02)
    samples = sim.read()
    drive(sim, 1.0, 0.6, 0.02)
    x1, y1, yaw1 = pose(sim)
    middle = float(samples["base_yaw"].value[0])
    dx, dy = (x1 - x0) / 0.04, (y1 - y0) / 0.04
    ahead = dx * math.cos(middle) + dy * math.sin(middle)
    aside = dy * math.cos(middle) - dx * math.sin(middle)
    np.testing.assert_allclose(
        samples["base_linear_velocity"].value, [ahead, aside, 0.0], atol=0.005
    )
    rate = turned(yaw0, yaw1) / 0.04
    np.testing.assert_allclose(samples["base_angular_velocity"].value, [0, 0, rate], atol=0.005)


def test_noise_has_the_stated_size():
    sim = make_simulator("arena", TASK)
    sim.reset(3)
    found = {key: [] for key in STREAMS}
    for _ in range(600):
        sim.step(np.zeros(2))
        for key in STREAMS:
            found[key].append(sim.read()[key].value)
    for key, values in found.items():
        spread = float(np.std(np.array(values), axis=0).mean())
        assert spread == pytest.approx(ARENA.sources[key].sigma, rel=0.15), key


def test_same_seed_and_commands_give_the_same_bits(sim):
    def run(seed: int) -> bytes:
        sim.reset(seed)
        drive(sim, 1.0, 0.3, 3.0)
        return sim.data.qpos.tobytes() + b"".join(s.value.tobytes() for s in sim.read().values())

    assert run(4) == run(4) != run(5)


# Its tasks


def test_the_start_lies_in_the_box_at_rest_and_headings_go_round(sim):
    task, headings = load_task(TASK), []
    for seed in range(40):
        sim.reset(seed)
        x, y, yaw = pose(sim)
        assert task.start_low[0] <= x <= task.start_high[0]
        assert task.start_low[1] <= y <= task.start_high[1]
        assert not sim.command.any() and np.abs(sim.data.qvel).max() == 0.0
        headings.append(yaw)
    assert all(
        any(low <= yaw < high for yaw in headings)
        for low, high in pairwise(np.linspace(-math.pi, math.pi, 5))
    )


def easy(tmp_path, formula: str) -> str:
    """A task whose goal lies under the start box."""
    base = load_task(TASK)
    data = base.as_mapping() | {"formula": formula, "name": "easy"}
    del data["witness"]
    data["regions"]["A"] = {"centre": [-2.7, -2.9], "radius": 2.0}
    path = tmp_path / "easy.yaml"
    path.write_text(yaml.safe_dump(data))
    return str(path)


def test_the_verdict_is_the_robustness_of_the_driven_trace(tmp_path):
    """Positions every half second, the start included, judged by the task's own formula."""
    sim = make_simulator("arena", easy(tmp_path, "G[0,10] A and G[0,32] not O0"), noise=0.0)
    sim.reset(0)
    trace = [pose(sim)[:2]]
    while not sim.outcome().done:
        drive(sim, 0.2, 0.5, 0.5)
        trace.append(pose(sim)[:2])
    outcome = sim.outcome()
    assert len(trace) == 65 and len(sim.task.positions) == 65
    np.testing.assert_allclose(np.array(trace), np.array(sim.task.positions), atol=1e-9)
    inside = 2.0 - np.hypot(*(np.array(trace[:21]) - [-2.7, -2.9]).T)
    outside = np.hypot(*(np.array(trace) - load_task(TASK).regions["O0"].centre).T) - 0.9
    robustness = min(inside.min(), outside.min())
    assert outcome.success == (robustness > 0) and robustness > 0
    assert outcome.reason == f"robustness {robustness:+.3f} m"
    assert outcome.score == pytest.approx(min(1.0, 0.5 + robustness / 2))
    before = sim.outcome()
    drive(sim, 2.0, 0.0, 5.0)  # into what is to be avoided: the verdict stands
    assert sim.outcome() == before


def test_driving_off_fails_at_the_end_and_not_before(tmp_path):
    sim = make_simulator("arena", easy(tmp_path, "G[0,32] A"))
    sim.reset(0)
    drive(sim, 1.0, 0.0, 31.98)
    assert not sim.outcome().done and sim.outcome().score == 0.0
    drive(sim, 1.0, 0.0, 0.02)
    outcome = sim.outcome()
    assert outcome.done and not outcome.success and outcome.reason.startswith("robustness -")
    assert outcome.score == 0.0 and sim.task.time_limit_s == 32.0


def test_the_shipped_patrol_fits_what_was_trained_on_and_can_be_done():
    task = load_task(TASK)
    assert task.witness is not None and task.witness.margin_m > 0.1
    assert task.dynamics.name == "unicycle" and len(task.regions) <= 8
    inside = {name for name, colour in region_colours(task).items() if colour != AVOIDED_RGBA}
    assert inside == {"A", "B"}


def test_colours_tell_goals_from_what_is_avoided(tmp_path):
    base = load_task(TASK)
    path = tmp_path / "until.yaml"
    write_task(base, path)
    data = yaml.safe_load(path.read_text())
    data["formula"] = "((not B) U[0,8] A) and F[1,20] B and G[0,9] not O0"
    del data["witness"]
    path.write_text(yaml.safe_dump(data))
    colours = region_colours(load_task(str(path)))
    assert colours["O0"] == AVOIDED_RGBA and colours["O1"] == UNUSED_RGBA
    assert len({colours["A"], colours["B"], AVOIDED_RGBA, UNUSED_RGBA}) == 4


def test_discs_are_seen_and_not_felt(sim):
    touching = (sim.model.geom_contype | sim.model.geom_conaffinity) != 0
    names = {sim.model.body(int(body)).name for body in sim.model.geom_bodyid[touching]}
    assert names == {"world", "base_link", "left_wheel", "right_wheel"}
    assert set(sim.instances) == {"robot", "A", "B", "O0", "O1"}


def test_the_overhead_camera_shows_regions_where_they_are():
    sim = make_simulator("arena", TASK, cameras=("overhead",))
    sim.reset(0)
    image = sim.read()["camera_overhead"].value
    assert image.shape == (256, 256, 3)
    labels = sim.render("overhead", 256, 256, "segmentation")
    camera = sim.intrinsics("camera_overhead").matrix
    for name, region in load_task(TASK).regions.items():
        x, y = region.centre  # the camera looks down from 14 m, image up is +y
        column, row = camera[0, 0] * x / 14 + camera[0, 2], -camera[1, 1] * y / 14 + camera[1, 2]
        assert labels[round(row), round(column)] == sim.instances[name]
    assert (labels == sim.instances["robot"]).sum() > 20
    red = image[labels == sim.instances["O0"]].astype(int).mean(axis=0)
    assert red[0] > red[1] + 40 and red[0] > red[2] + 40
    sim.close()


# What is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "linear_00"}, "task linear_00: world 'arena' expects dynamics unicycle, saw lin"),
        ({"task": "nowhere"}, "sim_worlds/stl_tasks/nowhere.yaml: not found"),
        ({"task": "no/such/file.yaml"}, "no/such/file.yaml: cannot be read"),
        ({"task": TASK, "visuals": "mesh"}, "visuals of world 'arena' 'mesh'; valid: primitives"),
        ({"task": TASK, "cameras": ("wrist",)}, "unknown camera 'wrist'; valid: camera_overhead"),
    ],
)
def test_unknown_names_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        make_simulator("arena", **options)


@pytest.mark.parametrize("dimensions", [["linear_x", "linear_y"], ["angular_z"]])
def test_commands_that_two_wheels_cannot_follow_are_refused(dimensions):
    data = yaml.safe_load(world_embodiment("arena").text)
    data["commands"]["base"] |= {
        key: [sign] * len(dimensions)
        for key, sign in (("lower", -1), ("upper", 1), ("max_acceleration", 1))
    } | {"dimensions": dimensions}
    body = Embodiment.parse(yaml.safe_dump(data), "odd.yaml")
    with pytest.raises(UserError, match="odd.yaml: commands: world 'arena' takes velocities"):
        make_simulator("arena", TASK, embodiment=body)


def test_samples_that_fall_between_two_steps_are_refused():
    data = yaml.safe_load(world_embodiment("arena").text)
    for stream in data["streams"].values():
        stream["rate_hz"], stream["max_age_s"] = 1 / 0.12, 1.0
    data["control_rate_hz"] = 1 / 0.12
    body = Embodiment.parse(yaml.safe_dump(data), "slow.yaml")
    with pytest.raises(UserError, match="task patrol_two_goals: expected samples every whole"):
        make_simulator("arena", TASK, embodiment=body)


@given(v=st.floats(-0.5, 2), w=st.floats(-1, 1))
def test_wheel_speeds_give_back_the_velocities(sim, v, w):
    sim._actuation.begin(np.array([v, w]))
    left, right = sim.data.ctrl * WHEEL_RADIUS_M
    assert (left + right) / 2 == pytest.approx(v, abs=1e-12)
    assert (right - left) / TRACK_M == pytest.approx(w, abs=1e-12)


def test_the_trace_is_judged_in_double_precision(sim):
    assert load_task(TASK).robustness(torch.zeros(65, 2)).dtype == torch.float64
