"""A lower bound of the predicted robustness that holds with a stated probability.

Split conformal prediction for monitoring, the direct method of arXiv 2211.01539: on recorded
episodes, compare what was predicted with what came. The score of an episode is the most that its
predictions were ever too high,

    score = max over slots of (predicted robustness at the slot) - (robustness in the end),

no less than 0. With ``q`` the ``ceil((n + 1)(1 - delta))``-th smallest score of n episodes, the
next episode, if it is exchangeable with them, keeps ``robustness >= prediction - q`` at *every*
slot with probability at least 1 - delta. The maximum over the slots is ours: whoever watches a
monitor looks when something happens, and a quantile of a single slot says nothing about such
moments.

The probability is over calibration and episode together, for each formula by itself. Another robot,
policy or start distribution is another calibration.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from embodied_rl.core.checkpoint import atomic_write
from embodied_rl.core.errors import UserError
from embodied_rl.core.schema import Section, load_yaml_mapping
from embodied_rl.stl.spec import Specification

LEAST_EPISODES = 100


@dataclass(frozen=True)
class Calibration:
    """``quantiles[formula]`` in the unit of the formula's margin, from ``episodes`` recordings."""

    specification: str
    hash: str  # of the specification
    predictor: str
    delta: float
    episodes: int
    quantiles: dict[str, float]


def rank_of(count: int, delta: float) -> int:
    """Which of ``count`` scores, in rising order from 1, is the quantile."""
    # 1e-9: (n + 1)(1 - delta) may be whole but for rounding
    return math.ceil((count + 1) * (1 - delta) - 1e-9)


def quantile(scores: Sequence[float], delta: float) -> float:
    """The split-conformal quantile of scores ``(n,)``; infinite where n is too small for delta."""
    rank = rank_of(len(scores), delta)
    return sorted(scores)[rank - 1] if rank <= len(scores) else math.inf


def score(estimates: Iterable[float | None], robustness: float) -> float:
    """Of one episode and formula, from its predictions (None: there was none at that slot) and the
    robustness in the end, or what is known of it at least."""
    highest = max((value for value in estimates if value is not None), default=-math.inf)
    return max(highest - robustness, 0.0)


def check(spec: Specification, episodes: int, delta: float) -> None:
    """Raises UserError when no calibration can be made of so many episodes."""
    if not 0 < delta < 1:
        raise UserError(f"delta: expected a probability above 0 and below 1, saw {delta:g}")
    if spec.mode != "episode":
        raise UserError(
            f"specification {spec.name}: expected mode 'episode', since the steps of a sliding "
            f"window are not exchangeable, saw '{spec.mode}'"
        )
    if spec.predictor == "none":
        raise UserError(
            f"specification {spec.name}: expected a predictor to calibrate (predictor: hold or "
            "linear), saw none"
        )
    needed = max(LEAST_EPISODES, math.ceil((1 - delta) / delta - 1e-9))
    if episodes < needed:
        raise UserError(f"calibration: expected at least {needed} episodes, saw {episodes}")


def calibrate(
    spec: Specification, scores: Mapping[str, Sequence[float]], delta: float
) -> Calibration:
    """The calibration of a specification from each formula's scores, one an episode.

    Raises:
        UserError: as :func:`check`; or too many recordings end before a formula is decided.
    """
    count = len(next(iter(scores.values())))
    check(spec, count, delta)
    quantiles = {name: quantile(values, delta) for name, values in scores.items()}
    for name, value in quantiles.items():
        if not math.isfinite(value):
            unknown = sum(not math.isfinite(one) for one in scores[name])
            raise UserError(
                f"formula '{name}': expected its robustness from all but {delta:.0%} of the "
                f"recordings, saw {unknown} of {count} that end, or miss samples, before it is "
                "known; record longer or declare the signals' bounds"
            )
    return Calibration(
        spec.name, spec.content_hash(), spec.predictor, delta, count, quantiles
    )  # fmt: skip


def save(calibration: Calibration, path: Path) -> None:
    data = {
        "specification": calibration.specification,
        "hash": calibration.hash,
        "predictor": calibration.predictor,
        "delta": calibration.delta,
        "episodes": calibration.episodes,
        "quantiles": dict(calibration.quantiles),
    }
    with atomic_write(path) as temporary:
        temporary.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")


def load(path: Path, spec: Specification) -> Calibration:
    """Read a calibration for use with a specification.

    Raises:
        UserError: the file is missing, a key is unknown or unsound, or it was made for another
            specification, which it names.
    """
    root = Section(str(path), "", load_yaml_mapping(path))
    name, seen = root.text("specification"), root.text("hash")
    if seen != spec.content_hash():
        root.fail(
            "hash",
            f"{spec.content_hash()}, that of specification '{spec.name}' as it is now",
            f"{seen} of '{name}'; calibrate anew",
        )
    part = root.optional_child("quantiles")
    if part is None:
        root.fail("quantiles", "a number for each formula", "none")
    quantiles = {key: part.at_least_zero(key) for key in spec.formulas}
    part.done()
    calibration = Calibration(
        name, seen, root.choice("predictor", (spec.predictor,)), root.positive("delta"),
        int(root.positive("episodes")), quantiles,
    )  # fmt: skip
    root.done()
    return calibration
