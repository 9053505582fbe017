"""What a launch says of the monitor: the parameters of its node."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from embodied_rl.bringup.arguments import Value
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.sim.stl_tasks import specification
from embodied_rl.stl import conformal


def monitor_parameters(
    values: Mapping[str, Value], task: str, robot: Embodiment, anchor: str
) -> dict[str, Value]:
    """Parameters of the node that watches the argument ``monitor``, else the ``task`` of temporal
    logic; none where neither is given.

    Raises:
        UserError: the file does not fit the robot, or an argument is for a monitor that is not.
    """
    given = str(values["monitor"])
    watched = given or task
    for name in ("on_violation", "calibration"):
        if not watched and values[name] not in ("", "event"):
            raise UserError(f"{name}:={values[name]} is for a monitor: add monitor:=FILE")
    if not watched:
        return {}
    if Path(watched).is_file():
        watched = str(Path(watched).absolute())
    if given:  # refused here, not by one of several nodes; the task has been checked
        found = specification.find(watched, robot)
        if values["calibration"]:
            conformal.load(Path(str(values["calibration"])), found)
    return {
        "embodiment": robot.origin,
        "spec": watched,
        "anchor": anchor,
        "on_violation": values["on_violation"],
        "calibration": values["calibration"],
    }
