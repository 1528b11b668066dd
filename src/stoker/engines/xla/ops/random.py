"""Operators that draw random numbers, each with a key of its own: torch's distributions, not its bits."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import torch
from jax import Array

from stoker.engines.xla.dtypes import Number, cast, jax_dtype, result_dtype, torch_dtype
from stoker.engines.xla.table import random_lowering

__all__: list[str] = []


def _dtype(dtype: torch.dtype | None, like: Array | None = None) -> torch.dtype:
    if dtype is not None:
        return dtype
    return torch.get_default_dtype() if like is None else torch_dtype(like)


@random_lowering("bernoulli.p")
def _bernoulli(x: Array, p: Number | Array = 0.5, *, key: Array) -> Array:
    return cast(jax.random.bernoulli(key, p, x.shape), torch_dtype(x))


@random_lowering("rand.default")
def _rand(size: Sequence[int], *, dtype: torch.dtype | None = None, key: Array) -> Array:
    return jax.random.uniform(key, tuple(size), jax_dtype(_dtype(dtype)))


@random_lowering("rand_like.default")
def _rand_like(x: Array, *, dtype: torch.dtype | None = None, key: Array) -> Array:
    return _rand(x.shape, dtype=_dtype(dtype, x), key=key)


@random_lowering("randn.default")
def _randn(size: Sequence[int], *, dtype: torch.dtype | None = None, key: Array) -> Array:
    return jax.random.normal(key, tuple(size), jax_dtype(_dtype(dtype)))


@random_lowering("randn_like.default")
def _randn_like(x: Array, *, dtype: torch.dtype | None = None, key: Array) -> Array:
    return _randn(x.shape, dtype=_dtype(dtype, x), key=key)


@random_lowering("uniform.default")
def _uniform(x: Array, low: Number = 0.0, high: Number = 1.0, *, key: Array) -> Array:
    """As many as ``x`` has, whatever its values."""
    return _rand_like(x, key=key) * (high - low) + low


@random_lowering("normal_functional.default")
def _normal(x: Array, mean: Number = 0.0, std: Number = 1.0, *, key: Array) -> Array:
    """As many as ``x`` has, whatever its values."""
    return _randn_like(x, key=key) * std + mean


@random_lowering("normal.Tensor_Tensor", "normal.Tensor_float", "normal.float_Tensor")
def _normal_around(mean: Number | Array, std: Number | Array = 1.0, *, key: Array) -> Array:
    shape = jnp.broadcast_shapes(jnp.shape(mean), jnp.shape(std))
    return jax.random.normal(key, shape, jax_dtype(result_dtype(mean, std))) * std + mean


@random_lowering("rrelu_with_noise_functional.default")
def _rrelu(
    x: Array, noise: Array, lower: Number = 1 / 8, upper: Number = 1 / 3, training: bool = False, *, key: Array
) -> tuple[Array, Array]:
    """The result, and by what each element was multiplied."""
    del noise
    slope = jax.random.uniform(key, x.shape, x.dtype, lower, upper) if training else (lower + upper) / 2
    factor = jnp.where(x <= 0, slope, jnp.ones((), x.dtype))
    return x * factor, factor


@random_lowering("exponential.default")
def _exponential(x: Array, lambd: Number = 1.0, *, key: Array) -> Array:
    """As many as ``x`` has, whatever its values."""
    return jax.random.exponential(key, x.shape, x.dtype) / lambd


@random_lowering("randint.low")
def _randint_from(low: int, high: int, size: Sequence[int], *, dtype: torch.dtype | None = None, key: Array) -> Array:
    return cast(jax.random.randint(key, tuple(size), low, high), dtype or torch.int64)


@random_lowering("randint.default")
def _randint(high: int, size: Sequence[int], *, dtype: torch.dtype | None = None, key: Array) -> Array:
    return _randint_from(0, high, size, dtype=dtype, key=key)


@random_lowering("randperm.default")
def _randperm(n: int, *, dtype: torch.dtype | None = None, key: Array) -> Array:
    return cast(jax.random.permutation(key, jnp.arange(n)), dtype or torch.int64)
