"""Metrics of the splits are the eager engine's, whichever engine has trained.

As in ``test_engines.py``, each test says what made the updates.
"""

from __future__ import annotations

from typing import Any

import pytest
from loops import BATCH, SEED, TOLERANCE, WHOLE, built, carried_out, labels, mlp, prepare, rows
from torch import nn

from stoker.engines.registry import ENGINES
from stoker.training.history import History
from stoker.training.trainer import Trainer

EPOCHS = 3
BY_COUNTING = {
    "accuracy",
    "top2_accuracy",
    "f1",
}  # so many of the rows: a share that differs at all differs by one of them


@pytest.fixture(autouse=True)
def prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(monkeypatch)


def classifier() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


def fitted(engine: str, task: str) -> tuple[History, dict[str, float]]:
    """A training, and what is measured on a split that it has not seen."""
    x = rows(4)
    if task == "regression":
        model, criterion, y = built(mlp), "mse", x[:, :1] * x[:, 1:2] + 0.1 * rows(1, seed=1)
        metrics: Any = "auto"
    else:
        model, criterion, y = built(classifier), "cross-entropy", labels(3)
        metrics = ("accuracy", "top2_accuracy", "f1", "auroc", "log_loss")
    held_back = rows(4, seed=2)[:60]
    known = y[:60]
    trainer = Trainer(model, criterion, "adam", lr=0.01, engine=engine, device="cpu", seed=SEED, metrics=metrics)
    history = trainer.fit((x, y), (held_back, known), epochs=EPOCHS, batch_size=BATCH, progress="none")
    carried_out(trainer, epochs=EPOCHS, updates=WHOLE)
    return history, trainer.evaluate((rows(4, seed=3), y))


@pytest.mark.parametrize("task", ["regression", "multiclass"])
def test_metrics_are_the_eager_engines(task: str) -> None:
    expected, measured = fitted("eager", task)
    names = {"regression": {"mse", "rmse", "mae", "r2"}, "multiclass": {"accuracy", "f1", "auroc", "log_loss"}}[task]
    assert names | {"loss"} <= set(measured)
    assert {f"valid_{name}" for name in measured} | {"train_loss"} <= set(expected[0])
    for engine in sorted(set(ENGINES) - {"eager"}):
        history, found = fitted(engine, task)
        assert len(history) == len(expected) == EPOCHS
        near: Any = {"rel": TOLERANCE[engine], "abs": TOLERANCE[engine]}
        for mine, theirs in zip(history, expected, strict=True):
            assert mine == pytest.approx(theirs, **near)
        assert found == pytest.approx(measured, **near)
        for name in BY_COUNTING & set(measured):
            assert history.column(f"valid_{name}") == expected.column(f"valid_{name}")
            assert found[name] == measured[name]
