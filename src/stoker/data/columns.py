"""From a table to raw tensors: numbers as they are, categories as codes, learnt from the training rows alone.

This is the part of encoding that needs the table's text and times, and so happens on the host. What follows it, from
raw tensors to the network's input, is :mod:`stoker.data.encoder`, which is a part of the model.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import numpy as np
import polars as pl
import torch

from stoker.data import cells, strict
from stoker.data.kinds import shorten
from stoker.data.schema import Kind, Schema
from stoker.data.tasks import sort_classes
from stoker.errors import ConfigError, EncodingError, InputTypeError, SchemaError, suggest

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MISSING", "UNKNOWN", "CategoricalColumn", "Columns", "NumericColumn", "Part"]

UNKNOWN, MISSING = 0, 1
"""The codes of a category that is not in the vocabulary, and of no category; the vocabulary's begin at 2."""

Rows: TypeAlias = "NDArray[np.int64]"
Part: TypeAlias = Literal["year", "month", "day", "weekday", "hour", "minute", "second", "days"]

_PARTS: tuple[Part, ...] = ("year", "month", "day", "weekday", "hour", "minute", "second", "days")
_DAY = 86_400_000_000  # microseconds
_SPECIAL = 2
_READERS = {
    "number": (cells.numbers, "must be a number"),
    "boolean": (cells.booleans, "must be yes or no (true/false, t/f, yes/no, y/n, on/off, 1/0)"),
    "datetime": (cells.datetimes, "must be a date or datetime such as 2013-01-31 or 2013-01-31T10:05:59"),
    "clock": (cells.times_of_day, "must be a time of day such as 10:05 or 10:05:59"),
}


@dataclass(frozen=True)
class NumericColumn:
    """A column that becomes numbers: one, or for a datetime one for each part.

    Attributes:
        name: The column's name.
        reads: What its cells are; ``"clock"`` is a time of day.
        parts: Of a datetime or clock, the parts that vary in training: ``year``, ``month`` (1–12), ``day`` (1–31),
            ``weekday`` (Monday is 1), ``hour``, ``minute``, ``second``, and ``days``, which is linear in time: the
            days, with fraction, since ``origin``. Empty for others.
        origin: The day of the earliest training value, as days since 1970-01-01.
        low, high: The lowest and the highest training value of a column that reads numbers, which those who enter
            values are told; nothing is computed with them. ``None`` if all are missing, of other columns, and in files
            that were written before these were kept.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    name: str
    reads: Literal["number", "boolean", "datetime", "clock"]
    parts: tuple[Part, ...] = ()
    origin: int = 0
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class CategoricalColumn:
    """A column that becomes codes.

    Attributes:
        name: The column's name.
        vocabulary: The text forms of the categories, in the order of their codes, which begin at 2.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    name: str
    vocabulary: tuple[str, ...]


