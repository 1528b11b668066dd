"""What kind a feature column is, and why: the rules of :func:`stoker.data.schema.infer_schema` for one column.

Every guess carries its reason in plain words. The rules, the first that fits:

1. Lists, structs, bytes and Python objects are ignored, and so are columns that are empty or hold one value only.
   (One value and gaps is kept: whether the value is there may tell something.)
2. True/false, yes/no, on/off (also by initial, in any case of letters) and 0/1 are **boolean**.
3. Dates, datetimes and times of day are **datetime**; so is text that is ISO 8601 throughout.
4. Whole numbers that count the rows (0, 1, 2, … or 1, 2, 3, …; ten rows at least), or that are all different in a
   column named like an id (``id``, ``customer_id``, ``PassengerId``, ``uuid``, ``index``, …), are ignored. A column
   named like an id or a code (``store_id``, ``zip``, ``area_code``) whose whole numbers repeat is **categorical**.
5. Other numbers and durations are **numeric**; so is text that is numbers throughout, unless leading zeros show that
   its digits are a code.
6. Text that is numbers or times in at least nine rows of ten, but not in all, is **categorical** if it has few
   distinct values (50 at most, each twice on average), else ignored; the reason names what is odd.
7. Text that is (nearly) all different, or that reads like sentences, is ignored. Other text is **categorical**.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import polars as pl

from stoker.data import cells
from stoker.errors import SchemaError

__all__ = ["Guess", "Kind", "force_kind", "guess_kind", "plain", "shorten"]

Kind: TypeAlias = Literal["numeric", "boolean", "categorical", "datetime", "ignored"]

_NEARLY_ALL = 0.9  # of the values; from there on text identifies its row, or odd values are exceptions
_FEW = 50  # distinct values that a muddle of numbers and words may have to be worth keeping
_COUNTING = 10  # rows that it takes to tell a row counter from three numbers that happen to be 1, 2, 3
_SPELLINGS = 50  # of yes, no and missing that one column may have
_SENTENCE = 4.0  # words in a value, on average

_ID_WORDS = {"id", "ids", "uuid", "guid", "rowid", "rownum", "rowname"}
_ID_NAMES = {
    "",
    "index",
    "idx",
    "row",
    "key",
    "level 0",
    "row index",
    "row number",
    "row nr",
    "sample",
    "record",
    "serial",
}
_CODE_WORDS = {"code", "zip", "zipcode", "postcode", "plz"}


class Guess(NamedTuple):
    """What was found out about one column: the fields of :class:`stoker.data.schema.Column` but name and type."""

    kind: Kind
    reason: str
    missing: int
    distinct: int
    example: str


def shorten(value: object, width: int = 40) -> str:
    """A value in quotes, cut to ``width`` characters, for a reason or an error."""
    text = str(value)
    return repr(text if len(text) <= width else text[: width - 1] + "…")


def plain(value: object) -> str:
    """A value as text: numbers without a needless fraction, times without a needless midnight."""
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.6g}"
    return str(value).removesuffix(" 00:00:00")


def guess_kind(series: pl.Series) -> Guess:
    """Guess the kind of a feature column by the rules at the top of this module.

    Args:
        series: The column, under its name; at least one row.

    Returns:
        The kind, the reason, and what was counted on the way. Never raises.
    """
    guess = _guess_any(series)
    if guess.distinct == 1 and guess.kind != "ignored":
        return guess._replace(reason=f"always {guess.example!r} where there is a value, which may tell something")
    return guess


def force_kind(series: pl.Series, kind: Kind) -> Guess:
    """Take a column as the kind that the user asked for.

    Args:
        series: The column, under its name.
        kind: ``"numeric"``, ``"categorical"``, ``"datetime"`` or ``"ignored"``.

    Raises:
        SchemaError: The column holds something that cannot be read as that kind; names the first such row and value.
    """
    where = f"column {series.name!r}"
    if kind == "ignored":
        guess = guess_kind(series)
        return guess._replace(kind="ignored", reason="ignored on request")
    if kind == "categorical":
        values = cells.texts(series)
        if values is None:
            raise SchemaError(
                where, "must hold single values to be categorical", str(series.dtype), "Ignore the column."
            )
        return _guess(kind, "categorical on request", values)
    reading = cells.numbers(series) if kind == "numeric" else cells.datetimes(series)
    wanted = "numbers" if kind == "numeric" else "dates or datetimes in the form 2013-01-31T10:05:59"
    if kind == "datetime" and (reading is None or reading.odd.any()):
        clock = cells.times_of_day(series)
        reading = clock if clock is not None and not clock.odd.any() else reading
    if reading is None:
        fix = "Convert the column first, or leave its kind to be guessed."
        raise SchemaError(where, f"must hold {wanted} to be {kind}", str(series.dtype), fix)
    row = reading.first_odd()
    if row is not None:
        fix = "Correct the values that are not, or leave the kind to be guessed."
        raise SchemaError(cells.place(series.name, row), f"must hold {wanted} to be {kind}", shorten(series[row]), fix)
    return _guess(kind, f"{kind} on request", reading.values)


def _guess_any(series: pl.Series) -> Guess:
    dtype = series.dtype
    if cells.texts_of(series):
        return _guess_text(series)
    if dtype in (pl.Date, pl.Datetime, pl.Time):
        return _guess_datetime(series, clock=dtype == pl.Time)
    if dtype.is_numeric() or dtype in (pl.Boolean, pl.Duration, pl.Null):
        return _guess_number(series)
    holds = "bytes" if dtype == pl.Binary else "Python objects" if dtype == pl.Object else "lists or structs"
    missing = 0 if dtype == pl.Object else series.null_count()
    return Guess("ignored", f"holds {holds} ({dtype}), which are no single values", missing, 0, "")


def _guess(kind: Kind, reason: str, values: pl.Series) -> Guess:
    """Count missing and distinct values, and find an example."""
    missing = values.null_count()
    distinct = values.n_unique() - (missing > 0)
    example = "" if distinct == 0 else plain(values[int(values.is_not_null().arg_max() or 0)])
    return Guess(kind, reason, missing, distinct, example if len(example) <= 40 else example[:39] + "…")


def _unusable(guess: Guess, rows: int) -> Guess | None:
    """The guess as ignored, if the column is empty or holds one value and no gaps."""
    if guess.missing == rows:
        return guess._replace(kind="ignored", reason="every value is missing")
    if guess.distinct == 1 and guess.missing == 0:
        return guess._replace(kind="ignored", reason=f"constant: always {guess.example!r}")
    return None


def _guess_number(series: pl.Series, *, prefix: str = "") -> Guess:
    """Numbers, booleans, durations, and text that is numbers, of which ``prefix`` tells in the reason."""
    reading = cells.numbers(series)
    assert reading is not None
    values = reading.values
    guess = _guess("numeric", "", values)
    if series.dtype == pl.Boolean and guess.example:
        guess = guess._replace(example="true" if guess.example == "1" else "false")
    unusable = _unusable(guess, len(series))
    if unusable is not None:
        return unusable
    if series.dtype == pl.Boolean:
        return guess._replace(kind="boolean", reason="true or false")
    span = _span(values)
    if series.dtype == pl.Duration:
        return guess._replace(reason=f"durations, as seconds {span}")
    if guess.distinct == 2 and values.min() == 0 and values.max() == 1:
        return guess._replace(kind="boolean", reason=f"{prefix}only 0 and 1")
    if series.dtype.is_integer() or bool((values.drop_nulls() % 1 == 0).all()):
        return _guess_code(guess, values, prefix) or guess._replace(reason=f"{prefix}whole numbers {span}")
    return guess._replace(reason=f"{prefix}numbers {span}")


def _guess_code(guess: Guess, values: pl.Series, prefix: str) -> Guess | None:
    """The guess for whole numbers that only name or count their rows; ``None`` for other whole numbers."""
    rows, words = len(values), _words(values.name)
    if guess.distinct == rows >= _COUNTING and values[0] in (0, 1) and bool((values.diff().drop_nulls() == 1).all()):
        return guess._replace(
            kind="ignored", reason=f"{prefix}whole numbers that count the rows from {values[0]:.0f} on"
        )
    is_id = " ".join(words) in _ID_NAMES or words[-1] in _ID_WORDS or words[0] == "unnamed"
    present = rows - guess.missing
    if is_id and guess.distinct == present:
        reason = f"{prefix}an identifier: whole numbers, all different, in a column named like an id"
        return guess._replace(kind="ignored", reason=reason)
    if (is_id or words[-1] in _CODE_WORDS) and 2 * guess.distinct <= present:
        like = "an id" if is_id else "a code"
        reason = f"{prefix}{guess.distinct:,} distinct whole numbers in a column named like {like}: names, not amounts"
        return guess._replace(kind="categorical", reason=reason)
    return None


def _words(name: str) -> list[str]:
    """The words of a column's name, one at least: ``customerID`` and ``customer_id`` are both customer, id."""
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return re.sub(r"[\W_]+", " ", split).lower().split() or [""]


