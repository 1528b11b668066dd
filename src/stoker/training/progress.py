"""How a training is shown while it runs: a live display on a terminal, plain lines elsewhere, or nothing.

Which epochs get a row: all of them, up to :data:`ROWS` epochs. Of more, the first three, every k-th (k the smallest of
2, 5, 10, 20, 25, 50, 100, … that leaves at most 20), the last, and an improvement where no row was shown in the k/2
epochs before it: at most 44 rows, however long the training. Every epoch is in the history all the same.
"""

from __future__ import annotations

import math
import os
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Literal, TextIO, TypeAlias, cast, get_args

from stoker.errors import UnknownNameError
from stoker.training.callbacks import Callback, EpochProgress, FitPlan

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.live import Live
    from rich.text import Text

    from stoker.training.history import History, Row

__all__ = ["ProgressMode", "progress_callback"]

ProgressMode: TypeAlias = Literal["auto", "rich", "plain", "none"]

ROWS = 40  # more epochs than this are thinned out
LIVE_AFTER = 0.5  # seconds; what is over sooner needs no live display
REDRAW_EVERY = 0.08  # seconds between redraws of the live display, at least
LINE_EVERY = 10.0  # seconds between plain lines, at most
MIN_BAR, MAX_BAR = 8, 40  # characters
GAP = "  "


def progress_callback(
    mode: ProgressMode = "auto", *, stream: TextIO | None = None, clock: Callable[[], float] = time.perf_counter
) -> Callback:
    """What shows a training while it runs.

    Args:
        mode: ``"rich"``: a growing table of epochs, and below it one live line. ``"plain"``: a line per epoch, and one
            every ten seconds within a long epoch. ``"none"``: nothing. ``"auto"``: rich if ``stream`` is a terminal
            that can move its cursor and no other live display is on it, else plain.
        stream: Where to; standard error by default, so that standard output stays free for results. When it breaks (a
            closed pipe), the display falls silent and the training goes on.
        clock: Tells seconds.

    Raises:
        UnknownNameError: There is no such mode.
    """
    if mode not in get_args(ProgressMode):
        raise UnknownNameError("progress", str(mode), get_args(ProgressMode))
    stream = sys.stderr if stream is None else stream
    if mode == "none" or stream is None:  # a program without a console has no standard error
        return Callback()
    if mode == "auto":
        mode = "rich" if _can_be_live(stream) else "plain"
    return (_RichProgress if mode == "rich" else _PlainProgress)(_Outlet(stream), clock)


# --- texts -----------------------------------------------------------------------------------------------------------


def number(value: float) -> str:
    """Four significant digits below 1, five from there on: ``0.4123``, ``16.158``, ``0.00001000``, ``1.234e-7``."""
    if not math.isfinite(value):
        return str(float(value))
    if value == 0:
        return "0"
    power = int(f"{value:.4e}".partition("e")[2])  # of the rounded value: 0.99999 counts as 1
    digits = 5 if power >= 0 else 4
    if -5 <= power < 6:
        return f"{value:.{max(digits - 1 - power, 0)}f}"
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def setting(value: float) -> str:
    """A number that somebody chose, without the zeros at its end: ``0.01``, ``0.00001``, ``3e-7``."""
    mantissa, e, exponent = number(value).partition("e")
    return (mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa) + e + exponent


def amount(value: float) -> str:
    """Three digits and a unit: ``412``, ``4.12k``, ``1.2M``."""
    unit, size = next(((u, s) for u, s in (("G", 1e9), ("M", 1e6), ("k", 1e3)) if value >= 0.9995 * s), ("", 1.0))
    return f"{value / size:.3g}{unit}"


