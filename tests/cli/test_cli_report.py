"""``stoker report`` and ``stoker doctor``, at work."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import stoker
from stoker.cli import checkup
from stoker.cli.app import app
from stoker.doctor.findings import Checkup, Finding, Rate

WIDTH = {"COLUMNS": "80"}


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=WIDTH)


@pytest.fixture(scope="module")
def iris(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("iris") / "run"
    return stoker.fit("iris", out=out, epochs=2, hidden=(8,), progress="none", device="cpu", engine="eager").path


def test_report_prints_where_it_is(iris: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.html"
    result = invoke("report", iris, "--out", out, "--samples", 100, "--repeats", 1, "--calibrate")
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{out}\n", "")
    page = out.read_text()
    assert "percentile bootstrap over rows, 100 samples" in page
    assert "shuffled 1 time over" in page
    assert "temperature" in page
    again = invoke("report", iris, "--out", out)
    assert again.exit_code == 1
    assert again.stderr == (
        f"error: --out: must not exist yet, got {out}. Choose another name with --out: Stoker overwrites nothing.\n"
    )


def test_report_of_what_is_no_run(tmp_path: Path) -> None:
    result = invoke("report", tmp_path)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: run: must be a directory that stoker fit made")
    assert invoke("report").exit_code == 2


CHECKUP = Checkup(
    {"system": "Linux 6.1, x86_64", "processor": "A Chip " * 12 + "9, 8 CPUs", "memory": "7.6 GiB"},
    {"stoker": "0.1.0", "python": "3.11.7", "torch": "2.13.0+cpu"},
    [
        Finding("torch", "works", "2.13.0+cpu; AVX512"),
        Finding(
            "torchvision", "broken", "0.28: RuntimeError: \x1b[31m" + "it is long " * 20, "pip install torchvision"
        ),
        Finding("fastapi", "absent", "not installed; for stoker serve", 'pip install "stoker[serve]"'),
        Finding("threads", "poor", "torch uses 1 of 8 CPUs", "unset OMP_NUM_THREADS"),
    ],
    [Rate("cpu", "float32", threads, size, 12.3456 * threads * size) for threads in (1, 8) for size in (64, 1024)],
)


def test_doctor_fits_into_eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stoker.doctor.checkup.check_up", lambda *_, **__: CHECKUP)
    result = invoke("doctor")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "✗ torchvision  0.28: RuntimeError: \\x1b[31mit is long" in result.stdout
    assert '    pip install "stoker[serve]"' in lines
    assert lines[-3].split() == ["threads", "n", "=", "64", "n", "=", "1024"]
    assert lines[-1].split() == ["8", "6,321", "101,135"]


def test_doctor_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr("stoker.doctor.checkup.check_up", lambda *_, **how: asked.update(how) or CHECKUP)
    result = invoke("doctor", "--json", "--no-rates")
    assert asked == {"rates": False}
    assert json.loads(result.stdout) == CHECKUP.to_dict()
    assert json.loads(result.stdout)["ok"] is False
    assert result.exit_code == 0


def test_doctor_does_not_import_torch_itself() -> None:
    code = "import sys, stoker.doctor.checkup, stoker.cli.checkup; print('torch' in sys.modules, 'jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.slow
def test_doctor_for_real() -> None:
    result = invoke("doctor", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    names = {one["name"]: one["status"] for one in found["findings"]}
    assert names["torch"] == names["the core's packages"] == "works"
    assert names["torch.compile"] == ("works" if names["C++ compiler"] == "works" else "absent")
    assert {rate["device"] for rate in found["rates"]} >= {"cpu"}
    assert all(rate["gflops"] > 0 for rate in found["rates"])
    assert checkup.HELP
