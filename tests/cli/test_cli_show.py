"""What is shown: nothing is lost, and it can be read at 80 columns."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import polars as pl
import pytest
import torch

from stoker.cli import show
from stoker.data.dataset import ImageSet, Provenance, Table
from stoker.data.schema import Column, Schema, Target
from stoker.jobs.inspect import Inspection
from stoker.training.history import History

PROVENANCE = Provenance("things", "things.csv", "sha256:0", 4)


@pytest.fixture(autouse=True)
def width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def table(*columns: Column, target: Target | None = None) -> Inspection:
    frame = pl.DataFrame({column.name: [None] * 20 for column in columns} | ({} if target is None else {"y": [1] * 20}))
    return Inspection(Table(frame, PROVENANCE), Schema(columns, target), [])


def rows(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines()]


COLUMNS = (
    Column("distance", "numeric", "Float64", "numbers from 40 to 2000.25", 5, 1234, "100.5"),
    Column("carrier", "categorical", "String", "text with 3 distinct values", 0, 3, "AA"),
    Column(
        "flown", "datetime", "Datetime(time_unit='us', time_zone=None)", "dates from 2013-01-01 on", 0, 4, "2013-01-01"
    ),
    Column("planet", "ignored", "String", "constant: always 'earth'", 0, 1, "earth"),
)


def test_columns_have_their_reason_below_where_there_is_no_room(capsys: pytest.CaptureFixture[str]) -> None:
    show.inspection(table(*COLUMNS, target=Target("delay [min]", "regression", (), "numbers with fractions", 0)))
    assert rows(capsys.readouterr().out) == [
        "things: 20 rows of 5 columns",
        "",
        "column    kind         dtype     missing  distinct",
        "distance  numeric      Float64         5     1,234",
        "          numbers from 40 to 2000.25, such as 100.5",
        "carrier   categorical  String          0         3",
        "          text with 3 distinct values, such as 'AA'",
        "flown     datetime     Datetime        0         4",
        "          dates from 2013-01-01 on",
        "planet    ignored      String          0         1",
        "          constant: always 'earth'",
        "",
        "Target    delay [min]",
        "Task      regression (numbers with fractions)",
    ]


def test_columns_have_their_reason_beside_them_where_there_is_room(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    show.inspection(table(*COLUMNS))
    assert rows(capsys.readouterr().out)[2:] == [
        "column    kind         dtype     missing  distinct  example     reason",
        "distance  numeric      Float64         5     1,234  100.5       numbers from 40 to 2000.25",
        "carrier   categorical  String          0         3  AA          text with 3 distinct values",
        "flown     datetime     Datetime        0         4  2013-01-01  dates from 2013-01-01 on",
        "planet    ignored      String          0         1  earth       constant: always 'earth'",
    ]


def test_long_names_are_folded_and_the_figures_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    name = "the_length_of_the_petal_of_the_flower_as_measured_by_the_botanist_in_centimetres"
    show.inspection(table(Column(name, "numeric", "Float64", "numbers " + "and " * 20 + "no end", 0, 3, "0.5")))
    lines = rows(capsys.readouterr().out)
    assert max(map(len, lines)) <= 80
    assert "".join(line[:39].strip() for line in lines[3:]) == name
    assert lines[3].endswith("  numeric  Float64        0         3")
    assert " ".join(line[40:].strip() for line in lines[4:]) == "numbers " + "and " * 20 + "no end, such as 0.5"


def test_names_are_neither_markup_nor_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    names = ("[red]a[/red]", "b\x1b[2J\nc :boom:")
    columns = (Column(name, "numeric", "Float64", "\x07numbers", 0, 3, "[b]1[/b]") for name in names)
    show.inspection(table(*columns, target=Target("y", "binary", ("[b]no[/b]", "\x1b[1myes"), "text", 0)))
    out = capsys.readouterr().out
    assert "[red]a[/red]  " in out
    assert "b\\x1b[2J c :boom:  " in out
    assert "  [b]1[/b]  \\x07numbers" in out
    assert "[b]no[/b], \\x1b[1myes" in out
    assert "\x1b" not in out
    assert "\x07" not in out


def test_missing_targets_and_many_classes_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    classes = tuple(f"class {number}" for number in range(20))
    show.inspection(table(*COLUMNS, target=Target("y", "multiclass", classes, "text", 1234)))
    out = " ".join(capsys.readouterr().out.split())
    assert "Task multiclass (text); rows without it, which are left out: 1,234 " in out
    assert out.endswith("class 10, class 11 and 8 more")


def images(labels: torch.Tensor | None, test: ImageSet | None = None, **more: Any) -> ImageSet:
    pixels = torch.zeros(5, more.pop("channels", 1), 3, 4, dtype=torch.uint8)
    return ImageSet(pixels, labels, ("cat", "dog"), PROVENANCE, test=test, **more)


def test_images_are_counted_by_class_and_split(capsys: pytest.CaptureFixture[str]) -> None:
    labels = torch.tensor([0, 0, 0, 1, 1])
    show.inspection(Inspection(images(labels, images(labels.flip(0))), None, ["unreadable image x.png is left out"]))
    assert rows(capsys.readouterr().out) == [
        "things: 5 images, and 5 for testing; 4 x 3 pixels, one channel",
        "",
        "class  images  test",
        "cat         3     3",
        "dog         2     2",
        "",
        "note: unreadable image x.png is left out",
    ]


def test_images_without_labels(capsys: pytest.CaptureFixture[str]) -> None:
    show.inspection(Inspection(images(None, channels=3, skipped=(("x.png", "truncated"),)), None, []))
    assert rows(capsys.readouterr().out) == [
        "things: 5 images; 4 x 3 pixels, 3 channels; unreadable and left out: 1",
        "",
        "There are no labels.",
    ]


def history(stopped: Any = "finished", monitor: str | None = "valid_loss") -> History:
    return History([{"epoch": 1, "valid_loss": 0.5}, {"epoch": 2, "valid_loss": 0.75}], monitor, 1, stopped, 1.25)


def test_summary_of_a_fit(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    place = tmp_path / "a run"
    run = SimpleNamespace(
        path=place,
        metrics={"train": {"loss": 0.25, "rmse": 12345.678}, "valid": {"loss": 0.5, "rmse": math.nan}},
        history=history(),
        stopped="finished",
        figures=[place / "figures" / "curves.png", place / "figures" / "other.png"],
        config=SimpleNamespace(model={"name": "mlp"}),
        record=SimpleNamespace(training=SimpleNamespace(engine_reason="eager: a hook on layers.0")),
    )
    show.fit_summary(cast("Any", run), "my data.csv")
    assert rows(capsys.readouterr().out) == [
        "",
        "       train   valid",
        "loss  0.2500  0.5000",
        "rmse   12346     nan",
        "",
        "Training  finished after 2 epochs in 1.2s",
        "Best      epoch 1, whose weights are kept (valid_loss 0.5000)",
        "Engine    eager: a hook on layers.0",
        f"Run       {place}",
        f"Pictures  {place}/figures/curves.png",
        f"          {place}/figures/other.png",
        f"Next      stoker evaluate '{place}'",
        f"          stoker report '{place}'",
        f"          stoker predict '{place}' 'my data.csv' -o predictions.csv",
    ]


@pytest.mark.parametrize(
    ("stopped", "words"),
    [
        ("finished", "finished after 2 epochs in 1.2s"),
        ("patience", "stopped early after 2 epochs in 1.2s: no gain for as many as --patience allows"),
        ("interrupted", "interrupted by Ctrl-C after 2 epochs in 1.2s; what was learnt is kept"),
        ("non-finite", "ended after 2 epochs in 1.2s (non-finite)"),
    ],
)
def test_how_a_training_ended(stopped: str, words: str) -> None:
    assert show.how_it_ended(history(stopped)) == words


def test_one_epoch_and_none_better() -> None:
    assert show.how_it_ended(History([{"epoch": 1}], None, 1, "finished", 0.5)) == "finished after 1 epoch in 0.50s"
    assert show.best_epoch(history(monitor=None)) == ""
    assert show.best_epoch(History([], "valid_loss", 0, "interrupted", 0.5)) == ""


def test_metrics_as_json_have_null_for_what_is_not_defined(capsys: pytest.CaptureFixture[str]) -> None:
    show.metrics_json({"loss": 0.1, "auroc": math.nan, "mse": math.inf})
    assert json.loads(capsys.readouterr().out) == {"loss": 0.1, "auroc": None, "mse": None}
