from __future__ import annotations

import io
import math
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.errors import UnknownNameError
from stoker.training import progress_text as room
from stoker.training.callbacks import Callback, EpochProgress, FitPlan
from stoker.training.history import History, Row, StopReason
from stoker.training.progress import progress_callback
from stoker.training.progress_text import Book, Entry
from stoker.training.trainer import Trainer

REGRESSION = ("loss", "mse", "rmse", "mae", "r2")
CLASSIFICATION = ("loss", "accuracy", "top3_accuracy", "f1", "auroc", "log_loss")


class Clock:
    """Time that passes only when told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A stream that says it is a terminal, and knows what would be seen on it: all lines, scrolled away or not."""

    encoding = "utf-8"
    width = 80

    def isatty(self) -> bool:
        return True

    @property
    def lines(self) -> list[str]:
        return screen(self.getvalue(), self.width)

    @property
    def has_cursor(self) -> bool:
        return self.getvalue().rfind("\x1b[?25h") >= self.getvalue().rfind("\x1b[?25l")


def screen(written: str, width: int) -> list[str]:
    """What a terminal shows; it knows carriage return, cursor up, erase line and wrapping, and ignores colours."""
    rows: list[list[str]] = [[]]
    row = column = 0
    for escape, count, command, char in re.findall(r"(\x1b\[\??([\d;]*)([A-Za-z]))|([^\x1b])", written):
        assert command in "AKmlh", f"an escape sequence that this terminal does not know: {escape!r}"
        if command == "K":
            rows[row] = []
        row = row - int(count or 1) if command == "A" else row
        if char == "\n" or (char not in "\r" and column == width):
            row += 1
        if char in ("\r", "\n") or (char and column == width):
            column = 0
        rows += [[] for _ in range(row + 1 - len(rows))]
        if char not in "\r\n":
            rows[row] += " " * (column + 1 - len(rows[row]))
            rows[row][column] = char
            column += 1
    return re.sub(r"\n+$", "", "\n".join("".join(cells).rstrip() for cells in rows)).splitlines()


@pytest.fixture(autouse=True)
def terminal_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM", "TTY_INTERACTIVE", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}.items():
        monkeypatch.setenv(name, value)


def a_plan(epochs: int = 3, *, first: int = 1, steps: int | None = 100, monitor: str | None = "valid_loss") -> FitPlan:
    return FitPlan(epochs, first, steps, None if steps is None else steps * 32, 2501, "cpu", "eager", monitor)


def a_row(epoch: int, *, lr: float = 0.01, metrics: Sequence[str] = REGRESSION, **values: float) -> Row:
    row: Row = {"epoch": epoch, "step": 100 * epoch, "lr": lr, "train_loss": 0.9 / epoch}
    return row | {f"valid_{name}": 1 / epoch + 0.01 * index for index, name in enumerate(metrics)} | values


def rows_to(last: int) -> list[Row]:
    return [a_row(epoch) for epoch in range(1, last + 1)]


def train(
    stream: Any,
    plan: FitPlan,
    rows: Sequence[Row],
    mode: Any = "auto",
    *,
    seconds: float = 1.0,
    stopped: StopReason = "finished",
    told: int = 10,
    each: Callable[[int, int], object] = lambda *_: None,
    engine: str = "",
    telling: bool = True,
) -> History:
    """What a Trainer does to the callback, every epoch being the best so far, and ``told`` times told of."""
    clock = Clock()
    callback = progress_callback(mode, stream=stream, clock=clock, engine=telling)
    history = History(monitor=plan.monitor, stopped=stopped, engine=engine)
    callback.on_fit_start(plan)
    for row in rows:
        history.best_epoch = epoch = int(row["epoch"])
        for part in range(1, told + 1):
            clock.now += seconds / told
            steps = (plan.steps_per_epoch or 100) * part // told
            callback.on_progress(EpochProgress(epoch, steps, row["train_loss"] + 0.01, row["lr"]))
            each(epoch, part)
        clock.now += 0.0 if told else seconds
        history.rows.append(row)
        assert callback.on_epoch_end(row, True) is None
        each(epoch, told + 1)
    history.seconds = clock.now - Clock.now
    callback.on_fit_end(history)
    return history


