"""Whether an exported file answers what the model answers: every row, alone and among others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from stoker.errors import ExportError
from stoker.exporting.loader import SIZES
from stoker.exporting.signature import Served, answers

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Tolerance", "compare", "wanted"]

Array: TypeAlias = "NDArray[Any]"
SHOWN = 6  # inputs of a row, in an error


@dataclass(frozen=True)
class Tolerance:
    """How far a file's number may be from the model's: ``absolute · scale + relative · |value|``.

    The scale is 1 for probabilities, and the target's standard deviation in training for a regression, or what stands
    in for it; see :func:`stoker.exporting.trial.spread`.
    """

    absolute: float
    relative: float

    def __str__(self) -> str:
        return f"{self.absolute:g} · scale + {self.relative:g} · |value|" if self.absolute or self.relative else "0"

    def of(self, values: Array, scale: float) -> Array:
        """The largest difference allowed from each value."""
        allowed: Array = self.absolute * scale + self.relative * np.abs(values)
        return allowed


def wanted(module: Served, rows: dict[str, Tensor]) -> dict[int, tuple[Array, ...]]:
    """What the model itself answers, at each batch size."""
    count = len(next(iter(rows.values())))
    by_size = {}
    for size in SIZES:
        parts = [
            answers(module, {name: values[start : start + size] for name, values in rows.items()})
            for start in range(0, count, size)
        ]
        by_size[size] = tuple(torch.cat(outputs).numpy() for outputs in zip(*parts, strict=True))
    return by_size


def compare(
    where: str,
    got: dict[int, tuple[Array, ...]],
    want: dict[int, tuple[Array, ...]],
    *,
    classes: Sequence[str],
    tolerance: Tolerance,
    scale: float,
    rows: dict[str, Tensor],
    columns: dict[str, Sequence[str]],
    name: Callable[[int], str] = lambda row: f"row {row}",
) -> float:
    """Compare a file's answers with the model's.

    Args:
        where: What stands before an error.
        got: The file's answers, by batch size; labels may stand behind them.
        want: The model's.
        classes: Their names; empty for regression.
        tolerance: What is allowed.
        scale: See :class:`Tolerance`.
        rows: What went in.
        columns: The name of each number and each code, by input.
        name: What a row is called, by its place in ``rows``.

    Returns:
        The largest difference of a number.

    Raises:
        ExportError: A number differs by more, or another class is on top; names the row and both values.
    """
    largest = 0.0
    for size, expected in want.items():
        found = got[size]
        numbers, right = found[0], expected[0]
        if len(found) < len(expected) or numbers.shape != right.shape:
            shapes = f"{list(numbers.shape)} instead of {list(right.shape)} in batches of {size}"
            raise ExportError(where, "outputs must have the model's shape", shapes, "Nothing was exported.")
        same = (numbers == right) | (np.isnan(numbers) & np.isnan(right))
        with np.errstate(invalid="ignore"):
            difference = np.where(same, 0.0, np.abs(numbers.astype(np.float64) - right))
            near = np.isfinite(right) & (difference <= tolerance.of(right, scale))  # which NaN never is
        beyond = ~(same | near)
        if beyond.any():
            most = np.where(beyond, np.nan_to_num(difference, nan=np.inf), -1.0)
            place = tuple(int(index) for index in np.unravel_index(int(most.argmax()), most.shape))
            what = f"the probability of {classes[place[1]]!r}" if len(place) > 1 else "the prediction"
            text = f"{what} {float(numbers[place]):.9g} instead of {float(right[place]):.9g}"
            raise _differs(where, f"within {tolerance}", text, size, name(place[0]), _inputs(place[0], rows, columns))
        largest = max(largest, float(difference.max(initial=0.0)))
        if len(expected) > 1:
            others = np.flatnonzero(found[1] != expected[1])
            if others.size:
                row = int(others[0])
                mine, theirs = int(expected[1][row]), int(found[1][row])
                text = f"class {_class(classes, theirs)} instead of {_class(classes, mine)}"
                raise _differs(where, "and the same top class", text, size, name(row), _inputs(row, rows, columns))
        if len(found) > len(expected):  # labels as text
            named = np.array([classes[place] for place in expected[-1]])
            others = np.flatnonzero(found[-1] != named)
            if others.size:
                row = int(others[0])
                text = f"label {str(found[-1][row])!r} instead of {str(named[row])!r}"
                raise _differs(where, "and the same label", text, size, name(row), _inputs(row, rows, columns))
    return largest


def _differs(where: str, allowed: str, got: str, size: int, row: str, inputs: str) -> ExportError:
    among = "alone" if size == 1 else f"in a batch of {size}"
    rule = f"must answer what the model answers, {allowed}"
    return ExportError(where, rule, f"{got} for {row}{inputs}, {among}", "Nothing was exported.")


def _inputs(row: int, rows: dict[str, Tensor], columns: dict[str, Sequence[str]]) -> str:
    """The first values of a row, by their columns, in brackets."""
    shown = [
        f"{name}={value:g}"
        for key, values in rows.items()
        if key in columns
        for name, value in zip(columns[key], values[row].tolist(), strict=True)
    ]
    more = f", and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
    return f" ({', '.join(shown[:SHOWN])}{more})" if shown else ""


def _class(classes: Sequence[str], place: int) -> str:
    return repr(classes[place]) if 0 <= place < len(classes) else str(place)
