from __future__ import annotations

import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
import torch

from stoker.data.sources.frames import array_from, frame_from, kind_of, series_from
from stoker.errors import DataError, InputTypeError, SchemaError

pd = pytest.importorskip("pandas")


def of_pandas(**columns: Any) -> pl.DataFrame:
    frame = frame_from(pd.DataFrame(columns))
    assert frame is not None
    return frame


def test_pandas_numbers_and_booleans() -> None:
    frame = of_pandas(i=[1, 2], f=[1.5, float("nan")], b=[True, False], u=np.array([1, 2], np.uint8))
    assert frame.to_dict(as_series=False) == {"i": [1, 2], "f": [1.5, None], "b": [True, False], "u": [1, 2]}
    assert frame.dtypes == [pl.Int64, pl.Float64, pl.Boolean, pl.UInt8]


def test_pandas_nullable_types() -> None:
    frame = of_pandas(
        i=pd.array([1, None], dtype="Int32"),
        f=pd.array([1.5, None], dtype="Float64"),
        b=pd.array([True, None], dtype="boolean"),
        s=pd.array(["x", None], dtype="string"),
    )
    assert frame.to_dict(as_series=False) == {"i": [1, None], "f": [1.5, None], "b": [True, None], "s": ["x", None]}
    assert frame.dtypes == [pl.Int32, pl.Float64, pl.Boolean, pl.String]


def test_pandas_text_and_other_objects() -> None:
    frame = of_pandas(
        s=["x", None],
        o=pd.Series(["x", pd.NA], dtype=object),
        mixed=pd.Series([1, "a"], dtype=object),
        dates=pd.Series([date(2020, 1, 31), pd.NaT], dtype=object),
        whole=pd.Series([1, None], dtype=object),
        parts=pd.Series([1, 2.5], dtype=object),
        decimals=pd.Series([Decimal("1.5"), Decimal("NaN")], dtype=object),
    )
    assert frame.to_dict(as_series=False) == {
        "s": ["x", None],
        "o": ["x", None],
        "mixed": ["1", "a"],
        "dates": [date(2020, 1, 31), None],
        "whole": [1, None],
        "parts": [1.0, 2.5],
        "decimals": [1.5, None],
    }


def test_pandas_categories_keep_their_order_and_never_become_numbers() -> None:
    values = pd.Categorical(["low", None, "high"], categories=["low", "mid", "high"], ordered=True)
    frame = of_pandas(c=values, n=pd.Categorical([3, 1, None], categories=[3, 2, 1]))
    assert frame["c"].to_list() == ["low", None, "high"]
    assert frame["c"].dtype == pl.Enum(["low", "mid", "high"])
    assert frame["n"].to_list() == ["3", "1", None]
    assert frame["n"].dtype == pl.Enum(["3", "2", "1"])
    assert of_pandas(c=pd.Categorical([1, "1"]))["c"].to_list() == ["1", "1"]
    assert of_pandas(c=pd.Categorical([None, None]))["c"].to_list() == [None, None]
    assert frame_from(pd.DataFrame({"c": pd.cut([1, 5], [0, 3, 6])}))["c"].to_list() == ["(0, 3]", "(3, 6]"]  # type: ignore[index]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_pandas_times(unit: str) -> None:
    naive = pd.Series(np.array(["2020-01-31T10:00", "NaT"], f"M8[{unit}]"))
    frame = of_pandas(
        t=naive, z=naive.dt.tz_localize("Europe/Zurich"), o=naive.dt.tz_localize("+02:00"), d=naive - naive
    )
    assert frame["t"].to_list() == [datetime(2020, 1, 31, 10), None]
    assert frame["z"].to_list() == [datetime(2020, 1, 31, 10, tzinfo=ZoneInfo("Europe/Zurich")), None]
    assert frame["z"].dtype.time_zone == "Europe/Zurich"  # type: ignore[attr-defined]
    assert [None if t is None else t.astimezone(UTC) for t in frame["o"]] == [
        datetime(2020, 1, 31, 8, tzinfo=UTC),
        None,
    ]
    assert frame["d"].to_list() == [timedelta(0), None]