def train_on_terminal(plan: FitPlan, rows: Sequence[Row], width: int = 80, **settings: Any) -> Terminal:
    terminal = Terminal()
    terminal.width = width
    os.environ["COLUMNS"] = str(width)  # the fixture puts it back
    train(terminal, plan, rows, "rich", **settings)
    assert terminal.has_cursor
    return terminal


def plain_lines(plan: FitPlan, rows: Sequence[Row], **settings: Any) -> list[str]:
    stream = io.StringIO()
    train(stream, plan, rows, **settings)
    return stream.getvalue().splitlines()


# --- numbers and times ---

NUMBERS = """16.158456802=16.158 4.8793754577=4.8794 0.568410038=0.5684 0.565=0.5650 0.9999999=1.0000 12345.678=12346
    123456.7=123457 1234567=1.2346e6 0.00004123=0.00004123 1e-05=0.00001000 4.123e-07=4.123e-7 9.9999e-07=1.000e-6
    -0.3117=-0.3117 0=0 nan=nan -inf=-inf"""


@pytest.mark.parametrize("pair", NUMBERS.split())
def test_numbers_have_four_or_five_digits(pair: str) -> None:
    value, _, text = pair.partition("=")
    assert room.number(float(value)) == text


@pytest.mark.parametrize("text", ["0.01", "0.00001", "3e-7", "1", "1000", "0", "0.00999"])
def test_a_chosen_number_has_no_zeros_at_its_end(text: str) -> None:
    assert room.number(float(text), 4, trim=True) == text


@settings(deadline=None)
@given(st.floats(min_value=1e-300, max_value=1e300), st.booleans())
def test_a_number_reads_back_to_four_digits(value: float, trim: bool) -> None:
    assert float(room.number(value, trim=trim)) == pytest.approx(value, rel=5.01e-4)  # half a unit of the fourth digit
    assert "e" not in room.number(value) or not 1e-5 <= value < 999999


def test_durations() -> None:
    texts = ["0ms", "4ms", "0.01s", "1.0s", "12.3s", "1:00"]
    assert [room.duration(t) for t in (-1, 0.004, 0.012, 0.996, 12.34, 59.96)] == texts
    assert [room.clock_time(t) for t in (0, 7.4, 80, 3599.6, 90000)] == ["0:00", "0:07", "1:20", "1:00:00", "25:00:00"]


def test_speed_is_in_samples_where_their_number_is_known() -> None:
    assert room.speed(129, 1.0, a_plan()) == "4.13k samples/s"
    assert room.speed(129, 2.0, a_plan(steps=None)) == "64.5 steps/s"
    assert room.speed(999_700, 1.0, a_plan(steps=None)) == "1M steps/s"
    assert room.speed(0, 1.0, a_plan()) == room.speed(1, 0.0, a_plan()) == ""


def test_time_left() -> None:
    # a quarter of the first of 4 epochs took 2 s: an epoch takes 8, so 6 + 3·8 are left
    assert room.seconds_left(4, [], 2.0, 0.25) == pytest.approx(30.0)
    assert room.seconds_left(4, [], 2.0, None) is room.seconds_left(4, [], 2.0, 0.0) is None
    # afterwards the epochs before tell, without the first
    assert room.seconds_left(3, [9.0, 2.0, 4.0], 1.0, None) == pytest.approx(2 + 2 * 3)
    assert room.seconds_left(3, [9.0], 1.0, None) == pytest.approx(8 + 2 * 9)
    assert room.seconds_left(1, [100.0] * 20 + [1.0] * 10, 0.5, None) == pytest.approx(0.5)
    # an epoch that takes longer than those before
    assert room.seconds_left(1, [2.0, 2.0], 6.0, 0.5) == pytest.approx(6.0)
    assert room.seconds_left(0, [2.0, 2.0], 6.0, 0.5) == 0


# --- which epochs are shown ---


def shown_epochs(plan: FitPlan, improves: Callable[[int], bool]) -> list[int]:
    shown = [0]
    for epoch in range(plan.first_epoch, plan.epochs + 1):
        shown += [epoch] if room.is_shown(epoch, improves(epoch), shown[-1], plan) else []
    return shown[1:]


