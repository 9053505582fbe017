"""What a sample says about a rate or a mean."""

from __future__ import annotations

import math

import numpy as np

Z_95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution


def wilson_interval(successes: int, trials: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson score interval of a proportion.

    Unlike p +- z * sqrt(p(1-p)/n) it stays inside [0, 1] and does not shrink to nothing at 0 or n
    successes.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} successes in {trials} trials")
    p, z2 = successes / trials, z * z
    centre = (p + z2 / (2 * trials)) / (1 + z2 / trials)
    half = z / (1 + z2 / trials) * math.sqrt(p * (1 - p) / trials + z2 / (4 * trials**2))
    # At the ends the exact bound is 0 or 1; rounding must not push it past them.
    return max(0.0, centre - half), min(1.0, centre + half)


def mean_interval(values: np.ndarray, z: float = Z_95) -> tuple[float, float, float]:
    """Mean of independent values ``(n,)`` and the ends of its interval, ``mean +- z s / sqrt(n)``.

    It leans on the normal distribution: for thirty values and more. Of one value nothing is known
    about its error, and the interval is infinite.
    """
    if not len(values):
        raise ValueError("expected at least one value")
    mean = float(np.mean(values))
    if len(values) == 1:
        return mean, -math.inf, math.inf
    half = z * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return mean, mean - half, mean + half
