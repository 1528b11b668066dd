"""Rows that begin at like places in memory, so that a product of matrices rounds each of them alike.

MKL computes a product with few columns (up to 11 of them were seen) row by row, with sums that are split where a row
crosses a register's boundary. Rows of a number of bytes that is no multiple of a register's begin at another place
each, and the same row then had other last bits in the second place of a block than in the first: measured on an AMD
EPYC with AVX2 for all widths that are no multiple of four, and not on processors with AVX-512.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["align", "aligned_rows", "evenly"]

REGISTER = 16  # bytes


def evenly(x: Tensor) -> Tensor:
    """The same numbers, each row beginning at a multiple of a register's bytes.

    Args:
        x: ``[rows, width]``. One of more dimensions stays as it is: torch copies it into rows of its own.

    Returns:
        ``x`` itself if it lies so already.
    """
    width, size = x.shape[-1], x.element_size()
    lies_so = x.is_contiguous() and (width * size) % REGISTER == 0 and x.data_ptr() % REGISTER == 0
    if lies_so or x.ndim != 2:
        return x
    padded = -(-width * size // REGISTER) * REGISTER // size
    return x.new_empty(len(x), padded)[:, :width].copy_(x)


def align(model: nn.Module) -> list[Any]:
    """Have the inputs of a model's linear layers on the CPU laid out evenly where they would not be.

    Args:
        model: Any.

    Returns:
        Handles, whose ``remove`` puts an end to it.
    """
    return [
        module.register_forward_pre_hook(_evenly)
        for module in model.modules()
        if isinstance(module, nn.Linear)
        and module.weight.device.type == "cpu"
        and module.in_features * module.weight.element_size() % REGISTER
    ]


@contextmanager
def aligned_rows(model: nn.Module) -> Iterator[None]:
    """Within this block the inputs of the model's linear layers are laid out evenly; see :func:`align`."""
    with ExitStack() as handles:
        for handle in align(model):
            handles.callback(handle.remove)
        yield


def _evenly(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
    del module
    if len(args) == 1 and isinstance(args[0], torch.Tensor):
        return (evenly(args[0]),)
    return None
