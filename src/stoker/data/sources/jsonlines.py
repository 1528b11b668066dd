"""JSON lines (one object a line) to a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import polars as pl

from stoker.data.sources.delimited import check_utf8
from stoker.data.sources.tidy import nans_to_nulls, narrow_times
from stoker.errors import SourceFormatError

__all__ = ["parse_json_lines"]


def parse_json_lines(data: bytes, where: str) -> pl.DataFrame:
    """Parse JSON lines: a column for each name, null where an object lacks it, types from all the values.

    Text that is a date or time in ISO 8601 throughout its column becomes one; numbers beside text become text.

    Args:
        data: The text, in UTF-8. Blank lines count for nothing.
        where: What to call it in errors.

    Returns:
        The table, its columns in the order in which their names first appear.

    Raises:
        SourceFormatError: It is empty, not UTF-8, or a line is not a JSON object; the text names the line.
    """
    check_utf8(data, where)
    data = data.removeprefix(b"\xef\xbb\xbf")
    frame = _fast(data)
    return narrow_times(nans_to_nulls(_exact(data, where) if frame is None else frame))


def _fast(data: bytes) -> pl.DataFrame | None:
    """As polars reads it; None if it cannot, or if this version of it drops what does not fit a column's first type."""
    probe = b'{"a":1}\n{"a":"x"}\n'
    if data.lstrip()[:1] != b"{" or pl.read_ndjson(probe, infer_schema_length=None)["a"].to_list() != ["1", "x"]:
        return None
    try:
        return pl.read_ndjson(data, infer_schema_length=None)
    except (pl.exceptions.PolarsError, RuntimeError):
        return None


def _exact(data: bytes, where: str) -> pl.DataFrame:
    """As Python's own parser reads it: slower, names the line at fault, and takes the NaN that Python writes."""
    columns: dict[str, list[Any]] = {}
    height = 0
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise SourceFormatError(
                f"{where}, line {number}", "must be a JSON object", f"bad JSON ({error})", _FIX
            ) from None
        if not isinstance(row, dict):
            raise SourceFormatError(f"{where}, line {number}", "must be a JSON object", f"a {_KINDS[type(row)]}", _FIX)
        for name, value in row.items():
            column = columns.setdefault(name, [])
            column.extend([None] * (height - len(column)))
            column.append(value)
        height += 1
    for column in columns.values():
        column.extend([None] * (height - len(column)))
    return pl.DataFrame([_series(name, values) for name, values in columns.items()])


_FIX = 'Write one object a line: {"age": 41, "city": "Bern"}.'
_KINDS = {list: "list", str: "text", int: "number", float: "number", bool: "boolean", type(None): "null"}


def _series(name: str, values: Sequence[Any]) -> pl.Series:
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return pl.Series(name, values, dtype=pl.Float64, strict=False)
    if len(kinds) > 1:
        return pl.Series(
            name, [v if v is None or isinstance(v, str) else json.dumps(v) for v in values], dtype=pl.String
        )
    return pl.Series(name, values, strict=False)
