"""Sums, means, extremes and running totals over dimensions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import torch
from jax import Array, lax

from stoker.engines.xla.dtypes import Number, cast, cast_to, jax_dtype, torch_dtype, widened
from stoker.engines.xla.table import lowering

__all__ = ["axes"]

Dims = Sequence[int] | int | None


def axes(x: Array, dims: Dims) -> tuple[int, ...]:
    """The dimensions that torch reduces over: all of them for ``None`` and ``[]``; from 0, a 0-d tensor having none."""
    if dims is None or (not isinstance(dims, int) and not dims):
        return tuple(range(x.ndim))
    dims = (dims,) if isinstance(dims, int) else dims
    return tuple(dim % x.ndim for dim in dims) if x.ndim else ()


def _summable(x: Array, dtype: torch.dtype | None) -> Array:
    """In the dtype of the sum: integers and bools add up as int64."""
    if dtype is None and not torch_dtype(x).is_floating_point:
        dtype = torch.int64
    return x if dtype is None else cast(x, dtype)


@lowering("sum.dim_IntList")
def _sum(x: Array, dim: Dims, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Array:
    x = _summable(x, dtype)
    return jnp.sum(x, axes(x, dim), keepdims=keepdim, dtype=x.dtype)


@lowering("mean.dim")
def _mean(x: Array, dim: Dims, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Array:
    x = _summable(x, dtype)
    return jnp.mean(x, axes(x, dim), keepdims=keepdim)


@lowering("mean.default")
def _mean_of_all(x: Array, *, dtype: torch.dtype | None = None) -> Array:
    return _mean(x, None, dtype=dtype)


@lowering("prod.default")
def _prod_of_all(x: Array, *, dtype: torch.dtype | None = None) -> Array:
    x = _summable(x, dtype)
    return jnp.prod(x, dtype=x.dtype)


@lowering("prod.dim_int")
def _prod(x: Array, dim: int, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Array:
    x = _summable(x, dtype)
    return jnp.prod(x, axes(x, dim), keepdims=keepdim, dtype=x.dtype)


@lowering("var.correction")
def _var(x: Array, dim: Dims = None, *, correction: Number | None = None, keepdim: bool = False) -> Array:
    return _var_mean(x, dim, correction=correction, keepdim=keepdim)[0]


@lowering("var_mean.correction")
def _var_mean(
    x: Array, dim: Dims = None, *, correction: Number | None = None, keepdim: bool = False
) -> tuple[Array, Array]:
    over = axes(x, dim)
    mean = jnp.mean(x, over, keepdims=True)
    count = 1
    for axis in over:
        count *= x.shape[axis]
    freedom = jnp.asarray(max(count - (1 if correction is None else correction), 0), x.dtype)
    squares = jnp.sum(lax.square(x - mean), over, keepdims=True)
    variance = squares / freedom
    return (variance, mean) if keepdim else (jnp.squeeze(variance, over), jnp.squeeze(mean, over))


@lowering("linalg_vector_norm.default")
def _vector_norm(
    x: Array, order: Number = 2, dim: Dims = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Array:
    x = x if dtype is None else cast(x, dtype)
    over = axes(x, dim)
    if order == 0:
        return jnp.sum(x != 0, over, keepdims=keepdim).astype(x.dtype)
    x = jnp.abs(x)
    if order == float("inf"):
        return jnp.max(x, over, keepdims=keepdim, initial=0)
    if order == float("-inf"):
        return jnp.min(x, over, keepdims=keepdim)
    if order == 1:
        return jnp.sum(x, over, keepdims=keepdim)
    if order == 2:
        return jnp.sqrt(jnp.sum(lax.square(x), over, keepdims=keepdim))
    return jnp.power(jnp.sum(jnp.power(x, order), over, keepdims=keepdim), 1 / order)


@lowering("any.default", "any.dim", "any.dims")
def _any(x: Array, dim: Dims = None, keepdim: bool = False) -> Array:
    found = jnp.any(x != 0, axes(x, dim), keepdims=keepdim)
    return cast(found, torch.uint8) if torch_dtype(x) == torch.uint8 else found


@lowering("amax.default")
def _amax(x: Array, dim: Dims = (), keepdim: bool = False) -> Array:
    return jnp.max(x, axes(x, dim), keepdims=keepdim)


@lowering("amin.default")
def _amin(x: Array, dim: Dims = (), keepdim: bool = False) -> Array:
    return jnp.min(x, axes(x, dim), keepdims=keepdim)


@lowering("max.default")
def _max_of_all(x: Array) -> Array:
    return jnp.max(x)


@lowering("min.default")
def _min_of_all(x: Array) -> Array:
    return jnp.min(x)


@lowering("argmax.default")
def _argmax(x: Array, dim: int | None = None, keepdim: bool = False) -> Array:
    return _arg(jnp.argmax, x, dim, keepdim)


@lowering("argmin.default")
def _argmin(x: Array, dim: int | None = None, keepdim: bool = False) -> Array:
    return _arg(jnp.argmin, x, dim, keepdim)


def _arg(function: Callable[..., Array], x: Array, dim: int | None, keepdim: bool) -> Array:
    """The first place of an extreme value, or of NaN if there is one."""
    x = cast(x, torch.uint8) if torch_dtype(x) == torch.bool else x
    if x.ndim == 0:
        return jnp.zeros((), jax_dtype(torch.int64))
    return function(x, dim, keepdims=keepdim).astype(jax_dtype(torch.int64))


@lowering("max.dim")
def _max(x: Array, dim: int, keepdim: bool = False) -> tuple[Array, Array]:
    return _amax(x, dim, keepdim), _argmax(x, dim, keepdim)


@lowering("min.dim")
def _min(x: Array, dim: int, keepdim: bool = False) -> tuple[Array, Array]:
    return _amin(x, dim, keepdim), _argmin(x, dim, keepdim)


@lowering("cumsum.default")
def _cumsum(x: Array, dim: int, *, dtype: torch.dtype | None = None) -> Array:
    x = _summable(x, dtype)
    return cast_to(jnp.cumsum(widened(x), dim), x.dtype) if x.ndim else x


@lowering("cumprod.default")
def _cumprod(x: Array, dim: int, *, dtype: torch.dtype | None = None) -> Array:
    x = _summable(x, dtype)
    return cast_to(jnp.cumprod(widened(x), dim), x.dtype) if x.ndim else x


@lowering("logcumsumexp.default")
def _logcumsumexp(x: Array, dim: int) -> Array:
    return lax.cumlogsumexp(x, dim % x.ndim) if x.ndim else x


@lowering("cummax.default")
def _cummax(x: Array, dim: int) -> tuple[Array, Array]:
    return _running(x, dim, lambda old, new: (new >= old) | _is_nan(new))


@lowering("cummin.default")
def _cummin(x: Array, dim: int) -> tuple[Array, Array]:
    return _running(x, dim, lambda old, new: (new <= old) | _is_nan(new))


def _running(x: Array, dim: int, takes_over: Callable[[Array, Array], Array]) -> tuple[Array, Array]:
    """A running extreme, and the last place where it was taken over."""
    if x.ndim == 0 or x.size == 0:
        return x, jnp.zeros(x.shape, jax_dtype(torch.int64))
    axis = dim % x.ndim
    places = lax.broadcasted_iota(jax_dtype(torch.int64), x.shape, axis)

    def later(old: tuple[Array, Array], new: tuple[Array, Array]) -> tuple[Array, Array]:
        take = takes_over(old[0], new[0]) & ~(_is_nan(old[0]) & ~_is_nan(new[0]))
        return jnp.where(take, new[0], old[0]), jnp.where(take, new[1], old[1])

    running: tuple[Array, Array] = lax.associative_scan(later, (x, places), axis=axis)
    return running


def _is_nan(x: Array) -> Array:
    return x != x
