"""JAX by hand, as fast as we know how: ``jit`` of a ``lax.scan`` over an epoch's batches.

Weights are [in, out], images [row, column, channel]; rows are gathered within the program, whose state is donated and
whose data are arguments (closed over they would be compiled in as constants). The smaller last batch is one more step,
a program of its own.

Convolutions are the exception: within a loop of its own XLA carries them out on CPUs more than ten times slower than
outside (107 ms a step of the small CNN against 8), so that there every step is a call.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.jobs import Array, Data, Job, dense_layers, first_weights
from benchmarks.sides import Mark, Trained
from benchmarks.sides.layouts import channels_innermost, rows_innermost

Tree: TypeAlias = Any


def dense(layers: Tree, x: Any) -> Any:
    for weight, bias in layers[:-1]:
        x = jax.nn.relu(x @ weight + bias)
    weight, bias = layers[-1]
    return x @ weight + bias


def mlp(state: Tree, x: Any) -> Any:
    return dense(state["layers"], x.reshape(len(x), -1))


def cnn(state: Tree, x: Any) -> Any:
    for kernel, bias in state["convolutions"]:
        x = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = lax.reduce_window(jax.nn.relu(x + bias), -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return mlp(state, x)


def lstm(state: Tree, x: Any) -> Any:
    """torch's gates, in torch's order; the inputs' part of them is one product for all steps."""
    (w_inputs, w_hidden), bias = state["lstm"], state["bias_ih"] + state["bias_hh"]
    ready = jnp.swapaxes(x @ w_inputs + bias, 0, 1)

    def step(carry: Any, gates: Any) -> Any:
        hidden, cell = carry
        inner, forget, new, outer = jnp.split(gates + hidden @ w_hidden, 4, axis=1)
        cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(inner) * jnp.tanh(new)
        return (jax.nn.sigmoid(outer) * jnp.tanh(cell), cell), None

    zeros = jnp.zeros((len(x), w_hidden.shape[0]), x.dtype)
    return dense(state["layers"], lax.scan(step, (zeros, zeros), ready)[0][0])


def embedding(state: Tree, numbers: Any, codes: Any) -> Any:
    vectors = [table[codes[:, place]] for place, table in enumerate(state["embeddings"])]
    return dense(state["layers"], jnp.concatenate([numbers, *vectors], 1))


FORWARD: dict[str, Callable[..., Any]] = {"mlp": mlp, "cnn": cnn, "lstm": lstm, "embedding": embedding}


def first_state(job: Job, data: Data) -> Tree:
    weights = first_weights(job, data)
    state: Tree = {"layers": dense_layers(weights)}
    if job.kind == "cnn":
        names = [f"convolutions.{place}" for place in range(len(job.hidden))]
        state["convolutions"] = [(weights[f"{n}.weight"].transpose(2, 3, 1, 0), weights[f"{n}.bias"]) for n in names]
        state["layers"] = rows_innermost(weights, data.inputs[0].shape[1:], len(names))
    elif job.kind == "lstm":
        state["lstm"] = [weights["lstm.weight_ih_l0"].T, weights["lstm.weight_hh_l0"].T]
        state["bias_ih"], state["bias_hh"] = weights["lstm.bias_ih_l0"], weights["lstm.bias_hh_l0"]
    elif job.kind == "embedding":
        state["embeddings"] = [table for name, table in weights.items() if name.startswith("embeddings.")]
    return jax.tree.map(jnp.asarray, state)


def train(job: Job, data: Data, epochs: int, batch_size: int, mark: Mark) -> Trained:
    forward = FORWARD[job.kind]

    def loss_of(state: Tree, inputs: Any, targets: Any) -> Any:
        outputs = forward(state, *inputs)
        if job.task == "regression":
            return jnp.mean((outputs - targets) ** 2)
        chosen = jnp.take_along_axis(jax.nn.log_softmax(outputs), targets[:, None], axis=1)
        return -jnp.mean(chosen)

    def step(arrays: Any, state: Tree, rows: Any) -> Any:
        inputs, targets = jax.tree.map(lambda array: array.at[rows].get(mode="promise_in_bounds"), arrays)
        loss, gradients = jax.value_and_grad(loss_of)(state, inputs, targets)
        return jax.tree.map(lambda weight, gradient: weight - job.lr * gradient, state, gradients), loss

    @partial(jax.jit, donate_argnums=0)
    def epoch(state: Tree, arrays: Any, order: Any) -> Any:
        return lax.scan(partial(step, arrays), state, order)

    @partial(jax.jit, donate_argnums=0)
    def one(state: Tree, arrays: Any, rows: Any) -> Any:
        return step(arrays, state, rows)

    def shaped(inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        return channels_innermost(inputs) if job.kind == "cnn" else inputs

    state = first_state(job, data)
    arrays = jax.tree.map(jnp.asarray, (shaped(data.inputs), data.targets))  # int64 becomes int32
    draw = np.random.default_rng(0)
    scanned = 0 if job.kind == "cnn" else len(data) // batch_size * batch_size
    mean = 0.0
    for _ in range(epochs):
        order = draw.permutation(len(data)).astype(np.int32)
        losses = []
        if scanned:
            state, several = epoch(state, arrays, order[:scanned].reshape(-1, batch_size))
            losses.append(several)
        for at in range(scanned, len(data), batch_size):
            state, loss = one(state, arrays, order[at : at + batch_size])
            losses.append(loss[None])
        mean = float(jnp.concatenate(losses).mean())  # waits for the epoch
        mark()

    def outputs(inputs: tuple[Array, ...]) -> Array:
        return np.asarray(jax.jit(forward)(state, *shaped(inputs)))

    return Trained(outputs, f"mean loss of the last epoch's batches {mean:.4f}")
