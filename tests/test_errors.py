from __future__ import annotations

import copy
import errno
import inspect
import pickle
import re
from typing import Any

import pytest

from stoker import errors
from stoker.errors import (
    ConfigError,
    DiskFullError,
    MissingExtraError,
    NonFiniteLossError,
    RunExistsError,
    SourceNotFoundError,
    StokerError,
    UnknownNameError,
    suggest,
)
from stoker.training.history import History

CLASSES: list[type[StokerError]] = [getattr(errors, name) for name in errors.__all__]


def an(kind: type[StokerError], got: Any = 3) -> StokerError:
    if kind is UnknownNameError:
        return UnknownNameError("optimizer", "addam", ["adam", "sgd"])
    if kind is MissingExtraError:
        return MissingExtraError("images", "torchvision", "vision")
    return kind("epochs", "must be at least 1", got, "Leave it out.")


def test_every_error_is_public_and_in_the_tree() -> None:
    defined = {name for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, BaseException)}
    assert defined == set(errors.__all__)
    assert errors.__all__ == sorted(errors.__all__)
    assert all(issubclass(kind, StokerError) for kind in CLASSES)


def test_the_tree_is_as_it_is_drawn() -> None:
    drawing = (errors.__doc__ or "").split("::")[1].split("Each text")[0]
    path: list[str] = []
    drawn: dict[str, tuple[str, str | None]] = {}
    for line in filter(str.strip, drawing.splitlines()):
        found = re.search(r"(\w+Error)\s*(?:\((\w+)\))?", line)
        assert found is not None
        depth = found.start(1) // 4 - 1  # the drawing itself is indented
        path = [*path[:depth], found[1]]
        drawn[found[1]] = (path[-2] if depth else "Exception", found[2])
    assert set(drawn) == set(errors.__all__)
    for name, (parent, builtin) in drawn.items():
        bases = [base.__name__ for base in getattr(errors, name).__bases__]
        assert bases[0] == parent
        assert bases[1:] == ([builtin] if builtin else [])


@pytest.mark.parametrize("kind", CLASSES)
class TestEveryError:
    def test_is_caught_as_what_it_is(self, kind: type[StokerError]) -> None:
        for caught in kind.__mro__[:-1]:
            with pytest.raises(caught):
                raise an(kind)

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_survives_pickling(self, kind: type[StokerError], protocol: int) -> None:
        error = an(kind)
        error.fix += " It is kept."
        again = pickle.loads(pickle.dumps(error, protocol))
        assert type(again) is kind
        assert str(again) == str(error)
        assert vars(again) == vars(error)
        assert str(again).endswith(" It is kept.")

    def test_survives_copying(self, kind: type[StokerError]) -> None:
        assert str(copy.copy(an(kind))) == str(copy.deepcopy(an(kind))) == str(an(kind))

    def test_may_be_about_something_that_cannot_be_pickled(self, kind: type[StokerError]) -> None:
        error = an(kind, got=lambda: 3)
        assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("epochs", "must be at least 1", 0, "Leave it out."), "epochs: must be at least 1, got 0. Leave it out."),
        (("epochs", "must be at least 1", 0), "epochs: must be at least 1, got 0."),
        (("file.csv", "must have rows"), "file.csv: must have rows."),
        (("file.csv", "must have rows", "", "Fill it."), "file.csv: must have rows. Fill it."),
    ],
)
def test_text(arguments: tuple[Any, ...], text: str) -> None:
    assert str(ConfigError(*arguments)) == text


def test_parts() -> None:
    error = ConfigError("epochs", "must be at least 1", 0, "Leave it out.")
    assert (error.where, error.rule, error.got, error.fix) == ("epochs", "must be at least 1", "0", "Leave it out.")
    assert error.args == ("epochs", "must be at least 1", "0", "Leave it out.")


@pytest.mark.parametrize("kind", [SourceNotFoundError, RunExistsError, DiskFullError])
def test_an_error_of_files_does_not_pretend_that_its_texts_are_numbers(kind: type[OSError]) -> None:
    error = kind("data", "no such file", "a.csv", "Look elsewhere.")
    assert (error.errno, error.filename) == (None, None)
    assert error.errno != errno.ENOENT


def test_unknown_name() -> None:
    error = UnknownNameError("optimizer", "Addam", ["adam", "sgd"])
    text = "optimizer: must be one of the known names, got 'Addam'. Did you mean 'adam'? Known: adam, sgd."
    assert str(error) == text
    assert (error.name, error.valid) == ("Addam", ["adam", "sgd"])


def test_missing_extra() -> None:
    text = 'images: needs the package torchvision, which is not installed. Run: pip install "stoker[vision]"'
    assert str(an(MissingExtraError)).startswith(text)


def test_history_travels_with_the_error() -> None:
    error = NonFiniteLossError("epoch 2, step 3", "the loss must be finite", "nan")
    assert error.history is None
    error.history = History([{"epoch": 1}], stopped="non-finite")
    assert pickle.loads(pickle.dumps(error)).history == error.history


class TestSuggest:
    def test_the_nearest_whatever_the_case(self) -> None:
        assert suggest("ADMA", ["Adam", "SGD"]) == "Did you mean 'Adam'? Known: Adam, SGD."

    def test_nothing_near(self) -> None:
        assert suggest("xyz", ["adam", "sgd"]) == "Known: adam, sgd."

    def test_many_are_cut_but_the_nearest_is_found_among_all(self) -> None:
        names = [f"column_{i}" for i in range(99)] + ["price"]
        text = suggest("prise", names)
        assert text.startswith("Did you mean 'price'? Known: column_0, column_1,")
        assert text.endswith("column_59 and 40 more.")
