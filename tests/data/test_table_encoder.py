from __future__ import annotations

import json
import warnings
from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from torch import Tensor

from stoker.data.columns import Columns
from stoker.data.encoder import TableEncoder
from stoker.data.schema import infer_schema
from stoker.errors import ConfigError, EncodingError, SchemaError, StokerError, UnknownNameError

EPS32 = float(np.finfo(np.float32).eps)


def table(n: int = 300, seed: int = 0) -> pl.DataFrame:
    """Numbers with and without gaps, few and many categories with and without gaps."""
    rng = np.random.default_rng(seed)
    gaps = rng.random((n, 2)) < 0.1
    few = rng.choice(["red", "green", "blue"], n).astype(object)
    few[gaps[:, 1]] = None
    return pl.DataFrame(
        {
            "plain": rng.normal(1e6, 1, n),
            "gappy": np.where(gaps[:, 0], np.nan, rng.exponential(50, n)),
            "flag": rng.random(n) < 0.3,
            "few": pl.Series(few, dtype=pl.String),
            "size": rng.choice(["S", "M"], n),
            "many": [f"k{i}" for i in rng.integers(0, 30, n)],
        }
    )


def fit(frame: pl.DataFrame, columns: Columns | None = None, **options: Any) -> tuple[Columns, TableEncoder]:
    columns = columns or Columns.fit(frame, infer_schema(frame))
    return columns, TableEncoder.fit(columns.read(frame), columns, **options)


@cache
def embedding_encoder() -> TableEncoder:
    return fit(table(), categories="embedding")[1]


# What comes out


def test_layout() -> None:
    columns, encoder = fit(table())
    assert encoder.feature_names == (
        "plain",
        "gappy",
        "flag",
        "gappy is missing",
        "few=blue",
        "few=green",
        "few=red",
        "few is missing",
        "size=M",
        "size=S",
    )
    assert encoder.n_numeric == 10
    assert encoder.cardinalities == (32,)
    encoded = encoder(**columns.read(table()))
    assert {name: (values.dtype, tuple(values.shape)) for name, values in encoded.items()} == {
        "numeric": (torch.float32, (300, 10)),
        "categorical": (torch.int64, (300, 1)),
    }
    assert list(encoder.parameters()) == []
    assert set(encoder.state_dict()) == {"mean", "std"}
    assert str(encoder) == "TableEncoder(3 numeric, 3 categorical -> 10 features, 1 to embed)"


def test_it_does_what_scikit_learn_does() -> None:
    train, test = table(300), table(50, seed=1)
    test[3, "size"] = "XXL"
    columns, encoder = fit(train, categories="one-hot")
    numbers, categories = ["plain", "gappy", "flag"], ["few", "size", "many"]
    imputer = SimpleImputer(add_indicator=True)
    one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    theirs = ColumnTransformer([("n", imputer, numbers), ("c", one_hot, categories)]).set_output(transform="default")

    def rows(frame: pl.DataFrame) -> Any:
        pd = pytest.importorskip("pandas")
        text = {name: pd.Series(frame[name].fill_null("~missing").to_list(), dtype=object) for name in categories}
        return pd.DataFrame({name: frame[name].cast(pl.Float64).to_numpy() for name in numbers} | text)

    theirs.fit(rows(train))
    # scikit-learn's deviation is over the values with the gaps filled, and with n for n - 1: take that of the values
    raw = train.select(pl.col(numbers).cast(pl.Float64)).to_numpy()
    n = (~np.isnan(raw)).sum(0)
    scale = StandardScaler().fit(raw).scale_ * np.sqrt(n / (n - 1))
    for frame in (train, test):
        expected = theirs.transform(rows(frame))
        expected[:, :3] = (expected[:, :3] - np.nanmean(raw, 0)) / scale
        got = encoder(**columns.read(frame))["numeric"].numpy()
        # one rounding to float32 of values up to 10, and 1e6 in float64 with deviation 1
        np.testing.assert_allclose(got, expected, rtol=EPS32, atol=1e-8)


