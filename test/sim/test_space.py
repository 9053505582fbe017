"""Frames and robot description: one tree, and everything where MuJoCo itself has it."""

from __future__ import annotations

from collections.abc import Mapping
from xml.etree import ElementTree

import mujoco
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.frames import Transform
from embodied_rl.sim.registry import make_simulator, world_embodiment
from embodied_rl.sim.urdf import robot_description

WORLDS = {
    "tabletop": "replace_object",
    "reach": "arm_00",
    "arena": "unicycle_00",
    "apartment": "find_object",
}


@pytest.fixture(scope="module", params=WORLDS)
def sim(request):
    made = make_simulator(request.param, WORLDS[request.param], noise=0.0)
    made.reset(3)
    yield made
    made.close()


def shake(sim, seed: int) -> None:
    """Every hinge of the robot at a random angle, a mobile base anywhere and tilted."""
    rng = np.random.default_rng(seed)
    model, data = sim.model, sim.data
    for link in sim.space.links:
        if link.joint >= 0:
            data.qpos[link.address] = rng.uniform(-2.5, 2.5)
    if sim.space.base_moves:
        data.qpos[:3] = rng.uniform(-3, 3, 3)
        turn = Rotation.from_rotvec(rng.uniform(-1, 1, 3)).as_quat()
        data.qpos[3:7] = turn[[3, 0, 1, 2]]
    mujoco.mj_kinematics(model, data)
    mujoco.mj_camlight(model, data)


