"""A run directory whose files were changed, lost or exchanged: an error that names the file, and nothing is run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small import learning, quick_fit

import stoker
from stoker.errors import RunError, RunNotFoundError

GRADES = learning("grade", 60)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quick_fit(GRADES, tmp_path_factory.mktemp("whole") / "run", target="grade").path


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def used(path: Path) -> stoker.Run:
    """Everything that is read of a run, read."""
    run = stoker.load(path)
    assert len(run.history) == 2
    assert len(run.predict(GRADES).values) == 60
    assert run.evaluate(GRADES)["loss"] > 0
    return run


def test_a_copy_is_as_good_as_the_run(copied: Path, whole: Path) -> None:
    assert used(copied).metrics == stoker.load(whole).metrics


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda data: data.update(format=9), r"must be of format 1, got 9"),
        (
            lambda data: data["settings"]["training"].update(lr="x"),
            r"damaged \(settings\.training\.lr: must be a number above 0, or auto",
        ),
        (lambda data: data["settings"]["training"].update(bogus=1), r"damaged \(settings\.training: .*got 'bogus'"),
        (
            lambda data: data["settings"]["data"].update(clip=-1),
            r"damaged \(settings\.data\.clip: must be greater than 0",
        ),
        (lambda data: data.update(settings={"data": 3}), r"damaged \(settings\.data: must be settings by name, got 3"),
        (lambda data: data["training"].update(best_epoch=[]), r"damaged \(config\.training\.best_epoch: "),
        (lambda data: data["recipe"].update(classes=["a"]), r"damaged \(recipe\.classes: must be those of the task\)"),
        (
            lambda data: data["recipe"]["spec"].update(n_numeric=10**15),
            r"damaged \(recipe\.spec: must be what the encoder",
        ),
        (lambda data: data.pop("recipe"), r"damaged \(config\.recipe: must be there, got none"),
    ],
)
def test_a_config_that_was_edited_by_hand(change: Callable[[dict[str, Any]], object], match: str, copied: Path) -> None:
    data = json.loads((copied / "config.json").read_text())
    change(data)
    (copied / "config.json").write_text(json.dumps(data))
    with pytest.raises(RunError, match=match):
        used(copied)


def test_a_config_without_the_training_source(copied: Path) -> None:
    data = json.loads((copied / "config.json").read_text())
    data["sources"] = {}
    (copied / "config.json").write_text(json.dumps(data))
    run = used(copied)
    with pytest.raises(
        RunError, match=r"config\.json must say the train source, got none\. Say which source to evaluate"
    ):
        run.evaluate()


@pytest.mark.parametrize("name", ["model.safetensors", "metrics.json", "history.csv"])
def test_a_file_that_is_missing(name: str, copied: Path) -> None:
    (copied / name).unlink()
    with pytest.raises(RunError, match=rf"{name}: is missing from the run\. Copy the run again, whole\."):
        used(copied)


def test_without_a_config_it_is_no_run(copied: Path) -> None:
    (copied / "config.json").unlink()
    with pytest.raises(
        RunNotFoundError, match=r"must be a directory that stoker fit made, got .*A run has config\.json"
    ):
        used(copied)


def test_pictures_and_card_may_go(copied: Path) -> None:
    shutil.rmtree(copied / "figures")
    (copied / "README.md").unlink()
    assert used(copied).figures == []


@pytest.mark.parametrize("name", ["config.json", "metrics.json", "history.csv", "model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"\x80\x04K\x01.", b"[1, 2"])
def test_a_file_with_other_contents(name: str, content: bytes, copied: Path) -> None:
    (copied / name).write_bytes(content)
    with pytest.raises(RunError, match=name):
        used(copied)


def test_weights_of_another_run(copied: Path, tmp_path: Path) -> None:
    other = quick_fit(GRADES, tmp_path / "other", target="grade", hidden=(9,))
    shutil.copy(other.path / "model.safetensors", copied)
    with pytest.raises(
        RunError, match=r"must be \[8\].*, got \[9\].*The weights and config\.json are of different runs\."
    ):
        used(copied)


def test_a_history_that_was_cut(copied: Path) -> None:
    lines = (copied / "history.csv").read_text().splitlines()
    (copied / "history.csv").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(
        RunError, match=r"history\.csv: must have 2 rows, as config\.json says, got 1\. Copy the run again"
    ):
        used(copied)


@pytest.mark.parametrize("text", ["epoch,train_loss\n1,2,3\n", "epoch,train_loss\n1,low\n", 'epoch\n"1'])
def test_a_history_that_is_no_table_of_numbers(text: str, copied: Path) -> None:
    (copied / "history.csv").write_text(text)
    with pytest.raises(RunError, match=r"history\.csv: must be the CSV that stoker fit wrote"):
        used(copied)
