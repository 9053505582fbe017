"""Seeded layouts of homes: rooms on a grid of cells, doors in the walls between them, furniture
along the walls, objects.

One generator serves the grid task and worlds with physics: cells are ``cell_m`` wide, cell (x, y)
covers ``[x, x + 1) * cell_m`` by ``[y, y + 1) * cell_m``, and walls are one cell thick.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embodied_rl.core.ranges import check_range

OBJECT_NAMES = ("lantern", "plant", "ball", "clock", "basket", "bell")  # of types 0, 1, ...
GENERATOR = 10_002  # keeps these random numbers apart from all others that begin with small seeds


@dataclass(frozen=True)
class LayoutSettings:
    """``columns`` x ``rows`` rooms of ``room`` x ``room`` cells.

    ``objects`` are placed, each of another one of ``types`` types, and up to ``furniture`` pieces
    of one cell each, next to walls, where they close no way and stand before no door.
    """

    columns: int = 2
    rows: int = 2
    room: int = 5
    objects: int = 5
    types: int = 6
    furniture: int = 0
    cell_m: float = 0.5

    def __post_init__(self) -> None:
        check_range(self, "columns", "rows", "room", "objects", "types", least=1)
        check_range(self, "furniture", least=0)
        if self.objects > min(self.types, self.columns * self.rows * self.room**2):
            raise ValueError(
                f"objects: expected at most one a type and one a cell, saw {self.objects}"
            )
        check_range(self, "cell_m", above=0)

    @property
    def width(self) -> int:
        """In cells, outer walls included."""
        return self.columns * (self.room + 1) + 1

    @property
    def height(self) -> int:
        return self.rows * (self.room + 1) + 1


@dataclass(frozen=True)
class Layout:
    """One home. Every free cell can be reached from every other: all neighbours share a door."""

    settings: LayoutSettings
    seed: int
    walls: np.ndarray  # (H, W) bool, [y, x]
    doors: np.ndarray  # (D, 2) int64, cells (x, y)
    object_cells: np.ndarray  # (K, 2) int64, all different, none in a wall
    object_types: np.ndarray  # (K,) int64, all different
    furniture_cells: np.ndarray  # (F, 2) int64, fewer than asked for where there is no place

    @property
    def obstacles(self) -> np.ndarray:
        """``(H, W)`` bool: walls and furniture, which can neither be entered nor seen through."""
        found = self.walls.copy()
        found[self.furniture_cells[:, 1], self.furniture_cells[:, 0]] = True
        return found

    def centre_m(self, cells: np.ndarray) -> np.ndarray:
        """Middles of cells ``(..., 2)`` in metres."""
        return (np.asarray(cells) + 0.5) * self.settings.cell_m

    def cell_at(self, position_m: np.ndarray) -> np.ndarray:
        """Cells that hold the positions ``(..., 2)``."""
        return np.floor(np.asarray(position_m) / self.settings.cell_m).astype(np.int64)

    def object_map(self) -> np.ndarray:
        """``(H, W)`` int64: 1 + type of the object in a cell, 0 where there is none."""
        found = np.zeros(self.walls.shape, dtype=np.int64)
        found[self.object_cells[:, 1], self.object_cells[:, 0]] = self.object_types + 1
        return found


def generate_layout(seed: int, settings: LayoutSettings | None = None) -> Layout:
    """The home of a seed; equal seeds and settings give equal homes."""
    settings = settings or LayoutSettings()
    random = np.random.default_rng([GENERATOR, seed])
    pitch = settings.room + 1
    walls = np.zeros((settings.height, settings.width), dtype=bool)
    walls[::pitch, :] = walls[:, ::pitch] = True
    doors = _doors(settings, random)
    walls[doors[:, 1], doors[:, 0]] = False
    free = np.argwhere(~walls)[:, ::-1]
    cells = free[random.permutation(len(free))[: settings.objects]]
    types = random.permutation(settings.types)[: settings.objects]
    furniture = _furniture(settings, walls, doors, cells, random)
    return Layout(settings, seed, walls, doors, cells, types, furniture)


def _doors(settings: LayoutSettings, random: np.random.Generator) -> np.ndarray:
    """One in every stretch of wall between two rooms, ``(D, 2)``."""
    pitch, found = settings.room + 1, []
    for row in range(settings.rows):
        for column in range(settings.columns):
            along = 1 + random.integers(settings.room, size=2)
            if column + 1 < settings.columns:
                found.append(((column + 1) * pitch, row * pitch + along[0]))
            if row + 1 < settings.rows:
                found.append((column * pitch + along[1], (row + 1) * pitch))
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def _furniture(
    settings: LayoutSettings,
    walls: np.ndarray,
    doors: np.ndarray,
    objects: np.ndarray,
    random: np.random.Generator,
) -> np.ndarray:
    """Cells ``(F, 2)`` in random order of choice; all other free cells stay connected."""
    found: list[np.ndarray] = []
    taken = walls.copy()
    kept = walls.copy()  # cells that no furniture may take
    kept[objects[:, 1], objects[:, 0]] = True
    for x, y in doors:
        kept[y, x - 1 : x + 2] = kept[y - 1 : y + 2, x] = True
    free = np.argwhere(~kept)[:, ::-1]
    for x, y in free[random.permutation(len(free))] if settings.furniture else ():
        if len(found) == settings.furniture:
            break
        taken[y, x] = True
        beside_wall = walls[y, [x - 1, x + 1]].any() or walls[[y - 1, y + 1], x].any()
        if beside_wall and _connected(~taken):
            found.append(np.array([x, y]))
        else:
            taken[y, x] = False
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def _connected(free: np.ndarray) -> bool:
    """Whether every free cell ``(H, W)`` can be reached from every other; the edge is not free."""
    reached = np.zeros_like(free)
    reached.flat[int(free.argmax())] = True
    while True:
        wider = reached.copy()
        for axis in (0, 1):
            for step in (1, -1):
                wider |= np.roll(reached, step, axis)
        wider &= free
        if (wider == reached).all():
            return bool((reached == free).all())
        reached = wider