def test_pandas_periods_sparse_and_intervals() -> None:
    frame = of_pandas(
        p=pd.period_range("2020-01", periods=2, freq="M"),
        s=pd.arrays.SparseArray([0.0, 1.5]),
        i=pd.arrays.IntervalArray.from_breaks([0, 1, 2]),
    )
    assert frame["p"].to_list() == [datetime(2020, 1, 1), datetime(2020, 2, 1)]
    assert frame["s"].to_list() == [0.0, 1.5]
    assert frame["i"].to_list() == ["(0, 1]", "(1, 2]"]


def test_pandas_index_and_names() -> None:
    frame = frame_from(pd.DataFrame([[1, 2], [3, 4]], columns=[0, ("a", 1)], index=["x", "y"]))
    assert frame is not None
    assert frame.to_dict(as_series=False) == {"0": [1, 3], "('a', 1)": [2, 4]}
    with pytest.raises(
        SchemaError, match=r"pandas\.DataFrame: column names must be unique, got '0' as columns 1 and 2"
    ):
        frame_from(pd.DataFrame([[1, 2]], columns=[0, "0"]))
    with pytest.raises(SchemaError, match=r"'a' as columns 1 and 2"):
        frame_from(pd.DataFrame([[1, 2]], columns=["a", "a"]))


def test_pandas_needs_no_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    source = pd.DataFrame(
        {"a": [1, 2], "s": ["x", None], "c": pd.Categorical(["u", "v"]), "t": pd.to_datetime(["2020"] * 2)}
    )
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # importing it fails from here on
    frame = frame_from(source)
    assert frame is not None
    assert frame.rows()[0] == (1, "x", "u", datetime(2020, 1, 1))


def test_pandas_arrow_types() -> None:
    pytest.importorskip("pyarrow")
    frame = of_pandas(
        i=pd.array([1, None], dtype="int64[pyarrow]"),
        s=pd.array(["x", None], dtype="string[pyarrow]"),
        t=pd.array([datetime(2020, 1, 1), None], dtype="timestamp[us][pyarrow]"),
    )
    assert frame.to_dict(as_series=False) == {"i": [1, None], "s": ["x", None], "t": [datetime(2020, 1, 1), None]}


def test_pandas_agrees_with_pandas_on_every_value() -> None:
    generator = np.random.default_rng(0)
    source = pd.DataFrame({f"c{i}": generator.normal(size=50) for i in range(3)} | {"k": generator.integers(0, 9, 50)})
    frame = frame_from(source)
    assert frame is not None
    np.testing.assert_array_equal(frame.to_numpy(), source.to_numpy())


def test_pyarrow_tables() -> None:
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"a": [1, None], "b": pa.array(["x", "y"]).dictionary_encode(), "f": [1.0, float("nan")]})
    for source in (table, table.to_batches()[0], table.to_reader()):
        frame = frame_from(source)
        assert frame is not None
        assert frame.to_dict(as_series=False) == {"a": [1, None], "b": ["x", "y"], "f": [1.0, None]}
    twice = pa.table([[1], [2]], names=["a", "a"])
    for source in (twice, twice.to_batches()[0]):
        with pytest.raises(SchemaError, match=r"pyarrow\.\w+: column names must be unique, got 'a' as columns 1 and 2"):
            frame_from(source)


def test_polars_frames_come_through_with_nan_as_null() -> None:
    frame = frame_from(pl.DataFrame({"a": [1.0, float("nan")], "b": ["x", None]}))
    assert frame is not None
    assert frame.to_dict(as_series=False) == {"a": [1.0, None], "b": ["x", None]}


def test_lazy_frames_are_refused() -> None:
    with pytest.raises(
        InputTypeError, match=r"must be in memory, got polars\.LazyFrame\. Call \.collect\(\) on it first\."
    ):
        frame_from(pl.LazyFrame({"a": [1]}))


@pytest.mark.parametrize("source", [1, "text", None, [1, 2], {"a": [1]}, np.zeros((2, 2)), pl.Series([1]), object()])
def test_what_is_no_frame(source: Any) -> None:
    assert frame_from(source) is None


