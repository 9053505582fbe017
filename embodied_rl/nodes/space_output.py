"""What viewers need to place a simulated robot in space: transforms, description, cameras, scene.

- ``robot_description`` (std_msgs/String, latched): a URDF of the model.
- ``tf`` and ``tf_static`` (tf2_msgs/TFMessage), where that package is installed. They are relative
  names, so that two robots in two namespaces do not speak of one ``base_link``. Nothing is computed
  while nobody listens.
- a ``camera_info`` of its size beside every image.
- ``sim/scene`` (latched, once an episode) and ``sim/objects``: the surroundings as markers.

A robot's graph publishes none of it: its drivers and robot_state_publisher do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from geometry_msgs.msg import Point, Quaternion, TransformStamped, Vector3
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import ColorRGBA, String
from visualization_msgs.msg import Marker, MarkerArray

from embodied_rl.core.camera_topics import camera_info_topics
from embodied_rl.core.frames import Transform, quaternion_from
from embodied_rl.core.message_types import TF
from embodied_rl.core.window import Sample
from embodied_rl.nodes import messages, qos
from embodied_rl.sim.mujoco_sim import MujocoSimulator
from embodied_rl.sim.shapes import BOX, CYLINDER, Shape, surroundings
from embodied_rl.sim.urdf import robot_description

TRANSFORM_PERIOD_NS = 20_000_000  # of simulated time, at least
OBJECT_PERIOD_NS = 100_000_000
_KINDS = {BOX: Marker.CUBE, CYLINDER: Marker.CYLINDER}


class SpaceOutput:
    """Publishes for one simulator; all calls on the thread that steps it."""

    def __init__(self, node, simulator: MujocoSimulator):
        self._simulator, self._space = simulator, simulator.space
        self._description = node.create_publisher(String, "robot_description", qos.LATCHED)
        self._description.publish(String(data=robot_description(self._space)))
        self._scene = node.create_publisher(MarkerArray, "sim/scene", qos.LATCHED)
        self._objects = node.create_publisher(MarkerArray, "sim/objects", qos.reliable(2))
        self._joints_ns = self._base_ns = self._objects_ns = -TRANSFORM_PERIOD_NS
        self._create_transforms(node)
        self._create_camera_info(node)
        self.begin()

    def _create_transforms(self, node) -> None:
        kind = messages.MESSAGE_CLASSES.get(TF)
        self._transforms = None
        if kind is None:
            node.get_logger().info("tf2_msgs is not installed: no transforms are published")
            return
        self._message = kind
        self._transforms = node.create_publisher(kind, "tf", qos.reliable(100))
        self._static = node.create_publisher(kind, "tf_static", qos.LATCHED)
        now_ns = self._simulator.time_ns
        self._static.publish(self._message(transforms=stamped(self._space.fixed, now_ns)))

    def _create_camera_info(self, node) -> None:
        simulator = self._simulator
        streams = [simulator.embodiment.streams[key] for key in simulator.streams]
        images = [stream for stream in streams if stream.encoding]
        frames = {stream.key: self._space.optical_frame(stream.key) for stream in images}
        topics = camera_info_topics(images, frames)
        self._camera_info = []  # publisher, message, keys of the images that it stands beside
        for topic in dict.fromkeys(topics.values()):
            keys = [key for key in topics if topics[key] == topic]
            model = simulator.intrinsics(keys[0])
            size = (model.height, model.width)
            stamp = messages.time_message(0)
            info = messages.camera_info(stamp, frames[keys[0]], size, model.matrix)
            publisher = node.create_publisher(CameraInfo, topic, qos.reliable(5))
            self._camera_info.append((publisher, info, keys))

    def begin(self) -> None:
        """An episode has begun: the surroundings are now those of its world."""
        self._scene.publish(self._markers(moving=False))

    def publish(self, samples: Mapping[str, Sample]) -> None:
        """What belongs to the streams just published, all at the simulator's present time."""
        now_ns = self._simulator.time_ns
        for publisher, info, keys in self._camera_info:
            if any(key in samples for key in keys):
                info.header.stamp = messages.time_message(now_ns)
                publisher.publish(info)
        if self._transforms is not None and self._transforms.get_subscription_count():
            self._publish_transforms(now_ns, samples)
        due = now_ns >= self._objects_ns + OBJECT_PERIOD_NS
        if due and self._objects.get_subscription_count():
            self._objects_ns = now_ns
            self._objects.publish(self._markers(moving=True))

    def _publish_transforms(self, now_ns: int, samples: Mapping[str, Sample]) -> None:
        edges: list[Transform] = []
        if now_ns >= self._joints_ns + TRANSFORM_PERIOD_NS:
            self._joints_ns = now_ns
            edges += self._space.joints(self._simulator.data)
        if now_ns >= self._base_ns + TRANSFORM_PERIOD_NS:
            base = self._space.base(self._simulator.data, samples)
            if base is not None:
                self._base_ns = now_ns
                edges.append(base)
        if edges:
            assert self._transforms is not None
            self._transforms.publish(self._message(transforms=stamped(edges, now_ns)))

    def _markers(self, moving: bool) -> MarkerArray:
        simulator = self._simulator
        found = surroundings(simulator.model, simulator.data, self._space.body_ids, moving)
        stamp = messages.time_message(0)  # 0: at whatever time the viewer shows
        markers = []
        for number, (name, shape) in enumerate(found):
            marker = shape_marker(shape, name, number)
            marker.header.frame_id, marker.header.stamp = self._space.root, stamp
            markers.append(marker)
        return MarkerArray(markers=markers)


def stamped(edges: Iterable[Transform], time_ns: int) -> list[TransformStamped]:
    """Transforms as messages, all of one instant."""
    found = []
    for edge in edges:
        message = TransformStamped(child_frame_id=edge.child)
        message.header.frame_id, message.header.stamp = edge.parent, messages.time_message(time_ns)
        message.transform.translation = Vector3(**_xyz(edge.pose.translation))
        message.transform.rotation = _quaternion(edge.pose.rotation)
        found.append(message)
    return found


def shape_marker(shape: Shape, namespace: str, number: int) -> Marker:
    """A primitive for RViz and its like, in the frame that the caller names."""
    marker = Marker(ns=namespace, id=number, action=Marker.ADD)
    marker.type = _KINDS.get(shape.kind, Marker.SPHERE)
    size = shape.size
    if shape.kind == CYLINDER:
        size = (2 * size[0], 2 * size[0], size[1])
    elif shape.kind != BOX:
        size = (2 * size[0],) * 3
    marker.scale = Vector3(**_xyz(np.array(size)))
    marker.pose.position = Point(**_xyz(shape.pose.translation))
    marker.pose.orientation = _quaternion(shape.pose.rotation)
    red, green, blue, alpha = shape.rgba
    marker.color = ColorRGBA(r=red, g=green, b=blue, a=alpha)
    return marker


def _xyz(values: np.ndarray) -> dict[str, float]:
    x, y, z = values.tolist()
    return {"x": x, "y": y, "z": z}


def _quaternion(rotation: np.ndarray) -> Quaternion:
    x, y, z, w = quaternion_from(rotation).tolist()
    return Quaternion(x=x, y=y, z=z, w=w)
