from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pytest

from stoker.data.sources.tidy import check_unique, nans_to_nulls, narrow, narrow_times
from stoker.errors import SchemaError


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        (["1", " 2", "+3", None], pl.Int64, [1, 2, 3, None]),
        (["1", "2.5", " ? "], pl.Float64, [1.0, 2.5, None]),
        (["1e3", ".5", "-1."], pl.Float64, [1000.0, 0.5, -1.0]),
        (["99999999999999999999", "1"], pl.Float64, [1e20, 1.0]),
        (["True", "false", None], pl.Boolean, [True, False, None]),
        (["2020-01-31", None], pl.Date, [date(2020, 1, 31), None]),
        (["2020/01/31"], pl.Date, [date(2020, 1, 31)]),
        (["2020-01-31 13:45"], pl.Datetime("us"), [datetime(2020, 1, 31, 13, 45)]),
        (["2020-01-31T13:45:10.5", "2020-01-31T13:45:10"], pl.Datetime("us"), None),
        (
            ["2020-01-31T13:45:10Z", "2020-01-31T13:45:10+02:00"],
            pl.Datetime("us", "UTC"),
            [datetime(2020, 1, 31, 13, 45, 10, tzinfo=UTC), datetime(2020, 1, 31, 11, 45, 10, tzinfo=UTC)],
        ),
        (["2020-01-31", "2020-02-30"], pl.String, ["2020-01-31", "2020-02-30"]),  # there is no such day
        (["31.01.2020"], pl.String, ["31.01.2020"]),  # ambiguous ways to write a date stay text
        (["2020-01-31", "soon"], pl.String, ["2020-01-31", "soon"]),
        (["01234", "98765"], pl.String, ["01234", "98765"]),  # a postal code loses nothing
        (["1", "x "], pl.String, ["1", "x "]),
        ([" a", " ?", " b c"], pl.String, ["a", None, "b c"]),  # ", " was the separator
        ([" a", "b"], pl.String, [" a", "b"]),
        ([None, None], pl.String, [None, None]),
        ([" ", "?"], pl.String, [None, None]),
        (["3,14", "2"], pl.String, ["3,14", "2"]),
    ],
)
def test_text_gets_the_type_of_all_its_values(values: list[Any], dtype: Any, expected: list[Any] | None) -> None:
    column = narrow(pl.DataFrame({"a": pl.Series(values, dtype=pl.String)}))["a"]
    assert column.dtype == dtype
    if expected is not None:
        assert column.to_list() == expected


def test_a_value_at_the_very_end_decides_too() -> None:
    assert narrow(pl.DataFrame({"a": ["1"] * 5000 + ["x"]}))["a"].dtype == pl.String
    assert narrow(pl.DataFrame({"a": ["1"] * 5000 + ["0.5"]}))["a"].dtype == pl.Float64
    assert narrow(pl.DataFrame({"a": ["true"] * 5000 + ["maybe"]}))["a"].dtype == pl.String
    assert narrow(pl.DataFrame({"a": ["2020-01-01"] * 5000 + ["?x"]}))["a"].dtype == pl.String


def test_decimal_commas_only_where_they_are_asked_for() -> None:
    frame = pl.DataFrame(
        {"a": ["3,14", "2", "-1,5e3", None], "b": ["1,2,3", "4", "5", "6"], "c": ["1,5", "x", "2", "3"]}
    )
    numbers = narrow(frame, decimal_comma=True)
    assert numbers["a"].to_list() == [3.14, 2.0, -1500.0, None]
    assert numbers["b"].dtype == numbers["c"].dtype == pl.String
    assert narrow(frame)["a"].dtype == pl.String


def test_columns_that_are_not_text_are_left_alone() -> None:
    frame = pl.DataFrame({"a": [1, None], "b": [True, False], "^c.*$": ["1", "2"], "*": ["x", "y"]})
    narrowed = narrow(frame)
    assert narrowed.columns == frame.columns  # names that polars would take for patterns
    assert narrowed.dtypes == [pl.Int64, pl.Boolean, pl.Int64, pl.String]


def test_only_times_are_narrowed_where_text_is_known_to_be_text() -> None:
    frame = narrow_times(pl.DataFrame({"a": ["1", "2"], "b": ["2020-01-31", None]}))
    assert frame.dtypes == [pl.String, pl.Date]


def test_nan_counts_as_missing() -> None:
    frame = nans_to_nulls(pl.DataFrame({"*": [1.0, float("nan"), None], "b": ["NaN", "x", None]}))
    assert frame["*"].to_list() == [1.0, None, None]
    assert frame["b"].to_list() == ["NaN", "x", None]


def test_duplicate_names_are_named_with_their_places() -> None:
    check_unique(["a", "b"], "t.csv")
    text = r"t\.csv: column names must be unique, got 'a' as columns 1 and 3; 'b' as columns 2 and 4\. Rename or drop"
    with pytest.raises(SchemaError, match=text):
        check_unique(["a", "b", "a", "b", "c"], "t.csv")
