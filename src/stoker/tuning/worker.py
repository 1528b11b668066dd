"""A worker: takes a trial, runs it, records it, and so on until there are as many as were asked for."""

from __future__ import annotations

import math
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Literal, Protocol, TypeAlias

import optuna

from stoker.errors import ConfigError, StokerError, TrainingError
from stoker.training.interrupts import CtrlC
from stoker.tuning.storage import LOST, patiently
from stoker.tuning.study import REASON, Outcome, Roster

__all__ = ["Ending", "Objective", "work"]

Ending: TypeAlias = Literal["finished", "timeout", "interrupted"]
AWAY = "the database was away"
HOPELESS = 5  # so many failures without a success are no accident


class Objective(Protocol):
    """What a trial is."""

    reports: bool
    """Whether a trial that reports no epochs is a mistake, because a pruner was asked for."""

    def __call__(self, trial: optuna.Trial, stop: Callable[[], bool]) -> Outcome:
        """Run one.

        Args:
            trial: Where its values come from, and its epochs are reported to.
            stop: Asked after each epoch whether to stop here, unfinished.
        """
        ...

    def over(self, number: int) -> None:
        """Told the number of a trial whose outcome is recorded: nothing else need be kept of it."""
        ...


def work(
    roster: Roster,
    objective: Objective,
    *,
    until: float | None = None,
    stop: Callable[[], bool] = lambda: False,
    beat_every: float = 10.0,
    poll: float = 0.5,
    clock: Callable[[], float] = time.monotonic,
) -> Ending:
    """Run trials until there are no more to run, which is when all are ended, those of the other workers too.

    Args:
        roster: Gives trials out.
        objective: What a trial is.
        until: No trial is begun after this time of ``clock``.
        stop: Asked between trials and after each epoch whether to stop; what is unfinished is then left to others.
        beat_every: Seconds between two beats of the heart.
        poll: Seconds after which to look again, while others are at work.
        clock: Tells seconds.

    Raises:
        TrainingError: The first trials of this worker failed all.
        ConfigError: There is a pruner, but trials report nothing.
    """
    failed: list[str] = []
    hopeful = False
    roster.enter()
    try:
        while not stop():
            late = until is not None and clock() >= until
            trial, others = roster.take(begin=not late)
            if trial is None:
                if late or others == 0:
                    return "timeout" if late else "finished"
                time.sleep(poll)
                continue
            with _heartbeat(roster, trial, beat_every), CtrlC() as ctrl_c:
                outcome = _run(objective, trial, stop)
            if ctrl_c.cut:  # a training within the trial was ended, and what it came to is not the trial's
                outcome = Outcome("interrupted")
            ours = roster.finish(trial, outcome if outcome.state != "interrupted" else Outcome("interrupted"))
            if ours and outcome.state != "interrupted":  # else somebody else is at it, or will be
                objective.over(trial.number)
            if outcome.state == "interrupted":
                if outcome.about.get(AWAY):
                    continue  # to be taken again, once the database is back
                break
            if outcome.state == "failed":
                failed.append(str(outcome.about.get(REASON, "")))
            hopeful = hopeful or _hopeful(roster, failed, objective)
        return "interrupted"
    finally:
        roster.leave()


def _run(objective: Objective, trial: optuna.Trial, stop: Callable[[], bool]) -> Outcome:
    """Run a trial; whatever it raises is its outcome."""
    with warnings.catch_warnings():
        # one that is run again reports again what its study knows
        warnings.filterwarnings("ignore", message="The reported value is ignored because this")
        try:
            outcome = objective(trial, stop)
        except optuna.TrialPruned:
            return Outcome("pruned")
        except KeyboardInterrupt:
            return Outcome("interrupted")
        except LOST:
            return Outcome("interrupted", about={AWAY: True})
        except StokerError as error:
            return Outcome("failed", about={REASON: str(error)})
        except MemoryError as error:
            return Outcome("failed", about={REASON: f"out of memory: {error}"})
        except Exception as error:
            return Outcome("failed", about={REASON: f"{type(error).__name__}: {error}"})
    if outcome.state == "complete" and (outcome.value is None or not math.isfinite(outcome.value)):
        return Outcome("failed", about={**outcome.about, REASON: f"its value must be finite, got {outcome.value}."})
    return outcome


def _hopeful(roster: Roster, failed: list[str], objective: Objective) -> bool:
    """Whether a trial succeeded, so that going on is not in vain; where it plainly is, stop. What is done is kept."""
    complete = (optuna.trial.TrialState.COMPLETE,)
    over = patiently(lambda: roster.study.get_trials(deepcopy=False, states=complete))
    if len(failed) >= HOPELESS and not over:
        reasons = list(dict.fromkeys(failed))
        fix = "Look at the settings and the space; the trials are kept in the study, with their reasons."
        raise TrainingError(
            f"study {roster.study.study_name!r}", "some trials must succeed", reasons[-1].rstrip("."), fix
        )
    if objective.reports and over and not any(trial.intermediate_values for trial in over):
        fix = 'Call trial.report(value, epoch) and trial.should_prune(), or say pruner="none". Its trials are kept.'
        raise ConfigError("pruner", "needs an objective that reports its epochs", "one that reports nothing", fix)
    return bool(over)


@contextmanager
def _heartbeat(roster: Roster, trial: optuna.Trial, every: float) -> Iterator[None]:
    """Within this block a thread says again and again that the trial's worker lives."""
    done = threading.Event()
    first = int(trial.user_attrs.get("stoker:beat", 0))

    def beat() -> None:
        count = first
        while not done.wait(every):
            count += 1
            with suppress(Exception):  # a database that is away will hear the next one
                roster.beat(trial, count)

    thread = threading.Thread(target=beat, name="stoker-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
