"""What is said of a training while it runs: which epochs get a row, what is in it, and how it fits the width there is.

Which epochs get a row: all of them, up to 40 epochs. Of more, the first three, every k-th (k the smallest of 5, 10, 20,
25, 50, 100, … that leaves at most 20), the last, and an improvement where no row was shown in the k/2 epochs before it:
at most 44 rows, however long the training. Every epoch is in the history all the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from stoker.training.callbacks import EpochProgress, FitPlan

if TYPE_CHECKING:
    from stoker.training.history import History, Row

__all__ = [
    "Book",
    "Column",
    "Entry",
    "bar",
    "clock_time",
    "duration",
    "ending",
    "engine_line",
    "is_shown",
    "live_line",
    "number",
    "plain_progress",
    "plain_row",
    "plan_columns",
    "row_interval",
    "seconds_left",
    "speed",
]

Piece: TypeAlias = tuple[str, str]  # a text and its style

MIN_BAR, MAX_BAR = 8, 40  # characters
GAP = "  "


def number(value: float, digits: int = 5, *, trim: bool = False) -> str:
    """So many significant digits, one less below 1: ``16.158``, ``0.4123``, ``0.00004123``, ``4.123e-7``.

    With ``trim`` without zeros at the end, as fits a number that somebody chose: ``0.01``.
    """
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(float(value))
    power = int(f"{value:.{digits - 1}e}".partition("e")[2])  # of the rounded value: 0.999999 counts as 1
    digits -= power < 0
    text = f"{value:.{max(digits - 1 - power, 0)}f}" if -5 <= power < 6 else f"{value:.{digits - 1}e}"
    mantissa, e, exponent = text.partition("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if trim and "." in mantissa else mantissa
    return f"{mantissa}e{int(exponent)}" if e else mantissa


def duration(seconds: float) -> str:
    """``4ms``, ``0.12s``, ``12.3s``, and from a minute on as :func:`clock_time`."""
    if seconds < 0.0095:
        return f"{max(seconds, 0.0) * 1000:.0f}ms"
    return clock_time(seconds) if seconds >= 59.95 else f"{seconds:.{2 if seconds < 0.995 else 1}f}s"


def clock_time(seconds: float) -> str:
    """``0:07``, ``1:20``, ``2:03:04``."""
    minutes, rest = divmod(round(max(seconds, 0.0)), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def speed(steps: int, seconds: float, plan: FitPlan) -> str:
    """``4.12k samples/s`` where the size of an epoch is known, else ``129 steps/s``; empty if nothing was timed."""
    if steps < 1 or seconds <= 0:
        return ""
    rate, noun = steps / seconds, "steps"
    if plan.rows and plan.steps_per_epoch:
        rate, noun = rate * plan.rows / plan.steps_per_epoch, "samples"
    unit, size = next(((u, s) for u, s in (("G", 1e9), ("M", 1e6), ("k", 1e3)) if rate >= 0.9995 * s), ("", 1.0))
    return f"{rate / size:.3g}{unit} {noun}/s"


def seconds_left(epochs: int, finished: Sequence[float], spent: float, fraction: float | None) -> float | None:
    """How long the training will still take; ``None`` if nothing is known yet.

    ``epochs`` are left; the current one began ``spent`` seconds ago and made ``fraction`` of its steps, if known.
    Of the seconds that the ``finished`` ones took the last ten count; the first, a warm-up, only while it is alone.
    """
    known = finished[1:][-10:] or finished
    if epochs < 1 or not (known or fraction):
        return 0.0 if epochs < 1 else None
    epoch = sum(known) / len(known) if known else spent / (fraction or 1)
    current = max(epoch - spent, 0.0)
    if fraction and fraction > 0.05:  # before that, it says little
        current = max(current, spent * (1 - fraction) / fraction)
    return current + (epochs - 1) * epoch


def row_interval(epochs: int) -> int:
    """Every how many epochs there is a row; the rule is at the top of this module."""
    round_numbers = (int(k * 10**power) for power in range(1, 20) for k in (0.5, 1, 2, 2.5))
    return 1 if epochs <= 40 else next(k for k in round_numbers if epochs <= 20 * k)


def is_shown(epoch: int, is_best: bool, shown: int, plan: FitPlan) -> bool:
    """Whether an epoch gets a row, ``shown`` being the last one that got one; the rule is at the top of this module."""
    interval = row_interval(plan.epochs - plan.first_epoch + 1)
    regular = epoch < plan.first_epoch + 3 or epoch == plan.epochs or epoch % interval == 0
    return regular or (is_best and epoch - shown >= interval / 2)


def ending(history: History, plan: FitPlan) -> str:
    """How a training ended, in words."""
    stopped, last = history.stopped, int(history.rows[-1]["epoch"]) if history.rows else plan.first_epoch - 1
    epoch = last + (stopped == "non-finite" or not history.rows)  # that one has no row
    where = f"epoch {epoch} of {plan.epochs} after {duration(history.seconds)}"
    kept = f"the weights of epoch {history.best_epoch}" if stopped == "non-finite" else "what was learnt so far"
    kept = kept if history.rows else "the weights it began with"
    best = ""
    if history.monitor in history.best:
        best = f"; best was epoch {history.best_epoch} ({history.monitor} {number(history.best[history.monitor])})"
    if stopped == "non-finite":
        return f"stopped in {where}: the loss was not finite; kept: {kept}"
    if stopped == "interrupted":
        return f"interrupted by Ctrl-C in {where}; kept: {kept}{best}"
    if stopped == "patience":
        return f"stopped early at {where}{best}"
    if stopped == "callback":
        return f"stopped by a callback at {where}{best}"
    if stopped == "running":  # an error is on its way, or SIGTERM
        return f"cut short in epoch {last + 1} of {plan.epochs} after {duration(history.seconds)}{best}"
    return f"{'finished' if stopped == 'finished' and last == plan.epochs else 'ended at'} {where}{best}"


def engine_line(history: History) -> str:
    """What made the steps, and why, in one line: ``engine eager: a hook on layers.0``; empty if nobody knows."""
    return f"engine {' '.join(history.engine.split())}" if history.engine and history.rows else ""


@dataclass(frozen=True)
class Entry:
    """An epoch that has ended: its row, how many seconds it took, and whether it was the best so far."""

    row: Row
    seconds: float
    is_best: bool


def plain_row(entry: Entry, plan: FitPlan) -> str:
    """An epoch as one line: ``epoch 3/20  train_loss 0.4123  valid_loss 0.4301  lr 0.01  1.2s  best``."""
    names = [name for name in entry.row if name not in {"epoch", "step", "lr"}]
    parts = [f"epoch {int(entry.row['epoch'])}/{plan.epochs}", *(f"{name} {number(entry.row[name])}" for name in names)]
    parts += [f"lr {number(entry.row['lr'], 4, trim=True)}", duration(entry.seconds)]
    return GAP.join([*parts, "best"] if entry.is_best else parts)


@dataclass(frozen=True)
class Column:
    """A column of the table: a row's key (or ``time``), what stands above it, its width, and its usual decimals."""

    key: str
    header: str
    width: int
    decimals: int

    def cell(self, entry: Entry) -> str:
        """An epoch's text, its decimal point below those of the other epochs where there is room."""
        value = entry.row.get(self.key, math.nan)
        if self.key in {"epoch", "time"}:
            text = str(int(value)) if self.key == "epoch" else duration(entry.seconds)
        else:
            text = number(value, 4, trim=True) if self.key == "lr" else number(value)
        padding = min(self.decimals - len(text.partition(".")[2]), self.width - len(text)) if "." in text else 0
        return (text + " " * padding).rjust(self.width)


