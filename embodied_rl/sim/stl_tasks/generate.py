"""Random tasks of four families, like those of mengyuest/TeLoGraF; the numbers are ours.

reach     two-layer: one to three ``F[a,b] A`` under ``and``
until     two-layer: ``F[a,b] B and (not A) U[0,b] B`` : B before A, and A thereafter
sequence  multi-layer: ``F[a,b] (A and F[c,d] (B and ...))`` over two to four goals
tree      multi-layer: ``F A and (F B or F G C)``, goals to stay in among them

Every family has up to six obstacles, avoided throughout. Goals have the smaller radii.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from embodied_rl.core.errors import UserError
from embodied_rl.sim.dynamics.base import Dynamics
from embodied_rl.sim.stl_tasks.task import MULTI_LAYER, TWO_LAYER, Region, StlTask, task_from
from embodied_rl.sim.worlds.tabletop import HOME

FAMILIES = {"reach": TWO_LAYER, "until": TWO_LAYER, "sequence": MULTI_LAYER, "tree": MULTI_LAYER}
OBSTACLE_COUNT = (0.20, 0.15, 0.15, 0.15, 0.15, 0.10, 0.10)  # probability of 0..6
STAY_PROBABILITY, STAY_STEPS = 0.5, (3, 9)
_TRIES = 400


@dataclass(frozen=True)
class Layout:
    """What regions and starts are drawn from; lengths in metres.

    Without a ``box`` regions fill the arena, in three dimensions from 1 m above the ground up.
    Without a ``home`` the middle of the start box is drawn too, and the box is flat.
    """

    goal_radius: tuple[float, float] = (0.5, 0.75)
    obstacle_radius: tuple[float, float] = (0.75, 1.5)
    gap: float = 0.6  # between the rims of two regions
    start_side: float = 1.0  # m or rad
    start_room: float = 1.0  # around the middle of the start, free of obstacles
    box: tuple[tuple[float, ...], tuple[float, ...]] | None = None  # corners
    home: tuple[float, ...] | None = None  # as `Dynamics.start` takes it


LAYOUTS = {
    "quadrotor": Layout(goal_radius=(0.6, 0.9)),
    "arm": Layout(
        goal_radius=(0.04, 0.06),
        obstacle_radius=(0.08, 0.15),
        gap=0.06,
        start_side=0.3,
        start_room=0.2,
        box=((0.25, -0.40, 0.10), (0.75, 0.40, 0.55)),
        home=tuple(HOME.tolist()),
    ),
}


def generate(
    name: str, dynamics: Dynamics, family: str, seed: int, layout: Layout | None = None
) -> StlTask:
    """The task of a seed, by default in the layout of the robot.

    Whether it can be satisfied is for a witness search to say.
    """
    layout = layout or LAYOUTS.get(dynamics.name, Layout())
    return _Maker(dynamics, np.random.default_rng(seed), layout).task(name, family)


class _Maker:
    def __init__(self, dynamics: Dynamics, rng: np.random.Generator, layout: Layout):
        self._dynamics, self._rng, self._layout = dynamics, rng, layout
        self._regions: dict[str, Region] = {}

    def task(self, name: str, family: str) -> StlTask:
        """The formula's goals are placed first, then obstacles between them."""
        start, spread = self._start()
        around = self._position(start)
        text = {
            "reach": self._reach, "until": self._until,
            "sequence": self._sequence, "tree": self._tree,
        }[family]()  # fmt: skip
        for i in range(int(self._rng.choice(len(OBSTACLE_COUNT), p=OBSTACLE_COUNT))):
            if self._place(f"O{i}", self._layout.obstacle_radius, around, required=False):
                text += f" and G[0,{self._seconds(self._dynamics.steps)}] not O{i}"
        regions = {
            key: {"centre": [round(c, 3) for c in region.centre], "radius": round(region.radius, 3)}
            for key, region in self._regions.items()
        }
        low, high = ([round(c, 3) for c in end] for end in (start - spread, start + spread))
        data = {
            "name": name, "dynamics": self._dynamics.name, "layers": FAMILIES[family],
            "formula": text, "regions": regions, "start": {"low": low, "high": high},
        }  # fmt: skip
        return task_from(data, f"generated task {name}")

    # ------------------------------------------------------------------ places
    def _start(self) -> tuple[np.ndarray, np.ndarray]:
        """Middle and half sides of the start box."""
        half = self._layout.start_side / 2
        if self._layout.home is not None:
            return np.array(self._layout.home), np.full(len(self._layout.home), half)
        start = self._spot(self._layout.start_side)
        return start, np.where(np.arange(len(start)) < 2, half, 0.0)

    def _position(self, start: np.ndarray) -> np.ndarray:
        """Where the robot is at the middle of the start box."""
        if self._layout.home is None:
            return start
        place = torch.tensor(start[None], dtype=torch.float32)
        state = self._dynamics.start(place, torch.Generator())
        return self._dynamics.position(state)[0].cpu().numpy()

    def _spot(self, margin: float) -> np.ndarray:
        """A position that far from the borders; a height is drawn above the ground."""
        if self._layout.box is not None:
            low, high = np.array(self._layout.box)
            return self._rng.uniform(low + margin, high - margin)
        inner = self._dynamics.arena_m - margin
        place = self._rng.uniform(-inner, inner, self._dynamics.position_dim)
        place[2:] = self._rng.uniform(1.0, self._dynamics.arena_m - 1.0, len(place[2:]))
        return place

    def _place(
        self, name: str, radii: tuple[float, float], start: np.ndarray | None, required: bool = True
    ) -> bool:
        """Puts a region clear of all others and, if ``start`` is given, of where robots begin."""
        for _ in range(_TRIES):
            radius = float(self._rng.uniform(*radii))
            spot = self._spot(radius)
            clear = all(
                math.dist(spot, other.centre) >= radius + other.radius + self._layout.gap
                for other in self._regions.values()
            )
            if start is not None:
                clear &= math.dist(spot, start) >= radius + self._layout.start_room
            if clear:
                self._regions[name] = Region(tuple(spot.tolist()), radius)
                return True
        if required:
            raise UserError(f"generated task: no room for region {name} among {len(self._regions)}")
        return False

    def _goals(self, count: int) -> list[str]:
        names = list("ABCDE"[:count])
        for name in names:
            self._place(name, self._layout.goal_radius, None)
        return names

    # ------------------------------------------------------------------ times
    def _seconds(self, steps: float) -> str:
        return f"{round(steps) * self._dynamics.dt_s:.12g}"

    def _window(self, first: float, last: float) -> str:
        """``[a,b]`` in seconds from shares of the episode."""
        steps = self._dynamics.steps
        return f"[{self._seconds(max(1, first * steps))},{self._seconds(last * steps)}]"

    def _within(self) -> str:
        """A window that begins early and ends late, as a whole."""
        return self._window(self._rng.uniform(0.0, 0.15), self._rng.uniform(0.75, 0.95))

    # ------------------------------------------------------------------ families
    def _reach(self) -> str:
        names = self._goals(int(self._rng.integers(1, 4)))
        return " and ".join(f"F{self._within()} {name}" for name in names)

    def _until(self) -> str:
        first, second = self._goals(2)
        early = self._seconds(self._rng.uniform(0.5, 0.6) * self._dynamics.steps)
        late = self._window(0.3, self._rng.uniform(0.85, 0.95))
        return f"((not {second}) U[0,{early}] {first}) and F{late} {second}"

    def _sequence(self) -> str:
        """Nested windows whose ends add up to nine tenths of the episode."""
        names = self._goals(int(self._rng.integers(2, 5)))
        share = 0.9 / len(names)
        text = ""
        for name in reversed(names):
            inner = f"({name} and {text})" if text else name
            text = f"F{self._window(0.02, share)} {inner}"
        return text

    def _tree(self) -> str:
        first, second, third = self._goals(3)
        stay = third
        if self._rng.random() < STAY_PROBABILITY:
            stay = f"G[0,{self._seconds(self._rng.integers(*STAY_STEPS, endpoint=True))}] {third}"
        window = f"F{self._window(0.05, 0.8)}"
        return f"F{self._within()} {first} and ({window} {second} or {window} {stay})"