@settings(deadline=None)
@given(epochs=st.integers(41, 5000), first=st.integers(1, 3000), every=st.integers(1, 50))
def test_however_many_epochs_there_are_at_most_44_are_shown(epochs: int, first: int, every: int) -> None:
    plan = a_plan(first + epochs - 1, first=first)
    shown = shown_epochs(plan, lambda epoch: epoch % every == 0)
    assert len(shown) <= 44
    assert [*shown[:3], shown[-1]] == [first, first + 1, first + 2, plan.epochs]


def test_of_many_epochs_some_are_shown_at_even_distances_and_improvements_at_a_bounded_rate() -> None:
    for few in (1, 2, 3, 17, 40):
        assert shown_epochs(a_plan(few), lambda _: False) == list(range(1, few + 1))
    regular = [1, 2, 3, *range(25, 501, 25)]
    assert shown_epochs(a_plan(500), lambda _: False) == regular
    assert shown_epochs(a_plan(500), lambda epoch: epoch in {60, 70}) == sorted([*regular, 70])
    assert [room.row_interval(n) for n in (40, 41, 100, 101, 200, 500, 1000, 10**6)] == [1, 5, 5, 10, 10, 25, 50, 50000]


# --- words ---

ENDINGS: list[tuple[StopReason, int, int, str]] = [
    ("finished", 20, 17, "finished epoch 20 of 20 after 12.3s; best was epoch 17 (valid_loss 0.05882)"),
    ("callback", 9, 5, "stopped by a callback at epoch 9 of 20 after 12.3s; best was epoch 5 (valid_loss 0.2000)"),
    ("patience", 9, 5, "stopped early at epoch 9 of 20 after 12.3s; best was epoch 5 (valid_loss 0.2000)"),
    ("interrupted", 7, 5, "interrupted by Ctrl-C in epoch 7 of 20 after 12.3s; kept: what was learnt so far; best was"),
    ("interrupted", 0, 0, "interrupted by Ctrl-C in epoch 1 of 20 after 12.3s; kept: the weights it began with"),
    ("non-finite", 3, 2, "stopped in epoch 4 of 20 after 12.3s: the loss was not finite; kept: the weights of epoch 2"),
    ("non-finite", 0, 0, "stopped in epoch 1 of 20 after 12.3s: the loss was not finite; kept: the weights it began"),
    ("finished", 4, 4, "ended at epoch 4 of 20 after 12.3s; best was epoch 4 (valid_loss 0.2500)"),
    ("running", 0, 0, "cut short in epoch 1 of 20 after 12.3s"),
]


@pytest.mark.parametrize(("stopped", "epochs", "best", "words"), ENDINGS)
def test_the_end_is_told_in_words(stopped: StopReason, epochs: int, best: int, words: str) -> None:
    assert room.ending(History(rows_to(epochs), "valid_loss", best, stopped, 12.34), a_plan(20)).startswith(words)
    without_valid = room.ending(History(rows_to(epochs), None, best, stopped, 12.34), a_plan(20))
    assert without_valid.startswith(words.partition("; best")[0])
    assert "best" not in without_valid


@pytest.mark.parametrize("mode", ["plain", "rich"])
def test_the_engine_is_told_once_and_at_the_end(mode: Any) -> None:
    why = "eager: the step cannot be traced (it reads a value: x.sum() > 0 of a tensor in Branches.forward)"
    terminal = Terminal()
    train(terminal, a_plan(2), rows_to(2), mode, engine=why)
    lines = terminal.lines
    (told,) = [place for place, line in enumerate(lines) if line.startswith("engine ")]
    assert lines[told - 1].startswith("finished epoch 2 of 2")
    if mode == "plain":  # whose lines stay whole
        assert terminal.getvalue().splitlines()[-1] == f"engine {why}"
    else:
        assert lines[told:] == [
            "engine eager: the step cannot be traced (it reads a value: x.sum() > 0 of a",
            "tensor in Branches.forward)",
        ]


