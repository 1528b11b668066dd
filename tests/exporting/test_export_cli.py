"""``stoker export`` and ``stoker import-weights`` as they are typed, and what they show."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from subjects import fitted
from typer.testing import CliRunner

import stoker
from stoker.cli.app import app

OWN = ["--model", "networks:Branching"]
WIDE = {"COLUMNS": "80"}


def test_the_table_and_the_files(tmp_path: Path) -> None:
    run = fitted("mlp, two classes")
    result = CliRunner().invoke(
        app, ["export", str(run.path), "-f", "onnx,state-dict", "--out", str(tmp_path), "--no-bench"], env=WIDE
    )
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[1].split() == ["size", "load", "one", "row", "rows/s", "at", "256"]
    assert re.match(r"onnx +\S+ kB +\S+ ms +– +–", lines[2])
    assert re.match(r"state-dict +\S+ kB +– +– +–", lines[3])
    assert f"File      {tmp_path / 'model.onnx'}" in lines
    assert re.search(r"\d+ rows in batches of 1, 2, 7, 64 differ by \S+ at most", result.stdout)
    assert "every tensor is the network's, bit for bit" in result.stdout
    assert all(len(line) <= 80 or "File" in line for line in lines)


@pytest.mark.slow
def test_a_refusal_is_a_line_and_the_rest_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = fitted("own, branching")
    arguments = ["export", str(run.path), *OWN, "--out", f"{tmp_path}/", "--no-bench"]
    one = CliRunner().invoke(app, [*arguments, "-f", "torchscript-trace"], env=WIDE)
    assert one.exit_code == 1
    assert "error: --format torchscript-trace: tracing would freeze a value" in one.stderr
    assert one.stdout == ""
    verbose = CliRunner().invoke(app, [*arguments, "-f", "torchscript-trace", "--verbose"], env=WIDE)
    assert "GuardOnDataDependentSymNode" in verbose.stderr
    assert "GuardOnDataDependentSymNode" not in one.stderr
    two = CliRunner().invoke(app, [*arguments, "-f", "torchscript-trace", "-f", "safetensors"], env=WIDE)
    assert two.exit_code == 1
    assert "model.safetensors" in two.stdout


@pytest.mark.slow
def test_int8_says_what_it_costs(tmp_path: Path) -> None:
    run = fitted("mlp, a number")
    out = str(tmp_path / "m.onnx")
    result = CliRunner().invoke(
        app, ["export", str(run.path), "--quantize", "int8", "--no-bench", "--out", out], env=WIDE
    )
    assert result.exit_code == 0, result.output
    assert re.search(r"int8 +rmse \S+ before, \S+ after", result.stdout)


def test_importing(tmp_path: Path) -> None:
    run = fitted("numbers alone")
    torch.save(run.artifact.model.head.network.state_dict(), tmp_path / "w.pth")
    new = tmp_path / "new"
    arguments = ["import-weights", str(tmp_path / "w.pth"), "--run", str(run.path), "--out", str(new)]
    result = CliRunner().invoke(app, arguments, env=WIDE)
    assert result.exit_code == 0, result.output
    assert "note: 4 entries fit" in result.stderr
    assert f"Run       {new}" in result.stdout
    assert stoker.load(new).metrics["test"]["rmse"] == pytest.approx(run.metrics["test"]["rmse"])
    again = CliRunner().invoke(app, arguments, env=WIDE)
    assert (again.exit_code, again.stdout) == (1, "")
    assert "error: --out: must not exist yet" in again.stderr


def test_help_names_every_format() -> None:
    from stoker.exporting.formats import FORMATS

    text = " ".join(CliRunner().invoke(app, ["export", "--help"], env={"COLUMNS": "200"}).stdout.split())
    assert all(name in text for name in FORMATS)
