"""How a cell is read: as text, as a number, as a yes or no, as a point in time.

Schema, columns and target all read through these functions, so that they cannot disagree on what a value is. A table
that was written by one tool and read by another changes its types on the way (a missing value turns integers into
floats, a stray word turns numbers into text); what a cell *means* must not change with them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl

__all__ = [
    "MISSING_WORDS",
    "Reading",
    "booleans",
    "datetimes",
    "missing_mask",
    "numbers",
    "place",
    "positions",
    "texts",
    "texts_of",
    "times_of_day",
]

MISSING_WORDS = ("na", "n/a", "n.a.", "#n/a", "#na", "<na>", "nan", "-nan", "nat", "null", "none", "?", "-", "--", ".")
"""Words that stand for a missing value where a number, a yes or no, or a time is expected; in any case of letters.

As the name of a category or class they are taken literally: ``None`` may well be the name of one.
"""

_LONGEST_WORD = max(len(word) for word in MISSING_WORDS)
_TRUE = ("true", "t", "yes", "y", "1", "1.0", "on")
_FALSE = ("false", "f", "no", "n", "0", "0.0", "off")
_WORDS = {**dict.fromkeys(_TRUE, 1.0), **dict.fromkeys(_FALSE, 0.0)}

_WHOLE = r"^([+-]?\d+)\.0+$"
_CLOCK = r"(?<hour>[01]\d|2[0-3]):(?<minute>[0-5]\d)(?::(?<second>[0-5]\d)(?<fraction>\.\d+)?)?"
_ZONE = r"(?:Z|(?<sign>[+-])(?<zone_hour>[01]\d|2[0-3]):?(?<zone_minute>[0-5]\d)?)"
_DATETIME = rf"^(?<date>\d{{4}}(?:-\d\d-|/\d\d/)\d\d)(?:[Tt ]{_CLOCK} ?{_ZONE}?)?$"
_TIME = rf"^{_CLOCK}$"

_DAY = 86_400_000_000  # microseconds
_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896  # 0001-01-01 and 9999-12-31, as days since 1970-01-01
_CHUNK = 1 << 16
_TICKS = {"ns": 1_000_000_000, "us": 1_000_000, "ms": 1_000}  # per second


@dataclass(frozen=True)
class Reading:
    """A column as it was read.

    Attributes:
        values: One value a row; null where it is missing or odd.
        odd: Boolean, one a row: there is a value, but it cannot be read in the way that was asked for.
    """

    values: pl.Series
    odd: pl.Series

    def first_odd(self) -> int | None:
        """The first row, counting from 0, that holds an odd value; ``None`` if there is none."""
        return int(self.odd.arg_max() or 0) if self.odd.any() else None


def place(column: str, row: int) -> str:
    """Name a cell for an error's text: ``column 'age', row 17 (counting from 0)``."""
    return f"column {column!r}, row {row} (counting from 0)"


def texts_of(series: pl.Series) -> bool:
    """Whether the column holds text: polars' ``String``, ``Categorical`` or ``Enum``."""
    return series.dtype in (pl.String, pl.Categorical, pl.Enum)


def texts(series: pl.Series) -> pl.Series | None:
    """The text form of each cell, which is what categories and classes are compared by.

    Text loses the blanks around it, and empty text is missing. A number that is whole is written without a fraction,
    be it an integer, a float or text: ``3``, ``3.0`` and ``"3.0"`` all read ``"3"``. Booleans read ``"true"`` and
    ``"false"``, times as ISO 8601 has them (in UTC, where they have a time zone), durations as seconds.

    Returns:
        A ``String`` series; null for null, NaN and ±inf. ``None`` if the type has no text form (lists, bytes, objects).
    """
    dtype = series.dtype
    if texts_of(series):
        text = series.cast(pl.String).str.strip_chars()
        if text.str.contains(_WHOLE).any():  # a fifth of the time that replacing takes
            text = text.str.replace(_WHOLE, "$1")
        return _where(text.str.len_bytes() > 0, text)
    if dtype.is_integer() or dtype in (pl.Boolean, pl.Date, pl.Time, pl.Null):
        return series.cast(pl.String)
    if dtype.is_float():
        whole = series.cast(pl.Int64, strict=False)
        is_whole = (whole.cast(dtype) == series).fill_null(value=False)
        # polars 2 writes 1e+20 for what polars 1 writes 1e20
        text = series.cast(pl.String).str.replace("e+", "e", literal=True)
        return _where(series.is_finite(), whole.cast(pl.String).zip_with(is_whole, text))
    if dtype.is_decimal():
        return series.cast(pl.String).str.replace(r"(\.\d*?)0+$", "$1").str.replace(r"\.$", "")
    if dtype == pl.Duration:
        return texts(_seconds(series))
    if dtype == pl.Datetime:
        return _typed_datetimes(series).values.dt.to_string("%Y-%m-%dT%H:%M:%S%.f")
    return None


