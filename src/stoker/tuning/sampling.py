"""What is tried next, and what is given up early: Optuna's samplers and pruners by name.

A trial's values are a function of the study's seed, the trial's number and the trials before it: each value is drawn by
a generator of its own. So it does not matter which process draws it, nor whether an earlier one died in the middle; and
no two workers draw alike.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from stoker.errors import ConfigError, UnknownNameError
from stoker.randomness import derive_seed
from stoker.tuning.space import Space

__all__ = ["PRUNERS", "SAMPLERS", "make_pruner", "make_sampler"]


def _tpe(seed: int) -> BaseSampler:
    # by groups, since conditional parameters are not in every trial
    return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True)


def _cmaes(seed: int) -> BaseSampler:
    from stoker.tuning.cmaes_state import PlainCmaEsSampler

    return PlainCmaEsSampler(seed=seed)


def _gp(seed: int) -> BaseSampler:
    return optuna.samplers.GPSampler(seed=seed)


SAMPLERS: dict[str, Callable[[int], BaseSampler] | None] = {
    "tpe": _tpe,
    "random": optuna.samplers.RandomSampler,
    "cmaes": _cmaes,
    "grid": None,
    "gp": _gp,
}
PRUNERS: dict[str, Callable[[], optuna.pruners.BasePruner]] = {
    "median": optuna.pruners.MedianPruner,
    "hyperband": optuna.pruners.HyperbandPruner,
    "asha": partial(optuna.pruners.SuccessiveHalvingPruner, min_resource=1),
    "none": optuna.pruners.NopPruner,
}


def make_sampler(name: str, seed: int, space: Space | None) -> BaseSampler:
    """A sampler by name.

    Args:
        name: One of :data:`SAMPLERS`.
        seed: The study's.
        space: What is tried; ``None`` where an objective of the user's own says it.

    Raises:
        UnknownNameError: There is no such sampler.
        ConfigError: A grid has no space, or one that cannot be counted.
    """
    if name not in SAMPLERS:
        raise UnknownNameError("sampler", name, SAMPLERS)
    make = SAMPLERS[name]
    if make is not None:
        return _PerTrial(make, seed)
    if space is None:
        fix = "Pass a space, or use another sampler."
        raise ConfigError("sampler", "a grid needs a space that says what is on it", "none", fix)
    return _Grid(space.points(), seed)


def make_pruner(name: str) -> optuna.pruners.BasePruner:
    """A pruner by name.

    Raises:
        UnknownNameError: There is no such pruner.
    """
    if name not in PRUNERS:
        raise UnknownNameError("pruner", name, PRUNERS)
    return PRUNERS[name]()


class _PerTrial(BaseSampler):
    """A sampler made anew for each trial, and for each parameter that is drawn alone."""

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self._make = make
        self._seed = seed
        self._current: tuple[int, BaseSampler] | None = None

    def _fresh(self, trial: FrozenTrial, *purpose: str) -> BaseSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return self._make(derive_seed(self._seed, "sampler", trial.number, *purpose, bits=32))

    def _of(self, trial: FrozenTrial) -> BaseSampler:
        if self._current is None or self._current[0] != trial.number:
            self._current = (trial.number, self._fresh(trial))
        return self._current[1]

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        self._current = None
        return self._of(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._of(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._fresh(trial, param_name).sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self._of(trial).after_trial(study, trial, state, values)


class _Grid(BaseSampler):
    """The points of a grid in a shuffled order, the trial of number ``k`` at the ``k``-th.

    Attributes:
        size: How many there are.
    """

    def __init__(self, points: Sequence[Mapping[str, Any]], seed: int) -> None:
        import numpy as np

        order = np.random.default_rng(derive_seed(seed, "sampler", "grid")).permutation(len(points))
        self._points = [points[place] for place in order]
        self.size = len(points)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:  # noqa: ARG002
        return {}

    def sample_relative(
        self,
        study: optuna.Study,  # noqa: ARG002
        trial: FrozenTrial,  # noqa: ARG002
        search_space: dict[str, BaseDistribution],  # noqa: ARG002
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self,
        study: optuna.Study,  # noqa: ARG002
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,  # noqa: ARG002
    ) -> Any:
        return self._points[trial.number % self.size][param_name]
