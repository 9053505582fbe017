"""The plan in force as a record that crosses a topic: what is to be met where and when, and how it
stands. Written by the controller at every step of its twin, read by whoever shows it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from embodied_rl.core.embodiment import NANOSECONDS
from embodied_rl.core.errors import UserError
from embodied_rl.core.schema import Section, parse_yaml

PENDING, DONE, MISSED, AVOIDED = "pending", "done", "missed", "avoided"


@dataclass(frozen=True)
class PlannedItem:
    """A region with its window of steps, both ends included."""

    region: str
    first: int
    last: int
    state: str  # pending, done or missed of a subgoal; avoided


@dataclass(frozen=True)
class Disc:
    """A disc or ball, in m."""

    centre: tuple[float, ...]
    radius: float


@dataclass(frozen=True)
class PlanRecord:
    """Times of a task from ``start_ns`` on, in steps of ``dt_s``; ``step`` is the newest one."""

    task: str
    formula: str
    start_ns: int
    dt_s: float
    steps: int
    step: int
    value: float  # the critic's, of these times
    replanned: int  # how often missed subgoals got new times
    violated: bool
    follow_error_m: float  # between the newest position and the twin's; not a number at the start
    regions: dict[str, Disc]
    items: tuple[PlannedItem, ...]  # subgoals in order of time, then what is avoided

    @property
    def over(self) -> bool:
        return self.step >= self.steps

    @property
    def subgoals(self) -> list[PlannedItem]:
        return [item for item in self.items if item.state != AVOIDED]

    def stamp_ns(self, step: int) -> int:
        """When a step of this plan is."""
        return self.start_ns + round(step * self.dt_s * NANOSECONDS)

    def as_mapping(self) -> dict[str, Any]:
        """Plain data, which :meth:`from_yaml` reads back."""
        regions = {
            name: {"centre": list(disc.centre), "radius": disc.radius}
            for name, disc in self.regions.items()
        }
        return {**vars(self), "regions": regions, "items": [asdict(item) for item in self.items]}

    @classmethod
    def from_yaml(cls, text: str, origin: str) -> PlanRecord:
        """Raises UserError naming ``origin`` and the key when the text is not a plan."""
        root = Section(origin, "", parse_yaml(text, origin))
        regions = {
            key: Disc(tuple(part.value("centre")), float(part.value("radius")))
            for key, part in root.children("regions")
        }
        items = root.value("items")
        try:
            return cls(
                **{key: root.value(key) for key in _PLAIN},
                regions=regions,
                items=tuple(PlannedItem(**item) for item in items),
            )
        except TypeError as error:
            raise UserError(f"{origin}: items: expected planned items, saw {items!r}") from error


_PLAIN = tuple(key for key in PlanRecord.__dataclass_fields__ if key not in ("regions", "items"))


@dataclass
class ExecutedPath:
    """One episode as it was seen: where the robot went under a plan, and what a monitor said."""

    plan: PlanRecord
    replaced: list[PlanRecord] = field(default_factory=list)  # with other times, the oldest first
    times_s: list[float] = field(default_factory=list)  # from the plan's start on
    positions: list[np.ndarray] = field(default_factory=list)  # (d,) each, m
    band: list[tuple[float, float, float]] = field(default_factory=list)  # time, low, high
    verdict: str = ""

    def update(self, plan: PlanRecord) -> None:
        """A newer state of the same plan, perhaps with new times for what was missed."""
        if [(i.region, i.first) for i in plan.subgoals] != [
            (i.region, i.first) for i in self.plan.subgoals
        ]:
            self.replaced.append(self.plan)
        self.plan = plan

    def inside(self, region: str) -> list[tuple[float, float]]:
        """Begin and end (s) of the spans in which the robot was inside a region."""
        disc, spans = self.plan.regions[region], []
        centre = np.array(disc.centre)
        begun: float | None = None
        for time_s, position in zip(self.times_s, self.positions):
            within = np.linalg.norm(position[: len(centre)] - centre) < disc.radius
            if within and begun is None:
                begun = time_s
            elif not within and begun is not None:
                spans.append((begun, time_s))
                begun = None
        if begun is not None:
            spans.append((begun, self.times_s[-1]))
        return spans

    def at(self, time_s: float) -> np.ndarray | None:
        """Position ``(d,)`` nearest to a time; None where there is none within a step."""
        if not self.times_s:
            return None
        nearest = int(np.argmin(np.abs(np.array(self.times_s) - time_s)))
        found = abs(self.times_s[nearest] - time_s) <= self.plan.dt_s
        return self.positions[nearest] if found else None
