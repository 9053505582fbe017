"""Exponential moving average of parameters: the weights that get rolled out and shipped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """The average after update n keeps 1 - (1 + n)^-power of itself, at most `decay`; the first
    update takes the parameters as they are.

    Buffers are not averaged: here they are limits and masks, which do not change in training.
    """

    def __init__(self, model: nn.Module, *, decay: float = 0.9999, power: float = 0.75) -> None:
        self._model = model
        self._decay, self._power = decay, power
        self._average = {name: p.detach().clone() for name, p in model.named_parameters()}
        self.count = 0  # updates so far; they set the decay of the next one

    @torch.no_grad()
    def step(self) -> None:
        """Takes the model's current parameters into the average."""
        kept = 0.0
        if self.count:
            kept = min(1 - (1 + self.count) ** -self._power, self._decay)
        self.count += 1
        for name, parameter in self._model.named_parameters():
            average = self._average[name]
            if parameter.requires_grad:
                average.sub_((1 - kept) * (average - parameter))
            else:
                average.copy_(parameter)

    def tensors(self) -> dict[str, Tensor]:
        """The averaged parameters by name."""
        return dict(self._average)

    def restore(self, tensors: Mapping[str, Tensor], count: int) -> None:
        """Puts back what `tensors()` and `count` gave."""
        for name, average in self._average.items():
            average.copy_(tensors[name])
        self.count = count

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside the `with` the model carries the averaged parameters, after it its own again."""
        own = {name: p.detach().clone() for name, p in self._model.named_parameters()}
        self._put(self._average)
        try:
            yield
        finally:
            self._put(own)

    @torch.no_grad()
    def _put(self, tensors: Mapping[str, Tensor]) -> None:
        for name, parameter in self._model.named_parameters():
            parameter.copy_(tensors[name])
