"""The pages of the documentation, taken apart: fenced blocks, commands, code in lines, references to tests."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import typer

__all__ = ["DOCS", "PAGES", "ROOT", "Block", "Command", "blocks", "command_line", "commands", "inline", "program"]

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]


@dataclass(frozen=True)
class Block:
    """What stands between two fences.

    Attributes:
        language: ``python`` is run, ``py`` is for the eye; ``console`` has commands after ``$``.
        text: Its lines.
        line: The page's line that the first of them is.
    """

    language: str
    text: str
    line: int


@dataclass(frozen=True)
class Command:
    """A command of a console block.

    Attributes:
        text: As one types it, lines that end in a backslash joined.
        shown: The lines of output shown below it.
    """

    text: str
    shown: tuple[str, ...]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    # with both of its fences, so that one block's end is not taken for another's beginning
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [Block(one[1], one[2], text.count("\n", 0, one.start(2)) + 1) for one in found]


def commands(block: Block) -> list[Command]:
    """What a console block tells one to type, and what it shows of the answers."""
    found = []
    for part in re.split(r"(?m)^\$ ", block.text)[1:]:
        lines = part.rstrip("\n").split("\n")
        length = 1
        while lines[length - 1].endswith("\\") or not _closed("\n".join(lines[:length])):
            length += 1
        found.append(Command("\n".join(lines[:length]).replace("\\\n", " "), tuple(lines[length:])))
    return found


def _closed(text: str) -> bool:
    try:
        shlex.split(text.replace("\\\n", " "))
    except ValueError:
        return False
    return True


def inline(page: Path) -> list[str]:
    """The code within a page's lines."""
    text = re.sub(r"(?ms)^```.*?^```$", "", page.read_text(encoding="utf-8"))
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)]


def program() -> typer.core.TyperGroup:
    """The command ``stoker`` itself, with its commands."""
    from stoker.cli.app import app

    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    return group


def command_line(text: str) -> None:
    """Read a command as the program would, without carrying it out.

    Raises:
        Exception: Of typer's, if the program would refuse it.
    """
    name, *arguments = shlex.split(text, comments=True)[1:]
    if name.startswith("-"):
        assert name in {option for one in program().params for option in one.opts}, name
        return
    program().commands[name].make_context(f"stoker {name}", arguments)
