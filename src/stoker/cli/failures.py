"""What a command says when it fails, and with which exit code."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import typer

from stoker.cli import INTERRUPTED, PIPE_CLOSED, discard_output
from stoker.errors import StokerError

__all__ = ["FAILED", "INTERNAL", "reported", "say"]

FAILED = 1
INTERNAL = 70  # EX_SOFTWARE of sysexits.h


@contextmanager
def reported() -> Iterator[None]:
    """Turn what a command raises into a line on stderr and ``typer.Exit`` with a code.

    With ``STOKER_DEBUG=1`` in the environment the traceback is shown as well.
    """
    try:
        yield
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise  # typer's own ways of ending
    except StokerError as error:
        _trace()
        say("error", str(error), "bold red")
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:
        _trace()
        say("interrupted", "stopped by Ctrl-C before there was a result to keep.", "bold yellow")
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        discard_output()
        raise typer.Exit(PIPE_CLOSED) from None
    except OSError as error:
        _trace()
        where = "" if error.filename is None else f"{error.filename}: "
        say("error", f"{where}{error.strerror or error}.", "bold red")
        raise typer.Exit(FAILED) from None
    except Exception as error:
        _trace()
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        seen = "" if _debugging() else " Run it again with STOKER_DEBUG=1 in the environment to see the traceback."
        say("internal error", f"{what.rstrip('.')}. This is a fault of Stoker's, please report it.{seen}", "bold red")
        raise typer.Exit(INTERNAL) from None


def say(prefix: str, text: str, style: str) -> None:
    """Print a line on stderr, ``prefix: text``; however long, it is broken for a terminal only, and between words.

    If nobody reads it any more, that is no reason to stop.
    """
    from rich.text import Text

    from stoker.cli.show import console, printable

    line = Text.assemble((f"{prefix}:", style), " ", printable(text))
    err = console(stderr=True)
    with suppress(BrokenPipeError):
        err.print(line, soft_wrap=not err.is_terminal)


def _debugging() -> bool:
    return os.environ.get("STOKER_DEBUG", "") not in {"", "0"}


def _trace() -> None:
    if _debugging():
        traceback.print_exc()
