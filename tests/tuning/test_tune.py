"""Whole studies on small real data."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import signal
import statistics
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import polars as pl
import pytest
import torch
from sklearn.datasets import load_diabetes
from torch import nn

import stoker
from stoker.data.sources import load
from stoker.errors import ConfigError, DataError, InputTypeError, RunExistsError, TrainingError, UnknownNameError
from stoker.tuning.plots import draw
from stoker.tuning.storage import open_storage

SPACE = {"lr": stoker.Float(1e-3, 1e-1, log=True), "hidden": stoker.Layers(stoker.Int(1, 2), stoker.Int(4, 16))}


@pytest.fixture(scope="module")
def diabetes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "diabetes.csv"
    pl.from_pandas(load_diabetes(as_frame=True).frame).write_csv(path)
    return path


def tune(source: Any, out: Path, space: Any = SPACE, **settings: Any) -> stoker.TuneResult:
    defaults = {"trials": 4, "epochs": 3, "device": "cpu", "progress": "none", "target": "target", "refit": False}
    return stoker.tune(source, space, out=out, **{**defaults, **settings})


def told(result: stoker.TuneResult) -> list[tuple[Any, ...]]:
    return [(t.number, t.state.name, t.params, t.value, t.intermediate_values) for t in result.trials]


@pytest.fixture(scope="module")
def study(diabetes: Path, tmp_path_factory: pytest.TempPathFactory) -> stoker.TuneResult:
    """Six trials, and the refit of the best."""
    out = tmp_path_factory.mktemp("study") / "study"
    return tune(diabetes, out, trials=6, epochs=6, pruner="none", refit=True)


def test_a_trial_is_what_fit_makes_of_its_settings(study: stoker.TuneResult, diabetes: Path, tmp_path: Path) -> None:
    best = study.best_trial
    assert best is not None
    widths = [best.params[f"hidden.width_{place}"] for place in range(1, best.params["hidden.layers"] + 1)]
    run = stoker.fit(
        diabetes,
        target="target",
        hidden=widths,
        lr=best.params["lr"],
        epochs=6,
        device="cpu",
        out=tmp_path / "run",
        progress="none",
    )
    assert [row["valid_loss"] for row in run.history] == list(best.intermediate_values.values())
    assert run.history.best["valid_loss"] == best.value
    assert run.history.best_epoch == best.user_attrs["best_epoch"]


def test_the_best_is_the_best(study: stoker.TuneResult) -> None:
    assert study.counts == {"complete": 6, "pruned": 0, "failed": 0, "running": 0}
    assert study.best_value == min(trial.value for trial in study.trials if trial.value is not None)
    assert study.ending == "finished"


def test_the_refit_is_an_ordinary_run_on_train_and_valid(study: stoker.TuneResult, diabetes: Path) -> None:
    run, best = study.run, study.best_trial
    assert run is not None
    assert best is not None
    assert run.path.parent == study.path
    assert run.record.rows == {"train": 354, "test": 88}
    assert set(run.metrics) == {"train", "test"}
    assert len(run.history) == best.user_attrs["best_epoch"]
    again = stoker.load(run.path)
    assert again.evaluate() == pytest.approx(run.metrics["test"], rel=1e-6)
    assert again.predict(diabetes).outputs.shape == (442, 1)
    record = json.loads((run.path / "study.json").read_text())
    assert record["best"]["number"] == best.number
    assert record["best"]["params"] == best.params
    assert record["trials"]["complete"] == 6
    assert f"those of trial {best.number}, the best of 6 complete" in (run.path / "README.md").read_text()


def test_the_refits_test_rows_are_those_that_no_trial_saw(
    study: stoker.TuneResult, diabetes: Path, tmp_path: Path
) -> None:
    plain = stoker.fit(diabetes, target="target", epochs=1, device="cpu", out=tmp_path / "run", progress="none")
    assert study.run is not None
    assert study.run.record.rows["test"] == plain.record.rows["test"]
    assert study.run.record.rows["train"] == plain.record.rows["train"] + plain.record.rows["valid"]
    frame, seen = study.run._own_split(), plain._own_split()
    assert frame.frame.equals(seen.frame)  # type: ignore[union-attr]


PICTURES = {"history", "importances", "slice", "parallel_coordinates"}


def test_pictures_of_each_kind(study: stoker.TuneResult) -> None:
    for suffix in (".png", ".html"):
        assert {file.stem for file in study.files if file.suffix == suffix} == PICTURES
    for file in study.files:
        assert file.parent == study.path / "figures"
        text = file.read_bytes()
        if file.suffix == ".png":
            assert text.startswith(b"\x89PNG")
        else:
            assert b"<html" in text[:200]
            assert b'src="plotly.min.js"' in text
            assert b"Plotly.newPlot(" in text
    assert (study.path / "figures" / "plotly.min.js").stat().st_size > 1_000_000, "no network is needed to look at them"


def test_without_plotly_there_are_pictures_and_a_line_that_says_what_to_install(
    study: stoker.TuneResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *at: None if name == "plotly" else found(name, *at))
    notes: list[str] = []
    with open_storage(f"sqlite:///{study.path / 'study.db'}") as storage:
        files = draw(optuna.load_study(study_name=study.name, storage=storage.base), tmp_path, notes.append)
    assert {file.name for file in files} == {f"{name}.png" for name in PICTURES}
    assert [note.partition(". Run: ")[2] for note in notes] == ["pip install plotly"]


def test_the_same_again_runs_nothing_and_comes_to_the_same(study: stoker.TuneResult, diabetes: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in study.run.path.rglob("*")}  # type: ignore[union-attr]
    again = tune(diabetes, study.path, trials=6, epochs=6, pruner="none", refit=True)
    assert told(again) == told(study)
    assert [t.datetime_complete for t in again.trials] == [t.datetime_complete for t in study.trials]
    assert again.run is not None
    assert {file: file.stat().st_mtime_ns for file in again.run.path.rglob("*")} == before


@pytest.mark.slow
def test_the_same_seed_gives_the_same_trials_and_another_does_not(diabetes: Path, tmp_path: Path) -> None:
    one, two = (tune(diabetes, tmp_path / name) for name in ("one", "two"))
    assert told(one) == told(two)
    other = tune(diabetes, tmp_path / "other", seed=1)
    assert told(other)[0][2] != told(one)[0][2]


@pytest.mark.slow
def test_a_study_in_two_parts_is_the_study_in_one(diabetes: Path, tmp_path: Path) -> None:
    whole = tune(diabetes, tmp_path / "whole", trials=14, epochs=2)
    assert len(whole.trials) == 14
    tune(diabetes, tmp_path / "parts", trials=5, epochs=2)
    tune(diabetes, tmp_path / "parts", more=6, epochs=2)
    parts = tune(diabetes, tmp_path / "parts", trials=14, epochs=2)
    assert told(parts) == told(whole)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["random", "cmaes", pytest.param("gp", marks=pytest.mark.long)])
def test_each_sampler_goes_on_as_if_never_stopped(sampler: str, diabetes: Path, tmp_path: Path) -> None:
    space = {"lr": stoker.Float(1e-3, 1e-1, log=True), "dropout": stoker.Float(0.0, 0.5)}
    settings: dict[str, Any] = {"sampler": sampler, "epochs": 1}
    whole = tune(diabetes, tmp_path / "whole", space, trials=12, **settings)
    tune(diabetes, tmp_path / "parts", space, trials=7, **settings)
    parts = tune(diabetes, tmp_path / "parts", space, trials=12, **settings)
    assert told(parts) == told(whole)
    assert len({trial.params["lr"] for trial in whole.trials}) == 12


def test_a_grid_is_gone_through_once(diabetes: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    space = {"lr": [0.01, 0.1], "batch_size": [32, 64], "optimizer": ["adam"]}
    result = tune(diabetes, tmp_path / "s", space, sampler="grid", trials=50, pruner="none", notify=notes.append)
    points = {(trial.params["lr"], trial.params["batch_size"]) for trial in result.trials}
    assert len(result.trials) == 4
    assert points == {(lr, size) for lr in (0.01, 0.1) for size in (32, 64)}
    assert "the grid has 4 points: there will be as many trials, not 50" in notes


def test_what_cannot_be_trained_fails_with_its_reason_and_the_rest_goes_on(diabetes: Path, tmp_path: Path) -> None:
    space = {"lr": [0.01, 1e30], "hidden": [[8], [10**9, 10**9]], "optimizer": ["sgd"]}
    result = tune(diabetes, tmp_path / "s", space, sampler="grid", pruner="none")
    reasons = {
        (trial.params["lr"], trial.params["hidden"]): trial.user_attrs.get("reason", "") for trial in result.trials
    }
    assert result.counts == {"complete": 1, "pruned": 0, "failed": 3, "running": 0}
    assert reasons[(0.01, "[8]")] == ""
    assert "must be finite" in reasons[(1e30, "[8]")]
    assert "must fit into memory" in reasons[(0.01, "[1000000000, 1000000000]")]


def test_a_study_in_which_nothing_succeeds_says_why(diabetes: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError) as caught:
        tune(diabetes, tmp_path / "s", {"lr": [1e30, 1e31]}, optimizer="sgd", sampler="grid", trials=2)
    assert str(caught.value).startswith("study 'diabetes-tune': some trials must succeed, got epoch 1, step ")


def test_a_hopeless_trial_is_pruned_at_once(diabetes: Path, tmp_path: Path) -> None:
    space = {"lr": [1e-2, 1.1e-2, 1.2e-2, 1.3e-2, 1.4e-2, 1.5e-2, 1e-9, 2e-9]}
    result = tune(diabetes, tmp_path / "s", space, sampler="grid", trials=8, epochs=8, seed=3)
    pruned = [trial for trial in result.trials if trial.state.name == "PRUNED"]
    assert pruned
    assert all(len(trial.intermediate_values) < 8 for trial in pruned)
    assert all(trial.user_attrs["epochs"] == len(trial.intermediate_values) for trial in pruned)


def decided(trial: optuna.trial.FrozenTrial, before: list[optuna.trial.FrozenTrial]) -> int | None:
    """The first epoch at which the median of the complete trials, five or more, is better than all of the trial's."""
    done = [other.intermediate_values for other in before if other.state.name == "COMPLETE"]
    best = math.inf
    for epoch, value in sorted(trial.intermediate_values.items()):
        best = min(best, value)
        if len(done) >= 5 and best > statistics.median(values[epoch] for values in done):
            return epoch
    return None


