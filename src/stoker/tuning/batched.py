"""Several trials at once: each is trained as ever, and where some have the same shape, one program makes their steps.

The trials of a batch are those whose numbers have the same quotient by the batch's size. They are drawn one after the
other before any of them is trained, and neither the sampler nor the pruner looks at what the others of the batch come
to: a trial's values are a function of the seed, its number and the batches before, wherever the study was interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, cast

import optuna
from optuna.trial import FrozenTrial

from stoker.engines.together import OWN_SHAPE, Lane, abreast
from stoker.tuning.storage import LOST, patiently
from stoker.tuning.study import Outcome

__all__ = ["Batchable", "draw_values", "train_together"]

TOGETHER = "stoker:together"


class Batchable(Protocol):
    """An objective whose trials can be trained together."""

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """The values of a trial."""
        ...

    def __call__(self, trial: optuna.Trial, stop: Callable[[], bool], lane: Lane | None = None) -> Outcome:
        """See :class:`stoker.tuning.worker.Objective`.

        Args:
            trial: As there.
            stop: As there.
            lane: Where the trial is one of several that are trained together.
        """
        ...


def draw_values(objective: Batchable, trial: optuna.Trial) -> None:
    """Have a trial's values drawn, which are then in the storage. What is wrong with them, its training will tell."""
    try:
        objective.suggest(trial)
    except LOST:
        raise
    except Exception:
        return


def train_together(
    objective: Batchable,
    trials: Sequence[optuna.Trial],
    size: int,
    *,
    stop: Callable[[], bool],
    carry_out: Callable[[Callable[[], Outcome]], Outcome],
    ended: Callable[[optuna.Trial, Outcome], object],
) -> list[str]:
    """Train trials, those of the same shape by one program.

    Args:
        objective: What a trial is.
        trials: Of one batch, or what is left of some.
        size: How many a batch has.
        stop: Asked before each trial and after each of its epochs whether to stop; what is unfinished is interrupted.
        carry_out: Makes an outcome of what a trial raises.
        ended: Told each trial's outcome as soon as it has one.

    Returns:
        Why some of them were trained by themselves, each reason once.

    Raises:
        Terminated: SIGTERM came, and what can be kept is kept.
    """
    lanes = [Lane(trial.user_attrs.get(TOGETHER), partial(_remember, trial)) for trial in trials]

    def train(trial: optuna.Trial, lane: Lane) -> Outcome:
        # begun late, it would only begin
        return Outcome("interrupted") if stop() else carry_out(lambda: objective(trial, stop, lane))

    works = [partial(train, _without_others(trial, size)) for trial in trials]
    abreast(lanes, works, lambda place, outcome: ended(trials[place], outcome))
    reasons = dict.fromkeys(lane.alone for lane in lanes)
    return [reason for reason in reasons if reason is not None and not (reason == OWN_SHAPE and len(trials) == 1)]


def _remember(trial: optuna.Trial, size: int) -> None:
    """Note for how many the program of a trial was: whoever goes on with it must have one of the same size."""
    patiently(lambda: trial.set_user_attr(TOGETHER, size))


def _without_others(trial: optuna.Trial, size: int) -> optuna.Trial:
    """The trial, in a study in which the others of its batch cannot be seen."""
    study, batch = trial.study, trial.number // size
    storage = _Filtered(study._storage, lambda one: one.number == trial.number or one.number // size != batch)
    trial.study = optuna.Study(
        study.study_name, cast("optuna.storages.BaseStorage", storage), study.sampler, study.pruner
    )
    return trial


class _Filtered:
    """A storage that shows some of the trials."""

    def __init__(self, storage: optuna.storages.BaseStorage, shows: Callable[[FrozenTrial], bool]) -> None:
        self._storage, self._shows = storage, shows

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def get_all_trials(self, *given: Any, **named: Any) -> list[FrozenTrial]:
        return [trial for trial in self._storage.get_all_trials(*given, **named) if self._shows(trial)]
