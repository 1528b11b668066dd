from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.data import cells


def text_of(values: list[Any], dtype: Any = None) -> list[str | None]:
    text = cells.texts(pl.Series("x", values, dtype=dtype))
    assert text is not None
    return text.to_list()


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([3, None, -12], pl.Int64),
        ([3.0, None, -12.0], pl.Float64),
        ([3.0, float("nan"), -12.0], pl.Float32),
        ([3.0, float("inf"), -12.0], pl.Float64),
        (["3", "", "-12"], pl.String),
        ([" 3.0", "  ", "-12.000 "], pl.String),
        ([Decimal("3.00"), None, Decimal("-12.00")], pl.Decimal(10, 2)),
        (["3", None, "-12"], pl.Categorical),
        (["3", None, "-12"], pl.Enum(["3", "-12"])),
        ([dt.timedelta(seconds=3), None, dt.timedelta(seconds=-12)], pl.Duration("ms")),
    ],
)
def test_whole_numbers_have_one_text_form_however_they_are_stored(values: list[Any], dtype: Any) -> None:
    assert text_of(values, dtype) == ["3", None, "-12"]


def test_text_that_is_no_whole_number_is_kept() -> None:
    kept = ["007", "1.10", "v2.0", "1.0.0", "3.", "NA", "a b", "1e3", "é"]
    assert text_of(kept) == kept


def test_other_types_have_a_text_form() -> None:
    assert text_of([0.1, 1e20, 2.5e-7]) == ["0.1", "1e20", "2.5e-7"]
    assert text_of([0.1], pl.Float32) == ["0.1"]
    assert text_of([Decimal("0.10"), Decimal("100.00")]) == ["0.1", "100"]
    assert text_of([True, None, False]) == ["true", None, "false"]
    assert text_of([dt.date(2013, 1, 31)]) == ["2013-01-31"]
    assert text_of([dt.datetime(2013, 1, 31, 10, 5)]) == ["2013-01-31T10:05:00"]
    assert text_of([None, None]) == [None, None]


@pytest.mark.parametrize("values", [[[1, 2]], [{"a": 1}], [b"x"]])
def test_lists_structs_and_bytes_have_no_text_form(values: list[Any]) -> None:
    series = pl.Series("x", values)
    assert cells.texts(series) is None
    assert cells.numbers(series) is None
    assert cells.booleans(series) is None
    assert cells.datetimes(series) is None


@given(st.lists(st.integers(-(2**53), 2**53), min_size=1))
def test_integers_and_the_floats_they_become_have_the_same_text(values: list[int]) -> None:
    integers = text_of(values, pl.Int64)
    assert integers == [str(value) for value in values]
    assert text_of([float(value) for value in values], pl.Float64) == integers
    assert text_of([f"{value}.0" for value in values]) == integers


def test_numbers_from_text_say_which_are_odd() -> None:
    reading = cells.numbers(pl.Series("x", [" 1.5", "NA", None, "", "abc", "?", "-2e3", "inf", "1,000", "nan"]))
    assert reading is not None
    assert reading.values.to_list() == [1.5, None, None, None, None, None, -2000.0, None, None, None]
    assert reading.odd.arg_true().to_list() == [4, 8]
    assert reading.first_odd() == 4


def test_numbers_of_other_types() -> None:
    def values(series: pl.Series) -> list[Any]:
        reading = cells.numbers(series)
        assert reading is not None
        assert reading.first_odd() is None
        return reading.values.to_list()

    assert values(pl.Series([True, None])) == [1.0, None]
    assert values(pl.Series([Decimal("1.25")])) == [1.25]
    assert values(pl.Series([2**100], dtype=pl.Int128)) == [2.0**100]
    assert values(pl.Series([dt.timedelta(milliseconds=1500)], dtype=pl.Duration("ns"))) == [1.5]
    assert values(pl.Series([1.0, float("nan"), float("-inf")])) == [1.0, None, None]
    assert values(pl.Series([None, None])) == [None, None]
    assert cells.numbers(pl.Series([dt.date(2013, 1, 1)])) is None


def test_infinity_can_be_kept() -> None:
    reading = cells.numbers(pl.Series([1.0, float("nan"), float("-inf")]), infinite=True)
    assert reading is not None
    assert reading.values.to_list() == [1.0, None, float("-inf")]


def test_booleans() -> None:
    reading = cells.booleans(pl.Series(["Yes", "n", "TRUE", "f", " on", "0", "1.0", "NA", None, "maybe"]))
    assert reading is not None
    assert reading.values.to_list() == [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, None, None, None]
    assert reading.odd.arg_true().to_list() == [9]
    reading = cells.booleans(pl.Series([0, 1, None, 2]))
    assert reading is not None
    assert reading.values.to_list() == [0.0, 1.0, None, None]
    assert reading.odd.arg_true().to_list() == [3]
    assert cells.booleans(pl.Series([dt.timedelta(seconds=1)])) is None


