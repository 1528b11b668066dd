from __future__ import annotations

import datetime as dt
import json
from contextlib import suppress
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing.parametric import dataframes

from stoker.data.dataset import Task
from stoker.data.schema import Column, Schema, Target, infer_schema
from stoker.errors import ConfigError, InputTypeError, SchemaError, StokerError, UnknownNameError

N = 40
WAVES = [i / 7 for i in range(N)]


def column(values: Any, name: str = "x", dtype: Any = None, **overrides: Any) -> Column:
    frame = pl.DataFrame({name: pl.Series(values, dtype=dtype)})
    (found,) = infer_schema(frame, **overrides).columns
    return found


def target(values: Any, task: Task | None = None, dtype: Any = None) -> Target:
    frame = pl.DataFrame({"x": range(len(values)), "y": pl.Series(values, dtype=dtype)})
    found = infer_schema(frame, "y", task=task, numeric=["x"]).target
    assert found is not None
    return found


# Each kind, and the reason for it


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([5, 7, 7, 9] * 10, "whole numbers from 5 to 9"),
        (WAVES, "numbers from 0 to 5.57143"),
        ([1.0, float("nan"), float("inf"), None, 2.5], "numbers from 1 to 2.5"),
        ([Decimal("1.5"), Decimal("2.5")], "numbers from 1.5 to 2.5"),
        ([dt.timedelta(seconds=90), dt.timedelta(hours=1)], "durations, as seconds from 90 to 3600"),
        (["1.5", " 2", "NA", None], "text, but numbers from 1.5 to 2"),
        ([0, 1, 2, 4], "whole numbers from 0 to 4"),
    ],
)
def test_numeric(values: list[Any], reason: str) -> None:
    found = column(values)
    assert (found.kind, found.reason) == ("numeric", reason)


def test_very_large_integers_are_numeric() -> None:
    assert column([2**100, 1, 3], dtype=pl.Int128).kind == "numeric"
    assert column([2**64 - 1, 1, 3], dtype=pl.UInt64).kind == "numeric"


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([True, False, None], "true or false"),
        (["yes", "No", "NO", None], "only NO, No, yes"),
        (["t", "f"], "only f, t"),
        (["Y", "N", "NA"], "only N, Y"),
        ([0, 1, 1], "only 0 and 1"),
        ([0.0, 1.0, None], "only 0 and 1"),
        (["0", "1"], "only 0, 1"),
    ],
)
def test_boolean(values: list[Any], reason: str) -> None:
    found = column(values)
    assert (found.kind, found.reason) == ("boolean", reason)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([dt.date(2013, 1, 1), dt.date(2014, 2, 3)], "dates from 2013-01-01 to 2014-02-03"),
        ([dt.datetime(2013, 1, 1, 5), None, dt.datetime(2013, 1, 2)], "dates from 2013-01-01 05:00:00 to 2013-01-02"),
        ([dt.time(10, 5), dt.time(23, 0)], "times of day from 10:05:00 to 23:00:00"),
        (["2013-01-01", "2014-02-03T00:00:00Z", "NA"], "text, but dates from 2013-01-01 to 2014-02-03"),
        (["10:05", "23:00:00"], "text, but times of day from 10:05:00 to 23:00:00"),
    ],
)
def test_datetime(values: list[Any], reason: str) -> None:
    found = column(values)
    assert (found.kind, found.reason) == ("datetime", reason)


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("x", ["a", "b"] * 20, "text with 2 distinct values"),
        ("x", ["0123", "4567"] * 20, "digits with leading zeros with 2 distinct values"),
        ("x", ["US", None] * 20, "always 'US' where there is a value, which may tell something"),
        ("store_id", [3, 7] * 20, "2 distinct whole numbers in a column named like an id: names, not amounts"),
        ("zip", [10115, 20095] * 20, "2 distinct whole numbers in a column named like a code: names, not amounts"),
        (
            "x",
            ["1", "2", "3"] * 13 + ["n.b."],
            "text: numbers, but for one row, such as 'n.b.' in row 39 (counting from 0); 4 distinct values",
        ),
    ],
)
def test_categorical(name: str, values: list[Any], reason: str) -> None:
    found = column(values, name)
    assert (found.kind, found.reason) == ("categorical", reason)


