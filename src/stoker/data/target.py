"""The target column, to tensors and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch

from stoker.data import cells
from stoker.data.kinds import shorten
from stoker.errors import ConfigError, EncodingError, SchemaError, suggest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from stoker.data.schema import Target

__all__ = ["decode_target", "drop_missing_target", "encode_target"]


def drop_missing_target(frame: pl.DataFrame, target_name: str) -> tuple[pl.DataFrame, int]:
    """Leave out the rows whose target is missing: null, NaN, or empty (:func:`stoker.data.cells.missing_mask`).

    Args:
        frame: The rows.
        target_name: The target's column.

    Returns:
        The other rows (the same frame if none is missing), and how many were left out.

    Raises:
        SchemaError: The table has no such column.
    """
    if target_name not in frame.columns:
        fix = suggest(target_name, frame.columns)
        raise SchemaError("target", "must be a column of the table", repr(target_name), fix)
    missing = cells.missing_mask(frame[target_name])
    dropped = int(missing.sum())
    return (frame.filter(~missing) if dropped else frame), dropped


def encode_target(series: pl.Series, target: Target) -> Tensor:
    """Turn a target column into a tensor.

    Classes are compared by their text form (:func:`stoker.data.cells.texts`), as categories are.

    Args:
        series: The target's values, of training or any other rows, none missing.
        target: What they are.

    Returns:
        For classes int64, shape ``[n]``, positions in ``target.classes``; for regression float32, shape ``[n, 1]``.

    Raises:
        EncodingError: A value is missing, infinite, not a number (regression) or no known class; names column, row and
            value.
    """
    wrong_type = EncodingError(
        f"target {series.name!r}",
        "must hold numbers" if target.task == "regression" else "must hold classes",
        f"type {series.dtype}",
        "Convert the column to what it was in training.",
    )
    if target.task == "regression":
        reading = cells.numbers(series, infinite=True)
        if reading is None:
            raise wrong_type
        fix = "Correct it, or drop the row."
        _refuse(series, reading.odd, "must be a number", fix)
        _refuse(series, reading.values.is_null(), "must have a value", "Drop the rows without target first.")
        values = reading.values.cast(pl.Float32)
        _refuse(series, values.is_infinite(), "must be a finite 32-bit number", fix)
        return torch.from_numpy(values.to_numpy(writable=True)).unsqueeze(1)
    text = cells.texts(series)
    if text is None:
        raise wrong_type
    _refuse(series, text.is_null(), "must have a class", "Drop the rows without target first.")
    codes = cells.positions(text, target.classes)
    known = ", ".join(shorten(name) for name in target.classes[:20]) + (", …" if len(target.classes) > 20 else "")
    fix = "Correct it, drop the row, or train with rows of that class."
    _refuse(series, codes.is_null(), f"must be one of the {len(target.classes)} known classes ({known})", fix)
    return torch.from_numpy(codes.to_numpy(writable=True))


def decode_target(codes: Tensor | np.ndarray[Any, Any] | Sequence[int], target: Target) -> list[str]:
    """Turn class codes back into the classes' names: the text that the table had.

    Args:
        codes: Integers, shape ``[n]``, positions in ``target.classes``.
        target: The target they are of.

    Raises:
        ConfigError: The target has no classes.
        EncodingError: A code is out of range or no integer.
    """
    if not target.classes:
        raise ConfigError(
            "target", "must have classes to decode", f"task {target.task}", "Take the numbers as they are."
        )
    given = torch.as_tensor(codes).reshape(-1)
    n = len(target.classes)
    if given.numel() and (given.is_floating_point() or bool((given < 0).any()) or bool((given >= n).any())):
        got = f"values from {given.min().item()} to {given.max().item()}"
        raise EncodingError("codes", f"must be integers from 0 to {n - 1}", got, "Take the argmax over the classes.")
    return [target.classes[code] for code in given.tolist()]


def _refuse(series: pl.Series, wrong: pl.Series, rule: str, fix: str) -> None:
    """Raise for the first row that is wrong."""
    if wrong.any():
        row = int(wrong.fill_null(value=False).arg_max() or 0)
        raise EncodingError(cells.place(series.name, row), rule, shorten(series[row]), fix)
