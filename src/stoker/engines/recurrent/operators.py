"""Recurrences over time as operators of our own: ``stoker::lstm_forward``, ``stoker::lstm_backward``, and so on.

Each goes through one layer in one direction. What does not depend on the state before is left out, for one matrix
product over all steps at once: the inputs' part comes ready as ``x``, the weights' gradients are made afterwards.
Here they are plain loops, for any device that torch knows; a lowering does better.

Shapes: ``T`` steps, ``B`` rows, ``H`` units. ``reverse`` goes from the last step to the first. ``σ`` is the
logistic function, products without a sign are matrix products, ``∘`` is element by element. The names of weights and
gates are those of https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html and its neighbours. The gradients
follow by the chain rule, from the last step taken to the first (back-propagation through time).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op
from torch.utils.flop_counter import register_flop_formula

__all__ = ["gru_backward", "gru_forward", "lstm_backward", "lstm_forward", "rnn_backward", "rnn_forward"]


@custom_op("stoker::lstm_forward", mutates_args=())
def lstm_forward(
    x: Tensor, h: Tensor, c: Tensor, weight: Tensor, reverse: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Long short-term memory (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000).

    ::

        i = σ(x_i + W_hi h),  f = σ(x_f + W_hf h),  g = tanh(x_g + W_hg h),  o = σ(x_o + W_ho h)
        c' = f ∘ c + i ∘ g
        h' = o ∘ tanh(c')

    Args:
        x: ``W_ix input + b``, ``[T, B, 4 H]``, the gates in the order ``i, f, g, o``.
        h: The first state, ``[B, H]``.
        c: The first cells, ``[B, H]``.
        weight: ``W_h``, ``[4 H, H]``.
        reverse: Whether the last step comes first.

    Returns:
        All states, all cells, and for the gradient all of ``i``, ``f``, ``g`` and ``o``, each ``[T, B, H]``.
    """
    made = [x.new_empty(*x.shape[:2], h.shape[1]) for _ in range(6)]
    for t in _steps(x, reverse):
        i, f, g, o = (x[t] + h @ weight.t()).chunk(4, -1)
        i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
        c = f * c + i * g
        h = o * c.tanh()
        for each, now in zip(made, (h, c, i, f, g, o), strict=True):
            each[t] = now
    return tuple(made)  # type: ignore[return-value]


