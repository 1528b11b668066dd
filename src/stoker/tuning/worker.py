"""A worker: takes a trial, runs it, records it, and so on until there are as many as were asked for."""

from __future__ import annotations

import math
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache, partial
from typing import Literal, Protocol, TypeAlias, cast

import optuna

from stoker.errors import ConfigError, StokerError, TrainingError
from stoker.training.interrupts import CtrlC
from stoker.tuning.batched import Batchable, draw_values, train_together
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
    together: int = 1,
    tell: Callable[[str], object] = lambda _: None,
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
        together: How many trials are run at once; with more than one the objective must be a
            :class:`stoker.tuning.batched.Batchable`.
        tell: Told, once each, why some are trained by themselves.

    Raises:
        TrainingError: The first trials of this worker failed all.
        ConfigError: There is a pruner, but trials report nothing.
    """
    failed, outcomes = list[str](), list[Outcome]()
    batchable = cast("Batchable", objective)  # if it must be
    settle: Callable[[optuna.Trial], object] = partial(draw_values, batchable) if together > 1 else lambda _: None
    once = cache(lambda reason: tell(f"some trials are trained by themselves: {reason}"))

    def end(trial: optuna.Trial, outcome: Outcome) -> None:
        over = outcome.state != "interrupted"
        ours = roster.finish(trial, outcome if over else Outcome("interrupted"))
        if ours and over:  # else somebody else is at it, or will be
            objective.over(trial.number)
        if outcome.state == "failed":
            failed.append(str(outcome.about.get(REASON, "")))
        outcomes.append(outcome)

    hopeful = False
    roster.enter()
    try:
        while not stop():
            late = until is not None and clock() >= until
            trials, others = roster.take_several(together, begin=not late, settle=settle)
            if not trials:
                if late or others == 0:
                    return "timeout" if late else "finished"
                time.sleep(poll)
                continue
            outcomes.clear()
            heart = _heartbeat(roster, trials, beat_every)
            if together == 1:
                _run(objective, trials[0], stop, end, heart)
            else:
                for reason in _run_together(batchable, trials, together, stop, end, heart):
                    once(reason)
            if any(outcome.about.get(AWAY) for outcome in outcomes):
                continue  # to be taken again, once the database is back
            if any(outcome.state == "interrupted" for outcome in outcomes):
                break
            hopeful = hopeful or _hopeful(roster, failed, objective)
        return "interrupted"
    finally:
        roster.leave()


End = Callable[[optuna.Trial, Outcome], None]


def _run(
    objective: Objective,
    trial: optuna.Trial,
    stop: Callable[[], bool],
    end: End,
    heart: AbstractContextManager[None],
) -> None:
    """Run a trial."""
    with heart, CtrlC() as ctrl_c, _reporting_again():
        outcome = _outcome(partial(objective, trial, stop))
    # a training within the trial was ended, and what it came to is not the trial's
    end(trial, Outcome("interrupted") if ctrl_c.cut else outcome)


def _run_together(
    objective: Batchable,
    trials: Sequence[optuna.Trial],
    size: int,
    stop: Callable[[], bool],
    end: End,
    heart: AbstractContextManager[None],
) -> list[str]:
    """Run several trials; why some of them were trained by themselves."""
    with heart, CtrlC(terminable=True, threads=True) as ctrl_c, _reporting_again():

        def ended(trial: optuna.Trial, outcome: Outcome) -> None:
            end(trial, Outcome("interrupted") if ctrl_c.pressed or ctrl_c.cut else outcome)

        return train_together(objective, trials, size, stop=stop, carry_out=_outcome, ended=ended)


@contextmanager
def _reporting_again() -> Iterator[None]:
    """Within this block a trial may report what its study knows, as one does that is run again."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The reported value is ignored because this")
        yield


def _outcome(trained: Callable[[], Outcome]) -> Outcome:
    """What a trial came to, whatever it raises."""
    try:
        outcome = trained()
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
def _heartbeat(roster: Roster, trials: Sequence[optuna.Trial], every: float) -> Iterator[None]:
    """Within this block a thread says again and again that the trials' worker lives."""
    done = threading.Event()
    counts = {trial: int(trial.user_attrs.get("stoker:beat", 0)) for trial in trials}

    def beat() -> None:
        while not done.wait(every):
            for trial in counts:
                counts[trial] += 1
                with suppress(Exception):  # a database that is away will hear the next one, a trial that is over none
                    roster.beat(trial, counts[trial])

    thread = threading.Thread(target=beat, name="stoker-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