@pytest.mark.parametrize("mode", ["plain", "rich"])
def test_the_engine_is_not_told_where_a_summary_does_or_no_step_was_made(mode: Any) -> None:
    for telling, rows in ((False, rows_to(1)), (True, [])):
        terminal = Terminal()
        train(terminal, a_plan(1), rows, mode, engine="eager: as asked", telling=telling)
        assert "engine" not in terminal.getvalue()


def test_a_training_ends_with_what_made_its_steps(capsys: pytest.CaptureFixture[str]) -> None:
    data = torch.zeros(48, 2), torch.zeros(48, 1)
    trainer = Trainer(torch.nn.Linear(2, 1), "mse", "sgd", device="cpu", metrics=())
    history = trainer.fit(data, epochs=2, batch_size=16, progress="plain", check=False)
    assert history.engine == trainer.engine_reason == "eager: an epoch has fewer than four whole updates"
    *_, ended, told = capsys.readouterr().err.splitlines()
    assert ended.startswith("finished epoch 2 of 2")
    assert told == f"engine {history.engine}"
    shown = progress_callback("plain", engine=False)  # or by a callback of one's own
    trainer.fit(data, epochs=1, progress=shown, check=False)
    assert capsys.readouterr().err.splitlines()[-1].startswith("finished epoch 3 of 3")


def test_a_plain_row_has_all_columns_by_name() -> None:
    row = {"epoch": 3, "step": 99, "lr": 0.01, "train_loss": 0.4123, "valid_loss": 0.43011, "valid_rmse": math.nan}
    line = "epoch 3/20  train_loss 0.4123  valid_loss 0.4301  valid_rmse nan  lr 0.01  1.2s"
    assert room.plain_row(Entry(row, 1.23, False), a_plan(20)) == line
    assert room.plain_row(Entry(row, 1.23, True), a_plan(20)) == line + "  best"


# --- what fits ---


def headers(row: Row, plan: FitPlan, width: int, with_lr: bool = False) -> list[str]:
    columns = room.plan_columns(row, plan, width, with_lr)
    assert sum(column.width + 2 for column in columns) - 2 <= width
    return [column.header for column in columns]


def test_the_columns_that_matter_most_are_shown() -> None:
    row, plan = a_row(1), a_plan()
    assert headers(row, plan, 77) == ["epoch", "train loss", "valid loss", "mse", "rmse", "mae", "r2", "time"]
    assert headers(row, plan, 37) == ["epoch", "train loss", "valid loss", "time"]
    row, plan = a_row(1, metrics=CLASSIFICATION), a_plan(monitor="valid_auroc")
    assert headers(row, plan, 77)[:5] == ["epoch", "train loss", "valid loss", "auroc", "accuracy"]
    assert headers(row, plan, 27) == ["epoch", "train loss", "auroc"]


def test_the_metric_that_only_repeats_the_loss_is_the_first_to_go() -> None:
    row = a_row(1, valid_loss=0.5, valid_mse=0.5000001)
    assert headers(row, a_plan(), 70, with_lr=True)[3:] == ["rmse", "mae", "lr", "time"]
    assert "mse" in headers(row, a_plan(), 100)


@settings(deadline=None)
@given(st.integers(5, 200), st.booleans(), st.sampled_from([REGRESSION, CLASSIFICATION, ()]))
def test_columns_never_exceed_the_width(width: int, with_lr: bool, metrics: tuple[str, ...]) -> None:
    assert headers(a_row(1, metrics=metrics), a_plan(monitor=None), width, with_lr)[0] == "epoch"


def test_decimal_points_stand_below_each_other() -> None:
    column = room.plan_columns(a_row(1, train_loss=16.1584568), a_plan(), 77, False)[1]
    cells = [column.cell(Entry(a_row(1, train_loss=loss), 1.0, False)) for loss in (16.1584568, 4.8793, 0.5, math.nan)]
    assert cells == ["   16.158 ", "    4.8793", "    0.5000", "       nan"]


