"""``config.json`` and ``metrics.json``, which may come from anyone."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stoker.errors import RunError
from stoker.runs.files import write_json
from stoker.runs.record import Record, SourceRecord, TrainingRecord, read_metrics, read_record

RECORD = Record(
    format=1,
    versions={"stoker": "0.1.0", "torch": "2.13.0"},
    name="homes",
    sources={"train": SourceRecord(name="homes", origin="data/homes.csv", fingerprint="sha256:0", rows=100)},
    rows={"train": 60, "valid": 20, "test": 20},
    duplicates={"of test also in train": 2},
    notices=("column 'year' is left out",),
    settings={"training": {"epochs": 3}},
    training=TrainingRecord(
        engine="eager",
        engine_reason="as asked",
        device="cpu",
        epochs=3,
        steps=6,
        monitor="valid_loss",
        best_epoch=2,
        stopped="finished",
        seconds=1.5,
        parameters=7,
    ),
    recipe={"kind": "table"},
)


def test_it_reads_back(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", RECORD.model_dump(mode="json"))
    assert read_record(tmp_path / "config.json") == RECORD


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda data: data.update(format=2), r"must be of format 1, got 2\. It was written by another Stoker\."),
        (lambda data: data.update(format="1"), r"must be of format 1, got '1'\."),
        (lambda data: data.pop("format"), r"must be of format 1, got None\."),
        *(
            (lambda data, name=name: data.pop(name), rf"config\.{name}: must be there, got none")
            for name in (
                "versions",
                "name",
                "sources",
                "rows",
                "duplicates",
                "notices",
                "settings",
                "training",
                "recipe",
            )
        ),
        (lambda data: data.update(more=1), r"config: must be one of the known names, got 'more'"),
        (lambda data: data.update(sources=[]), r"config\.sources: must be settings by name, got \[\]"),
        (
            lambda data: data["sources"].update(other=data["sources"]["train"]),
            r"config\.sources\.other.*: must be one of the known names",
        ),
        (
            lambda data: data["sources"]["train"].pop("origin"),
            r"config\.sources\.train\.origin: must be there, got none",
        ),
        (
            lambda data: data["sources"]["train"].update(origin=5),
            r"config\.sources\.train\.origin: must be text, got 5",
        ),
        (lambda data: data["rows"].update(train="many"), r"config\.rows\.train: must be a valid integer"),
        (
            lambda data: data["rows"].update(train=-1),
            r"config\.rows\.train: must be greater than or equal to 0, got -1",
        ),
        (lambda data: data.update(notices=5), r"config\.notices: must be a list, got 5"),
        (lambda data: data["training"].update(stopped="bored"), r"config\.training\.stopped: .* got 'bored'"),
        (
            lambda data: data["training"].update(best_epoch="two"),
            r"config\.training\.best_epoch: must be a valid integer",
        ),
        (lambda data: data["training"].update(monitor=5), r"config\.training\.monitor: must be text, got 5"),
        (
            lambda data: data["training"].update(seconds=None),
            r"config\.training\.seconds: must be a valid number, got None",
        ),
        (lambda data: data.update(training=3), r"config\.training: must be settings by name, got 3"),
        (
            lambda data: data.update(recipe=[1] * 1000),
            r"config\.recipe: must be settings by name, got \[1, 1, .{40,60}…",
        ),
    ],
)
def test_it_is_not_trusted(change: Change, match: str, tmp_path: Path) -> None:
    data = copy.deepcopy(RECORD.model_dump(mode="json"))
    change(data)
    (tmp_path / "config.json").write_text(json.dumps(data))
    with pytest.raises(RunError, match=match) as caught:
        read_record(tmp_path / "config.json")
    assert str(caught.value).startswith(f"{tmp_path}: ")


def test_metrics_read_back_with_what_json_does_not_have(tmp_path: Path) -> None:
    write_json(tmp_path / "metrics.json", {"train": {"loss": 0.1, "auroc": math.nan}, "test": {"loss": 1}})
    read = read_metrics(tmp_path / "metrics.json")
    assert read["test"] == {"loss": 1.0}
    assert read["train"]["loss"] == 0.1
    assert math.isnan(read["train"]["auroc"])
    assert list(read) == ["train", "test"]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("[]", r"metrics\.json: must be a JSON object, got list\."),
        ('{"test": 3}', r"metrics\.json: must hold numbers by split and name \(.*got 3\.\)\. Copy the run again\."),
        ('{"test": {"loss": "low"}}', r"must hold numbers by split and name \(.*got 'low'\.\)"),
        ('{"test": {"loss": [1]}}', r"must hold numbers by split and name \(.*got \[1\]\.\)"),
        ("{", r"metrics\.json: must be JSON"),
    ],
)
def test_metrics_are_not_trusted(text: str, match: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(RunError, match=match):
        read_metrics(tmp_path / "metrics.json")
    with pytest.raises(RunError, match=r"is missing from the run"):
        read_metrics(tmp_path / "none.json")
