"""The run directory: what is in it, what it is called, and that nothing is ever overwritten or left half-written."""

from __future__ import annotations

import json
import math
import os
import stat
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from small import RUN_FILES, files_of, learning, quick_fit, write_images

import stoker
from stoker.errors import ConfigError, RunExistsError, StokerError

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> stoker.Run:
    """A regression, with real pictures."""
    return quick_fit(learning("price"), tmp_path_factory.mktemp("homes") / "run", target="price", pictures=True)


@pytest.fixture(scope="module")
def grades(tmp_path_factory: pytest.TempPathFactory) -> stoker.Run:
    """A classification, with real pictures."""
    return quick_fit(learning("grade"), tmp_path_factory.mktemp("grades") / "run", target="grade", pictures=True)


def test_a_run_has_these_files_and_no_others(homes: stoker.Run, grades: stoker.Run) -> None:
    assert files_of(homes.path) == RUN_FILES | {"figures/predicted_vs_true.png"}
    assert files_of(grades.path) == RUN_FILES | {"figures/confusion_matrix.png"}


def test_weights_are_safetensors_and_nothing_is_a_pickle(homes: stoker.Run) -> None:
    state = load_file(homes.path / "model.safetensors")
    assert state.keys() == homes.model.state_dict().keys()
    assert all(name.split(".")[0] in {"encoder", "head"} for name in state), "the encoder is a part of the model"
    for path in homes.path.rglob("*"):
        if path.is_file():
            head = path.read_bytes()[:2]
            assert head[:1] != b"\x80", f"{path} begins as a pickle"
            assert head != b"PK", f"{path} is a zip, as torch.save writes"


def test_everybody_who_may_read_the_directory_may_read_its_files(homes: stoker.Run) -> None:
    allowed = stat.S_IMODE(homes.path.stat().st_mode) & 0o666
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in homes.path.iterdir() if path.is_file()}
    assert modes == dict.fromkeys(modes, allowed)


def test_metrics_are_by_split_and_name(homes: stoker.Run) -> None:
    metrics = json.loads((homes.path / "metrics.json").read_text())
    assert list(metrics) == ["train", "valid", "test"]
    assert all(list(values) == ["loss", "mse", "rmse", "mae", "r2"] for values in metrics.values())
    assert metrics == homes.metrics
    assert math.sqrt(metrics["test"]["mse"]) == metrics["test"]["rmse"]


def test_history_has_a_row_an_epoch_and_reads_back_to_the_bit(homes: stoker.Run) -> None:
    table = pl.read_csv(homes.path / "history.csv")
    assert table.columns[:5] == ["epoch", "step", "lr", "train_loss", "valid_loss"]
    assert table["epoch"].to_list() == [1, 2]
    assert table["step"].to_list() == [3, 6], "90 rows in batches of 32"
    best = homes.history.best
    assert best["valid_loss"] == homes.metrics["valid"]["loss"]
    assert homes.history.column("valid_rmse") == table["valid_rmse"].to_list()


def test_the_record_says_all_that_it_takes_to_do_it_again(homes: stoker.Run) -> None:
    record = json.loads((homes.path / "config.json").read_text())
    assert record["format"] == 1
    assert record["versions"]["torch"] == torch.__version__
    assert record["sources"]["train"]["fingerprint"].startswith("sha256:")
    assert record["rows"] == {"train": 90, "valid": 30, "test": 30}
    assert record["settings"]["training"]["lr"] == 0.001, "the optimizer's own, as none was asked for"
    assert record["settings"]["model"] == {
        "name": "mlp",
        "numeric_embedding": "none",
        "hidden": [8],
        "activation": "relu",
        "dropout": 0.0,
        "norm": "none",
    }
    assert record["training"]["steps"] == 6
    assert record["training"]["stopped"] == "finished"
    assert record["training"]["parameters"] == sum(p.numel() for p in homes.model.parameters())
    assert [column["name"] for column in record["recipe"]["table_schema"]["columns"]] == learning("price").columns[:-1]