def live_line(steps: int | None, width: int, is_unicode: bool = True) -> str:
    """In the third of 20 epochs, a second after it began; those before took two each."""
    book = Book(a_plan(20, steps=steps), 1000.0, 1004.0, [Entry(a_row(epoch), 2.0, True) for epoch in (1, 2)], 2)
    return "".join(
        text for text, _ in room.live_line(book, EpochProgress(3, 50, 0.41234, 0.01), 1005, width, is_unicode)
    )


def test_the_live_line() -> None:
    assert live_line(100, 79) == "epoch  3/20  ━━━━━──────  loss 0.4123  lr 0.01  1.6k samples/s  0:05  0:35 left"
    assert live_line(100, 39, is_unicode=False) == " 3/20  ####----  loss 0.4123  0:35 left"
    assert live_line(None, 87).endswith("  50 steps  loss 0.4123  lr 0.01  50 steps/s  0:05  0:35 left")


@settings(deadline=None)
@given(width=st.integers(1, 200), steps=st.sampled_from([None, 100]), seconds=st.floats(0, 1e6))
def test_the_live_line_never_exceeds_the_width(width: int, steps: int | None, seconds: float) -> None:
    first = Book(a_plan(20, steps=steps), 1000.0, 1000.0)
    line = room.live_line(first, EpochProgress(1, 99, 1e-9, 3.3e-9), 1000 + seconds, width, True)
    for text in ("".join(text for text, _ in line), live_line(steps, width)):
        assert re.search(r"\d/20", text)
        assert len(text) <= max(width, len("12/20"))


def test_in_short_epochs_the_bar_is_over_all_of_them() -> None:
    book = Book(a_plan(4), 1000.0, 1000.0, [Entry(a_row(1), 0.1, True)])
    assert book.pace(0, 1000.0)[0] == 0.25
    assert book.pace(50, 1000.0)[0] == 0.375


@settings(deadline=None)
@given(fraction=st.none() | st.floats(0, 1), width=st.integers(8, 40), seconds=st.floats(0, 1e6))
def test_a_bar_has_its_width(fraction: float | None, width: int, seconds: float) -> None:
    assert len("".join(text for text, _ in room.bar(fraction, width, seconds, True))) == width


def test_a_bar_moves_where_the_number_of_steps_is_not_known() -> None:
    moving = ["".join(text for text, _ in room.bar(None, 8, tenth / 10, False)) for tenth in range(12)]
    assert moving[:7] == ["##------", "-##-----", "--##----", "---##---", "----##--", "-----##-", "------##"]
    assert moving[7:] == moving[5:0:-1]


# --- modes ---


def test_an_unknown_mode_is_named_with_the_valid_ones() -> None:
    with pytest.raises(
        UnknownNameError, match=r"^progress: .*got 'rihc'\. Did you mean 'rich'\? Known: auto, rich, plain"
    ):
        progress_callback("rihc")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="progress: must be one of the known names, got 'False'"):
        progress_callback(False)  # type: ignore[arg-type]


def test_auto_is_rich_on_a_terminal_and_plain_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    assert plain_lines(a_plan(1), rows_to(1))[0].startswith("epoch 1/1  train_loss")
    for term, start in {"xterm": "\x1b[1mepoch", "dumb": "epoch 1/1  train_loss"}.items():
        monkeypatch.setenv("TERM", term)
        terminal = Terminal()
        train(terminal, a_plan(1), rows_to(1), told=0)
        assert terminal.getvalue().startswith(start)


def test_auto_is_plain_where_another_live_display_is_at_work() -> None:
    from rich.console import Console
    from rich.file_proxy import FileProxy

    terminal = Terminal()
    train(FileProxy(Console(file=terminal, width=200, force_terminal=True), terminal), a_plan(1), rows_to(1))
    assert "train_loss" in terminal.getvalue()
    assert "\x1b[?25l" not in terminal.getvalue()


