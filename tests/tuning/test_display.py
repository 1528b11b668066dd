from __future__ import annotations

import io
import re
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from rich.console import Console

from stoker.errors import UnknownNameError
from stoker.tuning.display import best_of, shown, summary, table, time_left, trial_line

START = datetime(2026, 1, 1, 12)


def trial(number: int, state: TrialState, value: float | None = None, **more: Any) -> FrozenTrial:
    epochs = more.pop("epochs", 0)
    made = create_trial(
        state=state,
        value=value,
        params={"lr": 0.012345},
        distributions={"lr": FloatDistribution(0.0, 1.0)},
        user_attrs=more,
        intermediate_values=dict.fromkeys(range(1, epochs + 1), 1.0),
    )
    made.number = number
    if state.is_finished():
        made.datetime_complete = START + timedelta(seconds=10 * (number + 1))
    return made


TRIALS = [
    trial(0, TrialState.COMPLETE, 0.5),
    trial(1, TrialState.COMPLETE, 0.25, epochs=7),
    trial(2, TrialState.PRUNED, 0.9, epochs=2),
    trial(3, TrialState.FAIL, reason="out of memory: 12 GB"),
    trial(4, TrialState.RUNNING, epochs=3),
]


def text_of(renderable: Any, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_the_best_is_by_direction_and_the_first_of_equals() -> None:
    assert best_of(TRIALS, "minimize") is TRIALS[1]
    assert best_of(TRIALS, "maximize") is TRIALS[0]
    assert best_of([*TRIALS, trial(5, TrialState.COMPLETE, 0.25)], "minimize") is TRIALS[1]
    assert best_of(TRIALS[2:], "minimize") is None


def test_a_line_for_each_way_to_end() -> None:
    assert [trial_line(one, TRIALS[1]) for one in TRIALS[:4]] == [
        "trial 0: 0.5000; lr 0.01235",
        "trial 1: 0.2500 (best so far); lr 0.01235",
        "trial 2: pruned after 2 epochs; lr 0.01235",
        "trial 3: failed: out of memory: 12 GB; lr 0.01235",
    ]


def test_how_far_it_is() -> None:
    line = summary(TRIALS, 20, "minimize", 90.0)
    assert line == "trials 4/20 · 1 running · 1 pruned · 1 failed · best 0.2500 (trial 1) · about 1:30 left"
    assert summary([], 20, "minimize", None) == "trials 0/20"


def test_time_left_is_by_what_was_done_since() -> None:
    now = START + timedelta(seconds=41)
    assert time_left(TRIALS, 20, START, now) == pytest.approx(41 / 4 * 16)
    assert time_left(TRIALS, 20, START + timedelta(seconds=25), now) == pytest.approx(16 / 2 * 16)
    assert time_left(TRIALS, 20, now, now) is None


def test_the_table_has_the_best_first_and_what_runs() -> None:
    lines = [line.split() for line in text_of(table(TRIALS, 20, "minimize")).splitlines()]
    assert lines[0] == ["trial", "value", "epochs", "parameters"]
    assert lines[1:4] == [
        ["1", "0.2500", "7", "lr", "0.01235"],
        ["0", "0.5000", "lr", "0.01235"],
        ["4", "running", "3", "lr", "0.01235"],
    ]


def run_some(study: optuna.Study, count: int) -> None:
    study.optimize(lambda trial: trial.suggest_float("x", 0.0, 1.0), count)


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(0))


def test_without_a_terminal_there_is_a_line_for_each_new_trial(study: optuna.Study) -> None:
    run_some(study, 2)
    out = io.StringIO()
    with shown(study, 5, "auto", stream=out, every=0.01):
        run_some(study, 3)
    assert re.findall(r"^trial (\d)", out.getvalue(), re.MULTILINE) == ["2", "3", "4"]
    assert "\x1b" not in out.getvalue()


def test_on_a_terminal_there_is_a_live_table(study: optuna.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    with shown(study, 5, "auto", stream=out, every=0.01):
        run_some(study, 3)
        time.sleep(0.1)
    assert "trials 3/5" in out.getvalue()
    assert "\x1b[" in out.getvalue()


def test_a_stream_that_breaks_ends_nothing(study: optuna.Study) -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:  # noqa: ARG002
            raise BrokenPipeError

    for mode in ("plain", "rich"):
        with shown(study, 5, mode, stream=Broken(), every=0.01):
            run_some(study, 1)
    assert len(study.trials) == 2


def test_nothing_is_shown_if_not_wanted_and_unknown_modes_are_refused(study: optuna.Study) -> None:
    out = io.StringIO()
    with shown(study, 5, "none", stream=out):
        run_some(study, 1)
    assert out.getvalue() == ""
    with pytest.raises(UnknownNameError, match="got 'loud'"), shown(study, 5, "loud", stream=out):  # type: ignore[arg-type]
        pass
