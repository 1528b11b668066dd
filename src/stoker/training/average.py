"""An exponential moving average of a model's weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from stoker.errors import ConfigError

__all__ = ["WeightAverage"]


class WeightAverage:
    """``a ← d·a + (1 − d)·w`` after each update; the first update sets ``a = w``, so that no bias needs correcting.

    Averages of the last weights often generalise better than the last weights themselves. Source: Polyak & Juditsky,
    "Acceleration of stochastic approximation by averaging", SIAM J. Control Optim. 30 (1992), with the exponential
    weights of ``torch.optim.swa_utils.get_ema_avg_fn``, whose numbers these are. Buffers, such as the running
    statistics of batch normalisation, are not averaged: they are averages already.

    Args:
        model: Whose parameters are averaged. It keeps training its own.
        decay: ``d``, from 0 up to, not including, 1; about ``1/(1 − d)`` updates are averaged.

    Attributes:
        updates: How many were averaged.

    Raises:
        ConfigError: ``decay`` is out of range.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            fix = "Such as 0.999; leave it out for no average."
            raise ConfigError("ema", "must be a decay from 0 up to, not including, 1", decay, fix)
        self.decay = decay
        self.updates = 0
        self._model = model
        self._average: list[Tensor] = []

    @torch.no_grad()
    def update(self) -> None:
        """Take the model's weights into the average."""
        weights = [parameter.detach() for parameter in self._trained()]
        if self.updates == 0:
            torch._foreach_copy_(self.tensors(), weights)
        else:
            torch._foreach_lerp_(self._average, weights, 1 - self.decay)
        self.updates += 1

    def tensors(self) -> list[Tensor]:
        """The average itself, of each parameter that requires a gradient, in order; before the first update, weights.

        Whoever makes updates elsewhere writes them here, and counts them in :attr:`updates`.
        """
        if not self._average:
            self._average = [parameter.detach().clone() for parameter in self._trained()]
        return self._average

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within this block the model has the averaged weights; after it, its own again."""
        own = [parameter.detach().clone() for parameter in self._trained()] if self.updates else []
        self.keep()
        try:
            yield
        finally:
            self._set(own)

    def keep(self) -> None:
        """Give the model the averaged weights for good; before the first update it keeps its own."""
        self._set(self._average if self.updates else [])

    @torch.no_grad()
    def _set(self, weights: list[Tensor]) -> None:
        if weights:
            torch._foreach_copy_([parameter.detach() for parameter in self._trained()], weights)

    def _trained(self) -> list[nn.Parameter]:
        return [parameter for parameter in self._model.parameters() if parameter.requires_grad]