@pytest.mark.parametrize("dtype", [pl.Categorical, pl.Enum(["1", "2", "3"])])
def test_a_type_of_categories_is_categorical_even_if_they_are_numbers(dtype: Any) -> None:
    assert column(["1", "2"] * 5, dtype=dtype).kind == "categorical"


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("x", [None] * 3, "every value is missing"),
        ("x", [float("nan"), None], "every value is missing"),
        ("x", ["", " "], "every value is missing"),
        ("x", ["US"] * 3, "constant: always 'US'"),
        ("x", [2013] * 3, "constant: always '2013'"),
        ("x", [True] * 3, "constant: always 'true'"),
        ("x", [dt.date(2013, 1, 1)] * 3, "constant: always '2013-01-01'"),
        ("x", range(10), "whole numbers that count the rows from 0 on"),
        ("x", range(1, 11), "whole numbers that count the rows from 1 on"),
        ("x", [f"u{i}" for i in range(5)], "identifier-like: every value is different"),
        ("x", [f"u{max(i, 2)}" for i in range(N)], "identifier-like: 38 of 40 values are different"),
        ("x", [f"the cat sat on mat {i // 2}" for i in range(N)], "free text: 20 of 40 values are different"),
        ("x", [[1, 2], [3]], "holds lists or structs (List(Int64)), which are no single values"),
        ("x", [{"a": 1}], "holds lists or structs (Struct({'a': Int64})), which are no single values"),
        ("x", [b"\x00", b"\xff"], "holds bytes (Binary), which are no single values"),
        (
            "x",
            [str(3 * i) for i in range(N)] + ["€5", "€6"],
            "text: numbers, but for 2 rows, such as '€5' in row 40 (counting from 0); correct or empty these to use "
            "the column",
        ),
    ],
)
def test_ignored(name: str, values: Any, reason: str) -> None:
    found = column(values, name)
    assert (found.kind, found.reason) == ("ignored", reason)


@pytest.mark.parametrize(
    "name", ["id", "ID", "customer_id", "PassengerId", "userID", "uuid", "index", "Unnamed: 0", ""]
)
def test_different_whole_numbers_under_the_name_of_an_id_are_ignored(name: str) -> None:
    reason = "an identifier: whole numbers, all different, in a column named like an id"
    for values in ([70, 30, 50], [70.0, 30.0, None]):
        found = column(values, name)
        assert (found.kind, found.reason) == ("ignored", reason)
    assert column([0.5, 1.5, 2.5], name).kind == "numeric"


@pytest.mark.parametrize("name", ["paid", "grid", "humidity", "idle", "width", "price_index"])
def test_names_that_only_contain_id_are_not_ids(name: str) -> None:
    assert column([70, 30, 50], name).kind == "numeric"


def test_a_few_rows_do_not_count_and_neither_do_floats() -> None:
    assert column([1, 2, 3]).kind == "numeric"
    assert column([i / 2 for i in range(100)]).kind == "numeric"
    assert column([0, 2, 1, *range(3, 20)]).kind == "numeric"


def test_python_objects_are_ignored() -> None:
    frame = pl.DataFrame({"x": pl.Series([object(), object()], dtype=pl.Object), "z": [1, 2]})
    schema = infer_schema(frame)
    assert schema.columns[0].reason == "holds Python objects (Object), which are no single values"
    assert [found.name for found in schema.features] == ["z"]


def test_what_was_counted() -> None:
    found = column(["b", None, "a", " ", "b"], dtype=pl.String)
    assert found == Column("x", "categorical", "String", "text with 2 distinct values", 2, 2, "b")
    found = column([2.5, float("nan"), float("inf"), 4.0])
    assert (found.missing, found.distinct, found.example, found.dtype) == (2, 2, "2.5", "Float64")
    assert len(column(["x" * 100, "y"] * 5).example) == 40


# Overrides


