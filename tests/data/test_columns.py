from __future__ import annotations

import datetime as dt
import json
import math
from contextlib import suppress
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing.parametric import dataframes

from stoker.data.columns import MISSING, UNKNOWN, CategoricalColumn, Columns, NumericColumn
from stoker.data.schema import Schema, infer_schema
from stoker.errors import ConfigError, EncodingError, InputTypeError, SchemaError, StokerError

NAN = float("nan")


def fit(frame: pl.DataFrame, **overrides: Any) -> Columns:
    return Columns.fit(frame, infer_schema(frame, **overrides))


def numeric(columns: Columns, frame: pl.DataFrame) -> list[list[float | None]]:
    """The numeric features by column, with None for NaN, which does not equal itself."""
    values = columns.read(frame)["numeric"]
    assert values.dtype == torch.float64
    return [[None if value != value else value for value in feature] for feature in values.T.tolist()]


def codes(columns: Columns, frame: pl.DataFrame) -> list[list[int]]:
    values = columns.read(frame)["categorical"]
    assert values.dtype == torch.int64
    return values.T.tolist()


# Numbers


def test_numbers_booleans_and_durations() -> None:
    frame = pl.DataFrame(
        {
            "i": [1, None, 3],
            "f": [0.5, NAN, float("inf")],
            "b": [True, None, False],
            "w": ["yes", "no", "NA"],
            "t": ["1.5", "", "2.5"],
            "d": [dt.timedelta(seconds=1), None, dt.timedelta(minutes=1)],
            "e": [Decimal("1.25"), Decimal("2.5"), None],
        }
    )
    columns = fit(frame, numeric=["f"])
    assert columns.numeric_names == ("i", "f", "b", "w", "t", "d", "e")
    assert numeric(columns, frame) == [
        [1, None, 3],
        [0.5, None, None],
        [1, None, 0],
        [1, 0, None],
        [1.5, None, 2.5],
        [1, None, 60],
        [1.25, 2.5, None],
    ]
    assert "categorical" not in columns.read(frame)


def test_a_column_may_change_its_type_between_training_and_prediction() -> None:
    train = pl.DataFrame({"n": [1, 2, 5], "b": ["yes", "no", "no"], "d": ["2013-01-01", "2013-02-02", "2013-02-03"]})
    columns = fit(train)
    expected = numeric(columns, train)
    same = [
        train.with_columns(pl.col("n").cast(pl.Float64)),
        train.with_columns(pl.col("n").cast(pl.String)),
        train.with_columns(b=pl.Series([True, False, False])),
        train.with_columns(b=pl.Series([1, 0, 0])),
        train.with_columns(b=pl.Series([" Y", "f", "OFF"])),
        train.with_columns(pl.col("d").str.to_date()),
        train.with_columns(pl.col("d").str.to_datetime(time_zone="UTC")),
    ]
    for frame in same:
        assert numeric(columns, frame) == expected
    nothing = pl.DataFrame({"n": [None], "b": [None], "d": [None]})
    assert all(feature == [None] for feature in numeric(columns, nothing))


# Datetimes


def test_datetime_parts_are_those_of_pandas() -> None:
    pd = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    moments = pd.Series(pd.to_datetime(rng.integers(-(10**9), 2 * 10**9, 500), unit="s"))
    frame = pl.DataFrame({"when": moments.dt.strftime("%Y-%m-%d %H:%M:%S").tolist()})
    columns = fit(frame)
    parts = ("year", "month", "day", "weekday", "hour", "minute", "second", "days")
    assert columns.numeric_names == tuple(f"when.{part}" for part in parts)
    assert columns.numeric_sources == (0,) * 8
    features = dict(zip(parts, np.array(numeric(columns, frame)), strict=True))
    for part in ("year", "month", "day", "hour", "minute", "second"):
        assert np.array_equal(features[part], getattr(moments.dt, part))
    assert features["weekday"].tolist() == [moment.isoweekday() for moment in moments]
    days = (moments - moments.min().normalize()) / pd.Timedelta(days=1)
    # both divide microseconds or nanoseconds by a day's; a float64 holds 25,000 days to a few picoseconds
    np.testing.assert_allclose(features["days"], days, rtol=1e-15, atol=1e-11)
    assert features["days"].min() >= 0