def test_datetimes_from_text() -> None:
    text = [
        "2013-01-31",
        "2013/01/31",
        "2013-01-31 10:05",
        "2013-01-31T10:05:59.25",
        "2013-01-31T10:05:59Z",
        "2013-01-31T10:05:59+05:30",
        "2013-01-31T10:05:59-0200",
        "NaT",
        None,
        "2013-02-30",
        "31.01.2013",
        "2013-01-31T25:00",
        "20130131",
    ]
    reading = cells.datetimes(pl.Series(text))
    assert reading is not None
    day, time = dt.datetime(2013, 1, 31), dt.datetime(2013, 1, 31, 10, 5, 59)
    zone, west = dt.timedelta(hours=5, minutes=30), dt.timedelta(hours=-2)
    read = [day, day, time.replace(second=0), time.replace(microsecond=250_000), time, time - zone, time - west]
    assert reading.values.to_list() == [*read, *[None] * 6]
    assert reading.odd.arg_true().to_list() == [9, 10, 11, 12]


def test_datetimes_of_other_types() -> None:
    def values(series: pl.Series, *, clock: bool = False) -> list[Any]:
        reading = cells.datetimes(series, clock=clock)
        assert reading is not None
        assert reading.first_odd() is None
        return reading.values.to_list()

    moment = dt.datetime(2013, 7, 31, 10, 5)
    for unit in ("ms", "us", "ns"):
        assert values(pl.Series([moment, None], dtype=pl.Datetime(unit))) == [moment, None]
    zoned = pl.Series([moment]).dt.replace_time_zone("America/New_York")
    assert values(zoned) == [moment + dt.timedelta(hours=4)]
    assert values(pl.Series([dt.date(1969, 12, 31)])) == [dt.datetime(1969, 12, 31)]
    assert values(pl.Series([dt.time(10, 5)]), clock=True) == [dt.datetime(1970, 1, 1, 10, 5)]
    assert values(pl.Series(["10:05", "10:05:59.5"]), clock=True)[1] == dt.datetime(1970, 1, 1, 10, 5, 59, 500_000)
    assert cells.datetimes(pl.Series([dt.time(10, 5)])) is None
    assert cells.datetimes(pl.Series([dt.date(2013, 1, 1)]), clock=True) is None
    assert cells.datetimes(pl.Series([1])) is None


def test_years_that_no_calendar_has_are_odd() -> None:
    for series in (
        pl.Series([0, 2**31 - 1], dtype=pl.Int32).cast(pl.Date),
        pl.Series([0, 2**62]).cast(pl.Datetime("us")),
        pl.Series([0, -(2**62)]).cast(pl.Datetime("ms")),
    ):
        reading = cells.datetimes(series)
        assert reading is not None
        assert reading.values.to_list() == [dt.datetime(1970, 1, 1), None]
        assert reading.first_odd() == 1


def test_many_distinct_datetimes_are_read_as_few_are() -> None:
    moments = pl.datetime_range(dt.datetime(2000, 1, 1), dt.datetime(2008, 1, 1), "1h", eager=True)
    text = moments.dt.to_string("%Y-%m-%dT%H:%M:%S")
    assert len(text) > 1 << 16
    for series, expected in ((text, moments), (text.gather([0, 1, 0] * 9), moments.gather([0, 1, 0] * 9))):
        reading = cells.datetimes(series)
        assert reading is not None
        assert reading.values.to_list() == expected.to_list()


def test_positions_find_booleans_in_any_spelling_and_nothing_else() -> None:
    text = pl.Series(["True", "TRUE", "true", "a", "A", None])
    assert cells.positions(text, ["a", "true"]).to_list() == [1, 1, 1, 0, None, None]
    assert cells.positions(text, ["True", "true"]).to_list() == [0, 0, 1, None, None, None]
    assert cells.positions(text, []).to_list() == [None] * 6


def test_missing_words_are_missing_amid_numbers_and_names_amid_names() -> None:
    assert cells.missing_mask(pl.Series(["1", "NA", "", None])).to_list() == [False, True, True, True]
    assert cells.missing_mask(pl.Series(["low", "NA", "", None])).to_list() == [False, False, True, True]
    assert cells.missing_mask(pl.Series([1.0, float("nan"), None])).to_list() == [False, True, True]
    assert cells.missing_mask(pl.Series([1, None])).to_list() == [False, True]
    assert cells.missing_mask(pl.Series(["NA", "None"])).to_list() == [False, False]
