"""The same seed gives the same bits, in this process or another; and the test rows have no say in the weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from small import QUICK, learning, quick_fit, write_images

import stoker
from stoker.data.dataset import Table
from stoker.jobs.config import DataConfig
from stoker.jobs.splitting import split_table

SAME = ("model.safetensors", "metrics.json", "history.csv")


def contents(run: stoker.Run) -> dict[str, bytes]:
    return {name: (run.path / name).read_bytes() for name in SAME}


@pytest.mark.parametrize("target", ["price", "grade"])
def test_the_same_seed_gives_the_same_bits(target: str, tmp_path: Path) -> None:
    first = quick_fit(learning(target), tmp_path / "a", target=target, dropout=0.3, seed=7)
    torch.rand(3)  # what happens to torch's own generator in between does not matter
    second = quick_fit(learning(target), tmp_path / "b", target=target, dropout=0.3, seed=7)
    assert contents(first) == contents(second)
    assert first.record.recipe == second.record.recipe


def test_the_same_seed_gives_the_same_bits_for_images(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "animals")
    first, second = (quick_fit(folder, tmp_path / name, dropout=0.1) for name in "ab")
    assert contents(first) == contents(second)


def test_another_seed_gives_others(tmp_path: Path) -> None:
    first, second = (quick_fit(learning("price"), tmp_path / str(seed), target="price", seed=seed) for seed in (0, 1))
    assert all(contents(first)[name] != contents(second)[name] for name in SAME)


@pytest.mark.slow
def test_another_process_gives_the_same_bits(tmp_path: Path) -> None:
    learning("price").write_csv(tmp_path / "homes.csv")
    here = quick_fit(tmp_path / "homes.csv", tmp_path / "here", target="price")
    code = f"""
import stoker, torch
torch.set_num_threads({torch.get_num_threads()})
stoker.fit({str(tmp_path / "homes.csv")!r}, out={str(tmp_path / "there")!r}, target="price", **{QUICK!r})
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    assert contents(here) == contents(stoker.load(tmp_path / "there"))


def test_pictures_and_progress_change_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quiet = quick_fit(learning("price"), tmp_path / "a", target="price", dropout=0.2)
    shown = quick_fit(learning("price"), tmp_path / "b", target="price", dropout=0.2, pictures=True, progress="plain")
    assert contents(quiet) == contents(shown)
    assert "epoch 2/2" in "".join(capsys.readouterr())


def split_of(frame: pl.DataFrame, run: stoker.Run) -> dict[str, list[int]]:
    """The row numbers of each split."""
    table = stoker.load_data(frame.with_row_index("row"))
    assert isinstance(table, Table)
    schema = stoker.inspect(frame.with_row_index("row"), target="price", numeric=["row"]).schema
    assert schema is not None
    parts = split_table(table, schema, DataConfig(), run.config.training.seed, notify=lambda _: None)
    return {name: part["row"].to_list() for name, part in parts.items()}


def test_test_rows_have_no_say_in_the_weights(tmp_path: Path) -> None:
    frame = learning("price")
    first = quick_fit(frame, tmp_path / "a", target="price")
    test = set(split_of(frame, first)["test"])
    assert len(test) == 30
    others = {"size": 1e6, "kind": "castle", "street": "new", "price": 1e9}
    changed = frame.with_columns(
        [
            pl.when(pl.int_range(frame.height).is_in(list(test)))
            .then(pl.lit(other))
            .otherwise(pl.col(name))
            .alias(name)
            for name, other in others.items()
        ]
    )
    second = quick_fit(changed, tmp_path / "b", target="price")
    one, other = (load_file(run.path / "model.safetensors") for run in (first, second))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert first.record.recipe["columns"] == second.record.recipe["columns"]
    assert first.record.recipe["encoder"] == second.record.recipe["encoder"]
    assert first.metrics["valid"] == second.metrics["valid"]
    assert first.metrics["test"] != second.metrics["test"]


def test_validation_rows_choose_the_epoch_and_nothing_else(tmp_path: Path) -> None:
    train, valid, other = learning("price"), learning("price", 40, seed=1), learning("price", 40, seed=2)
    first, second = (
        quick_fit(train, tmp_path / name, target="price", valid=part, test_size=0)
        for name, part in {"a": valid, "b": other}.items()
    )
    assert first.history.best_epoch == second.history.best_epoch == 2
    assert contents(first)["model.safetensors"] == contents(second)["model.safetensors"]
