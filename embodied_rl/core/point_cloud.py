"""A sensor_msgs/PointCloud2 as an array of a declared shape.

The rule, so that training and robot agree: points with a value that is not finite in a chosen
field are left out; of more than ``P`` that remain every one ``floor(i N / P)`` is taken, in the
order of the message, and fewer are followed by rows of NaN. A cloud without a point is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from embodied_rl.core.errors import MessageError, quoted

# sensor_msgs/PointField.datatype
DATATYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}


def read_points(message: Any, channels: Sequence[str], count: int, topic: str) -> np.ndarray:
    """Points ``(count, C)`` float32 of a cloud, NaN where there are fewer.

    Raises:
        MessageError: a field is missing or of an unknown type, the bytes do not fit the size, or
            no point is valid.
    """
    order = ">" if message.is_bigendian else "<"
    fields = {field.name: field for field in message.fields}
    columns = []
    for name in channels:
        if name not in fields:
            raise MessageError(f"{topic}: expected field '{name}', saw {quoted(list(fields))}")
        field = fields[name]
        kind = DATATYPES.get(field.datatype)
        if kind is None or field.count > 1:
            raise MessageError(f"{topic}: {name}: expected one number a point, saw another type")
        columns.append((name, order + kind, field.offset))
    width, height, step = message.width, message.height, message.point_step
    last = max(offset + np.dtype(kind).itemsize for _, kind, offset in columns)
    if last > step or message.row_step < width * step:
        raise MessageError(f"{topic}: expected points of {last} bytes or more, saw {step}")
    if len(message.data) != message.row_step * height:
        raise MessageError(
            f"{topic}: expected {height} rows of {message.row_step} bytes, "
            f"saw {len(message.data)} bytes in all"
        )
    raw = np.frombuffer(message.data, np.uint8).reshape(height, message.row_step)
    layout = np.dtype(
        {
            "names": [name for name, _, _ in columns],
            "formats": [kind for _, kind, _ in columns],
            "offsets": [offset for _, _, offset in columns],
            "itemsize": step,
        }
    )
    cloud = np.ascontiguousarray(raw[:, : width * step]).reshape(-1).view(layout)
    points = np.stack([cloud[name].astype(np.float32) for name in channels], axis=1)
    points = points[np.all(np.isfinite(points), axis=1)]
    if not len(points):
        raise MessageError(f"{topic}: expected a cloud with valid points, saw none")
    if len(points) > count:
        return points[np.arange(count) * len(points) // count]
    found = np.full((count, len(channels)), np.nan, dtype=np.float32)
    found[: len(points)] = points
    return found
