"""The table of lowerings: from the name of an operator to the function that computes the same with JAX.

A lowering takes the operator's own arguments, in its order and by its names, with JAX arrays for tensors. It need not
know about devices, layouts and memory formats: the interpreter leaves those out. Shapes are static, so views, strides
and aliasing do not matter either: a graph that gets here computes values only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["LOWERINGS", "PLACES", "RANDOM", "Places", "lowering", "places", "random_lowering", "room_of"]

Lowering = Callable[..., Any]
L = TypeVar("L", bound=Lowering)

Places = list[tuple[Any, int, bool]]
"""Indices, how many places there are to index, and whether negative numbers count from the end."""

LOWERINGS: dict[str, Lowering] = {}
"""By the operator's full name, such as ``aten.add.Tensor``."""

RANDOM: set[str] = set()
"""Those among them that draw random numbers: their function takes a ``key`` besides."""


PLACES: dict[str, Callable[..., Places]] = {}
"""What those that index are given, as a function of their arguments. torch raises an error where it is out of range."""


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


def places(*names: str) -> Callable[[L], L]:
    """Enter a function of an operator's arguments to the indices among them."""

    def enter(function: L) -> L:
        PLACES.update({f"aten.{name}": function for name in names})
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
