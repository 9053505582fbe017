"""Images: colour, metres, instances, the thread they belong to, and a machine without GL."""

from __future__ import annotations

import threading

import mujoco
import numpy as np
import pytest

from embodied_rl.core.errors import UserError
from embodied_rl.sim.registry import make_simulator
from embodied_rl.sim.render import open_gl_context


@pytest.fixture(scope="module")
def sim():
    try:
        open_gl_context(16, 16).free()
    except UserError as error:
        pytest.skip(str(error))
    made = make_simulator(cameras=("fixed", "wrist"), noise=0.0)
    made.reset(0)
    yield made
    made.close()


def project(sim, stream: str, point: np.ndarray) -> tuple[float, float, float]:
    """Pixel column, row and depth in metres of a point, by the pinhole model."""
    camera = sim.data.camera(sim.world.sources[stream].camera)
    axes = camera.xmat.reshape(3, 3) @ np.diag([1.0, -1.0, -1.0])  # x right, y down, z forward
    x, y, z = axes.T @ (point - camera.xpos)
    u, v, w = sim.intrinsics(stream).matrix @ [x, y, z]
    return u / w, v / w, z


def test_images_match_the_embodiment(sim):
    samples = sim.read()
    for key in (key for key in sim.streams if key.startswith("camera")):
        stream = sim.embodiment.streams[key]
        assert samples[key].value.shape == stream.shape
        assert samples[key].value.dtype == stream.dtype
    assert samples["camera_fixed"].value.std() > 10


def test_segmentation_shows_the_cube_where_it_is(sim):
    ids = sim.read()["camera_fixed_segmentation"].value
    rows, columns = np.nonzero(ids == sim.instances["cube"])
    u, v, _ = project(sim, "camera_fixed_segmentation", sim.data.body("cube").xpos)
    assert len(rows) > 10
    assert abs(columns.mean() - u) < 1.0 and abs(rows.mean() - v) < 1.0
    for name in ("arm", "gripper", "hub", "pad_left", "pad_right"):
        assert np.any(ids == sim.instances[name]), name


def test_depth_is_metres_along_the_optical_axis(sim):
    depth = sim.read()["camera_fixed_depth"].value
    for spot in ([0.5, 0.2, 0.0], [0.65, -0.15, 0.0], [0.68, 0.1, 0.0]):  # bare table
        u, v, z = project(sim, "camera_fixed_depth", np.array(spot))
        assert depth[round(v), round(u)] == pytest.approx(z, abs=0.01)


def test_only_the_cameras_asked_for_are_drawn(sim):
    one = make_simulator(cameras=("camera_wrist",))
    one.reset(0)
    assert [key for key in one.read() if "camera" in key] == ["camera_wrist"]
    one.step(one.command)
    assert "camera_wrist" not in one.read()
    none = make_simulator()
    none.reset(0)
    assert not [key for key in none.read() if "camera" in key]
    one.close()


def test_a_late_caller_may_leave_images_out(sim):
    other = make_simulator(cameras=("fixed",))
    other.reset(0)
    assert not [key for key in other.read(render=False) if "camera" in key]


def test_another_thread_is_refused(sim):
    sim.read()
    caught: list[BaseException] = []

    def draw() -> None:
        try:
            sim.render("fixed", 32, 32)
        except RuntimeError as error:
            caught.append(error)

    thread = threading.Thread(target=draw)
    thread.start()
    thread.join()
    assert len(caught) == 1 and "one thread" in str(caught[0])


def test_same_state_gives_the_same_pixels(sim):
    np.testing.assert_array_equal(sim.render("hero", 64, 48), sim.render("hero", 64, 48))


def test_unknown_camera_kind_and_size_are_refused(sim):
    with pytest.raises(UserError, match="valid: fixed, hero, wrist"):
        sim.render("front", 32, 32)
    with pytest.raises(UserError, match="valid: depth, picture, rgb, segmentation"):
        sim.render("fixed", 32, 32, "infrared")
    with pytest.raises(UserError, match="at most 1280x960"):
        sim.render("hero", 4000, 3000, "picture")
    assert sim.render("hero", 64, 48, "picture").shape == (48, 64, 3)
    with pytest.raises(UserError, match="not a camera's"):
        sim.intrinsics("arm_position")


def test_missing_gl_names_the_packages(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setattr("mujoco.egl.GLContext", None, raising=False)
    with pytest.raises(UserError, match="libegl1"):
        open_gl_context(16, 16)
    monkeypatch.setenv("MUJOCO_GL", "vulkan")
    with pytest.raises(UserError, match="MUJOCO_GL: expected one of .* saw 'vulkan'"):
        open_gl_context(16, 16)


def test_state_only_simulation_opens_no_context():
    sim = make_simulator()
    sim.reset(0)
    sim.step(sim.command)
    sim.read()
    assert sim._renderer._context is None
    assert mujoco.mj_id2name(sim.model, mujoco.mjtObj.mjOBJ_CAMERA, 0) is not None
