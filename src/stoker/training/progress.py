"""How a training is shown while it runs: a live display on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import math
import os
import sys
import time
import weakref
from collections.abc import Callable, Sequence
from typing import IO, TYPE_CHECKING, Literal, TextIO, TypeAlias, cast, get_args

from stoker.errors import UnknownNameError
from stoker.training.callbacks import Callback, EpochProgress, FitPlan
from stoker.training.progress_text import (
    GAP,
    Book,
    Column,
    Entry,
    Piece,
    ending,
    engine_line,
    is_shown,
    live_line,
    plain_progress,
    plain_row,
    plan_columns,
)

if TYPE_CHECKING:
    from rich.live import Live

    from stoker.training.history import History, Row

__all__ = ["ProgressMode", "progress_callback"]

ProgressMode: TypeAlias = Literal["auto", "rich", "plain", "none"]

LIVE_AFTER = 0.5  # seconds; what is over sooner needs no live display
REDRAW_EVERY = 0.08  # seconds between redraws of the live display, at least
LINE_EVERY = 10.0  # seconds between plain lines, at most


def progress_callback(
    mode: ProgressMode = "auto",
    *,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.perf_counter,
    engine: bool = True,
) -> Callback:
    """What shows a training while it runs.

    Args:
        mode: ``"rich"``: a growing table of epochs, and below it one live line. ``"plain"``: a line per epoch, and one
            every ten seconds within a long epoch. ``"none"``: nothing. ``"auto"``: rich if ``stream`` is a terminal
            that can move its cursor and no other live display is on it, else plain.
        stream: Where to; standard error by default, so that standard output stays free for results. If it breaks (a
            closed pipe), the display falls silent and the training goes on.
        clock: Tells seconds.
        engine: Whether it says in the end what made the steps, and why; not where a summary does.

    Raises:
        UnknownNameError: There is no such mode.
    """
    if mode not in get_args(ProgressMode):
        raise UnknownNameError("progress", str(mode), get_args(ProgressMode))
    out = cast("TextIO | None", sys.stderr) if stream is None else stream
    if mode == "none" or out is None:  # a program without a console has no standard error
        return Callback()
    if mode == "auto":
        is_free = _is_terminal(out) and not hasattr(out, "rich_proxied_file")  # no other live display is on it
        mode = "rich" if is_free and os.environ.get("TERM", "").lower() not in {"dumb", "unknown"} else "plain"
    return (_RichProgress if mode == "rich" else _PlainProgress)(_Outlet(out), clock, engine)


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
                self.stream.flush()
            except Exception:  # whatever it is, it is not worth a training
                self.is_broken = True
        return len(text)

    def flush(self) -> None: ...  # done by write


class _Display(Callback):
    """What both displays have in common: when something begins, and which epochs are shown."""

    def __init__(self, out: _Outlet, clock: Callable[[], float], engine: bool) -> None:
        self._out = out
        self._clock = clock
        self._engine = engine
        self._book: Book | None = None

    def on_fit_start(self, plan: FitPlan) -> None:
        now = self._clock()
        self._book = Book(plan, now, now)
        self._open(self._book)

    def on_progress(self, progress: EpochProgress) -> None:
        if self._book is not None:
            self._tick(self._book, progress, self._clock())

    def on_epoch_end(self, row: Row, is_best: bool) -> None:
        if (book := self._book) is not None:
            now, epoch = self._clock(), int(row["epoch"])
            entry = Entry(row, now - book.began, is_best and book.plan.monitor is not None)
            book.finished.append(entry)
            book.began = now
            if is_shown(epoch, entry.is_best, book.shown, book.plan):
                book.shown = epoch
                self._show(book, entry)
            if epoch < book.plan.epochs:
                self._tick(book, EpochProgress(epoch + 1, 0, row["train_loss"], row["lr"]), now)

    def on_fit_end(self, history: History) -> None:
        book, self._book = self._book, None
        if book is not None:
            if book.finished and book.finished[-1].row["epoch"] != book.shown:
                self._show(book, book.finished[-1])
            made = engine_line(history) if self._engine else ""
            self._close(book, history, [made] if made else [])

    def _open(self, book: Book) -> None: ...
    def _show(self, book: Book, entry: Entry) -> None: ...
    def _tick(self, book: Book, progress: EpochProgress, now: float) -> None: ...
    def _close(self, book: Book, history: History, remarks: Sequence[str]) -> None: ...


class _PlainProgress(_Display):
    """A line per shown epoch, and one every ten seconds."""

    def _open(self, book: Book) -> None:
        self._spoke = book.started

    def _say(self, line: str) -> None:
        self._out.write(line + "\n")
        self._spoke = self._clock()

    def _show(self, book: Book, entry: Entry) -> None:
        self._say(plain_row(entry, book.plan))

    def _tick(self, book: Book, progress: EpochProgress, now: float) -> None:
        if progress.steps and now - self._spoke >= LINE_EVERY:
            self._say(plain_progress(book, progress, now))

    def _close(self, book: Book, history: History, remarks: Sequence[str]) -> None:
        for line in (ending(history, book.plan), *remarks):
            self._say(line)


class _RichProgress(_Display):
    """A table whose rows scroll up as permanent lines, and one live line below it.

    The first row waits in the live area until the second tells whether the learning rate moves and needs a column. If
    it moves only later, the table goes on under a new header.
    """

    def _open(self, book: Book) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        # While the display is live, what the user's code prints comes through this console, and shall pass unchanged.
        settings = {"force_terminal": True, "soft_wrap": True, "markup": False, "highlight": False, "emoji": False}
        self._console = Console(file=cast("IO[str]", self._out), **settings)  # type: ignore[arg-type]
        self._is_unicode = self._out.encoding.lower().startswith("utf")
        self._columns: dict[bool, list[Column]] = {}  # without and with the learning rate
        self._held: list[Entry] = []
        self._lrs: set[float] = set()
        self._text = Text.assemble
        self._due = book.started + LIVE_AFTER
        # What else goes to this terminal must pass above the live line; what goes to a file goes on going there.
        out, err = (_is_terminal(self._out.stream) and _is_terminal(other) for other in (sys.stdout, sys.stderr))
        self._live = Live(
            console=self._console, auto_refresh=False, transient=True, redirect_stdout=out, redirect_stderr=err
        )
        self._stop: Callable[[], object] = lambda: None

    def _show(self, book: Book, entry: Entry) -> None:
        self._held.append(entry)
        self._lrs.add(entry.row["lr"])
        if self._columns or len(self._held) > 1:
            self._print_held(book)

    def _print_held(self, book: Book) -> None:
        lines, self._columns[len(self._lrs) > 1] = self._table(book)
        self._held.clear()
        if self._live.is_started:
            self._due = -math.inf  # so that no row stands there twice until the next redraw
        self._console.print(self._text(*lines), soft_wrap=False, no_wrap=True, overflow="crop")

    def _table(self, book: Book) -> tuple[list[Piece], list[Column]]:
        """The rows that are held, under a header where a new one is due; and the columns."""
        with_lr, pieces = len(self._lrs) > 1, []
        columns = self._columns.get(with_lr, [])
        if not columns:
            columns = plan_columns(self._held[0].row, book.plan, self._console.width - 3, with_lr)
            if [column.key for column in columns] != [column.key for column in self._columns.get(False, [])]:
                pieces = [(GAP.join(column.header.rjust(column.width) for column in columns), "bold")]
        for entry in self._held:
            pieces.append(("\n" if pieces else "", ""))
            for column in columns:
                text = column.cell(entry)
                pieces.append((GAP * (column != columns[0]) + text, "bold red" if "n" in text else ""))
            pieces.append((f" {'★' if self._is_unicode else '*'}" if entry.is_best else "", "yellow"))
        return pieces, columns

    def _tick(self, book: Book, progress: EpochProgress, now: float) -> None:
        if self._out.is_broken:
            self._stop()
        elif now >= self._due:
            self._due = now + REDRAW_EVERY
            above = [*self._table(book)[0], ("\n", "")] if self._held else []
            line = live_line(book, progress, now, self._console.width - 3, self._is_unicode)  # room for ^C
            if not self._live.is_started:
                self._live.start()
                self._stop = weakref.finalize(self, _stop_live, self._live)  # called at the latest when Python ends
            self._live.update(self._text(*above, *line), refresh=True)

    def _close(self, book: Book, history: History, remarks: Sequence[str]) -> None:
        self._stop()
        if self._held:
            self._print_held(book)
        style = "bold red" if history.stopped == "non-finite" else "bold"
        self._console.print(ending(history, book.plan), style=style, soft_wrap=False)
        for line in remarks:
            self._console.print(line, soft_wrap=False)


def _stop_live(live: Live) -> None:
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "rich_proxied_file"):
            stream.flush()  # a line that has not ended yet
    live.stop()


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except (AttributeError, OSError, ValueError):  # not quite a file, or closed
        return False