@custom_op("stoker::lstm_backward", mutates_args=())
def lstm_backward(
    grad_states: Tensor,
    grad_c: Tensor,
    cells: Tensor,
    before: Tensor,
    i: Tensor,
    f: Tensor,
    g: Tensor,
    o: Tensor,
    weight: Tensor,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of ``stoker::lstm_forward``.

    ::

        δh' = (the output's) + (the next step's δh)
        δc' = (the next step's δc) + δh' ∘ o ∘ (1 − tanh²(c'))
        δx_i = δc' ∘ g ∘ i ∘ (1 − i),  δx_f = δc' ∘ c ∘ f ∘ (1 − f),  δx_g = δc' ∘ i ∘ (1 − g²)
        δx_o = δh' ∘ tanh(c') ∘ o ∘ (1 − o)
        δh = W_hᵀ δx,  δc = δc' ∘ f

    Args:
        grad_states: Of all states, ``[T, B, H]``.
        grad_c: Of the cells after the last step taken, ``[B, H]``.
        cells: As ``stoker::lstm_forward`` gave them.
        before: The cells before each step, ``[T, B, H]``.
        i: As ``stoker::lstm_forward`` gave it.
        f: Likewise.
        g: Likewise.
        o: Likewise.
        weight: ``W_h``.
        reverse: As in the forward.

    Returns:
        The gradients of ``x``, of the first state, and of the first cells.
    """
    grad_x, grad_h = cells.new_empty(*cells.shape[:2], 4 * cells.shape[2]), torch.zeros_like(grad_c)
    for t in _steps(cells, not reverse):
        squashed = cells[t].tanh()
        grad_h = grad_states[t] + grad_h
        grad_c = grad_c + grad_h * o[t] * (1 - squashed * squashed)
        of_i, of_f = grad_c * g[t] * i[t] * (1 - i[t]), grad_c * before[t] * f[t] * (1 - f[t])
        of_g, of_o = grad_c * i[t] * (1 - g[t] * g[t]), grad_h * squashed * o[t] * (1 - o[t])
        grad_x[t] = torch.cat([of_i, of_f, of_g, of_o], -1)
        grad_h, grad_c = grad_x[t] @ weight, grad_c * f[t]
    return grad_x, grad_h, grad_c


@custom_op("stoker::gru_forward", mutates_args=())
def gru_forward(
    x: Tensor, h: Tensor, weight: Tensor, bias: Tensor, reverse: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gated recurrent units (Cho et al. 2014), as torch and cuDNN have them: the reset gate comes after the product.

    ::

        r = σ(x_r + W_hr h),  z = σ(x_z + W_hz h)
        a = W_hn h + b_hn,  n = tanh(x_n + r ∘ a)
        h' = (1 − z) ∘ n + z ∘ h

    Args:
        x: ``W_ix input + b``, with the hidden biases of ``r`` and ``z`` in it, ``[T, B, 3 H]``: ``r, z, n``.
        h: The first state, ``[B, H]``.
        weight: ``W_h``, ``[3 H, H]``.
        bias: ``b_hn``, ``[H]``.
        reverse: Whether the last step comes first.

    Returns:
        All states, and for the gradient all of ``r``, ``z``, ``n`` and ``a``, each ``[T, B, H]``.
    """
    units = h.shape[1]
    made = [x.new_empty(*x.shape[:2], units) for _ in range(5)]
    for t in _steps(x, reverse):
        hidden = h @ weight.t()
        r, z = (x[t, :, : 2 * units] + hidden[:, : 2 * units]).sigmoid().chunk(2, -1)
        a = hidden[:, 2 * units :] + bias
        n = (x[t, :, 2 * units :] + r * a).tanh()
        h = (1 - z) * n + z * h
        for each, now in zip(made, (h, r, z, n, a), strict=True):
            each[t] = now
    return tuple(made)  # type: ignore[return-value]


