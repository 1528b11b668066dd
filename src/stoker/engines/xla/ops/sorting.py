"""Sorting, and what follows from an order."""

from __future__ import annotations

import jax.numpy as jnp
import torch
from jax import Array

from stoker.engines.xla.dtypes import cast, jax_dtype, torch_dtype
from stoker.engines.xla.table import lowering

__all__: list[str] = []


@lowering("sort.default", "sort.stable")
def _sort(x: Array, dim: int = -1, descending: bool = False, *, stable: bool | None = True) -> tuple[Array, Array]:
    del stable  # it always is
    if x.ndim == 0:
        return x, jnp.zeros((), jax_dtype(torch.int64))
    keys = cast(x, torch.uint8) if torch_dtype(x) == torch.bool else x
    order = jnp.argsort(keys, axis=dim, stable=True, descending=descending).astype(jax_dtype(torch.int64))
    return jnp.take_along_axis(x, order, dim, mode="promise_in_bounds"), order


@lowering("topk.default")
def _topk(
    x: Array,
    k: int,
    dim: int = -1,
    largest: bool = True,
    sorted: bool = True,  # noqa: A002 (torch's name)
) -> tuple[Array, Array]:
    del sorted  # it always is
    values, order = _sort(x, dim, largest)
    if x.ndim == 0:
        return values, order
    axis = dim % x.ndim
    kept = tuple(slice(k) if i == axis else slice(None) for i in range(x.ndim))
    return values[kept], order[kept]


@lowering("median.dim")
def _median(x: Array, dim: int, keepdim: bool = False) -> tuple[Array, Array]:
    """The lower of the two middle values; NaN, of which the first counts, if there is one."""
    if x.ndim == 0:
        return x, jnp.zeros((), jax_dtype(torch.int64))
    values, order = _sort(x, dim)
    axis = dim % x.ndim
    middle = jnp.asarray((x.shape[axis] - 1) // 2)
    if torch_dtype(x).is_floating_point:
        nans = jnp.sum(jnp.isnan(x), axis, keepdims=True)
        middle = jnp.where(nans > 0, x.shape[axis] - nans, middle)
    place = jnp.broadcast_to(middle, tuple(1 if i == axis else n for i, n in enumerate(x.shape)))
    found = [jnp.take_along_axis(a, place, axis, mode="promise_in_bounds") for a in (values, order)]
    return tuple(a if keepdim else jnp.squeeze(a, axis) for a in found)  # type: ignore[return-value]


@lowering("median.default")
def _median_of_all(x: Array) -> Array:
    return _median(x.reshape(-1), 0)[0]
