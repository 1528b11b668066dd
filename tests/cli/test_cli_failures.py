"""How a command ends that does not end well."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

import stoker
from stoker import errors
from stoker.cli.app import app

NO_WIDTH = {"COLUMNS": "40"}  # narrower than any error


def fail(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> Any:
    """``stoker inspect`` with an API that raises."""

    def raise_it(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setitem(vars(stoker), "inspect", raise_it)
    return CliRunner().invoke(app, ["inspect", "x.csv"], env=NO_WIDTH)


RAISED: list[Callable[[], errors.StokerError]] = [
    lambda: errors.ConfigError("training.lr", "must be above 0", -1, "Leave it out."),
    lambda: errors.UnknownNameError("model", "mpl", ["linear", "mlp"]),
    lambda: errors.SourceNotFoundError("x.csv", "no such file"),
    lambda: errors.EncodingError("column 'age', row 7", "must be a number", "'old'", "Correct it."),
    lambda: errors.NonFiniteLossError("fit", "the loss must be finite", "nan in epoch 3, step 7", "Lower lr."),
    lambda: errors.OutOfMemoryError("fit", "a batch of 4096 does not fit"),
    lambda: errors.DiskFullError("runs/x", "no room left on the disk"),
    lambda: errors.MissingExtraError("fashion-mnist", "torchvision", "vision"),
    lambda: errors.StokerError("somewhere", "something"),
]


@pytest.mark.parametrize("make", RAISED, ids=lambda make: type(make()).__name__)
def test_errors_are_one_line_and_code_1(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[], errors.StokerError]
) -> None:
    result = fail(monkeypatch, make())
    assert result.exit_code == 1
    assert result.stderr == f"error: {make()}\n"
    assert result.stdout == ""


def test_what_is_quoted_in_an_error_stays_on_its_line_and_moves_no_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    result = fail(monkeypatch, errors.SchemaError("column 'a\nb'", "must not be [bold]bold[/]", "\x1b[2J :boom: \x07"))
    assert result.stderr == "error: column 'a b': must not be [bold]bold[/], got \\x1b[2J :boom: \\x07.\n"


def test_debugging_shows_the_traceback_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOKER_DEBUG", "1")
    result = fail(monkeypatch, errors.ConfigError("lr", "must be above 0", -1))
    assert result.exit_code == 1
    assert "Traceback (most recent call last)" in result.stderr
    assert result.stderr.endswith("\nerror: lr: must be above 0, got -1.\n")
    monkeypatch.setenv("STOKER_DEBUG", "0")
    assert "Traceback" not in fail(monkeypatch, errors.ConfigError("lr", "must be above 0", -1)).stderr


def test_what_the_system_refuses_is_no_fault_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    result = fail(monkeypatch, PermissionError(13, "Permission denied", "runs/x"))
    assert (result.exit_code, result.stderr) == (1, "error: runs/x: Permission denied.\n")
    result = fail(monkeypatch, OSError("odd"))
    assert (result.exit_code, result.stderr) == (1, "error: odd.\n")


def test_a_fault_of_ours_is_an_internal_error(monkeypatch: pytest.MonkeyPatch) -> None:
    result = fail(monkeypatch, ZeroDivisionError("division by zero"))
    assert result.exit_code == 70
    assert re.fullmatch(r"internal error: ZeroDivisionError: division by zero\. .* STOKER_DEBUG=1 .*\n", result.stderr)
    assert fail(monkeypatch, AssertionError()).stderr.startswith("internal error: AssertionError. ")
    monkeypatch.setenv("STOKER_DEBUG", "1")
    result = fail(monkeypatch, ZeroDivisionError("division by zero"))
    assert result.exit_code == 70
    assert "in raise_it" in result.stderr
    assert "STOKER_DEBUG" not in result.stderr.rpartition("internal error")[2]


def test_ctrl_c_without_a_result_is_code_130(monkeypatch: pytest.MonkeyPatch) -> None:
    result = fail(monkeypatch, KeyboardInterrupt())
    assert result.exit_code == 130
    assert result.stderr == "interrupted: stopped by Ctrl-C before there was a result to keep.\n"
