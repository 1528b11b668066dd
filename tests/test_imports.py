"""Arrows point down only: no two modules import one another, be it through others or for the sake of types alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import stoker

ROOT = Path(stoker.__file__).parent


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


FILES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def imports(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """All but those within functions, which are carried out later: also those ``if TYPE_CHECKING``."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child
        elif not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from imports(child)


def imported(path: Path) -> set[str]:
    """The modules of Stoker's that one imports."""
    found: set[str] = set()
    for node in imports(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {one.name for one in node.names}
        elif node.module is not None:
            names = {f"{node.module}.{one.name}" for one in node.names}
            found |= {name if name in FILES else node.module for name in names}
    return found & FILES.keys()


def test_no_two_modules_import_one_another() -> None:
    # the public list is of what is above it, for type checkers; who imports it asks for the version alone
    graph = {name: imported(path) - {"stoker"} for name, path in FILES.items()}
    assert sum(map(len, graph.values())) > len(FILES)  # they were found
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" ← ".join(error.args[1])) from None
