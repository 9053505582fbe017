"""Ranges of settings, checked where a dataclass is made."""

from __future__ import annotations


def check_range(
    settings: object,
    *keys: str,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> None:
    """The numbers under ``keys`` of ``settings`` lie within the bounds given.

    Raises:
        ValueError: the first one that does not, with the range; one that is not a number is in
            no range.
    """
    for key in keys:
        value = getattr(settings, key)
        inside = (
            (least is None or value >= least)
            and (above is None or value > above)
            and (most is None or value <= most)
            and (below is None or value < below)
        )
        if not inside:
            raise ValueError(
                f"{key}: expected {_named(key, least, above, most, below)}, saw {value}"
            )


def _named(
    key: str, least: float | None, above: float | None, most: float | None, below: float | None
) -> str:
    if most is None and below is None:
        return f"at least {least}" if above is None else f"a number above {above}"
    low = f"{least} <= " if least is not None else f"{above} < " if above is not None else ""
    return f"{low}{key} <= {most}" if below is None else f"{low}{key} < {below}"
