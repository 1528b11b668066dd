"""Trainings that end at a chosen update as if they were killed there, and all that is compared of two of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stoker.training.checkpoints.files import write_checkpoint
from stoker.training.history import History
from stoker.training.trainer import Trainer


def some(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


ROWS = 150  # nine updates of 16, and one of 6
X, Y = some(ROWS, 3), some(ROWS, 1, seed=1)
VALID = some(40, 3, seed=2), some(40, 1, seed=3)


def net() -> nn.Sequential:
    """With noise and running statistics, so that whatever touches either shows in the weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))


class Killed(BaseException):
    """As sudden as SIGKILL, as far as the disk is concerned."""


def killed_after(writes: int, monkeypatch: Any) -> None:
    """From now on a training ends right after so many checkpoints were written."""
    left = [writes]

    def write(*arguments: Any, **named: Any) -> Path:
        path = write_checkpoint(*arguments, **named)
        left[0] -= 1
        if not left[0]:
            raise Killed
        return path

    monkeypatch.setattr("stoker.training.checkpoints.checkpointer.write_checkpoint", write)


def trainer_of(model: Callable[[], nn.Module] = net, **settings: Any) -> Trainer:
    settings = {"criterion": "mse", "optimizer": "adam", "lr": 0.01, "seed": 3, "device": "cpu", **settings}
    return Trainer(model(), **settings)


def fit(trainer: Trainer, **settings: Any) -> History:
    settings = {"epochs": 4, "batch_size": 16, "progress": "none", **settings}
    data = settings.pop("data", (X, Y))
    return trainer.fit(data, settings.pop("valid", VALID), **settings)


def everything(trainer: Trainer, history: History) -> dict[str, Any]:
    """All that must be the same to the bit."""
    optimizer = trainer.optimizer.state_dict()
    average = trainer.state.average
    return {
        "rows": [list(row.items()) for row in history.rows],
        "best": repr((history.best_epoch, history.stopped, trainer.state.best.value, trainer.state.best.waited)),
        "counters": (trainer.state.epoch, trainer.state.step),
        "weights": {name: bits(tensor) for name, tensor in trainer.model.state_dict().items()},
        "optimizer": bits(optimizer),
        "schedule": None if trainer.state.schedule is None else bits(plain(trainer.state.schedule.scheduler)),
        "average": None if average is None else (average.updates, bits(average.tensors())),
    }


def plain(scheduler: Any) -> dict[str, Any]:
    return {name: value for name, value in scheduler.state_dict().items() if not callable(value)}


def bits(value: Any) -> Any:
    """A nested value with tensors as their dtype, strides and bytes."""
    if isinstance(value, Tensor):
        return str(value.dtype), value.stride(), value.detach().contiguous().numpy().tobytes()
    if isinstance(value, dict):
        return {key: bits(entry) for key, entry in value.items()}
    return [bits(part) for part in value] if isinstance(value, (list, tuple)) else value


__all__ = ["VALID", "Killed", "X", "Y", "bits", "everything", "fit", "killed_after", "net", "some", "trainer_of"]
