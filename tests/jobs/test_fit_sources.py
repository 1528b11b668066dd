"""The whole job, from every kind of source that there is."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
import torch
from small import files_of, learning, quick_fit, write_images, write_table

import stoker
from stoker.data.dataset import ImageSet, Table

if TYPE_CHECKING:
    from numpy.typing import NDArray

SUFFIXES = (".csv", ".tsv", ".csv.gz", ".parquet", ".jsonl", ".arrow")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> stoker.Run:
    """A run on a polars table, which every other way to hand over the same table must equal."""
    return quick_fit(learning("price"), tmp_path_factory.mktemp("reference") / "run", target="price")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_table_in_another_format_gives_the_same_network(
    suffix: str, reference: stoker.Run, tmp_path: Path
) -> None:
    path = write_table(learning("price"), tmp_path / f"homes{suffix}")
    run = quick_fit(path, tmp_path / "run", target="price")
    assert run.metrics == reference.metrics
    assert run.notices == []
    assert run.record.name == "homes"
    assert run.evaluate() == run.metrics["test"]


@pytest.mark.parametrize("library", ["pandas", "pyarrow"])
def test_the_same_table_of_another_library_gives_the_same_network(
    library: str, reference: stoker.Run, tmp_path: Path
) -> None:
    pytest.importorskip("pyarrow")
    pytest.importorskip("pandas")
    frame = learning("price")
    source = frame.to_pandas() if library == "pandas" else frame.to_arrow()
    run = quick_fit(source, tmp_path / "run", target="price")
    assert run.metrics == reference.metrics
    assert run.record.sources["train"].origin.startswith(library)


def arrays(kind: str) -> tuple[Any, Any]:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(80, 3))
    y = X @ [1.0, -2.0, 0.5] + 100
    if kind == "torch":
        return torch.from_numpy(X), torch.from_numpy(y)
    return X, y


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_arrays(kind: str, tmp_path: Path) -> None:
    X, y = arrays(kind)
    run = quick_fit((X, y), tmp_path / "run", lr=0.05, epochs=30, model="linear", hidden=None)
    assert run.metrics["test"]["r2"] > 0.95
    assert run.evaluate((X[:20], y[:20]))["rmse"] < 1.0
    assert run.predict(X[:2]).values == pytest.approx([float(v) for v in y[:2]], abs=1.5)


def test_arrays_whose_target_has_a_name_are_evaluated_by_it(tmp_path: Path) -> None:
    X, y = arrays("numpy")
    run = quick_fit((X, y), tmp_path / "run", target="weight")
    assert run.record.recipe["target"] == "weight"
    rmse = float(np.sqrt(np.mean((np.array(run.predict(X).values) - y) ** 2)))
    assert run.evaluate((X, y))["rmse"] == pytest.approx(rmse, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "task", "classes"),
    [
        ("iris", "multiclass", 3),
        ("wine", "multiclass", 3),
        ("breast-cancer", "binary", 2),
        ("diabetes", "regression", 0),
    ],
)
def test_named_tables(name: str, task: str, classes: int, tmp_path: Path) -> None:
    run = quick_fit(name, tmp_path / "run", epochs=15, lr=0.01)
    assert run.task == task
    assert len(run.classes) == classes
    assert run.metrics["test"]["loss"] < {"regression": 0.9, "binary": 0.5, "multiclass": 0.9}[task]
    assert run.evaluate() == run.metrics["test"]
    assert run.schema is not None


def test_digits_are_learnt_by_the_small_convolutional_network(tmp_path: Path) -> None:
    run = stoker.fit("digits", out=tmp_path / "run", epochs=6, progress="none", lr=0.003)
    assert run.config.model["name"] == "cnn"
    assert run.classes == tuple("0123456789")
    assert run.metrics["test"]["accuracy"] > 0.9
    assert run.evaluate() == run.metrics["test"]
    assert run.schema is None


def test_a_folder_of_images(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "animals")
    run = quick_fit(folder, tmp_path / "run", epochs=20, hidden=(), lr=0.01)
    assert run.classes == ("cat", "dog")
    assert run.metrics["test"]["accuracy"] == 1.0
    assert run.evaluate() == run.metrics["test"]
    assert run.evaluate(folder)["accuracy"] == 1.0
    table = run.predict(folder).frame(top_k=1)
    assert table.columns == ["image", "prediction", "top1", "top1_proba"]
    assert [name.split("/")[0] for name in table["image"]] == table["prediction"].to_list()
    assert run.predict(folder / "dog" / "03.png").values == ["dog"]


def write_idx(path: Path, array: NDArray[np.uint8]) -> None:
    head = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(head + array.tobytes())


def test_a_folder_of_idx_files_brings_its_own_test_split(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for part, rows in (("train", 60), ("t10k", 24)):
        labels = np.arange(rows, dtype=np.uint8) % 3
        images = (rng.integers(0, 40, (rows, 8, 8)) + 100 * (labels[:, None, None] == 1)).astype(np.uint8)
        write_idx(tmp_path / f"{part}-images-idx3-ubyte", images)
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte", labels)
    run = quick_fit(tmp_path, tmp_path / "run", model="mlp")
    assert run.record.rows == {"train": 48, "valid": 12, "test": 24}
    assert run.evaluate() == run.metrics["test"]
    told: list[str] = []
    assert run.evaluate(tmp_path, notify=told.append) == run.metrics["test"]
    assert told == ["measured on the test split that the source itself has, 24 images"]


def test_images_in_memory(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.array(["night", "day"] * 20)
    images = (rng.integers(0, 50, (40, 6, 6)) + 180 * (labels == "day")[:, None, None]).astype(np.uint8)
    run = quick_fit((images, labels), tmp_path / "run", model="mlp", epochs=20, lr=0.02)
    assert run.classes == ("day", "night")
    assert run.metrics["test"]["accuracy"] == 1.0
    assert run.predict(images[:2]).values == ["night", "day"]


def test_given_valid_and_test_files_are_used_as_they_are(tmp_path: Path) -> None:
    sources = {
        part: write_table(learning("grade", rows, seed), tmp_path / f"{part}{suffix}")
        for part, rows, seed, suffix in (
            ("train", 90, 0, ".csv"),
            ("valid", 30, 1, ".parquet"),
            ("test", 45, 2, ".jsonl"),
        )
    }
    run = quick_fit(
        sources["train"], tmp_path / "run", target="grade", valid=sources["valid"], test=str(sources["test"])
    )
    assert run.record.rows == {"train": 90, "valid": 30, "test": 45}
    assert {name: source.origin for name, source in run.record.sources.items()} == {
        name: str(path) for name, path in sources.items()
    }
    assert run.evaluate() == run.metrics["test"]
    assert run.evaluate(sources["test"]) == run.metrics["test"]
    assert run.evaluate(sources["valid"]) == run.metrics["valid"]
    assert run.evaluate(sources["train"]) == run.metrics["train"]


def test_a_given_test_file_leaves_the_rest_to_be_split(tmp_path: Path) -> None:
    test = write_table(learning("price", 40, seed=3), tmp_path / "test.csv")
    run = quick_fit(learning("price", 100), tmp_path / "run", target="price", assignments=[f"data.test={test}"])
    assert run.record.rows == {"train": 80, "valid": 20, "test": 40}
    assert run.evaluate() == run.metrics["test"], "the table in memory is not needed for it"


def test_given_splits_of_images(tmp_path: Path) -> None:
    run = quick_fit(
        write_images(tmp_path / "a", each=8),
        tmp_path / "run",
        model="mlp",
        valid=write_images(tmp_path / "b", ("dog",), each=3),
        test=write_images(tmp_path / "c", each=4),
    )
    assert run.record.rows == {"train": 16, "valid": 3, "test": 8}
    assert run.evaluate() == run.metrics["test"]


def test_data_that_were_loaded_before(tmp_path: Path) -> None:
    table = stoker.load_data("iris")
    assert isinstance(table, Table)
    run = quick_fit(table, tmp_path / "run")
    assert run.record.name == "iris"
    assert run.metrics["test"]["loss"] > 0


@pytest.mark.slow
def test_california_housing(california: Table, tmp_path: Path) -> None:
    run = stoker.fit("california-housing", out=tmp_path / "run", epochs=3, batch_size=256, lr=0.005, progress="none")
    assert run.record.rows == {"train": 12_384, "valid": 4_128, "test": 4_128}
    assert run.metrics["test"]["r2"] > 0.65
    assert run.metrics["test"]["rmse"] ** 2 == pytest.approx(run.metrics["test"]["mse"], rel=1e-12)
    assert run.evaluate() == run.metrics["test"]
    assert files_of(run.path) >= {"figures/predicted_vs_true.png", "figures/learning_curves.png"}


@pytest.mark.slow
def test_fashion_mnist(fashion: ImageSet, tmp_path: Path) -> None:
    some = ImageSet(
        fashion.images[:3000],
        None if fashion.labels is None else fashion.labels[:3000],
        fashion.classes,
        fashion.provenance,
    )
    run = stoker.fit(some, out=tmp_path / "run", epochs=2, model="mlp", hidden=(64,), batch_size=64, progress="none")
    assert len(run.classes) == 10
    assert run.metrics["test"]["accuracy"] > 0.6
    assert run.metrics["test"]["top3_accuracy"] > run.metrics["test"]["accuracy"]


def test_a_name_that_polars_takes_for_a_pattern_is_a_name_like_others(tmp_path: Path) -> None:
    frame = learning("price").rename({"rooms": "^.*$", "size": "*"})
    run = quick_fit(frame, tmp_path / "run", target="price")
    assert len(run.predict(frame).values) == frame.height
    assert isinstance(run.predict(frame).frame(), pl.DataFrame)
