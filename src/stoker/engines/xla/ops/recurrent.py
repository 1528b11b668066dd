"""Recurrences over time, forward and backward: each a loop of its own. See `stoker/engines/recurrent/operators.py`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from stoker.engines.xla.ops.matrix import precision
from stoker.engines.xla.table import lowering

__all__: list[str] = []


Arrays = tuple[Array, ...]
Pair = tuple[Array, Array]


@lowering("lstm_forward.default", library="stoker")
def _lstm_forward(x: Array, h: Array, c: Array, weight: Array, reverse: bool) -> Arrays:
    def step(state: Pair, x: Array) -> tuple[Pair, Arrays]:
        h, c = state
        i, f, g, o = jnp.split(x + _times(h, weight.T), 4, -1)
        i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
        c = f * c + i * g
        h = o * jnp.tanh(c)
        return (h, c), (h, c, i, f, g, o)

    made: Arrays = lax.scan(step, (h, c), x, reverse=reverse)[1]
    return made


@lowering("lstm_backward.default", library="stoker")
def _lstm_backward(
    grad_states: Array,
    grad_c: Array,
    cells: Array,
    before: Array,
    i: Array,
    f: Array,
    g: Array,
    o: Array,
    weight: Array,
    reverse: bool,
) -> Arrays:
    def step(state: Pair, now: Any) -> tuple[Pair, Array]:
        (grad_h, grad_c), (of_state, c, before, i, f, g, o) = state, now
        squashed = jnp.tanh(c)
        grad_h = of_state + grad_h
        grad_c = grad_c + grad_h * o * (1 - squashed * squashed)
        of_i, of_f = grad_c * g * i * (1 - i), grad_c * before * f * (1 - f)
        of_g, of_o = grad_c * i * (1 - g * g), grad_h * squashed * o * (1 - o)
        grad_x = jnp.concatenate([of_i, of_f, of_g, of_o], -1)
        return (_times(grad_x, weight), grad_c * f), grad_x

    start, given = (jnp.zeros_like(grad_c), grad_c), (grad_states, cells, before, i, f, g, o)
    (grad_h, grad_c), grad_x = lax.scan(step, start, given, reverse=not reverse)
    return grad_x, grad_h, grad_c


@lowering("gru_forward.default", library="stoker")
def _gru_forward(x: Array, h: Array, weight: Array, bias: Array, reverse: bool) -> Arrays:
    def step(h: Array, x: Array) -> tuple[Array, Arrays]:
        x_r, x_z, x_n = jnp.split(x, 3, -1)
        h_r, h_z, h_n = jnp.split(_times(h, weight.T), 3, -1)
        r, z, a = jax.nn.sigmoid(x_r + h_r), jax.nn.sigmoid(x_z + h_z), h_n + bias
        n = jnp.tanh(x_n + r * a)
        h = (1 - z) * n + z * h
        return h, (h, r, z, n, a)

    made: Arrays = lax.scan(step, h, x, reverse=reverse)[1]
    return made


@lowering("gru_backward.default", library="stoker")
def _gru_backward(
    grad_states: Array, before: Array, r: Array, z: Array, n: Array, a: Array, weight: Array, reverse: bool
) -> Arrays:
    def step(grad_h: Array, now: Arrays) -> tuple[Array, Arrays]:
        of_state, before, r, z, n, a = now
        grad_h = of_state + grad_h
        of_n = grad_h * (1 - z) * (1 - n * n)
        of_r, of_z = of_n * a * r * (1 - r), grad_h * (before - n) * z * (1 - z)
        grad_x = jnp.concatenate([of_r, of_z, of_n], -1)
        grad_hidden = jnp.concatenate([of_r, of_z, of_n * r], -1)
        return grad_h * z + _times(grad_hidden, weight), (grad_x, grad_hidden)

    start = jnp.zeros(before.shape[1:], before.dtype)
    grad_h, (grad_x, grad_hidden) = lax.scan(step, start, (grad_states, before, r, z, n, a), reverse=not reverse)
    return grad_x, grad_hidden, grad_h


@lowering("rnn_forward.default", library="stoker")
def _rnn_forward(x: Array, h: Array, weight: Array, relu: bool, reverse: bool) -> Array:
    def step(h: Array, x: Array) -> tuple[Array, Array]:
        h = x + _times(h, weight.T)
        h = jnp.maximum(h, jnp.zeros((), h.dtype)) if relu else jnp.tanh(h)
        return h, h

    return lax.scan(step, h, x, reverse=reverse)[1]


@lowering("rnn_backward.default", library="stoker")
def _rnn_backward(grad_states: Array, states: Array, weight: Array, relu: bool, reverse: bool) -> tuple[Array, Array]:
    def step(grad_h: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        of_state, h = now
        grad_x = (of_state + grad_h) * ((h > 0).astype(h.dtype) if relu else 1 - h * h)
        return _times(grad_x, weight), grad_x

    start = jnp.zeros(states.shape[1:], states.dtype)
    grad_h, grad_x = lax.scan(step, start, (grad_states, states), reverse=not reverse)
    return grad_x, grad_h


def _times(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=precision())
