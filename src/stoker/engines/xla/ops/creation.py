"""Operators that make tensors of given values; what torch leaves uninitialised is zero."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
import torch
from jax import Array

from stoker.engines.xla.dtypes import Number, cast, jax_dtype, torch_dtype
from stoker.engines.xla.table import lowering

__all__: list[str] = []


@lowering("full.default")
def _full(size: Sequence[int], fill_value: Number | Array, *, dtype: torch.dtype | None = None) -> Array:
    return jnp.broadcast_to(cast(fill_value, dtype or torch_dtype(fill_value)), tuple(size))


@lowering("full_like.default")
def _full_like(x: Array, fill_value: Number | Array, *, dtype: torch.dtype | None = None) -> Array:
    return jnp.broadcast_to(cast(fill_value, dtype or torch_dtype(x)), x.shape)


@lowering("empty.memory_format")
def _empty(size: Sequence[int], *, dtype: torch.dtype | None = None) -> Array:
    return jnp.zeros(tuple(size), jax_dtype(dtype or torch.get_default_dtype()))


@lowering("empty_permuted.default", "empty_strided.default")
def _empty_strided(size: Sequence[int], strides: Sequence[int], *, dtype: torch.dtype | None = None) -> Array:
    del strides
    return _empty(size, dtype=dtype)


@lowering("new_empty_strided.default")
def _new_empty_strided(
    x: Array, size: Sequence[int], strides: Sequence[int], *, dtype: torch.dtype | None = None
) -> Array:
    return _empty_strided(size, strides, dtype=dtype or torch_dtype(x))


@lowering("scalar_tensor.default")
def _scalar_tensor(value: Number | Array, *, dtype: torch.dtype | None = None) -> Array:
    return cast(value, dtype or torch.get_default_dtype())


@lowering("arange.start_step")
def _arange(start: Number, end: Number, step: Number = 1, *, dtype: torch.dtype | None = None) -> Array:
    whole = all(isinstance(n, int) for n in (start, end, step))
    dtype = dtype or (torch.int64 if whole else torch.get_default_dtype())
    if dtype == torch.int64:
        start, end, step = int(start), int(end), int(step)
    size = int(np.ceil((end - start) / step))
    counted = np.asarray(start) + np.arange(size) * np.asarray(step)
    return jnp.asarray(counted.astype(jax_dtype(dtype)))
