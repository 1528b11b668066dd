"""How a training is shown while it runs: a live display on a terminal, plain lines elsewhere, or nothing.

Which epochs get a row: all of them, up to 40 epochs. Of more, the first three, every k-th (k the smallest of 5, 10, 20,
25, 50, 100, … that leaves at most 20), the last, and an improvement where no row was shown in the k/2 epochs before it:
at most 44 rows, however long the training. Every epoch is in the history all the same.
"""

from __future__ import annotations

import math
import os
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, Literal, TextIO, TypeAlias, cast, get_args

from stoker.errors import UnknownNameError
from stoker.training.callbacks import Callback, EpochProgress, FitPlan

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.live import Live
    from rich.text import Text

    from stoker.training.history import History, Row

__all__ = ["ProgressMode", "progress_callback"]

ProgressMode: TypeAlias = Literal["auto", "rich", "plain", "none"]

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
        stream: Where to; standard error by default, so that standard output stays free for results. If it breaks (a
            closed pipe), the display falls silent and the training goes on.
        clock: Tells seconds.

    Raises:
        UnknownNameError: There is no such mode.
    """
    if mode not in get_args(ProgressMode):
        raise UnknownNameError("progress", str(mode), get_args(ProgressMode))
    out = cast("TextIO | None", sys.stderr) if stream is None else stream
    if mode == "none" or out is None:  # a program without a console has no standard error
        return Callback()
    if mode == "auto":
        mode = "rich" if _can_be_live(out) else "plain"
    return (_RichProgress if mode == "rich" else _PlainProgress)(_Outlet(out), clock)


def number(value: float, *, trim: bool = False) -> str:
    """Five significant digits, four below 1: ``16.158``, ``0.4123``, ``0.00004123``, ``4.123e-7``.

    Args:
        value: What to show.
        trim: Leave out the zeros at the end, as in a number that somebody chose: ``0.01``.
    """
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(float(value))
    power = int(f"{value:.4e}".partition("e")[2])  # of the rounded value: 0.999999 counts as 1
    digits = 5 if power >= 0 else 4
    if -5 <= power < 6:
        mantissa, e, exponent = f"{value:.{max(digits - 1 - power, 0)}f}", "", ""
    else:
        mantissa, e, exponent = f"{value:.{digits - 1}e}".partition("e")
        exponent = str(int(exponent))
    return (mantissa.rstrip("0").rstrip(".") if trim and "." in mantissa else mantissa) + e + exponent


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
    """``4.12k samples/s`` where the size of an epoch is known, else ``129 steps/s``; empty if nothing was timed."""
    if steps < 1 or seconds <= 0:
        return ""
    known = plan.rows and plan.steps_per_epoch
    rate = steps / seconds * (plan.rows / plan.steps_per_epoch if plan.rows and plan.steps_per_epoch else 1)
    unit, size = next(((u, s) for u, s in (("G", 1e9), ("M", 1e6), ("k", 1e3)) if rate >= 0.9995 * s), ("", 1.0))
    return f"{rate / size:.3g}{unit} {'samples' if known else 'steps'}/s"


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
    round_numbers = (k * 10**power for power in range(1, 20) for k in (0.5, 1, 2, 2.5))
    return 1 if epochs <= 40 else next(int(k) for k in round_numbers if epochs <= 20 * k)


def is_shown(epoch: int, is_best: bool, shown: int, plan: FitPlan) -> bool:
    """Whether an epoch gets a row, ``shown`` being the last one that got one; the rule is at the top of this module."""
    interval = row_interval(plan.epochs - plan.first_epoch + 1)
    regular = epoch < plan.first_epoch + 3 or epoch == plan.epochs or epoch % interval == 0
    return regular or (is_best and epoch - shown >= interval / 2)


def ending(history: History, plan: FitPlan) -> str:
    """How a training ended, in words."""
    last = int(history.rows[-1]["epoch"]) if history.rows else plan.first_epoch - 1
    after, best = f" after {duration(history.seconds)}", ""
    if history.monitor is not None and history.best:
        value = number(history.best.get(history.monitor, math.nan))
        best = f"; best was epoch {history.best_epoch} ({history.monitor} {value})"
    if history.stopped == "non-finite":
        kept = f"the weights of epoch {history.best_epoch}" if history.rows else "the weights it began with"
        return f"stopped in epoch {last + 1} of {plan.epochs}{after}: the loss was not finite; kept are {kept}"
    if history.stopped == "interrupted":
        where = f"in epoch {last} of {plan.epochs}" if history.rows else "before the first step"
        kept = "what was learnt is kept" if history.rows else "the model is as it was"
        return f"interrupted by Ctrl-C {where}{after}; {kept}{best}"
    if history.stopped == "patience":
        return f"stopped early at epoch {last} of {plan.epochs}{after}{best}"
    if history.stopped == "finished" and last == plan.epochs:
        return f"finished{after}{best}"
    # An error is on its way, or a callback asked to stop: the history does not say which.
    return f"ended {f'at epoch {last}' if history.rows else 'before the first epoch was over,'} of {plan.epochs}{after}{best}"


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
    parts += [f"lr {number(entry.row['lr'], trim=True)}", duration(entry.seconds)]
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
        if self.key == "time":
            text = duration(entry.seconds)
        elif self.key == "epoch":
            text = str(int(value))
        else:
            text = number(value, trim=self.key == "lr")
            spare = self.decimals - len(text.partition(".")[2]) if "." in text and self.key != "lr" else 0
            text += " " * min(spare, self.width - len(text))
        return text.rjust(self.width)


def plan_columns(row: Row, plan: FitPlan, width: int, with_lr: bool) -> list[Column]:
    """Choose the columns that fit into ``width`` characters, the most important first."""
    metrics = [name for name in row if name.startswith("valid_") and name not in {"valid_loss", plan.monitor}]
    # What only repeats the loss (mse beside a squared loss) is the first to go.
    metrics.sort(key=lambda name: math.isclose(row[name], row.get("valid_loss", math.nan), rel_tol=1e-4))
    monitored = [plan.monitor] if plan.monitor not in {None, "valid_loss"} else []
    lr = ["lr"] if with_lr else []
    chosen: dict[str, Column] = {}
    for key in ("epoch", *monitored, "train_loss", "valid_loss", "time", *lr, *metrics):
        if key is None or (key not in row and key != "time"):
            continue
        name = key if key == "valid_loss" else key.removeprefix("valid_")
        header = name.replace("_accuracy", "_acc").replace("_", " ")[:14]
        decimals = len(number(row.get(key, 0.0)).partition(".")[2].partition("e")[0])
        least = {"epoch": len(str(plan.epochs)), "time": 6}.get(key, 7)
        column = Column(key, header, max(least, len(header)), max(decimals, 4))
        if sum(other.width + len(GAP) for other in chosen.values()) + column.width <= width:
            chosen[key] = column
    order = ("epoch", "train_loss", "valid_loss", *monitored, *metrics, *lr, "time")
    return [chosen[key] for key in order if key in chosen]


@dataclass
class Book:
    """What is known of a training that runs; times are seconds of the caller's clock."""

    plan: FitPlan
    started: float
    began: float  # when the current epoch began
    finished: list[float] = field(default_factory=list)  # how long each finished epoch took
    last: EpochProgress | None = None  # what was heard last
    shown: int = 0  # the last epoch that got a row
    skipped: Entry | None = None  # the epoch just ended, if it got none

    @property
    def epochs(self) -> int:
        """How many epochs are not finished, the current one included."""
        return self.plan.epochs - self.plan.first_epoch + 1 - len(self.finished)

    @property
    def fraction(self) -> float | None:
        """How much of the current epoch is done, if its number of steps is known."""
        steps = self.last.steps if self.last is not None else 0
        return min(steps / self.plan.steps_per_epoch, 1.0) if self.plan.steps_per_epoch else None

    def end_epoch(self, row: Row, is_best: bool, now: float) -> Entry:
        """Note that an epoch has ended."""
        entry = Entry(row, now - self.began, is_best and self.plan.monitor is not None)
        self.finished.append(entry.seconds)
        self.began = now
        self.last = EpochProgress(int(row["epoch"]) + 1, 0, row["train_loss"], row["lr"])
        return entry

    def speed(self, now: float) -> str:
        """Of the current epoch; of the one before, until steps of this one were heard of."""
        if self.finished and self.last is not None and not self.last.steps:
            return speed(self.plan.steps_per_epoch or 0, self.finished[-1], self.plan)
        return speed(self.last.steps if self.last is not None else 0, now - self.began, self.plan)

    def left(self, now: float) -> str:
        """How long the training will still take; empty if nothing is known yet."""
        left = seconds_left(self.epochs, self.finished, now - self.began, self.fraction)
        return "" if left is None else f"{clock_time(left)} left"


