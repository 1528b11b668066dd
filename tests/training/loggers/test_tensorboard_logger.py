"""Event files, read back with TensorBoard's own reader."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from stoker.errors import ConfigError, MissingExtraError, NonFiniteLossError
from stoker.training.callbacks import Callback, StepProgress
from stoker.training.history import History
from stoker.training.loggers.logger import metric_name
from stoker.training.loggers.tensorboard import TensorBoardLogger
from stoker.training.trainer import Trainer


class Steps(Callback):
    def __init__(self) -> None:
        self.seen: list[tuple[int, float, float]] = []

    def on_step_end(self, step: StepProgress) -> None:
        self.seen.append((step.step, float(step.loss), step.lr))


def data(rows: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(rows, 3, generator=torch.Generator().manual_seed(seed))
    return x, x.sum(dim=1, keepdim=True)


def trainer(**settings: Any) -> Trainer:
    torch.manual_seed(0)
    return Trainer(nn.Linear(3, 1), "mse", "sgd", lr=0.1, schedule="cosine", device="cpu", **settings)


def read(directory: Path) -> EventAccumulator:
    events = EventAccumulator(str(directory), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    return events


def scalars(events: EventAccumulator, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events.Scalars(tag)]


def text(events: EventAccumulator, tag: str) -> str:
    last = events.Tensors(f"{tag}/text_summary")[-1]
    return str(last.tensor_proto.string_val[0].decode())


def near(value: float) -> Any:
    return pytest.approx(value, rel=1e-6)  # event files hold float32


def test_every_column_of_the_history_is_there(tmp_path: Path) -> None:
    made = trainer()
    logger = TensorBoardLogger(tmp_path, params={"hidden": 50, "widths": (1, 2)}, text={"note": "**first**"})
    history = made.fit(data(40, 0), data(20, 1), epochs=3, callbacks=[logger], progress="none")
    events = read(tmp_path)
    for column in history[0]:
        if column != "epoch":
            found = scalars(events, metric_name(column))
            assert [step for step, _ in found] == [1, 2, 3]
            assert [value for _, value in found] == [near(value) for value in history.column(column)]
    assert scalars(events, "best/loss") == [(history.best_epoch, near(history.best["valid_loss"]))]
    plan = text(events, "plan")
    assert "| hidden | 50 |" in plan
    assert "| device | cpu |" in plan
    assert "| parameters | 4 |" in plan
    assert text(events, "note") == "**first**"
    assert text(events, "engine") == history.engine == "eager: a callback listens to each step"
    assert text(events, "end") == f"finished; best epoch: {history.best_epoch}"


def test_hyperparameters_are_there_for_the_tab_that_compares_them(tmp_path: Path) -> None:
    from tensorboard.plugins.hparams import metadata
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    logger = TensorBoardLogger(tmp_path, params={"hidden": 50, "rate": 0.5, "name": "mlp", "widths": (1, 2)})
    trainer().fit(data(40, 0), data(20, 1), epochs=1, callbacks=[logger], progress="none")
    content = read(tmp_path).summary_metadata[metadata.SESSION_START_INFO_TAG].plugin_data.content
    found = HParamsPluginData.FromString(content).session_start_info.hparams
    assert found["hidden"].number_value == 50
    assert found["rate"].number_value == 0.5
    assert found["name"].string_value == "mlp"
    assert found["widths"].string_value == "(1, 2)"


def test_every_so_many_steps(tmp_path: Path) -> None:
    steps = Steps()
    made = trainer()
    logger = TensorBoardLogger(tmp_path, every=4)
    made.fit(data(40, 0), epochs=3, batch_size=8, callbacks=[steps, logger], progress="none")
    events = read(tmp_path)
    wanted = [(step, loss, lr) for step, loss, lr in steps.seen if step % 4 == 0]
    assert [step for step, _, _ in wanted] == [4, 8, 12]
    assert scalars(events, "train/step_loss") == [(step, near(loss)) for step, loss, _ in wanted]
    assert scalars(events, "train/step_lr") == [(step, near(lr)) for step, _, lr in wanted]


def test_it_changes_no_bit_of_the_training(tmp_path: Path) -> None:
    plain, logged = trainer(), trainer()
    plain.fit(data(40, 0), data(20, 1), epochs=2, progress="none")
    logged.fit(data(40, 0), data(20, 1), epochs=2, callbacks=[TensorBoardLogger(tmp_path, every=1)], progress="none")
    for one, other in zip(plain.model.parameters(), logged.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_second_fit_goes_on(tmp_path: Path) -> None:
    made = trainer()
    logger = TensorBoardLogger(tmp_path)
    made.fit(data(40, 0), epochs=2, callbacks=[logger], progress="none")
    made.fit(data(40, 0), epochs=1, callbacks=[logger], progress="none")
    assert sorted(step for step, _ in scalars(read(tmp_path), "train/loss")) == [1, 2, 3]  # from two files


def test_what_was_logged_is_there_when_training_fails(tmp_path: Path) -> None:
    class Fails(Callback):
        def on_epoch_end(self, row: Any, _is_best: bool) -> None:
            if row["epoch"] == 2:
                raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        trainer().fit(data(40, 0), epochs=5, callbacks=[TensorBoardLogger(tmp_path), Fails()], progress="none")
    events = read(tmp_path)
    assert [step for step, _ in scalars(events, "train/loss")] == [1, 2]
    assert text(events, "end") == "running; best epoch: 2"


def test_what_was_logged_is_there_when_the_loss_is_not_finite(tmp_path: Path) -> None:
    x, y = data(40, 0)
    x[0, 0] = math.inf
    with pytest.raises(NonFiniteLossError):
        trainer().fit((x, y), epochs=2, check=False, callbacks=[TensorBoardLogger(tmp_path)], progress="none")
    assert text(read(tmp_path), "end") == "non-finite; best epoch: 0"


def test_numbers_can_be_added_afterwards(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    logger.record({"final/test/rmse": 1.0})  # there is no log yet
    assert not list(tmp_path.iterdir())
    trainer().fit(data(40, 0), epochs=1, callbacks=[logger], progress="none")
    logger.record({"final/test/rmse": 0.25})
    assert scalars(read(tmp_path), "final/test/rmse") == [(0, 0.25)]


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    made = trainer()
    before = [parameter.detach().clone() for parameter in made.model.parameters()]
    with pytest.raises(ConfigError, match=r"TensorBoardLogger: must be able to log to .*file.logs: .*Mend that"):
        made.fit(data(40, 0), callbacks=[TensorBoardLogger(tmp_path / "file" / "logs")], progress="none")
    assert all(torch.equal(a, b) for a, b in zip(before, made.model.parameters(), strict=True))


def test_a_log_that_breaks_is_told_once_and_the_training_goes_on(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)

    class Breaks(Callback):
        def on_epoch_end(self, row: Any, _is_best: bool) -> None:
            if row["epoch"] == 2:
                assert logger._writer is not None
                logger._writer.close()
                logger._writer = None

    with pytest.warns(
        RuntimeWarning, match="TensorBoardLogger stopped logging to .*the training is not affected"
    ) as told:
        history = trainer().fit(data(40, 0), epochs=5, callbacks=[Breaks(), logger], progress="none")
    assert len(told) == 1
    assert (len(history), history.stopped) == (5, "finished")
    assert [step for step, _ in scalars(read(tmp_path), "train/loss")] == [1]


@pytest.mark.parametrize("every", [0, -1, 2.5, True, None])
def test_every_must_be_a_count(tmp_path: Path, every: Any) -> None:
    with pytest.raises(ConfigError, match=r"every: must be a whole number of updates from 1 on, got "):
        TensorBoardLogger(tmp_path, every=every)


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    text = r'TensorBoardLogger: needs the package tensorboard, which is not installed\. Run: pip install "stoker\[ten'
    with pytest.raises(MissingExtraError, match=text):
        TensorBoardLogger(tmp_path)


@pytest.mark.parametrize(
    ("column", "name"),
    [
        ("lr", "lr"),
        ("step", "step"),
        ("train_loss", "train/loss"),
        ("valid_top3_accuracy", "valid/top3_accuracy"),
        ("valid_price/euro_rmse", "valid/price_euro_rmse"),
        ("valid_share in %", "valid/share in _"),
        ("valid_", "valid_"),
    ],
)
def test_names(column: str, name: str) -> None:
    assert metric_name(column) == name


def test_before_a_training_its_end_is_nothing(tmp_path: Path) -> None:
    TensorBoardLogger(tmp_path).on_fit_end(History())
    assert not list(tmp_path.iterdir())