def test_the_training_rows_have_mean_0_and_deviation_1() -> None:
    columns, encoder = fit(table())
    values = encoder(**columns.read(table()))["numeric"][:, [0, 2]].double()
    # 300 roundings to float32 of values of size 1
    torch.testing.assert_close(values.mean(0), torch.zeros(2, dtype=torch.float64), atol=EPS32, rtol=0)
    torch.testing.assert_close(values.std(0), torch.ones(2, dtype=torch.float64), atol=EPS32, rtol=0)


def test_large_offsets_lose_no_digits() -> None:
    seconds = torch.arange(100, dtype=torch.float64) + 1.7e9
    frame = pl.DataFrame({"t": seconds.numpy()})
    columns, encoder = fit(frame)
    values = encoder(**columns.read(frame))["numeric"][:, 0].double()
    exact = (torch.arange(100) - 49.5) / torch.arange(100.0).std()
    # a float32 of 1.7e9 is good to 128 seconds; a float64 to 2e-7 seconds, of a deviation of 29
    torch.testing.assert_close(values, exact.double(), atol=1e-7, rtol=EPS32)


# Missing values


def test_missing_numbers_are_the_mean_and_flagged() -> None:
    columns, encoder = fit(pl.DataFrame({"a": [1.0, 2.0, 4.0, None], "b": [1.0, 2.0, 3.0, 5.0]}))
    assert encoder.feature_names == ("a", "b", "a is missing")
    encoded = encoder(**columns.read(pl.DataFrame({"a": [None, 1.0], "b": [2.0, None]})))["numeric"]
    assert encoded[0, 0] == 0
    assert encoded[:, 2].tolist() == [1, 0]
    # b had no gaps in training, so that there is no flag: it is the mean, and no more is said
    assert encoded[1, 1] == 0


def test_a_datetime_has_one_flag_for_all_its_parts() -> None:
    frame = pl.DataFrame({"d": ["2013-01-01", None, "2014-02-02", "2015-03-03"]})
    columns, encoder = fit(frame)
    assert encoder.feature_names == ("d.year", "d.month", "d.day", "d.weekday", "d.days", "d is missing")
    assert encoder(**columns.read(frame))["numeric"][1].tolist() == [0, 0, 0, 0, 0, 1]


def test_infinite_and_nan_inputs_are_missing() -> None:
    _, encoder = fit(pl.DataFrame({"a": [1.0, 2.0, 4.0, None]}))
    values = torch.tensor([[float("nan")], [float("inf")], [float("-inf")], [2.0]], dtype=torch.float64)
    encoded = encoder(values)["numeric"]
    assert encoded[:3].tolist() == [[0, 1]] * 3
    assert encoded[3, 1] == 0


def test_a_column_that_does_not_vary_or_has_no_values() -> None:
    # 0.1 added up and divided is not 0.1 again: its deviation must be exactly 0 all the same
    frame = pl.DataFrame({"same": [0.1] * 7, "none": [None] * 7, "x": range(7)})
    columns, encoder = fit(frame, Columns.fit(frame, infer_schema(frame, numeric=["same", "none"])))
    encoded = encoder(**columns.read(frame))["numeric"]
    assert encoded[:, :2].eq(0).all()
    assert encoded[:, 3].tolist() == [1] * 7
    assert encoder.std[:2].tolist() == [1, 1]


def test_extreme_values_stay_finite() -> None:
    for values in ([1e308, -1e308, 1.7e308], [1e-310, 2e-310, 0.0], [1e300, 1.0, 2.0]):
        columns, encoder = fit(pl.DataFrame({"x": values}))
        assert encoder(**columns.read(pl.DataFrame({"x": [*values, 1.7e308, -1.7e308]})))["numeric"].isfinite().all()
    columns, encoder = fit(pl.DataFrame({"x": [1e-200, 2e-200, 4e-200]}))
    got = encoder(**columns.read(pl.DataFrame({"x": [1e-200, 4e-200]})))["numeric"][:, 0]
    exact = (torch.tensor([1.0, 4.0]) - 7 / 3) / torch.tensor([1.0, 2.0, 4.0]).std()
    torch.testing.assert_close(got, exact, rtol=4 * EPS32, atol=0)


