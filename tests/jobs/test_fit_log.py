"""``log="tensorboard"`` and ``log="mlflow"`` within a whole job."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from small import files_of, learning, quick_fit
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from stoker.errors import MissingExtraError, UnknownNameError
from stoker.training.callbacks import Callback


def fit(out: Path, log: Any, **settings: Any) -> Any:
    return quick_fit(learning("grade"), out, target="grade", log=log, **settings)


def test_tensorboard_writes_into_the_run(tmp_path: Path) -> None:
    run = fit(tmp_path / "run", "tensorboard", epochs=3)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    measured = json.loads((run.path / "metrics.json").read_text())
    for split, metrics in measured.items():
        for name, value in metrics.items():
            (event,) = events.Scalars(f"final/{split}/{name}")
            assert event.value == pytest.approx(value, rel=1e-6)
    assert [event.step for event in events.Scalars("valid/loss")] == [1, 2, 3]
    plan = events.Tensors("plan/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| training.lr | 0.001 |" in plan
    assert "| model.hidden | [8] |" in plan


def test_mlflow_gets_a_run_named_like_the_runs_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    run = fit(tmp_path / "my-run", ["mlflow"])
    (kept,) = MlflowClient().search_runs(["0"])
    assert (kept.info.run_name, kept.info.status) == ("my-run", "FINISHED")
    assert kept.data.params["training.lr"] == "0.001"
    assert kept.data.params["data.target"] == "grade"
    assert kept.data.metrics["final/test/accuracy"] == run.metrics["test"]["accuracy"]
    assert not (run.path / "tensorboard").exists()


def test_it_changes_nothing_else(tmp_path: Path) -> None:
    plain, logged = fit(tmp_path / "plain", ()), fit(tmp_path / "logged", ("tensorboard", "tensorboard"))
    for file in ("model.safetensors", "history.csv", "metrics.json"):
        assert (plain.path / file).read_bytes() == (logged.path / file).read_bytes()
    assert {file for file in files_of(logged.path) if "events" not in file} == files_of(plain.path)
    assert logged.record.settings == plain.record.settings


def test_where_no_run_comes_about_no_events_are_left(tmp_path: Path) -> None:
    class Fails(Callback):
        def on_epoch_end(self, _row: Any, _is_best: bool) -> None:
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fit(tmp_path / "run", "tensorboard", callbacks=[Fails()])
    assert not (tmp_path / "run").exists()


def test_an_unknown_logger_is_told_before_the_data_are_read(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"log: .* got 'tensorbord'\. Did you mean 'tensorboard'\?"):
        quick_fit("no-such-file.csv", tmp_path / "run", log="tensorbord")


def test_so_is_a_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(
        MissingExtraError, match=r'log mlflow: needs the package mlflow.*pip install "stoker\[mlflow\]"'
    ):
        quick_fit("no-such-file.csv", tmp_path / "run", log=["mlflow"])
