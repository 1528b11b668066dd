"""A captured step, scanned over the updates of an epoch as one XLA program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
import torch
from jax import Array, export, lax

from stoker.engines.capture import Captured, CaptureError, in_half_precision
from stoker.engines.collection import collected_later
from stoker.engines.xla.cache import compiled
from stoker.engines.xla.device import on
from stoker.engines.xla.interpret import UNLOWERED, draws_numbers, to_jax, unlowered

__all__ = ["Arguments", "Carry", "Program", "Saved", "Signature", "saved_program", "shapes"]

Carry = tuple[list[Any], list[Any], list[Any], list[Any]]
"""Parameters, buffers, the optimizer's slots and the weights' averages: what goes from step to step."""


class Arguments(NamedTuple):
    """What a program is called with. It makes the updates from ``start`` up to, not including, ``stop``.

    Attributes:
        carry: The state before; its memory is given up.
        start, stop: int32, so that an epoch may be cut into segments of any length.
        order: The rows of each update, int32, ``[updates, accumulate, batch]``.
        scalars: Of each cohort ``[updates, scalars]``, in its dtype.
        weights: How much of the weights each update's average takes, ``[updates]``; or nothing.
        constants: Parameters that are not updated.
        rates: Of dropout layers, float64, 0-d.
        inputs, targets: All data, first dimension rows. Closed over, they would be compiled in as constants.
        max_norm: The norm that gradients are clipped to, 0-d; or nothing.
        seed: int32; seeds the noise of each update together with its number.
    """

    carry: Carry
    start: Any
    stop: Any
    order: Any
    scalars: list[Any]
    weights: list[Any]
    constants: list[Any]
    rates: list[Any]
    inputs: list[Any]
    targets: list[Any]
    max_norm: list[Any]
    seed: Any


@dataclass(frozen=True)
class Signature:
    """What is known of a program besides its code.

    Attributes:
        scalars: Of each cohort, the names of its scalars in order.
        draws: Whether a step draws random numbers.
        half: Whether it computes in a dtype of 16 bits.
        device: Where it computes.
    """

    scalars: tuple[tuple[str, ...], ...]
    draws: bool
    half: bool
    device: torch.device


@dataclass(frozen=True)
class Saved:
    """A program before it is compiled, to be sent to another process of the same version of JAX.

    Attributes:
        code: As ``jax.export`` serialises it.
        signature: What else is known.
    """

    code: bytes
    signature: Signature


class Program:
    """``for i in start … stop: update(order[i])``, compiled ahead for arguments of one form.

    Args:
        run: The function of :class:`Arguments` to the state and the losses after, as ``jax.jit`` made it.
        signature: What else is known.
        like: Arguments of the form that all will have.
        body: The function that ``run`` was made from.

    Attributes:
        signature: As given.
        body: Likewise; ``None`` of a program that was saved, which is compiled code to JAX.
    """

    def __init__(
        self, run: Any, signature: Signature, like: Arguments, body: Callable[..., tuple[Carry, Array]] | None = None
    ) -> None:
        self.signature, self.body = signature, body
        with on(signature.device):
            with collected_later():
                lowered = run.lower(*shapes(like))
            self._compiled = compiled(lowered)

    @classmethod
    def of(cls, captured: Captured, like: Arguments) -> Program:
        """Lower and compile a captured step.

        Raises:
            CaptureError: Operators have no lowering; all are named.
            LoweringError: One has, but it does not do what is asked of it.
        """
        body = _epoch(captured)
        return cls(_jitted(body), _signature(captured), like, body)

    @classmethod
    def loaded(cls, saved: Saved, like: Arguments) -> Program:
        """Compile a program that was saved; where that has been done before, it is a look into the cache."""
        run = jax.jit(export.deserialize(bytearray(saved.code)).call, donate_argnums=0)
        return cls(run, saved.signature, like)

    def __call__(self, arguments: Arguments) -> tuple[Carry, Array]:
        """Make the updates.

        Returns:
            The state after, and the losses ``[updates]``, of which those of the updates made are filled in.
        """
        with on(self.signature.device):
            after: tuple[Carry, Array] = self._compiled(*arguments)
        return after


def saved_program(captured: Captured, like: Arguments) -> Saved:
    """Lower a captured step, without compiling it.

    Raises:
        CaptureError: Operators have no lowering; all are named.
        LoweringError: One has, but it does not do what is asked of it.
    """
    with on(captured.device), collected_later():
        code = bytes(export.export(_jitted(_epoch(captured)))(*shapes(like)).serialize())
    return Saved(code, _signature(captured))


def _jitted(body: Callable[..., tuple[Carry, Array]]) -> Any:
    return jax.jit(body, donate_argnums=0)


def _signature(captured: Captured) -> Signature:
    graph = captured.gradients
    return Signature(captured.scalars, draws_numbers(graph), in_half_precision(graph), captured.device)


def _epoch(captured: Captured) -> Callable[..., tuple[Carry, Array]]:
    if missing := unlowered(captured.gradients, captured.update):
        raise CaptureError(UNLOWERED + ", ".join(missing))
    gradients, update = to_jax(captured.gradients, guarded=True), to_jax(captured.update)
    turned = captured.turned

    def turn(carry: Carry) -> Carry:
        parameters, buffers, slots, averages = carry
        averages = turned.turn(averages) if averages else []
        return turned.turn(parameters), buffers, turned.turn_slots(slots), averages

    def run(*arguments: Any) -> tuple[Carry, Array]:
        given = Arguments(*arguments)
        updates, accumulate, _ = given.order.shape
        key = jax.random.key(given.seed)
        data = (*given.inputs, *given.targets)

        def batch(parameters: list[Array], buffers: list[Array], i: Array, j: Any) -> tuple[Array, list[Array], Any]:
            """Loss, gradients and buffers of one batch."""
            rows = _at(_at(given.order, i), j)
            leaves = [leaf.at[rows].get(mode="promise_in_bounds") for leaf in data]
            noise = jax.random.fold_in(key, i * accumulate + j)
            loss, *rest = gradients(*parameters, *buffers, *given.constants, *given.rates, *leaves, key=noise)
            return loss, rest[: len(parameters)], rest[len(parameters) :]

        def window(parameters: list[Array], buffers: list[Array], i: Array) -> tuple[Array, list[Array], Any]:
            """The mean over the batches of an update, which have as many rows each."""
            loss, found, buffers = batch(parameters, buffers, i, 0)
            if accumulate == 1:
                return loss, found, buffers

            def more(j: Array, so_far: Any) -> Any:
                loss, found, buffers = so_far
                its_loss, its_found, buffers = batch(parameters, buffers, i, j)
                return loss + its_loss, [a + b for a, b in zip(found, its_found, strict=True)], buffers

            loss, found, buffers = lax.fori_loop(1, accumulate, more, (loss, found, buffers))
            return loss / accumulate, [gradient / accumulate for gradient in found], buffers

        def step(i: Array, state: tuple[Carry, Array]) -> tuple[Carry, Array]:
            (parameters, buffers, slots, averages), losses = state
            loss, found, buffers = window(turned.turn(parameters), buffers, i)
            now = [column for table in given.scalars for column in _at(table, i)]
            weight = [_at(table, i) for table in given.weights]
            after = update(*parameters, *turned.turn(found), *slots, *now, *given.max_norm, *averages, *weight)
            one, two = len(parameters), len(parameters) + len(slots)
            losses = lax.dynamic_update_index_in_dim(losses, loss.astype(losses.dtype), i, 0)
            return (after[:one], buffers, after[one:two], after[two:]), losses

        losses = jax.numpy.zeros(updates, dtype=np.float64 if _double(given.carry[0]) else np.float32)
        after, losses = lax.fori_loop(given.start, given.stop, step, (turn(given.carry), losses))
        return turn(after), losses

    return run


def _at(table: Any, place: Any) -> Array:
    """``table[place]``, without a look at whether the place is negative."""
    found: Array = lax.dynamic_index_in_dim(table, place, keepdims=False)
    return found


def _double(parameters: list[Any]) -> bool:
    return any(parameter.dtype == np.float64 for parameter in parameters)


def shapes(arguments: Arguments) -> Arguments:
    """Arguments without their values: what a program is compiled for."""

    def shape(leaf: Any) -> Any:
        return jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype)  # type: ignore[no-untyped-call]

    described: Arguments = jax.tree.map(shape, arguments)
    return described
