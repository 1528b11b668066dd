"""What is refused leaves nothing behind, and says why in a line."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from subjects import fit, fitted, table

import stoker
from stoker.errors import (
    ConfigError,
    DiskFullError,
    ExportError,
    MissingExtraError,
    RunError,
    RunExistsError,
    RunNotFoundError,
    SourceNotFoundError,
    StokerError,
    UnknownNameError,
)
from stoker.exporting import formats, job, place
from stoker.exporting.fresh import ask
from stoker.exporting.rows import name_of_row, real_rows

SOURCE = r"row [\d,]+ of \S+/table\.csv"
WRONG = rf"got the prediction \S+ instead of \S+ for (a copy with other values of )?{SOURCE} \(size=.*\), alone"
DIFFERS = rf"must answer what the model answers, within .*, {WRONG}"
CHOOSES = r"networks\.py, line \d+: if x\[:, 0\]\.sum\(\) > 0\. Use --format torchscript-script"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("name", "form", "text"),
    [
        pytest.param("own, otherwise", "onnx", DIFFERS, marks=pytest.mark.slow),
        pytest.param("own, otherwise", "torch-export", DIFFERS, marks=pytest.mark.slow),
        ("own, otherwise", "torchscript-trace", DIFFERS),
        (
            "own, tied",
            "torchscript-trace",
            rf"the same top class, got class 'middle' instead of 'low' for {SOURCE} \(size=",
        ),
        ("own, branching", "torchscript-trace", rf"tracing would freeze a value, or a choice by values.*{CHOOSES}"),
        ("own, scaled", "torchscript-trace", r"tracing would freeze a value.*float\(x\.abs\(\)\.max\(\)\)"),
        ("own, numpy", "torchscript-trace", r"tracing would freeze a value.*x\.detach\(\)\.numpy\(\)"),
        ("own, branching", "torch-export", rf"must not take values out of tensors.*{CHOOSES}"),
        pytest.param(
            "own, branching", "onnx", rf"must not take values out of tensors.*{CHOOSES}", marks=pytest.mark.slow
        ),
        pytest.param(
            "own, half",
            "onnx",
            r"--format onnx: the file must load and answer in a fresh process, got .*NOT_IMPLEMENTED",
            marks=pytest.mark.slow,
        ),
        ("own, numpy", "torch-export", r"the exporter must take the model, got RuntimeError: \.numpy\(\) is not"),
        ("own, numpy", "torchscript-script", r"the exporter must take the model.*or use --format torch-export"),
    ],
)
def test_a_model_that_the_format_would_change(name: str, form: str, text: str, tmp_path: Path) -> None:
    out = tmp_path / "new" / f"model{formats.FORMATS[form].suffix}"
    with pytest.raises(ExportError, match=text) as caught:
        stoker.export(fitted(name), form, out=out, bench=False)
    assert not out.exists()
    if caught.value.log:
        assert names(tmp_path) == [f"{out.name}.log"]
        assert caught.value.log.strip() in (tmp_path / "new" / f"{out.name}.log").read_text()
        assert "\n" not in str(caught.value)
    else:
        assert list(tmp_path.iterdir()) == []


def test_the_row_that_is_named_is_that_of_the_source(tmp_path: Path) -> None:
    run = fitted("own, tied")
    with pytest.raises(ExportError) as caught:
        stoker.export(run, "torchscript-trace", out=tmp_path / "m.pt", bench=False)
    named = re.search(r"for row (\d+) of (\S+) \(size=(\S+), rooms=(\S+), ", str(caught.value))
    assert named, str(caught.value)
    frame = pl.read_csv(run.record.sources["train"].origin)
    assert named[2] == run.record.sources["train"].origin
    row = frame.row(int(named[1]) - 1, named=True)
    assert float(named[3]) == pytest.approx(math.nan if row["size"] is None else row["size"], nan_ok=True)
    assert float(named[4]) == row["rooms"]
    assert int(named[1]) - 1 in run.splits()["test"].rows


def test_rows_are_named_by_their_source_where_they_have_one(tmp_path: Path) -> None:
    frame = table("price", 90).with_columns(y=pl.when(pl.int_range(90) < 20).then(None).otherwise(pl.col("y")))
    frame.write_csv(tmp_path / "some.csv")
    real = real_rows(fitted("mlp, a number"), tmp_path / "some.csv")
    assert real.numbers is not None
    assert real.numbers.tolist() == list(range(20, 90)), "of the file, those without a target counted in"
    origin = tmp_path / "some.csv"
    assert name_of_row(0, real) == f"row 21 of {origin}"
    assert name_of_row(63, real) == f"row 89 of {origin}", "the last of 64 that lie evenly among 70"
    assert name_of_row(64, real) == f"a copy with other values of row 21 of {origin}"
    assert name_of_row(7, None) == "row 7 of those made from the schema"
    pictures = real_rows(fitted("cnn, images"))
    assert pictures.numbers is not None
    assert name_of_row(0, pictures).startswith(f"image {int(pictures.numbers[0]) + 1} of ")
    assert name_of_row(1000, pictures) == "image 1000, one of noise or of one shade,"


def test_scripting_keeps_a_choice_by_values(tmp_path: Path) -> None:
    told: list[str] = []
    done = stoker.export(
        fitted("own, branching"), "torchscript-script", out=tmp_path / "m.pt", bench=False, notify=told.append
    )
    assert done.files[0].difference == 0
    assert told == [
        "TorchScript still works, but PyTorch develops it no further: --format torch-export is its successor"
    ]


@pytest.mark.slow
def test_deprecation_is_told_once_for_two_formats_and_in_our_words(tmp_path: Path) -> None:
    told: list[str] = []
    both = ("torchscript-trace", "torchscript-script")
    done = stoker.export(fitted("own, a number"), both, out=tmp_path, bench=False, notify=told.append)
    assert len(told) == 1
    assert [file.path.name for file in done.files] == ["model.traced.pt", "model.scripted.pt"]


@pytest.mark.slow
def test_of_several_formats_the_others_are_made(tmp_path: Path) -> None:
    done = stoker.export(fitted("own, branching"), ["torchscript-trace", "safetensors"], out=tmp_path, bench=False)
    assert [file.format for file in done.files] == ["safetensors"]
    assert isinstance(done.refused["torchscript-trace"], ExportError)
    assert "model.traced.pt" not in names(tmp_path)


@pytest.mark.parametrize(
    ("settings", "kind", "text"),
    [
        ({"format": "onx"}, UnknownNameError, r"--format: .*'onx'\. Did you mean 'onnx'\? Known: onnx, torch-export"),
        ({"format": ()}, ConfigError, "--format: must name a format, got none"),
        ({"format": "torch-export", "quantize": "int8"}, ConfigError, "--quantize: is for onnx, got torch-export"),
        ({"quantize": "int4"}, UnknownNameError, "--quantize: .*'int4'.*Known: int8"),
        (
            {"format": "safetensors", "optimize": True},
            ConfigError,
            "--optimize: is for onnx, torchscript-trace, torchs",
        ),
        ({"out": "model.txt"}, ConfigError, r"--out: must end in \.onnx for onnx, got model\.txt"),
        ({"rows": "nowhere.csv"}, SourceNotFoundError, "nowhere.csv"),
    ],
)
def test_settings_that_cannot_be(
    settings: dict[str, Any], kind: type[StokerError], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind, match=text):
        stoker.export(fitted("mlp, a number"), **{"out": "model.onnx", "bench": False, **settings})
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_kept_unless_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    out.write_text("mine")
    with pytest.raises(RunExistsError, match=r"--out: must not exist yet, got .* or say --overwrite"):
        stoker.export(fitted("mlp, a number"), "safetensors", out=out)
    assert out.read_text() == "mine"
    done = stoker.export(fitted("mlp, a number"), "safetensors", out=out, overwrite=True)
    assert done.path.stat().st_size > 1000
    (tmp_path / "model.safetensors.json").unlink()
    (tmp_path / "model.safetensors.json").mkdir()
    with pytest.raises(RunExistsError, match=r"must not exist yet, got .*json\. Choose another --out\."):
        stoker.export(fitted("mlp, a number"), "safetensors", out=out, overwrite=True)


def test_a_refused_export_leaves_what_was_there(tmp_path: Path) -> None:
    out = tmp_path / "model.traced.pt"
    out.write_text("the old one")
    with pytest.raises(ExportError):
        stoker.export(fitted("own, otherwise"), "torchscript-trace", out=out, overwrite=True)
    assert out.read_text() == "the old one"
    assert names(tmp_path) == ["model.traced.pt"]


def test_a_file_that_never_answers_is_given_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.onnx")  # opening it waits for a writer
    text = "--format onnx: the file must load and answer in a fresh process within 2 s, got no answer"
    with pytest.raises(ExportError, match=text):
        ask("onnx", tmp_path / "m.onnx", {"numeric": torch.zeros(1, 1)}, where="--format onnx", limit=2.0)


def test_a_log_that_is_somebody_elses_is_left_alone(tmp_path: Path) -> None:
    log = tmp_path / "model.safetensors.log"
    log.write_text("mine")
    stoker.export(fitted("mlp, a number"), "safetensors", out=tmp_path / "model.safetensors")
    assert log.read_text() == "mine"
    error = ExportError("x", "must be so", "not", "")
    error.log = "what the exporter said"
    place.keep_log(error, tmp_path / "model.safetensors")
    assert log.read_text() == "mine"
    assert "All that" not in str(error)
    log.unlink()
    place.keep_log(error, tmp_path / "model.safetensors")
    assert log.read_text().endswith("what the exporter said")
    stoker.export(fitted("mlp, a number"), "safetensors", out=tmp_path / "model.safetensors", overwrite=True)
    assert not log.exists()


def test_the_model_is_there_before_its_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def replace(self: Path, target: Path) -> Path:
        if target.parent == tmp_path and target.suffix == ".json":
            raise KeyboardInterrupt
        return real(self, target)

    real = Path.replace
    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        stoker.export(fitted("mlp, a number"), "safetensors", out=tmp_path / "model.safetensors")
    assert names(tmp_path) == ["model.safetensors"]


def test_sigterm_leaves_no_rows_behind(tmp_path: Path) -> None:
    code = """
