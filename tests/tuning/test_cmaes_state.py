"""CMA-ES' state in a study: to the bit what Optuna's own pickle gives, and nothing that is stored is run."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cmaes
import numpy as np
import optuna
import pytest

from stoker.errors import ConfigError
from stoker.tuning.cmaes_state import PlainCmaEsSampler, from_json, to_json


def told(generations: int, bounds: bool = True) -> cmaes.CMA:
    limits = np.array([[0.0, 1.0]] * 3) if bounds else None
    optimizer = cmaes.CMA(mean=np.full(3, 0.5), sigma=0.2, bounds=limits, seed=1)
    for _ in range(generations):
        points = [optimizer.ask() for _ in range(optimizer.population_size)]
        optimizer.tell([(point, float((point**2).sum())) for point in points])
    return optimizer


@pytest.mark.parametrize("generations", [0, 1, 5])
@pytest.mark.parametrize("bounds", [True, False])
def test_json_keeps_what_a_pickle_keeps(generations: int, bounds: bool) -> None:
    optimizer = told(generations, bounds)
    ours, theirs = from_json(to_json(optimizer)), pickle.loads(pickle.dumps(optimizer))
    for one in (ours, theirs):
        one._rng.seed(3)
    assert ours.generation == generations
    assert [list(ours.ask()) for _ in range(9)] == [list(theirs.ask()) for _ in range(9)]


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "got"),
    [
        (lambda state: state.update(_n_dim=10**9), "1000000000 dimensions"),
        (lambda state: state.update(_n_dim=True), "True dimensions"),
        (lambda state: state.update(_popsize=10**9), "a population of 1000000000"),
        (lambda state: state.update(_n_max_resampling=10**18), "_n_max_resampling of 1000000000000000000"),
        (lambda state: state.update(more=1), "other parts"),
        (lambda state: state.pop("_mean"), "other parts"),
        (lambda state: state.update(_mean=[0.0]), r"_mean of the shape \[1\]"),
        (lambda state: state.update(_mean=[0.0, "x", 1.0]), "_mean that is no array"),
        (lambda state: state.update(_mean=[0.0, float("nan"), 1.0]), "_mean that is not finite"),
        (lambda state: state.update(_sigma=float("inf")), "_sigma of inf"),
        (lambda state: state.update(_sigma="big"), "_sigma of big"),
        (lambda state: state.update(_g=-1), "_g of -1"),
    ],
)
def test_a_state_is_not_trusted(change: Change, got: str) -> None:
    state = json.loads(to_json(told(2)))
    change(state)
    with pytest.raises(ConfigError, match=rf"sampler cmaes: must find its state in the study as Stoker .*got {got}\. "):
        from_json(json.dumps(state))


@pytest.mark.parametrize("text", ["", "[" * 100_000, "null", "[]", "80049526"])
def test_what_is_no_state(text: str) -> None:
    with pytest.raises(ConfigError, match="sampler cmaes: must find its state"):
        from_json(text)


class Payload:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.place),)


def objective(trial: optuna.Trial) -> float:
    return trial.suggest_float("x", 0, 1) ** 2 + trial.suggest_float("y", 0, 1)


def poisoned(place: Path, key: str, sampler: optuna.samplers.BaseSampler) -> optuna.Study:
    """A study of which somebody else has written a trial."""
    study = optuna.create_study(storage=f"sqlite:///{place.with_suffix('.db')}", sampler=sampler)
    study.optimize(objective, n_trials=2)
    last = study.trials[-1]
    attrs = {key: pickle.dumps(Payload(place)).hex()}
    study.add_trial(
        optuna.trial.create_trial(value=1.0, params=last.params, distributions=last.distributions, system_attrs=attrs)
    )
    return study


def test_a_pickle_in_a_study_is_not_loaded(tmp_path: Path) -> None:
    key = "cma:optimizer:0"
    theirs = poisoned(tmp_path / "theirs", key, optuna.samplers.CmaEsSampler(seed=0))
    theirs.optimize(objective, n_trials=1)
    assert (tmp_path / "theirs").exists()  # so it would go with Optuna's own
    ours = poisoned(tmp_path / "ours", key, PlainCmaEsSampler(0))
    ours.optimize(objective, n_trials=9)
    assert not (tmp_path / "ours").exists()
    assert any(name.startswith("stoker:cma:optimizer:") for trial in ours.trials for name in trial.system_attrs)
    assert not any(name.startswith("cma:") for trial in ours.trials[3:] for name in trial.system_attrs)


def test_nor_one_in_the_place_of_our_state(tmp_path: Path) -> None:
    study = poisoned(tmp_path / "made", "stoker:cma:optimizer:0", PlainCmaEsSampler(0))
    with pytest.raises(ConfigError, match=r"sampler cmaes: .* got no JSON\. Its storage is damaged"):
        study.optimize(objective, n_trials=1)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("key", ["stoker:cma:optimizer:1", "stoker:cma:optimizer"])
def test_nor_parts_of_a_state(key: str, tmp_path: Path) -> None:
    study = poisoned(tmp_path / "made", key, PlainCmaEsSampler(0))
    with pytest.raises(ConfigError, match=r"sampler cmaes: .* got parts of it in trial 2\. "):
        study.optimize(objective, n_trials=1)
