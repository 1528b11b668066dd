"""The quick way to read plain values of a request's few rows: what they become is what a file's columns become.

A file is read column by column with polars, which takes as long for one row as for a thousand, and for one row longer
than all the rest of its prediction. So values that are plain, as most are, are read here; for a column with anything
else in it these functions return ``None``, and it goes the long way. A test holds the two to the same results.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from stoker.data.cells import MISSING_WORDS
from stoker.data.columns import MISSING, UNKNOWN, CategoricalColumn, NumericColumn

__all__ = ["Quick", "quick_codes", "quick_numbers"]

Quick = Callable[[Sequence[Any]], "list[float] | list[int] | list[list[float]] | None"]

_EXACT = 1 << 53  # whole numbers below it are floats without rounding
_DAY = 86_400_000_000  # microseconds
_PER_DAY = 1 / _DAY  # polars divides by a constant so, which differs in the last bit
_EPOCH = datetime(1970, 1, 1).toordinal()
_ISO = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ](?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9])?)?")
_PARTS: dict[str, Callable[[datetime], int]] = {
    "year": lambda time: time.year,
    "month": lambda time: time.month,
    "day": lambda time: time.day,
    "weekday": lambda time: time.isoweekday(),
    "hour": lambda time: time.hour,
    "minute": lambda time: time.minute,
    "second": lambda time: time.second,
}


def quick_numbers(column: NumericColumn) -> Quick:
    """For numbers: numbers and null; booleans: true, false, 0, 1, null; times: ISO 8601 without fraction or zone."""
    if column.reads == "datetime":
        return lambda values: _times(values, column)
    if column.reads == "clock":
        return _never
    return lambda values: _numbers(values, boolean=column.reads == "boolean")


def quick_codes(column: CategoricalColumn) -> Quick:
    """For a column of categories: text of printable ASCII, whole numbers and null."""
    codes: dict[Any, int] = {name: code for code, name in enumerate(column.vocabulary, start=2)} | {None: MISSING}

    def quick(values: Sequence[Any]) -> list[int] | None:
        found = []
        for value in values:
            code = codes.get(value) if value is None or type(value) is str else None
            if code is None:
                code = _code(value, codes)
            if code is None:
                return None
            found.append(code)
        return found

    return quick


def _code(value: Any, codes: dict[Any, int]) -> int | None:
    """The code of what does not stand in the vocabulary as it is; ``None`` if that is not to be told quickly."""
    if type(value) is int and abs(value) < _EXACT:
        return codes.get(str(value), UNKNOWN)
    if type(value) is not str or not value.isascii() or not value.isprintable():
        return None
    text = value.strip(" ")
    lowered = text.lower()
    if lowered in ("true", "false") or text.endswith("0"):  # 3.0 is 3, and true may be known as True
        return None
    if text in codes:
        return codes[text]
    return MISSING if not text or lowered in MISSING_WORDS else UNKNOWN


def _never(values: Sequence[Any]) -> None:  # no such value is plain
    """Times of day are rare."""


def _numbers(values: Sequence[Any], *, boolean: bool) -> list[float] | None:
    found = []
    for value in values:
        if value is None:
            found.append(math.nan)
        elif (boolean and type(value) is bool) or (type(value) is int and abs(value) < _EXACT):
            found.append(float(value))
        elif type(value) is float and math.isfinite(value):
            found.append(value)
        else:
            return None
    # Beside numbers, true and false would make text of a column that is read from a file.
    kinds = {type(value) is bool for value in values if value is not None}
    if len(kinds) > 1 or (boolean and any(number not in (0.0, 1.0) for number in found if number == number)):
        return None
    return found


def _times(values: Sequence[Any], column: NumericColumn) -> list[list[float]] | None:
    found = []
    for value in values:
        if type(value) is not str or _ISO.fullmatch(value) is None:
            return None
        try:
            time = datetime.fromisoformat(value)
        except ValueError:  # the 30th of February
            return None
        found.append([_part(time, part, column.origin) for part in column.parts])
    return found


def _part(time: datetime, part: str, origin: int) -> float:
    if part != "days":
        return float(_PARTS[part](time))
    seconds = (time.hour * 60 + time.minute) * 60 + time.second
    return ((time.toordinal() - _EPOCH - origin) * _DAY + seconds * 1_000_000) * _PER_DAY
