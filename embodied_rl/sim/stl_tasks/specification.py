"""From a task over regions to the specification that a monitor watches on a robot.

A region ``A`` becomes the signal ``A_distance``, how far the robot's position is from the region's
centre in m, and its margin ``radius - A_distance``: the monitor's robustness is the task's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from embodied_rl.core.embodiment import NANOSECONDS, Embodiment, Stream
from embodied_rl.core.errors import UserError
from embodied_rl.core.schema import load_yaml_mapping
from embodied_rl.core.signals import Signal, SignalSet
from embodied_rl.stl import expression as ex
from embodied_rl.stl import formula as fm
from embodied_rl.stl import spec
from embodied_rl.stl.formula import Formula
from embodied_rl.stl.parse import FormulaError, parse
from embodied_rl.stl.spec import Specification

if TYPE_CHECKING:  # torch, which tasks need and plain specifications do not, takes seconds
    from embodied_rl.sim.stl_tasks.task import StlTask

# What regions are about: where a base is, or the tool of an arm.
POSITIONS = ("base_position", "tool_position")
# `A >= c` is a lower bound of a margin and an upper one of a distance.
_TURNED = {">=": "<=", ">": "<", "<=": ">=", "<": ">"}


class Ball(Protocol):
    """A disc or ball, in m."""

    @property
    def centre(self) -> tuple[float, ...]: ...

    @property
    def radius(self) -> float: ...


def names_task(name: str) -> bool:
    """Whether ``name`` is a task: of ``sim_worlds/stl_tasks``, or a file that has regions."""
    path = Path(name)
    return "regions" in load_yaml_mapping(path) if _is_file(path) else True


def find(name: str, embodiment: Embodiment) -> Specification:
    """The specification in a file, or that of a task given by its name or file.

    Raises:
        UserError: there is no such file or task, it is unsound, or it does not fit the robot.
    """
    if not names_task(name):
        return spec.load(name, embodiment)
    from embodied_rl.sim.stl_tasks.task import load_task

    return task_specification(load_task(name), embodiment)


def _is_file(path: Path) -> bool:
    return path.suffix in (".yaml", ".yml") or path.is_file()


def task_specification(task: StlTask, embodiment: Embodiment) -> Specification:
    """What a task asks of a robot; errors as :func:`over_regions`."""
    return over_regions(task.name, task.text, task.dynamics.dt_s, task.regions, embodiment)


def over_regions(
    name: str, text: str, dt_s: float, regions: Mapping[str, Ball], embodiment: Embodiment
) -> Specification:
    """A formula over the margins of regions, watched once from the episode's start.

    Args:
        name: of the specification, and of its one formula.
        regions: about the first of :data:`POSITIONS` that the robot has.

    Raises:
        UserError: the formula does not parse or names no region; the robot has no position, or one
            of fewer dimensions than a region.
    """
    origin = f"task {name}"
    try:
        formula = parse(text, dt_s)
    except FormulaError as error:
        raise UserError(f"{origin}: {error}") from None
    for used in fm.signal_names(formula):
        if used not in regions:
            raise UserError(
                f"{origin}: expected names among the regions {sorted(regions)}, saw '{used}'"
            )
    stream = _position(embodiment, origin)
    used_regions = {key: regions[key] for key in fm.signal_names(formula)}
    signals = {
        _distance(key): _signal(key, ball, stream, origin) for key, ball in used_regions.items()
    }
    if not signals:
        raise UserError(f"{origin}: expected a formula over regions, saw constants only")
    return Specification(
        name=name,
        formulas={name: _over_distances(formula, used_regions)},
        signals=SignalSet(signals, {stream.key: stream}),
        dt_s=dt_s,
        grid="start",
        # one stream: nothing can overtake it, and silence should show within two control ticks
        lateness_s=2 * embodiment.period_ns / NANOSECONDS,
        description=text,
    )


def _position(embodiment: Embodiment, origin: str) -> Stream:
    for key in POSITIONS:
        if key in embodiment.streams:
            return embodiment.streams[key]
    raise UserError(
        f"{embodiment.origin}: {origin} expects one of the streams {list(POSITIONS)}, saw "
        f"{sorted(embodiment.streams)}"
    )


def _distance(region: str) -> str:
    return f"{region}_distance"


def _signal(region: str, ball: Ball, stream: Stream, origin: str) -> Signal:
    spare = stream.shape[0] - len(ball.centre)
    if spare < 0:
        raise UserError(
            f"{origin}: regions.{region}.centre: expected at most {stream.shape[0]} numbers as of "
            f"stream '{stream.key}', saw {len(ball.centre)}"
        )
    return Signal(
        name=_distance(region),
        stream=stream.key,
        places=tuple(range(len(ball.centre))),
        norm=True,
        unit=stream.unit,
        bounds=(0.0, math.inf),
        max_age_ns=stream.max_age_ns,
        origin=(*ball.centre, *[0.0] * spare),
    )


def _over_distances(formula: Formula, regions: Mapping[str, Ball]) -> Formula:
    if isinstance(formula, fm.Predicate):
        left, right = formula.left, formula.right
        if isinstance(left, ex.Signal) and isinstance(right, ex.Constant):
            distance = ex.Signal(_distance(left.name))
            limit = ex.Constant(regions[left.name].radius - right.value)
            return fm.Predicate(distance, _TURNED[formula.relation], limit)
        margins = {
            key: ex.Arithmetic("-", ex.Constant(ball.radius), ex.Signal(_distance(key)))
            for key, ball in regions.items()
        }
        sides = (ex.substitute(side, margins) for side in (left, right))
        return fm.Predicate(next(sides), formula.relation, next(sides))
    parts = [_over_distances(child, regions) for child in fm.children(formula)]
    return fm.rebuilt(formula, parts)
