"""Operands of different dtypes, 0-d tensors and Python numbers among them: values and result dtypes beside torch's.

The calls of operators that torch makes of ``a + b`` and its like are caught on their way, and their lowerings called.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from lowered import assert_same
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from stoker.engines.xla.dtypes import from_torch
from stoker.engines.xla.interpret import IGNORED, LOWERINGS

BOOLEAN, WHOLE, HALF, SINGLE, DOUBLE = torch.bool, torch.int64, torch.bfloat16, torch.float32, torch.float64
LEFT, RIGHT = torch.tensor([-3.0, -1, 0, 2, 5, 4]), torch.tensor([2.0, -3, 1, -2, 3, -4])  # none on the right is zero


def of(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Not whole where they need not be."""
    return (values + 0.25 if dtype.is_floating_point else values).to(dtype)


def operands(values: Tensor, single: float, full: bool) -> list[Any]:
    """Tensors with dimensions, 0-d ones, and numbers."""
    dtypes = [BOOLEAN, WHOLE, HALF, SINGLE, *([torch.int32, DOUBLE] if full else [])]
    zeros = [BOOLEAN, WHOLE, torch.int32, HALF, SINGLE, DOUBLE] if full else [WHOLE, DOUBLE]
    tensors = [*(of(values, dtype) for dtype in dtypes), *(of(torch.tensor(single), dtype) for dtype in zeros)]
    return [*tensors, *([True, 3, -2, 2.5, -0.75] if full else [3, -0.75])]


def pairs(full: bool) -> list[tuple[Any, Any]]:
    every = itertools.product(operands(LEFT, 3.0, full), operands(RIGHT, -2.0, full))
    return [(a, b) for a, b in every if isinstance(a, Tensor) or isinstance(b, Tensor)]


EVEN = torch.arange(6) % 2 == 0
FEW: dict[str, Callable[[Any, Any], Any]] = {
    **{name: getattr(operator, name) for name in ("add", "mul", "truediv", "mod", "pow", "lt", "and_")},
    **{name: getattr(torch, name) for name in ("logical_and", "maximum", "atan2")},
    "divided to zero": lambda a, b: torch.div(a, b, rounding_mode="trunc"),
    "where": lambda a, b: torch.where(EVEN, a, b),
    "at least": lambda a, b: torch.clamp(a, min=b),
}
OTHERS: dict[str, Callable[[Any, Any], Any]] = {  # by the same few functions as some of those
    **{name: getattr(operator, name) for name in ("sub", "eq", "ne", "le", "gt", "ge", "or_", "xor")},
    **{name: getattr(torch, name) for name in ("logical_or", "logical_xor", "fmod", "minimum", "fmin", "fmax")},
    **{name: getattr(torch, name) for name in ("hypot", "copysign")},
    "twice added": lambda a, b: torch.add(a, b, alpha=2),
    "twice subtracted": lambda a, b: torch.sub(a, b, alpha=2),
    "divided and floored": lambda a, b: torch.div(a, b, rounding_mode="floor"),
    "where one says": lambda a, b: torch.where(EVEN[0], a, b),
    "at most": lambda a, b: torch.clamp(a, max=b),
}


class Calls(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The calls that have a lowering, with their results."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.made: list[tuple[str, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if str(func) in LOWERINGS:
            given = {name: value for name, value in (kwargs or {}).items() if name not in IGNORED}
            self.made.append((str(func), args, given, result))
        return result


def as_jax(tree: Any) -> Any:
    return pytree.tree_map(lambda leaf: jnp.asarray(from_torch(leaf)) if isinstance(leaf, Tensor) else leaf, tree)


def compare(function: Callable[[Any, Any], Any], grid: list[tuple[Any, Any]]) -> int:
    """How many calls were compared."""
    compared = 0
    for a, b in grid:
        calls = Calls()
        try:
            with calls:
                function(a, b)
        except (RuntimeError, TypeError):  # torch has none for these
            continue
        for called, args, kwargs, expected in calls.made:
            with jax.enable_x64(True):
                args, kwargs = as_jax((args, kwargs))
                found = np.asarray(LOWERINGS[called](*args, **kwargs))
            try:
                assert_same([found], [expected])
            except AssertionError as error:
                raise AssertionError(f"{called} of {a} and {b}") from error
            compared += 1
    return compared


@pytest.mark.parametrize("name", FEW)
def test_values_and_dtypes_are_torchs(name: str) -> None:
    # bitwise operators are for whole numbers alone, and the larger of two for tensors alone
    assert compare(FEW[name], pairs(False)) >= 15


@pytest.mark.long
@pytest.mark.parametrize("name", FEW | OTHERS)
def test_all_pairs_of_dtypes(name: str) -> None:
    assert compare((FEW | OTHERS)[name], pairs(True)) >= 50