def test_a_trial_ends_at_the_very_epoch_in_which_it_is_given_up(tmp_path: Path) -> None:
    X = torch.linspace(-1, 1, 64)[:, None]

    def build(params: dict[str, Any]) -> stoker.Trainer:  # far and fast, or near and slow: their losses cross
        model = nn.Linear(1, 1, bias=False)
        nn.init.constant_(model.weight, params["start"])
        return stoker.Trainer(model, "mse", "sgd", lr=params["lr"], metrics=(), device="cpu")

    space = {"start": stoker.Float(1.0, 3.0), "lr": stoker.Float(0.01, 1.0, log=True)}
    data: dict[str, Any] = {"train": (X, 0 * X), "valid": (X, 0 * X)}
    settings: dict[str, Any] = {"trials": 18, "epochs": 8, "batch_size": 64, "sampler": "random", "seed": 1}
    settings["progress"] = "none"
    trials = stoker.tune(build, space, **data, **settings, out=tmp_path / "s").trials
    for trial in trials:
        last = max(trial.intermediate_values)
        assert decided(trial, trials[: trial.number]) == (last if trial.state.name == "PRUNED" else None)
        assert trial.state.name == "PRUNED" or last == 8
    assert len({max(trial.intermediate_values) for trial in trials if trial.state.name == "PRUNED"}) > 2


