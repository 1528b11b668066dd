"""From a name to a class: what is imported, and what is said where that cannot be."""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from stoker.errors import ConfigError, InputTypeError, UnknownNameError
from stoker.models.importing import find_factory, name_of, require_factory

Write = Callable[[str], str]
NET = """
from torch import nn

class Net(nn.Linear):
    class Inner(nn.Linear):
        pass

class Plain:
    pass

def small():
    return Net(2, 1)

number = 3
ready = small()
"""
fresh = itertools.count()


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a module into the current directory, and gives its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place != ""])

    def written(text: str) -> str:
        name = f"nets{next(fresh)}"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return written


def test_a_class_or_function_is_found_in_the_current_directory(write: Write) -> None:
    name = write(NET)
    net = find_factory(f"{name}:Net")
    assert net is sys.modules[name].Net
    assert find_factory(f"{name}:Net.Inner") is sys.modules[name].Net.Inner
    assert isinstance(find_factory(f"{name}:small")(), nn.Linear)


def test_packages_work_as_in_an_import_statement(write: Write, tmp_path: Path) -> None:
    package = tmp_path / write("").replace("nets", "package")
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "parts.py").write_text(NET)
    (package / "whole.py").write_text("from .parts import Net\n")
    assert find_factory(f"{package.name}.whole:Net").__module__ == f"{package.name}.parts"


def test_the_current_directory_is_first_while_importing_and_last_afterwards(write: Write, tmp_path: Path) -> None:
    before = list(sys.path)
    name = write("import sys\nfirst = sys.path[0]\nfrom torch.nn import Linear\n")
    find_factory(f"{name}:Linear")
    assert sys.modules[name].first == str(tmp_path)
    assert sys.path == [*before, str(tmp_path)]
    find_factory(f"{write(NET)}:Net")
    assert sys.path == [*before, str(tmp_path)], "once"


def test_installed_packages_are_found_too() -> None:
    assert find_factory("torch.nn:Linear") is nn.Linear


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            ":Net",
            r"model: a model of your own must be named package\.module:Class, got ':Net'\. Such as networks\.small:",
        ),
        ("nets:", r"must be named package\.module:Class, got 'nets:'\."),
        ("my nets:Net", r"got 'my nets:Net'\."),
        ("a:b:c", r"got 'a:b:c'\."),
        ("nets:Net()", r"got 'nets:Net\(\)'\."),
        (".nets:Net", r"Write it from the top: package\.module:Class, without a dot before it\."),
        ("nets.py:Net", r"A module is named as in an import statement: nets:Net\."),
        ("./models/nets.py:Net", r"A module is named as in an import statement: models\.nets:Net\."),
        ("models/nets:Net", r"A module is named as in an import statement: models\.nets:Net\."),
    ],
)
def test_a_name_of_another_form_is_refused(name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        find_factory(name)


def test_a_module_that_is_not_there(write: Write, tmp_path: Path) -> None:
    write(NET)
    with pytest.raises(ConfigError) as caught:
        find_factory("no_such_nets:Net")
    assert str(caught.value) == (
        "model no_such_nets:Net: there must be a module no_such_nets, got No module named 'no_such_nets'. "
        f"It is looked for in the current directory, {tmp_path}, and among the installed packages."
    )
    with pytest.raises(ConfigError, match=r"there must be a module torch\.nm, got No module named 'torch\.nm'"):
        find_factory("torch.nm:Linear")


def test_a_module_that_imports_one_that_is_not_there(write: Write) -> None:
    name = write("import os\nimport no_such_package\n")
    text = rf"importing {name} must work, got ModuleNotFoundError: .* 'no_such_package' \({name}\.py, line 2\)"
    with pytest.raises(ConfigError, match=text):
        find_factory(f"{name}:Net")


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (
            "x = 1\ny = 1 / 0\n",
            r"got ZeroDivisionError: division by zero \({name}\.py, line 2\)\. Mend what stands there",
        ),
        ("from torch import nothing\n", r"got ImportError: cannot import name 'nothing' .*\({name}\.py, line 1\)"),
        ("def f(:\n", r"got SyntaxError: invalid syntax \({name}\.py, line 1\)"),
        ("import sys\nsys.exit(3)\n", r"got SystemExit: 3 .* belongs under if __name__ == \"__main__\"\."),
        ("raise ValueError\n", r"got ValueError \({name}\.py, line 1\)"),
        ("import torch\ntorch.zeros(2) @ torch.zeros(3)\n", r"got RuntimeError: .*\({name}\.py, line 2\)"),
    ],
)
def test_a_module_that_fails_to_import(write: Write, code: str, text: str) -> None:
    name = write(code)
    with pytest.raises(ConfigError, match=text.replace("{name}", name)) as caught:
        find_factory(f"{name}:Net")
    assert caught.value.where == f"model {name}:Net"
    assert caught.value.__cause__ is not None, "for the traceback that STOKER_DEBUG shows"


def test_what_is_not_in_the_module_is_told_with_the_nearest(write: Write) -> None:
    name = write(NET)
    text = rf"model {name}:Nett, in {name}: must be .*, got 'Nett'\. Did you mean 'Net'\? Known: Net, small\."
    with pytest.raises(UnknownNameError, match=text):
        find_factory(f"{name}:Nett")
    with pytest.raises(UnknownNameError, match=rf"in {name}\.Net: .* got 'Iner'\. Did you mean 'Inner'\?"):
        find_factory(f"{name}:Net.Iner")
    with pytest.raises(UnknownNameError, match=r"got 'Linaer'\. Did you mean 'Linear'\?"):
        find_factory("torch.nn:Linaer")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("Plain", r"must be a class of torch\.nn\.Module, got the class Plain\. Name a class that is derived from"),
        ("number", r"must be a class or a function, got int\."),
        ("ready", r"must be a class or a function, got an instance of Net\."),
        ("nn", r"must be a class or a function, got module\."),
    ],
)
def test_what_cannot_give_a_module_is_refused(write: Write, path: str, text: str) -> None:
    with pytest.raises(InputTypeError, match=text):
        find_factory(f"{write(NET)}:{path}")


def test_the_name_of_a_class() -> None:
    assert name_of(nn.Linear) == "torch.nn.modules.linear:Linear"
    with pytest.raises(
        InputTypeError, match=r"must be a class or a function with a name, got partial\. Write a function"
    ):
        name_of(functools.partial(nn.Linear, 3))
    assert require_factory(nn.Linear, "model") is nn.Linear
