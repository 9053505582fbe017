"""Commands that are poses of a tool: what their numbers mean, and which streams measure them.

A Cartesian controller is told where its tool should be. The action has the position x, y, z (m) in
a frame of the robot and, where they are declared, a rotation vector rx, ry, rz (rad) about the axes
of that frame, relative to a fixed orientation::

    orientation of the tool = exp([rx, ry, rz]) * orientation

Within a radius below half a turn every orientation has one such vector. It changes at least as fast
as the tool turns, so a limit of its velocity limits the tool's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from embodied_rl.core.frames import UNIT_TOLERANCE, multiplied
from embodied_rl.core.message_types import ODOMETRY, POSE, POSE_COVARIANCE, TF, XYZ
from embodied_rl.core.schema import Section
from embodied_rl.core.streams import Stream

ROTATION = ("rx", "ry", "rz")
FARTHEST_RAD = 3.0  # of a rotation vector; at half a turn it would change its sign
MEASURING = (POSE, POSE_COVARIANCE, TF, ODOMETRY)  # types of stream that measure a tool


@dataclass(frozen=True)
class Tool:
    """How the dimensions ``(n,)`` of a pose command, 3 or 6, stand for a pose."""

    frame: str
    orientation: np.ndarray  # (4,) unit quaternion x, y, z, w of a rotation vector of zeros
    turns: bool  # rotation vector commanded too; else the orientation is fixed
    declared: tuple[str, ...] = ()  # streams that measure it, as the file says
    position_stream: str = ""
    orientation_stream: str = ""  # where the tool turns

    @property
    def dimensions(self) -> tuple[str, ...]:
        return XYZ + (ROTATION if self.turns else ())

    @property
    def measured_by(self) -> tuple[tuple[str, int], ...]:
        """Stream and place in its values of each dimension; those of the orientation stream are
        first made a :meth:`rotation_vector`."""
        found = [(self.position_stream, i) for i in range(3)]
        return tuple(found + [(self.orientation_stream, i) for i in range(3) if self.turns])

    def pose(self, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Position ``(3,)`` in metres and unit quaternion ``(4,)`` of targets ``(n,)``."""
        if not self.turns:
            return targets, self.orientation
        return targets[:3], multiplied(_quaternion(targets[3:]), self.orientation)

    def targets(self, position: np.ndarray, orientation: np.ndarray) -> np.ndarray:
        """Targets ``(n,)`` of a position ``(3,)`` and a unit quaternion ``(4,)``."""
        if not self.turns:
            return position
        return np.concatenate([position, self.rotation_vector(orientation)])

    def rotation_vector(self, orientation: np.ndarray) -> np.ndarray:
        """How a unit quaternion ``(4,)`` is turned against the declared one: ``(3,)`` in rad, of
        at most half a turn."""
        inverse = self.orientation * np.array([-1.0, -1.0, -1.0, 1.0])
        turn = multiplied(orientation, inverse)
        turn = -turn if turn[3] < 0 else turn
        length = float(np.linalg.norm(turn[:3]))
        if length < 1e-9:
            return np.asarray(2 * turn[:3])
        return np.asarray(turn[:3] * (2 * np.arctan2(length, turn[3]) / length))


def _quaternion(vector: np.ndarray) -> np.ndarray:
    """Unit quaternion ``(4,)`` of a rotation vector ``(3,)`` in rad."""
    half = float(np.linalg.norm(vector)) / 2
    # sin(half) / (2 half), also at zero
    return np.append(vector * (np.sinc(half / np.pi) / 2), np.cos(half))


def parse_tool(part: Section, base_frame: str) -> Tool:
    """The keys of a pose command that no other has.

    Raises:
        UserError: other dimensions, no unit quaternion, or limits of the rotation beyond
            ``FARTHEST_RAD``.
    """
    dimensions = part.names("dimensions")
    turns = len(dimensions) > 3
    wanted = XYZ + (ROTATION if turns else ())
    if dimensions != wanted:
        both = f"{list(XYZ)} or {list(XYZ + ROTATION)}, in this order"
        part.fail("dimensions", both, list(dimensions))
    orientation = part.vector("orientation", 4)
    norm = float(np.linalg.norm(orientation))
    if not abs(norm - 1) <= UNIT_TOLERANCE:
        line = "a unit quaternion [x, y, z, w]"
        part.fail("orientation", line, f"{orientation.tolist()} of length {norm:.4g}")
    if turns:
        ends = np.maximum(*(np.abs(part.vector(key, 6)[3:]) for key in ("lower", "upper")))
        radius = float(np.linalg.norm(ends))
        if radius > FARTHEST_RAD:
            line = f"rx, ry, rz within a radius of {FARTHEST_RAD:g} rad of 'orientation'"
            part.fail("lower", line, f"limits that reach to {radius:.4g} rad")
    given = part.value("measured_by", [])
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        part.fail("measured_by", "a stream or a list of streams", given)
    frame = part.text("frame", default=base_frame)
    return Tool(frame, orientation / norm, turns, tuple(names))


def with_streams(
    root: Section, path: str, tool: Tool, streams: Mapping[str, Stream], others: Sequence[Tool]
) -> Tool:
    """The tool with the streams that measure it: those of ``measured_by``, or else the only ones
    that measure a pose in its frame.

    Args:
        path: of the command, such as ``commands.tool``.
        others: tools that have their streams already.

    Raises:
        UserError: no stream, more than one, or one that measures another tool as well.
    """
    unknown = [name for name in tool.declared if name not in streams]
    if unknown:
        root.fail(f"{path}.measured_by", f"streams among {sorted(streams)}", unknown[0])
    fitting = {
        key: stream
        for key, stream in streams.items()
        if stream.type in MEASURING and stream.frame == tool.frame
    }
    unfit = [name for name in tool.declared if name not in fitting]
    if unfit:
        line = f"streams of a pose in frame '{tool.frame}'"
        root.fail(f"{path}.measured_by", line, f"'{unfit[0]}'")
    if tool.declared:
        fitting = {key: fitting[key] for key in tool.declared}
    found = {}
    for field in ("position", "orientation") if tool.turns else ("position",):
        keys = [key for key, stream in fitting.items() if stream.field == field]
        if len(keys) != 1:
            line = (
                f"one stream of a pose in frame '{tool.frame}' with field {field} that measures "
                "the tool; of several name it here"
            )
            root.fail(f"{path}.measured_by", line, keys or "none")
        found[field] = keys[0]
    tool = replace(
        tool,
        position_stream=found["position"],
        orientation_stream=found.get("orientation", ""),
    )
    for other in others:
        taken = {key for key, _ in tool.measured_by} & {key for key, _ in other.measured_by}
        if taken:
            line = "a stream that measures no other command"
            root.fail(f"{path}.measured_by", line, f"'{min(taken)}'")
    return tool