@pytest.mark.slow
@pytest.mark.parametrize("pruner", ["hyperband", "asha"])
def test_other_pruners_give_up_what_is_hopeless(pruner: str, diabetes: Path, tmp_path: Path) -> None:
    space = {"lr": [1e-2, 1.1e-2, 1.2e-2, 1.3e-2, 1e-9, 2e-9, 3e-9, 4e-9]}
    one, two = (
        tune(diabetes, tmp_path / name, space, sampler="grid", trials=8, epochs=9, pruner=pruner, study_name="s")
        for name in ("one", "two")
    )
    assert one.ending == "finished"
    assert one.counts["complete"] + one.counts["pruned"] == 8
    early = [trial for trial in one.trials if trial.state.name == "PRUNED" and len(trial.intermediate_values) < 9]
    assert early
    assert one.best_params["lr"] >= 1e-2
    assert told(one) == told(two)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_study_that_is_out_of_time_goes_on(workers: int, diabetes: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"workers": workers, "pruner": "none", "refit": True}
    for timeout in (1, 8, 64):  # on a busy machine workers take their time to begin
        first = tune(diabetes, tmp_path / "s", trials=5000, timeout=timeout, **settings)
        assert (first.ending, first.run) == ("timeout", None)
        if first.trials:
            break
    assert 1 <= len(first.trials) < 5000
    assert {trial.state.name for trial in first.trials} == {"COMPLETE"}, "what was begun is brought to its end"
    total = len(first.trials) + 1
    second = tune(diabetes, tmp_path / "s", trials=total, **settings)
    assert second.ending == "finished"
    assert len(second.trials) == total
    assert told(second)[:-1] == told(first)
    assert second.run is not None