def _guess_datetime(series: pl.Series, *, clock: bool, prefix: str = "") -> Guess:
    reading = cells.datetimes(series, clock=clock)
    assert reading is not None
    values = reading.values.dt.time() if clock else reading.values
    guess = _guess("datetime", "", values)
    what = "times of day" if clock else "dates"
    return _unusable(guess, len(series)) or guess._replace(reason=f"{prefix}{what} {_span(values)}")


def _span(values: pl.Series) -> str:
    return f"from {plain(values.min())} to {plain(values.max())}"


def _guess_text(series: pl.Series) -> Guess:
    """Text: each distinct value is looked at once."""
    text = cells.texts(series)
    assert text is not None
    guess = _guess("categorical", "", text)
    unusable = _unusable(guess, len(series))
    if unusable is not None:
        return unusable
    values = text.unique().drop_nulls()
    present = len(series) - guess.missing

    flags = cells.booleans(values.head(_SPELLINGS + 1))
    assert flags is not None
    if len(values) <= _SPELLINGS and not flags.odd.any() and flags.values.drop_nulls().n_unique() == 2:
        words = sorted(values.filter(flags.values.is_not_null()))
        missing = len(series) - _rows_with(text, words)
        return guess._replace(kind="boolean", reason=f"only {', '.join(words)}", missing=missing, distinct=2)

    muddle: Guess | None = None
    digits = bool(values.str.contains(r"^0\d+$").any())
    if series.dtype == pl.String and not digits:  # a type of categories was chosen by somebody: not to be undone
        readers: tuple[tuple[str, Callable[[pl.Series], cells.Reading | None], Callable[[], Guess]], ...] = (
            ("numbers", cells.numbers, lambda: _guess_number(series, prefix="text, but ")),
            ("dates", cells.datetimes, lambda: _guess_datetime(series, clock=False, prefix="text, but ")),
            ("times of day", cells.times_of_day, lambda: _guess_datetime(series, clock=True, prefix="text, but ")),
        )
        for what, read, take in readers:
            reading = read(values)
            assert reading is not None
            if reading.values.count() == 0:
                continue
            if not reading.odd.any():
                return take()
            few = (1 - _NEARLY_ALL) * present
            if muddle is None and reading.odd.sum() <= few:  # as distinct values, then as rows
                odd = values.filter(reading.odd).to_list()
                odd_rows = _rows_with(text, odd)
                muddle = _muddle(guess, text, odd, odd_rows, what) if odd_rows <= few else None
    return muddle or _guess_category(guess, values, len(series), "digits with leading zeros" if digits else "text")


