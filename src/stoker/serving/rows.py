"""A request's JSON or CSV to the model's raw tensors, read as ``stoker predict`` reads a file.

What cannot be read is a :class:`~stoker.serving.problems.Problem` that names column, row and value.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from stoker.data.cells import numbers, place
from stoker.data.columns import Columns
from stoker.data.kinds import shorten
from stoker.data.sources.delimited import count_separators, parse_delimited
from stoker.data.sources.frames import series_from
from stoker.errors import EncodingError, StokerError, suggest
from stoker.serving.problems import Problem, check_count, problem_of
from stoker.serving.quick import Quick, quick_codes, quick_numbers

__all__ = ["RowReader", "parse_json"]

Tensors = dict[str, Tensor]
_LARGEST = float(np.finfo(np.float64).max)
_SURROGATE = re.compile("[\ud800-\udfff]")
_MOST_FURTHER = 1000
_MOST_PARTS = 1_200_000


def parse_json(body: bytes) -> Any:
    """Read JSON; ``NaN`` and ``Infinity`` are let through here, and refused where they stand for a number.

    Raises:
        Problem: It is empty, not JSON, nested too deeply, or has a number of too many digits.
    """
    fix = 'Send a list of objects, a row each: [{"age": 41, "city": "Bern"}].'
    if not body.strip():
        raise Problem(422, "empty-body", f"body: must not be empty, got nothing. {fix}")
    if body.count(b"[") + body.count(b"{") > _MOST_PARTS:  # two bytes each, and up to 250 in memory
        rule = f"body: must be of at most {_MOST_PARTS:,} lists and objects"
        raise Problem(413, "too-many-rows", f"{rule}, got more. Send the rows in several requests.")
    try:
        return json.loads(body)
    except RecursionError:
        raise Problem(422, "invalid-json", f"body: must not be nested so deeply. {fix}") from None
    except UnicodeDecodeError as error:
        raise Problem(422, "invalid-json", f"body: must be UTF-8, got {error}. {fix}") from None
    except ValueError as error:
        raise Problem(422, "invalid-json", f"body: must be JSON, got a fault ({error}). {fix}") from None


class RowReader:
    """Reads rows of one model.

    Args:
        columns: The model's.
        max_rows: The most rows of one request.
    """

    def __init__(self, columns: Columns, max_rows: int) -> None:
        self.columns = columns
        self.max_rows = max_rows
        self._numeric = [(Columns((column,), ()), quick_numbers(column)) for column in columns.numeric]
        self._categorical = [(Columns((), (column,)), quick_codes(column)) for column in columns.categorical]

    def json(self, body: bytes) -> Tensors:
        """Read a list of objects, or one object: each a row that has all the model's columns; more are passed over.

        Returns:
            What :meth:`stoker.data.columns.Columns.read` gives.

        Raises:
            Problem: It is not that; or there are no rows, or too many; or a value does not fit.
        """
        data = parse_json(body)
        rows = [data] if isinstance(data, dict) else data
        fix = 'Send a list of objects, a row each: [{"age": 41, "city": "Bern"}].'
        if not isinstance(rows, list):
            rule = "body: must be a list of objects"
            raise Problem(422, "invalid-json", f"{rule}, got {_kind(rows)}. {fix}")
        self.check_count(len(rows))
        for number, row in enumerate(rows):
            if not isinstance(row, dict):
                text = f"row {number} (counting from 0): must be an object, got {_kind(row)}. {fix}"
                raise Problem(422, "invalid-row", text, row=number)
        return self.read({name: _cells(rows, name) for name in self.columns.names})

    def csv(self, body: bytes) -> Tensors:
        """Read CSV with a header, as a file's; columns that the model does not take are passed over.

        Raises:
            Problem: It is not that; or there are no rows, or too many; or a value does not fit.
        """
        self._check_width(1 + count_separators(body))  # to parse very many columns takes long, and much memory
        try:
            frame = parse_delimited(body, "body")
            self.check_count(frame.height)
            self._check_width(frame.width)
            for column in self.columns.numeric:
                if column.reads == "number" and column.name in frame.columns:
                    if frame.schema[column.name] == pl.Boolean:
                        _check_true(column.name, frame[column.name].to_list())
                    _check_finite(frame[column.name])
            return self.columns.read(frame)
        except StokerError as error:
            raise problem_of(error, _value_at(error, frame) if isinstance(error, EncodingError) else None) from None

    def read(self, cells: Mapping[str, Sequence[Any]]) -> Tensors:
        """Read columns of values as JSON has them: numbers, text, true, false, null.

        Most are plain, and are read at once; the others go the way that a file's columns go, to the same result.

        Args:
            cells: A list for each of the model's columns, all of one length.

        Returns:
            What :meth:`stoker.data.columns.Columns.read` gives.

        Raises:
            Problem: A value does not fit; it names column, row and value.
        """
        read: Tensors = {}
        n = len(next(iter(cells.values())))
        if self._numeric:
            numeric = np.empty((n, len(self.columns.numeric_names)))
            at = 0
            for one, quick in self._numeric:
                column = one.numeric[0]
                width = len(column.parts) or 1
                numeric[:, at : at + width] = _read(one, column.name, cells[column.name], quick, "numeric")
                at += width
            read["numeric"] = torch.from_numpy(numeric)
        if self._categorical:
            codes = np.empty((n, len(self._categorical)), np.int64)
            for at, (one, quick) in enumerate(self._categorical):
                name = one.categorical[0].name
                codes[:, at : at + 1] = _read(one, name, cells[name], quick, "categorical")
            read["categorical"] = torch.from_numpy(codes)
        return read

    def _check_width(self, width: int) -> None:
        if width > len(self.columns.names) + _MOST_FURTHER:
            text = f"body: must have at most {_MOST_FURTHER:,} columns that the model does not take, got more."
            raise Problem(422, "too-many-columns", f"{text} Leave them out.")

    def check_count(self, count: int) -> None:
        """Make sure that there are rows, and not too many.

        Raises:
            Problem: 422 if there are none, 413 if there are too many.
        """
        check_count(count, self.max_rows, "rows")


def _cells(rows: list[dict[str, Any]], name: str) -> list[Any]:
    try:
        return [row[name] for row in rows]
    except KeyError:
        number = next(number for number, row in enumerate(rows) if name not in row)
        named = [
            key for key in itertools.islice(rows[number], 100) if len(key) <= 100
        ]  # to look for the nearest takes long
        hint = suggest(name, named).replace("Known", "It has") if named else "It has none."
        text = f"{place(name, number)}: must be there, got a row without it. {hint} Say null for a missing value."
        raise Problem(422, "missing-column", text, column=name, row=number) from None


def _read(one: Columns, name: str, values: Sequence[Any], quick: Quick, kind: str) -> Any:
    found = quick(values)
    if found is not None:
        return np.asarray(found).reshape(len(values), -1)
    try:
        _check_odd(name, values)
        if one.numeric and one.numeric[0].reads == "number":
            _check_true(name, values)
        series = series_from(name, list(values))
        if one.numeric:
            _check_finite(series)
        return one.read(pl.DataFrame([series]))[kind].numpy()
    except StokerError as error:
        raise problem_of(error, _value(error, values)) from None


def _check_odd(name: str, values: Sequence[Any]) -> None:
    """Refuse what JSON has not (NaN, the infinities) or a double cannot hold, and text that is no Unicode."""
    for number, value in enumerate(values):
        if isinstance(value, int | float) and not abs(value) <= _LARGEST:
            fix = "Write null for a missing value."
            raise EncodingError(place(name, number), "must be a finite number", shorten(value), fix)
        if isinstance(value, str) and not value.isascii() and _SURROGATE.search(value):
            fix = "Write characters beyond U+FFFF as pairs of surrogates."
            raise EncodingError(place(name, number), "must be text of Unicode characters", ascii(value[:40]), fix)


def _check_true(name: str, values: Sequence[Any]) -> None:
    """Refuse true and false where numbers belong, which a file's reader counts as 1 and 0 if all of a column are such.

    What becomes of a row would hang on the rows beside it.
    """
    for number, value in enumerate(values):
        if isinstance(value, bool):
            fix = "Write 1 for true and 0 for false, or null for a missing value."
            raise EncodingError(place(name, number), "must be a number", shorten(str(value).lower()), fix)


def _check_finite(series: pl.Series) -> None:
    """Refuse numbers beyond those that a double holds, which a file's reader counts as missing."""
    reading = numbers(series, infinite=True)
    if reading is not None and reading.values.is_infinite().any():
        row = int(reading.values.is_infinite().arg_max() or 0)
        fix = "Leave it empty to have it count as missing."
        raise EncodingError(place(series.name, row), "must be a finite number", shorten(series[row]), fix)


def _value(error: StokerError, values: Sequence[Any]) -> Any:
    row = problem_of(error).body.get("row")
    if row is None:
        return None
    value = values[row]
    if isinstance(value, int | float) and not isinstance(value, bool) and not abs(value) <= _LARGEST:
        return str(value)
    return value if isinstance(value, str | int | float) else None


def _value_at(error: StokerError, frame: pl.DataFrame) -> Any:
    body = problem_of(error).body
    if "row" not in body:
        return None
    value = frame[body["column"]][body["row"]]
    return value if isinstance(value, int | str) or (isinstance(value, float) and math.isfinite(value)) else str(value)


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "a boolean", type(None): "null"}
    return kinds.get(type(value), "a number")