def test_a_metric_says_its_own_direction_and_is_measured(diabetes: Path, tmp_path: Path) -> None:
    result = tune(diabetes, tmp_path / "s", metric="r2", trials=2)
    assert result.direction == "maximize"
    assert result.best_value is not None
    assert result.best_value < 1.0
    with pytest.raises(ConfigError, match="--direction: must be maximize for r2, got minimize"):
        tune(diabetes, tmp_path / "t", metric="r2", direction="minimize")
    with pytest.raises(ConfigError, match="accuracy"):
        tune(diabetes, tmp_path / "t", metric="accuracy")
    with pytest.raises(UnknownNameError, match="got 'rsme'"):
        tune(diabetes, tmp_path / "t", metric="rsme")


@pytest.mark.slow
def test_the_data_are_encoded_once(diabetes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stoker.data.encoder import TableEncoder

    calls: list[object] = []
    true = TableEncoder.fit

    def fit(*args: Any, **settings: Any) -> TableEncoder:
        calls.append(settings)
        return true(*args, **settings)

    monkeypatch.setattr(TableEncoder, "fit", fit)
    tune(diabetes, tmp_path / "s", {"lr": [0.01, 0.02, 0.03]}, trials=3)
    assert len(calls) == 1
    tune(diabetes, tmp_path / "t", {"data.clip": [2.0, 3.0], "lr": [0.01, 0.02]}, sampler="grid", trials=4)
    assert len(calls) == 1 + 3, "once as it is, and once for each way of encoding"


def test_a_learning_rate_that_is_looked_for_is_kept_for_the_refit(diabetes: Path, tmp_path: Path) -> None:
    result = tune(diabetes, tmp_path / "s", {"hidden": [[8], [4]]}, lr="auto", trials=2, refit=True)
    best = result.best_trial
    assert best is not None
    assert result.run is not None
    assert result.run.config.training.lr == best.user_attrs["lr"] > 0


def test_a_scheduled_refit_ends_after_the_best_epoch(tmp_path: Path) -> None:
    result = tune(
        "iris", tmp_path / "s", {"lr": [0.3, 0.2]}, schedule="cosine", target=None, trials=2, epochs=9, refit=True
    )
    best = result.best_trial
    assert best is not None
    assert result.run is not None
    assert result.run.config.training.epochs == 9
    assert len(result.run.history) == best.user_attrs["best_epoch"]
    rates = [row["lr"] for row in result.run.history]
    assert rates[0] > 0.9 * best.params["lr"], "the curve is that of nine epochs"


def test_several_seeds_are_an_ensemble_that_predicts_the_mean(tmp_path: Path) -> None:
    result = tune("iris", tmp_path / "s", {"lr": [0.01, 0.02]}, target=None, trials=2, refit=True, refit_seeds=3)
    ensemble = result.ensemble
    assert result.run is None
    assert ensemble is not None
    probabilities = ensemble.predict("iris").probabilities
    each = [run.predict("iris").probabilities for run in ensemble.runs]
    assert len(each) == 3
    for run in ensemble.runs:
        assert (set(run.metrics), run.record.rows) == ({"train"}, {"train": 120, "test": 30})
        card = (run.path / "README.md").read_text()
        assert "The test split was not used." in card
        assert "It is one network of 3. The test split was used once, for all together: `../metrics.json`." in card
    assert not torch.equal(each[0], each[1])
    torch.testing.assert_close(probabilities, torch.stack(each).mean(dim=0))
    rows = [run._own_split().frame for run in ensemble.runs]  # type: ignore[union-attr]
    assert all(frame.equals(rows[0]) for frame in rows)
    metrics = json.loads((ensemble.path / "metrics.json").read_text())
    test = ensemble.predict(rows[0])
    right = [said == true for said, true in zip(test.values, rows[0]["species"].cast(pl.String), strict=True)]
    assert metrics["test"]["accuracy"] == pytest.approx(sum(right) / len(right))


@pytest.mark.parametrize(("seeds", "uses"), [(1, ["evaluate", "predict"]), (3, ["evaluate"])])  # one: and a picture
def test_the_test_rows_are_used_once_and_at_the_end(
    seeds: int, uses: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, int]] = []

    def noted(name: str) -> Any:
        true = getattr(stoker.Trainer, name)

        def call(self: stoker.Trainer, data: Any, *given: Any, **named: Any) -> Any:
            seen.append((name, len(next(iter(data.values())) if name == "predict" else data[1])))
            return true(self, data, *given, **named)

        return call

    for name in ("fit", "evaluate", "predict"):  # no other way leads to a network
        monkeypatch.setattr(stoker.Trainer, name, noted(name))
    settings: dict[str, Any] = {"valid_size": 20, "test_size": 30, "trials": 2, "refit_seeds": seeds}
    tune("iris", tmp_path / "s", {"lr": [0.01, 0.02]}, target=None, refit=True, **settings)
    assert [one for one in seen if one[0] == "fit"] == [("fit", 100)] * 2 + [("fit", 120)] * seeds
    tested = [place for place, (_, rows) in enumerate(seen) if rows == 30]
    assert [seen[place][0] for place in tested] == uses
    assert tested[0] > max(place for place, (name, _) in enumerate(seen) if name == "fit")


