"""What viewers get from a simulator, taken from its messages alone."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")

from scipy.spatial.transform import Rotation  # noqa: E402

from embodied_rl.core.message_types import TF  # noqa: E402
from embodied_rl.nodes import messages  # noqa: E402
from embodied_rl.nodes.space_output import SpaceOutput  # noqa: E402
from embodied_rl.sim.registry import make_simulator  # noqa: E402

# world, task, image stream with labels, instance to look for, body behind it
SIGHTS = {
    "tabletop": ("replace_object", "camera_fixed", "cube", "cube"),
    "apartment": ("find_object", "camera_front", "", ""),
}


class Wire:
    """A node that keeps what is published, with one listener on every topic."""

    def __init__(self, listeners: int = 1):
        self.seen: dict[str, list] = {}
        self.listeners, self.lines = listeners, []

    def create_publisher(self, kind, topic, quality):
        kept = self.seen.setdefault(topic, [])
        return SimpleNamespace(publish=kept.append, get_subscription_count=lambda: self.listeners)

    def get_logger(self):
        return SimpleNamespace(info=self.lines.append)


@pytest.fixture
def with_tf(monkeypatch):
    """As on a machine that has tf2_msgs, whose message is but a list."""
    monkeypatch.setitem(messages.MESSAGE_CLASSES, TF, SimpleNamespace)


@pytest.fixture(scope="module", params=SIGHTS)
def shown(request):
    world = request.param
    camera = SIGHTS[world][1].removeprefix("camera_")
    sim = make_simulator(world, SIGHTS[world][0], cameras=(camera,), noise=0.0)
    sim.reset(4)
    try:
        sim.render(camera, 16, 16)
    except Exception as error:  # no OpenGL here
        pytest.skip(str(error))
    yield sim, camera
    sim.close()


def advance(sim, output: SpaceOutput, steps: int) -> None:
    for _ in range(steps):
        sim.step(sim.command)
        output.publish(sim.read())


def place(transforms: list, frame: str, root: str) -> np.ndarray:
    """``(4, 4)`` of a frame in the root, from the newest transforms."""
    parents = {edge.child_frame_id: edge for edge in transforms}
    pose = np.eye(4)
    while frame != root:
        edge = parents[frame]
        turn, shift = edge.transform.rotation, edge.transform.translation
        step = np.eye(4)
        step[:3, :3] = Rotation.from_quat([turn.x, turn.y, turn.z, turn.w]).as_matrix()
        step[:3, 3] = shift.x, shift.y, shift.z
        pose, frame = step @ pose, edge.header.frame_id
    return pose


def test_a_known_point_lands_on_the_pixel_that_shows_it(with_tf, shown):
    """Through the published transforms and camera_info, against the labels that were drawn."""
    sim, camera = shown
    wire = Wire()
    output = SpaceOutput(wire, sim)
    for trial in range(20):  # until there is something to see
        sim.reset(4, trial)
        samples = sim.read()
        if len(np.unique(samples[f"camera_{camera}_segmentation"].value)) > 3:
            break
    output.publish(samples)
    edges = [*wire.seen["tf_static"][-1].transforms]
    for message in wire.seen["tf"]:
        edges += message.transforms
    labels = samples[f"camera_{camera}_segmentation"].value
    depth = samples[f"camera_{camera}_depth"].value
    key = f"camera_{camera}_segmentation"
    topic = f"{sim.embodiment.streams[key].topic.rpartition('/')[0]}/camera_info"
    info = wire.seen[topic][-1]
    assert (info.height, info.width) == labels.shape == depth.shape
    eye = place(edges, info.header.frame_id, sim.space.root)
    matrix = np.array(info.k).reshape(3, 3)
    # what was drawn, back into space through depth, intrinsics and transforms: inside the bodies
    met = 0
    for name, number in sim.instances.items():
        rows, columns = np.nonzero(labels == number)
        body = {**sim.world.instances, **sim.task.instances}[name]
        if len(rows) < 6 or name in ("arm", "gripper", "robot"):
            continue
        met += 1
        pixels = np.stack([columns, rows, np.ones(len(rows))])
        rays = np.linalg.inv(matrix) @ pixels
        points = (eye[:3, :3] @ (rays * depth[rows, columns])).T + eye[:3, 3]
        extent = reach(sim, body)
        away = np.linalg.norm(points - sim.data.body(body).xpos, axis=1)
        assert np.median(away) < extent and away.max() < 1.5 * extent + 0.05, name
    assert met >= 1
    # and from space onto the image: floor or table at the depth that is drawn there
    point = np.array([0.5, 0.2, 0.0, 1.0]) if sim.world.name == "tabletop" else None
    if point is not None:
        x, y, z = (np.linalg.inv(eye) @ point)[:3]
        u, v, w = matrix @ [x, y, z]
        assert depth[round(v / w), round(u / w)] == pytest.approx(z, abs=0.01)


def reach(sim, body: str) -> float:
    """Radius of the ball about a body's origin that holds its geoms, m."""
    model, number = sim.model, sim.model.body(body).id
    inside = [
        float(np.linalg.norm(model.geom_pos[geom])) + float(model.geom_rbound[geom])
        for geom in range(model.ngeom)
        if model.body_rootid[model.geom_bodyid[geom]] == number
    ]
    return max(inside)