def plan_columns(row: Row, plan: FitPlan, width: int, with_lr: bool) -> list[Column]:
    """Choose the columns that fit into ``width`` characters, the most important first."""
    metrics = [name for name in row if name.startswith("valid_") and name not in {"valid_loss", plan.monitor}]
    # What only repeats the loss (mse beside a squared loss) is the first to go.
    metrics.sort(key=lambda name: math.isclose(row[name], row.get("valid_loss", math.nan), rel_tol=1e-4))
    monitored = [plan.monitor] if plan.monitor is not None and plan.monitor != "valid_loss" else []
    lr = ["lr"] if with_lr else []
    chosen: dict[str, Column] = {}
    for key in ("epoch", *monitored, "train_loss", "valid_loss", "time", *lr, *metrics):
        if key in row or key == "time":
            name = key if key == "valid_loss" else key.removeprefix("valid_")
            header = name.replace("_accuracy", "_acc").replace("_", " ")[:14]
            least = {"epoch": len(str(plan.epochs)), "time": 6, "lr": 9}.get(key, 7)
            decimals = 0 if key in {"epoch", "time", "lr"} else max(4, len(number(row[key]).partition(".")[2]))
            column = Column(key, header, max(least, len(header)), decimals)
            if sum(len(GAP) + other.width for other in chosen.values()) + column.width <= width:
                chosen[key] = column
    order = ("epoch", "train_loss", "valid_loss", *monitored, *metrics, *lr, "time")
    return [chosen[key] for key in order if key in chosen]


