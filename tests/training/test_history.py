from __future__ import annotations

import csv
import io
import math
import pickle

from stoker.training.history import History, history_csv

ROWS = [
    {"epoch": 1, "step": 10, "lr": 0.1, "train_loss": 1 / 3},
    {"epoch": 2, "step": 20, "lr": 0.1, "train_loss": 0.1 + 0.2, "valid_loss": 1e-300},
    {"epoch": 3, "step": 25, "lr": 0.1, "train_loss": math.inf, "valid_loss": math.nan},
]


def test_is_a_sequence_of_rows() -> None:
    history = History(ROWS, "valid_loss", best_epoch=2)
    assert len(history) == 3
    assert history[0] is ROWS[0]
    assert history[-1]["epoch"] == 3
    assert list(history) == history[:] == ROWS
    assert history.best is ROWS[1]


def test_columns() -> None:
    history = History(ROWS)
    assert history.column("step") == [10, 20, 25]
    assert [math.isnan(value) for value in history.column("valid_loss")] == [True, False, True]


def test_an_empty_one() -> None:
    history = History()
    assert (len(history), history.best, history.stopped, history.column("lr")) == (0, {}, "running", [])


def test_best_of_a_later_fit() -> None:
    assert History(ROWS[1:], best_epoch=3).best is ROWS[2]


def test_csv_reads_back_to_the_same_bits() -> None:
    text = history_csv(ROWS)
    assert text.splitlines()[0] == "epoch,step,lr,train_loss,valid_loss"
    assert "\r" not in text
    for row, found in zip(ROWS, csv.DictReader(io.StringIO(text)), strict=True):
        for name, value in row.items():
            assert repr(float(found[name])) == repr(float(value))
    assert history_csv([]) == "\n"


def test_survives_pickling() -> None:
    history = History(ROWS[:2], "valid_loss", 2, "patience", 1.5)
    assert pickle.loads(pickle.dumps(history)) == history