@pytest.mark.slow
def test_two_processes_share_a_study(diabetes: Path, tmp_path: Path) -> None:
    result = tune(diabetes, tmp_path / "s", workers=2, trials=6)
    assert [trial.number for trial in result.trials] == list(range(6))
    assert result.counts["complete"] + result.counts["pruned"] == 6
    assert result.ending == "finished"


@pytest.mark.slow
def test_workers_draw_what_one_would_and_nothing_alike(diabetes: Path, tmp_path: Path) -> None:
    space = {"lr": stoker.Float(1e-3, 1e-1, log=True), "dropout": stoker.Float(0.0, 0.5)}
    settings: dict[str, Any] = {"trials": 8, "epochs": 1, "sampler": "random", "pruner": "none"}
    one, two = (tune(diabetes, tmp_path / str(workers), space, workers=workers, **settings) for workers in (1, 2))
    assert [trial.params for trial in two.trials] == [trial.params for trial in one.trials]
    for name in space:
        assert len({trial.params[name] for trial in two.trials}) == 8


class Watched:
    """Numbers that note which process turns them into data."""

    def __init__(self, values: Any, log: Path) -> None:
        self.values, self.log = values, log

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        with self.log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        return self.values


@pytest.mark.slow
def test_each_process_loads_the_data_once(tmp_path: Path) -> None:
    x, y = load_diabetes(return_X_y=True)
    load((Watched(x, tmp_path / "one"), y))
    each = len((tmp_path / "one").read_text().splitlines())
    log = tmp_path / "log"
    tune((Watched(x, log), y), tmp_path / "s", workers=2, trials=30, target=None, pruner="none", refit=True)
    found = Counter(log.read_text().split())
    children = {pid: count for pid, count in found.items() if pid != str(os.getpid())}
    assert set(children.values()) == {each}
    assert len(children) == 2, "one worker did all"
    assert found[str(os.getpid())] == 2 * each, "for the question, and for the last training, which is a run like any"


