"""Reading and writing at places that are themselves values.

torch demands that they are in range. The lowerings take it for granted, and give anything where it is not so, which is
told besides (:func:`stoker.engines.xla.table.faults`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import torch
from jax import Array, lax

from stoker.engines.xla.dtypes import Number, cast, jax_dtype, torch_dtype
from stoker.engines.xla.table import Faults, faults, lowering
from stoker.errors import LoweringError

__all__: list[str] = []

IN_BOUNDS: Any = "promise_in_bounds"  # which spares the program a check of each index

Indices = Sequence[Array | None]


def _outside(index: Array, size: int, *, wraps: bool = False) -> Array:
    """Where an index is none of ``size`` places, counted from the end too if it ``wraps``."""
    return (index < (-size if wraps else 0)) | (index >= size)


@faults("index.Tensor", "index_put.default")
def _outside_by_dimension(x: Array, indices: Indices, *_: Any, **__: Any) -> Faults:
    numbers = [(index, size) for index, size in zip(indices, x.shape, strict=False) if index is not None]
    return [_outside(index, size, wraps=True) for index, size in numbers if not _is_mask(index)]


@faults(
    "index_select.default",
    "gather.default",
    "scatter.src",
    "scatter.value",
    "scatter_add.default",
    "scatter.reduce",
    "scatter.value_reduce",
    "scatter_reduce.two",
)
def _outside_along(x: Array, dim: int, index: Array, *_: Any, **__: Any) -> Faults:
    return [_outside(index, x.shape[dim] if x.ndim else 1)]


@faults("embedding.default")
def _outside_of_rows(weight: Array, indices: Array, *_: Any, **__: Any) -> Faults:
    return [_outside(indices, weight.shape[0])]


@lowering("index.Tensor")
def _index(x: Array, indices: Indices) -> Array:
    if any(_is_mask(index) for index in indices):
        fix = "Use torch.where, or multiply by the mask."
        raise LoweringError("aten.index.Tensor", "must give a size known beforehand", "a mask that selects", fix)
    return x.at[_numpy_index(indices)].get(mode=IN_BOUNDS)


@lowering("index_put.default")
def _index_put(x: Array, indices: Indices, values: Array, accumulate: bool = False) -> Array:
    values = cast(values, torch_dtype(x))
    if any(_is_mask(index) for index in indices):
        return _put_where(x, indices, values, accumulate)
    return _written(x, _numpy_index(indices), values, "add" if accumulate else "set")


def _put_where(x: Array, indices: Indices, values: Array, accumulate: bool) -> Array:
    """``x[mask] = number``."""
    mask, *others = indices
    if mask is None or others or values.size != 1:
        fix = "Use torch.where."
        raise LoweringError("aten.index_put", "must write one number where a mask says so", "more than that", fix)
    mask = mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim)) != 0
    number = values.reshape(())
    return jnp.where(mask, x + number if accumulate else number, x)


def _is_mask(index: Array | None) -> bool:
    return index is not None and torch_dtype(index) in (torch.bool, torch.uint8)


def _numpy_index(indices: Indices) -> tuple[Any, ...]:
    return tuple(slice(None) if index is None else index for index in indices)


@lowering("index_select.default")
def _index_select(x: Array, dim: int, index: Array) -> Array:
    index = index.reshape(-1)
    if x.ndim == 0:
        return x
    return x.at[(*[slice(None)] * (dim % x.ndim), index)].get(mode=IN_BOUNDS, wrap_negative_indices=False)


@lowering("gather.default")
def _gather(x: Array, dim: int, index: Array, *, sparse_grad: bool = False) -> Array:
    """``out[i][j] = x[index[i][j]][j]`` for ``dim`` 0; the index may be the smaller one in the other dimensions."""
    del sparse_grad
    if index.size == 0:
        return jnp.zeros(index.shape, x.dtype)
    grid = _grid(x, dim, index)
    found = x.reshape(x.shape or (1,)).at[grid].get(mode=IN_BOUNDS, wrap_negative_indices=False)
    return found.reshape(index.shape)


def _grid(x: Array, dim: int, index: Array) -> tuple[Array, ...]:
    """A full index: the given one along ``dim``, each element's own place along the others."""
    index = index.reshape(index.shape or (1,))
    axis = dim % max(x.ndim, 1)
    own = [lax.broadcasted_iota(index.dtype, index.shape, i) for i in range(index.ndim)]
    return tuple(index if i == axis else places for i, places in enumerate(own))