def test_every_image_has_a_camera_info_of_its_size(shown):
    sim, _ = shown
    wire = Wire()
    output = SpaceOutput(wire, sim)
    sim.reset(5)
    samples = sim.read()
    output.publish(samples)
    infos = {topic: seen for topic, seen in wire.seen.items() if topic.endswith("camera_info")}
    images = [s for s in sim.embodiment.streams.values() if s.encoding and s.key in samples]
    assert len(images) == 3
    for stream in images:
        beside = stream.topic.rpartition("/")[0] + "/camera_info"
        (info,) = infos[beside]
        assert (info.height, info.width) == stream.shape[:2]
        assert info.header.stamp == messages.time_message(samples[stream.key].stamp_ns)
        image = messages.encode_topic([stream], samples, sim.space.frame(stream))
        assert info.header.frame_id == image.header.frame_id
    before = {topic: len(seen) for topic, seen in infos.items()}
    sim.step(sim.command)
    output.publish(sim.read())  # no image is due
    assert {topic: len(seen) for topic, seen in infos.items()} == before


def test_transforms_at_fifty_hertz_at_most_and_only_for_listeners(with_tf):
    sim = make_simulator("arena", "unicycle_00")
    sim.reset(0)
    wire = Wire()
    output = SpaceOutput(wire, sim)
    start_ns = sim.time_ns
    advance(sim, output, 60)
    stamps = [message.transforms[0].header.stamp for message in wire.seen["tf"]]
    times = [stamp.sec * 10**9 + stamp.nanosec for stamp in stamps]
    assert len(set(times)) == len(times)
    assert len(times) <= (sim.time_ns - start_ns) / 20e6 + 1
    for message in wire.seen["tf"]:
        names = {edge.child_frame_id for edge in message.transforms}
        assert names == {"base_link", "left_wheel", "right_wheel"}
    assert len(wire.seen["tf_static"]) == 1
    deaf = Wire(listeners=0)
    advance(sim, SpaceOutput(deaf, sim), 20)
    assert not deaf.seen["tf"] and not deaf.seen["sim/objects"]


def test_the_base_and_its_odometry_are_one(with_tf):
    sim = make_simulator("apartment", "find_object")
    sim.reset(2)
    wire = Wire()
    output = SpaceOutput(wire, sim)
    advance(sim, output, 2)
    samples = sim.read()
    streams = [s for s in sim.embodiment.topics()["odom"] if s.key in samples]
    odometry = messages.encode_topic(streams, samples, sim.space.frame(streams[0]))
    edge = next(e for e in wire.seen["tf"][-1].transforms if e.child_frame_id == "base_link")
    assert edge.header == odometry.header and odometry.child_frame_id == edge.child_frame_id
    for axis in "xyz":
        told, seen = odometry.pose.pose.position, edge.transform.translation
        assert getattr(told, axis) == getattr(seen, axis)
    told, seen = odometry.pose.pose.orientation, edge.transform.rotation
    assert (told.z, told.w) == pytest.approx((seen.z, seen.w), abs=1e-12)


def test_without_tf2_msgs_the_rest_is_there(monkeypatch):
    monkeypatch.delitem(messages.MESSAGE_CLASSES, TF, raising=False)
    sim = make_simulator("tabletop", "replace_object")
    sim.reset(0)
    wire = Wire()
    advance(sim, SpaceOutput(wire, sim), 30)
    assert "tf" not in wire.seen and len(wire.lines) == 1
    (description,) = wire.seen["robot_description"]
    assert description.data.startswith("<?xml") and "shoulder_pan_joint" in description.data


def test_the_surroundings_are_shown_and_not_the_robot():
    sim = make_simulator("tabletop", "replace_object")
    sim.reset(0)
    wire = Wire()
    output = SpaceOutput(wire, sim)
    sim.reset(1)
    output.begin()
    advance(sim, output, 1)
    last = wire.seen["sim/scene"][-1]
    still = {marker.ns for marker in last.markers}
    assert still == {"world", "pad_left", "pad_right", "hub"}
    table = next(m for m in last.markers if m.scale.x == pytest.approx(1.2))
    assert table.pose.position.z == pytest.approx(-0.02)
    assert {m.header.frame_id for m in last.markers} == {"base_link"}
    assert len({marker.id for marker in last.markers}) == len(last.markers)
    (cube,) = wire.seen["sim/objects"][-1].markers
    x, y, z = sim.data.body("cube").xpos
    assert (cube.pose.position.x, cube.pose.position.y) == pytest.approx((x, y), abs=1e-6)
    assert cube.pose.position.z == pytest.approx(z, abs=1e-4)


def test_every_episode_shows_its_own_surroundings():
    sim = make_simulator("apartment", "find_object")
    sim.reset(0, 0)
    wire = Wire()
    output = SpaceOutput(wire, sim)
    sim.reset(1, 7)
    output.begin()
    first, last = wire.seen["sim/scene"]
    assert [marker.id for marker in first.markers] == [marker.id for marker in last.markers]
    moved = {m.ns for m, n in zip(first.markers, last.markers, strict=True) if m.pose != n.pose}
    assert "fridge" in moved and "world" not in moved and "base_link" not in moved
