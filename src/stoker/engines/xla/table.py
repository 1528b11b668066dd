"""The table of lowerings: from the name of an operator to the function that computes the same with JAX.

A lowering takes the operator's own arguments, in its order and by its names, with JAX arrays for tensors. It need not
know about devices, layouts and memory formats: the interpreter leaves those out. Shapes are static, so views, strides
and aliasing do not matter either: a graph that gets here computes values only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from jax import Array

__all__ = ["FAULTS", "LOWERINGS", "RANDOM", "Faults", "faults", "lowering", "random_lowering", "room_of"]

Lowering = Callable[..., Any]
L = TypeVar("L", bound=Lowering)

Faults = list[Array]
"""Of bool and any shape: true where a value is one that torch raises an error for."""

LOWERINGS: dict[str, Lowering] = {}
"""By the operator's full name, such as ``aten.add.Tensor``."""

RANDOM: set[str] = set()
"""Those among them that draw random numbers: their function takes a ``key`` besides."""


FAULTS: dict[str, Callable[..., Faults]] = {}
"""Of operators that torch raises an error in where values are not in order: what is out of order in their arguments."""


def lowering(*names: str, library: str = "aten") -> Callable[[L], L]:
    """Enter a function into the table.

    Args:
        *names: The operators that it lowers, such as ``"add.Tensor"``.
        library: Whose they are.
    """

    def enter(function: L) -> L:
        for name in names:
            full = f"{library}.{name}"
            assert full not in LOWERINGS, f"{full} has two lowerings"
            LOWERINGS[full] = function
        return function

    return enter


def faults(*names: str) -> Callable[[L], L]:
    """Enter a function of an operator's arguments to their faults.

    A program cannot raise an error. The operator's lowering gives anything where there is a fault, and who runs the
    program learns of it from the loss, which is NaN then (:func:`stoker.engines.xla.interpret.to_jax`).
    """

    def enter(function: L) -> L:
        FAULTS.update({f"aten.{name}": function for name in names})
        return function

    return enter


def random_lowering(*names: str) -> Callable[[L], L]:
    """The same for an operator that draws random numbers; its function gets a keyword argument ``key``."""

    def enter(function: L) -> L:
        RANDOM.update(f"aten.{name}" for name in names)
        return lowering(*names)(function)

    return enter


def room_of(name: str) -> str | None:
    """The room of :mod:`stoker.engines.xla.ops` that lowers an operator, such as ``"matrix"``, or ``None``."""
    return LOWERINGS[name].__module__.rpartition(".")[2] if name in LOWERINGS else None
