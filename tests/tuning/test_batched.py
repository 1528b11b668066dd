"""Studies whose trials are trained together: as each would be alone, and repeatable wherever they are interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from optuna.trial import TrialState
from test_tune_killed import finished, results, start
from torch import nn

import stoker
from stoker.engines.together import OWN_CODE, OWN_SHAPE
from stoker.engines.xla.vectorised import Vectorised
from stoker.errors import ConfigError, TrainingError
from stoker.training.history import Row
from stoker.tuning import interrupted
from stoker.tuning.batched import _without_others
from stoker.tuning.objectives import _Reporter
from stoker.tuning.sampling import make_pruner, make_sampler
from stoker.tuning.storage import Storage, open_storage
from stoker.tuning.study import Plan, Roster, open_study

SPACE = {
    "lr": stoker.Float(1e-3, 1e-1, log=True),
    "dropout": stoker.Float(0.1, 0.5),
    "weight_decay": stoker.Float(1e-6, 1e-1, log=True),
}


def tune(out: Path, space: Any = None, **settings: Any) -> stoker.TuneResult:
    """Iris has 6 whole updates of 16 rows, and a smaller one."""
    defaults: dict[str, Any] = {
        "trials": 5,
        "batch_trials": 3,
        "epochs": 4,
        "batch_size": 16,
        "hidden": (8,),
        "norm": "batch",
        "device": "cpu",
        "sampler": "random",
        "pruner": "none",
        "refit": False,
        "progress": "none",
    }
    return stoker.tune("iris", space or SPACE, out=out, **{**defaults, **settings})


def told(result: stoker.TuneResult) -> list[tuple[Any, ...]]:
    return [(t.number, t.state.name, t.params, t.value, t.intermediate_values) for t in result.trials]


@pytest.fixture
def segments(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The size of each vectorised segment, and how many trials were in it."""
    made: list[tuple[int, int]] = []
    call = Vectorised.__call__

    def noted(self: Vectorised, scans: Any, start: int, stop: int) -> list[list[float]]:
        made.append((self.size, len(scans)))
        return call(self, scans, start, stop)

    monkeypatch.setattr(Vectorised, "__call__", noted)
    return made


def same_within(rel: float, some: stoker.TuneResult, others: stoker.TuneResult) -> bool:
    return all(
        (one.number, one.state, one.params) == (other.number, other.state, other.params)
        and (one.value is None or one.value == pytest.approx(other.value, rel=rel))
        and one.intermediate_values == pytest.approx(other.intermediate_values, rel=rel)
        for one, other in zip(some.trials, others.trials, strict=True)
    )


# A bias before a batch norm has no gradient but rounding, which Adam would make steps of.
@pytest.mark.parametrize(
    ("optimizer", "norm"), [("sgd", "batch"), pytest.param("adam", "none", marks=pytest.mark.slow)]
)
def test_trials_are_what_they_are_alone(
    optimizer: str, norm: str, segments: list[tuple[int, int]], tmp_path: Path
) -> None:
    notes: list[str] = []
    batched = tune(tmp_path / "batched", optimizer=optimizer, norm=norm, notify=notes.append)
    assert set(segments) == {(3, 3), (2, 2)}
    assert not [note for note in notes if "trials" in note]
    segments.clear()
    (tmp_path / "engine.toml").write_text('[training]\nengine = "compiled"\n')
    engine = {"batch_trials": 1, "config": tmp_path / "engine.toml"}
    single = tune(tmp_path / "single", optimizer=optimizer, norm=norm, **engine)
    assert segments == []
    assert same_within(1e-5, batched, single)
    assert [t.user_attrs["best_epoch"] for t in batched.trials] == [t.user_attrs["best_epoch"] for t in single.trials]
    assert len({trial.value for trial in batched.trials}) == 5


@pytest.mark.slow
def test_a_study_of_several_batches_is_repeatable(tmp_path: Path) -> None:
    one, two = (tune(tmp_path / name, trials=6, sampler="tpe", pruner="median") for name in ("one", "two"))
    assert told(one) == told(two)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "cmaes", pytest.param("gp", marks=pytest.mark.long)])
def test_a_batch_is_drawn_from_the_batches_before(sampler: str, tmp_path: Path) -> None:
    whole = tune(tmp_path / "whole", trials=12, epochs=2, sampler=sampler)
    tune(tmp_path / "parts", trials=9, epochs=2, sampler=sampler)
    parts = tune(tmp_path / "parts", trials=12, epochs=2, sampler=sampler)
    assert told(parts) == told(whole)
    assert len({str(trial.params) for trial in whole.trials}) == 12