def test_every_guess_can_be_overridden() -> None:
    frame = pl.DataFrame(
        {"id": range(N), "code": ["1", "2"] * 20, "when": ["2013-01-01", "2013-01-02"] * 20, "n": WAVES, "one": [1] * N}
    )
    schema = infer_schema(frame, numeric=["id", "one"], categorical=["when", "n"], ignore=["code"])
    assert [(found.name, found.kind, found.reason) for found in schema.columns] == [
        ("id", "numeric", "numeric on request"),
        ("code", "ignored", "ignored on request"),
        ("when", "categorical", "categorical on request"),
        ("n", "categorical", "categorical on request"),
        ("one", "numeric", "numeric on request"),
    ]
    assert infer_schema(frame, datetime="when").columns[2].reason == "datetime on request"
    assert column(["10:05", "x"][:1], datetime=["x"]).kind == "datetime"


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (
            {"numeric": ["t"]},
            SchemaError,
            r"column 't', row 1 \(counting from 0\): must hold numbers to be numeric, got 'b'\. Correct the values",
        ),
        (
            {"datetime": ["t"]},
            SchemaError,
            r"column 't', row 0 \(counting from 0\): must hold dates or datetimes .* to be datetime, got '1'\.",
        ),
        ({"datetime": ["n"]}, SchemaError, r"column 'n': must hold dates .*, got Float64\. Convert the column first"),
        ({"numeric": ["l"]}, SchemaError, r"column 'l': must hold numbers to be numeric, got List\(Int64\)\."),
        ({"categorical": ["l"]}, SchemaError, r"column 'l': must hold single values to be categorical, got List"),
        ({"ignore": ["nn"]}, UnknownNameError, r"ignore: .*, got 'nn'\. Did you mean 'n'\? Known: t, n, l, y\."),
        ({"numeric": ["n"], "ignore": ["n"]}, ConfigError, "ignore: must not name a column that numeric names too"),
        ({"datetime": ["y"], "target": "y"}, ConfigError, "datetime: must not name the target, got 'y'"),
        ({"ignore": ["y"], "target": "y"}, ConfigError, "ignore: must not name the target, got 'y'"),
        ({"task": "binary"}, ConfigError, "task: needs a target to be the task of, got 'binary'"),
    ],
)
def test_overrides_that_cannot_be(overrides: dict[str, Any], error: type[StokerError], message: str) -> None:
    frame = pl.DataFrame({"t": ["1", "b"] * 20, "n": WAVES, "l": [[1]] * N, "y": ["p", "q"] * 20})
    with pytest.raises(error, match=message):
        infer_schema(frame, **overrides)


# Target


@pytest.mark.parametrize(
    ("values", "task", "classes", "reason"),
    [
        (["b", "a"] * 5, "binary", ("a", "b"), "text with 2 distinct values"),
        (["b", "a", "c"] * 5, "multiclass", ("a", "b", "c"), "text with 3 distinct values"),
        ([True, False] * 5, "binary", ("false", "true"), "true or false"),
        ([1, 0] * 5, "binary", ("0", "1"), "whole numbers with 2 distinct values"),
        ([-1.0, 1.0] * 5, "binary", ("-1", "1"), "whole numbers with 2 distinct values"),
        (
            [10, 9, 2] * 5,
            "multiclass",
            ("2", "9", "10"),
            "whole numbers with 3 distinct values; more than 20 would be regression",
        ),
        (
            [float(i % 10) for i in range(50)],
            "multiclass",
            tuple("0123456789"),
            "whole numbers with 10 distinct values; more than 10 would be regression",
        ),
        (
            [float(i % 11) for i in range(55)],
            "regression",
            (),
            "whole numbers with 11 distinct values; up to 10 would be classes",
        ),
        (list(range(100)), "regression", (), "whole numbers with 100 distinct values; up to 20 would be classes"),
        (
            [1, 2, 3, 4] * 4,
            "regression",
            (),
            "whole numbers with 4 distinct values in 16 rows; with 5 rows to a value they would be classes",
        ),
        (WAVES, "regression", (), "numbers with fractions, from 0 to 5.57143"),
        ([0.5, 1.5] * 5, "regression", (), "numbers with fractions, from 0.5 to 1.5"),
        ([dt.timedelta(seconds=i) for i in range(9)], "regression", (), "durations, taken as seconds"),
        (["1", "2"] * 5, "binary", ("1", "2"), "text, but whole numbers with 2 distinct values"),
        (["1.5", "2.25", "NA"], "regression", (), "text, but numbers with fractions, from 1.5 to 2.25"),
    ],
)
def test_task(values: list[Any], task: str, classes: tuple[str, ...], reason: str) -> None:
    found = target(values)
    assert (found.task, found.classes, found.reason) == (task, classes, reason)


