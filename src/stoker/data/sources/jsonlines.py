"""JSON lines (one object a line) to a table."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import polars as pl

from stoker.data.sources.delimited import check_utf8
from stoker.data.sources.limits import GROWTH, LEAST_BYTES
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
    _check_names(data, where)
    frame = _fast(data)
    return narrow_times(nans_to_nulls(_exact(data, where) if frame is None else frame))


def _fast(data: bytes) -> pl.DataFrame | None:
    """As polars reads it; None if it cannot, or if this version of it drops what does not fit a column's first type."""
    probe = b'{"a":1}\n{"a":"x"}\n'
    if data.lstrip()[:1] != b"{" or pl.read_ndjson(probe, infer_schema_length=None)["a"].to_list() != ["1", "x"]:
        return None
    try:
        return pl.read_ndjson(data, infer_schema_length=None)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, RuntimeError):
        return None


def _check_names(data: bytes, where: str) -> None:
    """Make sure, before a table is made, that there are not a new name in each of very many lines."""
    rows = data.count(b"\n") + 1
    if data.lstrip()[:1] != b"{" or rows * data.count(b":") * _CELL_BYTES <= LEAST_BYTES:  # each name has a colon
        return
    with suppress(pl.exceptions.PolarsError, pl.exceptions.PanicException, RuntimeError):  # the exact reader tells
        looked_at = 0
        while looked_at < rows:  # more lines each time, for it takes polars long to look at very many names
            looked_at = max(1000, 4 * looked_at)
            schema = pl.scan_ndjson(io.BytesIO(data), infer_schema_length=looked_at).collect_schema()
            _check_cells(rows * _leaves(schema), len(data), where)


def _leaves(names: Mapping[str, Any]) -> int:
    """How many columns there are, those of nested objects among them."""
    return sum(_leaves(kind.to_schema()) if isinstance(kind, pl.Struct) else 1 for kind in names.values())


def _check_cells(cells: int, size: int, where: str) -> None:
    """Make sure that a table is not out of all proportion to its text, as where each line has another name in it.

    Raises:
        SourceFormatError: It is.
    """
    most = max(LEAST_BYTES, GROWTH * size) // _CELL_BYTES
    if cells > most:
        rule = f"must not have more than {most:,} cells: lines times names"
        raise SourceFormatError(where, rule, f"{cells:,}", "Have the same names in each line.")


def _exact(data: bytes, where: str) -> pl.DataFrame:
    """As Python's own parser reads it: slower, names the line at fault, and takes the NaN that Python writes."""
    columns: dict[str, list[Any]] = {}
    height = 0
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            got = "one nested too deeply" if isinstance(error, RecursionError) else f"bad JSON ({error})"
            raise SourceFormatError(f"{where}, line {number}", "must be a JSON object", got, _FIX) from None
        if not isinstance(row, dict):
            raise SourceFormatError(f"{where}, line {number}", "must be a JSON object", f"a {_KINDS[type(row)]}", _FIX)
        for name, value in row.items():
            column = columns.setdefault(name, [])
            column.extend([None] * (height - len(column)))
            column.append(value)
        height += 1
        _check_cells(height * len(columns), len(data), where)
    for column in columns.values():
        column.extend([None] * (height - len(column)))
    try:
        return pl.DataFrame([_series(name, values) for name, values in columns.items()])
    except UnicodeEncodeError:
        raise SourceFormatError(where, "must be text in UTF-8", "half of a surrogate pair, such as \\ud800") from None
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, TypeError, ValueError, OverflowError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise SourceFormatError(where, "must hold values that a table can have", reason, _FIX) from None


_FIX = 'Write one object a line: {"age": 41, "city": "Bern"}.'
_CELL_BYTES = 8
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
