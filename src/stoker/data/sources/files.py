"""Table files, by suffix: CSV and TSV, JSON lines (each also in gzip or a zip of one file), Parquet, Arrow."""

from __future__ import annotations

import gzip
import io
import lzma
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import TypeAlias

import polars as pl

from stoker.data.dataset import Provenance, Table
from stoker.data.sources.delimited import parse_delimited
from stoker.data.sources.fingerprint import fingerprint_file
from stoker.data.sources.jsonlines import parse_json_lines
from stoker.data.sources.limits import LEAST_BYTES, read_whole, unpacked
from stoker.data.sources.tidy import nans_to_nulls
from stoker.errors import SchemaError, SourceFormatError, SourceNotFoundError

__all__ = ["TABLE_SUFFIXES", "open_checked", "read_table", "short_name", "table_suffix"]

Parser: TypeAlias = Callable[[bytes, str], pl.DataFrame]


def _parse_tsv(data: bytes, where: str) -> pl.DataFrame:
    return parse_delimited(data, where, separator="\t")


def _parse_parquet(data: bytes, where: str) -> pl.DataFrame:
    with _binary_errors(where, "Parquet"):
        _check_cells(pl.scan_parquet(io.BytesIO(data)), len(data), where)
        return nans_to_nulls(pl.read_parquet(io.BytesIO(data)))


def _parse_arrow(data: bytes, where: str) -> pl.DataFrame:
    if data.startswith(b"FEA1"):
        fix = "Write it again as version 2, which is Arrow: pyarrow.feather.write_feather(table, path)."
        raise SourceFormatError(where, "must be an Arrow file", "Feather version 1", fix)
    with _binary_errors(where, "Arrow"):
        if data.startswith(b"ARROW1"):
            _check_cells(pl.scan_ipc(io.BytesIO(data)), len(data), where)
            return nans_to_nulls(pl.read_ipc(io.BytesIO(data)))
        return nans_to_nulls(pl.read_ipc_stream(io.BytesIO(data)))


def _check_cells(frame: pl.LazyFrame, size: int, where: str) -> None:
    """Make sure, by what a file says of itself, that its table is not out of all proportion to the file.

    Raises:
        SourceFormatError: It has many times more cells than the file has bytes.
    """
    rows, columns = int(frame.select(pl.len()).collect().item()), len(frame.collect_schema())
    most = max(LEAST_BYTES, CELLS_A_BYTE * 8 * size)
    if 8 * rows * columns > most:
        got = f"{rows:,} rows of {columns:,} columns in a file of {size:,} bytes"
        rule = f"must not have more than {most // 8:,} cells, {CELLS_A_BYTE} for each byte"
        raise SourceFormatError(where, rule, got, "Write it again as CSV if it is meant.")


_TEXT: dict[str, Parser] = {
    ".csv": parse_delimited,
    ".tsv": _parse_tsv,
    ".jsonl": parse_json_lines,
    ".ndjson": parse_json_lines,
}
_BINARY: dict[str, Parser] = {
    ".parquet": _parse_parquet,
    ".arrow": _parse_arrow,
    ".feather": _parse_arrow,
    ".ipc": _parse_arrow,
}
_PACKED = (".gz", ".zip")
CELLS_A_BYTE = 125  # of Parquet and Arrow, whose cells take eight bytes or so
TABLE_SUFFIXES = (*_TEXT, *_BINARY)
"""The suffixes of table files; those of text may be followed by ``.gz`` or ``.zip``."""


def table_suffix(name: str) -> str | None:
    """The suffix that makes a file name that of a table, such as ``".csv.gz"``; None if it is not.

    A ``.zip`` counts whatever comes before it, for what it holds is known only by opening it.
    """
    suffixes = [suffix.lower() for suffix in PurePath(name).suffixes]
    if suffixes[-1:] == [".zip"]:
        return "".join(suffixes[-2:]) if suffixes[-2:-1] and suffixes[-2] in _TEXT else ".zip"
    if suffixes[-1:] == [".gz"] and suffixes[-2:-1] and suffixes[-2] in _TEXT:
        return "".join(suffixes[-2:])
    return suffixes[-1] if suffixes and suffixes[-1] in TABLE_SUFFIXES else None


def short_name(path: Path, suffix: str) -> str:
    """A name for a file or directory that is fit for a directory: ``flights`` for ``data/flights.csv.zip``."""
    name = path.resolve().name
    return re.sub(r"[^\w.-]+", "-", name[: len(name) - len(suffix)]).strip("-.") or "data"