@dataclass(frozen=True)
class Columns:
    """How each feature column is read; made from the training rows by :meth:`fit`.

    Attributes:
        numeric: The columns that become numbers, in the schema's order.
        categorical: The columns that become codes, in the schema's order.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    numeric: tuple[NumericColumn, ...]
    categorical: tuple[CategoricalColumn, ...]

    @classmethod
    def fit(
        cls, frame: pl.DataFrame, schema: Schema, *, rows: Rows | None = None, max_categories: int = 10_000
    ) -> Columns:
        """Learn vocabularies, the parts of datetimes and the ranges of numbers from training rows.

        A category that is seen once is left out of the vocabulary, and so reads as unknown: that is what trains the
        network's answer to an unknown category, and nothing can be learnt from a single row anyhow. Parts of a datetime
        that do not vary are left out as well, and with them a datetime of which no part varies.

        Args:
            frame: The training rows, and no others; or, with ``rows``, a table that has them.
            schema: What each column is.
            rows: Which of the table's rows are for training. One column of them is copied at a time, which spares a
                copy of the table. No other row is looked at.
            max_categories: The most categories to keep for one column; beyond, the rarest read as unknown.

        Raises:
            SchemaError: A feature of the schema is not in the table, there are no rows, or no feature is left.
            EncodingError: A value does not fit its column's kind; names column, row and value.
            ConfigError: ``max_categories`` is less than 1.
            InputTypeError: ``frame`` is not a polars data frame.
        """
        _check_frame(frame)
        if max_categories < 1:
            raise ConfigError("max_categories", "must be 1 or more", str(max_categories), "Leave it at 10000.")
        there = set(frame.columns)  # a list that polars makes anew each time it is asked
        lacking = [column.name for column in schema.features if column.name not in there]
        if lacking:
            got = _named(lacking)
            raise SchemaError(
                "training rows", "must have the schema's columns", got, suggest(lacking[0], frame.columns)
            )
        if (frame.height if rows is None else len(rows)) == 0:
            raise SchemaError("training rows", "must be at least one", "0", "Give the training part more rows.")
        numeric: list[NumericColumn] = []
        categorical: list[CategoricalColumn] = []
        for column in schema.features:
            if column.kind == "categorical":
                categorical.append(
                    CategoricalColumn(column.name, _vocabulary(frame[column.name], rows, max_categories))
                )
            elif column.kind == "datetime":
                numeric += _fit_datetime(frame[column.name], rows)
            else:
                numeric.append(_fit_number(frame[column.name], rows, column.kind))
        if not numeric and not categorical:
            fix = "Use a larger training part, or declare other columns numeric or categorical."
            raise SchemaError("training rows", "must have a feature that varies", "none", fix)
        return cls(tuple(numeric), tuple(categorical))

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that :meth:`read` needs."""
        return (*(column.name for column in self.numeric), *(column.name for column in self.categorical))

    @property
    def numeric_names(self) -> tuple[str, ...]:
        """The name of each numeric feature: the column's, or ``column.part`` for a datetime's parts."""
        return tuple(f"{c.name}.{part}" if part else c.name for c in self.numeric for part in c.parts or ("",))

    @property
    def numeric_sources(self) -> tuple[int, ...]:
        """The position in :attr:`numeric` of the column that each numeric feature is made from."""
        return tuple(i for i, column in enumerate(self.numeric) for _ in column.parts or ("",))

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """The number of codes of each categorical column, *unknown* and *missing* among them."""
        return tuple(len(column.vocabulary) + _SPECIAL for column in self.categorical)

    def read(self, frame: pl.DataFrame, rows: Rows | None = None) -> dict[str, torch.Tensor]:
        """Read rows, of training or any others.

        Categories are compared by their text form (:func:`stoker.data.cells.texts`), so that 3, 3.0 and ``"3"`` are one
        category. Where a category is expected, ``NA`` and the like are missing unless the vocabulary has them.

        Args:
            frame: The rows. Columns may come in any order, and others beside them are not looked at.
            rows: Which of them to read, if not all; they are copied one column at a time. Errors count rows in the
                whole table.

        Returns:
            ``"numeric"``: float64, shape ``[n, len(numeric_names)]``, NaN for missing values, ±inf among them.
            ``"categorical"``: int64, shape ``[n, len(categorical)]``, codes: 0 for unknown, 1 for missing, from 2 on
            the vocabulary's. A key is left out if it has no columns.

        Raises:
            EncodingError: A column is not there (lists all of these, and the nearest name), or a value cannot be read
                (names column, row and value), or a column is of a type that cannot.
            InputTypeError: ``frame`` is not a polars data frame.
        """
        _check_frame(frame)
        there = set(frame.columns)
        lacking = [name for name in self.names if name not in there]
        if lacking:
            rule = "must have every column that the model was trained on"
            raise EncodingError("table", rule, _named(lacking), suggest(lacking[0], frame.columns))
        n = frame.height if rows is None else len(rows)
        raw: dict[str, torch.Tensor] = {}
        # one column at a time into its place: at no time is there more than the result and one column
        if self.numeric:
            numeric = np.empty((n, len(self.numeric_names)))
            place = 0
            for column in self.numeric:
                values = _read_number(frame[column.name], rows, column.reads)
                for part in column.parts or ("",):
                    feature = values if part == "" else _part(values, part, column.origin)
                    numeric[:, place] = feature.cast(pl.Float64).fill_null(float("nan")).to_numpy()
                    place += 1
            raw["numeric"] = torch.from_numpy(numeric)
        if self.categorical:
            codes = np.empty((n, len(self.categorical)), np.int64)
            for place, category in enumerate(self.categorical):
                codes[:, place] = _read_codes(frame[category.name], rows, category.vocabulary).to_numpy()
            raw["categorical"] = torch.from_numpy(codes)
        return raw

    def to_dict(self) -> dict[str, Any]:
        """Give the columns as JSON takes them; :meth:`from_dict` makes the same columns of it."""
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]

    @classmethod
    def from_dict(cls, data: object) -> Columns:
        """Build columns from what :meth:`to_dict` made, trusting nothing.

        Raises:
            SchemaError: A field is missing, unknown, of another type, or contradicts another.
        """
        columns = strict.parse(cls, data, "columns")
        fix = "Take it from a file that Stoker wrote, unchanged."
        name, count = Counter(columns.names).most_common(1)[0] if columns.names else ("", 0)
        if count != 1:
            got = f"{count} times {name!r}" if count else "none"
            raise SchemaError("columns", "must name each column once, and one at least", got, fix)
        for column in columns.numeric:
            timely = column.reads in ("datetime", "clock")
            in_range = abs(column.origin) < 4_000_000
            if timely != bool(column.parts) or len(set(column.parts)) < len(column.parts) or not in_range:
                raise SchemaError(f"columns, {column.name!r}", "must have the parts of a datetime, or none", "", fix)
            if not _is_range(column):
                rule, got = "must have the range of its numbers, or none", f"{column.low} to {column.high}"
                raise SchemaError(f"columns, {column.name!r}", rule, got, fix)
        for category in columns.categorical:
            if len(set(category.vocabulary)) < len(category.vocabulary) or "" in category.vocabulary:
                rule = "must have a vocabulary of distinct texts"
                raise SchemaError(f"columns, {category.name!r}", rule, "a repeated or an empty one", fix)
        return columns


