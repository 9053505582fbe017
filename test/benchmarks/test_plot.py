"""Pictures of benchmarks: what was drawn is in the file, and a failure leaves none behind."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from _plot import BLUE, ORANGE, bars, beside, picture, points, target
from matplotlib.colors import to_rgb
from matplotlib.image import imread


def shows(image: np.ndarray, colour: str) -> bool:
    return bool((np.abs(image[..., :3] - np.array(to_rgb(colour))).max(-1) < 0.02).sum() > 20)


def test_a_picture_has_the_asked_size_and_holds_every_mark(tmp_path):
    path = beside(tmp_path / "results" / "arms.json")
    with picture(path, rows=2, columns=2, size=(6, 4), title="arms", sharey="row") as axes:
        assert axes.shape == (2, 2)
        points(axes[0, 0], ["a", "b"], [0.2, 0.9], [0.1, 0.8], [0.3, 1.0], colours=[BLUE, ORANGE])
        target(axes[0, 0], 0.8, "target")
        bars(axes[1, 1], ["a", "b"], [1.0, 2.0])
        assert [text.get_text() for text in axes[1, 1].texts] == ["1", "2"]
        assert [label.get_text() for label in axes[0, 0].get_yticklabels()] == ["a", "b"]
    assert path == tmp_path / "results" / "arms.png"
    image = imread(path)
    assert image.shape[:2] == (600, 900)
    assert shows(image, BLUE) and shows(image, ORANGE)


def test_a_failure_while_drawing_leaves_the_old_picture(tmp_path):
    path = tmp_path / "arms.png"
    with picture(path, size=(2, 2)):
        pass
    before = path.read_bytes()
    with pytest.raises(ValueError), picture(path, size=(2, 2)) as axes:
        points(axes[0, 0], ["a"], [1.0, 2.0])
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["arms.png"]