def plain_progress(book: Book, progress: EpochProgress, now: float) -> str:
    """A point within an epoch as one line: ``epoch 3/20  1200/5000 steps  loss 0.4123  4.12k samples/s  1:20 left``."""
    total = f"/{book.plan.steps_per_epoch}" if book.plan.steps_per_epoch else ""
    place = [f"epoch {progress.epoch}/{book.plan.epochs}", f"{progress.steps}{total} steps"]
    return GAP.join(filter(None, [*place, f"loss {number(progress.loss)}", book.speed(now), book.left(now)]))


Part: TypeAlias = tuple[int, str, str]
"""A part of the live line: its rank (of the greatest, the first to go), its text (the bar has none), its style."""


def live_parts(book: Book, progress: EpochProgress, now: float, width: int) -> tuple[list[Part], int]:
    """The parts of the live line that fit into ``width`` characters, and the length of its bar."""
    total = str(book.plan.epochs)
    label = f"{'epoch ' if width >= 60 else ''}{progress.epoch:>{len(total)}}/{total}"
    steps = "" if book.plan.steps_per_epoch else f"{progress.steps:,} steps"
    candidates = (
        (0, label, "bold"),
        (4, steps, ""),
        (1, f"loss {number(progress.loss):<6}", "" if math.isfinite(progress.loss) else "bold red"),
        (6, f"lr {number(progress.lr, trim=True)}", ""),
        (5, book.speed(now), ""),
        (7, clock_time(now - book.started), ""),
        (2, book.left(now), ""),
    )
    parts: list[Part] = [part for part in candidates if part[1]]
    parts.insert(1, (3, "", ""))

    def taken() -> int:
        return sum(len(text) or MIN_BAR for _, text, _ in parts) + len(GAP) * (len(parts) - 1)

    while len(parts) > 1 and taken() > width:
        parts.remove(max(parts))
    return parts, min(MIN_BAR + width - taken(), MAX_BAR)


