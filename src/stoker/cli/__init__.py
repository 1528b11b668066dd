"""The command line: it parses, calls the public API, and shows; it has no logic of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["main"]

INTERRUPTED = 130  # 128 + SIGINT
PIPE_CLOSED = 141  # 128 + SIGPIPE: what a shell reports of a program whose reader went away


def main() -> None:
    """Run ``stoker`` with the arguments it was called with, and exit."""
    sys.stdout = sys.stdout or Path(os.devnull).open("w")  # noqa: SIM115  # none where the caller closed it
    for stream in (sys.stdout, sys.stderr):
        # What cannot be said in the output's encoding must not end a training; in UTF-8, file names keep their bytes.
        encoding = (getattr(stream, "encoding", None) or "").lower().replace("-", "")
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="surrogateescape" if encoding == "utf8" else "replace")
    from stoker.cli.app import app

    try:
        try:
            app(prog_name="stoker")
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)  # pressed before a command was begun
    except OSError as error:  # the output's reader is gone, or its disk is full
        discard_output()
        sys.exit(PIPE_CLOSED if isinstance(error, BrokenPipeError) else f"error: {error.strerror}.")


def discard_output() -> None:
    """Let the standard output go nowhere, as where it went is gone or full: Python flushes it once more as it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
