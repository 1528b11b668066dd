"""Bad input ends in an error that says what is wrong and where, before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from small import learning, quick_fit, write_images, write_table

from stoker.errors import (
    ConfigError,
    DataError,
    EncodingError,
    SchemaError,
    SourceFormatError,
    SourceNotFoundError,
    SplitError,
    UnknownNameError,
)

HOMES = learning("price", 60)


def refused(source: Any, tmp_path: Path, error: type[Exception], match: str, **settings: Any) -> None:
    """The job fails with that text, and leaves nothing behind."""
    with pytest.raises(error, match=match):
        quick_fit(source, tmp_path / "new" / "run", **{"target": "price", **settings})
    assert not (tmp_path / "new").exists()


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize(
    ("name", "content", "error", "match"),
    [
        ("empty.csv", "", SourceFormatError, r"empty\.csv: must not be empty, got a file of 0 bytes\."),
        ("empty.parquet", "", SourceFormatError, r"empty\.parquet: must not be empty, got a file of 0 bytes\."),
        ("head.csv", "a,price\n", SourceFormatError, r"head\.csv: must have rows under its header, got none\."),
        (
            "ragged.csv",
            "a,price\n1,2\n3,4\n5,6,7\n8,9\n",
            SourceFormatError,
            r"ragged\.csv, line 4: must have 2 fields, as the header has, got 3\.",
        ),
        (
            "twice.csv",
            "a,b,a,price\n1,2,3,4\n",
            SchemaError,
            r"twice\.csv: column names must be unique, got 'a' as columns 1 and 3\.",
        ),
        ("words.txt", "a,price\n1,2\n", SourceFormatError, r"words\.txt: a table file has a known suffix, got \.txt\."),
        ("noise.csv", b"\xff\xfe\x00a", SourceFormatError, r"noise\.csv: must be UTF-8 text, got UTF-16\."),
    ],
)
def test_files_that_cannot_be_read(
    name: str, content: str | bytes, error: type[Exception], match: str, tmp_path: Path
) -> None:
    refused(write(tmp_path / name, content), tmp_path, error, match)


def test_a_missing_file(tmp_path: Path) -> None:
    match = r"homes\.csv': must be an existing file or directory, or a named data set, got no such file"
    refused(tmp_path / "homes.csv", tmp_path, SourceNotFoundError, match)
    refused(HOMES, tmp_path, SourceNotFoundError, match, test=tmp_path / "homes.csv")


def test_a_truncated_parquet_file(tmp_path: Path) -> None:
    path = write_table(HOMES, tmp_path / "homes.parquet")
    path.write_bytes(path.read_bytes()[:-200])
    refused(path, tmp_path, SourceFormatError, r"homes\.parquet: must be a readable Parquet file, got ")


def test_a_truncated_gzip_file(tmp_path: Path) -> None:
    path = write_table(HOMES, tmp_path / "homes.csv.gz")
    path.write_bytes(path.read_bytes()[:-200])
    refused(path, tmp_path, SourceFormatError, r"homes\.csv\.gz: must be whole, got a truncated gzip file\.")


def test_an_unknown_target_lists_the_columns_and_the_nearest(tmp_path: Path) -> None:
    match = (
        r"must be a column, got 'prices'\. Did you mean 'price'\? Columns: size, rooms, lift, kind, street, seen, pri"
    )
    refused(HOMES, tmp_path, SchemaError, match, target="prices")


def test_no_target(tmp_path: Path) -> None:
    match = r"^polars.DataFrame: a table needs the column to predict, got no target\. Say --target NAME"
    refused(HOMES, tmp_path, SchemaError, match, target=None)


@pytest.mark.parametrize(
    ("target", "match"),
    [
        (pl.lit(None, dtype=pl.Float64), r"^target 'price': must have values, got missing ones only\."),
        (pl.lit(3.5), r"^target 'price': must have more than one value, got '3\.5' in every row\."),
        (
            pl.when(pl.int_range(60) == 7)
            .then(pl.lit("c"))
            .when(pl.int_range(60) < 30)
            .then(pl.lit("a"))
            .otherwise(pl.lit("b")),
            r"^target 'price': must have classes of two rows at least, .* got one row of class 'c'\.",
        ),
        (
            pl.when(pl.int_range(60) == 7).then(float("inf")).otherwise("price"),
            r"^column 'price', row 7 \(counting from 0\): must be finite, got inf\.",
        ),
        (pl.col("seen"), r"^target 'price': must hold numbers or classes, got Datetime"),
    ],
)
def test_targets_from_which_nothing_can_be_learnt(target: pl.Expr, match: str, tmp_path: Path) -> None:
    refused(HOMES.with_columns(price=target), tmp_path, SchemaError, match)


def test_a_target_too_large_for_32_bits_is_named_by_its_row_in_the_source(tmp_path: Path) -> None:
    frame = HOMES.with_columns(
        price=pl.when(pl.int_range(60) == 31).then(1e39).when(pl.int_range(60) == 5).then(None).otherwise("price")
    )
    match = (
        r"^column 'price', row 30 \(counting from 0\): must be a finite 32-bit number, got '1e\+39'\. "
        r".* The 1 row without a target is not counted\."
    )
    refused(frame, tmp_path, EncodingError, match)


def test_a_class_too_rare_for_its_splits(tmp_path: Path) -> None:
    grade = (
        pl.when(pl.int_range(60) < 2)
        .then(pl.lit("rare"))
        .when(pl.int_range(60) < 30)
        .then(pl.lit("a"))
        .otherwise(pl.lit("b"))
    )
    match = r"must have a row of each class for each of 3 parts, got 2 of class 'rare'\."
    refused(HOMES.with_columns(grade=grade), tmp_path, SplitError, match, target="grade")


def test_nothing_to_learn_from(tmp_path: Path) -> None:
    match = r"must have a usable column beside the target, got none"
    refused(HOMES.select("price"), tmp_path, SchemaError, match)
    refused(HOMES.select("price", one=pl.lit(1)), tmp_path, SchemaError, match)


def test_too_few_rows(tmp_path: Path) -> None:
    match = r"^split: must leave rows to train on, got 1 for validation and 1 for the test, of 2 rows\."
    refused(HOMES[:2], tmp_path, SplitError, match)


def test_sizes_that_leave_nothing(tmp_path: Path) -> None:
    match = r"^split: must leave rows to train on, got 30 for validation and 30 for the test, of 60 rows\."
    refused(HOMES, tmp_path, SplitError, match, valid_size=0.5, test_size=30)


@pytest.mark.parametrize("setting", ["numeric", "categorical", "datetime", "ignore"])
def test_overrides_of_columns_that_are_not_there(setting: str, tmp_path: Path) -> None:
    match = rf"^{setting}: must be one of the known names, got 'Size'\. Did you mean 'size'\?"
    refused(HOMES, tmp_path, UnknownNameError, match, **{setting: ("Size",)})


@pytest.mark.parametrize("setting", ["group", "time"])
def test_splits_by_columns_that_are_not_there(setting: str, tmp_path: Path) -> None:
    match = rf"^data\.{setting}: must be one of the known names, got 'Size'\. Did you mean 'size'\?"
    refused(HOMES, tmp_path, UnknownNameError, match, **{setting: "Size"})


def test_a_column_that_is_not_what_it_is_declared_to_be(tmp_path: Path) -> None:
    frame = HOMES.with_columns(kind=pl.when(pl.int_range(60) < 3).then(pl.lit("7")).otherwise(pl.lit("loft")))
    match = r"^column 'kind', row 3 \(counting from 0\): must hold numbers to be numeric, got 'loft'\."
    refused(frame, tmp_path, SchemaError, match, numeric=("kind",))


@pytest.mark.parametrize("split", ["valid", "test"])
def test_given_splits_that_do_not_fit(split: str, tmp_path: Path) -> None:
    where = f"the {split} source"
    part = learning("price", 20, seed=1)
    cases: list[tuple[pl.DataFrame, type[Exception], str]] = [
        (
            part.drop("size", "price"),
            SchemaError,
            rf"^{where}: must have the training source's columns, got no 'price', 'size'\. Known: rooms, lift",
        ),
        (
            part.with_columns(price=pl.lit(None, dtype=pl.Float64)),
            SchemaError,
            rf"^{where}: must have rows with a 'price', got none\.",
        ),
        (
            part.with_columns(price=pl.when(pl.int_range(20) == 2).then(pl.lit("dear")).otherwise(pl.lit("1"))),
            EncodingError,
            rf"^{where}, column 'price', row 2 \(counting from 0\): must be a number, got 'dear'\.",
        ),
        (
            part.with_columns(
                size=pl.when(pl.int_range(20) == 6).then(pl.lit("big")).otherwise(pl.lit("1")),
                price=pl.when(pl.int_range(20) < 2).then(None).otherwise("price"),
            ),
            EncodingError,
            rf"^{where}, column 'size', row 4 \(counting from 0\): must be a number, got 'big'\. .* The 2 rows",
        ),
    ]
    for frame, error, match in cases:
        refused(HOMES, tmp_path, error, match, **{split: frame})
    refused(
        HOMES,
        tmp_path,
        DataError,
        rf"^{split}: must be a table, .* got images\.",
        **{split: np.zeros((9, 8, 8), np.uint8)},
    )


def test_a_given_split_with_a_class_that_training_does_not_know(tmp_path: Path) -> None:
    match = r"^the test source, column 'grade', row 0 \(counting from 0\): must be one of the 3 known classes"
    test = learning("grade", 20).with_columns(grade=pl.lit("best"))
    refused(learning("grade"), tmp_path, EncodingError, match, target="grade", test=test)


@pytest.mark.parametrize(
    ("break_it", "match"),
    [
        (lambda path: path.write_bytes(b"no image"), r"07\.png: must be a readable image, got not an image"),
        (lambda path: path.write_bytes(path.read_bytes()[:60]), r"07\.png: must be a readable image, got "),
        (lambda path: path.write_bytes(b""), r"07\.png: must be a readable image, got "),
    ],
)
def test_an_unreadable_image_is_named_or_skipped_and_listed(
    break_it: Callable[[Path], object], match: str, tmp_path: Path
) -> None:
    folder = write_images(tmp_path / "animals")
    break_it(folder / "cat" / "07.png")
    refused(folder, tmp_path, SourceFormatError, match + r".*--skip-bad \(skip_bad=True\)", target=None)
    (folder / "dog" / "02.png").write_bytes(b"nor this")
    told: list[str] = []
    run = quick_fit(folder, tmp_path / "run", model="mlp", skip_bad=True, notify=told.append)
    assert told == run.notices == ["2 unreadable images left out: cat/07.png, dog/02.png"]
    assert sum(run.record.rows.values()) == 28
    assert run.evaluate() == run.metrics["test"]


def test_unreadable_images_of_a_given_split_are_told_of_too(tmp_path: Path) -> None:
    test = write_images(tmp_path / "more", each=4)
    (test / "cat" / "01.png").write_bytes(b"no image")
    source = write_images(tmp_path / "animals")
    run = quick_fit(source, tmp_path / "run", model="mlp", skip_bad=True, test=test)
    assert run.notices[0] == "1 unreadable image of the test source left out: cat/01.png"
    assert run.record.rows["test"] == 7
    assert run.evaluate() == run.metrics["test"]


def test_images_that_cannot_be_trained_on(tmp_path: Path) -> None:
    images = np.zeros((9, 8, 8), np.uint8)
    match = r"^numpy.ndarray: images to train on must have labels, got none\."
    refused(images, tmp_path, DataError, match, target=None)
    folder = write_images(tmp_path / "animals", each=4)
    match = r"^test: must have no other classes than the training source, got ox\."
    refused(folder, tmp_path, DataError, match, target=None, test=write_images(tmp_path / "b", ("cat", "ox"), each=2))
    match = r"^test: images must have labels, got none\."
    refused(folder, tmp_path, DataError, match, target=None, test=folder / "cat")
    match = r"^model: must be one for images, got 'linear'\. Use one of mlp, cnn\."
    refused(folder, tmp_path, ConfigError, match, target=None, model="linear", hidden=None)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"class_weights": "balanced"}, r"^training\.class_weights: are for classification, got task regression\."),
        ({"label_smoothing": 0.1}, r"^label_smoothing: is for classification, got task regression\."),
        ({"loss": "cross-entropy"}, r"^loss: must be one for regression, got 'cross-entropy'\. For regression: mse"),
        (
            {"model": "cnn", "hidden": None},
            r"^model: must be one for table, got 'cnn'\. Use one of linear, mlp, resnet, wide-deep\.",
        ),
        ({"metrics": ("accuracy",)}, r"^metric 'accuracy': serves binary and multiclass, got the task regression\."),
        ({"monitor": "valid_accuracy"}, r"^monitor: must be one of the known names, got 'valid_accuracy'\."),
        ({"valid_size": 0, "patience": 3}, r"^patience: needs a validation split to compare epochs by, got none\."),
        ({"device": "gpu"}, r"^device: must be one of the known names, got 'gpu'\."),
        ({"optimizer": "admw"}, r"^optimizer: must be one of the known names, got 'admw'\. Did you mean 'adamw'\?"),
        ({"schedule": "cosin"}, r"^schedule: must be one of the known names, got 'cosin'\. Did you mean 'cosine'\?"),
    ],
)
def test_settings_that_do_not_fit_the_data(settings: dict[str, Any], match: str, tmp_path: Path) -> None:
    refused(HOMES, tmp_path, ConfigError, match, **settings)


def test_class_weights_of_another_number(tmp_path: Path) -> None:
    match = (
        r"^training\.class_weights: must be 3 numbers, one per class, got 2\. "
        r"The classes, in this order: low, middle, top\."
    )
    refused(learning("grade"), tmp_path, ConfigError, match, target="grade", class_weights=(1.0, 2.0))
