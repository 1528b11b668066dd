"""A study that many workers share: how it is joined, and who runs which trial.

A trial is taken and ended under a lock that one worker has at a time, so that there are as many as were asked for, none
is lost and none is counted twice. A trial whose worker died stays where it is, with its number and its values; the next
worker takes it over.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import optuna
from optuna.trial import FrozenTrial, TrialState

from stoker.errors import ConfigError
from stoker.tuning.storage import Storage, patiently

__all__ = ["REASON", "Outcome", "Plan", "Roster", "open_study", "read_plan"]

PLAN = "stoker:plan"
WORKER, BEAT, DEATHS = "stoker:worker", "stoker:beat", "stoker:deaths"
REASON = "reason"
DEADLY = 5  # after so many deaths a trial, and not the machine, is to blame
Direction: TypeAlias = Literal["minimize", "maximize"]


@dataclass(frozen=True)
class Plan:
    """What a study is.

    Attributes:
        name: Its name in the storage.
        direction: ``"minimize"`` or ``"maximize"``.
        trials: How many there are to be in all.
        about: What must be the same for whoever joins: the space, the settings, the data.
        extra: What else is remembered.
    """

    name: str
    direction: Direction
    trials: int
    about: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How a trial went.

    Attributes:
        state: ``interrupted`` trials are run again; the others are over.
        value: Of a complete one.
        about: What to remember, JSON by name; of a failed one its ``reason``.
    """

    state: Literal["complete", "pruned", "failed", "interrupted"]
    value: float | None = None
    about: Mapping[str, Any] = field(default_factory=dict)


STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


def open_study(
    storage: Storage,
    plan: Plan,
    sampler: optuna.samplers.BaseSampler,
    pruner: optuna.pruners.BasePruner,
    *,
    more: int | None = None,
) -> tuple[optuna.Study, Plan]:
    """Make a study, or join the one of this name.

    Args:
        storage: Where it is.
        plan: What it is to be.
        sampler: What is tried next.
        pruner: What is given up.
        more: So many trials more than were planned until now, instead of ``plan.trials``.

    Returns:
        The study, and the plan with the number of trials that there are to be.

    Raises:
        ConfigError: There is one of this name that is about something else; nothing of it is changed.
    """

    def opened() -> tuple[optuna.Study, Plan]:
        with storage.locks.only_one(f"{plan.name} turn"):
            known = {
                study.study_name for study in optuna.get_all_study_summaries(storage.base, include_best_trial=False)
            }
            settings: dict[str, Any] = {"storage": storage.base, "sampler": sampler, "pruner": pruner}
            total = plan.trials
            if plan.name in known:
                study = optuna.load_study(study_name=plan.name, **settings)
                before = read_plan(study)
                _refuse_another(before, study, plan)
                total = plan.trials if more is None else before["trials"] + more
            else:
                study = optuna.create_study(study_name=plan.name, direction=plan.direction, **settings)
                total = plan.trials if more is None else more
            stored = {
                "trials": total,
                "direction": plan.direction,
                "about": dict(plan.about),
                "extra": dict(plan.extra),
            }
            study.set_user_attr(PLAN, stored)
            return study, Plan(plan.name, plan.direction, total, plan.about, plan.extra)

    return patiently(opened)


def read_plan(study: optuna.Study) -> dict[str, Any]:
    """What a study remembers of its :class:`Plan`; empty if it was not made by Stoker, or never got so far."""
    plan: dict[str, Any] = study.user_attrs.get(PLAN) or {}
    return plan


def _refuse_another(before: Mapping[str, Any], study: optuna.Study, plan: Plan) -> None:
    where = f"study {plan.name!r}"
    fix = "Choose another --study-name, or say what it was made with."
    if not before:
        if study.get_trials(deepcopy=False):
            raise ConfigError(where, "must be one that Stoker made", "another", "Choose another --study-name.")
        before = {"direction": study.direction.name.lower(), "about": plan.about, "trials": 0}
    if before["direction"] != plan.direction:
        raise ConfigError(where, f"is there already, to {before['direction']}", plan.direction, fix)
    for name in dict.fromkeys([*before["about"], *plan.about]):
        old, new = before["about"].get(name), plan.about.get(name)
        if old != new:
            place, was, now = _difference(name, old, new)
            raise ConfigError(where, f"is there already, with another {name}: {place} was {was}", now, fix)


