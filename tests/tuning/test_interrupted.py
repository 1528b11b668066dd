"""A trial whose worker is gone goes on from what was kept of it, to the same result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import stoker
from stoker.training.checkpoints.files import checkpoint_paths
from stoker.training.history import Row
from stoker.tuning import interrupted
from stoker.tuning.objectives import _Reporter
from stoker.tuning.space import Float, Space

SPACE = Space({"lr": Float(1e-3, 1e-1, log=True)})
EPOCHS = 6


def of_source(out: Path) -> stoker.TuneResult:
    settings: dict[str, Any] = {"model": "mlp", "dropout": 0.2, "optimizer": "adam", "batch_size": 32}
    return stoker.tune(
        "iris", SPACE, trials=2, epochs=EPOCHS, pruner="none", refit=False, out=out, progress="none", **settings
    )


def build(values: dict[str, Any]) -> stoker.Trainer:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 1))
    return stoker.Trainer(model, "mse", "adam", lr=values["lr"], metrics=(), device="cpu")


def of_trainers(out: Path) -> stoker.TuneResult:
    x = torch.randn(96, 3, generator=torch.Generator().manual_seed(0))
    data = x, x.sum(1, keepdim=True)
    return stoker.tune(
        build, SPACE, train=data, valid=data, trials=2, epochs=EPOCHS, pruner="none", out=out, progress="none"
    )


@pytest.fixture
def epochs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The epochs made, one after the other; an entry ``-n`` at the end asks for Ctrl-C at the end of epoch ``n``."""
    made: list[int] = []
    told = _Reporter.on_epoch_end

    def noted(self: _Reporter, row: Row, is_best: bool) -> bool:
        stop = made.pop() if made and made[-1] < 0 else 0
        made.append(int(row["epoch"]))
        if stop == -row["epoch"]:
            raise KeyboardInterrupt
        if stop:
            made.append(stop)
        return told(self, row, is_best)

    monkeypatch.setattr(_Reporter, "on_epoch_end", noted)
    monkeypatch.setattr(interrupted, "EVERY", "1epoch")
    return made


def values(result: stoker.TuneResult) -> list[Any]:
    return [(trial.params, trial.value, trial.intermediate_values) for trial in result.trials]


@pytest.mark.parametrize("study", [of_source, of_trainers])
@pytest.mark.parametrize("damaged", [False, True])
def test_it_goes_on_to_the_same_result(study: Any, damaged: bool, epochs: list[int], tmp_path: Path) -> None:
    whole = study(tmp_path / "whole")
    assert epochs == [*range(1, EPOCHS + 1)] * 2
    assert not any((tmp_path / "whole" / "trials").iterdir())
    epochs[:] = [-4]
    assert study(tmp_path / "cut").ending == "interrupted"
    assert epochs == [1, 2, 3, 4]
    (kept,) = checkpoint_paths(tmp_path / "cut" / "trials" / "0")
    if damaged:
        kept.write_bytes(kept.read_bytes()[:-9])
    epochs.clear()
    again = study(tmp_path / "cut")
    assert values(again) == values(whole)
    first = [*range(1, EPOCHS + 1)]
    assert epochs == (first if damaged else first[3:]) + first  # the third epoch's checkpoint: the fourth did not end
    assert not any((tmp_path / "cut" / "trials").iterdir())
