"""Robustness of many traces at once in torch, exact or smooth, with gradients to the signals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from embodied_rl.core.errors import UserError
from embodied_rl.stl.expression import Functions
from embodied_rl.stl.formula import Formula
from embodied_rl.stl.robustness import PESSIMISTIC, TailRule, checked, evaluate


def _tensor(value: Any) -> Tensor:
    # A zero-dimensional float64 does not promote float32 signals, and loses no digit of a constant.
    return torch.as_tensor(value, dtype=None if torch.is_tensor(value) else torch.float64)


TORCH = Functions(
    absolute=lambda value: torch.abs(_tensor(value)),
    sqrt=lambda value: torch.sqrt(_tensor(value)),
    minimum=lambda a, b: torch.minimum(*_same(a, b)),
    maximum=lambda a, b: torch.maximum(*_same(a, b)),
    # vector_norm, because the root of a sum of squares has no gradient at 0
    norm=lambda parts: torch.linalg.vector_norm(torch.stack(_same(*parts)), dim=0),
)


def _same(*values: Any) -> tuple[Tensor, ...]:
    """The values with the shape and dtype of those that are signals."""
    tensors = torch.broadcast_tensors(*(_tensor(value) for value in values))
    kinds = [tensor.dtype for tensor, value in zip(tensors, values) if torch.is_tensor(value)]
    return tuple(t.to(kinds[0]) for t in tensors) if kinds else tensors


class TorchLattice:
    """Traces ``(..., T)``."""

    functions = TORCH
    infinity = float("inf")
    idempotent = True
    maximum = staticmethod(torch.maximum)
    minimum = staticmethod(torch.minimum)

    def extended(self, array: Tensor, count: int, value: float) -> Tensor:
        return torch.nn.functional.pad(array, (0, count), value=value)

    def full(self, like: Tensor, value: float) -> Tensor:
        return torch.full_like(like, value)

    def untimed_until(self, left: Tensor, right: Tensor) -> Tensor:
        # time first: each step then reads and writes one contiguous row
        holds = left.movedim(-1, 0).contiguous().unbind()
        goals = right.movedim(-1, 0).contiguous().unbind()
        found = [goals[-1]]
        for hold, goal in zip(holds[-2::-1], goals[-2::-1]):
            found.append(self.maximum(goal, self.minimum(hold, found[-1])))
        return torch.stack(found[::-1]).movedim(0, -1)


class SmoothLattice(TorchLattice):
    """Max as ``tau * logsumexp(x / tau)``, min as its mirror: gradients reach every sample.

    Joining n values misses the true maximum by at most ``tau * ln(n)``. Infinity is 1e9, since
    the gradient of a log-sum over nothing but -inf is not a number.
    """

    infinity = -PESSIMISTIC
    idempotent = False

    def __init__(self, temperature: float):
        self._temperature = temperature

    def maximum(self, a: Tensor, b: Tensor) -> Tensor:  # type: ignore[override]
        return torch.logaddexp(a / self._temperature, b / self._temperature) * self._temperature

    def minimum(self, a: Tensor, b: Tensor) -> Tensor:  # type: ignore[override]
        return -self.maximum(-a, -b)


def robustness(
    formula: Formula,
    signals: Mapping[str, Tensor],
    tail: TailRule = TailRule.TRUNCATE,
    temperature: float | None = None,
) -> Tensor:
    """Robustness ``(..., T)`` at every step of every trace; ``signals`` are ``(..., T)`` each.

    Args:
        temperature: of the smooth variant, in the unit of the margins; default: exact.

    Raises:
        UserError: a signal is unknown, of another shape or not a number; the temperature is not
            above 0; the tail rule is ``interval``.
    """
    if temperature is not None and not temperature > 0:
        raise UserError(f"temperature: expected a number above 0, saw {temperature}")
    lattice = TorchLattice() if temperature is None else SmoothLattice(temperature)
    return evaluate(formula, checked(formula, signals), lattice, tail)[-1][0]
