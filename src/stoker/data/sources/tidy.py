"""What every source owes its columns: unique names, one way to be missing, and types that all of the values have."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

import polars as pl

from stoker.errors import SchemaError

__all__ = ["CODE", "MISSING", "check_unique", "nans_to_nulls", "narrow", "narrow_times"]

MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "?")
"""What stands for a missing value in a delimited file, as a whole field and nowhere else."""

CODE = r"^\s*0\d+\s*$"
"""Digits that name something, such as a postal code: as a number they would lose their zeros."""

_SAMPLE = 100  # so many values are tried before all of them: text is told from numbers at once
_TRUE, _FALSE = ["true", "True", "TRUE"], ["false", "False", "FALSE"]
_NUMBER_WITH_COMMA = r"^[+-]?\d+(?:,\d+)?(?:[eE][+-]?\d+)?$"
_DATE = re.compile(r"\d{4}([-/])\d{2}\1\d{2}")
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}([T ])\d{2}:\d{2}(:\d{2}(?:\.\d{1,9})?)?(Z|[+-]\d{2}:?\d{2})?")


def check_unique(names: Sequence[str], where: str) -> None:
    """Make sure that column names are unique.

    Raises:
        SchemaError: They are not; the text names those that are not, and their places.
    """
    twice = [name for name, count in Counter(names).items() if count > 1][:5]
    if twice:
        places = {name: [str(place) for place, other in enumerate(names, start=1) if other == name] for name in twice}
        got = "; ".join(f"{name!r} as columns {' and '.join(at)}" for name, at in places.items())
        raise SchemaError(where, "column names must be unique", got, "Rename or drop the duplicates.")


def narrow(frame: pl.DataFrame, *, decimal_comma: bool = False) -> pl.DataFrame:
    """Give every text column the type that all its values have: integer, float, boolean, date, date and time, or text.

    White space around a value never makes it text, and a space before every value of a column (from ``, `` as a
    separator) is dropped. Digits with a zero before them (``01234``) stay text: they are a code, not a number. Integers
    too long for 64 bits become floats. A column without any value stays text.

    Args:
        frame: A table whose missing values are nulls, or one of :data:`MISSING` surrounded by white space.
        decimal_comma: Whether ``3,14`` is a number, as in files whose fields are separated by semicolons.

    Returns:
        The table, of the same rows and columns.
    """

    def narrowed(column: pl.Series) -> pl.Series:
        if column.dtype == pl.String:
            return _narrow_text(column, decimal_comma=decimal_comma)
        return column.cast(pl.Float64) if column.dtype.is_integer() and "128" in str(column.dtype) else column

    return _each(frame, narrowed)


def narrow_times(frame: pl.DataFrame) -> pl.DataFrame:
    """Give those text columns whose values are all dates, or dates with times, in ISO 8601 their type.

    ``2020-01-31`` and ``2020/01/31`` are dates; ``2020-01-31 13:45``, with ``T`` for the space, seconds, fractions of
    them, and ``Z`` or an offset, are dates with times (those with a zone are converted to UTC). Other ways to write a
    date are ambiguous, and stay text.
    """
    return _each(frame, lambda column: _to_times(column) if column.dtype == pl.String else column)


def nans_to_nulls(frame: pl.DataFrame) -> pl.DataFrame:
    """The same table with null for every NaN, so that there is one way to be missing."""
    return _each(frame, lambda c: c.fill_nan(None) if c.dtype.is_float() and c.is_nan().any() else c)


def _each(frame: pl.DataFrame, change: Callable[[pl.Series], pl.Series]) -> pl.DataFrame:
    """Change column by column, nameless: polars takes names such as ``^a.*$`` and ``*`` for patterns."""
    return pl.DataFrame([change(column.alias("")).alias(column.name) for column in frame])


def _narrow_text(column: pl.Series, *, decimal_comma: bool) -> pl.Series:
    bare = column
    if column.str.contains(r"^\s|\s$").any():
        bare = column.str.strip_chars()
        present, none = ~bare.is_in(list(MISSING)), pl.Series([None], dtype=pl.String)
        bare, column = bare.zip_with(present, none), column.zip_with(present, none)
        if column.str.starts_with(" ").all():
            column = bare
    sample = bare.drop_nulls().head(_SAMPLE)
    if sample.is_empty() or bare.str.contains(CODE).any():
        return column
    if decimal_comma and sample.str.contains(_NUMBER_WITH_COMMA).all() and bare.str.contains(_NUMBER_WITH_COMMA).all():
        bare = bare.str.replace(",", ".", literal=True)
        sample = bare.drop_nulls().head(_SAMPLE)
    if sample.cast(pl.Float64, strict=False).null_count() == 0:
        for dtype in (pl.Int64, pl.Float64):
            numbers = bare.cast(dtype, strict=False)
            if numbers.null_count() == bare.null_count():
                return numbers
    if sample.is_in(_TRUE + _FALSE).all() and bare.is_in(_TRUE + _FALSE).all():
        return bare.is_in(_TRUE)
    times = _to_times(bare)
    return column if times.dtype == pl.String else times


def _to_times(column: pl.Series) -> pl.Series:
    first = column.drop_nulls().head(1)
    if first.is_empty():
        return column
    if date := _DATE.fullmatch(first.item()):
        times = column.str.to_date(f"%Y{date[1]}%m{date[1]}%d", strict=False)
    elif time := _TIME.fullmatch(first.item()):
        form = f"%Y-%m-%d{time[1]}%H:%M" + (":%S%.f" if time[2] else "") + ("%#z" if time[3] else "")
        zone = "UTC" if time[3] else None
        times = column.str.to_datetime(form, time_unit="us", time_zone=zone, strict=False)
    else:
        return column
    return times if times.null_count() == column.null_count() else column