def test_clip() -> None:
    frame = pl.DataFrame({"x": [0.0] * 500 + [1.0] * 499 + [1000.0]})
    columns, plain = fit(frame)
    _, clipped = fit(frame, clip=3)
    raw = columns.read(frame)
    assert plain(**raw)["numeric"].max() > 30
    assert torch.equal(clipped(**raw)["numeric"], plain(**raw)["numeric"].clamp(-3, 3))
    assert TableEncoder.from_config(clipped.to_config()).config.clip == 3


# Categories


@pytest.mark.parametrize(
    ("options", "embedded"),
    [
        ({}, (32,)),
        ({"max_one_hot": 30}, ()),
        ({"max_one_hot": 2}, (5, 32)),
        ({"categories": "embedding"}, (5, 4, 32)),
        ({"categories": "one-hot"}, ()),
    ],
)
def test_which_categories_are_embedded(options: dict[str, Any], embedded: tuple[int, ...]) -> None:
    columns, encoder = fit(table(), **options)
    assert encoder.cardinalities == embedded
    assert ("categorical" in encoder(**columns.read(table()))) == (embedded != ())


def test_unknown_and_missing_one_hot() -> None:
    frame = pl.DataFrame({"a": ["x", "y", None] * 2, "b": ["x", "y", "y"] * 2})
    columns, encoder = fit(frame)
    assert encoder.feature_names == ("a=x", "a=y", "a is missing", "b=x", "b=y")
    encoded = encoder(**columns.read(pl.DataFrame({"a": ["new", None, "y"], "b": ["new", None, "x"]})))["numeric"]
    assert encoded.tolist() == [[0, 0, 0, 0, 0], [0, 0, 1, 0, 0], [0, 1, 0, 1, 0]]


def test_embedded_codes_ask_for_nothing_that_was_not_trained() -> None:
    frame = pl.DataFrame({"a": ["x", "y", None] * 2, "b": ["x", "y", "y"] * 2})
    _, encoder = fit(frame, categories="embedding")
    codes = torch.tensor([[2, 3], [0, 0], [1, 1], [4, -1], [2**40, -(2**40)]])
    encoded = encoder(categorical=codes)
    assert encoded["categorical"].tolist() == [[2, 3], [0, 0], [1, 0], [0, 0], [0, 0]]
    assert "numeric" not in encoded


@settings(deadline=None)
@given(st.lists(st.tuples(*[st.integers(-(2**63), 2**63 - 1)] * 3), min_size=1, max_size=20))
def test_no_code_can_index_out_of_bounds(codes: list[tuple[int, int, int]]) -> None:
    encoder = embedding_encoder()
    encoded = encoder(torch.zeros(len(codes), 3, dtype=torch.float64), torch.tensor(codes))
    for column, cardinality in zip(encoded["categorical"].T, encoder.cardinalities, strict=True):
        torch.nn.functional.embedding(column, torch.zeros(cardinality, 1))


@settings(deadline=None)
@given(st.lists(st.lists(st.floats(width=64), min_size=2, max_size=2), min_size=2, max_size=20))
def test_whatever_comes_in_what_comes_out_is_finite(values: list[list[float]]) -> None:
    frame = pl.DataFrame(values, schema={"a": pl.Float64, "b": pl.Float64}, orient="row")
    columns, encoder = fit(frame, Columns.fit(frame, infer_schema(frame, numeric=["a", "b"])))
    for rows in (frame, frame.reverse()):
        assert encoder(**columns.read(rows))["numeric"].isfinite().all()
    assert encoder.std.gt(0).all()


