"""The cross-entropy method: a Gaussian that moves to the best of its own samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from embodied_rl.core.ranges import check_range


@dataclass(frozen=True)
class CemSettings:
    """``elite`` of ``population`` samples set the next Gaussian, for ``iterations`` rounds."""

    population: int = 256
    elite: int = 24
    iterations: int = 40
    smoothing: float = 0.2  # share of the old mean and deviation that stays
    least_deviation: float = 0.02

    def __post_init__(self) -> None:
        if not 1 <= self.elite <= self.population:
            raise ValueError(
                f"elite: expected 1 to population = {self.population}, saw {self.elite}"
            )
        check_range(self, "iterations", least=1)
        check_range(self, "smoothing", least=0, below=1)


def maximise(
    score: Callable[[Tensor], Tensor],
    mean: Tensor,
    deviation: Tensor,
    settings: CemSettings,
    generator: torch.Generator,
    enough: float = float("inf"),
) -> tuple[Tensor, float]:
    """The best sample ``(D,)`` that was seen, and its score.

    Args:
        score: scores ``(P,)`` of samples ``(P, D)``.
        mean: start of the search ``(D,)``, which is scored too.
        deviation: of the first round, ``(D,)``.
        enough: a score at which the search ends early.
    """
    best, best_score = mean, -float("inf")
    for _ in range(settings.iterations):
        noise = torch.randn(settings.population, len(mean), generator=generator)
        samples = mean + deviation * noise
        samples[0] = best
        scores = score(samples)
        order = scores.argsort(descending=True)[: settings.elite]
        if float(scores[order[0]]) > best_score:
            best, best_score = samples[order[0]], float(scores[order[0]])
        if best_score >= enough:
            break
        elite, kept = samples[order], settings.smoothing
        mean = kept * mean + (1 - kept) * elite.mean(dim=0)
        spread = elite.std(dim=0, unbiased=False).clamp(min=settings.least_deviation)
        deviation = kept * deviation + (1 - kept) * spread
    return best, best_score