def test_categories_are_classes_even_if_they_are_many_numbers() -> None:
    values = [str(i % 30) for i in range(60)]
    found = target(values, dtype=pl.Categorical)
    assert (found.task, len(found.classes), found.reason) == ("multiclass", 30, "categories with 30 distinct values")


def test_unused_levels_are_no_classes() -> None:
    assert target(["a", "b"] * 5, dtype=pl.Enum(["a", "b", "c"])).classes == ("a", "b")


def test_missing_targets_are_counted() -> None:
    assert target([1.5, None, float("nan"), 2.5]).missing == 2
    assert target(["a", "b", None, ""] * 2).missing == 4
    found = target(["None", "Low", None] * 2)
    assert (found.classes, found.missing) == (("Low", "None"), 2)


@pytest.mark.parametrize("task", ["regression", "multiclass"])
def test_task_on_request(task: Task) -> None:
    found = target([1, 2, 3] * 5, task)
    assert (found.task, found.reason) == (task, f"{task} on request")
    assert found.classes == (() if task == "regression" else ("1", "2", "3"))


@pytest.mark.parametrize(
    ("values", "task", "message"),
    [
        ([None] * 4, None, "target 'y': must have values, got missing ones only. Name another target"),
        ([7] * 4, None, "target 'y': must have more than one value, got '7' in every row. There is nothing to learn"),
        (["a", None] * 4, None, "target 'y': must have more than one value, got 'a' in every row"),
        (
            ["a", "a", "a", "b"],
            None,
            "target 'y': must have classes of two rows at least, .*, got one row of class 'b'. Drop the row, merge",
        ),
        ([0] * 9 + [1], None, "one row of class '1'. Drop the row, merge .* take the target as numbers"),
        (
            [f"k{i}" for i in range(N)],
            None,
            "target 'y': must have classes of several rows each, got 40 distinct values in 40 rows. Nearly every value",
        ),
        (
            [i // 3 for i in range(3003)],
            "multiclass",
            "target 'y': must have at most 1,000 classes, got 1,001 distinct values. Merge .*task regression",
        ),
        ([1.5, float("inf"), 2.5], None, r"column 'y', row 1 \(counting from 0\): must be finite, got inf. Correct it"),
        (
            ["1.5", "2.5", "abc"] * 3,
            "regression",
            r"column 'y', row 2 \(counting from 0\): must be a number for regression, got 'abc'. Correct it, or take",
        ),
        (["a", "b", "c"] * 3, "binary", r"target 'y': must have two classes for task binary, got 3 \('a', 'b', 'c'\)"),
        ([[1]] * 4, None, r"target 'y': must hold numbers or classes, got List\(Int64\)"),
        ([dt.date(2013, 1, 1), dt.date(2013, 1, 2)], None, "target 'y': must hold numbers or classes, got Date"),
    ],
)
def test_targets_that_nothing_can_be_learnt_from(values: list[Any], task: Task | None, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        target(values, task)


def test_the_text_of_an_error_is_not_drowned_in_names() -> None:
    singles = [f"single {i}" for i in range(9)] + ["many"] * 30
    with pytest.raises(SchemaError, match=r"classes 'single 0', 'single 1', .* 'single 4' and others"):
        target(singles)


def test_table_errors() -> None:
    frame = pl.DataFrame({"x": [1] * 4, "l": [[1]] * 4, "price": [1.5, 2.5, 3.5, 4.5]})
    with pytest.raises(
        SchemaError, match=r"target: must be a column of the table, got 'prize'. Did you mean 'price'\?"
    ):
        infer_schema(frame, "prize")
    with pytest.raises(UnknownNameError, match=r"task: .*, got 'binray'. Did you mean 'binary'"):
        infer_schema(frame, "price", task="binray")  # type: ignore[arg-type]
    message = r"table: must have a usable column beside the target, got none .x: constant: always '1'; l: holds lists"
    with pytest.raises(SchemaError, match=message):
        infer_schema(frame, "price")
    assert infer_schema(frame).target is None
    with pytest.raises(SchemaError, match=r"usable column beside the target, got none \(there are no others\)"):
        infer_schema(frame.select("price"), "price")
    with pytest.raises(SchemaError, match=r"table: must have rows and columns, got 0 x 3"):
        infer_schema(frame.clear())
    with pytest.raises(InputTypeError, match=r"frame: must be a polars.DataFrame, got dict"):
        infer_schema({"x": [1]})  # type: ignore[arg-type]


# JSON


def example() -> Schema:
    frame = pl.DataFrame({"a": WAVES, "b": ["x", "yé"] * 20, "c": [None] * N, "y": ["p", "q"] * 20})
    return infer_schema(frame, "y")


def test_schema_survives_json() -> None:
    schema = example()
    assert Schema.from_dict(json.loads(json.dumps(schema.to_dict()))) == schema
    without = infer_schema(pl.DataFrame({"a": WAVES}))
    assert Schema.from_dict(without.to_dict()) == without


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("columns", 0, "kind"), "numberic", "columns.0.kind: input should be 'numeric'"),
        (("columns", 0, "missing"), "3", "columns.0.missing: input should be a valid integer, got '3'"),
        (("columns", 0, "missing"), -1, "must count missing and distinct values from 0 on"),
        (("columns", 0, "missing"), True, "columns.0.missing: input should be a valid integer"),
        (("columns", 0, "name"), None, "columns.0.name: input should be a valid string, got None"),
        (("columns", 0, "extra"), 1, "columns.0.extra: unexpected keyword argument"),
        (("columns", 0, "name"), "b", "must name each column once, got 'b'"),
        (("columns", 0, "name"), "y", "must name each column once, got 'y'"),
        (("columns",), 5, "schema: columns: input should be a valid array, got 5. Take it from a file that Stoker"),
        (("target", "classes"), ["p"], "must have the distinct classes of its task, got 1 classes for task binary"),
        (("target", "classes"), ["p", "p"], "must have the distinct classes of its task"),
        (("target", "task"), "regression", "must have the distinct classes of its task, got 2 classes for task reg"),
        (("target",), [], "target: input should be an object"),
        (("more",), object(), "schema: must be plain JSON data, got dict"),
    ],
)
def test_a_damaged_schema_is_refused(path: tuple[Any, ...], value: Any, message: str) -> None:
    data = example().to_dict()
    place: Any = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(SchemaError, match=message):
        Schema.from_dict(data)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from(["columns", "target", "name"]) | st.text(), inner)
        ),
    )
)
def test_garbage_is_no_schema(data: Any) -> None:
    if data == {"columns": [], "target": None}:
        return
    with pytest.raises(SchemaError):
        Schema.from_dict(data)


