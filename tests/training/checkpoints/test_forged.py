"""What a checkpoint may say whose digest fits, and what is refused before anything is trained with it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from interrupted import Killed, fit, killed_after, net, trainer_of
from torch import nn
from torch.optim import LBFGS
from torch.optim import lr_scheduler as schedulers
from torch.optim.lr_scheduler import LRScheduler

from stoker.errors import CheckpointError
from stoker.training.checkpoints.files import checkpoint_paths, read_checkpoint, write_checkpoint

Edit = Callable[[dict[str, Any]], Any]


def forged(place: Path, edit: Edit, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
    """Go on from a checkpoint of the middle of the second epoch, after an edit."""
    with monkeypatch.context() as patched:
        killed_after(14, patched)
        with pytest.raises(Killed):
            fit(trainer_of(**settings), checkpoint=place / "kept", checkpoint_every="1steps")
    saved = read_checkpoint(checkpoint_paths(place / "kept")[0])
    edit(saved)
    write_checkpoint(place / "forged", 14, saved, keep=1)
    fit(trainer_of(**settings), resume=place / "forged")


def put(*path: Any) -> Edit:
    """Sets the last of these at the place that the others lead to."""
    *keys, key, value = path

    def edit(saved: dict[str, Any]) -> None:
        for one in keys:
            saved = saved[one]
        saved[key] = value

    return edit


def without(*path: Any) -> Edit:
    *keys, key = path

    def edit(saved: dict[str, Any]) -> None:
        for one in keys:
            saved = saved[one]
        del saved[key]

    return edit


def weights(name: str) -> Edit:
    """Another shape of a tensor of the best weights."""
    return put("snapshot", name, torch.zeros(9))


GROUP = ("optimizer", "param_groups", 0)
MOMENTS = ("optimizer", "state", 0)
ROW = {"epoch": 1, "step": 10, "lr": 0.1, "train_loss": 1.0}


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (put(*MOMENTS, "exp_avg", torch.zeros(3)), r"exp_avg is float32 \[3\], not float32 \[8, 3\]"),
        (put(*MOMENTS, "exp_avg_sq", torch.zeros(8, 3).long()), r"exp_avg_sq is int64 \[8, 3\]"),
        (put(*MOMENTS, "step", torch.tensor(-1.0)), "step is -1.0"),
        (put(*MOMENTS, "step", 3), "step is int, not float32"),
        (without(*MOMENTS, "exp_avg"), "the optimizer remembers"),
        (put("optimizer", "state", 99, {}), "parameters that are not there"),
        (without(*GROUP, "eps"), "KeyError: 'eps'"),
        (put(*GROUP, "eps", 1.0), "eps is 1.0, not 1e-08"),
        (put(*GROUP, "lr", -1.0), "Invalid learning rate"),
        (put(*GROUP, "initial_lr", 10**400), "OverflowError"),
        (put(*GROUP, "params", [5, 4, 3, 2, 1, 0]), "in another order"),
        (put("legs", "epochs", 10**9), "where its training stood"),
        (put("legs", "first", 3), "where its training stood"),
        (put("epoch", 10**30), "must say what it is of"),
        (put("environment", 3), "must say what it is of"),
        (put("stopped", torch.zeros(2)), "must say what it is of"),
        (put("job", "the seed", torch.zeros(2)), "the seed must be the checkpoint's"),
        (put("step", -1), "step is -1, not a count"),
        (put("seconds", math.inf), "seconds is inf, not a number"),
        (put("best", "epoch", math.inf), "epoch is inf, not a count"),
        (put("best", "waited", 10**20), "not a count"),
        (put("rows", [{"epoch": 1}]), "KeyError: 'step'"),
        (put("rows", [ROW | {"lr": "fast"}]), "lr is fast, not a number"),
        (put("rows", [ROW | {"valid_\ud800": 1.0}]), "surrogates not allowed"),
        (put("rows", [ROW | {"train_loss": 10**400}]), "OverflowError"),
        (put("under_way", "steps", -1), "last_epoch is 14, not a count up to 9"),
        (put("under_way", "steps", 11), "steps is 11, not a count up to 10"),
        (put("under_way", "random", (torch.zeros(3).byte(), None)), "RNG state"),
        (weights("0.weight"), "0.weight of the model must be the checkpoint's"),
        (put("modules", "model", "1.running_mean", torch.zeros(9)), "1.running_mean of the model must be"),
        (put("modules", "model", "1.num_batches_tracked", torch.tensor(-1)), "other values than it can have"),
        (put("schedule", "get_lr", 3), "the schedule remembers"),
        (put("schedule", "last_epoch", 30), "last_epoch is 30, not a count up to 14"),
        (put("schedule", "total_steps", 3), "total_steps is 3, not 41"),
        (put("schedule", "_schedule_phases", 1, "end_step", "x"), "_schedule_phases"),
        (put("schedule", "_schedule_phases", []), "_schedule_phases"),
        (put("schedule", "base_lrs", [math.nan]), "base_lrs is nan"),
    ],
)
def test_what_could_not_be_of_this_training_is_refused(
    edit: Edit, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CheckpointError, match=text):
        forged(tmp_path, edit, monkeypatch, schedule="one-cycle")


FLAT = torch.zeros(24 + 8 + 8 + 8 + 8 + 1)


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (put(*MOMENTS, "d", torch.zeros(3)), r"d is float32 \[3\]"),
        (put(*MOMENTS, "old_dirs", [FLAT] * 7), "the directions are not as many as their steps"),
        (put(*MOMENTS, "al", [None]), "the factors are not 100"),
        (put(*MOMENTS, "H_diag", "x"), "a factor is x"),
        (put(*MOMENTS, "n_iter", -2), "n_iter is -2"),
        (put(*GROUP, "max_iter", 10**9), "max_iter is 1000000000, not 20"),
    ],
)
def test_what_lbfgs_could_not_remember_is_refused(
    edit: Edit, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CheckpointError, match=text):
        forged(tmp_path, edit, monkeypatch, optimizer="lbfgs", lr=0.1, model=plain)


def plain() -> nn.Module:
    model = net()
    del model[2]  # without noise, for which its line search is not made
    return model


SCHEDULERS: dict[str, Callable[[Any], LRScheduler]] = {
    "lambda": lambda one: schedulers.LambdaLR(one, lambda epoch: 0.9**epoch),
    "multiplicative": lambda one: schedulers.MultiplicativeLR(one, lambda _: 0.9),
    "step": lambda one: schedulers.StepLR(one, 2),
    "milestones": lambda one: schedulers.MultiStepLR(one, [1, 3]),
    "constant": lambda one: schedulers.ConstantLR(one, total_iters=2),
    "linear": lambda one: schedulers.LinearLR(one),
    "exponential": lambda one: schedulers.ExponentialLR(one, 0.9),
    "cosine": lambda one: schedulers.CosineAnnealingLR(one, 4),
    "polynomial": lambda one: schedulers.PolynomialLR(one),
    "plateau": lambda one: schedulers.ReduceLROnPlateau(one, patience=1, cooldown=1, threshold=10.0),
    "cyclic": lambda one: schedulers.CyclicLR(one, 0.01, 0.1, step_size_up=2),
    "one cycle": lambda one: schedulers.OneCycleLR(one, 0.1, total_steps=99),
    "restarts": lambda one: schedulers.CosineAnnealingWarmRestarts(one, 2, 2),
    "chained": lambda one: schedulers.ChainedScheduler([schedulers.ConstantLR(one), schedulers.StepLR(one, 2)], one),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_what_moves_in_a_scheduler_of_torch_may_have_moved(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"optimizer": "sgd", "momentum": 0.9, "schedule": SCHEDULERS[name]}
    forged(tmp_path, lambda _: None, monkeypatch, **settings)


OPTIMIZERS = [
    name
    for name, kind in vars(torch.optim).items()
    if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer) and kind is not torch.optim.Optimizer
]


@pytest.mark.parametrize("name", [one for one in OPTIMIZERS if one not in (LBFGS.__name__, "SparseAdam", "Muon")])
def test_what_an_optimizer_of_torch_remembers_may_be_there(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forged(tmp_path, lambda _: None, monkeypatch, optimizer=name.lower())