@pytest.mark.parametrize(
    ("values", "expected", "dtype"),
    [
        ([1, None, 3], [1, None, 3], pl.Int64),
        ([1, 2.5], [1.0, 2.5], pl.Float64),
        ([2**70, 1], [float(2**70), 1.0], pl.Float64),
        ([True, None], [True, None], pl.Boolean),
        ([True, 1], ["True", "1"], pl.String),
        (["x", float("nan")], ["x", None], pl.String),
        ([np.int32(1), np.float32(2.5)], [1.0, 2.5], pl.Float64),
        ([np.datetime64("2020-01-31T10:00", "ns"), np.datetime64("NaT")], [datetime(2020, 1, 31, 10), None], None),
        ([None, None], [None, None], pl.String),
        (range(3), [0, 1, 2], pl.Int64),
        (np.array([1.5, np.nan], np.float16), [1.5, None], pl.Float32),
        (np.array([1, 2], ">i4"), [1, 2], pl.Int32),
        (np.array([1.5, 2.5], np.longdouble), [1.5, 2.5], pl.Float64),
        (np.array([b"x", b"y"]), ["x", "y"], pl.String),
        (np.array(["x", "y"]), ["x", "y"], pl.String),
        (np.array(["2020-01", "NaT"], "M8[M]"), [date(2020, 1, 1), None], pl.Date),
        (np.array([1, "NaT"], "m8[D]"), [timedelta(days=1), None], None),
        (np.ma.MaskedArray([1, 2], mask=[False, True]), [1, None], pl.Int64),
        (np.array([[1], [2]]), [1, 2], pl.Int64),
        (np.array([1, "x", None], object), ["1", "x", None], pl.String),
        (torch.tensor([1.5, 2.5], requires_grad=True), [1.5, 2.5], pl.Float32),
        (torch.tensor([1, 2]), [1, 2], pl.Int64),
        (torch.tensor([1.5, 2.5], dtype=torch.bfloat16), [1.5, 2.5], pl.Float32),
        (torch.tensor([0.0, 2.5]).to_sparse(), [0.0, 2.5], pl.Float32),
        (pl.Series("other", [1.0, float("nan")]), [1.0, None], pl.Float64),
        (pd.Series([1, 2], name="other"), [1, 2], pl.Int64),
        (pd.Categorical(["b", "a"]), ["b", "a"], pl.Enum(["a", "b"])),
        (pd.Index(["b", "a"]), ["b", "a"], pl.String),
    ],
)
def test_columns_of_every_kind(values: Any, expected: list[Any], dtype: Any) -> None:
    series = series_from("^a*$", values)
    assert series.name == "^a*$"
    assert series.to_list() == expected
    assert dtype is None or series.dtype == dtype


def test_columns_of_pyarrow() -> None:
    pa = pytest.importorskip("pyarrow")
    assert series_from("a", pa.array([1, None])).to_list() == [1, None]
    assert series_from("a", pa.chunked_array([[1], [2]])).to_list() == [1, 2]


def test_columns_that_hold_no_values() -> None:
    with pytest.raises(
        SchemaError, match=r"column 'a', row 1: must hold numbers, text, booleans or times, got a list\."
    ):
        series_from("a", [None, [1]])
    with pytest.raises(SchemaError, match=r"column 'a': must hold numbers.*, got the dtype complex128\. Split complex"):
        series_from("a", np.array([1j]))
    with pytest.raises(SchemaError, match=r"column 'a': must hold numbers.*, got the dtype \|V2\. Convert the column"):
        series_from("a", np.zeros(2, "V2"))
    with pytest.raises(DataError, match=r"column 'a': must be one-dimensional, got the shape \(2, 2\)\. Give each of"):
        series_from("a", np.zeros((2, 2)))
    with pytest.raises(InputTypeError, match=r"column 'a': a column must be an array.*, got int\. Convert it first"):
        series_from("a", 7)


def test_arrays() -> None:
    assert array_from([1]) is None
    assert array_from(np.ndarray) is None
    tensor = torch.arange(3)
    array = array_from(tensor)
    assert array is not None
    assert np.shares_memory(array, tensor.numpy())


def test_kinds_in_words() -> None:
    assert kind_of(pd.DataFrame()) == "pandas.DataFrame"
    assert kind_of((np.zeros(1), torch.zeros(1), 3)) == "(numpy.ndarray, torch.Tensor, int)"
