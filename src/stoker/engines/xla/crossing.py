"""Tensors and arrays of the same memory, or of the same numbers, on one device.

On the CPU what a program is given and gives back goes through NumPy, whose calls cost a fifth of torch's and JAX's;
elsewhere through DLPack.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
import torch
import torch.utils.dlpack
from jax import Array
from torch import Tensor

from stoker.engines.xla.device import on
from stoker.engines.xla.dtypes import from_torch

__all__ = ["borrowed", "copied", "overwrite", "same_bits", "to_torch"]

LARGE = 1 << 14  # bytes up to which a copy is compared whole
SAMPLED = 256  # rows that a larger one is compared by


def borrowed(tensors: Iterable[Tensor], before: Iterable[Array] = ()) -> list[Array]:
    """Arrays over the same memory, where its alignment and strides allow that; else copies: for what is only read.

    Args:
        tensors: Whose memory.
        before: Of the same tensors at another time, not written to since by torch. One that still has their numbers is
            returned again.
    """
    pairs = list(itertools.zip_longest(tensors, before))
    hold = [_has(array, tensor) for tensor, array in pairs]
    if all(hold):  # in each epoch but the first, and where there are none
        return [array for _, array in pairs]
    with on(pairs[0][0].device):
        return [
            array if it_holds else jax.dlpack.from_dlpack(tensor.detach().contiguous())
            for (tensor, array), it_holds in zip(pairs, hold, strict=True)
        ]


def _has(array: Array | None, tensor: Tensor) -> bool:
    """Whether an array has a tensor's numbers; of a large copy some hundred rows stand for all."""
    if array is None or array.shape != tensor.shape:
        return False
    if array.unsafe_buffer_pointer() == tensor.data_ptr():
        return True
    every = 1 if tensor.numel() * tensor.element_size() <= LARGE else -(-len(tensor) // SAMPLED)
    return torch.equal(to_torch(array)[::every], tensor.detach()[::every])


def copied(tensors: Iterable[Tensor]) -> list[Any]:
    """Arrays of their own: a program that gives its memory up may overwrite what it was given."""
    return [np.array(from_torch(tensor)) if _by_numpy(tensor) else _cloned(tensor) for tensor in tensors]


def overwrite(tensors: Iterable[Tensor], arrays: Iterable[Array]) -> None:
    """Copy arrays into tensors of the same shapes and dtypes."""
    for tensor, array in zip(tensors, arrays, strict=True):
        if _by_numpy(tensor) and tensor.dtype != torch.bfloat16:  # numpy has none
            np.copyto(tensor.detach().numpy(), np.asarray(array))
            torch.autograd.graph.increment_version(tensor)
        else:
            tensor.detach().copy_(to_torch(array))


def same_bits(tensor: Tensor, array: Any) -> bool:
    """Whether a tensor and an array are the same to the bit: NaN as NaN, and -0 not as 0."""
    if _by_numpy(tensor):
        mine, its = from_torch(tensor), np.asarray(array)
        bits = f"i{mine.itemsize}"
        return np.array_equal(mine.view(bits), its.view(bits))
    whole = _INTEGERS[tensor.element_size()]
    return torch.equal(tensor.detach().contiguous().view(whole), to_torch(array).contiguous().view(whole))


def to_torch(array: Array) -> Tensor:
    """A tensor over an array's memory."""
    tensor: Tensor = torch.utils.dlpack.from_dlpack(array)
    return tensor


_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _by_numpy(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu"


def _cloned(tensor: Tensor) -> Array:
    with on(tensor.device):
        array: Array = jax.dlpack.from_dlpack(tensor.detach().clone(memory_format=torch.contiguous_format))
        return array
