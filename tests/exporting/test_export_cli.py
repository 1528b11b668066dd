"""``stoker export`` and ``stoker import-weights`` as they are typed, and what they show."""

from __future__ import annotations

import math
import re
from functools import partial
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from subjects import fitted
from typer.testing import CliRunner

import stoker
from stoker.cli.app import app
from stoker.cli.exporting import _table
from stoker.exporting import bench, job
from stoker.exporting.bench import Timing
from stoker.exporting.job import Exported, ExportedFile

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


def cells(table: str) -> dict[str, list[str]]:
    """The rows of the table of an export, by name."""
    found = re.findall(r"^(\S+(?: int8)?) +(–|\S+ [kM]B) +(–|\S+ \S?s) +(–|\S+ \S?s) +(–|[\d,]+)$", table, re.MULTILINE)
    return {name: rest for name, *rest in found}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "names"),
    [
        (
            ["-f", "torch-export,torchscript-trace,torchscript-script,state-dict"],
            ["torch-export", "torchscript-trace", "torchscript-script", "state-dict", "eager", "torch.compile"],
        ),
        (["-f", "onnx", "--quantize", "int8"], ["onnx int8", "eager", "torch.compile"]),
    ],
    ids=["torch", "int8"],
)
def test_the_table_has_figures(
    options: list[str], names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "SECONDS", 0.05)
    monkeypatch.setattr(job, "baselines", partial(bench.baselines, seconds=0.05))
    run = fitted("mlp, two classes")
    result = CliRunner().invoke(app, ["export", str(run.path), *options, "--out", f"{tmp_path}/"], env=WIDE)
    assert result.exit_code == 0, result.output
    found = cells(result.stdout)
    if "torch.compile was not measured" in result.stdout:  # where there is no compiler
        names = names[:-1]
    assert list(found) == names
    for name, (size, load, latency, throughput) in found.items():
        assert (size == "–") is (name in ("eager", "torch.compile"))
        assert (load == "–") is (name in ("eager", "state-dict"))
        assert (latency == throughput == "–") is (name == "state-dict")
        if name != "state-dict":
            number, unit = latency.split()
            assert 0 < float(number) * {"s": 1.0, "ms": 1e-3, "µs": 1e-6}[unit] < 1
            assert int(throughput.replace(",", "")) > 256


def test_the_fastest_is_in_bold() -> None:
    names = {"onnx": (50e-6, 2e6), "torch-export": (120e-6, 3e6), "state-dict": (math.nan, math.nan)}
    files = tuple(
        ExportedFile(name, Path("m"), Path("m.json"), 5, 0.0, Timing(name, 1000, 0.01, latency, throughput))
        for name, (latency, throughput) in names.items()
    )
    baselines = (Timing("eager", latency=90e-6, throughput=1e6), Timing("torch.compile", note="no compiler"))
    told = StringIO()
    out = Console(file=told, width=80, force_terminal=True, color_system="standard", legacy_windows=False)
    out.print(_table(Exported(files, {}, baselines)))
    lines = told.getvalue().splitlines()
    assert [re.findall(r"\x1b\[1m *([^\x1b]*?) *\x1b", line) for line in lines[1:]] == [
        ["50 µs"],
        ["3,000,000"],
        [],
        [],
    ]
    assert "torch.compile" not in told.getvalue()
    shown = cells("\n".join(line.rstrip() for line in re.sub(r"\x1b\[[\d;]*m", "", told.getvalue()).splitlines()))
    assert shown == {
        "onnx": ["1.0 kB", "10 ms", "50 µs", "2,000,000"],
        "torch-export": ["1.0 kB", "10 ms", "120 µs", "3,000,000"],
        "state-dict": ["1.0 kB", "10 ms", "–", "–"],
        "eager": ["–", "–", "90 µs", "1,000,000"],
    }


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
