"""Settings out of range are named with the range."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embodied_rl.core.ranges import check_range


@dataclass(frozen=True)
class Settings:
    share: float


BOUNDS = ("least", "above", "most", "below")
INSIDE = {
    "least": lambda value, bound: value >= bound,
    "above": lambda value, bound: value > bound,
    "most": lambda value, bound: value <= bound,
    "below": lambda value, bound: value < bound,
}


@given(
    st.floats(allow_nan=False),
    st.dictionaries(st.sampled_from(BOUNDS), st.integers(-3, 3), min_size=1),
)
def test_raises_exactly_outside_the_bounds(value: float, bounds: dict[str, float]) -> None:
    if all(INSIDE[name](value, bound) for name, bound in bounds.items()):
        check_range(Settings(value), "share", **bounds)
    else:
        with pytest.raises(ValueError, match="share: expected .*, saw"):
            check_range(Settings(value), "share", **bounds)


@pytest.mark.parametrize("bounds", [{"least": 0}, {"most": 1}, {"least": 0, "below": 1}])
def test_what_is_not_a_number_is_in_no_range(bounds: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="saw nan"):
        check_range(Settings(float("nan")), "share", **bounds)


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        ({"least": 1}, "at least 1"),
        ({"above": 0}, "a number above 0"),
        ({"least": 2, "most": 3}, "2 <= share <= 3"),
        ({"least": 2, "below": 3}, "2 <= share < 3"),
        ({"above": 2, "below": 3}, "2 < share < 3"),
        ({"most": -1}, "share <= -1"),
    ],
)
def test_the_range_is_named(bounds: dict[str, float], text: str) -> None:
    value = 0 if "above" not in bounds else -1
    with pytest.raises(ValueError, match=rf"^share: expected {text}, saw {value}$"):
        check_range(Settings(value), "share", **bounds)
