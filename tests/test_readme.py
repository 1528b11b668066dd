"""What the README shows works: its Python and commands are run as they stand there; for the guides see tests/docs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"


def blocks(language: str) -> list[str]:
    # with both of its fences, so that one block's end is not taken for another's beginning
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [body for kind, body in found if kind == language]


@pytest.mark.parametrize("code", blocks("python"), ids=lambda code: code.splitlines()[0])
def test_python(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(README), "exec"), {})


def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from stoker.cli.app import app

    monkeypatch.chdir(tmp_path)
    commands = [line.removeprefix("$ ") for block in blocks("console") for line in block.splitlines()]
    assert len(commands) == 4
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "stoker"
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, f"{command}\n{result.output}"
    assert (tmp_path / "runs" / "iris" / "model.safetensors").is_file()
    assert (tmp_path / "predictions.csv").read_text().count("\n") == 151


def test_tree_names_what_is_there() -> None:
    tree = blocks("")[-1]
    for name in re.findall(r"^  (\w+)/ ", tree, re.MULTILINE):
        assert (README.parent / "src" / "stoker" / name).is_dir(), name
    packages = {path.name for path in (README.parent / "src" / "stoker").iterdir() if (path / "__init__.py").is_file()}
    assert packages <= set(re.findall(r"^  (\w+)/ ", tree, re.MULTILINE))
