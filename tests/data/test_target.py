from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stoker.data.schema import Target, infer_schema
from stoker.data.target import decode_target, drop_missing_target, encode_target
from stoker.errors import ConfigError, EncodingError, SchemaError


def target_of(values: Any, **options: Any) -> Target:
    frame = pl.DataFrame({"x": range(len(values)), "y": values})
    target = infer_schema(frame, "y", numeric=["x"], **options).target
    assert target is not None
    return target


SIZES = Target("size", "multiclass", ("L", "M", "S"), "", 0)
PRICE = Target("price", "regression", (), "", 0)


# Encoding and decoding


@pytest.mark.parametrize(
    ("values", "codes"),
    [
        (["no", "yes", " yes "], [0, 1, 1]),
        ([True, False, True], [1, 0, 1]),
        ([10, 9, 9], [1, 0, 0]),
        ([0.0, 1.0, 1.0], [0, 1, 1]),
        (["True", "False", "True"], [1, 0, 1]),
    ],
)
def test_classes_round_trip(values: list[Any], codes: list[int]) -> None:
    target = target_of(values * 2)
    encoded = encode_target(pl.Series("y", values), target)
    assert encoded.dtype == torch.int64
    assert encoded.tolist() == codes
    assert decode_target(encoded, target) == [target.classes[code] for code in codes]


def test_decoded_classes_look_like_the_table() -> None:
    assert decode_target(torch.tensor([1, 0]), target_of([True, False] * 2)) == ["true", "false"]
    assert decode_target([1, 0], target_of([3, 5] * 2)) == ["5", "3"]
    assert decode_target(np.array([1, 0]), target_of(["True", "False"] * 2)) == ["True", "False"]
    assert decode_target([], SIZES) == []


@given(st.lists(st.sampled_from(["a", "B", "c d", "é", "NA", "10 m"]), min_size=2, max_size=30))
def test_any_labels_round_trip(labels: list[str]) -> None:
    if len(set(labels)) < 2:
        return
    target = target_of(labels * 2, task="multiclass")
    assert decode_target(encode_target(pl.Series("y", labels), target), target) == labels


@pytest.mark.parametrize("stored", [[3, 7, 7], [3.0, 7.0, 7.0], ["3", "7", " 7.0"]])
def test_the_same_class_has_the_same_code_however_it_is_stored(stored: list[Any]) -> None:
    for values in ([3, 7] * 3, [3.0, 7.0] * 3, ["3", "7"] * 3):
        assert encode_target(pl.Series("y", stored), target_of(values)).tolist() == [0, 1, 1]


def test_booleans_are_found_in_any_spelling() -> None:
    for values in ([True, False] * 2, ["True", "False"] * 2, ["TRUE", "FALSE"] * 2):
        for stored in ([True, False], ["true", "False"], ["TRUE", "false"]):
            assert encode_target(pl.Series("y", stored), target_of(values)).tolist() == [1, 0]


@pytest.mark.parametrize(
    "values", [[1, 2, 3], [1.0, 2.0, 3.0], ["1", " 2.0", "3e0"], [dt.timedelta(seconds=i) for i in (1, 2, 3)]]
)
def test_regression(values: list[Any]) -> None:
    encoded = encode_target(pl.Series("price", values), PRICE)
    assert encoded.dtype == torch.float32
    assert encoded.tolist() == [[1], [2], [3]]


def test_a_target_may_be_written_to() -> None:
    encode_target(pl.Series("price", [1.0, 2.0]), PRICE).mul_(2)
    encode_target(pl.Series("size", ["L", "M"]), SIZES).add_(1)


def test_no_rows() -> None:
    assert encode_target(pl.Series("price", [], dtype=pl.Float64), PRICE).shape == (0, 1)
    assert encode_target(pl.Series("size", [], dtype=pl.String), SIZES).shape == (0,)