import signal, sys
from pathlib import Path
from stoker.exporting.place import workplace
with workplace(Path(sys.argv[1]) / "new" / "m.onnx") as folder:
    (folder / "rows.npz").write_text("the user's rows")
    print("there", flush=True)
    signal.pause()
"""
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        assert names(tmp_path) == ["rows.npz"]
        process.terminate()
        assert process.wait(timeout=60) == 143
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="--out: must be in a directory"):
        stoker.export(fitted("mlp, a number"), "safetensors", out=tmp_path / "file" / "model.safetensors")
    with pytest.raises(ConfigError, match="--out: must be a directory for several formats"):
        stoker.export(fitted("mlp, a number"), ["safetensors", "state-dict"], out=tmp_path / "file")


def test_no_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(job, "flush", full)
    with pytest.raises(DiskFullError, match=r"model\.safetensors: no room left on the disk"):
        stoker.export(fitted("mlp, a number"), "safetensors", out=tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_extra(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.util import find_spec as real

    monkeypatch.setattr(formats.base, "find_spec", lambda name: None if name == package else real(name))
    text = rf'needs the package {package}, which is not installed\. Run: pip install "stoker\[export\]"'
    with pytest.raises(MissingExtraError, match=text):
        stoker.export(fitted("mlp, a number"), "onnx", out=tmp_path / "model.onnx")


def test_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import cpp_builder
    from torch._inductor.exc import InvalidCxxCompiler

    def none() -> str:
        raise InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none)
    with pytest.raises(ExportError, match=r"--format aoti: needs a C\+\+ compiler, got none.*torch-export needs none"):
        stoker.export(fitted("mlp, a number"), "aoti", out=tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []


def test_runs_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(RunNotFoundError):
        stoker.export(tmp_path / "nothing")
    folder = tmp_path / "run"
    folder.mkdir()
    for file in fitted("mlp, a number").path.glob("*.*"):
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(RunError, match=r"model\.safetensors: must be a safetensors file"):
        stoker.export(folder)
    assert not (folder / "exports").exists()


@pytest.mark.slow
def test_a_source_that_is_gone_or_another(tmp_path: Path) -> None:
    source = tmp_path / "table.csv"
    table("grade").write_csv(source)
    run = fit(source, tmp_path / "run", target="y", hidden=(4,))
    told: list[str] = []
    table("grade", seed=3).write_csv(source)
    stoker.export(run, "onnx", bench=False, notify=told.append)
    source.unlink()
    done = stoker.export(run, "onnx", bench=False, overwrite=True, notify=told.append)
    assert [text.partition(" (")[0] for text in told] == [
        "compared on rows made from the schema, as the run's source cannot be read"
    ] * 2
    assert json.loads(done.files[0].contract.read_text())["compared"]["real_rows"] is False
    assert done.files[0].rows > 64
    with pytest.raises(ExportError, match="--quantize int8: needs rows with their targets"):
        stoker.export(run, "onnx", quantize="int8", bench=False)
    rows = table("grade", seed=5)
    done = stoker.export(run, "onnx", quantize="int8", rows=rows, bench=False)
    assert set(done.files[0].metrics) == {"before", "after"}
    calibrated = json.loads(done.files[0].contract.read_text())["calibrated_on"]
    assert calibrated == "every second of the rows that were named; measured on the others"


def test_rows_that_are_named_must_fit(tmp_path: Path) -> None:
    with pytest.raises(StokerError, match="must have every column that the model was trained on"):
        stoker.export(fitted("mlp, a number"), "onnx", rows=pl.DataFrame({"other": [1, 2]}), out=tmp_path / "m.onnx")


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys, stoker.cli.app; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
