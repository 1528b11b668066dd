"""``torch.lstm``, ``torch.gru``, ``torch.rnn_tanh`` and ``torch.rnn_relu``, which torch.nn's recurrent layers call.

Each layer and direction is one matrix product over all steps and one recurrence. Where those do not reach, the steps
are written out one by one: projected states, and autocast, where each has a dtype of its own. Packed sequences go to
torch, and cannot be traced.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stoker.engines.recurrent.gradients import GRU, LSTM, RNN

__all__ = ["gru", "lstm", "rnn_relu", "rnn_tanh"]

Layer = Callable[..., tuple[Tensor, tuple[Tensor, ...]]]
"""One layer in one direction: from ``[T, B, features]``, first states and weights to outputs and last states."""


def lstm(x: Tensor, state: Any, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
    """``torch.lstm``: https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html."""
    if isinstance(state, Tensor):  # a packed sequence: batch sizes come second
        return torch.lstm(x, state, *args)
    output, (hidden, cells) = _stacked(_lstm_layer, x, state, *args)
    return output, hidden, cells


def gru(x: Tensor, state: Tensor, params: Any, *args: Any) -> tuple[Tensor, Tensor]:
    """``torch.gru``: https://docs.pytorch.org/docs/stable/generated/torch.nn.GRU.html."""
    return _plain(torch.gru, _gru_layer, x, state, params, *args)


def rnn_tanh(x: Tensor, state: Tensor, params: Any, *args: Any) -> tuple[Tensor, Tensor]:
    """``torch.rnn_tanh``: https://docs.pytorch.org/docs/stable/generated/torch.nn.RNN.html."""
    return _plain(torch.rnn_tanh, functools.partial(_rnn_layer, relu=False), x, state, params, *args)


def rnn_relu(x: Tensor, state: Tensor, params: Any, *args: Any) -> tuple[Tensor, Tensor]:
    """``torch.rnn_relu``: the same with rectifiers."""
    return _plain(torch.rnn_relu, functools.partial(_rnn_layer, relu=True), x, state, params, *args)


def _plain(
    torchs: Callable[..., Any], layer: Layer, x: Tensor, state: Tensor, params: Any, *args: Any
) -> tuple[Tensor, Tensor]:
    """Layers with one state."""
    if isinstance(params, Tensor) or torch.is_autocast_enabled(x.device.type):  # packed: weights come fourth
        return torchs(x, state, params, *args)  # type: ignore[no-any-return]
    output, (hidden,) = _stacked(layer, x, [state], params, *args)
    return output, hidden


def _stacked(
    layer: Layer,
    x: Tensor,
    states: Sequence[Tensor],
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, list[Tensor]]:
    """Layer upon layer, both directions joined; all outputs of the last, and all layers' last states."""
    directions = 2 if bidirectional else 1
    each = len(params) // (num_layers * directions)
    x = x.transpose(0, 1) if batch_first else x
    finals = []
    for depth in range(num_layers):
        outputs = []
        for direction in range(directions):
            i = depth * directions + direction
            w_input, w_hidden, *others = params[i * each : (i + 1) * each]
            if not has_biases:
                others = [None, None, *others]  # type: ignore[list-item]
            output, final = layer(x, [state[i] for state in states], w_input, w_hidden, *others, reverse=direction == 1)
            outputs.append(output)
            finals.append(final)
        x = torch.cat(outputs, -1) if bidirectional else outputs[0]
        if dropout and train and depth < num_layers - 1:
            x = F.dropout(x, dropout)
    return x.transpose(0, 1) if batch_first else x, [torch.stack(tensors) for tensors in zip(*finals, strict=True)]


def _lstm_layer(
    x: Tensor,
    states: Sequence[Tensor],
    w_input: Tensor,
    w_hidden: Tensor,
    b_input: Tensor | None,
    b_hidden: Tensor | None,
    projection: Tensor | None = None,
    *,
    reverse: bool,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    h, c = states
    if projection is not None or torch.is_autocast_enabled(x.device.type):
        return _lstm_steps(x, h, c, w_input, w_hidden, b_input, b_hidden, projection, reverse=reverse)
    bias = None if b_input is None or b_hidden is None else b_input + b_hidden
    output, c, *_ = LSTM.of(F.linear(x, w_input, bias), h, c, w_hidden, reverse)
    return output, (_last(output, reverse), c)


def _lstm_steps(
    x: Tensor,
    h: Tensor,
    c: Tensor,
    w_input: Tensor,
    w_hidden: Tensor,
    b_input: Tensor | None,
    b_hidden: Tensor | None,
    projection: Tensor | None,
    *,
    reverse: bool,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Step by step, with states that are projected, or in several dtypes."""
    outputs = []
    steps = F.linear(x, w_input, b_input).unbind(0)
    for step in reversed(steps) if reverse else steps:
        i, f, g, o = (step + F.linear(h, w_hidden, b_hidden)).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        h = h if projection is None else F.linear(h, projection)
        outputs.append(h)
    return torch.stack(outputs[::-1] if reverse else outputs), (h, c)


def _gru_layer(
    x: Tensor,
    states: Sequence[Tensor],
    w_input: Tensor,
    w_hidden: Tensor,
    b_input: Tensor | None,
    b_hidden: Tensor | None,
    *,
    reverse: bool,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    (h,) = states
    if b_input is None or b_hidden is None:
        bias, b_n = None, h.new_zeros(h.shape[-1])
    else:
        units = h.shape[-1]
        bias, b_n = b_input + F.pad(b_hidden[:-units], (0, units)), b_hidden[-units:]
    output, *_ = GRU.of(F.linear(x, w_input, bias), h, w_hidden, b_n, reverse)
    return output, (_last(output, reverse),)


def _rnn_layer(
    x: Tensor,
    states: Sequence[Tensor],
    w_input: Tensor,
    w_hidden: Tensor,
    b_input: Tensor | None,
    b_hidden: Tensor | None,
    *,
    relu: bool,
    reverse: bool,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    (h,) = states
    bias = None if b_input is None or b_hidden is None else b_input + b_hidden
    output = RNN.of(F.linear(x, w_input, bias), h, w_hidden, relu, reverse)
    return output, (_last(output, reverse),)


def _last(output: Tensor, reverse: bool) -> Tensor:
    return output[0 if reverse else -1]
