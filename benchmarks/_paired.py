"""Statistics of arms that were trained with several seeds and all ran the same episodes.

Outcomes of an arm are an array ``(S, E)``: one row a training seed, one column an episode. Two arms
are compared episode by episode, so what makes an episode hard cancels out of the difference.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.stats import binomtest

DRAWS = 10_000


def two_level_interval(values: np.ndarray, *, seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean over training seeds and episodes.

    Training seeds are drawn with replacement, then episodes. All seeds ran the same episodes, so
    they share the draw of episodes: drawing them anew for each seed would treat one hard episode
    as several, and make the interval too narrow. With three seeds the level of seeds is coarse;
    read the interval beside the worst seed.

    Args:
        values: ``(S, E)`` outcomes of an arm, or differences of two arms.
        seed: of the draws; equal values give equal intervals.
    """
    if values.ndim != 2 or not values.size:
        raise ValueError(f"expected (seeds, episodes), saw {values.shape}")
    seeds, episodes = _weights(*values.shape, seed)
    low, high = np.quantile(((seeds @ values) * episodes).sum(1), [0.025, 0.975])
    return float(low), float(high)


@lru_cache(maxsize=4)
def _weights(seeds: int, episodes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Share ``(DRAWS, S)`` and ``(DRAWS, E)`` of each seed and episode in every draw."""
    random = np.random.default_rng(seed)
    return tuple(random.multinomial(n, np.full(n, 1 / n), DRAWS) / n for n in (seeds, episodes))


def mcnemar_exact(first: np.ndarray, second: np.ndarray) -> float:
    """Two-sided p-value of McNemar's exact test that two arms succeed equally often.

    Only the pairs count in which exactly one arm succeeded: under the hypothesis each is a fair
    coin. Pairs of all training seeds are pooled and taken as independent, which two seeds on one
    episode are not quite; the interval of :func:`two_level_interval` does not assume that.

    Args:
        first, second: ``(S, E)`` outcomes, 0 or 1.
    """
    if first.shape != second.shape:
        raise ValueError(f"expected pairs, saw {first.shape} and {second.shape}")
    only_first = int(np.sum((first == 1) & (second == 0)))
    only_second = int(np.sum((first == 0) & (second == 1)))
    if only_first + only_second == 0:
        return 1.0
    return float(binomtest(only_first, only_first + only_second).pvalue)
