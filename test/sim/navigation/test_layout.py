"""Homes: connected, furnished as the settings say, a function of their seed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import label

from embodied_rl.sim.navigation.egocentric import WORLDS
from embodied_rl.sim.navigation.layout import LayoutSettings, generate_layout

FURNISHED = LayoutSettings(furniture=6)
LARGE = LayoutSettings(columns=3, rows=2, room=4, objects=8, types=9, cell_m=0.25)


@pytest.mark.parametrize("settings", [LayoutSettings(), LARGE], ids=["default", "large"])
def test_every_home_is_connected_and_furnished(settings: LayoutSettings) -> None:
    rooms = settings.columns * settings.rows
    segments = rooms * 2 - settings.columns - settings.rows
    for seed in range(200):
        home = generate_layout(seed, settings)
        assert home.walls.shape == (settings.height, settings.width)
        assert label(~home.walls)[1] == 1
        closed = home.walls.copy()
        closed[home.doors[:, 1], home.doors[:, 0]] = True
        assert label(~closed)[1] == rooms  # a door each between neighbours, and no other way
        assert len(np.unique(home.doors, axis=0)) == segments
        assert home.walls[0].all() and home.walls[-1].all()
        assert home.walls[:, 0].all() and home.walls[:, -1].all()
        assert not home.walls[home.object_cells[:, 1], home.object_cells[:, 0]].any()
        assert len(np.unique(home.object_cells, axis=0)) == settings.objects
        assert len(set(home.object_types)) == settings.objects
        assert set(home.object_types) <= set(range(settings.types))
        assert np.count_nonzero(home.object_map()) == settings.objects


def test_furniture_closes_no_way() -> None:
    placed = []
    for seed in range(200):
        home = generate_layout(seed, FURNISHED)
        bare = generate_layout(seed)
        for key in ("walls", "doors", "object_cells", "object_types"):
            assert np.array_equal(getattr(home, key), getattr(bare, key))
        assert label(~home.obstacles)[1] == 1
        x, y = home.furniture_cells.T
        assert len(np.unique(home.furniture_cells, axis=0)) == len(x)
        assert not home.walls[y, x].any() and not home.object_map()[y, x].any()
        beside = home.walls[y, x - 1] | home.walls[y, x + 1]
        assert (beside | home.walls[y - 1, x] | home.walls[y + 1, x]).all()
        to_door = np.abs(home.furniture_cells[:, None] - home.doors).sum(axis=-1)
        assert (to_door > 1).all()
        assert np.array_equal(home.obstacles & ~home.walls, np.isin(
            np.arange(169).reshape(13, 13), y * 13 + x))  # fmt: skip
        placed.append(len(x))
    assert min(placed) == max(placed) == 6


def test_seeds_and_splits() -> None:
    first, again, other = (generate_layout(seed) for seed in (3, 3, 4))
    assert np.array_equal(first.walls, again.walls)
    assert np.array_equal(first.object_map(), again.object_map())
    assert not np.array_equal(first.object_map(), other.object_map())
    train, held_out = (set(range(*WORLDS[split])) for split in ("train", "held_out"))
    assert (len(train), len(held_out)) == (4096, 256)
    assert not train & held_out
    maps = {generate_layout(seed).object_map().tobytes() for seed in range(0, 4352, 8)}
    assert len(maps) == 544


def test_metres() -> None:
    home = generate_layout(0, LARGE)
    cells = np.argwhere(~home.walls)[:, ::-1]
    middles = home.centre_m(cells)
    assert np.array_equal(home.cell_at(middles), cells)
    assert np.array_equal(home.cell_at(middles + 0.12), cells)
    assert np.array_equal(middles[0], (cells[0] + 0.5) * 0.25)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": 0}, "rows: expected at least 1, saw 0"),
        ({"objects": 7}, "objects: expected at most one a type"),
        ({"room": 1, "objects": 5}, "objects: expected at most one a type and one a cell"),
        ({"furniture": -1}, "furniture: expected at least 0"),
        ({"cell_m": 0.0}, "cell_m: expected a number above 0"),
    ],
)
def test_impossible_settings(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LayoutSettings(**change)
