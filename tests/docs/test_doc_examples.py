"""The examples work: a page's Python is run from top to bottom, and the commands of some pages between it."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest
from doc_pages import DOCS, Command, blocks, commands
from typer.testing import CliRunner

WITH_COMMANDS = ("quickstart.md", "guides/table.md", "guides/images.md", "guides/module.md")
SLOW = ("chapter.md", "export.md", "scikit-learn.md", "tuning.md", *WITH_COMMANDS)
TOLD_ELSEWHERE = ("python", "head", "curl", "stoker serve")  # of pip, of the shell; the server has tests of its own


def pages() -> list[object]:
    runnable = [page for page in sorted(DOCS.rglob("*.md")) if any(one.language == "python" for one in blocks(page))]
    names = [page.relative_to(DOCS).as_posix() for page in runnable]
    return [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else [], id=name) for name in names]


@pytest.mark.parametrize("name", pages())
def test_a_page(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if name == "chapter.md":
        request.getfixturevalue("california")  # skips where there is none
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.syspath_prepend(str(tmp_path))
    there: dict[str, object] = {"__name__": "__main__"}  # later examples go on from earlier ones
    for block in blocks(DOCS / name):
        if block.language == "python":
            code = compile("\n" * (block.line - 1) + block.text, str(DOCS / name), "exec")
            with contextlib.redirect_stdout(io.StringIO()):
                exec(code, there)
        elif block.language == "console" and name in WITH_COMMANDS:
            for command in commands(block):
                if not command.text.startswith(TOLD_ELSEWHERE):
                    carry_out(command)


def carry_out(command: Command) -> None:
    """Run a command; what the page shows below it is what comes, but for numbers and room."""
    import shlex

    from stoker.cli.app import app

    result = CliRunner().invoke(app, shlex.split(command.text)[1:])
    fails = any(line.startswith("error:") for line in command.shown)
    assert result.exit_code == (1 if fails else 0), f"{command.text}\n{result.output}"
    said = {plain(line) for line in result.output.splitlines()}
    missing = [line for line in command.shown if plain(line) not in said]
    assert [line for line in missing if line.strip() not in {"", "…"}] == [], result.output


def plain(line: str) -> str:
    """Without numbers and their units, with single spaces; which engine trains depends on how fast the machine is."""
    line = re.sub("^Engine .*", "Engine", line)
    return " ".join(re.sub(r"-?\d[\d.,]*(?:e-?\d+)?(?: ?(?:s|ms|µs|kB|MB)\b)?", "#", line).split())


def test_a_line_that_does_not_come_would_be_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    carry_out(Command("stoker inspect wine", ("wine: 10 rows of 14 columns",)))
    with pytest.raises(AssertionError, match="wine: 178 rows"):
        carry_out(Command("stoker inspect wine", ("wine: 178 rows and 14 columns",)))
