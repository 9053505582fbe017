"""World ``tabletop``: a UR5e with a Robotiq 2F-85 gripper behind a table, two cameras.

The robot comes from the ``ogbench`` package (MuJoCo Menagerie models) and is edited through
``MjSpec``. Its 185 000 mesh faces cost a software renderer some 50 ms a frame, so by default they
give way to the arm's own collision primitives and to boxes of the gripper links' measured bounds;
``visuals="mesh"`` keeps the meshes. Collisions and inertias are the same either way, so both
give the same physics.

The world frame is ``base_link`` of the real UR5e: z up, x forward at ``shoulder_pan_joint = 0``;
the table top is z = 0.
"""

from __future__ import annotations

import mujoco
import numpy as np

from embodied_rl.sim.worlds.base import CameraSource, package_folder
from embodied_rl.sim.worlds.manipulation import ArmWorld, JointBinding, JointSource, PointSource

GRIPPER = "gripper/"
PHYSICS_STEP_S = 0.002
TOOL_SITE = GRIPPER + "pinch"
FINGER_PADS = tuple(f"{GRIPPER}{side}_pad{part}" for side in ("left", "right") for part in (1, 2))

ARM_ACTUATORS = {
    "shoulder_pan_joint": "shoulder_pan",
    "shoulder_lift_joint": "shoulder_lift",
    "elbow_joint": "elbow",
    "wrist_1_joint": "wrist_1",
    "wrist_2_joint": "wrist_2",
    "wrist_3_joint": "wrist_3",
}
KNUCKLE = "robotiq_85_left_knuckle_joint"

# Elbow up, tool down, fingers closing along y: the branch of the inverse kinematics all tasks use.
HOME = np.array([-0.271, -1.575, 1.786, -1.782, -1.571, -0.271])
TOOL_DOWN = np.diag([1.0, -1.0, -1.0])

# Position and velocity gains of the arm's servos, N m/rad and N m s/rad. The model's own (2000,
# 400) trail a moving target by kd/kp = 0.2 s; a real UR5e follows within about 0.03 s.
SERVO_GAINS = {
    "shoulder_pan": (10000.0, 350.0),
    "shoulder_lift": (10000.0, 350.0),
    "elbow": (10000.0, 300.0),
    "wrist_1": (2500.0, 60.0),
    "wrist_2": (2500.0, 60.0),
    "wrist_3": (2500.0, 60.0),
}

# Bounds of the gripper's meshes in their body frames: centre and half size, metres.
GRIPPER_BOXES = {
    "base_mount": ((0.0, 0.0, 0.0), (0.0375, 0.0375, 0.007)),
    "base": ((0.0, 0.0, 0.043), (0.0375, 0.0424, 0.047)),
    "driver": ((0.0, 0.0156, 0.0014), (0.0120, 0.0231, 0.0115)),
    "coupler": ((0.0, 0.0031, 0.0236), (0.0135, 0.0091, 0.0296)),
    "spring_link": ((0.0, 0.0186, 0.0217), (0.0090, 0.0245, 0.0277)),
    "follower": ((0.0, -0.0090, 0.0193), (0.0075, 0.0149, 0.0253)),
}
# Slanted links fill their bounding box along a diagonal only, and the body is round: drawn as the
# capsule or cylinder between two points, with a radius.
_CAPSULE, _CYLINDER = mujoco.mjtGeom.mjGEOM_CAPSULE, mujoco.mjtGeom.mjGEOM_CYLINDER
GRIPPER_ROUNDS = {
    "base_mount": (_CYLINDER, (0.0, 0.0, -0.007), (0.0, 0.0, 0.007), 0.0375),
    "base": (_CYLINDER, (0.0, 0.0, 0.0), (0.0, 0.0, 0.085), 0.036),
    "coupler": (_CAPSULE, (0.0, 0.0, 0.0), (0.0, 0.006, 0.047), 0.0065),
    "spring_link": (_CAPSULE, (0.0, 0.002, 0.002), (0.0, 0.036, 0.040), 0.0065),
    "driver": (_CAPSULE, (0.0, 0.0, 0.0), (0.0, 0.0315, -0.0041), 0.0085),
}
# A box around a slanted link would touch objects that the link does not; only these collide.
COLLIDING_LINKS = ("base_mount", "base", "follower")

# Collision classes: the robot meets the world and never itself (a real UR5e would have stopped
# before that), everything else meets everything.
ROBOT_BITS = {"contype": 2, "conaffinity": 0}
WORLD_BITS = {"contype": 1, "conaffinity": 3}
SEEN_BITS = {"contype": 0, "conaffinity": 0}

