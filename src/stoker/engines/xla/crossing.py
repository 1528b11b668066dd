"""Tensors and arrays of the same memory, or of the same numbers, on the CPU or on a GPU."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
import torch
import torch.utils.dlpack
from jax import Array
from torch import Tensor

from stoker.engines.xla.dtypes import from_torch

__all__ = ["borrowed", "copied", "jax_device", "to_torch"]


def jax_device(device: torch.device) -> Any | None:
    """The device by JAX's name; ``None`` if JAX has none there. Nothing of CUDA is touched for a CPU."""
    if device.type not in ("cpu", "cuda"):
        return None
    try:
        found = jax.local_devices(backend=device.type)
    except RuntimeError:  # JAX was installed without it
        return None
    place = device.index or 0
    return found[place] if place < len(found) else None


def borrowed(tensors: Iterable[Tensor]) -> list[Array]:
    """Arrays over the same memory, where its alignment allows that: for what is only read."""
    with jax.enable_x64(True):
        return [jax.dlpack.from_dlpack(tensor.detach().contiguous()) for tensor in tensors]


def copied(tensors: Iterable[Tensor], device: torch.device) -> list[Any]:
    """Arrays of their own: a program that gives its memory up may overwrite what it was given."""
    if device.type == "cpu":
        return [np.array(from_torch(tensor)) for tensor in tensors]
    return borrowed(tensor.detach().clone(memory_format=torch.contiguous_format) for tensor in tensors)


def to_torch(array: Array) -> Tensor:
    """A tensor over an array's memory."""
    tensor: Tensor = torch.utils.dlpack.from_dlpack(array)
    return tensor