def clock_time(seconds: float) -> str:
    """``0:07``, ``1:20``, ``2:03:04``."""
    minutes, rest = divmod(round(max(seconds, 0.0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def duration(seconds: float) -> str:
    """``4ms``, ``0.12s``, ``12.3s``, ``1:20``."""
    if seconds < 0.0095:
        return f"{max(seconds, 0.0) * 1000:.0f}ms"
    if seconds < 0.995:
        return f"{seconds:.2f}s"
    return f"{seconds:.1f}s" if seconds < 59.95 else clock_time(seconds)


def speed(steps: int, seconds: float, plan: FitPlan) -> str:
    """``4.12k samples/s`` where the size of an epoch is known, else ``129 steps/s``; empty before anything was timed."""
    if steps < 1 or seconds <= 0:
        return ""
    if plan.rows and plan.steps_per_epoch:
        return f"{amount(steps / seconds * plan.rows / plan.steps_per_epoch)} samples/s"
    return f"{amount(steps / seconds)} steps/s"


def opening(plan: FitPlan) -> str:
    """What is about to be trained, in words."""
    epochs = _count(plan.epochs - plan.first_epoch + 1, "epoch")
    which = f"epochs {plan.first_epoch} to {plan.epochs}" if plan.first_epoch > 1 else epochs
    steps = f" of {_count(plan.steps_per_epoch, 'step')}" if plan.steps_per_epoch else ""
    rows = f" ({_count(plan.rows, 'sample')})" if plan.rows else ""
    return f"training {_count(plan.parameters, 'parameter')} on {plan.device} ({plan.engine}): {which}{steps}{rows}"


def ending(history: History, plan: FitPlan) -> str:
    """How a training ended, in words."""
    last = int(history.rows[-1]["epoch"]) if history.rows else plan.first_epoch - 1
    after = f" after {duration(history.seconds)}"
    best = ""
    if history.monitor is not None and history.best:
        value = number(history.best.get(history.monitor, math.nan))
        best = f"; best was epoch {history.best_epoch} ({history.monitor} {value})"
    if history.stopped == "non-finite":
        kept = f"the weights of epoch {history.best_epoch}" if history.rows else "the weights it began with"
        return f"stopped in epoch {last + 1}: the loss was not finite{after}; the model is given back {kept}"
    if history.stopped == "interrupted":
        if not history.rows:
            return f"interrupted by Ctrl-C before the first step{after}; the model is as it was"
        return f"interrupted by Ctrl-C in epoch {last} of {plan.epochs}{after}; what it learnt is kept{best}"
    if history.stopped == "patience":
        return f"stopped early at epoch {last} of {plan.epochs}{after}{best}"
    if last == plan.epochs:
        return f"finished {_count(len(history.rows), 'epoch')} in {duration(history.seconds)}{best}"
    # an error is on its way, or a callback asked to stop: the history does not say which
    return f"ended {f'after epoch {last}' if history.rows else 'before its first epoch'} of {plan.epochs}{after}{best}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


# --- choices ---------------------------------------------------------------------------------------------------------


def row_interval(epochs: int) -> int:
    """Every how many epochs there is a row; see the top of this module."""
    if epochs <= ROWS:
        return 1
    power = 10 ** int(math.log10(epochs / 20))
    return next(k for k in (power, 2 * power, 5 * power // 2, 5 * power, 10 * power) if k > 1 and epochs <= 20 * k)


def is_shown(epoch: int, is_best: bool, shown: int, plan: FitPlan) -> bool:
    """Whether an epoch gets a row, ``shown`` being the last one that got one; see the top of this module."""
    interval = row_interval(plan.epochs - plan.first_epoch + 1)
    regular = epoch < plan.first_epoch + 3 or epoch == plan.epochs or epoch % interval == 0
    return regular or (is_best and plan.monitor is not None and epoch - shown >= interval / 2)


def seconds_left(epochs: int, finished: Sequence[float], spent: float, fraction: float | None) -> float | None:
    """How long the training will still take.

    Args:
        epochs: How many are not finished, the current one included.
        finished: How long each finished one took, in seconds. The last ten count; the first does not once there are
            others, because it warms up.
        spent: Seconds since the current one began.
        fraction: How much of its steps are made, in [0, 1], if known.

    Returns:
        Seconds; ``None`` if nothing is known yet.
    """
    if epochs < 1:
        return 0.0
    known = finished[1:][-10:] or finished
    if known:
        epoch = sum(known) / len(known)
    elif fraction:
        epoch = spent / fraction
    else:
        return None
    current = max(epoch - spent, 0.0)
    if fraction and fraction > 0.05:  # before that, a fluke
        current = max(current, spent * (1 - fraction) / fraction)
    return current + (epochs - 1) * epoch


@dataclass(frozen=True)
class Column:
    """A column of the table: a row's key (or ``time``), what stands above it, how wide it is, and its decimals."""

    key: str
    header: str
    width: int
    places: int = 0


def plan_columns(row: Row, plan: FitPlan, width: int, with_lr: bool) -> list[Column]:
    """Choose the columns that fit into ``width`` characters, those that matter most first."""
    from rich.cells import cell_len

    metrics = [name for name in row if name.startswith("valid_") and name not in {"valid_loss", plan.monitor}]
    # a loss of its own name again (mse beside a squared loss) is the first to go
    metrics.sort(key=lambda name: math.isclose(row[name], row.get("valid_loss", math.nan), rel_tol=1e-4))
    monitored = [] if plan.monitor in {None, "valid_loss"} else [cast(str, plan.monitor)]
    order = ["epoch", "train_loss", "valid_loss", *monitored, *metrics, *(["lr"] if with_lr else []), "time"]
    ranked = ["epoch", *monitored, "train_loss", "valid_loss", "time", *(["lr"] if with_lr else []), *metrics]
    chosen: dict[str, Column] = {}
    room = width - (2 if plan.monitor is not None else 0)  # for the mark
    for key in ranked:
        if key not in row and key != "time":
            continue
        header = key.removeprefix("valid_") if key not in {"valid_loss"} else key
        header = header.replace("_accuracy", "_acc").replace("_", " ")
        least = {"epoch": len(str(plan.epochs)), "time": 6, "lr": 8}.get(key, 7)
        is_number = key not in {"epoch", "time", "lr"}
        decimals = len(number(row[key]).partition(".")[2]) if is_number and abs(row[key]) >= 1e-5 else 4
        column = Column(key, header, max(least, min(cell_len(header), 14)), max(decimals, 4) if is_number else 0)
        if not chosen or column.width + len(GAP) <= room:
            chosen[key] = column
            room -= column.width + (len(GAP) if len(chosen) > 1 else 0)
    return [chosen[key] for key in order if key in chosen]


def cell(column: Column, entry: Entry) -> str:
    """A cell's text, its decimal point under those above it where there is room."""
    if column.key == "time":
        return duration(entry.seconds).rjust(column.width)
    value = entry.row.get(column.key, math.nan)
    if column.key in {"epoch", "lr"}:
        return setting(value).rjust(column.width) if column.key == "lr" else f"{int(value):>{column.width}}"
    text = number(value)
    if "." in text and "e" not in text:
        padding = column.places - len(text.partition(".")[2])
        text += " " * max(min(padding, column.width - len(text)), 0)
    return text.rjust(column.width)


@dataclass(frozen=True)
class Part:
    """A part of the live line; the one without a text is the bar. Of the greatest ``rank``, the first to go."""

    rank: int
    text: str
    style: str = ""


def live_parts(book: Book, now: float, width: int) -> tuple[list[Part], int]:
    """The parts of the live line that fit into ``width`` characters, and how long its bar is."""
    plan, progress = book.plan, book.progress
    total, left = str(plan.epochs), book.left(now)
    label = f"{'epoch ' if width >= 60 else ''}{book.epoch:>{len(total)}}/{total}"
    parts = [Part(0, label, "bold"), Part(3, "")]
    if plan.steps_per_epoch is None:
        parts.append(Part(4, f"{book.steps:,} steps"))
    if progress is not None:
        parts.append(Part(1, f"loss {number(progress.loss):<6}", "" if math.isfinite(progress.loss) else "bold red"))
        parts.append(Part(6, f"lr {setting(progress.lr)}", "dim"))
    if rate := book.speed(now):
        parts.append(Part(5, rate.rjust(15 if rate.endswith("samples/s") else 0)))
    parts.append(Part(7, clock_time(now - book.started), "dim"))
    if left is not None:
        parts.append(Part(2, f"{clock_time(left)} left"))
    while len(parts) > 1 and _width(parts) > width:
        parts.remove(max(parts, key=lambda part: part.rank))
    return parts, min(MIN_BAR + width - _width(parts), MAX_BAR)


def _width(parts: Sequence[Part]) -> int:
    return sum(len(part.text) or MIN_BAR for part in parts) + len(GAP) * (len(parts) - 1)


# --- what is remembered ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """An epoch that has ended: its row, how long it took, whether it was the best so far."""

    row: Row
    seconds: float
    best: bool

    def line(self, plan: FitPlan) -> str:
        """All of it as one plain line."""
        shown = {name: value for name, value in self.row.items() if name not in {"epoch", "step", "lr"}}
        parts = [f"epoch {int(self.row['epoch'])}/{plan.epochs}", *(f"{name} {number(shown[name])}" for name in shown)]
        parts += [f"lr {setting(self.row['lr'])}"] if "lr" in self.row else []
        return GAP.join([*parts, duration(self.seconds), *(["best"] if self.best else [])])


@dataclass
class Book:
    """What is known of a training that runs.

    Attributes:
        plan: What was announced.
        started: When, by the clock.
        began: When the current epoch did.
        finished: How many seconds each finished one took.
        progress: The last that was heard of the current epoch, or of the one before if nothing yet.
        shown: The last epoch that got a row.
        skipped: The last epoch, if it got none.
    """

    plan: FitPlan
    started: float
    began: float
    finished: list[float] = field(default_factory=list)
    progress: EpochProgress | None = None
    shown: int = 0
    skipped: Entry | None = None

    @property
    def epoch(self) -> int:
        """The current epoch."""
        return min(self.plan.first_epoch + len(self.finished), self.plan.epochs)

    @property
    def steps(self) -> int:
        """How many steps are made in it."""
        return self.progress.steps if self.progress is not None and self.progress.epoch == self.epoch else 0

    def end_epoch(self, row: Row, is_best: bool, now: float) -> Entry:
        """Note that an epoch has ended."""
        entry = Entry(row, now - self.began, is_best and self.plan.monitor is not None)
        self.finished.append(entry.seconds)
        self.began = now
        self.progress = EpochProgress(int(row["epoch"]), 0, row.get("train_loss", math.nan), row.get("lr", math.nan))
        return entry

    def speed(self, now: float) -> str:
        """See the function of that name; of the epoch before, until steps of this one are known."""
        if not self.steps and self.finished:
            return speed(self.plan.steps_per_epoch or 0, self.finished[-1], self.plan)
        return speed(self.steps, now - self.began, self.plan)

    def left(self, now: float) -> float | None:
        """See :func:`seconds_left`."""
        total = self.plan.steps_per_epoch
        epochs = self.plan.epochs - self.plan.first_epoch + 1 - len(self.finished)
        return seconds_left(epochs, self.finished, now - self.began, min(self.steps / total, 1.0) if total else None)