def _rows_with(text: pl.Series, values: list[str]) -> int:
    return int(text.is_in(values).sum())


def _muddle(guess: Guess, text: pl.Series, odd: list[str], odd_rows: int, what: str) -> Guess:
    """The guess for text that is numbers or times, but for a few rows."""
    row = int(text.is_in(odd).arg_max() or 0)
    rows = f"{odd_rows:,} rows" if odd_rows > 1 else "one row"
    reason = f"text: {what}, but for {rows}, such as {shorten(text[row])} in row {row} (counting from 0)"
    if guess.distinct <= _FEW and 2 * guess.distinct <= len(text) - guess.missing:
        return guess._replace(reason=f"{reason}; {guess.distinct} distinct values")
    return guess._replace(kind="ignored", reason=f"{reason}; correct or empty these to use the column")


def _guess_category(guess: Guess, values: pl.Series, rows: int, what: str) -> Guess:
    """The guess for text that is neither numbers nor times; ``values`` are its distinct ones."""
    present = rows - guess.missing
    share = guess.distinct / present
    words = float(values.str.count_matches(r"\S+").mean() or 0.0)  # type: ignore[arg-type]
    if share > _NEARLY_ALL or (share > _NEARLY_ALL / 2 and words >= _SENTENCE):
        like = "free text" if words >= _SENTENCE else "identifier-like"
        every = "every value is different" if share == 1 else f"{guess.distinct:,} of {present:,} values are different"
        return guess._replace(kind="ignored", reason=f"{like}: {every}")
    return guess._replace(reason=f"{what} with {guess.distinct:,} distinct values")