def test_an_objective_of_ones_own_with_data_as_arguments(tmp_path: Path) -> None:
    def objective(trial: optuna.Trial, points: list[float]) -> float:
        x = trial.suggest_float("x", -10.0, 10.0)
        return sum((x - point) ** 2 for point in points)

    result = stoker.tune(objective, args=([1.0, 3.0],), trials=30, out=tmp_path / "s", progress="none")
    assert result.name == "objective"
    assert result.best_value == pytest.approx(2.0, abs=1.0)
    with open_storage(f"sqlite:///{tmp_path / 's' / 'study.db'}") as storage:
        same = optuna.load_study(study_name="objective", storage=storage.base)
        assert same.best_value == result.best_value


def test_an_objective_can_prune_and_fail(tmp_path: Path) -> None:
    def objective(trial: optuna.Trial) -> Any:
        kind = trial.suggest_categorical("kind", list("abcdefgh"))
        if kind in "ab":
            raise optuna.TrialPruned
        if kind in "cd":
            raise RuntimeError("no such kind")
        return "much" if kind == "e" else 1.0

    result = stoker.tune(objective, trials=40, out=tmp_path / "s", progress="none", sampler="random")
    reasons = {trial.user_attrs["reason"] for trial in result.trials if trial.state.name == "FAIL"}
    assert reasons == {"RuntimeError: no such kind", "its value must be a finite number, got 'much'."}
    assert result.counts["pruned"]


def test_a_pruner_that_was_asked_for_needs_reports(tmp_path: Path) -> None:
    def objective(trial: optuna.Trial) -> float:
        return trial.suggest_float("x", 0.0, 1.0)

    with pytest.raises(ConfigError, match="pruner: needs an objective that reports its epochs"):
        stoker.tune(objective, pruner="hyperband", out=tmp_path / "s", progress="none")
    assert len(stoker.tune(objective, trials=2, out=tmp_path / "t", progress="none").trials) == 2


def test_a_trainer_that_the_user_builds(tmp_path: Path) -> None:
    X = torch.linspace(-1, 1, 64)[:, None]
    y = X * 3 - 1

    def build(params: dict[str, Any]) -> stoker.Trainer:
        torch.manual_seed(0)
        return stoker.Trainer(nn.Linear(1, 1), "mse", "sgd", lr=params["lr"], device="cpu")

    settings: dict[str, Any] = {"train": (X[::2], y[::2]), "valid": (X[1::2], y[1::2]), "progress": "none"}
    space = {"lr": [0.001, 0.3], "epochs": [3, 9]}
    result = stoker.tune(build, space, sampler="grid", pruner="none", out=tmp_path / "s", **settings, batch_size=8)
    assert result.best_params == {"lr": 0.3, "epochs": 9}
    assert {len(trial.intermediate_values) for trial in result.trials} == {3, 9}
    with pytest.raises(InputTypeError, match="tune: needs train and valid for a function that builds a Trainer"):
        stoker.tune(build, space, out=tmp_path / "t", progress="none")


def test_a_space_in_toml_with_the_settings_beside_it(diabetes: Path, tmp_path: Path) -> None:
    file = tmp_path / "space.toml"
    file.write_text(
        '[training]\nepochs = 2\n[space]\nlr = { low = 1e-3, high = 1e-1, log = true }\noptimizer = ["adam", "sgd"]\n'
        'momentum = { low = 0.0, high = 0.9, when = { optimizer = "sgd" } }\n'
    )
    result = tune(diabetes, tmp_path / "s", None, config=file, epochs=None, trials=8, sampler="random")
    assert {tuple(trial.params) for trial in result.trials} == {("lr", "optimizer"), ("lr", "optimizer", "momentum")}