MATERIALS = {
    "table_top": (0.86, 0.82, 0.75, 1.0),
    "table_edge": (0.45, 0.40, 0.35, 1.0),
    "plate": (0.30, 0.31, 0.33, 1.0),
    "arm_shell": (0.80, 0.81, 0.83, 1.0),
    "arm_joint": (0.36, 0.38, 0.41, 1.0),
    "arm_cap": (0.42, 0.62, 0.86, 1.0),
    "grip_body": (0.17, 0.18, 0.20, 1.0),
    "grip_link": (0.44, 0.46, 0.49, 1.0),
    "grip_pad": (0.10, 0.10, 0.11, 1.0),
}


def build(visuals: str) -> mujoco.MjSpec:
    """The world without a task's objects; ``visuals`` is ``primitives`` or ``mesh``."""
    folder = package_folder("ogbench", "'make setup' installs it (models of the arm and gripper)")
    models = folder / "manipspace" / "descriptions"
    spec = mujoco.MjSpec.from_file(str(models / "universal_robots_ur5e" / "ur5e.xml"))
    gripper = mujoco.MjSpec.from_file(str(models / "robotiq_2f85" / "2f85.xml"))
    spec.modelname = "tabletop"
    _prepare_arm(spec, keep_meshes=visuals == "mesh")
    _prepare_gripper(gripper, keep_meshes=visuals == "mesh")
    _set_options(spec)
    _set_options(gripper)  # equal options, or attach() warns of a conflict
    spec.attach(gripper, site=spec.site("attachment_site"), prefix=GRIPPER)
    _add_wrist_camera(spec)
    _add_surroundings(spec)
    return spec


def _set_options(spec: mujoco.MjSpec) -> None:
    spec.option.timestep = PHYSICS_STEP_S
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    # elliptic cones and a high impedance ratio keep a pinched object from creeping
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10
    visual = spec.visual
    visual.quality.offsamples = 0
    visual.quality.shadowsize = 4096
    visual.global_.offwidth, visual.global_.offheight = 2560, 1920
    visual.headlight.ambient = [0.35, 0.35, 0.36]
    visual.headlight.diffuse = [0.30, 0.30, 0.30]
    visual.headlight.specular = [0.05, 0.05, 0.05]
    visual.map.znear, visual.map.zfar = 0.01, 10.0
    spec.stat.extent, spec.stat.center = 1.0, [0.4, 0.0, 0.2]


def _prepare_arm(spec: mujoco.MjSpec, keep_meshes: bool) -> None:
    """Base frame of the real robot, servo gains, gravity compensation, visible primitives."""
    spec.body("base").quat = [1, 0, 0, 0]
    spec.delete(spec.light("spotlight"))
    for key in list(spec.keys):
        spec.delete(key)
    for actuator in spec.actuators:
        stiffness, damping = SERVO_GAINS[actuator.name]
        actuator.gainprm[0] = stiffness
        actuator.biasprm[1:3] = [-stiffness, -damping]
        # The servo's set point is an activation that the control moves at a velocity: it glides
        # between two commands within MuJoCo, without a call from Python at every physics step.
        actuator.dyntype = mujoco.mjtDyn.mjDYN_INTEGRATOR
        actuator.actearly = True
        actuator.actlimited, actuator.actrange = True, actuator.ctrlrange
        actuator.ctrllimited = False
    for name, rgba in MATERIALS.items():
        spec.add_material(name=name, rgba=rgba, specular=0.25, shininess=0.3, reflectance=0.0)
    for body in spec.bodies:
        if body.name != "world":
            body.gravcomp = 1.0
    for geom in list(spec.geoms):
        if geom.type != mujoco.mjtGeom.mjGEOM_MESH:
            _collide(geom, ROBOT_BITS)
            geom.material, geom.group = _arm_material(geom), 3 if keep_meshes else 1
        elif keep_meshes:
            geom.mass = 0.0
        else:
            spec.delete(geom)
    if not keep_meshes:
        for mesh in list(spec.meshes):
            spec.delete(mesh)
        _draw_caps(spec)


def _arm_material(geom: mujoco.MjsGeom) -> str:
    long_links = geom.parent.name in ("upper_arm_link", "forearm_link") and geom.size[1] > 0.1
    return "arm_shell" if long_links else "arm_joint"


