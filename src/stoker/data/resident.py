"""Batches out of tensors that stay on the device: no per-sample Python, no collating."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from stoker.data.trees import Batch, Tree, leaves, tree_map
from stoker.errors import ConfigError, DataError
from stoker.randomness import generator

__all__ = [
    "GATHER_BYTES",
    "ResidentBatches",
    "check_batch_size",
    "epoch_order",
]

GATHER_BYTES = 4 << 20  # what one gather may copy: large enough to amortise its call, small enough to stay in cache


def epoch_order(rows: int, seed: int, epoch: int) -> Tensor:
    """The shuffled order of one epoch: int64, shape ``[rows]``, a function of its arguments alone."""
    return torch.randperm(rows, generator=generator(seed, "shuffle", epoch))


class ResidentBatches:
    """Batches out of tensors that stay on the device.

    Args:
        inputs: A tensor, a tuple or a dict of tensors, first dimension ``rows``.
        targets: Likewise, or ``None`` (for prediction).
        batch_size: Rows of a batch; ``None`` means all rows in one. The last, smaller batch is kept.
        shuffle: Whether each epoch has an order of its own; else it is the order of the rows.
        seed: Seeds the orders.
        device: Where the tensors shall live.

    Raises:
        ConfigError: ``batch_size`` is below 1.
        DataError: There are no rows, or the tensors disagree about how many there are.
    """

    def __init__(
        self,
        inputs: Tree,
        targets: Tree | None = None,
        *,
        batch_size: int | None = 32,
        shuffle: bool = False,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        rows = _common_rows(inputs, targets)
        check_batch_size(batch_size)
        device = torch.device(device)
        # Detached: all batches of a gather would share the graph that the data came from, and the first frees it.
        self.inputs: Tree = tree_map(lambda leaf: leaf.detach().to(device), inputs)
        self.targets: Tree | None = tree_map(lambda leaf: leaf.detach().to(device), targets)
        self.shuffle = shuffle
        self.seed = seed
        self.device = device
        self._rows = rows
        self._batch_size = rows if batch_size is None else min(batch_size, rows)

    @property
    def rows(self) -> int:
        return self._rows

    @property
    def batch_size(self) -> int:
        return self._batch_size

    def __len__(self) -> int:
        return -(-self._rows // self._batch_size)

    def to(self, device: torch.device | str) -> ResidentBatches:
        """The same batches on another device; themselves if they are there."""
        if torch.device(device) == self.device:
            return self
        return ResidentBatches(
            self.inputs,
            self.targets,
            batch_size=self._batch_size,
            shuffle=self.shuffle,
            seed=self.seed,
            device=device,
        )

    def order(self, epoch: int) -> Tensor:
        """The row indices of an epoch, int64, shape ``[rows]``, on the CPU."""
        return epoch_order(self._rows, self.seed, epoch) if self.shuffle else torch.arange(self._rows)

    def epoch(self, number: int) -> Iterator[Batch]:
        size = self._batch_size
        order = self.order(number).to(self.device) if self.shuffle else None
        # Many batches are gathered at once and then cut into views: a gather costs more to call than to carry out.
        for start in range(0, self._rows, self._gather_rows):
            stop = min(start + self._gather_rows, self._rows)
            inputs, targets = self._gather(order, start, stop)
            for first in range(0, stop - start, size):
                last = min(first + size, stop - start)
                yield _slice(inputs, first, last), _slice(targets, first, last)

    @property
    def _gather_rows(self) -> int:
        tensors = (*leaves(self.inputs), *leaves(self.targets))
        row_bytes = max(1, sum(leaf.element_size() * leaf[0].numel() for leaf in tensors))
        return max(1, GATHER_BYTES // row_bytes // self._batch_size) * self._batch_size

    def _gather(self, order: Tensor | None, start: int, stop: int) -> Batch:
        if order is None:
            # Copies, as a DataLoader's batches are: a model that works in place must not change the data themselves.
            inputs = tree_map(lambda leaf: leaf[start:stop].clone(), self.inputs)
            return inputs, tree_map(lambda leaf: leaf[start:stop].clone(), self.targets)
        chosen = order[start:stop]
        inputs = tree_map(lambda leaf: leaf.index_select(0, chosen), self.inputs)
        targets = tree_map(lambda leaf: leaf.index_select(0, chosen), self.targets)
        return inputs, targets


def check_batch_size(batch_size: object) -> None:
    """Raise ConfigError unless it is a whole number from 1 on, or ``None``."""
    if batch_size is not None and not (isinstance(batch_size, Integral) and int(batch_size) >= 1):
        raise ConfigError(
            "batch_size", "must be a whole number from 1 on", repr(batch_size), "Use None for all rows in one batch."
        )


def _common_rows(inputs: Any, targets: Any) -> int:
    tensors = [("inputs", leaf) for leaf in leaves(inputs)] + [("targets", leaf) for leaf in leaves(targets)]
    if not tensors or any(leaf.ndim == 0 for _, leaf in tensors):
        raise DataError("data", "inputs and targets must be tensors with a first dimension of rows", _shapes(tensors))
    counts = {int(leaf.shape[0]) for _, leaf in tensors}
    if len(counts) > 1:
        raise DataError("data", "inputs and targets must have the same number of rows", _shapes(tensors))
    if counts == {0}:
        raise DataError("data", "must have at least one row", _shapes(tensors), "Check the filter that made it.")
    return counts.pop()


def _shapes(tensors: list[tuple[str, Tensor]]) -> str:
    return ", ".join(f"{what} {list(leaf.shape)}" for what, leaf in tensors) or "no tensors"


def _slice(tree: Any, first: int, last: int) -> Any:
    return tree_map(lambda leaf: leaf[first:last], tree)
