"""Where a program's updates end in the middle of an epoch, and eager ones go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import DATA, assert_near, mlp
from torch import nn

from stoker.engines import auto, beside, eager, takeover
from stoker.training.callbacks import Callback, EpochProgress
from stoker.training.checkpoints.files import checkpoint_paths
from stoker.training.trainer import Trainer


def momentum_through_zero(optimizer: Any) -> Any:
    """It is 0 in the fifteenth update, to the bit."""
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.05, total_steps=50, base_momentum=0.0, max_momentum=0.9
    )


def cycled(engine: str, **fitting: Any) -> tuple[nn.Module, list[float], list[float], Trainer]:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    settings: dict[str, Any] = {"schedule": momentum_through_zero, "schedule_interval": "step", "device": "cpu"}
    trainer = Trainer(model, "mse", optimizer, engine=engine, metrics=(), **settings)
    history = trainer.fit(DATA, epochs=4, batch_size=16, progress="none", check=False, **fitting)
    return model, history.column("train_loss"), history.column("lr"), trainer


def test_it_is_zero_to_the_bit() -> None:
    optimizer = torch.optim.SGD(mlp().parameters(), lr=0.05, momentum=0.9)
    schedule, zeros = momentum_through_zero(optimizer), []
    for update in range(1, 41):
        if optimizer.param_groups[0]["momentum"] == 0:
            zeros.append(update)
        optimizer.step()
        schedule.step()
    assert zeros == [15]


@pytest.mark.parametrize("segment", [1, 32])
def test_momentum_may_go_through_zero(segment: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(takeover, "FIRST_SEGMENT", segment)
    monkeypatch.setattr(takeover, "SEGMENT_SECONDS", segment * 0.01)
    mine, losses, rates, trainer = cycled("compiled")
    theirs, expected, wanted, _ = cycled("eager")
    assert trainer.engine_reason == "compiled: as asked"
    assert_near(mine, theirs)
    assert losses == pytest.approx(expected, rel=1e-4)
    assert rates == pytest.approx(wanted)


def test_momentum_may_be_zero_in_the_first_updates() -> None:
    def model_of(engine: str) -> nn.Module:
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

        def schedule(optimizer: Any) -> Any:
            return torch.optim.lr_scheduler.CyclicLR(
                optimizer, 0.01, 0.05, step_size_up=2, base_momentum=0.0, max_momentum=0.9
            )

        settings: dict[str, Any] = {"schedule": schedule, "schedule_interval": "step", "device": "cpu"}
        trainer = Trainer(model, "mse", optimizer, engine=engine, metrics=(), **settings)
        trainer.fit(DATA, epochs=3, batch_size=16, progress="none", check=False)
        return model

    assert_near(model_of("compiled"), model_of("eager"))


def test_a_program_takes_over_where_momentum_goes_through_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BUILD_SECONDS", "COLD_SECONDS", "WARM_SECONDS", "WARM_BUILD"):
        monkeypatch.setattr(auto, name, 0.0)
    for module in (auto, beside):
        monkeypatch.setattr(module, "forks", lambda: False)
    monkeypatch.setattr(auto, "surely_saved", lambda *_: 1.0)
    monkeypatch.setattr(auto, "AT_ONCE", 0.0)
    monkeypatch.setattr(eager, "SEGMENT_SECONDS", 0.0)
    mine, losses, *_ = cycled("auto")
    theirs, expected, *_ = cycled("eager")
    assert_near(mine, theirs)
    assert losses == pytest.approx(expected, rel=1e-4)


class StoppedError(Exception):
    """The training is over, as if it had been killed."""


class Ends(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_progress(self, progress: EpochProgress) -> None:
        if 10 * (progress.epoch - 1) + progress.steps == self.step:
            raise StoppedError


@pytest.mark.parametrize("step", [12, 17, 25, 36])
def test_it_goes_on_from_a_checkpoint_to_the_same_bits(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (takeover, eager):
        monkeypatch.setattr(module, "SEGMENT_SECONDS", 0.0)
    monkeypatch.setattr(takeover, "FIRST_SEGMENT", 1)
    whole, losses, *_ = cycled("compiled")
    with pytest.raises(StoppedError):
        cycled("compiled", callbacks=[Ends(step)], checkpoint=tmp_path, checkpoint_every="1step")
    assert checkpoint_paths(tmp_path)
    again, found, *_ = cycled("compiled", checkpoint=tmp_path, resume=True)
    assert found == losses
    assert all(torch.equal(*pair) for pair in zip(whole.parameters(), again.parameters(), strict=True))