# No leakage, no dependence on the batch


def test_only_training_rows_are_learnt_from() -> None:
    frame = table()
    schema = infer_schema(frame)
    train, rest = frame[:200], frame[200:]
    changed = rest.with_columns(plain=pl.lit(-5.0), gappy=pl.lit(1e9), few=pl.lit("pink"), many=pl.lit("k0"))
    fitted = []
    for whole in (frame, pl.concat([train, changed])):
        columns = Columns.fit(whole[:200], schema)
        encoder = TableEncoder.fit(columns.read(whole[:200]), columns)
        fitted.append((columns, encoder.to_config(), encoder.mean.tolist(), encoder.std.tolist()))
    assert fitted[0] == fitted[1]


def test_each_row_is_encoded_by_itself() -> None:
    columns, encoder = fit(table())
    raw = columns.read(table())
    whole = encoder(**raw)
    for name, values in encoder(**{name: values[7:9] for name, values in raw.items()}).items():
        assert torch.equal(values, whole[name][7:9])
    for rows_at_once in (1, 64, 299, 300, 1000):
        pieces = encoder.encode(raw, rows_at_once=rows_at_once)
        assert pieces.keys() == whole.keys()
        assert all(torch.equal(pieces[name], whole[name]) for name in whole)
    many = columns.read(table(7_000))  # more than are taken at a time
    assert all(torch.equal(encoder.encode(many)[name], values) for name, values in encoder(**many).items())
    empty = encoder.encode({name: values[:0] for name, values in raw.items()})
    assert empty["numeric"].shape == (0, 10)


# Saving, moving, exporting


def test_config_and_state_make_the_same_encoder() -> None:
    columns, encoder = fit(table())
    again = TableEncoder.from_config(json.loads(json.dumps(encoder.to_config())))
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in encoder.state_dict().items()}
    again.load_state_dict(encoder.state_dict())
    assert again.to_config() == encoder.to_config()
    assert (again.n_numeric, again.cardinalities, again.feature_names) == (10, (32,), encoder.feature_names)
    raw = columns.read(table(seed=2))
    assert all(torch.equal(again(**raw)[name], values) for name, values in encoder(**raw).items())


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("numeric", "3", "encoder: numeric: input should be a valid integer, got '3'"),
        ("numeric", -1, "encoder: must have a structure that fits together"),
        ("flags", [3], "encoder: must have a structure that fits together"),
        ("flags", [0, 1], "encoder: must have a structure that fits together"),
        ("one_hot", [[0, 2]] * 5 + [[3, 2]], "encoder: must have a structure that fits together"),
        ("one_hot", [[0, 2]] * 5 + [[0, 0]], "encoder: must have a structure that fits together"),
        ("one_hot", [[0, 2, 3]], "encoder: one_hot.0"),
        ("embedded", [-1], "encoder: must have a structure that fits together"),
        ("embedded", [0, 1], "encoder: must have a structure that fits together"),
        ("cardinalities", [1], "encoder: must have a structure that fits together"),
        ("cardinalities", [2**31], "encoder: must have a structure that fits together"),
        ("seen_missing", [1], "encoder: seen_missing.0: input should be a valid boolean"),
        ("feature_names", ["x"], "encoder: must have a structure that fits together"),
        ("clip", 0, "encoder: must have a structure that fits together"),
        ("clip", "x", "encoder: clip: input should be a valid number"),
        ("code", "import os", "encoder: code: unexpected keyword argument, got 'import os'"),
    ],
)
def test_a_damaged_config_is_refused(field: str, value: Any, message: str) -> None:
    _, encoder = fit(table())
    with pytest.raises(SchemaError, match=message):
        TableEncoder.from_config(encoder.to_config() | {field: value})


@pytest.mark.parametrize("data", [None, [], {}, "x", {"numeric": 1}])
def test_garbage_is_no_config(data: Any) -> None:
    with pytest.raises(SchemaError, match="encoder: "):
        TableEncoder.from_config(data)


