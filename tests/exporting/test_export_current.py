"""Whether an exported file is that of the run as it is now; and that ONNX Runtime keeps to itself what it runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from subjects import fitted

import stoker
from stoker.errors import ExportError
from stoker.exporting.current import contract_path, read_current
from stoker.exporting.formats import FORMATS

pytest.importorskip("onnxruntime")
ONNX = FORMATS["onnx"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its export in it."""
    path = tmp_path_factory.mktemp("current") / "run"
    shutil.copytree(fitted("mlp, two classes").path, path)
    stoker.export(path, "onnx", bench=False)
    return path


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> stoker.Run:
    return stoker.load(shutil.copytree(whole, tmp_path / "run"), device="cpu")


def file_of(run: stoker.Run) -> Path:
    return run.path / "exports" / "model.onnx"


def test_an_export_is_current_as_long_as_nothing_changes(run: stoker.Run) -> None:
    assert read_current(run, ONNX, file_of(run)) == file_of(run).read_bytes()
    contract = json.loads(contract_path(file_of(run)).read_text())
    assert {name: len(digest) for name, digest in contract["sha256"].items()} == dict.fromkeys(
        ("file", "weights", "recipe"), 64
    )
    assert contract_path(file_of(run)).stat().st_mode == file_of(run).stat().st_mode, "who may read one may read both"


def said(**change: Any) -> Callable[[stoker.Run], None]:
    """The contract says something else; ``None`` for nothing."""

    def damage(run: stoker.Run) -> None:
        path = contract_path(file_of(run))
        told = json.loads(path.read_text()) | change
        path.write_text(json.dumps({name: value for name, value in told.items() if value is not None}))

    return damage


def written(name: str, content: bytes) -> Callable[[stoker.Run], None]:
    def damage(run: stoker.Run) -> None:
        (run.path / name).write_bytes(content)

    return damage


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda run: file_of(run).unlink(), "must be there with its contract, got FileNotFoundError"),
        (lambda run: contract_path(file_of(run)).unlink(), "must be there with its contract, got RunError"),
        (written("exports/model.onnx.json", b"{"), "must be there with its contract, got RunError"),
        (written("exports/model.onnx.json", b"[]"), "must be there with its contract, got RunError"),
        (written("exports/model.onnx", b""), "must have the bytes that were compared, got others"),
        (written("model.safetensors", b""), "must be made of the run's weights, got others"),
        (lambda run: run.record.recipe.update(target="z"), "must be made of the run's recipe, got others"),
        (said(sha256=None), "must have the bytes that were compared, got one without their digests"),
        (said(sha256=7), "must have the bytes that were compared, got others"),
        (said(format="torch-export"), "must be the run's export as onnx, of full precision, got another"),
        (said(quantized={}), "must be the run's export as onnx, of full precision, got another"),
        (said(versions={"stoker": "0"}), "must be compared with stoker .*, got 0"),
        (said(versions=None), "must be compared with stoker .*, got None"),
    ],
)
def test_an_export_that_is_not_current_says_why(
    change: Callable[[stoker.Run], None], text: str, run: stoker.Run
) -> None:
    change(run)
    with pytest.raises(ExportError, match=rf"model\.onnx: {text}\. Export it again\."):
        read_current(run, ONNX, file_of(run))


@pytest.mark.slow
def test_an_int8_file_is_not_the_export_of_full_precision(run: stoker.Run) -> None:
    small = stoker.export(run, "onnx", quantize="int8", bench=False).path
    with pytest.raises(ExportError, match=r"must be the run's export as onnx, of full precision"):
        read_current(run, ONNX, small)


@pytest.mark.slow
def test_onnx_runtime_reports_nothing(run: stoker.Run, tmp_path: Path) -> None:
    """Its reporting keeps a file among the temporary ones from the moment it is imported."""
    place = tmp_path / "temporary"
    place.mkdir()
    command = [sys.executable, "-m", "stoker", "export", str(run.path), "--optimize", "--quantize", "int8"]
    environment = {"TMPDIR": str(place), "ORT_DISABLE_TELEMETRY": "", "HOME": str(place)}
    subprocess.run([*command, "--no-bench"], env=os.environ | environment, capture_output=True, check=True)
    assert [path.name for path in place.rglob("*") if ".ses" in path.name or "onnx" in path.name.lower()] == []
