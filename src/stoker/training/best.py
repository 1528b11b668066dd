"""The best weights so far, and whether to go on hoping for better ones."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from stoker.errors import ConfigError

__all__ = ["BestWeights", "Snapshot"]


class Snapshot:
    """A copy of a model's parameters and buffers, taken again and again into the same memory."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._copy: dict[str, Tensor] = {}
        self.take()

    @torch.no_grad()
    def take(self) -> None:
        """Copy the model's state."""
        state = self._model.state_dict()
        for name, tensor in state.items():
            kept = self._copy.get(name)
            if kept is None or kept.shape != tensor.shape or kept.dtype != tensor.dtype or kept.device != tensor.device:
                self._copy[name] = tensor.detach().clone()
            else:
                kept.copy_(tensor)

    @torch.no_grad()
    def restore(self) -> None:
        """Give the model the state that was copied."""
        for name, tensor in self._model.state_dict().items():
            tensor.copy_(self._copy[name])


@dataclass
class BestWeights:
    """Compares epochs by one value.

    Attributes:
        monitor: The column compared; ``None`` means that the latest epoch counts as the best.
        direction: Whether smaller or larger is better.
        min_delta: How much better it must be to count.
        patience: Epochs without an improvement after which to stop; ``None`` means never.
    """

    monitor: str | None
    direction: Literal["min", "max"] = "min"
    min_delta: float = 0.0
    patience: int | None = None
    value: float = field(default=math.nan, init=False)
    epoch: int = field(default=0, init=False)
    waited: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.patience is not None and self.patience < 1:
            raise ConfigError(
                "patience", "must be at least 1 epoch", self.patience, "Leave it out to train to the end."
            )
        if self.patience is not None and self.monitor is None:
            raise ConfigError(
                "patience", "needs a validation split to compare epochs by", "none", "Pass valid= to fit."
            )
        if self.min_delta < 0:
            raise ConfigError("min_delta", "must not be negative", self.min_delta)

    def loss_like(self, row: dict[str, float]) -> float:
        """The monitored value, its sign turned so that smaller is better; without one, the training loss."""
        value = row[self.monitor] if self.monitor is not None else row["train_loss"]
        return value if self.direction == "min" else -value

    def improved(self, row: dict[str, float]) -> bool:
        """Note an epoch's row; whether it is the best so far. NaN never is, unless nothing came before it."""
        if self.monitor is None:
            self.epoch = int(row["epoch"])
            return True
        value = row[self.monitor]
        margin = self.value - value if self.direction == "min" else value - self.value
        if math.isnan(self.value) or (not math.isnan(value) and margin > self.min_delta):
            self.value, self.epoch, self.waited = value, int(row["epoch"]), 0
            return True
        self.waited += 1
        return False

    @property
    def exhausted(self) -> bool:
        """Whether patience has run out."""
        return self.patience is not None and self.waited >= self.patience
