"""The best weights so far, and whether to go on hoping for better ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from stoker.errors import ConfigError

__all__ = ["BestWeights", "Snapshot", "non_finite_parameter"]

SMALL = 8192  # numbers of a tensor up to which one thread is sure to do


class Snapshot:
    """A copy of a model's parameters and buffers, taken again and again into the same memory.

    Of the tensors themselves rather than of the ``state_dict``, which may lack buffers, or hold copies and things that
    are no tensors.

    Args:
        model: The model.
        tensors: What to hold instead of the model's state as it is.
    """

    def __init__(self, model: nn.Module, tensors: Mapping[str, Tensor] | None = None) -> None:
        self._model = model
        self._copy: dict[str, Tensor] = {}
        if tensors is None:
            self.take()
        else:
            self.put(tensors)

    def put(self, tensors: Mapping[str, Tensor]) -> None:
        """Hold these, by name, instead of what was taken."""
        self._copy = {name: tensor.detach().clone() for name, tensor in tensors.items()}

    def besides(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What was taken, without what has the bits of the tensor of its name among ``tensors``."""
        return {
            name: kept
            for name, kept in self._copy.items()
            if name not in tensors or not _same_bits(kept, tensors[name])
        }

    @torch.no_grad()
    def take(self) -> None:
        """Copy the model's state."""
        for name, tensor in _state(self._model):
            kept = self._copy.get(name)
            if kept is not None and _alike(kept, tensor):
                kept.copy_(tensor)
            else:
                self._copy[name] = tensor.detach().clone()

    @torch.no_grad()
    def restore(self) -> None:
        """Give the model the state that was copied; what came into being since then stays as it is."""
        for name, tensor in _state(self._model):
            kept = self._copy.get(name)
            if kept is None:
                continue
            shares_elements = any(stride == 0 for stride in tensor.stride())  # expanded: not to be written to
            if _alike(kept, tensor) and not shares_elements:
                tensor.copy_(kept)
            else:
                tensor.data = kept.clone()


def _state(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and one.device == other.device


def _same_bits(one: Tensor, other: Tensor) -> bool:
    if not _alike(one, other):
        return False
    if not one.is_floating_point():
        return torch.equal(one, other)
    whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[
        one.element_size()
    ]  # numbers would be blind to -0 and NaN
    return torch.equal(one.view(whole), other.detach().view(whole))


@torch.no_grad()
def non_finite_parameter(model: nn.Module) -> str | None:
    """The name of the first trained parameter that holds NaN or infinity, or ``None``."""
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    if _squares_are_finite([parameter.detach() for _, parameter in named]):
        return None
    finite = torch.stack([parameter.isfinite().all() for _, parameter in named])  # one wait for the device
    if bool(finite.all()):
        return None
    return named[finite.tolist().index(False)][0]


def _squares_are_finite(tensors: list[Tensor]) -> bool:
    """Whether the sum of squares of each is finite; of large numbers it may not be where they are."""
    if all(map(_is_small, tensors)):  # this is done after each epoch, and NumPy's calls cost a tenth of torch's
        with np.errstate(all="ignore"):
            return all(math.isfinite(np.vdot(flat, flat)) for flat in (tensor.numpy().ravel() for tensor in tensors))
    return bool(torch.nn.utils.get_total_norm(tensors).isfinite())  # one number to wait for


def _is_small(tensor: Tensor) -> bool:
    plain = tensor.layout is torch.strided and tensor.dtype in (torch.float32, torch.float64)
    return plain and tensor.device.type == "cpu" and tensor.numel() <= SMALL


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

    def monitored(self, row: dict[str, float]) -> float:
        """The value of an epoch's row by which epochs are compared; without one, the training loss."""
        return row[self.monitor if self.monitor is not None else "train_loss"]

    def improved(self, row: dict[str, float]) -> bool:
        """Note an epoch's row; whether it is the best so far: what is not finite is, while nothing finite has been."""
        if self.monitor is None:
            self.epoch = int(row["epoch"])
            return True
        value = row[self.monitor]
        margin = self.value - value if self.direction == "min" else value - self.value
        if math.isfinite(value) and (margin > self.min_delta or not math.isfinite(self.value)):
            self.value, self.epoch, self.waited = value, int(row["epoch"]), 0
            return True
        if not math.isfinite(self.value):
            self.value, self.epoch, self.waited = value, int(row["epoch"]), self.waited + 1
            return True
        self.waited += 1
        return False

    @property
    def exhausted(self) -> bool:
        """Whether patience has run out."""
        return self.patience is not None and self.waited >= self.patience
