"""The recurrences as functions that can be differentiated, under :mod:`torch.func` as well.

An operator's own ``register_autograd`` does not work under :mod:`torch.func` (torch 2.13), hence autograd functions
around the operators. The weights' gradient is one product over all steps, after the loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from stoker.engines.recurrent import operators

__all__ = ["GRU", "LSTM", "RNN"]


class _Operator(Function):
    """An autograd function whose ``apply`` has a type."""

    @classmethod
    def of(cls, *args: Any) -> Any:
        return cls.apply(*args)  # type: ignore[no-untyped-call]


class LSTM(_Operator):
    """``(x, h, c, weight, reverse) → (states, last cells, …)``; see :func:`operators.lstm_forward`."""

    @staticmethod
    def forward(x: Tensor, h: Tensor, c: Tensor, weight: Tensor, reverse: bool) -> tuple[Tensor, ...]:
        states, cells, *gates = operators.lstm_forward(x, h, c, weight, reverse)
        return states, cells[0 if reverse else -1].clone(), cells, *gates

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, h, c, weight, ctx.reverse = inputs
        states, _, *kept = output
        ctx.mark_non_differentiable(*kept)
        ctx.save_for_backward(h, c, weight, states, *kept)

    @staticmethod
    def backward(ctx: Any, grad_states: Tensor, grad_c: Tensor, *_: Any) -> Any:
        h, c, weight, states, cells, *gates = ctx.saved_tensors
        given = (grad_states, grad_c, cells, _before(cells, c, ctx.reverse), *gates, weight, ctx.reverse)
        grad_x, grad_h, grad_c = _Once.of(operators.lstm_backward, *given)
        return grad_x, grad_h, grad_c, _of_weight(grad_x, _before(states, h, ctx.reverse)), None


class GRU(_Operator):
    """``(x, h, weight, bias, reverse) → (states, …)``; see :func:`operators.gru_forward`."""

    @staticmethod
    def forward(x: Tensor, h: Tensor, weight: Tensor, bias: Tensor, reverse: bool) -> tuple[Tensor, ...]:
        return operators.gru_forward(x, h, weight, bias, reverse)  # type: ignore[no-any-return]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, h, weight, _, ctx.reverse = inputs
        states, *gates = output
        ctx.mark_non_differentiable(*gates)
        ctx.save_for_backward(h, weight, states, *gates)

    @staticmethod
    def backward(ctx: Any, grad_states: Tensor, *_: Any) -> Any:
        h, weight, states, *gates = ctx.saved_tensors
        before = _before(states, h, ctx.reverse)
        given = (grad_states, before, *gates, weight, ctx.reverse)
        grad_x, grad_hidden, grad_h = _Once.of(operators.gru_backward, *given)
        of_bias = grad_hidden[..., -h.shape[1] :].sum((0, 1))
        return grad_x, grad_h, _of_weight(grad_hidden, before), of_bias, None


class RNN(_Operator):
    """``(x, h, weight, relu, reverse) → states``; see :func:`operators.rnn_forward`."""

    @staticmethod
    def forward(x: Tensor, h: Tensor, weight: Tensor, relu: bool, reverse: bool) -> Tensor:
        return operators.rnn_forward(x, h, weight, relu, reverse)  # type: ignore[no-any-return]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, h, weight, ctx.relu, ctx.reverse = inputs
        ctx.save_for_backward(h, weight, output)

    @staticmethod
    def backward(ctx: Any, grad_states: Tensor) -> Any:
        h, weight, states = ctx.saved_tensors
        grad_x, grad_h = _Once.of(operators.rnn_backward, grad_states, states, weight, ctx.relu, ctx.reverse)
        return grad_x, grad_h, _of_weight(grad_x, _before(states, h, ctx.reverse)), None, None


class _Once(_Operator):
    """An operator that must not be differentiated. Nested :func:`torch.func.grad` would take its gradient for zero."""

    @staticmethod
    def forward(operator: Callable[..., Any], *args: Any) -> Any:
        return operator(*args)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise NotImplementedError("the gradient of a recurrent layer cannot be differentiated again")


def _before(states: Tensor, first: Tensor, reverse: bool) -> Tensor:
    """The state before each step, of the states after each."""
    return torch.cat([states[1:], first[None]] if reverse else [first[None], states[:-1]])


def _of_weight(of_products: Tensor, before: Tensor) -> Tensor:
    """The gradient of ``W`` in ``W h``, summed over steps and rows."""
    return of_products.flatten(0, 1).t() @ before.flatten(0, 1)
