"""What raises one of Stoker's errors says so: the public functions, and the public methods of public classes."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import pytest

import stoker
from stoker import errors


def function_of(member: Any) -> Any:
    """The function in a property, a class method and their like; else what it is."""
    if isinstance(member, property):
        return member.fget
    if isinstance(member, cached_property):
        return member.func
    return member.__func__ if isinstance(member, (classmethod, staticmethod)) else member


def public_functions() -> Iterator[tuple[str, Callable[..., Any], type | None]]:
    for name in stoker.__all__:
        value = getattr(stoker, name)
        if inspect.isfunction(value):
            yield name, value, None
        if inspect.isclass(value) and not issubclass(value, BaseException):
            for kind in value.__mro__:
                for key, member in vars(kind).items():
                    function = function_of(member)
                    if (
                        kind.__module__.startswith("stoker.")
                        and not key.startswith("_")
                        and inspect.isfunction(function)
                    ):
                        yield f"{name}.{key}", function, value


def raised(function: Callable[..., Any]) -> set[str]:
    """Stoker's errors that a function's own body raises."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    calls = [node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)]
    return {ast.unparse(call.func) for call in calls} & set(errors.__all__)


def callees(function: Callable[..., Any], owner: type | None) -> Iterator[Callable[..., Any]]:
    """Private functions of the same module and private methods of the same object that a function calls."""
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))):
        if not isinstance(node, ast.Call):
            continue
        called = None
        if isinstance(node.func, ast.Name) and node.func.id.startswith("_"):
            called = inspect.unwrap(function).__globals__.get(node.func.id)
        elif isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "self" and owner is not None:
            called = getattr(owner, node.func.attr, None) if node.func.attr.startswith("_") else None
        if inspect.isfunction(called):
            yield called


FUNCTIONS = {name: (function, owner) for name, function, owner in public_functions()}


def test_there_are_some() -> None:
    assert {"fit", "Run.predict", "Run.history", "Trainer.fit", "StokerClassifier.predict"} <= FUNCTIONS.keys()
    assert raised(FUNCTIONS["Run.history"][0]) == {"RunError"}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_raises_says_so(name: str) -> None:
    function, owner = FUNCTIONS[name]
    found = raised(function).union(*(raised(callee) for callee in callees(function, owner)))
    if found:
        assert "Raises:" in (inspect.getdoc(function) or ""), f"{name} raises {', '.join(sorted(found))}"