@pytest.mark.parametrize("change", ["half", "bfloat16", "float", "meta"])
def test_a_change_of_dtype_leaves_the_arithmetic_as_it_is(change: str) -> None:
    columns, encoder = fit(table())
    raw = columns.read(table())
    expected = encoder(**raw)["numeric"]
    network = torch.nn.ModuleDict({"encoder": encoder, "linear": torch.nn.Linear(10, 1)})
    if change == "meta":
        state = {name: values.clone() for name, values in encoder.state_dict().items()}
        network.to("meta").to_empty(device="cpu")
        assert encoder.mean.dtype == torch.float64
        fresh = TableEncoder.from_config(encoder.to_config())
        fresh.load_state_dict(state)
        encoder = fresh
    else:
        getattr(network, change)()
        assert network["linear"].weight.dtype != torch.float32 or change == "float"
    assert encoder.mean.dtype == encoder.std.dtype == torch.float64
    assert torch.equal(encoder(**raw)["numeric"], expected)


def test_it_exports_with_any_batch_size() -> None:
    columns, encoder = fit(table())
    raw = columns.read(table())
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(encoder, (), kwargs=raw, dynamic_shapes={name: {0: batch} for name in raw})
    for n in (1, 5, 300):
        rows: dict[str, Tensor] = {name: values[:n] for name, values in raw.items()}
        exported = program.module()(**rows)
        assert all(torch.equal(exported[name], values) for name, values in encoder(**rows).items())


def test_it_traces_without_a_warning() -> None:
    columns, encoder = fit(table())
    raw = columns.read(table())
    with warnings.catch_warnings():
        # TorchScript itself is deprecated, and which kind of warning says so depends on the version of torch
        warnings.filterwarnings("ignore", message=".*`torch.jit.*deprecated")
        trace: Any = torch.jit.trace
        traced = trace(encoder, example_kwarg_inputs=raw, strict=False)
    rows = {name: values[:5] for name, values in raw.items()}
    assert all(torch.equal(traced(**rows)[name], values) for name, values in encoder(**rows).items())


# Errors


def test_fit_errors() -> None:
    columns, _ = fit(table())
    raw = columns.read(table())
    wrong: list[tuple[dict[str, Any], type[StokerError], str]] = [
        ({"categories": "onehot"}, UnknownNameError, r"categories: .*, got 'onehot'\. Did you mean 'one-hot'\?"),
        ({"max_one_hot": -1}, ConfigError, r"max_one_hot: must be 0 or more, got -1\. Leave it at 10"),
        ({"clip": 0.0}, ConfigError, r"clip: must be a positive number, or None, got 0.0\. Try 10"),
        ({"clip": float("nan")}, ConfigError, r"clip: must be a positive number, or None, got nan"),
    ]
    for options, error, message in wrong:
        with pytest.raises(error, match=message):
            TableEncoder.fit(raw, columns, **options)
    with pytest.raises(EncodingError, match=r"raw: must have training rows, got none\. Give the training part more"):
        TableEncoder.fit({name: values[:0] for name, values in raw.items()}, columns)
    with pytest.raises(EncodingError, match=r"categorical: must have shape \[n, 3\], got none"):
        TableEncoder.fit({"numeric": raw["numeric"]}, columns)


def test_inputs_of_another_shape_are_refused() -> None:
    columns, encoder = fit(table())
    raw = columns.read(table())
    with pytest.raises(EncodingError, match=r"numeric: must have shape \[n, 3\], got none\. Read the rows with"):
        encoder(categorical=raw["categorical"])
    with pytest.raises(EncodingError, match=r"categorical: must have shape \[n, 3\], got shape \[300, 2\]"):
        encoder(raw["numeric"], raw["categorical"][:, :2])
    with pytest.raises(EncodingError, match=r"numeric: must have shape \[n, 3\], got shape \[3\]"):
        encoder(raw["numeric"][0], raw["categorical"])