def positions(text: pl.Series, names: Sequence[str]) -> pl.Series:
    """Where each text stands among the names.

    ``true`` and ``false`` are found in any of their usual spellings, for booleans are written ``true`` by one tool and
    ``True`` by the next.

    Args:
        text: What :func:`texts` gave.
        names: Distinct text forms.

    Returns:
        ``Int64``, positions counted from 0; null for null and for what is not among the names.
    """
    known = {name: position for position, name in enumerate(names)}
    for name, position in list(known.items()):
        if name.lower() in ("true", "false"):
            for spelling in (name.lower(), name.title(), name.upper()):
                known.setdefault(spelling, position)
    return text.replace_strict(list(known), list(known.values()), default=None, return_dtype=pl.Int64)


def numbers(series: pl.Series, *, infinite: bool = False) -> Reading | None:
    """Each cell as a float64; durations as seconds, booleans as 0 and 1, text by what it says.

    Args:
        series: The column.
        infinite: Keep ±inf as a value, instead of counting it as missing.

    Returns:
        The reading, its values ``Float64``; ``None`` if the type cannot be read so (dates, lists, bytes, …).
    """
    dtype = series.dtype
    if texts_of(series):
        text = series.cast(pl.String).str.strip_chars()
        values = text.cast(pl.Float64, strict=False)
        odd = _odd(text, values)
    elif dtype.is_numeric() or dtype in (pl.Boolean, pl.Null):
        values, odd = series.cast(pl.Float64), _none(series)
    elif dtype == pl.Duration:
        values, odd = _seconds(series), _none(series)
    else:
        return None
    keep = values.is_not_nan() if infinite else values.is_finite()
    return Reading(_where(keep, values), odd)


def booleans(series: pl.Series) -> Reading | None:
    """Each cell as 1.0 or 0.0: true/false, t/f, yes/no, y/n, on/off, in any case of letters, and 1/0.

    Returns:
        The reading, its values ``Float64``; ``None`` if the type cannot be read so.
    """
    if texts_of(series):
        text = series.cast(pl.String).str.strip_chars()
        lowered = text.str.to_lowercase()
        values = lowered.replace_strict(list(_WORDS), list(_WORDS.values()), default=None, return_dtype=pl.Float64)
        return Reading(values, _odd(text, values))
    reading = None if series.dtype == pl.Duration else numbers(series)
    if reading is None:
        return None
    wrong = (~reading.values.is_in([0.0, 1.0])).fill_null(value=False)
    return Reading(_where(~wrong, reading.values), wrong)


