"""A training that was killed and goes on ends with the same bits as one that never was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from interrupted import Killed, X, Y, everything, fit, killed_after, some, trainer_of
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from stoker.errors import CheckpointError
from stoker.training.callbacks import Callback


def convolutional(channels: int = 2) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 1))


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


class Anew(Callback):
    """Changes what a program holds as a constant."""

    def on_epoch_start(self, epoch: int) -> None:
        CHANGING.p = 0.1 * epoch


CHANGING = nn.Dropout(0.1)


def changing() -> nn.Module:
    CHANGING.p = 0.1  # as in another process
    return nn.Sequential(nn.Linear(3, 8), CHANGING, nn.Linear(8, 1))


HELD = torch.tensor(2.0)


class Scaled(nn.Module):
    """Its scale is the criterion's too, as that of a job's target is."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 1))
        self.register_buffer("scale", HELD)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.line(x) * HELD
        return out


class OfScaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", HELD)

    def forward(self, out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return ((out - y) / HELD).square().mean()


STEPLY = {"schedule": "cosine", "schedule_settings": {"warmup": 0.2}}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "adam": ({}, {}),
    "unshuffled": ({}, {"shuffle": False}),
    "ema, cosine": ({"ema": 0.9, **STEPLY}, {}),
    "patience": ({"lr": 0.3}, {"patience": 2, "epochs": 9}),
    "plateau": ({"schedule": "plateau", "schedule_settings": {"patience": 0}}, {}),
    "one-cycle, sgd": ({"schedule": "one-cycle", "optimizer": "sgd", "momentum": 0.9}, {}),
    "another step in each epoch": ({"model": lambda: seeded(changing)}, {"callbacks": [Anew()], "epochs": 6}),
    "a criterion that holds the model's buffers": (
        {"model": lambda: seeded(Scaled), "criterion": OfScaled()},
        {"epochs": 6},
    ),
    "no validation": ({}, {"valid": None}),
    "images of one channel": (
        {"model": lambda: seeded(lambda: convolutional(1))},
        {"data": (some(60, 1, 6, 6), some(60, 1)), "valid": (some(20, 1, 6, 6), some(20, 1))},
    ),
    "groups, clip, accumulate": ({"groups": {"3": {"lr": 0.02}}, "clip_norm": 0.5, "accumulate": 3}, {}),
}
EAGER_ONLY: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "lbfgs": ({"optimizer": "lbfgs", "lr": 0.1, "optimizer_settings": {"max_iter": 3}}, {}),
    "adafactor": ({"optimizer": "adafactor"}, {}),
    "schedulers in a row": (
        {
            "schedule": lambda optimizer: lr_scheduler.SequentialLR(
                optimizer,
                [lr_scheduler.ConstantLR(optimizer, 0.1, 1), lr_scheduler.MultiStepLR(optimizer, [1, 2])],
                milestones=[2],
            )
        },
        {},
    ),
    "images, channels last": (
        {"model": lambda: seeded(convolutional), "ema": 0.9, "optimizer": "adamw"},
        {"data": (some(60, 2, 6, 6), some(60, 1)), "valid": (some(20, 2, 6, 6), some(20, 1))},
    ),
    "a loader's batches": (
        {},
        {"data": DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True)},
    ),
}


def ordered(kind: str) -> DataLoader[Any]:
    """A loader that draws its order from a generator of its own."""
    data, own = TensorDataset(X, Y), torch.Generator().manual_seed(7)
    if kind == "the loader's":
        return DataLoader(data, batch_size=16, shuffle=True, generator=own)
    sampler = RandomSampler(data, replacement=kind == "with replacement", generator=own)
    if kind == "the batch sampler's":
        return DataLoader(data, batch_sampler=BatchSampler(sampler, 16, drop_last=False))
    return DataLoader(data, batch_size=16, sampler=sampler)


@pytest.mark.parametrize("every", ["1epoch", "3steps"])
@pytest.mark.parametrize("kind", ["the loader's", "the sampler's", "the batch sampler's", "with replacement"])
def test_a_loader_with_a_generator_of_its_own(
    kind: str, every: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trainer_of(engine="eager")
    wanted = everything(whole, fit(whole, data=ordered(kind)))
    for writes in (1, 3):
        with monkeypatch.context() as patched:
            killed_after(writes, patched)
            with pytest.raises(Killed):
                fit(
                    trainer_of(engine="eager"),
                    data=ordered(kind),
                    checkpoint=tmp_path,
                    checkpoint_every=every,
                    resume=True,
                )
    last = trainer_of(engine="eager")
    history = fit(last, data=ordered(kind), checkpoint=tmp_path, resume=True)
    assert everything(last, history) == wanted


def test_a_loader_without_the_generator_it_had_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        killed_after(1, patched)
        with pytest.raises(Killed):
            fit(trainer_of(), data=ordered("the loader's"), checkpoint=tmp_path)
    with pytest.raises(CheckpointError, match="checkpoint: must hold a state that fits this training"):
        fit(trainer_of(), data=DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True), resume=tmp_path)


def killed_and_resumed(
    trainer: dict[str, Any], settings: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """Kill the training after its first checkpoint, the next one after three of its own, and let the third end."""
    settings = {"checkpoint": folder, "resume": True, **settings}
    for writes in (1, 3):
        with monkeypatch.context() as patched:
            killed_after(writes, patched)
            with pytest.raises(Killed):
                fit(trainer_of(**trainer), **settings)
        torch.manual_seed(writes)  # the generators outside are another process's
    last = trainer_of(**trainer)
    return everything(last, fit(last, **settings))


@pytest.mark.parametrize("every", ["1epoch", "3steps"])
@pytest.mark.parametrize("engine", ["eager", "compiled"])
@pytest.mark.parametrize("case", [*CASES, *EAGER_ONLY])
def test_the_same_bits(case: str, engine: str, every: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if case in EAGER_ONLY and engine == "compiled":
        pytest.skip("no program is made of it")
    given, settings = (CASES | EAGER_ONLY)[case]
    whole = trainer_of(engine=engine, **given)
    wanted = everything(whole, fit(whole, **settings))
    found = killed_and_resumed(
        {"engine": engine, **given}, {"checkpoint_every": every, **settings}, tmp_path, monkeypatch
    )
    for name, value in wanted.items():
        assert found[name] == value, name


def test_buffers_that_nobody_writes_to_make_no_other_step() -> None:
    trainer = trainer_of(lambda: seeded(Scaled), criterion=OfScaled(), engine="compiled")
    fit(trainer, epochs=6)
    assert trainer.engine_reason == "compiled: as asked"
