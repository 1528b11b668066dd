"""A few seconds of coverage-guided fuzzing for each loader; ``make fuzz`` has more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import run

RUN = Path(__file__).with_name("run.py")
TARGETS = ("config", "weights", "checkpoint", "resume", "import-weights", "body", "rows")


def fuzzed(*arguments: str, place: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(RUN), *arguments]
    return subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=280, check=False)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("target", TARGETS)
def test_nothing_is_found_in_a_few_seconds(target: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="fuzzing needs the package atheris")
    done = fuzzed("3", target, place=tmp_path)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "nothing found" in done.stdout
    assert " 0 inputs" not in done.stdout
    assert any((tmp_path / ".fuzz" / target / "corpus").iterdir())


FAULTY = """
import sys, atheris
atheris.Setup([sys.argv[0], *sys.argv[3:]], lambda data: {b"{": 1, b"[": 2}[data[:1]])
atheris.Fuzz()
"""


@pytest.mark.slow
@pytest.mark.long
def test_a_finding_is_shown_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a loader with a fault: what begins with another letter ends in an error that is not ours."""
    pytest.importorskip("atheris", reason="fuzzing needs the package atheris")
    (tmp_path / "faulty.py").write_text(FAULTY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "SCRIPT", tmp_path / "faulty.py")
    assert run.main(5, ["body"]) == 1
    said = capsys.readouterr().out
    assert "body" in said
    assert "FOUND" in said
    assert "KeyError" in said
    kept = next((tmp_path / ".fuzz" / "body" / "findings").iterdir())
    assert f"{kept.relative_to(tmp_path)}: b" in said