def test_only_parts_that_vary_in_training_are_features() -> None:
    train = pl.DataFrame({"when": [dt.datetime(2013, 1, day, 6) for day in (7, 14, 14)], "x": [1.5, 2.5, 3.5]})
    columns = fit(train)
    assert columns.numeric == (
        NumericColumn("when", "datetime", ("day", "days"), (dt.date(2013, 1, 7) - dt.date(1970, 1, 1)).days),
        NumericColumn("x", "number", low=1.5, high=3.5),
    )
    assert numeric(columns, train)[:2] == [[7, 14, 14], [0.25, 7.25, 7.25]]
    later = pl.DataFrame({"when": [dt.datetime(2014, 3, 1), None], "x": [1, 1]})
    assert numeric(columns, later)[:2] == [[1, None], [418, None]]


def test_the_range_of_the_training_rows_is_kept() -> None:
    frame = pl.DataFrame(
        {
            "x": [3.5, math.nan, -1.25, 2.0, 1e9],
            "i": [7, None, 3, 5, 100],
            "text": ["NA", "0.5", "1e3", "-2", "1e9"],
            "gone": [1.0, None, math.inf, 1.0, 8.0],
            "long": [dt.timedelta(seconds=second) for second in (90, 30, 60, 45, 999)],
            "yes": [True, False, True, False, True],
            "when": [dt.date(2013, 1, day) for day in (1, 2, 3, 4, 5)],
        }
    )
    columns = Columns.fit(frame, infer_schema(frame, numeric=["i", "text", "gone"]), rows=np.arange(4))
    assert {column.name: (column.low, column.high) for column in columns.numeric} == {
        "x": (-1.25, 3.5),
        "i": (3, 7),
        "text": (-2, 1000),
        "gone": (1, 1),
        "long": (30, 90),
        "yes": (None, None),
        "when": (None, None),
    }
    lost = Columns.fit(frame.with_columns(x=None), infer_schema(frame, numeric=["x"]))
    assert next(column for column in lost.numeric if column.name == "x") == NumericColumn("x", "number")


def test_a_datetime_that_does_not_vary_in_training_is_not_needed() -> None:
    frame = pl.DataFrame({"when": ["2013-01-01", "2013-01-01", "2014-01-01", None], "x": [1.5, 2.5, 3.5, 4.5]})
    schema = infer_schema(frame)
    columns = Columns.fit(frame[:2], schema)
    assert columns.names == ("x",)
    assert columns.read(frame.drop("when"))["numeric"].shape == (4, 1)
    with pytest.raises(SchemaError, match=r"training rows: must have a feature that varies, got none. Use a larger"):
        Columns.fit(frame[:2], infer_schema(frame, ignore=["x"]))


def test_times_of_day() -> None:
    frame = pl.DataFrame({"at": ["06:00", "12:30", "18:00", None]})
    columns = fit(frame)
    assert columns.numeric == (NumericColumn("at", "clock", ("hour", "minute", "days"), 0),)
    typed = frame.with_columns(pl.col("at").str.to_time("%H:%M"))
    for rows in (frame, typed):
        hour, minute, days = numeric(columns, rows)
        assert [hour, minute] == [[6, 12, 18, None], [0, 30, 0, None]]
        assert days[:3] == pytest.approx([0.25, 12.5 / 24, 0.75], rel=1e-15)  # a division may be rounded either way
        assert days[3] is None


# Categories


def test_codes() -> None:
    train = pl.DataFrame({"c": ["b", "a", "b", "a", "once", None, " "], "x": [0.5] * 3 + [1.5] * 4})
    columns = fit(train, categorical=["c"])
    assert columns.categorical == (CategoricalColumn("c", ("a", "b")),)
    assert columns.cardinalities == (4,)
    assert codes(columns, train) == [[3, 2, 3, 2, UNKNOWN, MISSING, MISSING]]
    assert codes(columns, pl.DataFrame({"c": ["new", "a", "NA", "once"], "x": [1, 1, 1, 1]})) == [[0, 2, MISSING, 0]]


def test_a_vocabulary_of_numbers_is_in_their_order() -> None:
    assert fit(pl.DataFrame({"c": [10, 9, 2, -1] * 2}), categorical=["c"]).categorical[0].vocabulary == (
        "-1",
        "2",
        "9",
        "10",
    )


