"""What shows only in a process of its own: imports, pipes, encodings, signals."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stoker._version import __version__

STOKER = [sys.executable, "-m", "stoker"]
# Newer versions of typer import pydantic themselves; our settings, which are made of it, must wait all the same.
OURS = {"stoker.jobs", "stoker.settings", "stoker.models", "stoker.data.schema"}
HEAVY = {"torch", "polars", "sklearn", "numpy", "pandas", "matplotlib", "torchmetrics", "narwhals"} | OURS


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*STOKER, *arguments], env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("arguments", [["--help"], ["fit", "--help"], ["--version"], ["fit"], ["nonsense"]])
def test_help_waits_for_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys, stoker.cli\n"
        "try: stoker.cli.main()\n"
        "except SystemExit: pass\n"
        f"print('heavy:', *sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "heavy:"


def test_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"stoker {__version__}\n", "")


def test_without_arguments_there_is_help() -> None:
    done = run()
    assert "Usage: stoker [OPTIONS] COMMAND" in done.stdout + done.stderr
    assert all(name in done.stdout + done.stderr for name in ("fit", "evaluate", "predict", "inspect"))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "a.csv"
    path.write_text("größe,x\n" + "".join(f"{n}.5,{n * n}.25\n" for n in range(20)), encoding="utf-8")
    return path


def test_ascii_will_do(table: Path) -> None:
    for arguments in (["fit", "--help"], ["inspect", str(table)]):
        done = run(*arguments, PYTHONIOENCODING="ascii", COLUMNS="80")
        assert done.returncode == 0, done.stderr
        assert done.stdout.isascii()
        assert max(map(len, done.stdout.splitlines())) <= 80
    assert "\ngr??e   numeric " in done.stdout


def test_a_colourless_error_in_one_line_however_narrow() -> None:
    done = run("inspect", "nonsense.csv", COLUMNS="20")
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(r"error: .*nonsense\.csv.*\n", done.stderr)
    assert "\x1b" not in done.stderr


@pytest.mark.slow
def test_the_training_step_is_shown_and_nothing_is_made(tmp_path: Path) -> None:
    arguments = ["inspect", "iris", "--graph", "--hidden", "8", "--batch-size", "16", "--device", "cpu"]
    command = [*STOKER, *arguments, "--optimizer", "adam"]
    environment = os.environ | {"COLUMNS": "80"}
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"note: 1 row of valid also in train.*\n", done.stderr)
    graph, _, table = done.stdout.partition("\nOne step of 16 rows on cpu: ")
    lines = graph.splitlines()
    assert [line for line in lines if line.startswith("# ")][1:3] == ["# forward", "# backward"]
    assert "# update" in lines
    # 4 numbers to 8 units to 3 classes
    assert any(re.fullmatch(r"%\S+: f32\[16, 3\] = aten\.addmm\.default\(.*\)", line) for line in lines)
    assert sum("= aten." in line for line in lines) == int(table.split()[0])
    assert "\nmatrix " in table
    assert table.endswith("\nNothing found keeps this step from being compiled.\n")
    assert max(map(len, table.splitlines())) <= 80
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such pipes")
@pytest.mark.parametrize("command", ["--help", "inspect"])
def test_a_reader_that_goes_away_is_no_news(command: str, table: Path) -> None:
    arguments = [command, str(table)] if command == "inspect" else [command]
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as pipe:
        done = subprocess.run(
            [*STOKER, *arguments], stdout=pipe, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert done.stderr == ""
    assert done.returncode in {1, 141}  # click ends with 1 where it is the one to notice


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("command", ["--help", "inspect"])
def test_a_full_output_is_an_error(command: str, table: Path) -> None:
    arguments = [command, str(table)] if command == "inspect" else [command]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*STOKER, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: No space left on device."
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT to send")
def test_ctrl_c_keeps_what_is_trained(tmp_path: Path) -> None:
    command = [*STOKER, "fit", "iris", "--epochs", "1000000", "--device", "cpu", "--out", str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("epoch 3/"):
                process.send_signal(signal.SIGINT)
                break
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Training  interrupted by Ctrl-C after " in stdout
    assert {"model.safetensors", "metrics.json"} <= {file.name for file in (tmp_path / "run").iterdir()}
    assert "Traceback" not in stderr