def datetimes(series: pl.Series, *, clock: bool = False) -> Reading | None:
    """Each cell as a point in time, in UTC where it has a time zone and as it stands where it has none.

    Text is read as ISO 8601: ``2013-01-31``, ``2013-01-31 10:05``, ``2013-01-31T10:05:59.5Z``, ``…+01:00``;
    also with ``/`` between year, month and day. Ways that put the day or the month first are ambiguous, hence odd.

    Args:
        series: The column.
        clock: Read times of day (``10:05``, ``10:05:59``) instead; they become times on 1970-01-01.

    Returns:
        The reading, its values ``Datetime("us")`` without time zone; ``None`` if the type cannot be read so.
    """
    dtype = series.dtype
    if texts_of(series):
        text = series.cast(pl.String).str.strip_chars()
        if text.str.contains(_TIME if clock else _DATETIME).any():  # a fraction of the time that parsing takes
            values = _by_distinct(text, _parse_times if clock else _parse_datetimes)
        else:
            values = pl.Series([None], dtype=pl.Datetime("us")).new_from_index(0, len(text))
        return Reading(values, _odd(text, values))
    if dtype == pl.Null:
        return Reading(series.cast(pl.Datetime("us")), _none(series))
    if dtype == pl.Time and clock:
        return Reading((series.cast(pl.Int64) // 1_000).cast(pl.Datetime("us")), _none(series))
    if dtype in (pl.Date, pl.Datetime) and not clock:
        return _typed_datetimes(series)
    return None


def times_of_day(series: pl.Series) -> Reading | None:
    """Each cell as a time of day: :func:`datetimes` with ``clock=True``."""
    return datetimes(series, clock=True)


def missing_mask(series: pl.Series) -> pl.Series:
    """Which cells of a target are missing: null, NaN and empty text; words such as ``NA`` only amid numbers.

    A class may be called ``None`` or ``NA``, so among other words these are taken literally.
    """
    if series.dtype.is_float():
        return series.is_null() | series.is_nan().fill_null(value=True)
    if not texts_of(series):
        return series.is_null()
    text = texts(series)
    assert text is not None
    reading = numbers(series, infinite=True)
    if reading is not None and not reading.odd.any() and reading.values.count() > 0:
        return reading.values.is_null()
    return text.is_null()


def _typed_datetimes(series: pl.Series) -> Reading:
    """A ``Date`` or ``Datetime`` column as ``Datetime("us")`` in UTC; years beyond 1 to 9999 are odd."""
    ticks = series.to_physical().cast(pl.Int64)  # of a Datetime with a time zone these are UTC's
    per_day = 1 if series.dtype == pl.Date else 86_400 * _TICKS[series.dtype.time_unit]  # type: ignore[attr-defined]
    first, last = _FIRST_DAY * per_day, (_LAST_DAY + 1) * per_day - 1
    within = (ticks >= max(first, -(2**63))) & (ticks <= min(last, 2**63 - 1))  # all nanoseconds of 64 bits are
    ticks = _where(within, ticks)
    micros = ticks * (_DAY // per_day) if per_day <= _DAY else ticks // (per_day // _DAY)
    return Reading(micros.cast(pl.Datetime("us")), (~within).fill_null(value=False))


def _where(keep: pl.Series, values: pl.Series) -> pl.Series:
    """``values`` where ``keep`` is true, null elsewhere."""
    if keep.all(ignore_nulls=True):  # a null in keep comes from a null in values
        return values
    return values.zip_with(
        keep.fill_null(value=False), pl.Series([None], dtype=values.dtype).new_from_index(0, len(values))
    )


def _none(series: pl.Series) -> pl.Series:
    return pl.Series([False]).new_from_index(0, len(series))


def _odd(text: pl.Series, values: pl.Series) -> pl.Series:
    """Where there is text that gave no value and is no word for a missing one."""
    unread = values.is_null() & text.is_not_null()
    if not unread.any():
        return unread
    short = text.filter(unread & (text.str.len_bytes() <= _LONGEST_WORD)).unique()
    words = short.filter(short.str.to_lowercase().is_in(["", *MISSING_WORDS])).to_list()
    return unread & ~text.is_in(words) if words else unread


def _seconds(duration: pl.Series) -> pl.Series:
    per_second: int = _TICKS[duration.dtype.time_unit]  # type: ignore[attr-defined]
    return duration.cast(pl.Int64) / per_second


def _by_distinct(text: pl.Series, parse: Callable[[pl.Series], pl.Series]) -> pl.Series:
    """Parse each distinct text once where they repeat, and never many at a time: the pieces take ten times the text."""
    distinct = text.unique().drop_nulls()
    if 2 * len(distinct) < len(text):
        parsed = _by_distinct(distinct, parse)
        return text.replace_strict(distinct, parsed, default=None, return_dtype=pl.Datetime("us"))
    chunks = [parse(text.slice(start, _CHUNK)) for start in range(0, max(len(text), 1), _CHUNK)]
    return pl.concat(chunks)


def _parse_datetimes(text: pl.Series) -> pl.Series:
    parts = text.str.extract_groups(_DATETIME).struct
    days = (
        parts.field("date").str.replace_all("/", "-", literal=True).str.to_date("%Y-%m-%d", strict=False).cast(pl.Int64)
    )
    days = _where((days >= _FIRST_DAY) & (days <= _LAST_DAY), days)
    east = _integer(parts.field("zone_hour")) * 60 + _integer(parts.field("zone_minute"))
    ahead = east.zip_with(parts.field("sign").fill_null("+") == "+", -east)  # minutes that the zone is ahead of UTC
    return (days * _DAY + _clock(parts) - ahead * 60_000_000).cast(pl.Datetime("us"))


def _parse_times(text: pl.Series) -> pl.Series:
    parts = text.str.extract_groups(_TIME).struct
    found = parts.field("hour").is_not_null()
    return _where(found, _clock(parts).cast(pl.Datetime("us")))


def _clock(parts: pl.series.struct.StructNameSpace) -> pl.Series:
    """Microseconds since midnight; 0 where there is no time of day."""
    seconds = (
        _integer(parts.field("hour")) * 3600 + _integer(parts.field("minute")) * 60 + _integer(parts.field("second"))
    )
    fraction = (parts.field("fraction").cast(pl.Float64).fill_null(0.0) * 1e6).round().cast(pl.Int64)
    return seconds * 1_000_000 + fraction


def _integer(digits: pl.Series) -> pl.Series:
    return digits.cast(pl.Int64).fill_null(0)
