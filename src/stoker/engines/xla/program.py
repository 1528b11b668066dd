"""A captured step, scanned over the batches of an epoch as one XLA program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import torch
import torch.utils.dlpack
from jax import Array, lax
from torch import Tensor

from stoker.data.trees import Tree, leaves
from stoker.engines.capture import Captured
from stoker.engines.xla.dtypes import from_torch
from stoker.engines.xla.interpret import draws_numbers, to_jax

__all__ = ["Carry", "Program", "resident", "to_torch"]

Carry = tuple[list[Array], list[Array], list[Array]]
"""Parameters, buffers and the optimizer's slots: what goes from step to step."""


def resident(tree: Tree | None) -> list[Array]:
    """A data set's tensors as arrays over the same memory, where its alignment allows that."""
    with jax.enable_x64(True):
        return [jax.dlpack.from_dlpack(leaf.contiguous()) for leaf in leaves(tree)]


def copied(tensors: Sequence[Tensor]) -> list[Array]:
    """Arrays of their own: a program that gives its memory up may overwrite what it was given."""
    with jax.enable_x64(True):
        # On a device that is named, as a program's results are: else a program's second call would compile it anew.
        arrays: list[Array] = jax.device_put([np.array(from_torch(tensor)) for tensor in tensors], jax.devices()[0])
        return arrays


def to_torch(array: Array) -> Tensor:
    """A tensor over an array's memory."""
    tensor: Tensor = torch.utils.dlpack.from_dlpack(array)
    return tensor


class Program:
    """``for i in start … stop: step(order[i])``, compiled once.

    Where it starts and stops are inputs, so that an epoch may be cut into segments of any length. The data are inputs
    too: closed over, they would be compiled in as constants.

    Args:
        captured: The step.

    Attributes:
        scalars: Of each cohort, the names of its scalars in order.
        draws: Whether a step draws random numbers.
    """

    def __init__(self, captured: Captured) -> None:
        gradients, update = to_jax(captured.gradients), to_jax(captured.update)

        def run(
            carry: Carry,
            losses: Array,
            start: Array,
            stop: Array,
            order: Array,
            scalars: list[Array],
            constants: list[Array],
            inputs: list[Array],
            targets: list[Array],
            max_norm: list[Array],
            key: Array,
        ) -> tuple[Carry, Array]:
            def step(i: Array, state: tuple[Carry, Array]) -> tuple[Carry, Array]:
                (parameters, buffers, slots), losses = state
                rows = order[i]
                batch = [leaf.at[rows].get(mode="promise_in_bounds") for leaf in (*inputs, *targets)]
                loss, *rest = gradients(*parameters, *buffers, *constants, *batch, key=jax.random.fold_in(key, i))
                found, buffers = rest[: len(parameters)], rest[len(parameters) :]
                now = [column for table in scalars for column in table[i]]
                after = update(*parameters, *found, *slots, *now, *max_norm)
                moved = after[: len(parameters)], buffers, after[len(parameters) :]
                return moved, losses.at[i].set(loss.astype(losses.dtype))

            after: tuple[Carry, Array] = lax.fori_loop(start, stop, step, (carry, losses))
            return after

        self.scalars = captured.scalars
        self.draws = draws_numbers(captured.gradients)
        self._run = jax.jit(run, donate_argnums=(0, 1))

    def __call__(
        self,
        carry: Carry,
        losses: Array,
        start: int,
        stop: int,
        order: Array,
        scalars: list[np.ndarray[Any, Any]],
        constants: list[Array],
        inputs: list[Array],
        targets: list[Array],
        max_norm: list[np.ndarray[Any, Any]],
        seed: int,
    ) -> tuple[Carry, Array]:
        """Make the steps from ``start`` up to, not including, ``stop``.

        Args:
            carry: The state before; its memory is given up.
            losses: Of all steps, shape ``[steps]``; those of the steps made are put in. Likewise given up.
            start: The first step.
            stop: The one after the last.
            order: The rows of each step, int32, ``[steps, batch]``.
            scalars: Of each cohort ``[steps, scalars]``, in its dtype.
            constants: Parameters that are not updated.
            inputs: All inputs, first dimension rows.
            targets: Likewise.
            max_norm: The norm that gradients are clipped to, or nothing.
            seed: Seeds the noise of each step together with the step's number.

        Returns:
            The state and the losses after.
        """
        with jax.enable_x64(True):
            data = (order, scalars, constants, inputs, targets, max_norm)
            after: tuple[Carry, Array] = self._run(
                carry, losses, np.int32(start), np.int32(stop), *data, jax.random.key(seed)
            )
        return after
