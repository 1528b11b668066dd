"""How a study is shown while it runs: a live table on a terminal, a line for each trial elsewhere, or nothing."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, TextIO, get_args

import optuna
from optuna.trial import FrozenTrial, TrialState

from stoker.errors import UnknownNameError
from stoker.training.progress import ProgressMode
from stoker.training.progress_text import duration, number
from stoker.tuning.study import REASON

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = ["best_of", "shown", "summary", "table", "trial_line"]

EVERY = 0.5
LISTED = 5


def best_of(trials: Sequence[FrozenTrial], direction: str) -> FrozenTrial | None:
    """The complete trial with the best value, the first of those that share it."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE and trial.value is not None]
    if not complete:
        return None
    sign = 1.0 if direction == "minimize" else -1.0
    return min(complete, key=lambda trial: (sign * float(trial.value or 0.0), trial.number))


def values_text(params: Mapping[str, Any]) -> str:
    """``lr 0.0012, batch_size 64``."""
    return ", ".join(f"{name} {number(value) if isinstance(value, float) else value}" for name, value in params.items())


def trial_line(trial: FrozenTrial, best: FrozenTrial | None) -> str:
    """One trial that is over, in a line."""
    epochs = f" after {len(trial.intermediate_values)} epochs" if trial.intermediate_values else ""
    how = {
        TrialState.COMPLETE: f"{number(trial.value)}{' (best so far)' if trial is best else ''}"
        if trial.value is not None
        else "",
        TrialState.PRUNED: f"pruned{epochs}",
        TrialState.FAIL: f"failed: {trial.user_attrs.get(REASON, 'for an unknown reason')}",
    }.get(trial.state, trial.state.name.lower())
    return f"trial {trial.number}: {how}; {values_text(trial.params)}"


def summary(trials: Sequence[FrozenTrial], total: int, direction: str, left: float | None) -> str:
    """How far a study is, in a line."""
    counts = Counter(trial.state for trial in trials)
    over = sum(trial.state.is_finished() for trial in trials)
    parts = [f"trials {over}/{total}"]
    names = {TrialState.RUNNING: "running", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
    parts += [f"{counts[state]} {name}" for state, name in names.items() if counts[state]]
    best = best_of(trials, direction)
    if best is not None and best.value is not None:
        parts.append(f"best {number(best.value)} (trial {best.number})")
    if left is not None and over < total:
        parts.append(f"about {duration(left)} left")
    return " · ".join(parts)


def table(trials: Sequence[FrozenTrial], total: int, direction: str, left: float | None = None) -> RenderableType:
    """The best trials, those that run, and how far the study is."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    sign = 1.0 if direction == "minimize" else -1.0
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE and trial.value is not None]
    complete.sort(key=lambda trial: (sign * float(trial.value or 0.0), trial.number))
    running = [trial for trial in trials if trial.state == TrialState.RUNNING]
    grid = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    grid.add_column("trial", justify="right")
    grid.add_column("value", justify="right")
    grid.add_column("epochs", justify="right")
    grid.add_column("parameters", overflow="fold")
    for place, trial in enumerate((*complete[:LISTED], *running)):
        value = number(trial.value) if trial.value is not None else "running"
        row = (str(trial.number), value, str(len(trial.intermediate_values) or ""), Text(values_text(trial.params)))
        grid.add_row(*row, style="bold" if place == 0 and complete else "dim" if trial.value is None else "")
    return Group(grid, Text(summary(trials, total, direction, left), style="cyan"))


def time_left(trials: Sequence[FrozenTrial], total: int, begun: datetime, now: datetime) -> float | None:
    """Seconds until the study is done, if it goes on as since ``begun``; ``None`` if nothing was done since."""
    done = sum(trial.datetime_complete is not None and trial.datetime_complete >= begun for trial in trials)
    over = sum(trial.state.is_finished() for trial in trials)
    return (now - begun).total_seconds() / done * (total - over) if done else None


@contextmanager
def shown(
    study: optuna.Study, total: int, mode: ProgressMode, *, stream: TextIO | None = None, every: float = EVERY
) -> Iterator[None]:
    """Show a study while the block runs, whoever runs its trials.

    Args:
        study: The study; it is looked at in a thread.
        total: How many trials there are to be.
        mode: See :func:`stoker.training.progress.progress_callback`.
        stream: Where to; standard error by default.
        every: Seconds between two looks.

    Raises:
        UnknownNameError: There is no such mode.
    """
    if mode not in get_args(ProgressMode):
        raise UnknownNameError("progress", str(mode), get_args(ProgressMode))
    out = stream or sys.stderr
    if mode == "none" or out is None:
        yield
        return
    console = _console(out)
    if mode == "auto":
        mode = "rich" if console.is_terminal and not console.is_dumb_terminal else "plain"
    done = threading.Event()
    direction = study.direction.name.lower()
    begun = datetime.now()  # as Optuna notes times
    view = _Live(console) if mode == "rich" else _Lines(console)

    def look() -> None:
        with suppress(Exception):  # a database that is away, a broken pipe: no reason to stop
            trials = study.get_trials(deepcopy=False)
            view.update(trials, total, direction, time_left(trials, total, begun, datetime.now()))

    def watch() -> None:
        look()
        while not done.wait(every):
            look()

    thread = threading.Thread(target=watch, name="stoker-study-display", daemon=True)
    with suppress(Exception):
        view.open(study)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        look()
        with suppress(Exception):
            view.close()


def _console(out: TextIO) -> Console:
    from rich.console import Console

    class Quiet(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # rich would end the program

    return Quiet(file=out, highlight=False, markup=False, emoji=False)


class _Live:
    """A table that is drawn anew."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        self._live = Live(console=console, auto_refresh=False)

    def open(self, study: optuna.Study) -> None:  # noqa: ARG002
        self._live.start()

    def update(self, trials: Sequence[FrozenTrial], total: int, direction: str, left: float | None) -> None:
        self._live.update(table(trials, total, direction, left), refresh=True)

    def close(self) -> None:
        self._live.stop()


class _Lines:
    """A line for each trial that ends, and now and then one that says how far the study is."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._told: set[int] = set()
        self._clock = clock
        self._spoke = clock()

    def open(self, study: optuna.Study) -> None:
        with suppress(Exception):
            self._told = {trial.number for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()}

    def update(self, trials: Sequence[FrozenTrial], total: int, direction: str, left: float | None) -> None:
        best = best_of(trials, direction)
        new = [trial for trial in trials if trial.state.is_finished() and trial.number not in self._told]
        for trial in new:
            self._told.add(trial.number)
            self._console.print(trial_line(trial, best), soft_wrap=True)
        if new and self._clock() - self._spoke > 10:
            self._spoke = self._clock()
            self._console.print(summary(trials, total, direction, left), soft_wrap=True)

    def close(self) -> None: ...