def read_table(path: Path) -> Table:
    """Read a table file, whole, its format taken from its suffix.

    Args:
        path: A file whose name ends in one of :data:`TABLE_SUFFIXES`; after those of text formats ``.gz`` may follow,
            and a ``.zip`` may hold exactly one such file (what macOS adds to an archive is passed over).

    Returns:
        The table, with neither target nor task. What is missing is null, never NaN.

    Raises:
        SourceNotFoundError: There is no file, or it may not be read.
        SourceFormatError: Its suffix is not known, or it is empty, truncated, ragged or of another format.
        SchemaError: Two columns have the same name.
        DataError: It is larger than the machine's memory.
    """
    where = str(path)
    suffix = table_suffix(path.name)
    if suffix is None and path.is_file():
        known = f"Known: {', '.join(TABLE_SUFFIXES)}, and the first four followed by .gz or in a .zip."
        raise SourceFormatError(where, "a table file has a known suffix", path.suffix or "none", f"Rename it. {known}")
    with open_checked(path) as file:
        data = read_whole(file, where)
    if not data:
        raise SourceFormatError(
            where, "must not be empty", "a file of 0 bytes", "Check that it was written to the end."
        )
    format_suffix = suffix or ""
    if format_suffix.endswith(".gz"):
        data, format_suffix = gunzip(data, where), format_suffix.removesuffix(".gz")
    elif format_suffix.endswith(".zip"):
        data, format_suffix, where = _unzip(data, where)
    parse = (_TEXT | _BINARY)[format_suffix]
    frame = parse(data, where)
    if frame.is_empty():
        raise SourceFormatError(where, "must have rows and columns", f"a table of shape {frame.shape}", "")
    provenance = Provenance(short_name(path, suffix or ""), str(path), fingerprint_file(path), frame.height)
    return Table(frame, provenance)


@contextmanager
def open_checked(path: Path) -> Iterator[io.BufferedReader]:
    """Open a file to read its bytes, with Stoker's own errors for what may be wrong with its path.

    Raises:
        SourceNotFoundError: There is no such file, it is a directory or no file to read to its end, or it may not be
            read.
    """
    try:
        mode = path.stat().st_mode
        file = path.open("rb") if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else None
    except (FileNotFoundError, NotADirectoryError):
        raise SourceNotFoundError(str(path), "must be a file", "no such file", "Check the spelling.") from None
    except IsADirectoryError:
        raise SourceNotFoundError(str(path), "must be a file", "a directory", "Name a file in it.") from None
    except PermissionError:
        raise SourceNotFoundError(
            str(path), "must be readable", "permission denied", f"Run: chmod u+r {path}"
        ) from None
    if file is None:  # a pipe would be waited for, a device has no end
        got = "a pipe" if stat.S_ISFIFO(mode) else "a device or the like"
        raise SourceNotFoundError(str(path), "must be a file", got, "Write its contents to a file first.")
    with file:
        yield file


def gunzip(data: bytes, where: str) -> bytes:
    """Unpack gzip.

    Raises:
        SourceFormatError: It is truncated, damaged, not gzip, or would become out of all proportion.
    """
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            return unpacked(file, len(data), where)
    except EOFError:
        raise SourceFormatError(where, "must be whole", "a truncated gzip file", "Copy or download it again.") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise SourceFormatError(where, "must be gzip, as its name says", error, "Copy or download it again.") from None


def _unzip(data: bytes, where: str) -> tuple[bytes, str, str]:
    """The bytes of the one table in a zip archive, its suffix, and what to call it in errors."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [
                name for name in archive.namelist() if not name.startswith("__MACOSX/") and not name.endswith("/")
            ]
            tables = [name for name in members if PurePath(name).suffix.lower() in _TEXT]
            if len(tables) != 1:
                got = ", ".join((tables or members)[:5]) or "an empty archive"
                rule = f"a zip archive must hold exactly one file of {', '.join(_TEXT)}"
                raise SourceFormatError(where, rule, got, "Unpack it and name the file.")
            with archive.open(tables[0]) as file:
                text = unpacked(file, len(data), where)
            return text, PurePath(tables[0]).suffix.lower(), f"{where}, {tables[0]}"
    except SourceFormatError:
        raise
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError) as error:
        raise SourceFormatError(
            where, "must be a zip archive, as its name says", error, "Copy or download it again."
        ) from None
    except (RuntimeError, NotImplementedError) as error:  # encrypted, or packed in a way that Python does not know
        raise SourceFormatError(
            where, "a zip archive must be readable", error, "Unpack it and name the file."
        ) from None


@contextmanager
def _binary_errors(where: str, name: str) -> Iterator[None]:
    """Give polars' errors on a Parquet or Arrow file Stoker's own kind; damaged files even make it panic."""
    try:
        yield
    except pl.exceptions.DuplicateError as error:
        raise SchemaError(where, "column names must be unique", error, "Rename or drop the duplicates.") from None
    except SourceFormatError:
        raise
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        fix = f"Check that it was written to the end, and that it is {name}, with unique column names."
        raise SourceFormatError(where, f"must be a readable {name} file", reason, fix) from None
