"""Activations that torch keeps as operators of their own."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from stoker.engines.xla.dtypes import Number
from stoker.engines.xla.table import lowering

__all__: list[str] = []


@lowering("relu.default")
def _relu(x: Array) -> Array:
    return jnp.maximum(x, jnp.zeros((), x.dtype))


@lowering("leaky_relu.default")
def _leaky_relu(x: Array, negative_slope: Number = 0.01) -> Array:
    return jnp.where(x > 0, x, x * negative_slope)


@lowering("elu.default")
def _elu(x: Array, alpha: Number = 1.0, scale: Number = 1.0, input_scale: Number = 1.0) -> Array:
    # the exponential sees no positive numbers: it would overflow where nobody looks
    return jnp.where(x > 0, x * scale, jnp.expm1(jnp.minimum(x, 0) * input_scale) * (alpha * scale))


@lowering("hardtanh.default")
def _hardtanh(x: Array, min_val: Number = -1, max_val: Number = 1) -> Array:
    return jnp.minimum(jnp.maximum(x, jnp.asarray(min_val, x.dtype)), jnp.asarray(max_val, x.dtype))


@lowering("gelu.default")
def _gelu(x: Array, *, approximate: str = "none") -> Array:
    return jax.nn.gelu(x, approximate=approximate == "tanh")


@lowering("hardshrink_backward.default", "softshrink_backward.default")
def _shrink_backward(grad: Array, x: Array, lambd: Number) -> Array:
    """Nothing from where the output is 0."""
    return jnp.where(jnp.abs(x) <= lambd, jnp.zeros((), grad.dtype), grad)