def _difference(place: str, old: Any, new: Any) -> tuple[str, str, str]:
    """Where two values first differ, and how, in words."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in dict.fromkeys([*old, *new]):
            if old.get(name) != new.get(name):
                return _difference(f"{place}.{name}", old.get(name), new.get(name))
    said = ["none" if value is None else repr(value) for value in (old, new)]
    return place, *(text if len(text) <= 80 else f"{text[:79]}…" for text in said)  # type: ignore[return-value]


class Roster:
    """Who runs which trial, as one worker sees it.

    Args:
        storage: Of the study.
        study: The study.
        total: How many trials there are to be.
        grace: A worker whose heart has not beaten for so many seconds, as seen from here, is taken for dead, even if
            the system does not say so: its machine may be cut off.
        clock: Tells seconds.

    Attributes:
        token: This worker's name.
    """

    def __init__(
        self,
        storage: Storage,
        study: optuna.Study,
        total: int,
        *,
        grace: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.token = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self.study = study
        self._locks = storage.locks
        self._total = total
        self._grace = grace
        self._clock = clock
        self._seen: dict[int, tuple[Any, float]] = {}

    def _presence(self, token: str) -> str:
        return f"{self.study.study_name} worker {token}"

    def _turn(self) -> Any:
        return self._locks.only_one(f"{self.study.study_name} turn")

    def enter(self) -> None:
        """Begin to work: until the process ends, or :meth:`leave`, others know that it lives."""
        patiently(lambda: self._locks.hold(self._presence(self.token)))

    def leave(self) -> None:
        """Stop working."""
        self._locks.let_go(self._presence(self.token))

    def take(self, *, begin: bool = True) -> tuple[optuna.Trial | None, int]:
        """Take a trial: one whose worker died, if there is one, else a new one, if there are to be more.

        Args:
            begin: Whether a new one may be begun.

        Returns:
            The trial, or ``None`` if there is none to take; and how many others are at work now.
        """
        trials, others = self.take_several(1, begin=begin)
        return (trials[0] if trials else None), others

    def take_several(
        self, count: int, *, begin: bool = True, settle: Callable[[optuna.Trial], object] = lambda _: None
    ) -> tuple[list[optuna.Trial], int]:
        """Take up to so many trials: those whose workers died first, then new ones.

        New ones come in batches of ``count`` by their numbers, ``0 … count − 1`` and so on: none is begun of the next
        batch beside those that were left of one before. So a study of one worker begins a batch when the ones before
        have ended, wherever it was interrupted. A trial in which a worker died comes by itself, lest others pay for it.

        Args:
            count: How many.
            begin: Whether new ones may be begun.
            settle: Draws a trial's values, before the next one is begun.

        Returns:
            The trials; and how many others are at work now.
        """
        while True:
            try:
                return patiently(lambda: self._take(count, begin, settle))
            except optuna.exceptions.UpdateFinishedTrialError:
                continue  # the lock was lost with its connection, and its owner ended the trial meanwhile

    def _take(
        self, count: int, begin: bool, settle: Callable[[optuna.Trial], object]
    ) -> tuple[list[optuna.Trial], int]:
        self.enter()  # again, should the connection have been lost that stood for it
        with self._turn() as check:
            trials = self.study.get_trials(deepcopy=False)
            running = [trial for trial in trials if trial.state == TrialState.RUNNING]
            abandoned = [trial for trial in running if self._is_abandoned(trial)]
            begun = sum(trial.state != TrialState.WAITING for trial in trials)
            check()
            room = -begun % count if abandoned else count - begun % count
            old, new = abandoned[:1], 0
            if not any(trial.user_attrs.get(DEATHS) for trial in old):
                old = [trial for trial in abandoned if not trial.user_attrs.get(DEATHS)][:count]
                new = min(room, count - len(old), self._total - begun)
            if not begin:
                old, new = [], 0
            # there is no public way back to a trial but its id
            taken = [self._ours(optuna.Trial(self.study, one._trial_id), settle) for one in old]
            taken += [self._ours(self.study.ask(), settle) for _ in range(new)]
            return taken, len(running) - len(abandoned)

    def _ours(self, trial: optuna.Trial, settle: Callable[[optuna.Trial], object]) -> optuna.Trial:
        trial.set_user_attr(BEAT, int(trial.user_attrs.get(BEAT, 0)) + 1)
        trial.set_user_attr(WORKER, self.token)
        settle(trial)
        return trial

    def _is_abandoned(self, trial: FrozenTrial) -> bool:
        """Whether nobody runs a running trial any more; asked under the lock, where nobody is half way into one."""
        owner = trial.user_attrs.get(WORKER)
        if not owner or owner == self.token or not self._locks.is_held(self._presence(owner)):
            return True
        sign = owner, trial.user_attrs.get(BEAT)
        seen, since = self._seen.get(trial.number, (None, 0.0))
        if seen != sign:
            self._seen[trial.number] = sign, self._clock()
            return False
        return self._clock() - since > self._grace

    def beat(self, trial: optuna.Trial, count: int) -> None:
        """Say that a trial's worker lives."""
        trial.storage.set_trial_user_attr(trial._trial_id, BEAT, count)

    def finish(self, trial: optuna.Trial, outcome: Outcome) -> bool:
        """Record how a trial went.

        Returns:
            Whether it was still this worker's to end; if not, it was taken for dead, and another ends it likewise.
        """
        try:
            return patiently(lambda: self._finish(trial.number, trial._trial_id, outcome))
        except optuna.exceptions.UpdateFinishedTrialError:
            return False  # as in take

    def _finish(self, number: int, trial_id: int, outcome: Outcome) -> bool:
        storage = self.study._storage
        with self._turn() as check:
            now = storage.get_trial(trial_id)
            if now.state != TrialState.RUNNING or now.user_attrs.get(WORKER) != self.token:
                return now.state != TrialState.RUNNING and now.user_attrs.get(WORKER) == self.token
            check()
            for name, value in outcome.about.items():
                storage.set_trial_user_attr(trial_id, name, value)
            if outcome.state == "interrupted":
                storage.set_trial_user_attr(trial_id, WORKER, "")
            else:
                self.study.tell(number, outcome.value, STATES[outcome.state], skip_if_finished=True)
        return True

    def died(self, token: str, how: str) -> bool:
        """Note that a worker died; a trial in which that happens again and again is ended as failed.

        Returns:
            Whether it had a trial.
        """

        def noted() -> bool:
            had = False
            with self._turn():
                for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                    if trial.user_attrs.get(WORKER) != token:
                        continue
                    had = True
                    deaths = int(trial.user_attrs.get(DEATHS, 0)) + 1
                    storage, trial_id = self.study._storage, trial._trial_id
                    storage.set_trial_user_attr(trial_id, DEATHS, deaths)
                    storage.set_trial_user_attr(trial_id, WORKER, "")
                    if deaths >= DEADLY:
                        reason = f"its worker {how}, {deaths} times; it may need more memory than there is"
                        storage.set_trial_user_attr(trial_id, REASON, reason)
                        self.study.tell(trial.number, None, TrialState.FAIL)
            return had

        return patiently(noted)