class _Outlet:
    """A stream that falls silent when it breaks."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.encoding = getattr(stream, "encoding", None) or "utf-8"
        self.is_broken = False

    def write(self, text: str) -> int:
        if not self.is_broken:
            try:
                self.stream.write(text.encode(self.encoding, "replace").decode(self.encoding))
            except Exception:  # whatever it is, it is not worth a training
                self.is_broken = True
        return len(text)

    def flush(self) -> None:
        if not self.is_broken:
            try:
                self.stream.flush()
            except Exception:
                self.is_broken = True


class _Display(Callback):
    """What both displays have in common: which epochs are shown, and when."""

    def __init__(self, out: _Outlet, clock: Callable[[], float]) -> None:
        self._out = out
        self._clock = clock
        self._book: Book | None = None

    def on_fit_start(self, plan: FitPlan) -> None:
        now = self._clock()
        self._book = Book(plan, now, now)
        self._open(self._book)

    def on_progress(self, progress: EpochProgress) -> None:
        if self._book is not None:
            self._book.last = progress
            self._tick(self._book, progress, self._clock())

    def on_epoch_end(self, row: Row, is_best: bool) -> None:
        if (book := self._book) is None:
            return
        now, epoch = self._clock(), int(row["epoch"])
        book.skipped = entry = book.end_epoch(row, is_best, now)
        if is_shown(epoch, entry.is_best, book.shown, book.plan) or self._is_due(now):
            book.shown, book.skipped = epoch, None
            self._show(book, entry)
        if book.epochs and book.last is not None:
            self._tick(book, book.last, now)

    def on_fit_end(self, history: History) -> None:
        book, self._book = self._book, None
        if book is not None:
            if book.skipped is not None:
                self._show(book, book.skipped)
            self._close(book, ending(history, book.plan))

    def _is_due(self, now: float) -> bool:
        return False

    def _open(self, book: Book) -> None: ...
    def _show(self, book: Book, entry: Entry) -> None: ...
    def _tick(self, book: Book, progress: EpochProgress, now: float) -> None: ...
    def _close(self, book: Book, words: str) -> None: ...


class _PlainProgress(_Display):
    """A line per shown epoch, and one every ten seconds."""

    def _open(self, book: Book) -> None:
        self._spoke = book.started

    def _say(self, line: str) -> None:
        self._out.write(line + "\n")
        self._out.flush()
        self._spoke = self._clock()

    def _is_due(self, now: float) -> bool:
        return now - self._spoke >= LINE_EVERY

    def _show(self, book: Book, entry: Entry) -> None:
        self._say(plain_row(entry, book.plan))

    def _tick(self, book: Book, progress: EpochProgress, now: float) -> None:
        if progress.steps and self._is_due(now):
            self._say(plain_progress(book, progress, now))

    def _close(self, book: Book, words: str) -> None:
        self._say(words)


class _LiveArea:
    """What is redrawn below the permanent lines: rows that are held back, and the live line."""

    def __init__(self) -> None:
        self.rows: list[Text] = []
        self.line: list[RenderableType] = []

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        yield from self.rows
        yield from self.line


class _RichProgress(_Display):
    """A table whose rows scroll up as permanent lines, and one live line below it.

    The first row stays in the live area until the second is there: by then it shows whether the learning rate moves,
    and so whether the table needs a column for it. If it moves only later, the table goes on under a new header.
    """

    def _open(self, book: Book) -> None:
        from rich.console import Console

        # While the display is live, what the user's code prints goes through this console, and shall pass unchanged.
        self._console = Console(
            file=cast("IO[str]", self._out), force_terminal=True, markup=False, highlight=False, emoji=False, soft_wrap=True
        )
        self._area = _LiveArea()
        self._columns: list[Column] = []
        self._held: list[Entry] = []
        self._lrs: set[float] = set()
        self._due = book.started + LIVE_AFTER
        self._stop: Callable[[], object] | None = None

    def _show(self, book: Book, entry: Entry) -> None:
        self._held.append(entry)
        self._lrs.add(entry.row["lr"])
        self._area.rows = [] if self._columns or len(self._held) > 1 else self._table(book)
        if not self._area.rows:
            self._print_held(book)

    def _print_held(self, book: Book) -> None:
        for line in self._table(book):
            self._console.print(line, soft_wrap=False, no_wrap=True, overflow="crop", crop=True)
        self._held.clear()