def test_pictures_are_pictures(homes: stoker.Run, grades: stoker.Run) -> None:
    assert [path.name for path in homes.figures] == ["learning_curves.png", "predicted_vs_true.png"]
    assert [path.name for path in grades.figures] == ["confusion_matrix.png", "learning_curves.png"]
    for path in (*homes.figures, *grades.figures):
        with Image.open(path) as picture:
            picture.load()
            assert picture.format == "PNG"
            assert min(picture.size) >= 300
            assert len(set(picture.convert("RGB").resize((40, 40)).tobytes())) > 10, "not a blank page"


def test_the_card_says_what_the_run_is(homes: stoker.Run, grades: stoker.Run) -> None:
    card = (homes.path / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: stoker\npipeline_tag: tabular-regression\n")
    assert "predicts the number `price`" in card
    rows = [line.split(" | ") for line in card.splitlines() if line.startswith(("| train", "| valid", "| test"))]
    assert [(row[0], row[1]) for row in rows] == [("| train", "90"), ("| valid", "30"), ("| test", "30")]
    assert float(rows[2][4]) == pytest.approx(homes.metrics["test"]["rmse"], rel=1e-4)
    assert "seed 0" in card
    assert all((homes.path / line.split("(")[1].rstrip(")")).exists() for line in card.splitlines() if line[:2] == "![")
    card = (grades.path / "README.md").read_text()
    assert "predicts `grade`, one of 3 classes (`low`, `middle`, `top`)" in card


def test_the_example_on_the_card_runs(homes: stoker.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = (homes.path / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0].replace("path/to/this/directory", str(homes.path))
    learning("price").write_csv(tmp_path / "new_rows.csv")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(code.replace("run.predict", "table = run.predict"), names)
    assert isinstance(names["table"], pl.DataFrame)
    assert names["table"].columns == ["prediction"]


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("my homes.csv", "my-homes"),
        ("häuser.v2.csv", "häuser.v2"),
        ("..odd .csv", "odd"),
        ("日本.csv", "日本"),
        ("x" * 250 + ".csv", "x" * 100),
        ("日" * 80 + ".csv", "日" * 33),
    ],
)
def test_an_unnamed_run_is_called_by_its_source_and_time(
    file: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learning("price", 60).write_csv(tmp_path / file)
    monkeypatch.chdir(tmp_path)
    run = quick_fit(file, None, target="price", now=NOW)
    assert run.path == Path("runs") / f"{name}-20260102-030405"
    assert files_of(run.path) >= RUN_FILES
    assert run.evaluate() == run.metrics["test"], "the source is found from where it was named"


def test_two_runs_in_one_second_get_names_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    frame = learning("price", 60)
    names = [quick_fit(frame, None, target="price", now=NOW).path.name for _ in range(3)]
    assert names == ["data-20260102-030405", "data-20260102-030405-2", "data-20260102-030405-3"]


def test_two_runs_at_the_same_time_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    frame = learning("price", 60)
    runs: dict[int, stoker.Run] = {}

    def fit(seed: int) -> None:
        # not quick_fit, whose patching is for one thread
        settings: dict[str, Any] = {"target": "price", "epochs": 1, "hidden": (4,), "seed": seed}
        runs[seed] = stoker.fit(frame, progress="none", now=NOW, **settings)

    threads = [threading.Thread(target=fit, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {run.path.name for run in runs.values()} == {"data-20260102-030405", "data-20260102-030405-2"}
    for seed, run in runs.items():
        assert run.config.training.seed == seed
        assert files_of(run.path) == RUN_FILES | {"figures/predicted_vs_true.png"}


def test_now_is_the_clocks_time_if_none_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = datetime.now(UTC).replace(microsecond=0)
    run = quick_fit(learning("price", 60), None, target="price")
    told = datetime.strptime(run.path.name, "data-%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    assert before <= told <= datetime.now(UTC)


def test_directories_above_the_run_are_made(tmp_path: Path) -> None:
    run = quick_fit(learning("price", 60), tmp_path / "a" / "b c" / "run", target="price")
    assert run.path == tmp_path / "a" / "b c" / "run"
    assert files_of(run.path) >= RUN_FILES


def taken(tmp_path: Path, what: str) -> Path:
    out = tmp_path / "taken"
    if what == "file":
        out.write_text("precious")
    elif what == "empty directory":
        out.mkdir()
    elif what == "dangling link":
        out.symlink_to(tmp_path / "nowhere")
    else:
        quick_fit(learning("price", 60), out, target="price")
    return out


@pytest.mark.parametrize("what", ["file", "empty directory", "dangling link", "run"])
def test_what_is_there_is_never_overwritten(what: str, tmp_path: Path) -> None:
    out = taken(tmp_path, what)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    listed = sorted(tmp_path.rglob("*"))
    with pytest.raises(
        RunExistsError, match=r"^--out: must not exist yet, got .*taken\. Choose another --out, or remove it yourself"
    ):
        quick_fit("no such source is looked for", out, target="price")
    assert sorted(tmp_path.rglob("*")) == listed
    assert {path: path.read_bytes() for path in before} == before


def test_a_directory_that_appears_meanwhile_is_not_overwritten_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stoker.jobs.prepare import prepare

    out = tmp_path / "run"

    def slow(*given: object, **named: object) -> object:
        out.mkdir()
        (out / "config.json").write_text("precious")
        return prepare(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr("stoker.jobs.fit.prepare", slow)
    with pytest.raises(RunExistsError, match="must not exist yet"):
        quick_fit(learning("price", 60), out, target="price")
    assert files_of(out) == {"config.json"}
    assert (out / "config.json").read_text() == "precious"


def test_out_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    rule = r"^--out: must be a directory that can be made \(Not a directory\), got '.*'. Choose another --out\."
    for out in (tmp_path / "file" / "run", tmp_path / "file" / "a" / "run"):
        with pytest.raises(ConfigError, match=rule):
            quick_fit("no such source is looked for", out, target="price")
    assert files_of(tmp_path) == {"file"}


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is forbidden to root")
def test_out_where_nothing_may_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ConfigError, match=r"^--out: must be a directory that can be made \(Permission denied\)"):
            quick_fit(learning("price", 60), tmp_path / "run", target="price")
    finally:
        tmp_path.chmod(0o700)


def test_out_where_the_system_forbids_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", forbid)
    with pytest.raises(ConfigError, match=r"^--out: must be a directory that can be made \(Permission denied\), got"):
        quick_fit(learning("price", 60), tmp_path / "run", target="price")


@pytest.mark.parametrize("out", ["x" * 300, "null\0byte"])
def test_out_that_cannot_be_a_name(out: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--out: must be a directory that can be made \("):
        quick_fit(learning("price", 60), tmp_path / "new" / out, target="price")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("settings", [{"metrics": ("rmsee",)}, {"lr": 1e30, "optimizer": "sgd"}, {"clip_norm": -1.0}])
def test_a_failure_leaves_nothing_behind(settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(StokerError):
        quick_fit(learning("price", 60), tmp_path / "new" / "run", target="price", **settings)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_removes_nothing_that_others_wrote(tmp_path: Path) -> None:
    class Writes(stoker.Callback):
        def on_epoch_end(self, *_: object) -> None:
            (tmp_path / "run" / "mine.txt").write_text("precious")
            raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        quick_fit(learning("price", 60), tmp_path / "run", target="price", callbacks=[Writes()])
    assert files_of(tmp_path / "run") == {"mine.txt"}


def test_a_picture_that_cannot_be_drawn_costs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no font")

    monkeypatch.setattr("stoker.jobs.writing.learning_curves", fail)
    told: list[str] = []
    run = quick_fit(learning("price", 60), tmp_path / "run", target="price", pictures=True, notify=told.append)
    assert told == ["the pictures could not be drawn: RuntimeError: no font"]
    assert run.notices == told
    assert run.metrics["test"] == run.evaluate(run_rows(run))


def run_rows(run: stoker.Run) -> pl.DataFrame:
    """The run's test rows, split off once more."""
    from stoker.data.dataset import Table
    from stoker.jobs.splitting import split_table

    table = stoker.load_data(learning("price", 60))
    assert isinstance(table, Table)
    assert run.schema is not None
    test = split_table(table, run.schema, run.config.data, 0, notify=lambda _: None).test
    assert test is not None
    return test


def test_a_run_of_images_has_these_files(tmp_path: Path) -> None:
    run = quick_fit(write_images(tmp_path / "animals"), tmp_path / "run", model="mlp", pictures=True)
    assert files_of(run.path) == RUN_FILES | {"figures/confusion_matrix.png"}
    card = (run.path / "README.md").read_text()
    assert "pipeline_tag: image-classification" in card
    assert 'run.predict("folder_of_images").frame()' in card