@pytest.mark.parametrize(
    ("values", "target", "message"),
    [
        (
            ["L", "XL"],
            SIZES,
            r"column 'y', row 1 \(counting from 0\): must be one of the 3 known classes \('L', 'M', 'S'\), got 'XL'\.",
        ),
        (
            ["L", None],
            SIZES,
            r"column 'y', row 1 .*: must have a class, got 'None'\. Drop the rows without target first",
        ),
        ([[1], [2]], SIZES, r"target 'y': must hold classes, got type List\(Int64\)\. Convert the column"),
        (["1", "x"], PRICE, r"column 'y', row 1 .*: must be a number, got 'x'\. Correct it, or drop the row"),
        (
            [1.0, None],
            PRICE,
            r"column 'y', row 1 .*: must have a value, got 'None'\. Drop the rows without target first",
        ),
        ([float("nan"), 1.0], PRICE, r"column 'y', row 0 .*: must have a value"),
        ([1.0, float("inf")], PRICE, r"column 'y', row 1 .*: must be a finite 32-bit number, got 'inf'"),
        ([1.0, 1e39], PRICE, r"column 'y', row 1 .*: must be a finite 32-bit number, got '1e\+39'"),
        ([dt.date(2013, 1, 1)], PRICE, r"target 'y': must hold numbers, got type Date"),
    ],
)
def test_values_that_do_not_fit_are_named(values: list[Any], target: Target, message: str) -> None:
    with pytest.raises(EncodingError, match=message):
        encode_target(pl.Series("y", values), target)


def test_many_classes_are_not_all_listed() -> None:
    target = Target("y", "multiclass", tuple(f"c{i}" for i in range(100)), "", 0)
    with pytest.raises(EncodingError, match=r"100 known classes \('c0', .* 'c19', …\), got 'x'"):
        encode_target(pl.Series("y", ["x"]), target)


@pytest.mark.parametrize("codes", [[3], [-1], [0.0], torch.tensor([[0.2, 0.8]])])
def test_codes_out_of_range_are_refused(codes: Any) -> None:
    with pytest.raises(EncodingError, match=r"codes: must be integers from 0 to 2, got values from .* Take the argmax"):
        decode_target(codes, SIZES)


def test_there_are_no_classes_in_regression() -> None:
    with pytest.raises(
        ConfigError, match=r"target: must have classes to decode, got task regression\. Take the numbers"
    ):
        decode_target([0], PRICE)


# Missing targets


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ([1.0, None, float("nan"), 2.0], [1.0, 2.0]),
        (["a", None, "", "  ", "NA"], ["a", "NA"]),
        (["1", None, "", "?", "NA"], ["1"]),
        ([True, None], [True]),
        ([1, 2], [1, 2]),
    ],
)
def test_rows_without_target_are_dropped(values: list[Any], kept: list[Any]) -> None:
    frame = pl.DataFrame({"x": range(len(values)), "y": values})
    left, dropped = drop_missing_target(frame, "y")
    assert left["y"].to_list() == kept
    assert dropped == len(values) - len(kept)
    assert (left is frame) == (dropped == 0)


def test_an_infinite_target_is_not_missing() -> None:
    assert drop_missing_target(pl.DataFrame({"y": [1.0, float("inf")]}), "y")[1] == 0


def test_a_target_that_is_not_there_is_named() -> None:
    message = r"target: must be a column of the table, got 'prise'\. Did you mean 'price'\? Known: x, price"
    with pytest.raises(SchemaError, match=message):
        drop_missing_target(pl.DataFrame({"x": [1], "price": [2]}), "prise")


def test_what_is_left_after_dropping_can_be_encoded() -> None:
    for values in (["a", "b", None, ""] * 3, [1.5, 2.5, None, float("nan")] * 3, ["1.5", "2.5", "NA", "?"] * 3):
        frame = pl.DataFrame({"x": range(12), "y": values})
        target = infer_schema(frame, "y", numeric=["x"]).target
        assert target is not None
        left, dropped = drop_missing_target(frame, "y")
        assert dropped == target.missing == 6
        assert len(encode_target(left["y"], target)) == 6