def test_standard_error_is_the_default(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    train(None, a_plan(1), rows_to(1))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("epoch 1/1  ")
    monkeypatch.setattr(sys, "stderr", None)
    assert type(progress_callback()) is Callback


@pytest.mark.parametrize("mode", ["rich", "plain", "none"])
def test_nothing_is_shown_in_mode_none_nor_before_the_start(mode: Any) -> None:
    stream = io.StringIO()
    callback = progress_callback(mode, stream=stream)
    if mode == "none":
        callback.on_fit_start(a_plan())
    callback.on_progress(EpochProgress(1, 1, 0.5, 0.01))
    callback.on_epoch_end(a_row(1), True)
    callback.on_fit_end(History())
    assert stream.getvalue() == ""


# --- plain ---


def test_plain_writes_a_line_per_epoch_at_once() -> None:
    class Reader(io.StringIO):
        got = ""

        def flush(self) -> None:
            self.got = self.getvalue()

    stream, seen = Reader(), []
    train(stream, a_plan(2), rows_to(2), each=lambda *_: seen.append(stream.got.count("\n")))
    assert seen == [0] * 10 + [1] * 11 + [2]
    assert [line.split("  ")[0] for line in stream.got.splitlines()[:2]] == ["epoch 1/2", "epoch 2/2"]
    assert stream.got.endswith("\nfinished epoch 2 of 2 after 2.0s; best was epoch 2 (valid_loss 0.5000)\n")


def test_plain_writes_a_line_every_ten_seconds_within_an_epoch() -> None:
    lines = plain_lines(a_plan(1), rows_to(1), seconds=35, told=35)
    assert [line.split("  ")[1] for line in lines[:3]] == ["28/100 steps", "57/100 steps", "85/100 steps"]
    assert lines[0] == "epoch 1/1  28/100 steps  loss 0.9100  89.6 samples/s  0:26 left"
    assert len(lines) == 5
    lines = plain_lines(a_plan(1, steps=None), rows_to(1), seconds=35, told=35)
    assert lines[0] == "epoch 1/1  28 steps  loss 0.9100  2.8 steps/s"


def test_plain_shows_about_forty_of_many_epochs_and_the_last_even_if_it_comes_early() -> None:
    lines = plain_lines(a_plan(500, monitor=None), rows_to(477), stopped="interrupted", seconds=0.01, told=0)
    assert len(lines) <= 45
    assert lines[-2].startswith("epoch 477/500  ")
    assert lines[-1].startswith("interrupted by Ctrl-C in epoch 477 of 500")
    assert not any("best" in line for line in lines)  # nothing was monitored


# --- rich ---


def test_rich_leaves_a_table_and_nothing_else() -> None:
    assert train_on_terminal(a_plan(3), rows_to(3)).lines == [
        "epoch  train loss  valid loss      mse     rmse      mae       r2    time",
        "    1      0.9000      1.0000   1.0100   1.0200   1.0300   1.0400    1.0s ★",
        "    2      0.4500      0.5000   0.5100   0.5200   0.5300   0.5400    1.0s ★",
        "    3      0.3000      0.3333   0.3433   0.3533   0.3633   0.3733    1.0s ★",
        "finished epoch 3 of 3 after 3.0s; best was epoch 3 (valid_loss 0.3333)",
    ]
    assert train_on_terminal(a_plan(2, monitor="valid_rmse"), rows_to(2), width=40).lines == [
        "epoch  train loss     rmse    time",
        "    1      0.9000   1.0200    1.0s ★",
        "    2      0.4500   0.5200    1.0s ★",
        "finished epoch 2 of 2 after 2.0s; best",
        "was epoch 2 (valid_rmse 0.5200)",
    ]


@pytest.mark.parametrize("width", [80, 40])
def test_rich_shows_one_live_line_below_the_table_while_it_trains(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, looks = Terminal(), dict[tuple[int, int], list[str]]()
    terminal.width = width
    monkeypatch.setenv("COLUMNS", str(width))
    train(terminal, a_plan(3), rows_to(3), each=lambda *at: looks.update({at: terminal.lines}))
    assert looks[1, 2] == []  # half a second has not passed
    assert len(looks[1, 7]) == 1
    assert len(looks[2, 5]) == 3  # the header and the row that is held back are there already
    assert [line.split()[0] for line in looks[3, 5][:-1]] == ["epoch", "1", "2"]
    assert [line.split()[0] for line in looks[2, 11][:-1]] == ["epoch", "1", "2"]  # at once, and none of them twice
    live = looks[3, 5][-1]
    assert re.fullmatch(r"(epoch )?3/3  ━+─+  loss 0.3100  .*0:0\d left", live)
    assert len(live) <= width - 3  # what Ctrl-C echoes has room


def test_rich_needs_no_live_display_for_a_short_training() -> None:
    terminal = train_on_terminal(a_plan(4), rows_to(4), seconds=0.1)
    assert "\x1b[?25l" not in terminal.getvalue()
    assert len(terminal.lines) == 6


@pytest.mark.parametrize(
    ("rates", "header_rows"), [([0.01, 0.01, 0.01], [0]), ([0.01, 0.005, 0.001], [0]), ([0.01, 0.01, 0.00001], [0, 3])]
)
def test_rich_has_a_column_for_the_learning_rate_once_it_moves(rates: list[float], header_rows: list[int]) -> None:
    rows = [a_row(epoch, lr=lr) for epoch, lr in enumerate(rates, 1)]
    lines = train_on_terminal(a_plan(3), rows).lines
    assert [index for index, line in enumerate(lines) if line.startswith("epoch")] == header_rows
    moves = len(set(rates)) > 1
    assert ("lr" in lines[header_rows[-1]].split()) == moves
    assert (f" {room.number(rates[-1], 4, trim=True)}    1.0s ★" in lines[-2]) == moves
    narrow = train_on_terminal(a_plan(3), rows, width=40).lines
    assert sum(line.startswith("epoch") for line in narrow) == 1  # no room for it, so no second header either


def test_rich_highlights_what_is_not_finite() -> None:
    written = train_on_terminal(a_plan(2), [a_row(1, valid_rmse=math.nan)], stopped="non-finite").getvalue()
    assert re.search(r"\x1b\[1;31m +nan\x1b\[0m", written)
    assert "\x1b[1;31mstopped in epoch 2 of 2 after 1.0s: the loss was not finite" in written


def test_rich_draws_with_plain_characters_where_others_cannot_be_written() -> None:
    class Old(Terminal):
        encoding = "ascii"

    terminal = Old()
    train(terminal, a_plan(2), rows_to(2))
    assert terminal.getvalue().isascii()
    assert terminal.lines[1].endswith("1.0s *")
    assert "##" in terminal.getvalue()


def test_rich_shows_about_forty_of_many_short_epochs_and_keeps_its_live_line() -> None:
    terminal = train_on_terminal(a_plan(500), rows_to(500), seconds=0.03, told=0)
    shown = [int(line.split()[0]) for line in terminal.lines[1:-1]]
    assert shown == sorted(set(shown))
    assert shown[-1] == 500
    assert 20 <= len(shown) <= 44
    without_colours = re.sub(r"\x1b\[[\d;]*m", "", terminal.getvalue())
    assert re.search(r"epoch 40./500  ━+─+  loss 0.002\d+  lr 0.01  107k samples/s  0:03 left", without_colours)


def test_rich_lets_others_print_while_it_is_live(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", terminal)
    long_line = "[bold] is no markup here, and :smile: no picture; " + "x" * 60
    said = {(1, 7): "hello\n", (1, 8): "[/x] flushed", (2, 7): long_line + "\n", (3, 8): "no newline"}
    others: list[Any] = []

    def say(*at: int) -> None:
        others.append(sys.stdout)  # as a logging handler does
        print(said.get((at[0], at[1]), ""), end="", flush=at == (1, 8))

    train(None, a_plan(3), rows_to(3), each=say)
    assert sys.stdout is sys.stderr is terminal
    assert terminal.has_cursor
    assert terminal.lines[:4] == ["hello", "[/x] flushed", long_line[:80], long_line[80:]]
    assert [line.split()[0] for line in terminal.lines[4:]] == ["epoch", "1", "2", "3", "no", "finished"]


def test_what_goes_to_a_file_goes_on_going_there(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(sys, "stdout", file)
    train(None, a_plan(1), rows_to(1), each=lambda _, part: print(part))
    assert file.getvalue() == "".join(f"{part}\n" for part in range(1, 12))


@pytest.mark.parametrize("is_told", [True, False])
def test_rich_gives_the_terminal_back_when_training_fails(is_told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, terminal = Clock(), Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", terminal)
    callback = progress_callback(clock=clock)
    callback.on_fit_start(a_plan(3))
    clock.now += 2
    callback.on_epoch_end(a_row(1), True)
    callback.on_progress(EpochProgress(2, 10, 0.5, 0.01))
    assert sys.stdout is not terminal
    assert not terminal.has_cursor
    if is_told:
        callback.on_fit_end(History([a_row(1)], "valid_loss", 1, "finished", 2.0))
        assert terminal.lines[1:] == [
            "    1      0.9000      1.0000   1.0100   1.0200   1.0300   1.0400    2.0s ★",
            "ended at epoch 1 of 3 after 2.0s; best was epoch 1 (valid_loss 1.0000)",
        ]
    else:
        del callback
        assert terminal.lines == []
    assert sys.stdout is sys.stderr is terminal
    assert terminal.has_cursor


# --- broken streams ---


@pytest.mark.parametrize("after", [0, 1, 5])
@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), ValueError("I/O operation on closed file.")])
@pytest.mark.parametrize("mode", ["rich", "plain"])
def test_a_broken_stream_silences_the_display_and_not_the_training(
    mode: Any, error: Exception, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Breaking(Terminal):
        tried = 0

        def write(self, text: str) -> int:
            self.tried += 1
            if self.tried > after:
                raise error
            return super().write(text)

    stream, is_ours = Breaking(), list[bool]()
    monkeypatch.setattr(sys, "stdout", stream)
    assert len(train(stream, a_plan(10), rows_to(10), mode, each=lambda *_: is_ours.append(sys.stdout is stream))) == 10
    assert stream.tried == after + 1
    assert is_ours[-1]  # given back at once, not only at the end


def test_a_stream_that_was_closed_before_is_no_error() -> None:
    stream = io.StringIO()
    stream.close()
    assert len(train(stream, a_plan(1), rows_to(1))) == 1


# --- a real terminal ---

SCRIPT = """
    import time
    from stoker.training.callbacks import EpochProgress, FitPlan
    from stoker.training.history import History
    from stoker.training.progress import progress_callback

    callback = progress_callback()
    callback.on_fit_start(FitPlan(3, 1, 10, 320, 7, "cpu", "eager", "valid_loss"))
    history = History(monitor="valid_loss", best_epoch=3, stopped="finished", seconds=1.0)
    for epoch in (1, 2, 3):
        for step in range(1, 11):
            time.sleep(0.03)
            callback.on_progress(EpochProgress(epoch, step, 0.5, 0.01))
        print("printed in", epoch)
        history.rows.append({"epoch": epoch, "step": epoch * 10, "lr": 0.01, "train_loss": 0.5, "valid_loss": 0.5})
        callback.on_epoch_end(history.rows[-1], True)
    callback.on_fit_end(history)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals of this kind")
def test_on_a_real_terminal() -> None:
    import pty

    outer, inner = pty.openpty()
    script = [sys.executable, "-c", textwrap.dedent(SCRIPT)]
    with (
        subprocess.Popen(script, stdin=inner, stdout=inner, stderr=inner) as child,
        os.fdopen(outer, "rb", 0) as reader,
    ):
        os.close(inner)
        pieces: list[bytes] = []
        try:
            while pieces[-1:] != [b""]:
                pieces.append(reader.read(65536))
        except OSError:  # this is how Linux tells that the other side is closed
            pass
    assert child.returncode == 0
    text = b"".join(pieces).decode()
    assert -1 < text.rfind("\x1b[?25l") < text.rfind("\x1b[?25h")
    assert re.search(r"3/3\S*  \S*━", text)
    assert [re.sub(r" \d+\.\d+s ★", " some time", line) for line in screen(text, 80)] == [
        "printed in 1",
        "printed in 2",
        "epoch  train loss  valid loss    time",
        "    1      0.5000      0.5000   some time",
        "    2      0.5000      0.5000   some time",
        "printed in 3",
        "    3      0.5000      0.5000   some time",
        "finished epoch 3 of 3 after 1.0s; best was epoch 3 (valid_loss 0.5000)",
    ]
