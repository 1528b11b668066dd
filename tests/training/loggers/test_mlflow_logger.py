"""MLflow runs, read back through MLflow's own client."""

from __future__ import annotations

import math
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from torch import nn

from stoker.errors import ConfigError, MissingExtraError, NonFiniteLossError
from stoker.training.callbacks import Callback
from stoker.training.loggers.logger import metric_name
from stoker.training.loggers.mlflow import MLflowLogger
from stoker.training.trainer import Trainer


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store of plain files, which needs neither a database nor a server."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    uri = (tmp_path / "mlruns").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


def data(rows: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(rows, 3, generator=torch.Generator().manual_seed(seed))
    return x, x.sum(dim=1, keepdim=True)


def trainer() -> Trainer:
    torch.manual_seed(0)
    return Trainer(nn.Linear(3, 1), "mse", "sgd", lr=0.1, schedule="cosine", device="cpu")


def fit(*callbacks: Callback, made: Trainer | None = None, **settings: Any) -> Any:
    settings = {"epochs": 3, "progress": "none", **settings}
    return (made or trainer()).fit(data(40, 0), data(20, 1), callbacks=callbacks, **settings)


def run_of(logger: MLflowLogger, store: str) -> Run:
    assert logger.run_id is not None
    return MlflowClient(tracking_uri=store).get_run(logger.run_id)


def series(logger: MLflowLogger, store: str, name: str) -> list[tuple[int, float]]:
    assert logger.run_id is not None
    found = MlflowClient(tracking_uri=store).get_metric_history(logger.run_id, name)
    return sorted((metric.step, metric.value) for metric in found)


def test_every_column_of_the_history_is_there(store: str) -> None:
    logger = MLflowLogger(
        experiment="housing", run_name="first", tracking_uri=store, params={"hidden": 50}, tags={"by": "me"}
    )
    history = fit(logger)
    run = run_of(logger, store)
    for column in history[0]:
        if column != "epoch":
            assert series(logger, store, metric_name(column)) == list(enumerate(history.column(column), 1))
    assert run.data.metrics["best/loss"] == history.best["valid_loss"]
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "first"
    assert run.data.params["hidden"] == "50"
    assert (run.data.params["device"], run.data.params["engine"], run.data.params["epochs"]) == ("cpu", "eager", "3")
    assert run.data.params["parameters"] == "4"
    assert run.data.tags["by"] == "me"
    assert run.data.tags["stopped"] == "finished"
    assert run.data.tags["engine_reason"] == history.engine == "eager: a callback listens to each step"
    assert run.data.tags["best_epoch"] == str(history.best_epoch)
    experiment = MlflowClient(tracking_uri=store).get_experiment(run.info.experiment_id)
    assert experiment.name == "housing"


def test_every_so_many_steps(store: str) -> None:
    logger = MLflowLogger(every=4)
    fit(logger, batch_size=8)
    assert [step for step, _ in series(logger, store, "train/step_loss")] == [4, 8, 12]
    assert [step for step, _ in series(logger, store, "train/step_lr")] == [4, 8, 12]


def test_by_default_it_is_as_mlflow_is_configured(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "from the environment")
    one, two = MLflowLogger(), MLflowLogger()
    fit(one)
    fit(two)
    client = MlflowClient(tracking_uri=store)
    experiment = client.get_experiment_by_name("from the environment")
    assert experiment is not None
    assert {run.info.run_id for run in client.search_runs([experiment.experiment_id])} == {one.run_id, two.run_id}
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    fit(one)
    assert client.get_experiment(run_of(one, store).info.experiment_id).name == "Default"


def test_a_second_fit_goes_on_with_the_run_and_another_training_begins_its_own(store: str) -> None:
    made, logger = trainer(), MLflowLogger()
    fit(logger, made=made, epochs=2)
    first = logger.run_id
    fit(logger, made=made, epochs=1)
    assert logger.run_id == first
    assert [step for step, _ in series(logger, store, "train/loss")] == [1, 2, 3]
    assert run_of(logger, store).info.status == "FINISHED"
    fit(logger, epochs=1)
    assert logger.run_id != first


class At(Callback):
    def __init__(self, epoch: int, act: Any) -> None:
        self.epoch, self.act = epoch, act

    def on_epoch_end(self, row: Any, _is_best: bool) -> bool | None:
        return self.act() if row["epoch"] == self.epoch else None


def fail() -> None:
    raise KeyError("mine")


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(
    ("act", "status", "stopped", "epochs"),
    [
        (lambda: True, "FINISHED", "callback", 2),
        (interrupt, "KILLED", "interrupted", 2),
    ],
)
def test_status_when_it_is_stopped(store: str, act: Any, status: str, stopped: str, epochs: int) -> None:
    logger = MLflowLogger()
    fit(logger, At(epochs, act), epochs=5)
    run = run_of(logger, store)
    assert (run.info.status, run.data.tags["stopped"]) == (status, stopped)
    assert run.info.end_time is not None
    assert len(series(logger, store, "train/loss")) == epochs


def test_status_when_an_error_ends_it(store: str) -> None:
    logger = MLflowLogger()
    with pytest.raises(KeyError, match="mine"):
        fit(logger, At(2, fail), epochs=5)
    run = run_of(logger, store)
    assert (run.info.status, run.data.tags["stopped"]) == ("FAILED", "running")
    assert [step for step, _ in series(logger, store, "train/loss")] == [1, 2]


def test_status_when_the_loss_is_not_finite(store: str) -> None:
    logger = MLflowLogger()
    x, y = data(40, 0)
    x[0, 0] = math.inf
    with pytest.raises(NonFiniteLossError):
        trainer().fit((x, y), epochs=2, check=False, callbacks=[logger], progress="none")
    assert run_of(logger, store).info.status == "FAILED"


def test_many_and_long_parameters(store: str) -> None:
    params = {f"p{number}": number for number in range(250)} | {"long": "x" * 9000, "odd/ näme %": None}
    logger = MLflowLogger(params=params)
    fit(logger, epochs=1)
    found = run_of(logger, store).data.params
    assert {f"p{number}" for number in range(250)} <= set(found)
    assert found["long"] == "x" * len(found["long"])
    assert len(found["long"]) >= 500
    assert found["odd/ näme _"] == "None"


def test_numbers_can_be_added_afterwards(store: str) -> None:
    logger = MLflowLogger()
    logger.record({"final/test/rmse": 1.0})  # there is no run yet
    fit(logger, epochs=1)
    logger.record({"final/test/rmse": 0.1, "final/test/r2": math.nan})
    run = run_of(logger, store)
    assert run.data.metrics["final/test/rmse"] == 0.1
    assert math.isnan(run.data.metrics["final/test/r2"])
    assert run.info.status == "FINISHED"


def test_a_store_that_cannot_be_reached(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    logger = MLflowLogger(tracking_uri=(tmp_path / "file" / "runs").as_uri())
    with pytest.raises(ConfigError, match=r"MLflowLogger: must be able to log to MLflow at file:.*Mend that, or train"):
        fit(logger)


def test_a_store_that_goes_away_is_told_once_and_the_training_goes_on(store: str, tmp_path: Path) -> None:
    import shutil

    logger = MLflowLogger()
    leaves = At(2, lambda: shutil.rmtree(tmp_path / "mlruns"))
    with pytest.warns(RuntimeWarning, match="MLflowLogger stopped logging to MLflow at .*training is not") as told:
        history = fit(logger, leaves, epochs=5)
    assert len(told) == 1
    logger.record({"final/test/rmse": 0.1})  # with warnings as errors: it says nothing more
    assert (len(history), history.stopped) == (5, "finished")


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    text = r'MLflowLogger: needs the package mlflow, which is not installed\. Run: pip install "stoker\[mlflow\]"'
    with pytest.raises(MissingExtraError, match=text):
        MLflowLogger()