def test_the_seed_may_stand_in_the_file(diabetes: Path, tmp_path: Path) -> None:
    (tmp_path / "space.toml").write_text("[training]\nseed = 5\n")
    of_file = tune(diabetes, tmp_path / "s", config=tmp_path / "space.toml", trials=2)
    given = tune(diabetes, tmp_path / "t", seed=5, trials=2)
    assert told(of_file) == told(given)
    assert told(of_file) != told(tune(diabetes, tmp_path / "u", trials=2))


ODD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"trials": 0}, ConfigError, "--trials: must be a whole number from 1 on, got 0."),
    ({"timeout": 0}, ConfigError, "--timeout: must be seconds above 0, got 0."),
    ({"workers": 5}, ConfigError, "--workers: must not be more than the trials, 4, got 5. Say fewer workers"),
    ({"sampler": "tpee"}, UnknownNameError, "sampler: must be one of the known names, got 'tpee'. Did you mean 'tpe'?"),
    ({"pruner": "medain"}, UnknownNameError, "Did you mean 'median'?"),
    ({"direction": "up"}, UnknownNameError, "direction: must be one of the known names, got 'up'."),
    ({"space": {"leerning_rate": [1.0]}}, UnknownNameError, "space: must be one of the known names"),
    ({"space": {"dropout": [0.1, 1.5]}}, ConfigError, "model.dropout: must be less than 1, got 1.5."),
    ({"sampler": "grid"}, ConfigError, "space.lr: must be countable for a grid"),
    ({"valid_size": 0}, ConfigError, "tune: needs a validation split to compare trials by, got none."),
    ({"study_name": "a/b"}, ConfigError, "--study-name: must be fit for a directory's name, got 'a/b'."),
    ({"args": (1,)}, ConfigError, "args: is for a function of your own, got a source of data."),
    ({"target": "price"}, DataError, "price"),
    ({"progress": "loud"}, UnknownNameError, "progress: must be one of the known names, got 'loud'."),
]


@pytest.mark.parametrize(("settings", "kind", "text"), ODD, ids=[str(settings) for settings, *_ in ODD])
def test_what_is_wrong_is_said_and_no_trial_is_run(
    settings: dict[str, Any], kind: type[Exception], text: str, diabetes: Path, tmp_path: Path
) -> None:
    with pytest.raises(kind) as caught:
        tune(diabetes, tmp_path / "s", **settings)
    assert text in str(caught.value)


