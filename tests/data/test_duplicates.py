from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.data.duplicates import Duplicate, DuplicateReport, duplicates_across, image_duplicates
from stoker.data.splits import Split, split_rows
from stoker.errors import InputTypeError, SchemaError, SplitError


def split_at(valid: int, test: int, n: int) -> Split:
    rows = np.arange(n)
    return Split(rows[:valid], rows[valid:test], rows[test:])


FRAME = pl.DataFrame(
    {
        "number": [1.0, 2.0, None, 1.0, 3.0, None, 1.0, 3.0],
        "text": ["a", "b", None, "a", "c", None, "x", "c"],
        "other": range(8),
    }
)


def test_rows_that_are_equal_in_all_columns_named_are_counted() -> None:
    report = duplicates_across(FRAME, split_at(3, 5, 8), ["number", "text"])
    assert report == DuplicateReport(
        valid_in_train=1,
        test_in_train=1,
        test_in_valid=1,
        examples=(
            Duplicate("valid", 3, "train", 0),
            Duplicate("test", 5, "train", 2),
            Duplicate("test", 7, "valid", 4),
        ),
    )
    assert report.any
    assert not duplicates_across(FRAME, split_at(3, 5, 8), ["number", "text", "other"]).any
    assert duplicates_across(FRAME, split_at(3, 5, 8), ["number"]).test_in_train == 2
    assert not duplicates_across(FRAME, split_at(3, 5, 8), []).any


def test_parts_may_be_empty_and_examples_are_few() -> None:
    frame = pl.DataFrame({"x": [1] * 30})
    report = duplicates_across(frame, split_at(10, 30, 30), ["x"])
    assert (report.valid_in_train, report.test_in_train, report.test_in_valid) == (20, 0, 0)
    assert report.examples == tuple(Duplicate("valid", row, "train", 0) for row in range(10, 15))


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["a", "b", None])), min_size=3, max_size=30), st.integers(0)
)
def test_counts_are_those_of_python_sets(rows: list[tuple[int, str | None]], seed: int) -> None:
    split = split_rows(len(rows), seed=seed)
    report = duplicates_across(
        pl.DataFrame(rows, schema={"n": pl.Int64, "t": pl.String}, orient="row"), split, ["n", "t"]
    )
    train, valid = ({rows[i] for i in part} for part in (split.train, split.valid))
    assert report.valid_in_train == sum(rows[i] in train for i in split.valid)
    assert report.test_in_train == sum(rows[i] in train for i in split.test)
    assert report.test_in_valid == sum(rows[i] in valid for i in split.test)
    assert all(rows[pair.row] == rows[pair.of_row] for pair in report.examples)


def test_a_common_hash_is_not_taken_for_equality(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pl.DataFrame, "hash_rows", lambda self: pl.zeros(self.height, dtype=pl.UInt64, eager=True))
    frame = pl.DataFrame({"x": [1, 2, 1]})
    report = duplicates_across(frame, split_at(1, 2, 3), ["x"])
    assert (report.valid_in_train, report.test_in_train, report.test_in_valid) == (0, 1, 0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bool])
def test_images(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (10_000, 1, 2, 9), generator=generator, dtype=torch.uint8).to(dtype)
    if dtype is torch.bool:
        images = torch.eye(10_000, 18, dtype=torch.bool).reshape(-1, 1, 2, 9)
        images[18:] = torch.randint(0, 2, (10_000 - 18, 1, 2, 9), generator=generator).bool()
    images[9_000], images[9_500], images[7_001] = images[5], images[7_000], images[6]
    report = image_duplicates(images, split_at(7_000, 9_000, 10_000))
    numbers = images.reshape(10_000, -1).to(torch.float64).tolist()
    train, valid = ({tuple(row) for row in numbers[start:stop]} for start, stop in ((0, 7_000), (7_000, 9_000)))
    assert report.valid_in_train == sum(tuple(row) in train for row in numbers[7_000:9_000]) >= 1
    assert report.test_in_train == sum(tuple(row) in train for row in numbers[9_000:]) >= 1
    assert report.test_in_valid == sum(tuple(row) in valid for row in numbers[9_000:]) >= 1
    assert all(torch.equal(images[pair.row], images[pair.of_row]) for pair in report.examples)


def test_images_with_a_common_hash_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    class Same:
        def __init__(self, *_: object, **__: object) -> None: ...

        def digest(self) -> bytes:
            return bytes(8)

    monkeypatch.setattr("hashlib.blake2b", Same)
    images = torch.tensor([1, 2, 1], dtype=torch.uint8).reshape(3, 1, 1, 1)
    report = image_duplicates(images, split_at(1, 2, 3))
    assert (report.valid_in_train, report.test_in_train, report.test_in_valid) == (0, 1, 0)


def test_errors() -> None:
    with pytest.raises(
        SchemaError, match=r"columns: must name columns of the table, got 'numbr'. Did you mean 'number'"
    ):
        duplicates_across(FRAME, split_at(3, 5, 8), ["numbr"])
    objects = FRAME.with_columns(pl.Series("o", [object()] * 8, dtype=pl.Object))
    with pytest.raises(
        SchemaError, match=r"column 'o': must hold values that compare, got Python objects. Leave it out"
    ):
        duplicates_across(objects, split_at(3, 5, 8), ["o"])
    with pytest.raises(SplitError, match=r"split: must be of the 8 rows given, got 7 rows. Split these rows anew"):
        duplicates_across(FRAME, split_at(3, 5, 7), ["number"])
    with pytest.raises(SplitError, match=r"split: must be of the 2 rows given, got 7 rows"):
        image_duplicates(torch.zeros(2, 1, 1, 1), split_at(3, 5, 7))
    with pytest.raises(InputTypeError, match=r"images: must be a tensor on the CPU, got list"):
        image_duplicates([1], split_at(1, 1, 1))  # type: ignore[arg-type]
