"""A small network, its data, and callbacks, for tests of the Trainer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from stoker.training.callbacks import Callback, EpochProgress, FitPlan
from stoker.training.history import History, Row
from stoker.training.trainer import Trainer

QUIET: dict[str, Any] = {"progress": "none"}


def some(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X, Y = some(70, 3), some(70, 1, seed=1)
VALID = some(40, 3, seed=2), some(40, 1, seed=3)


def net(seed: int = 0) -> nn.Sequential:
    """With noise and running statistics, so that whatever touches either shows in the weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))


def trainer_of(model: nn.Module, criterion: Any = "mse", optimizer: Any = "adam", **settings: Any) -> Trainer:
    return Trainer(model, criterion, optimizer, device="cpu", **settings)


def weights(model: nn.Module) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in model.state_dict().values()]


def same(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


class Recorder(Callback):
    """Notes what it is told, in order."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.plan: FitPlan | None = None
        self.progress: list[EpochProgress] = []
        self.rows: list[tuple[Row, bool]] = []
        self.history: History | None = None

    def on_fit_start(self, plan: FitPlan) -> None:
        self.events.append("start")
        self.plan = plan

    def on_progress(self, progress: EpochProgress) -> None:
        self.events.append("progress")
        self.progress.append(progress)

    def on_epoch_end(self, row: Row, is_best: bool) -> bool | None:
        self.events.append("epoch")
        self.rows.append((row, is_best))
        return None

    def on_fit_end(self, history: History) -> None:
        self.events.append("end")
        self.history = history


class AtEpoch(Callback):
    """Does something at the end of an epoch."""

    def __init__(self, epoch: int, act: Callable[[], Any]) -> None:
        self.epoch, self.act = epoch, act

    def on_epoch_end(self, row: Row, _is_best: bool) -> bool | None:
        if row["epoch"] == self.epoch:
            return bool(self.act())
        return None
