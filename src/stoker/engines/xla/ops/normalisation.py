"""Softmax and the normalisations over features; batch norm comes as arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array, lax

from stoker.engines.xla.dtypes import cast_to, widened
from stoker.engines.xla.table import lowering

__all__: list[str] = []


@lowering("_softmax.default")
def _softmax(x: Array, dim: int, half_to_float: bool) -> Array:
    shifted, axis = _shifted(x, dim)
    exps = jnp.exp(shifted)
    softmax = exps / jnp.sum(exps, axis, keepdims=True)
    return softmax if half_to_float else cast_to(softmax, x.dtype)


@lowering("_log_softmax.default")
def _log_softmax(x: Array, dim: int, half_to_float: bool) -> Array:
    shifted, axis = _shifted(x, dim)
    log_softmax = shifted - jnp.log(jnp.sum(jnp.exp(shifted), axis, keepdims=True))
    return log_softmax if half_to_float else cast_to(log_softmax, x.dtype)


def _shifted(x: Array, dim: int) -> tuple[Array, tuple[int, ...]]:
    """So that the highest along a dimension is 0 and its exponential cannot overflow."""
    x, axis = widened(x), (dim % x.ndim,) if x.ndim else ()
    return x - jnp.max(x, axis, keepdims=True, initial=-jnp.inf), axis


@lowering("native_layer_norm.default")
def _layer_norm(
    x: Array, normalized_shape: Sequence[int], weight: Array | None, bias: Array | None, eps: float
) -> tuple[Array, Array, Array]:
    """Over the last dimensions: the result, and of each the mean and the reciprocal of the deviation."""
    over = tuple(range(x.ndim - len(normalized_shape), x.ndim))
    normed, mean, rstd = _normed(widened(x), over, eps)
    normed = normed if weight is None else normed * weight
    normed = normed if bias is None else normed + bias
    return cast_to(normed, x.dtype), cast_to(mean, x.dtype), cast_to(rstd, x.dtype)


@lowering("native_group_norm.default")
def _group_norm(
    x: Array, weight: Array | None, bias: Array | None, N: int, C: int, HxW: int, group: int, eps: float
) -> tuple[Array, Array, Array]:
    """Over each group of channels and all places: the result, and of each group the mean and 1 / deviation."""
    normed, mean, rstd = _normed(widened(x).reshape(N, group, C // group * HxW), (2,), eps)
    normed = normed.reshape(x.shape)
    per_channel = (1, C) + (1,) * (x.ndim - 2)
    normed = normed if weight is None else normed * weight.reshape(per_channel)
    normed = normed if bias is None else normed + bias.reshape(per_channel)
    statistics = [cast_to(value.reshape(N, group), x.dtype) for value in (mean, rstd)]
    return cast_to(normed, x.dtype), statistics[0], statistics[1]


def _normed(x: Array, over: tuple[int, ...], eps: float) -> tuple[Array, Array, Array]:
    count = max(math.prod(x.shape[axis] for axis in over), 1)
    mean = jnp.sum(x, over, keepdims=True) / count
    centred = x - mean
    rstd = lax.rsqrt(jnp.sum(lax.square(centred), over, keepdims=True) / count + eps)
    return centred * rstd, mean, rstd