def test_only_the_most_frequent_categories_are_kept() -> None:
    frame = pl.DataFrame({"c": ["a"] * 2 + ["b"] * 4 + ["c"] * 3 + ["d"] * 3})
    schema = infer_schema(frame)
    assert Columns.fit(frame, schema, max_categories=2).categorical[0].vocabulary == ("b", "c")
    with pytest.raises(ConfigError, match=r"max_categories: must be 1 or more, got 0"):
        Columns.fit(frame, schema, max_categories=0)


INTEGERS = [3, 7, 3, 7, 12, 12]


@pytest.mark.parametrize("train", [INTEGERS, [float(i) for i in INTEGERS], [str(i) for i in INTEGERS]])
def test_the_same_category_has_the_same_code_however_it_is_stored(train: list[Any]) -> None:
    columns = fit(pl.DataFrame({"c": train}), categorical=["c"])
    for rows in (
        [3, 7, None, 5],
        [3.0, 7.0, NAN, 5.0],
        ["3", "7", None, "5"],
        ["3.0", " 7", "", "x"],
        [Decimal("3.0"), Decimal("7.0"), None, Decimal("5.5")],
    ):
        assert codes(columns, pl.DataFrame({"c": pl.Series(rows, strict=False)})) == [[2, 3, 1, 0]], rows


def test_booleans_as_categories_are_found_in_any_spelling() -> None:
    columns = fit(pl.DataFrame({"c": ["True", "False", "maybe"] * 2}), categorical=["c"])
    assert columns.categorical[0].vocabulary == ("False", "True", "maybe")
    assert codes(columns, pl.DataFrame({"c": [True, False, None]})) == [[3, 2, 1]]
    assert codes(columns, pl.DataFrame({"c": ["TRUE", "false", "MAYBE"]})) == [[3, 2, 0]]


def test_words_for_missing_are_categories_if_the_vocabulary_has_them() -> None:
    columns = fit(pl.DataFrame({"c": ["None", "None", "Low", "Low"]}))
    assert codes(columns, pl.DataFrame({"c": ["None", "none", None]})) == [[3, 1, 1]]


# Reading


def test_columns_come_in_any_order_and_others_are_not_looked_at() -> None:
    frame = pl.DataFrame({"a": [1.5, 2.5], "c": ["x", "x"], "l": [[1], [2]], "b": [3.5, 4.5]})
    columns = fit(frame, categorical=["c"])
    assert columns.names == ("a", "b", "c")
    one, other = columns.read(frame), columns.read(frame.select("b", "c", "a"))
    assert all(torch.equal(one[key], other[key]) for key in ("numeric", "categorical"))


def test_rows_of_a_table_are_read_as_a_table_of_these_rows() -> None:
    frame = pl.concat([TRAIN, TRAIN.with_columns(age=pl.col("age") + 5, city=pl.lit("Bern"))])
    schema = infer_schema(frame, categorical=["city"])
    rows = np.array([5, 0, 1, 4])
    columns = Columns.fit(frame, schema, rows=rows)
    assert columns == Columns.fit(frame[rows], schema)
    for key, values in columns.read(frame[rows]).items():
        assert torch.equal(columns.read(frame, rows)[key], values)
    broken = frame.with_columns(age=pl.Series(["1", "x", "2", "3", "4", "y"]))
    with pytest.raises(EncodingError, match=r"column 'age', row 5 .*, got 'y'"):
        columns.read(broken, rows)
    with pytest.raises(SchemaError, match=r"training rows: must be at least one, got 0"):
        Columns.fit(frame, schema, rows=rows[:0])


def test_no_rows_are_read_as_no_rows() -> None:
    frame = pl.DataFrame({"a": [1.5, 2.5], "c": ["x", "x"], "d": ["2013-01-01", "2013-01-02"]})
    raw = fit(frame, categorical=["c"]).read(frame.clear())
    assert raw["numeric"].shape == (0, 4)
    assert raw["categorical"].shape == (0, 1)


