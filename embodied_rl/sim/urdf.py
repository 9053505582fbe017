"""A robot description (URDF) of a simulated robot, written from its model.

Links, joints and their names are those of :mod:`embodied_rl.sim.space`, so that transforms, joint
states and description fit together; the visuals are the primitives that the cameras see. It is for
viewers: no inertias and no collisions. Cameras and sensors that the robot carries are links too.
"""

from __future__ import annotations

from xml.etree import ElementTree

import mujoco
import numpy as np

from embodied_rl.core.frames import Pose
from embodied_rl.sim.shapes import BOX, CYLINDER, Shape
from embodied_rl.sim.space import FIXED, HINGE, Link, Space, rpy

Element, SubElement = ElementTree.Element, ElementTree.SubElement


def robot_description(space: Space) -> str:
    """The URDF, as ``robot_description`` carries it."""
    robot = Element("robot", name=space.embodiment.name)
    materials = _materials(robot, space)
    for link in space.links:
        element = SubElement(robot, "link", name=link.name)
        for shape in space.shapes(link):
            _visual(element, shape, materials)
    names = joint_names(space)
    for link in space.links[1:]:
        _joint(robot, space, link, names)
    on_robot = {link.name for link in space.links}
    for edge in space.fixed:
        if edge.parent in on_robot and edge.child not in on_robot:
            on_robot.add(edge.child)
            SubElement(robot, "link", name=edge.child)
            _fixed_joint(robot, edge.parent, edge.child, edge.pose)
    ElementTree.indent(robot)
    return '<?xml version="1.0"?>\n' + ElementTree.tostring(robot, encoding="unicode") + "\n"


def joint_names(space: Space) -> dict[int, str]:
    """Number of a MuJoCo joint -> its name in the description: that of the joint states where it
    is measured."""
    commanded: dict[str, str] = {}
    for command in space.embodiment.commands.values():
        commanded.update(zip(command.names, command.wire_names, strict=True))
    measured: dict[str, str] = {}
    for stream in space.embodiment.streams.values():
        measured.update(zip(stream.joints, stream.wire_joints, strict=True))
    found = {}
    for link in space.links:
        if link.joint >= 0:
            inner = space.model.joint(link.joint).name
            name = space.world.joint_names.get(inner, inner)
            name = measured.get(name, commanded.get(name, name))
            found[link.joint] = name.replace("/", "_")
    return found


def _materials(robot: Element, space: Space) -> dict[tuple[float, ...], str]:
    """Every colour once, ahead of the links, which name it: what all readers understand."""
    found: dict[tuple[float, ...], str] = {}
    for link in space.links:
        for shape in space.shapes(link):
            if shape.rgba not in found:
                found[shape.rgba] = f"colour_{len(found)}"
                material = SubElement(robot, "material", name=found[shape.rgba])
                SubElement(material, "color", rgba=_numbers(shape.rgba))
    return found


def _visual(link: Element, shape: Shape, materials: dict[tuple[float, ...], str]) -> None:
    visual = SubElement(link, "visual")
    _origin(visual, shape.pose)
    geometry = SubElement(visual, "geometry")
    if shape.kind == BOX:
        SubElement(geometry, "box", size=_numbers(shape.size))
    elif shape.kind == CYLINDER:
        radius, length = (_number(value) for value in shape.size)
        SubElement(geometry, "cylinder", radius=radius, length=length)
    else:
        SubElement(geometry, "sphere", radius=_number(shape.size[0]))
    SubElement(visual, "material", name=materials[shape.rgba])


def _joint(robot: Element, space: Space, link: Link, names: dict[int, str]) -> None:
    if link.kind == FIXED:
        _fixed_joint(robot, link.parent, link.name, link.origin)
        return
    model, number = space.model, link.joint
    limited = bool(model.jnt_limited[number])
    kind = "prismatic" if link.kind != HINGE else "revolute" if limited else "continuous"
    joint = SubElement(robot, "joint", name=names[number], type=kind)
    SubElement(joint, "parent", link=link.parent)
    SubElement(joint, "child", link=link.name)
    _origin(joint, link.origin)
    SubElement(joint, "axis", xyz=_numbers(link.axis))
    if limited:
        low, high = model.jnt_range[number]
        SubElement(
            joint,
            "limit",
            lower=_number(low),
            upper=_number(high),
            effort=_number(_effort(model, number)),
            velocity=_number(_velocity(space, names[number])),
        )
    inner = {model.joint(joint).name: name for joint, name in names.items()}
    leader = space.world.mimics.get(model.joint(number).name)
    if leader is not None:
        SubElement(joint, "mimic", joint=inner[leader[0]], multiplier=_number(leader[1]))


def _effort(model: mujoco.MjModel, joint: int) -> float:
    """The largest force or torque of the actuators on a joint; 0 of a passive one."""
    on_joint = (model.actuator_trntype == mujoco.mjtTrn.mjTRN_JOINT) & (
        model.actuator_trnid[:, 0] == joint
    )
    return float(np.abs(model.actuator_forcerange[on_joint]).max(initial=0.0))


def _velocity(space: Space, name: str) -> float:
    for command in space.embodiment.commands.values():
        if not command.velocity and name in command.wire_names:
            return float(command.max_rate[command.wire_names.index(name)])
    return 0.0


def _fixed_joint(robot: Element, parent: str, child: str, pose: Pose) -> None:
    joint = SubElement(robot, "joint", name=f"{child}_fixed", type="fixed")
    SubElement(joint, "parent", link=parent)
    SubElement(joint, "child", link=child)
    _origin(joint, pose)


def _origin(element: Element, pose: Pose) -> None:
    angles = _numbers(rpy(pose.rotation))
    SubElement(element, "origin", xyz=_numbers(pose.translation), rpy=angles)


def _numbers(values) -> str:
    return " ".join(_number(value) for value in values)


def _number(value: float) -> str:
    return f"{round(float(value), 9) + 0.0:.9g}"
