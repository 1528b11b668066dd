"""Predictions in blocks of a fixed number of rows: a row's numbers are the same whatever is predicted beside it.

A product of matrices takes another path through its library for another number of rows, and its sums then round
differently in the last bits: a row alone, and the same row among a thousand, were measured to differ on the CPU in most
networks. With one number of rows, and rows that begin at like places in memory (:mod:`stoker.jobs.alignment`), a row's
outputs depended neither on its place nor on what filled the other places. So the last block is filled up with copies of
its first row, and what they give is dropped.

A server asks again and again: for it what a call makes ready is made ready once (:class:`ReadyModel`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from stoker.data.trees import Batch, call_model, tree_map
from stoker.jobs.alignment import align, aligned_rows
from stoker.training import evaluation
from stoker.training.device import deterministic_algorithms
from stoker.training.memory import naming_batch_size
from stoker.training.trainer import Trainer

__all__ = ["Blocks", "ReadyModel", "block_rows", "predict_in_blocks"]

Tensors = dict[str, Tensor]

# Few enough that a row alone does not wait long, enough to keep a processor busy; elsewhere calls cost more than rows.
_TABLE_ROWS, _IMAGES, _ELSEWHERE = 32, 8, 8


def block_rows(kind: str, device: torch.device) -> int:
    """How many rows a block has: a constant for each kind of inputs and of device."""
    rows = _IMAGES if kind == "images" else _TABLE_ROWS
    return rows if device.type == "cpu" else rows * _ELSEWHERE


class Blocks:
    """Batches, all of one size, of some inputs.

    Args:
        inputs: Tensors by name, of ``n`` rows each, at least one.
        rows: Of a block.
        device: Where the blocks shall be.
    """

    def __init__(self, inputs: Tensors, rows: int, device: torch.device) -> None:
        self._inputs = inputs
        self._device = device
        self.n = len(next(iter(inputs.values())))
        self.rows = -(-self.n // rows) * rows
        self.batch_size = rows

    def __len__(self) -> int:
        return self.rows // self.batch_size

    def epoch(self, number: int) -> Iterator[Batch]:  # noqa: ARG002  # the same in every epoch
        for start in range(0, self.n, self.batch_size):
            yield {name: self._block(values, start) for name, values in self._inputs.items()}, None

    def _block(self, values: Tensor, start: int) -> Tensor:
        # A copy: a model that works in place must not change what the caller has.
        there = values[start : start + self.batch_size]
        if len(there) == 1:  # as most requests are
            return there.repeat(self.batch_size, *[1] * (there.ndim - 1)).to(self._device)
        block = values.new_empty(self.batch_size, *values.shape[1:])
        block[: len(there)] = there
        block[len(there) :] = there[0]
        return block.to(self._device)


def predict_in_blocks(trainer: Trainer, inputs: Tensors, rows: int) -> Any:
    """The model's outputs for all rows, as :meth:`Trainer.predict` gives them, computed in blocks.

    Args:
        trainer: It has the model.
        inputs: As the model takes them, ``n`` rows.
        rows: Of a block.

    Returns:
        What the model returns, first dimension ``n``, on the CPU.

    Raises:
        InputTypeError: An output has another first dimension, or is not a tensor.
        OutOfMemoryError: A block does not fit.
    """
    blocks = Blocks(inputs, rows, trainer.device)
    settings = deterministic_algorithms(trainer.deterministic)
    with naming_batch_size("predict", rows), settings, aligned_rows(trainer.model):
        outputs = evaluation.predict(trainer.model, blocks, device=trainer.device, autocast=trainer.autocast)
    return tree_map(lambda leaf: leaf[: blocks.n], outputs)


class ReadyModel:
    """:func:`predict_in_blocks` for who asks again and again: the same bits, sooner.

    The model is put into evaluation mode, and stays there, with its linear layers' inputs laid out evenly. It must be
    one that takes these inputs and draws no random numbers when it evaluates, as all of Stoker's own: neither is looked
    at, and no generator is put back.

    Args:
        trainer: It has the model; without autocast.
        rows: Of a block.
    """

    def __init__(self, trainer: Trainer, rows: int) -> None:
        self._model = trainer.model.eval()
        align(self._model)
        self._device = trainer.device
        self._deterministic = trainer.deterministic
        self._rows = rows

    def __call__(self, inputs: Tensors) -> Tensor:
        """``n`` rows, as the model takes them → its outputs for each, ``[n, outputs]``, on the CPU.

        Raises:
            OutOfMemoryError: A block does not fit.
        """
        blocks = Blocks(inputs, self._rows, self._device)
        with naming_batch_size("predict", self._rows), deterministic_algorithms(self._deterministic), torch.no_grad():
            parts = [call_model(self._model, block).cpu() for block, _ in blocks.epoch(0)]
        outputs: Tensor = parts[0] if len(parts) == 1 else torch.cat(parts)
        return outputs[: blocks.n]
