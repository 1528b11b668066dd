"""Every command that the documentation names is there, and takes what it is given."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from doc_pages import PAGES, ROOT, blocks, command_line, commands, inline, program

TYPED = [
    pytest.param(command.text, id=f"{page.relative_to(ROOT)}:{command.text[:60]}")
    for page in PAGES
    for block in blocks(page)
    if block.language == "console"
    for command in commands(block)
    if command.text.startswith("stoker ")
]
IDS = [str(page.relative_to(ROOT)) for page in PAGES]


@pytest.mark.parametrize("text", TYPED)
def test_a_command_can_be_read(text: str) -> None:
    command_line(text)


def test_a_command_that_cannot_be_read_would_be_noticed() -> None:
    with pytest.raises(Exception, match="No such option: --epoch"):
        command_line("stoker predict runs/iris new.csv --epoch 3")
    with pytest.raises(KeyError, match="fitt"):
        command_line("stoker fitt iris")


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_within_lines(page: Path) -> None:
    """Such as ``stoker fit … --preset best``: the command is there, and has the option."""
    known = program().commands
    for code in inline(page):
        if not (found := re.match(r"stoker ([a-z-]+)\b(.*)", code)):
            continue
        assert found[1] in known, code
        options = {one for part in known[found[1]].params for one in (*part.opts, *part.secondary_opts)}
        assert set(re.findall(r"(?<!\S)--[a-z][a-z-]*", found[2])) <= options | {"--help"}, code


ELSEWHERE = {
    "--kills",
    "--seed",
    "--jobs",
    "--repeats",
    "--layer",
    "--steps",
    "--sides",
    "--threads",
    "--longest",
    "--transforms",
}
"""Options of ``make test-chaos`` and of the benchmarks."""


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_options_by_themselves(page: Path) -> None:
    known = {one for command in program().commands.values() for part in command.params for one in part.opts}
    known |= {one for command in program().commands.values() for part in command.params for one in part.secondary_opts}
    for code in inline(page):
        if re.match(r"--[a-z]", code):
            assert re.findall(r"--[a-z][a-z-]*", code)[0] in known | ELSEWHERE, code


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_targets_modules_and_tests_that_are_named(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    typed = [*inline(page), *(line for block in blocks(page) for line in block.text.splitlines())]
    targets = [found[1] for one in typed if (found := re.match(r"(?:[A-Z_]+=\S+ )*make ([a-z][a-z-]*)", one))]
    assert [name for name in targets if f"\n{name}:" not in makefile] == []
    modules = re.findall(r"python\s+-m\s+(benchmarks\.\w+|tests\.[\w.]+)", text)
    assert [name for name in modules if not (ROOT / (name.replace(".", "/") + ".py")).exists()] == []
    for file, name in re.findall(r"\b(tests/[\w/.]+)(?:::(\w+))?", text):
        place = ROOT / file.rstrip(".")
        assert place.exists(), file
        if name:
            tree = ast.parse(place.read_text(encoding="utf-8"))
            assert name in {one.name for one in tree.body if isinstance(one, (ast.FunctionDef, ast.ClassDef))}, name


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_python_can_be_read(page: Path) -> None:
    for block in blocks(page):
        if block.language in {"python", "py"}:
            compile(block.text, f"{page}:{block.line}", "exec")