def matrix(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    found = np.eye(4)
    found[:3, :3], found[:3, 3] = rotation, translation
    return found


def body_matrix(sim, body: int | str) -> np.ndarray:
    state = sim.data.body(body)
    return matrix(state.xmat.reshape(3, 3), state.xpos)


def placed(edges: list[Transform], root: str) -> dict[str, np.ndarray]:
    """Every frame in the root, by walking up; fails on a second parent, a loop or a second root."""
    parents = {edge.child: edge for edge in edges}
    assert len(parents) == len(edges), "a frame with two parents"
    found = {}
    for name in parents:
        pose, above, steps = np.eye(4), name, 0
        while above in parents:
            edge = parents[above]
            pose = matrix(edge.pose.rotation, edge.pose.translation) @ pose
            above, steps = edge.parent, steps + 1
            assert steps <= len(parents), f"{name}: a loop"
        assert above == root, f"{name} hangs on {above}"
        found[name] = pose
    return found


def whole_tree(sim) -> dict[str, np.ndarray]:
    edges = [*sim.space.fixed, *sim.space.joints(sim.data)]
    if sim.space.base_moves:
        # the odometry of a level floor cannot say how a base is tilted: here it stands as it is
        state = sim.data.qpos[:7]
        turn = Rotation.from_quat(state[[4, 5, 6, 3]]).as_matrix()
        pose = type(sim.space.links[0].origin)(turn, state[:3])
        edges.append(Transform(sim.space.root, sim.space.base_link, pose))
    return placed(edges, sim.space.root)


def test_one_tree_with_every_body_where_the_physics_has_it(sim):
    for seed in range(5):
        shake(sim, seed)
        frames = whole_tree(sim)
        for link in sim.space.links:
            if link.name == sim.space.root:
                continue
            expected = body_matrix(sim, link.body) @ matrix(np.eye(3), link.offset)
            np.testing.assert_allclose(frames[link.name], expected, atol=1e-9, err_msg=link.name)


def test_cameras_look_along_z_of_their_optical_frame(sim):
    keys = [key for key, s in sim.embodiment.streams.items() if s.encoding]
    for seed in range(3):
        shake(sim, seed)
        frames = whole_tree(sim)
        for key in keys:
            camera = sim.data.camera(sim.world.sources[key].camera)
            axes = camera.xmat.reshape(3, 3)  # right, up, backwards
            optical = np.column_stack([axes[:, 0], -axes[:, 1], -axes[:, 2]])
            seen = frames[sim.space.optical_frame(key)]
            np.testing.assert_allclose(seen, matrix(optical, camera.xpos), atol=1e-9)
            body = frames[f"{sim.world.sources[key].camera}_link"]
            forward_left_up = np.column_stack([-axes[:, 2], -axes[:, 0], axes[:, 1]])
            np.testing.assert_allclose(body, matrix(forward_left_up, camera.xpos), atol=1e-9)


class Description:
    """A URDF read from its text alone, with forward kinematics of its own."""

    def __init__(self, text: str):
        robot = ElementTree.fromstring(text)
        self.links = {link.get("name"): link for link in robot.iter("link")}
        self.joints = {joint.get("name"): joint for joint in robot.findall("joint")}
        assert len(self.links) == len(robot.findall("link"))
        assert len(self.joints) == len(robot.findall("joint"))
        self.above = {j.find("child").get("link"): j for j in self.joints.values()}
        assert len(self.above) == len(self.joints), "a link with two parents"
        colours = [m.find("color") for m in robot.findall("material")]
        self.colours = {
            m.get("name"): np.array(c.get("rgba").split(), dtype=float)
            for m, c in zip(robot.findall("material"), colours, strict=True)
        }
        self.root = next(iter(set(self.links) - set(self.above)))
        assert set(self.links) - set(self.above) == {self.root}

    def values(self, measured: Mapping[str, float]) -> dict[str, float]:
        found = dict(measured)
        for name, joint in self.joints.items():
            mimic = joint.find("mimic")
            if mimic is not None:
                found[name] = found[mimic.get("joint")] * float(mimic.get("multiplier"))
        return found

    def pose(self, link: str, values: Mapping[str, float]) -> np.ndarray:
        """In the root; angles by name."""
        if link == self.root:
            return np.eye(4)
        joint = self.above[link]
        pose = origin(joint)
        kind = joint.get("type")
        if kind != "fixed":
            axis = np.array(joint.find("axis").get("xyz").split(), dtype=float)
            assert kind in ("revolute", "continuous")
            turn = Rotation.from_rotvec(axis * values[joint.get("name")])
            pose = pose @ matrix(turn.as_matrix(), np.zeros(3))
        return self.pose(joint.find("parent").get("link"), values) @ pose


def origin(element: ElementTree.Element) -> np.ndarray:
    part = element.find("origin")
    xyz, rpy = (np.array(part.get(key).split(), dtype=float) for key in ("xyz", "rpy"))
    return matrix(Rotation.from_euler("xyz", rpy).as_matrix(), xyz)


def test_the_description_has_the_kinematics_of_the_physics(sim):
    described = Description(robot_description(sim.space))
    base = sim.space.links[0]
    assert described.root == base.name
    joints = {link.name: link for link in sim.space.links if link.joint >= 0}
    for seed in range(5):
        shake(sim, seed)
        values = {
            described.above[name].get("name"): float(sim.data.qpos[link.address])
            for name, link in joints.items()
        }
        back = np.linalg.inv(body_matrix(sim, base.body))
        for link in sim.space.links:
            expected = back @ body_matrix(sim, link.body) @ matrix(np.eye(3), link.offset)
            found = described.pose(link.name, values)
            np.testing.assert_allclose(found, expected, atol=1e-7, err_msg=link.name)


def measures(shape: ElementTree.Element) -> tuple:
    """Its kind, and what it measures in m."""
    keys = {"box": ("size",), "sphere": ("radius",), "cylinder": ("radius", "length")}[shape.tag]
    numbers = " ".join(shape.get(key) for key in keys).split()
    return shape.tag, *(round(float(number), 6) for number in numbers)


def test_the_visuals_are_the_geoms_that_cameras_see(sim):
    """Each visible geom has a visual of its size and colour at its place."""
    described = Description(robot_description(sim.space))
    shake(sim, 1)
    joints = {
        described.above[link.name].get("name"): float(sim.data.qpos[link.address])
        for link in sim.space.links
        if link.joint >= 0
    }
    mujoco.mj_kinematics(sim.model, sim.data)
    base = body_matrix(sim, sim.space.links[0].body)
    seen = 0
    for link in sim.space.links:
        frame = base @ described.pose(link.name, joints)
        drawn = [
            (
                frame @ origin(visual),
                visual.find("geometry")[0],
                visual.find("material").get("name"),
            )
            for visual in described.links[link.name].findall("visual")
        ]
        for geom in np.flatnonzero(sim.model.geom_bodyid == link.body):
            if sim.model.geom_group[geom] > 2:
                continue
            state, seen = sim.data.geom(int(geom)), seen + 1
            size = sim.model.geom_size[geom]
            fits = [
                (measures(shape), described.colours[colour])
                for pose, shape, colour in drawn
                if np.allclose(pose, matrix(state.xmat.reshape(3, 3), state.xpos), atol=1e-6)
            ]
            kind = mujoco.mjtGeom(int(sim.model.geom_type[geom]))
            if kind == mujoco.mjtGeom.mjGEOM_BOX:
                expected = ("box", *np.round(2 * size, 6))
            elif kind == mujoco.mjtGeom.mjGEOM_SPHERE:
                expected = ("sphere", round(size[0], 6))
            else:
                expected = ("cylinder", round(size[0], 6), round(2 * size[1], 6))
            material = int(sim.model.geom_matid[geom])
            table = sim.model.geom_rgba[geom] if material < 0 else sim.model.mat_rgba[material]
            assert any(
                measured == expected and np.allclose(colour, table, atol=1e-4)
                for measured, colour in fits
            )
    assert seen > 5


def test_joints_are_called_as_in_the_joint_states():
    text = world_embodiment("tabletop").text
    left = Embodiment.parse("prefix: left_\n" + text)
    sim = make_simulator("tabletop", "replace_object", embodiment=left)
    described = Description(robot_description(sim.space))
    for stream in left.streams.values():
        assert set(stream.wire_joints) <= set(described.joints)
    assert described.joints["left_elbow_joint"].get("type") == "revolute"
    limit = described.joints["left_elbow_joint"].find("limit")
    assert float(limit.get("velocity")) == 2.0 and float(limit.get("effort")) > 0


def test_a_gripper_drawn_from_its_measured_joint_alone_has_its_pads_where_they_are():
    """Viewers without transforms know one joint of the linkage."""
    sim = make_simulator("tabletop", "replace_object", noise=0.0)
    sim.reset(0)
    described = Description(robot_description(sim.space))
    for target in (0.1, 0.5, 0.75):
        command = sim.command
        command[6] = target
        for _ in range(100):
            sim.step(command)
        samples = {}
        while "gripper_position" not in samples:
            samples = sim.read()
            sim.step(command)
        mujoco.mj_kinematics(sim.model, sim.data)
        names, values = [], []
        for key in ("arm_position", "gripper_position"):
            names += sim.embodiment.streams[key].wire_joints
            values += samples[key].value.tolist()
        angles = described.values(dict(zip(names, values, strict=True)))
        for side in ("left", "right"):
            found = described.pose(f"gripper_{side}_pad", angles)[:3, 3]
            error = found - sim.data.body(f"gripper/{side}_pad").xpos
            assert np.linalg.norm(error) < 0.003, (target, side)


def test_the_base_stands_where_its_odometry_says():
    sim = make_simulator("arena", "unicycle_00")  # with noise
    sim.reset(5)
    base = sim.space.base(sim.data, sim.read())
    assert (base.parent, base.child) == ("odom", "base_link")
    samples = sim.read()
    np.testing.assert_array_equal(base.pose.translation, samples["base_position"].value)
    yaw = Rotation.from_matrix(base.pose.rotation).as_euler("ZYX")
    assert yaw[0] == pytest.approx(float(samples["base_yaw"].value[0]), abs=1e-9)
    assert np.abs(yaw[1:]).max() < 1e-9
    assert sim.space.base(sim.data, {}) is None  # nothing was measured at this instant
    arm = make_simulator("reach", "arm_00")
    arm.reset(0)
    assert arm.space.base(arm.data, arm.read()) is None


def test_a_declared_frame_names_the_sensor_and_changes_no_model():
    text = world_embodiment("apartment").text
    assert "frame: laser" in text
    plain = Embodiment.parse(text.replace("    frame: laser\n", ""))
    named = Embodiment.parse(text.replace("frame: laser", "frame: front_laser"))
    keys = list(plain.streams)
    assert plain.contract_hash(keys) == named.contract_hash(keys)
    sim = make_simulator("apartment", "find_object", embodiment=named)
    sim.reset(0)
    assert sim.space.frame(named.streams["scan"]) == "front_laser"
    mount = next(edge for edge in sim.space.fixed if edge.child == "front_laser")
    assert mount.parent == "base_link"
    np.testing.assert_allclose(mount.pose.translation, [0, 0, 0.16])
    default = make_simulator("apartment", "find_object", embodiment=plain).space
    assert default.frame(plain.streams["scan"]) == "base_link"
    assert all(edge.child != "base_link" for edge in default.fixed)


def test_frames_of_the_embodiment_are_in_the_tree():
    sim = make_simulator("tabletop", "replace_object")
    sim.reset(0)
    frames = whole_tree(sim)
    np.testing.assert_allclose(frames["base"], np.diag([-1, -1, 1, 1]), atol=1e-12)
    pinch = sim.data.site("gripper/pinch")
    mujoco.mj_kinematics(sim.model, sim.data)
    frames = whole_tree(sim)
    expected = matrix(pinch.xmat.reshape(3, 3), pinch.xpos)
    np.testing.assert_allclose(frames["tool"], expected, atol=1e-9)
