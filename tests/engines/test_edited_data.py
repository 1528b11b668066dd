"""Data that are written to between epochs: each epoch is trained on what they are when it begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny import X, Y, assert_near, mlp
from torch import Tensor

from stoker.engines import auto, beside
from stoker.training.callbacks import Callback
from stoker.training.history import Row
from stoker.training.trainer import Trainer


def aligned() -> tuple[Any, Tensor]:
    data = X.clone()
    return data, data


def unaligned() -> tuple[Any, Tensor]:
    data = torch.zeros(X.numel() + 3)[3:].view(X.shape).copy_(X)  # 12 bytes past where a program may read it
    return data, data


def transposed() -> tuple[Any, Tensor]:
    data = X.T.clone().T
    return data, data


def numbers() -> tuple[Any, Tensor]:
    data = X.numpy().copy()
    return data, torch.from_numpy(data)


@pytest.mark.parametrize("make", [aligned, unaligned, transposed, numbers])
@pytest.mark.parametrize("engine", ["compiled", "auto"])
def test_what_is_written_is_seen(
    make: Callable[[], tuple[Any, Tensor]], engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Doubles(Callback):
        def on_epoch_end(self, row: Row, is_best: bool) -> None:  # noqa: ARG002
            if row["epoch"] in (2, 3):
                memory.mul_(2)

    for name in ("BUILD_SECONDS", "COLD_SECONDS", "WARM_SECONDS", "WARM_BUILD", "AT_ONCE"):
        monkeypatch.setattr(auto, name, 0.0)
    for module in (auto, beside):
        monkeypatch.setattr(module, "forks", lambda: False)
    monkeypatch.setattr(auto, "surely_saved", lambda *_: 1.0)
    models, losses = [], []
    for each in (engine, "eager"):
        data, memory = make()
        models.append(mlp())
        trainer = Trainer(models[-1], "mse", "sgd", lr=0.05, engine=each, device="cpu", metrics=())
        fitting: dict[str, Any] = {"epochs": 5, "batch_size": 16, "progress": "none", "check": False}
        history = trainer.fit((data, Y), callbacks=[Doubles()], **fitting)
        losses.append(history.column("train_loss"))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert_near(*models)
