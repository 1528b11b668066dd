"""The command line: it parses, calls the public API, and shows; it has no logic of its own."""

from __future__ import annotations

import os
import sys

__all__ = ["main"]

PIPE_CLOSED = 141  # 128 + SIGPIPE: what a shell reports of a program whose reader went away


def main() -> None:
    """Run ``stoker`` with the arguments it was called with, and exit."""
    from stoker.cli.app import app

    for stream in (sys.stdout, sys.stderr):
        # What cannot be said in the output's encoding must not end a training; in UTF-8, file names keep their bytes.
        encoding = (getattr(stream, "encoding", None) or "").lower().replace("-", "")
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="surrogateescape" if encoding == "utf8" else "replace")
    try:
        app(prog_name="stoker")
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes again as it ends
            sys.exit(PIPE_CLOSED)