# Anything


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(dataframes(max_cols=6, max_size=12, allow_time_zones=False))
def test_inference_describes_any_table_or_says_why_not(frame: pl.DataFrame) -> None:
    try:
        schema = infer_schema(frame)
    except SchemaError:
        assert frame.is_empty()
        return
    assert [found.name for found in schema.columns] == frame.columns
    assert all(found.reason and 0 <= found.missing <= frame.height for found in schema.columns)
    assert Schema.from_dict(schema.to_dict()) == schema
    for name in frame.columns:
        with suppress(StokerError):
            infer_schema(frame, name)


def test_scikit_learns_own_tables() -> None:
    from sklearn import datasets

    expected = {
        "iris": ("multiclass", 3),
        "wine": ("multiclass", 3),
        "breast_cancer": ("binary", 2),
        "digits": ("multiclass", 10),
    }
    for name, (task, n) in expected.items():
        data = getattr(datasets, f"load_{name}")()
        frame = pl.DataFrame(np.asarray(data.data), schema=[str(c) for c in data.feature_names])
        schema = infer_schema(frame.with_columns(y=data.target), "y")
        assert schema.target is not None
        assert (schema.target.task, len(schema.target.classes)) == (task, n), name
        kinds = {found.name: found.kind for found in schema.columns if found.kind not in ("numeric", "boolean")}
        constant = [c for c in frame.columns if frame[c].n_unique() == 1]
        assert kinds == dict.fromkeys(constant, "ignored"), name
    data = datasets.load_diabetes()
    frame = pl.DataFrame(data.data, schema=list(data.feature_names)).with_columns(y=data.target)
    schema = infer_schema(frame, "y")
    assert schema.target is not None
    assert schema.target.task == "regression"
    assert len(schema.features) == 10