def _draw_caps(spec: mujoco.MjSpec) -> None:
    """The blue caps a UR5e is known by, and its foot: drawn only, a few cylinders."""
    caps = {
        "shoulder_link": ((0.0, -0.062, 0.0), "y", 0.052),
        "upper_arm_link": ((0.0, 0.062, 0.0), "y", 0.052),
        "forearm_link": ((0.0, 0.142, 0.0), "y", 0.047),
        "wrist_1_link": ((0.0, -0.062, 0.0), "y", 0.036),
        "wrist_2_link": ((0.0, -0.062, 0.1), "y", 0.036),
    }
    quats = {"y": [1, 1, 0, 0], "z": [1, 0, 0, 0]}
    for body, (position, axis, radius) in caps.items():
        geom = spec.body(body).add_geom(
            type=mujoco.mjtGeom.mjGEOM_CYLINDER,
            size=[radius, 0.006, 0],
            pos=position,
            quat=quats[axis],
            material="arm_cap",
            group=1,
            mass=0.0,
        )
        _collide(geom, SEEN_BITS)
    elbow = spec.body("upper_arm_link").add_geom(
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        size=[0.05, 0.05, 0],
        pos=[0, -0.045, 0.425],
        quat=quats["y"],
        material="arm_joint",
        group=1,
        mass=0.0,
    )
    _collide(elbow, SEEN_BITS)
    foot = spec.body("base").add_geom(
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        size=[0.075, 0.048, 0],
        pos=[0, 0, 0.048],
        material="arm_joint",
        group=1,
        mass=0.0,
    )
    _collide(foot, SEEN_BITS)


def _prepare_gripper(spec: mujoco.MjSpec, keep_meshes: bool) -> None:
    """Boxes and capsules for the mesh-only links; firm, sticky finger pads."""
    for body in spec.bodies:
        if body.name != "world":
            body.gravcomp = 1.0
    # these two get their inertia from meshes, the others state it: state it for all
    _set_inertia(spec.body("base_mount"), 0.15, 6e-5)
    for side in ("left", "right"):
        _set_inertia(spec.body(f"{side}_silicone_pad"), 0.0013, 1e-7)
    for geom in list(spec.geoms):
        if geom.type != mujoco.mjtGeom.mjGEOM_MESH:  # the finger pads
            _collide(geom, ROBOT_BITS)
            geom.condim, geom.friction = 4, [1.2, 0.02, 0.0001]
            geom.group = 3 if keep_meshes else 1
            geom.rgba = MATERIALS["grip_pad"]
        elif keep_meshes and geom.group == 2:
            geom.mass = 0.0
        else:
            spec.delete(geom)
    if not keep_meshes:
        for mesh in list(spec.meshes):
            spec.delete(mesh)
    for body in spec.bodies:
        link = body.name.removeprefix("left_").removeprefix("right_")
        if link in GRIPPER_BOXES:
            _add_link_geoms(body, link, drawn=not keep_meshes)


def _set_inertia(body: mujoco.MjsBody, mass: float, inertia: float) -> None:
    body.mass, body.ipos, body.inertia = mass, [0, 0, 0], [inertia] * 3
    body.explicitinertial = True


def _add_link_geoms(body: mujoco.MjsBody, link: str, drawn: bool) -> None:
    rgba = MATERIALS["grip_body" if link in ("base", "base_mount") else "grip_link"]
    centre, half = GRIPPER_BOXES[link]
    if link in COLLIDING_LINKS:
        box = body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=centre,
            size=half,
            rgba=rgba,
            mass=0.0,
            group=1 if drawn and link not in GRIPPER_ROUNDS else 3,
        )
        _collide(box, ROBOT_BITS)
    if drawn and link in GRIPPER_ROUNDS:
        kind, start, end, radius = GRIPPER_ROUNDS[link]
        shape = body.add_geom(
            type=kind,
            fromto=[*start, *end],
            size=[radius, 0, 0],
            rgba=rgba,
            mass=0.0,
            group=1,
        )
        _collide(shape, SEEN_BITS)


def _collide(geom: mujoco.MjsGeom, bits: dict[str, int]) -> None:
    geom.contype, geom.conaffinity = bits["contype"], bits["conaffinity"]


def look_at(position: np.ndarray, target: np.ndarray) -> list[float]:
    """MuJoCo's ``xyaxes`` of a camera at ``position`` that looks at ``target``, upright."""
    forward = np.asarray(target, dtype=float) - position
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    return [*right, *(up / np.linalg.norm(up))]