TRAIN = pl.DataFrame(
    {
        "age": [31, 42, 53],
        "member": ["yes", "no", "no"],
        "joined": ["2013-01-01", "2013-02-02", "2013-02-03"],
        "at": ["10:05", "11:05", "12:00"],
        "city": ["Rome", "Rome", "Oslo"],
    }
)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("age", ["1", "NA", "old"], r"column 'age', row 2 \(counting from 0\): must be a number, got 'old'\. Correct"),
        ("age", [dt.date(2013, 1, 1)] * 3, r"column 'age': must be a number, got type Date\. Convert the column"),
        ("age", [[1]] * 3, r"column 'age': must be a number, got type List\(Int64\)"),
        ("member", ["no", "perhaps", "x"], r"column 'member', row 1 .*: must be yes or no .*, got 'perhaps'"),
        ("member", [0, 1, 2], r"column 'member', row 2 .*: must be yes or no .*, got '2'"),
        ("joined", ["2013-01-01", None, "1.2.2013"], r"column 'joined', row 2 .*: must be a date .*, got '1.2.2013'"),
        ("joined", [1, 2, 3], r"column 'joined': must be a date .*, got type Int64"),
        ("at", ["25:00", None, None], r"column 'at', row 0 .*: must be a time of day .*, got '25:00'"),
        ("city", [b"x"] * 3, r"column 'city': must hold single values, got type Binary\. Convert the column"),
    ],
)
def test_values_that_do_not_fit_are_named(column: str, values: list[Any], message: str) -> None:
    columns = fit(TRAIN, categorical=["city"])
    with pytest.raises(EncodingError, match=message):
        columns.read(TRAIN.with_columns(pl.Series(column, values)))


def test_columns_that_are_not_there_are_named() -> None:
    columns = fit(TRAIN, categorical=["city"])
    message = (
        r"table: must have every column that the model was trained on, got a table without 'age', 'city'\. "
        r"Did you mean 'Age'\? Known: Age, member"
    )
    with pytest.raises(EncodingError, match=message):
        columns.read(TRAIN.rename({"age": "Age"}).drop("city"))
    wide = pl.DataFrame({f"x{i}": [1.5, 2.5] for i in range(30)})
    with pytest.raises(EncodingError, match=r"without 'x0', 'x1', .* and 20 more\."):
        fit(wide).read(pl.DataFrame({"y": [1]}))


def test_fit_errors() -> None:
    schema = infer_schema(TRAIN)
    with pytest.raises(SchemaError, match=r"training rows: must have the schema's columns, got a table without 'age'"):
        Columns.fit(TRAIN.drop("age"), schema)
    with pytest.raises(SchemaError, match=r"training rows: must be at least one, got 0\. Give the training part more"):
        Columns.fit(TRAIN.clear(), schema)
    with pytest.raises(EncodingError, match=r"column 'age', row 0 .*: must be a number, got 'old'"):
        Columns.fit(TRAIN.with_columns(age=pl.lit("old")), schema)
    for call in (lambda: Columns.fit([], schema), lambda: fit(TRAIN).read({})):  # type: ignore[arg-type]
        with pytest.raises(InputTypeError, match=r"frame: must be a polars.DataFrame, got "):
            call()


# No leakage


def test_only_training_rows_are_learnt_from() -> None:
    frame = pl.DataFrame(
        {
            "n": range(0, 200, 2),
            "c": ["a", "b", "b", "a"] * 25,
            "d": pl.date_range(dt.date(2013, 1, 1), dt.date(2013, 4, 10), eager=True),
        }
    )
    schema = infer_schema(frame)
    train = frame[:60]
    other = pl.DataFrame({"n": [10**9] * 40, "c": ["z"] * 40, "d": [dt.date(1950, 5, 5)] * 40})
    changed = pl.concat([train, other])
    assert Columns.fit(changed[:60], schema) == Columns.fit(train, schema)
    assert Columns.fit(changed, schema, rows=np.arange(60)) == Columns.fit(train, schema)
    assert Columns.fit(changed, schema) != Columns.fit(train, schema)


# JSON


def test_columns_survive_json() -> None:
    columns = fit(TRAIN, categorical=["city"])
    again = Columns.from_dict(json.loads(json.dumps(columns.to_dict())))
    assert again == columns
    assert all(torch.equal(again.read(TRAIN)[key], value) for key, value in columns.read(TRAIN).items())


