"""Predictions as a file, or as CSV for the next program in a pipe."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from stoker.errors import ConfigError, RunExistsError

if TYPE_CHECKING:
    import polars as pl

__all__ = ["SUFFIXES", "check", "print_csv", "write"]

SUFFIXES = (".csv", ".parquet", ".jsonl")


def check(path: Path) -> None:
    """See whether predictions could be written there.

    Raises:
        ConfigError: The suffix is none of :data:`SUFFIXES`, or there is no such directory.
        RunExistsError: There is such a file already.
    """
    if path.suffix.lower() not in SUFFIXES:
        known = ", ".join(SUFFIXES)
        raise ConfigError("--output", "must have a known suffix", repr(str(path)), f"Known: {known}.")
    if path.exists():
        raise _exists(path)
    if not path.parent.is_dir():
        raise ConfigError("--output", "must be in a directory that exists", str(path), "Make the directory first.")


def write(frame: pl.DataFrame, path: Path) -> None:
    """Write a new file, by its suffix; nothing is left of it if that fails.

    Raises:
        RunExistsError: There is such a file already.
        DiskFullError: There is no room.
        ConfigError: The directory may not be written to.
    """
    from stoker.runs.files import naming_full_disk

    data = io.BytesIO()
    match path.suffix.lower():
        case ".csv":
            frame.write_csv(data)
        case ".parquet":
            frame.write_parquet(data)
        case _:
            frame.write_ndjson(data)
    try:
        file = path.open("xb")  # so that of two who write it at the same time one is refused
    except FileExistsError:
        raise _exists(path) from None
    except OSError as error:
        raise ConfigError("--output", "must be a place to write to", f"{path} ({error.strerror})") from None
    try:
        with naming_full_disk(path), file:
            file.write(data.getbuffer())
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def print_csv(frame: pl.DataFrame) -> None:
    """CSV in UTF-8 on the standard output, whatever encoding that has for text."""
    sys.stdout.flush()
    sys.stdout.buffer.write(frame.write_csv().encode())
    sys.stdout.buffer.flush()


def _exists(path: Path) -> RunExistsError:
    return RunExistsError(
        "--output", "must not exist yet", str(path), "Choose another name: Stoker overwrites nothing."
    )