def _quat_of_axes(axes: list[float]) -> np.ndarray:
    x, y = np.array(axes[:3]), np.array(axes[3:])
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, np.column_stack([x, y, np.cross(x, y)]).ravel())
    return quat


def _add_wrist_camera(spec: mujoco.MjSpec) -> None:
    """Camera on the gripper's side, looking along the fingers at the pinch point."""
    axes = [0.0, 1.0, 0.0, 0.94, 0.0, -0.34]
    spec.body(GRIPPER + "base").add_camera(
        name="wrist", pos=[-0.10, 0, 0.03], quat=_quat_of_axes(axes), fovy=66
    )


def _add_surroundings(spec: mujoco.MjSpec) -> None:
    world = spec.worldbody
    spec.add_texture(
        name="sky",
        type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=[0.93, 0.95, 0.97],
        rgb2=[0.62, 0.70, 0.78],
        width=64,
        height=384,
    )
    box = mujoco.mjtGeom.mjGEOM_BOX
    # 0.4 mm of the table lie above the edge board so that the two never flicker
    top = world.add_geom(
        name="table",
        type=box,
        size=[0.60, 0.62, 0.02],
        pos=[0.40, 0, -0.02],
        material="table_top",
        friction=[0.8, 0.005, 0.0001],
        group=1,
    )
    _collide(top, WORLD_BITS)
    for pos, size, material in (
        ([0.40, 0, -0.05], [0.59, 0.61, 0.0296], "table_edge"),
        ([0.0, 0, 0.002], [0.11, 0.11, 0.002], "plate"),
    ):
        _collide(
            world.add_geom(type=box, pos=pos, size=size, material=material, group=1), SEEN_BITS
        )
    # only the first casts a shadow, and only in pictures for people
    for pos, direction, level, shadow in (
        ([1.2, -0.8, 1.8], [-0.35, 0.45, -1.0], 0.42, True),
        ([0.2, 1.2, 1.6], [0.15, -0.8, -1.0], 0.22, False),
    ):
        world.add_light(
            type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
            pos=pos,
            dir=direction,
            diffuse=[level] * 3,
            specular=[0.15] * 3,
            ambient=[0, 0, 0],
            castshadow=shadow,
        )
    camera = np.array([1.16, 0.0, 0.66])
    world.add_camera(
        name="fixed", pos=camera, quat=_quat_of_axes(look_at(camera, [0.44, 0, 0.07])), fovy=36
    )
    hero = np.array([1.14, -0.86, 0.66])
    world.add_camera(
        name="hero", pos=hero, quat=_quat_of_axes(look_at(hero, [0.29, 0.0, 0.22])), fovy=44
    )


TABLETOP = ArmWorld(
    name="tabletop",
    embodiment_file="tabletop/ur5e_2f85.yaml",
    visuals=("primitives", "mesh"),
    build=build,
    joints={
        **{joint: JointBinding(joint, name) for joint, name in ARM_ACTUATORS.items()},
        # the model's gripper takes 0..255 for 0..0.8 rad
        KNUCKLE: JointBinding(
            GRIPPER + "left_driver_joint", GRIPPER + "fingers_actuator", 255 / 0.8
        ),
    },
    sources={
        # encoders of a real arm repeat within about 0.5 mrad; a marker tracker within 1.5 mm
        "arm_position": JointSource("position", 5e-4),
        "arm_velocity": JointSource("velocity", 5e-3),
        "gripper_position": JointSource("position", 2e-3),
        "tool_position": PointSource("site", TOOL_SITE, 5e-4),
        "object_position": PointSource("object", "", 1.5e-3),
        "camera_fixed": CameraSource("fixed", "rgb"),
        "camera_wrist": CameraSource("wrist", "rgb"),
        "camera_fixed_depth": CameraSource("fixed", "depth"),
        "camera_fixed_segmentation": CameraSource("fixed", "segmentation"),
    },
    instances={"arm": "base", "gripper": GRIPPER + "base_mount"},
    judge_period_ns=50_000_000,
    home=HOME,
    tool_down=TOOL_DOWN,
    finger_geoms=FINGER_PADS,
    tool_site=TOOL_SITE,
    base_body="base",
    # measured: the linkage keeps the pads parallel, and the couplers where they are
    followers={
        GRIPPER + f"{side}_{link}_joint": (GRIPPER + "left_driver_joint", share)
        for side in ("left", "right")
        for link, share in (
            ("driver", 1.0),
            ("coupler", 0.0),
            ("spring_link", 1.0),
            ("follower", -0.96),
        )
        if (side, link) != ("left", "driver")
    },
)