@custom_op("stoker::gru_backward", mutates_args=())
def gru_backward(
    grad_states: Tensor,
    before: Tensor,
    r: Tensor,
    z: Tensor,
    n: Tensor,
    a: Tensor,
    weight: Tensor,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of ``stoker::gru_forward``.

    ::

        δh' = (the output's) + (the next step's δh)
        δx_n = δh' ∘ (1 − z) ∘ (1 − n²),  δa = δx_n ∘ r
        δx_r = δx_n ∘ a ∘ r ∘ (1 − r),  δx_z = δh' ∘ (h − n) ∘ z ∘ (1 − z)
        δh = δh' ∘ z + W_hᵀ (δx_r, δx_z, δa)

    Args:
        grad_states: Of all states, ``[T, B, H]``.
        before: The state before each step, ``[T, B, H]``.
        r: As ``stoker::gru_forward`` gave it.
        z: Likewise.
        n: Likewise.
        a: Likewise.
        weight: ``W_h``.
        reverse: As in the forward.

    Returns:
        The gradients of ``x``, of ``W_h h + b`` (``[T, B, 3 H]`` both), and of the first state.
    """
    grad_x, grad_hidden = (n.new_empty(*n.shape[:2], 3 * n.shape[2]) for _ in range(2))
    grad_h = torch.zeros_like(before[0])
    for t in _steps(before, not reverse):
        grad_h = grad_states[t] + grad_h
        of_n = grad_h * (1 - z[t]) * (1 - n[t] * n[t])
        of_r, of_z = of_n * a[t] * r[t] * (1 - r[t]), grad_h * (before[t] - n[t]) * z[t] * (1 - z[t])
        grad_x[t], grad_hidden[t] = torch.cat([of_r, of_z, of_n], -1), torch.cat([of_r, of_z, of_n * r[t]], -1)
        grad_h = grad_h * z[t] + grad_hidden[t] @ weight
    return grad_x, grad_hidden, grad_h


@custom_op("stoker::rnn_forward", mutates_args=())
def rnn_forward(x: Tensor, h: Tensor, weight: Tensor, relu: bool, reverse: bool) -> Tensor:
    """The plain recurrence (Elman 1990): ``h' = φ(x + W_h h)`` with ``φ = tanh`` or ``φ = max(0, ·)``.

    Args:
        x: ``W_i input + b``, ``[T, B, H]``.
        h: The first state, ``[B, H]``.
        weight: ``W_h``, ``[H, H]``.
        relu: Whether ``φ`` is the rectifier.
        reverse: Whether the last step comes first.

    Returns:
        All states, ``[T, B, H]``.
    """
    states = torch.empty_like(x)
    for t in _steps(x, reverse):
        h = x[t] + h @ weight.t()
        h = h.relu() if relu else h.tanh()
        states[t] = h
    return states


@custom_op("stoker::rnn_backward", mutates_args=())
def rnn_backward(
    grad_states: Tensor, states: Tensor, weight: Tensor, relu: bool, reverse: bool
) -> tuple[Tensor, Tensor]:
    """The gradients of ``stoker::rnn_forward``.

    ::

        δh' = (the output's) + (the next step's δh)
        δx = δh' ∘ (1 − h'²), of the rectifier δh' where h' > 0
        δh = W_hᵀ δx

    Args:
        grad_states: Of all states, ``[T, B, H]``.
        states: As ``stoker::rnn_forward`` gave them.
        weight: ``W_h``.
        relu: As in the forward.
        reverse: Likewise.

    Returns:
        The gradients of ``x`` and of the first state.
    """
    grad_x, grad_h = torch.empty_like(states), torch.zeros_like(states[0])
    for t in _steps(states, not reverse):
        h = states[t]
        grad_x[t] = (grad_states[t] + grad_h) * ((h > 0).to(h.dtype) if relu else 1 - h * h)
        grad_h = grad_x[t] @ weight
    return grad_x, grad_h


def _steps(x: Tensor, reverse: bool) -> Iterator[int]:
    return iter(reversed(range(len(x))) if reverse else range(len(x)))


@lstm_forward.register_fake
def _lstm_forward_form(x: Tensor, *_: object) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(*x.shape[:2], x.shape[2] // 4) for _ in range(6))


@lstm_backward.register_fake
def _lstm_backward_form(_: Tensor, grad_c: Tensor, cells: Tensor, *__: object) -> tuple[Tensor, ...]:
    grad_x = cells.new_empty(*cells.shape[:2], 4 * cells.shape[2])
    return grad_x, torch.empty_like(grad_c), torch.empty_like(grad_c)


@gru_forward.register_fake
def _gru_forward_form(x: Tensor, *_: object) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(*x.shape[:2], x.shape[2] // 3) for _ in range(5))


@gru_backward.register_fake
def _gru_backward_form(_: Tensor, before: Tensor, *__: object) -> tuple[Tensor, ...]:
    grad_x, grad_hidden = (before.new_empty(*before.shape[:2], 3 * before.shape[2]) for _ in range(2))
    return grad_x, grad_hidden, before.new_empty(before.shape[1:])


@rnn_forward.register_fake
def _rnn_forward_form(x: Tensor, *_: object) -> Tensor:
    return torch.empty_like(x)


@rnn_backward.register_fake
def _rnn_backward_form(_: Tensor, states: Tensor, *__: object) -> tuple[Tensor, Tensor]:
    return torch.empty_like(states), states.new_empty(states.shape[1:])


@register_flop_formula([getattr(torch.ops.stoker, name) for name in __all__])
def _flop(*shapes: Any, **_: object) -> int:
    """Two for each multiplication with its addition, of a product with ``W_h`` in each step."""
    steps, rows, _width = shapes[0]
    weight = next(shape for shape in reversed(shapes) if isinstance(shape, Sequence) and len(shape) == 2)
    return int(2 * steps * rows * weight[0] * weight[1])
