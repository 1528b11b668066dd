"""An exponential moving average of a model's weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

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

    Parameters that require no gradient are not averaged. One that is frozen in the middle of training keeps its weight;
    one that is unfrozen begins with ``a = w`` after its own first update.

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
        self._average: dict[nn.Parameter, Tensor] = {}
        self._joining: dict[nn.Parameter, Tensor] = {}  # unfrozen, and not updated since

    @torch.no_grad()
    def update(self) -> None:
        """Take the model's weights into the average."""
        trained, averages = self._trained(), self.tensors()
        weights = [parameter.detach() for parameter in trained]
        if self.updates == 0:
            torch._foreach_copy_(averages, weights)
        else:
            torch._foreach_lerp_(averages, weights, 1 - self.decay)
        for parameter, average in self._joining.items():
            average.copy_(parameter)
        self._average, self._joining = dict(zip(trained, averages, strict=True)), {}
        self.updates += 1

    def tensors(self) -> list[Tensor]:
        """The average itself, of each parameter that requires a gradient, in order; before the first update, weights.

        Whoever makes updates elsewhere writes them here, and counts them in :attr:`updates`; the first update of a
        parameter that was unfrozen since the last is made by :meth:`update`.
        """
        begun = self._joining if self.updates else self._average
        for parameter in self._trained():
            if parameter not in self._average and parameter not in self._joining:
                begun[parameter] = parameter.detach().clone()
        return [self._joining[one] if one in self._joining else self._average[one] for one in self._trained()]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within this block the model has the averaged weights; after it, its own again."""
        own = {parameter: parameter.detach().clone() for parameter in self._averaged()}
        self.keep()
        try:
            yield
        finally:
            self._set(own)

    def keep(self) -> None:
        """Give the model the averaged weights for good; before the first update it keeps its own."""
        self._set(self._averaged())

    def state_dict(self) -> dict[str, Any]:
        """The average itself, and which of the model's parameters each tensor is of."""
        every = list(self._model.parameters())
        places = [place for place, parameter in enumerate(every) if parameter in self._average]
        return {"updates": self.updates, "tensors": [self._average[every[place]] for place in places], "places": places}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the state of another average, of the same model's weights.

        Raises:
            IndexError: The model has fewer parameters.
            KeyError: Something is missing.
            RuntimeError: A tensor is of another shape.
            ValueError: There are tensors for more or fewer parameters.
        """
        every = list(self._model.parameters())
        # Checkpoints of before parameters could join have those that were trained, in order.
        those = [every[place] for place in state["places"]] if "places" in state else self._trained()
        self.updates, self._joining = int(state["updates"]), {}
        self._average = {
            parameter: parameter.detach().clone().copy_(tensor)
            for parameter, tensor in zip(those, state["tensors"], strict=True)
        }

    @torch.no_grad()
    def _set(self, weights: Mapping[nn.Parameter, Tensor]) -> None:
        if weights:
            torch._foreach_copy_([parameter.detach() for parameter in weights], list(weights.values()))

    def _averaged(self) -> dict[nn.Parameter, Tensor]:
        """The averages that the model may be given."""
        trained = self._trained() if self.updates else []
        return {parameter: self._average[parameter] for parameter in trained if parameter in self._average}

    def _trained(self) -> list[nn.Parameter]:
        return [parameter for parameter in self._model.parameters() if parameter.requires_grad]