def test_another_directory_is_not_touched(diabetes: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunExistsError, match="--out: must be a study's directory, or not exist yet"):
        tune(diabetes, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.slow
def test_a_study_is_not_continued_with_another_question(study: stoker.TuneResult, diabetes: Path) -> None:
    settings: dict[str, Any] = {"trials": 6, "pruner": "none"}
    for changed, text in (
        ({"epochs": 7}, "with another settings: settings.training.epochs was 6, got 7."),
        ({"space": {"lr": [0.1]}}, "with another space: space."),
        ({"metric": "r2"}, "is there already, to minimize, got maximize."),
        ({"metric": "rmse"}, "with another metric: metric was 'loss', got 'rmse'."),
        ({"seed": 3}, "with another settings: settings.training.seed was 0, got 3."),
    ):
        with pytest.raises(ConfigError) as caught:
            tune(diabetes, study.path, **{**settings, "epochs": 6, **changed})
        assert text in str(caught.value)
    assert told(tune(diabetes, study.path, epochs=6, **settings)) == told(study)


def test_other_validation_rows_are_another_study(diabetes: Path, tmp_path: Path) -> None:
    rows = pl.read_csv(diabetes)
    for name, part in (("a", rows[:100]), ("b", rows[100:200])):
        part.write_csv(tmp_path / f"{name}.csv")
    tune(diabetes, tmp_path / "s", trials=1, valid=tmp_path / "a.csv")
    with pytest.raises(ConfigError, match="valid"):
        tune(diabetes, tmp_path / "s", trials=2, valid=tmp_path / "b.csv")


def test_another_studys_refit_is_never_shown_as_ones_own(diabetes: Path, tmp_path: Path) -> None:
    first = tune(diabetes, tmp_path / "s", trials=1, refit=True)
    assert isinstance(first.run, stoker.Run)
    (tmp_path / "s" / "study.db").unlink()
    with pytest.raises(RunExistsError, match="--out: must be the directory of the study 'diabetes-tune'"):
        tune(diabetes, tmp_path / "s", trials=1, epochs=2, refit=True)
    (tmp_path / "s" / "study.json").unlink()
    with pytest.raises(RunExistsError, match="refit: must be of this study, or not exist yet"):
        tune(diabetes, tmp_path / "s", trials=1, epochs=2, refit=True)


class Press(stoker.Callback):
    """Presses Ctrl-C at the end of the first epoch."""

    def on_epoch_end(self, row: Any, is_best: bool) -> None:  # noqa: ARG002
        if row["epoch"] == 1:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for a single process")
def test_ctrl_c_in_a_trainer_within_an_objective_leaves_the_trial_to_be_run_again(tmp_path: Path) -> None:
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    pressed: list[int] = []

    def objective(trial: optuna.Trial) -> float:
        torch.manual_seed(0)
        trainer = stoker.Trainer(nn.Linear(3, 1), "mse", lr=trial.suggest_float("lr", 0.01, 0.1), device="cpu")
        press = [Press()] if trial.number == 1 and not pressed else []
        pressed.extend(1 for _ in press)
        history = trainer.fit((x, x[:, :1]), epochs=6, progress="none", callbacks=press)
        trial.set_user_attr("epochs", len(history.rows))
        return float(history[-1]["train_loss"])

    settings: dict[str, Any] = {"trials": 3, "progress": "none", "out": tmp_path / "s"}
    first = stoker.tune(objective, **settings)
    assert (first.ending, [trial.state.name for trial in first.trials]) == ("interrupted", ["COMPLETE", "RUNNING"])
    second = stoker.tune(objective, **settings)
    assert (second.ending, [trial.user_attrs["epochs"] for trial in second.trials]) == ("finished", [6, 6, 6])


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for a single process")
def test_ctrl_c_in_the_refit_keeps_nothing_of_it(
    diabetes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = stoker.fit
    monkeypatch.setattr(
        "stoker.tuning.refit.fit", lambda *args, **more: real(*args, **{**more, "callbacks": [Press()]})
    )
    first = tune(diabetes, tmp_path / "s", trials=1, refit=True)
    assert (first.ending, first.run) == ("interrupted", None)
    assert not list((tmp_path / "s").glob("refit-trial-0"))
    monkeypatch.undo()
    second = tune(diabetes, tmp_path / "s", trials=1, refit=True)
    assert second.ending == "finished"
    assert isinstance(second.run, stoker.Run)
    assert second.best_trial is not None
    assert len(second.run.history.rows) == second.best_trial.user_attrs["best_epoch"]


def test_the_unit_of_the_loss_is_not_tuned_by_the_loss(diabetes: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"space.scale_target: cannot be tuned: .* Or choose a --metric\."):
        tune(diabetes, tmp_path / "s", {"scale_target": stoker.Categorical((True, False))})


def told_by_the_environment(trial: optuna.Trial) -> float:
    return float(os.environ["TOLD"]) + trial.suggest_float("x", 0.0, 0.5)


@pytest.mark.slow
def test_workers_have_the_environment_as_it_is_when_they_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for told in (1, 2):
        monkeypatch.setenv("TOLD", str(told))
        out = tmp_path / str(told)
        result = stoker.tune(told_by_the_environment, trials=3, workers=2, pruner="none", progress="none", out=out)
        assert {int(trial.value) for trial in result.trials if trial.value is not None} == {told}


def test_several_workers_need_what_can_be_pickled(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="workers: several need what can be pickled, got"):
        stoker.tune(lambda trial: trial.number, trials=2, workers=2, progress="none", out=tmp_path / "s")
