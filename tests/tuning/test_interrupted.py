"""A trial whose worker is gone goes on from what was kept of it, to the same result."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from torch import nn

import stoker
from stoker.training.checkpoints.files import checkpoint_paths, read_checkpoint, write_checkpoint
from stoker.training.history import Row
from stoker.tuning import interrupted
from stoker.tuning.objectives import BuildObjective, _Reporter
from stoker.tuning.sampling import make_pruner, make_sampler
from stoker.tuning.space import Float, Space
from stoker.tuning.storage import open_storage
from stoker.tuning.study import Plan, Roster, open_study
from stoker.tuning.worker import work

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


def test_what_a_worker_left_that_died_when_its_trial_was_over_goes(tmp_path: Path) -> None:
    first = of_trainers(tmp_path)
    (tmp_path / "trials" / "1").mkdir(parents=True)
    assert values(of_trainers(tmp_path)) == values(first)
    assert not any((tmp_path / "trials").iterdir())


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


def alone(folder: Path | None, trainer: Any = build) -> BuildObjective:
    """An objective outside of a study, whose trials keep their checkpoints there."""
    x = torch.randn(96, 3, generator=torch.Generator().manual_seed(0))
    data = x, x.sum(1, keepdim=True)
    objective = BuildObjective(trainer, SPACE, "loss", train=data, valid=data, fit={"epochs": EPOCHS})
    objective.folder = folder
    return objective


class At(optuna.pruners.BasePruner):
    """Gives every trial up at an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def prune(self, _study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        return trial.last_step == self.epoch


@pytest.fixture
def asked() -> Iterator[optuna.Trial]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), pruner=At(0)).ask()
    optuna.logging.set_verbosity(before)


def once_more(trial: optuna.Trial) -> optuna.Trial:
    return optuna.Trial(trial.study, trial._trial_id)


def test_one_that_was_to_stop_is_never_taken_for_one_that_ended(
    asked: optuna.Trial, epochs: list[int], tmp_path: Path
) -> None:
    answers = [True, False, False]  # the last two epochs' first
    stopped = alone(tmp_path)(asked, lambda: answers.pop())
    assert stopped.state == "interrupted"
    again = alone(tmp_path)(once_more(asked), lambda: len(epochs) == 5)
    assert again.state == "interrupted"
    last = alone(tmp_path)(once_more(asked), lambda: False)
    assert epochs == [1, 2, 3, 3, 4, 4, 5, 6], "a checkpoint is of the epoch before"
    whole = alone(None)(once_more(asked), lambda: False)
    assert (last.state, last.value) == ("complete", whole.value)
    assert last.about["epochs"] == EPOCHS


def test_one_that_was_pruned_by_a_worker_that_died_is_pruned_again(
    asked: optuna.Trial, epochs: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked.study.pruner = At(4)

    def die(*_: Any) -> None:
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr("stoker.tuning.objectives._outcome", die)
        with pytest.raises(SystemExit):
            alone(tmp_path)(asked, lambda: False)
    assert checkpoint_paths(tmp_path / "0") != []
    assert alone(tmp_path)(once_more(asked), lambda: False).state == "pruned"
    assert epochs == [1, 2, 3, 4, 4]


def test_what_a_callback_ended_is_begun_anew(asked: optuna.Trial, epochs: list[int], tmp_path: Path) -> None:
    alone(tmp_path)(asked, lambda: len(epochs) == 2)
    folder = tmp_path / "0"
    (kept,) = checkpoint_paths(folder)
    saved = read_checkpoint(kept)
    write_checkpoint(folder, int(saved["step"]), saved | {"stopped": "callback"}, keep=1)
    assert alone(tmp_path)(once_more(asked), lambda: False).state == "complete"
    assert epochs == [1, 2, *range(1, EPOCHS + 1)]


class Broken(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = super().forward(x)
        return out if checkpoint_paths(BROKEN[0]) == [] else out / 0


BROKEN: list[Path] = []


def broken(values: dict[str, Any]) -> stoker.Trainer:
    return stoker.Trainer(Broken(3, 1), "mse", "sgd", lr=values["lr"], metrics=(), device="cpu", engine="eager")


@pytest.mark.parametrize("ours", [True, False])
def test_nothing_is_kept_of_one_that_failed_unless_another_has_taken_it(
    ours: bool, epochs: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    BROKEN[:] = [tmp_path / "trials" / "0"]
    late: list[Any] = []

    def not_ours(*outcome: Any) -> bool:
        late.append(outcome)
        return False

    if not ours:
        monkeypatch.setattr(Roster, "finish", not_ours)
    with open_storage(f"sqlite:///{tmp_path}/study.db") as storage:
        study, _ = open_study(storage, Plan("s", "minimize", 1), make_sampler("tpe", 0, None), make_pruner("none"))
        roster = Roster(storage, study, 1)
        work(roster, alone(tmp_path / "trials", broken), stop=lambda: bool(late))
        state = study.trials[0].state.name
    assert epochs == [1], "the second epoch fails"
    assert (state, checkpoint_paths(BROKEN[0]) == []) == (("FAIL", True) if ours else ("RUNNING", False))


def test_what_was_kept_of_other_values_is_not_gone_on_from(
    asked: optuna.Trial, epochs: list[int], tmp_path: Path
) -> None:
    def deaf(_: dict[str, Any]) -> stoker.Trainer:
        return build({"lr": 0.01})

    alone(tmp_path, deaf)(asked, lambda: len(epochs) == 3)
    other = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1), pruner=At(0)).ask()
    alone(tmp_path, deaf)(other, lambda: False)
    assert epochs == [1, 2, 3, *range(1, EPOCHS + 1)]