def test_columns_without_ranges_are_read_as_they_were_before_there_were_any() -> None:
    columns = fit(TRAIN, categorical=["city"])
    before = columns.to_dict()
    for column in before["numeric"]:
        del column["low"], column["high"]
    read = Columns.from_dict(before)
    assert {(column.low, column.high) for column in read.numeric} == {(None, None)}
    assert all(torch.equal(read.read(TRAIN)[key], value) for key, value in columns.read(TRAIN).items())


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("numeric", 0, "reads"), "numbers", "columns: numeric.0.reads: input should be 'number'"),
        (("numeric", 0, "parts"), ["year"], "columns, 'age': must have the parts of a datetime, or none"),
        (("numeric", 2, "parts"), [], "columns, 'joined': must have the parts of a datetime, or none"),
        (("numeric", 2, "parts"), ["day", "day"], "columns, 'joined': must have the parts of a datetime, or none"),
        (("numeric", 2, "parts"), ["century"], "columns: numeric.2.parts.0: input should be 'year'"),
        (("numeric", 2, "origin"), 10**12, "columns, 'joined': must have the parts of a datetime, or none"),
        (("numeric", 2, "origin"), 1.5, "columns: numeric.2.origin: input should be a valid integer"),
        (("numeric", 0, "low"), "1", "columns: numeric.0.low: input should be a valid number"),
        (("numeric", 0, "low"), None, "columns, 'age': must have the range of its numbers, or none, got None to "),
        (("numeric", 0, "low"), 1e9, "columns, 'age': must have the range of its numbers, or none"),
        (("numeric", 0, "high"), math.inf, "columns, 'age': must have the range of its numbers, or none"),
        (("numeric", 0, "high"), math.nan, "columns, 'age': must have the range of its numbers, or none"),
        (("numeric", 1, "name"), "age", "columns: must name each column once, and one at least, got 2 times 'age'"),
        (("categorical", 0, "vocabulary"), ["a", "a"], "columns, 'city': must have a vocabulary of distinct texts"),
        (("categorical", 0, "vocabulary"), [""], "columns, 'city': must have a vocabulary of distinct texts"),
        (("categorical", 0, "vocabulary"), [1], "categorical.0.vocabulary.0: input should be a valid string"),
        (("more",), 1, "columns: more: unexpected keyword argument"),
    ],
)
def test_damaged_columns_are_refused(path: tuple[Any, ...], value: Any, message: str) -> None:
    data = fit(TRAIN, categorical=["city"]).to_dict()
    place: Any = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(SchemaError, match=message):
        Columns.from_dict(data)


def test_no_columns_are_refused() -> None:
    with pytest.raises(SchemaError, match=r"must name each column once, and one at least, got none"):
        Columns.from_dict({"numeric": [], "categorical": []})


# Anything

TABLES = dataframes(max_cols=3, max_size=6, allow_time_zones=False)


def check_read(columns: Columns, frame: pl.DataFrame) -> None:
    """Reading either gives what it promises or says why not."""
    with suppress(StokerError):
        raw = columns.read(frame)
        assert ("numeric" in raw, "categorical" in raw) == (columns.numeric != (), columns.categorical != ())
        if "numeric" in raw:
            assert raw["numeric"].shape == (frame.height, len(columns.numeric_names))
            assert not raw["numeric"].isinf().any()
        if "categorical" in raw:
            assert raw["categorical"].shape == (frame.height, len(columns.categorical))
            assert (raw["categorical"] >= 0).all()
            assert (raw["categorical"] < torch.tensor(columns.cardinalities)).all()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TABLES, TABLES, st.data())
def test_reading_anything_raises_nothing_but_stokers_own(train: pl.DataFrame, other: pl.DataFrame, data: Any) -> None:
    chosen = data.draw(st.lists(st.sampled_from(train.columns), unique=True)) if train.columns else []
    try:
        try:
            schema: Schema = infer_schema(train, categorical=chosen)
        except StokerError:
            schema = infer_schema(train)
        columns = Columns.fit(train, schema)
    except StokerError:
        return
    assert Columns.from_dict(columns.to_dict()) == columns
    check_read(columns, train)
    if other.width:  # its values under the names that are asked for
        check_read(
            columns, pl.DataFrame({name: other.to_series(i % other.width) for i, name in enumerate(columns.names)})
        )