@dataclass
class Book:
    """What is known of a training that runs; times are seconds of the caller's clock."""

    plan: FitPlan
    started: float
    began: float  # when the current epoch began
    finished: list[Entry] = field(default_factory=list)
    shown: int = 0  # the last epoch that got a row

    def pace(self, steps: int, now: float) -> tuple[float | None, str, str]:
        """After so many steps: how much of the epoch (of all, if epochs are short) is done, how fast, how long yet."""
        total, spent = self.plan.steps_per_epoch, now - self.began
        epochs, seconds = self.plan.epochs - self.plan.first_epoch + 1, [entry.seconds for entry in self.finished]
        fraction = min(steps / total, 1.0) if total else None
        left = seconds_left(epochs - len(seconds), seconds, spent, fraction)
        if seconds and not steps:  # nothing was heard of this epoch yet: the one before tells the speed
            steps, spent = total or 0, seconds[-1]
        if seconds and seconds[-1] < 1:
            fraction = (len(seconds) + (fraction or 0)) / epochs
        return fraction, speed(steps, spent, self.plan), "" if left is None else f"{clock_time(left)} left"


def plain_progress(book: Book, progress: EpochProgress, now: float) -> str:
    """A point within an epoch as one line: ``epoch 3/20  1200/5000 steps  loss 0.4123  4.12k samples/s  1:20 left``."""
    total = f"/{book.plan.steps_per_epoch}" if book.plan.steps_per_epoch else ""
    place = f"epoch {progress.epoch}/{book.plan.epochs}{GAP}{progress.steps}{total} steps"
    return GAP.join(filter(None, (place, f"loss {number(progress.loss)}", *book.pace(progress.steps, now)[1:])))


def bar(fraction: float | None, width: int, seconds: float, is_unicode: bool) -> tuple[Piece, ...]:
    """A bar as pieces; where ``fraction`` is not known, a block that goes back and forth in time."""
    full, empty = ("━", "─") if is_unicode else ("#", "-")
    if fraction is not None:
        return (full * (done := int(width * fraction)), "cyan"), (empty * (width - done), "dim")
    free = width - width // 4
    before = free - abs(free - int(seconds * 10) % (2 * free))
    return (empty * before, "dim"), (full * (width // 4), "cyan"), (empty * (free - before), "dim")


def live_line(book: Book, progress: EpochProgress, now: float, width: int, is_unicode: bool) -> list[Piece]:
    """The live line as pieces: a bar over the epoch's steps, and what else fits."""
    total, seconds = str(book.plan.epochs), now - book.started
    fraction, rate, left = book.pace(progress.steps, now)
    parts = {  # in order of place; the number is the rank, of the greatest the first to go
        0: (f"{'epoch ' if width >= 60 else ''}{progress.epoch:>{len(total)}}/{total}", "bold"),
        3: (" " * MIN_BAR, ""),
        4: (f"{progress.steps:,} steps" if fraction is None else "", ""),
        1: (f"loss {number(progress.loss):<6}", "" if math.isfinite(progress.loss) else "bold red"),
        6: (f"lr {number(progress.lr, 4, trim=True)}", ""),
        5: (rate, ""),
        7: (clock_time(seconds), ""),
        2: (left, ""),
    }
    parts = {rank: part for rank, part in parts.items() if part[0]}
    while (spare := width + len(GAP) - sum(len(text + GAP) for text, _ in parts.values())) < 0 and len(parts) > 1:
        del parts[max(parts)]
    pieces: list[Piece] = []
    for rank, part in parts.items():
        pieces += bar(fraction, min(MIN_BAR + spare, MAX_BAR), seconds, is_unicode) if rank == 3 else [part]
        pieces.append((GAP, ""))
    return pieces[:-1]
