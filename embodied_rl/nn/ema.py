"""Exponential moving average of parameters: the weights that get rolled out and shipped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from diffusers.training_utils import EMAModel
from torch import Tensor, nn


class Ema:
    """`diffusers` EMA with warm-up (decay 1 - (1 + n)^-power, at most `decay`), addressed by
    parameter name.

    Buffers are not averaged: here they are limits and masks, which do not change in training.
    """

    def __init__(self, model: nn.Module, *, decay: float = 0.9999, power: float = 0.75) -> None:
        self._model = model
        self._names = [name for name, _ in model.named_parameters()]
        self._ema = EMAModel(
            model.parameters(), decay=decay, use_ema_warmup=True, inv_gamma=1.0, power=power
        )

    def step(self) -> None:
        """Takes the model's present parameters into the average."""
        self._ema.step(self._model.parameters())

    def tensors(self) -> dict[str, Tensor]:
        """The averaged parameters by name."""
        return dict(zip(self._names, self._ema.shadow_params, strict=True))

    @property
    def count(self) -> int:
        """Steps taken so far; they set the decay of the next one."""
        return int(self._ema.optimization_step)

    def restore(self, tensors: Mapping[str, Tensor], count: int) -> None:
        """Puts back what `tensors()` and `count` gave."""
        for shadow, name in zip(self._ema.shadow_params, self._names, strict=True):
            shadow.copy_(tensors[name])
        self._ema.optimization_step = count

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside the `with` the model carries the averaged parameters, after it its own again."""
        self._ema.store(self._model.parameters())
        self._ema.copy_to(self._model.parameters())
        try:
            yield
        finally:
            self._ema.restore(self._model.parameters())