@lowering("scatter.src", "scatter.value")
def _scatter(x: Array, dim: int, index: Array, src: Array | Number) -> Array:
    """``x`` with ``x[index[i][j]][j] = src[i][j]`` for ``dim`` 0."""
    return _scattered(x, dim, index, src, "set")


@lowering("scatter_add.default")
def _scatter_add(x: Array, dim: int, index: Array, src: Array) -> Array:
    return _scattered(x, dim, index, src, "add")


@lowering("scatter.reduce", "scatter.value_reduce")
def _scatter_with(x: Array, dim: int, index: Array, src: Array | Number, *, reduce: str) -> Array:
    return _scattered(x, dim, index, src, {"add": "add", "multiply": "multiply"}[reduce])


@lowering("scatter_reduce.two")
def _scatter_reduce(x: Array, dim: int, index: Array, src: Array, reduce: str, *, include_self: bool = True) -> Array:
    """Several values for one place become their sum, product, mean or extreme, with what was there or without."""
    start = x
    if not include_self:
        start = _scattered(x, dim, index, _neutral(reduce, torch_dtype(x)), "set")
    if reduce != "mean":
        method = {"sum": "add", "prod": "multiply", "amax": "max", "amin": "min"}[reduce]
        return _scattered(start, dim, index, src, method)
    total = _scattered(start, dim, index, src, "add")
    count = _scattered(jnp.full(x.shape, int(include_self), jax_dtype(torch.int64)), dim, index, 1, "add")
    count = jnp.maximum(count, 1)
    return total / count.astype(x.dtype) if torch_dtype(x).is_floating_point else total // count.astype(x.dtype)


def _neutral(reduce: str, dtype: torch.dtype) -> Number:
    if reduce in ("sum", "mean"):
        return 0
    if reduce == "prod":
        return 1
    if dtype == torch.bool:
        return reduce == "amin"
    if dtype.is_floating_point:
        return float("-inf") if reduce == "amax" else float("inf")
    return torch.iinfo(dtype).min if reduce == "amax" else torch.iinfo(dtype).max


def _scattered(x: Array, dim: int, index: Array, src: Array | Number, method: str) -> Array:
    if index.size == 0:
        return x
    src = cast(src, torch_dtype(x))
    index = index.reshape(index.shape or (1,))
    if src.ndim:
        src = src[tuple(slice(n) for n in index.shape)]
    return _written(x.reshape(x.shape or (1,)), _grid(x, dim, index), src, method).reshape(x.shape)


def _written(x: Array, places: tuple[Any, ...], values: Array, method: str) -> Array:
    """``values`` set at places, or added to, multiplied with, compared with what is there."""
    if torch_dtype(x) == torch.bool:
        method = {"add": "max", "multiply": "min"}.get(method, method)
    return getattr(x.at[places], method)(values, mode=IN_BOUNDS)  # type: ignore[no-any-return]


@lowering("embedding.default")
def _embedding(
    weight: Array, indices: Array, padding_idx: int = -1, scale_grad_by_freq: bool = False, sparse: bool = False
) -> Array:
    del padding_idx, scale_grad_by_freq, sparse  # they say how the gradient is made
    return weight.at[indices].get(mode=IN_BOUNDS, wrap_negative_indices=False)


@lowering("embedding_dense_backward.default")
def _embedding_backward(
    grad: Array, indices: Array, num_weights: int, padding_idx: int, scale_grad_by_freq: bool
) -> Array:
    """The gradient of a row is the sum, or with ``scale_grad_by_freq`` the mean, of those where it was used."""
    if scale_grad_by_freq:
        counts = jnp.zeros(num_weights, grad.dtype).at[indices].add(1, mode=IN_BOUNDS)
        grad = grad / counts[indices][..., None]
    if padding_idx >= 0:
        grad = jnp.where((indices == padding_idx)[..., None], jnp.zeros((), grad.dtype), grad)
    return jnp.zeros((num_weights, grad.shape[-1]), grad.dtype).at[indices].add(grad, mode=IN_BOUNDS)


@lowering("bucketize.Tensor")
def _bucketize(x: Array, boundaries: Array, *, out_int32: bool = False, right: bool = False) -> Array:
    found = jnp.searchsorted(boundaries, x, side="right" if right else "left")
    return cast(found, torch.int32 if out_int32 else torch.int64)
