"""Rows that validated are trained on as well, where that is asked for; which rows test stays the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from sklearn.datasets import load_diabetes
from small import write_images

import stoker
from stoker.errors import DataError


def fit(source: Any, out: Path, **settings: Any) -> stoker.Run:
    return stoker.fit(source, out=out, epochs=1, device="cpu", progress="none", **settings)


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    frame: pl.DataFrame = pl.from_pandas(load_diabetes(as_frame=True).frame)
    return frame


@pytest.fixture(scope="module")
def file(frame: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "diabetes.csv"
    frame.write_csv(path)
    return path


def test_a_table(file: Path, tmp_path: Path) -> None:
    plain = fit(file, tmp_path / "plain", target="target")
    joined = fit(file, tmp_path / "joined", target="target", train_on_valid=True)
    rows = plain.record.rows
    assert joined.record.rows == {"train": rows["train"] + rows["valid"], "test": rows["test"]}
    assert plain._own_split().frame.equals(joined._own_split().frame)  # type: ignore[union-attr]


def test_a_validation_source_of_its_own(frame: pl.DataFrame, tmp_path: Path) -> None:
    run = fit(frame[:300], tmp_path / "run", target="target", valid=frame[300:], train_on_valid=True)
    assert run.record.rows == {"train": 240 + 142, "test": 60}


def test_images(tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    plain = fit(tmp_path / "images", tmp_path / "plain")
    joined = fit(tmp_path / "images", tmp_path / "joined", train_on_valid=True)
    rows = plain.record.rows
    assert joined.record.rows == {"train": rows["train"] + rows["valid"], "test": rows["test"]}


def test_without_a_test_split_there_is_nothing_to_evaluate_on(file: Path, tmp_path: Path) -> None:
    run = fit(file, tmp_path / "run", target="target", test_size=0, train_on_valid=True)
    with pytest.raises(DataError, match="the run must have held back rows"):
        run.evaluate()


def test_another_seed_of_the_training_alone(file: Path, tmp_path: Path) -> None:
    plain = fit(file, tmp_path / "plain", target="target", seed=3)
    same = fit(file, tmp_path / "same", target="target", seed=3, split_seed=3)
    other = fit(file, tmp_path / "other", target="target", seed=4, split_seed=3)
    split = fit(file, tmp_path / "split", target="target", seed=3, split_seed=4)
    frames = [run._own_split().frame for run in (plain, same, other, split)]  # type: ignore[union-attr]
    assert frames[0].equals(frames[1])
    assert frames[0].equals(frames[2])
    assert not frames[0].equals(frames[3])
    assert same.metrics == plain.metrics
    assert other.metrics != plain.metrics
    assert stoker.load(other.path).evaluate() == pytest.approx(other.metrics["test"], rel=1e-6)