@pytest.mark.slow
def test_one_that_fails_and_shapes_of_their_own(segments: list[tuple[int, int]], tmp_path: Path) -> None:
    space = {"lr": [0.01, 0.02, 1e30], "hidden": stoker.Layers(stoker.Int(1, 1), stoker.Int(6, 8, step=2))}
    settings: dict[str, Any] = {"sampler": "grid", "trials": 6, "norm": "none", "optimizer": "sgd", "hidden": None}
    notes: list[str] = []
    batched = tune(tmp_path / "batched", space, batch_trials=6, notify=notes.append, **settings)
    assert {size for size, _ in segments} == {2}
    assert batched.counts["failed"] == 2
    (tmp_path / "engine.toml").write_text('[training]\nengine = "compiled"\n')
    single = tune(tmp_path / "single", space, batch_trials=1, config=tmp_path / "engine.toml", **settings)
    assert same_within(1e-5, batched, single)
    reasons = [[trial.user_attrs.get("reason") for trial in study.trials] for study in (batched, single)]
    assert reasons[0] == reasons[1]
    assert any("the loss must be finite" in str(reason) for reason in reasons[0])
    assert not [note for note in notes if "trials" in note]
    five = tune(tmp_path / "five", space, batch_trials=5, notify=notes.append, **settings)
    assert f"some trials are trained by themselves: {OWN_SHAPE}" in notes
    assert same_within(1e-5, five, single)


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Has Ctrl-C interrupt a trial at the end of an epoch, once."""
    wanted: list[tuple[int, int]] = []
    report = _Reporter.on_epoch_end

    def noted(self: _Reporter, row: Row, is_best: bool) -> bool:
        if (self._trial.number, row["epoch"]) in wanted:
            wanted.clear()
            raise KeyboardInterrupt
        return report(self, row, is_best)

    monkeypatch.setattr(_Reporter, "on_epoch_end", noted)
    monkeypatch.setattr(interrupted, "EVERY", "1epoch")
    return lambda trial, epoch: wanted.append((trial, epoch))


@pytest.mark.parametrize("kept", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_what_is_left_of_a_batch_goes_on_to_the_same_bits(
    kept: bool, cut: Callable[[int, int], None], segments: list[tuple[int, int]], tmp_path: Path
) -> None:
    whole = tune(tmp_path / "whole", trials=6)
    cut(1, 3)
    first = tune(tmp_path / "parts", trials=6)
    assert first.ending == "interrupted"
    assert [trial.state.name for trial in first.trials] == ["COMPLETE", "RUNNING", "COMPLETE"]
    if not kept:
        for file in (tmp_path / "parts" / "trials" / "1").iterdir():
            file.unlink()
    segments.clear()
    parts = tune(tmp_path / "parts", trials=6)
    assert segments[0] == (3, 1), "alone, in a program for three"
    assert told(parts) == told(whole)


@pytest.mark.slow
def test_who_is_pruned_changes_no_bit_of_the_others(tmp_path: Path, segments: list[tuple[int, int]]) -> None:
    space = SPACE | {"lr": stoker.Float(1e-5, 1e-1, log=True)}
    settings: dict[str, Any] = {"trials": 12, "epochs": 3, "seed": 1}
    whole = tune(tmp_path / "whole", space, **settings)
    pruned = tune(tmp_path / "pruned", space, pruner="median", **settings)
    states = [trial.state.name for trial in pruned.trials]
    assert states[:6] == ["COMPLETE"] * 6, "before there are five complete ones to compare with, nobody is pruned"
    assert 0 < states[6:].count("PRUNED") < 6
    assert {1, 2} & {count for _, count in segments}
    for trial, other in zip(pruned.trials, whole.trials, strict=True):
        if trial.state == TrialState.COMPLETE:
            assert (trial.params, trial.value) == (other.params, other.value)
        else:
            reported = trial.intermediate_values
            assert reported == {epoch: other.intermediate_values[epoch] for epoch in reported}


def test_a_pruner_does_not_look_at_the_others_of_a_batch(tmp_path: Path) -> None:
    with open_storage(f"sqlite:///{tmp_path}/study.db") as storage:
        study, _ = open_study(storage, Plan("s", "minimize", 6), make_sampler("random", 0, None), make_pruner("asha"))
        for _ in range(6):
            study.ask()
        study.tell(4, 1.0)
        trial = _without_others(optuna.Trial(study, study.trials[5]._trial_id), 3)
        assert [one.number for one in trial.study.get_trials()] == [0, 1, 2, 5]
        trial.report(1.0, 1)
        assert not trial.should_prune()
        assert study.trials[5].intermediate_values == {1: 1.0}


def build(params: dict[str, Any]) -> stoker.Trainer:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Dropout(params["dropout"]), nn.Linear(8, 1))
    engine = params.get("engine", "auto")
    return stoker.Trainer(model, "mse", "adam", lr=params["lr"], device="cpu", metrics=(), engine=engine)


class Doubled(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


def build_own(params: dict[str, Any]) -> stoker.Trainer:
    torch.manual_seed(0)
    return stoker.Trainer(Doubled(3, 1), "mse", lr=params["lr"], device="cpu", metrics=())


def built(make: Any, out: Path, space: Any = None, **settings: Any) -> stoker.TuneResult:
    x = np.random.default_rng(0).normal(size=(200, 3))  # each Trainer makes float32 of it for itself
    data = x, x.sum(1, keepdims=True)
    space = space or {"lr": stoker.Float(1e-3, 1e-2, log=True), "dropout": stoker.Float(0.1, 0.5)}
    settings = {"trials": 4, "epochs": 3, "sampler": "random", "pruner": "none", "batch_trials": 2, **settings}
    return stoker.tune(make, space, train=data, valid=data, out=out, progress="none", **settings)


def test_trainers_of_the_users_own(segments: list[tuple[int, int]], tmp_path: Path) -> None:
    batched = built(build, tmp_path / "batched")
    assert set(segments) == {(2, 2)}
    engine = {"lr": stoker.Float(1e-3, 1e-2, log=True), "dropout": stoker.Float(0.1, 0.5), "engine": ["compiled"]}
    single = built(build, tmp_path / "single", engine, batch_trials=1)
    assert [t.value for t in batched.trials] == pytest.approx([t.value for t in single.trials], rel=1e-5)


@pytest.mark.parametrize(
    ("make", "engine", "reason"),
    [(build, "eager", "the engine is eager"), (build_own, "auto", OWN_CODE)],
)
def test_what_cannot_be_batched_is_said_once(
    make: Any, engine: str, reason: str, segments: list[tuple[int, int]], tmp_path: Path
) -> None:
    notes: list[str] = []
    space = {"lr": stoker.Float(1e-3, 1e-2), "dropout": [0.1], "engine": [engine]}
    result = built(make, tmp_path / "s", space, notify=notes.append)
    assert segments == []
    assert notes == [f"some trials are trained by themselves: {reason}"]
    assert result.counts["complete"] == 4


@pytest.mark.long
@pytest.mark.slow
def test_workers_with_a_batch_each(tmp_path: Path) -> None:
    notes: list[str] = []
    settings: dict[str, Any] = {"trials": 8, "batch_trials": 2, "workers": 2, "notify": notes.append, "epochs": 2}
    result = tune(tmp_path / "s", {"lr": [0.01, 0.02], "hidden": [[4], [6], [8]]}, hidden=None, **settings)
    assert result.counts == {"complete": 8, "pruned": 0, "failed": 0, "running": 0}
    assert notes.count(f"some trials are trained by themselves: {OWN_SHAPE}") <= 1


ODD: list[tuple[int, dict[str, Any], str]] = [
    (0, {}, "--batch-trials: must be a whole number from 1 on, got 0."),
    (6, {}, "--batch-trials: must not be more than the trials, 5, got 6. Say a smaller batch, or more trials."),
    (6, {"more": 4}, "--batch-trials: must not be more than the trials, 4, got 6."),
]


@pytest.mark.parametrize(("batch", "settings", "text"), ODD)
def test_what_is_wrong_is_said(batch: int, settings: dict[str, Any], text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        tune(tmp_path / "s", batch_trials=batch, **settings)
    assert text in str(caught.value)


def test_an_objective_of_ones_own_cannot_be_batched(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--batch-trials: cannot batch an objective of your own, got 2"):
        stoker.tune(lambda trial: trial.number, trials=2, batch_trials=2, out=tmp_path / "s", progress="none")


def test_a_batch_that_fails_as_a_whole_ends_the_study(tmp_path: Path) -> None:
    space = {"lr": stoker.Float(1e29, 1e30)}
    with pytest.raises(TrainingError, match="some trials must succeed"):
        tune(tmp_path / "s", space, trials=20, batch_trials=5, optimizer="sgd", norm="none")
    with open_storage(f"sqlite:///{tmp_path}/s/study.db") as storage:
        states = [trial.state.name for trial in optuna.load_study(study_name="iris-tune", storage=storage.base).trials]
    assert states == ["FAIL"] * 5


def roster(total: int, storage: Storage) -> Roster:
    plan, sampler = Plan("s", "minimize", total), make_sampler("random", 0, None)
    return Roster(storage, open_study(storage, plan, sampler, make_pruner("none"))[0], total)


def test_a_batch_is_taken_as_a_whole_and_what_is_left_of_one_before_a_new_one(tmp_path: Path) -> None:
    def numbers(one: Roster) -> list[int]:
        return [trial.number for trial in one.take_several(4)[0]]

    with open_storage(f"sqlite:///{tmp_path}/study.db") as storage:
        first, second = roster(11, storage), roster(11, storage)
        assert numbers(first) == [0, 1, 2, 3]
        assert numbers(second) == [4, 5, 6, 7]
        first.study.tell(0, 1.0)
        first.study.tell(2, 1.0)
        first.leave()
        third = roster(11, storage)
        assert numbers(third) == [1, 3], "and none of another batch beside them"
        third.study.tell(1, 1.0)
        third.study.tell(3, 1.0)
        assert numbers(third) == [8, 9, 10]
        third.died(second.token, "was killed")
        fourth = roster(11, storage)
        assert numbers(fourth) == [4], "it may have been its fault"
        for one in (second, third, fourth):
            one.leave()


def test_a_batch_that_was_half_begun_is_made_up(tmp_path: Path) -> None:
    with open_storage(f"sqlite:///{tmp_path}/study.db") as storage:
        first = roster(8, storage)
        assert [trial.number for trial in first.take_several(2)[0]] == [0, 1]
        first.leave()
        second = roster(8, storage)
        assert [trial.number for trial in second.take_several(4)[0]] == [0, 1, 2, 3]
        second.leave()


QUICK = ("--study-name", "s", "--batch-trials", "4", "--no-refit", "--norm", "none")


@pytest.mark.long
@pytest.mark.slow
def test_killed_in_the_middle_of_batches_it_ends_as_if_never_killed(tmp_path: Path) -> None:
    space = tmp_path / "space.toml"
    space.write_text("[space]\nlr = { low = 1e-4, high = 1e-1, log = true }\ndropout = { low = 0.1, high = 0.5 }\n")
    settings = (*QUICK, "--trials", "12", "--epochs", "60", "--config", str(space))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert start(whole, *settings).wait(300) == 0
    url, kills = f"sqlite:///{parts / 'study.db'}", 0
    for after in (0.0, 0.3, 0.1):
        command = start(parts, *settings)
        there = (parts / "study.db").exists
        before = finished(url, "s") if there() else 0
        _until(partial(_at_work, there, url, before, command), after)
        if command.poll() is None:
            os.killpg(command.pid, signal.SIGKILL)
            kills += 1
        command.wait()
    assert kills >= 2
    assert start(parts, *settings).wait(300) == 0
    assert results(url, "s") == results(f"sqlite:///{whole / 'study.db'}", "s")


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_all_of_a_batch_where_they_are(number: signal.Signals, code: int, tmp_path: Path) -> None:
    out = tmp_path / "s"
    command = start(out, *QUICK, "--trials", "4", "--epochs", "200000", "--pruner", "none")
    url = f"sqlite:///{out / 'study.db'}"
    _until(lambda: (out / "study.db").exists() and len(epochs := _epochs(url)) == 4 and min(epochs) > 3)
    os.kill(command.pid, number)
    assert command.wait(30) == code
    assert {state for _, state, *_ in results(url, "s")} == {"RUNNING"}
    assert len([*(out / "trials").glob("*/*")]) == 4, "each kept a checkpoint"


def _at_work(there: Callable[[], bool], url: str, before: int, command: subprocess.Popen[bytes]) -> bool:
    return command.poll() is not None or (there() and finished(url, "s") > before)


def _epochs(url: str) -> list[int]:
    try:
        return [len(reported) for *_, reported in results(url, "s")]
    except (KeyError, stoker.StokerError):
        return []


def _until(there: Callable[[], bool], after: float = 0.0) -> None:
    limit = time.monotonic() + 200
    while not there():
        assert time.monotonic() < limit
        time.sleep(0.05)
    time.sleep(after)