def _check_frame(frame: object) -> None:
    if not isinstance(frame, pl.DataFrame):
        fix = "Read it with one of the sources first."
        raise InputTypeError("frame", "must be a polars.DataFrame", type(frame).__name__, fix)


def _named(lacking: list[str]) -> str:
    more = f" and {len(lacking) - 10} more" if len(lacking) > 10 else ""
    return f"a table without {', '.join(map(repr, lacking[:10]))}{more}"


def _fit_number(series: pl.Series, rows: Rows | None, kind: Kind) -> NumericColumn:
    """A column of numbers with their range, or of booleans; that all values fit is seen to in passing."""
    if kind == "boolean":
        _read_number(series, rows, "boolean")
        return NumericColumn(series.name, "boolean")
    values = _read_number(series, rows, "number")
    low, high = values.min(), values.max()
    if low is None:
        return NumericColumn(series.name, "number")
    assert isinstance(low, float)
    assert isinstance(high, float)
    return NumericColumn(series.name, "number", low=low, high=high)


def _is_range(column: NumericColumn) -> bool:
    if column.low is None or column.high is None:
        return column.low is column.high
    return column.reads == "number" and -math.inf < column.low <= column.high < math.inf


def _fit_datetime(series: pl.Series, rows: Rows | None) -> list[NumericColumn]:
    """The parts of a datetime that vary; an empty list if none does."""
    reads: Literal["datetime", "clock"] = "datetime"
    clock = cells.times_of_day(_take(series, rows))
    if clock is not None and clock.values.count() > 0 and not clock.odd.any():
        reads = "clock"
    values = _read_number(series, rows, reads)
    days = values.cast(pl.Int64).min()
    if days is None:
        return []
    assert isinstance(days, int)
    origin = days // _DAY
    parts = tuple(part for part in _PARTS if _part(values, part, origin).drop_nulls().n_unique() > 1)
    return [NumericColumn(series.name, reads, parts, origin)] if parts else []


def _part(values: pl.Series, part: str, origin: int) -> pl.Series:
    """One part of a ``Datetime("us")`` series, as numbers."""
    if part == "days":
        return (values.cast(pl.Int64) - origin * _DAY) / _DAY
    extracted: pl.Series = getattr(values.dt, part)()
    return extracted


def _vocabulary(series: pl.Series, rows: Rows | None, most: int) -> tuple[str, ...]:
    """The categories seen more than once, the ``most`` frequent of them, sorted."""
    text = _read_text(_take(series, rows)).rename("text").drop_nulls()
    counts = text.value_counts(name="rows").filter(pl.col("rows") > 1)
    if counts.height > most:
        counts = counts.sort("rows", "text", descending=[True, False]).head(most)
    return sort_classes(counts["text"].to_list())


def _take(series: pl.Series, rows: Rows | None) -> pl.Series:
    return series if rows is None else series.gather(rows)


def _read_number(series: pl.Series, rows: Rows | None, reads: str) -> pl.Series:
    reader, rule = _READERS[reads]
    reading = reader(_take(series, rows))
    if reading is None:
        fix = "Convert the column to what it was in training."
        raise EncodingError(f"column {series.name!r}", rule, f"type {series.dtype}", fix)
    odd = reading.first_odd()
    if odd is not None:
        row = odd if rows is None else int(rows[odd])
        fix = "Correct the value, or leave it empty to have it count as missing."
        raise EncodingError(cells.place(series.name, row), rule, shorten(series[row]), fix)
    return reading.values


def _read_text(series: pl.Series) -> pl.Series:
    text = cells.texts(series)
    if text is None:
        rule, fix = "must hold single values", "Convert the column to what it was in training."
        raise EncodingError(f"column {series.name!r}", rule, f"type {series.dtype}", fix)
    return text


def _read_codes(series: pl.Series, rows: Rows | None, vocabulary: tuple[str, ...]) -> pl.Series:
    text = _read_text(_take(series, rows))
    codes = cells.positions(text, vocabulary) + _SPECIAL
    unread = codes.is_null()
    if not unread.any():
        return codes
    missing = text.is_null() | text.str.to_lowercase().is_in(cells.MISSING_WORDS).fill_null(value=True)
    special = missing.cast(pl.Int64)  # 1 for missing, 0 for unknown: the codes themselves
    return codes.zip_with(~unread, special)
