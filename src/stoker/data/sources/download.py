"""Files of named data sets: found where they may already be, else downloaded, checked, and only then named."""

from __future__ import annotations

import errno
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import TypeAlias

from stoker.data.sources.fingerprint import digest_file
from stoker.errors import DiskFullError, SourceFormatError, SourceNotFoundError

__all__ = ["Download", "RemoteFile", "default_data_home", "http_download", "obtain"]

Download: TypeAlias = Callable[[str, Path], None]
"""Writes what is at a URL to a path. Raises ``OSError`` or ``http.client.HTTPException`` if it cannot, whole."""

_TIMEOUT = 30.0  # seconds without a byte
_BYTES_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class RemoteFile:
    """A file that a data set is made of.

    Attributes:
        places: Where it may be, relative to the data home; the first is where it is downloaded to.
        urls: Where it is published, in the order in which they are tried.
        checksum: ``sha256:`` or ``md5:`` and the hexadecimal digest that the publisher states.
        system: Where packages of operating systems put it.
    """

    places: tuple[str, ...]
    urls: tuple[str, ...]
    checksum: str
    system: tuple[str, ...] = ()


def default_data_home() -> Path:
    """Where named data sets are kept: ``$STOKER_DATA``, or ``stoker`` in the user's cache directory."""
    if home := os.environ.get("STOKER_DATA"):
        return Path(home).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache).expanduser() if cache else Path.home() / ".cache") / "stoker"


def obtain(name: str, files: Mapping[str, RemoteFile], home: Path, download: Download) -> dict[str, Path]:
    """Find the files of a named data set, and download those that are nowhere.

    A file that is found is taken as it is: whoever put it there may have packed it otherwise. One that is downloaded is
    written under a temporary name, checked, and renamed; nothing is left behind if that fails.

    Args:
        name: The data set, for errors.
        files: Its files, by names of their own.
        home: The data home.
        download: What downloads.

    Returns:
        Where they are, by the same names.

    Raises:
        SourceNotFoundError: One is nowhere, and cannot be downloaded; the text says where to put all that are missing.
        SourceFormatError: What was downloaded is not the file.
        DiskFullError: There is no room for it.
    """
    found = {key: _find(file, home) for key, file in files.items()}
    missing = {key: home / file.places[0] for key, file in files.items() if found[key] is None}
    by_hand = "".join(f"\n  {files[key].urls[0]} to {to}" for key, to in missing.items())
    advice = f"Set STOKER_DATA to where it is, or download by hand:{by_hand}"
    for key, to in missing.items():
        _download(name, files[key], to, download, advice)
    return {key: path or missing[key] for key, path in found.items()}


def _find(file: RemoteFile, home: Path) -> Path | None:
    places = [home / place for place in file.places] + [Path(place) for place in file.system]
    return next((place for place in places if place.is_file()), None)


def _download(name: str, file: RemoteFile, to: Path, download: Download, advice: str) -> None:
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{to.name}.", dir=to.parent)
        os.close(descriptor)
    except OSError as error:
        got = f"{error.strerror or error} at {error.filename}"
        raise SourceNotFoundError(name, f"{to} must be there, or be writable to download it", got, advice) from None
    partial = Path(temporary)
    try:
        _download_checked(name, file, to, partial, download, advice)
        partial.chmod(0o644)  # temporary files are for their owner alone; a cache may be shared
        partial.replace(to)
    finally:
        partial.unlink(missing_ok=True)


def _download_checked(name: str, file: RemoteFile, to: Path, partial: Path, download: Download, advice: str) -> None:
    """Download from the first URL that gives the right bytes."""
    algorithm, _, digest = file.checksum.partition(":")
    failures: list[str] = []
    mismatch = ""
    for url in file.urls:
        try:
            download(url, partial)
        except (OSError, HTTPException) as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise DiskFullError(
                    str(to), f"no room to download {url}", "", "Free some, or set STOKER_DATA."
                ) from None
            failures.append(f"{url}: {_reason(error)}")
            continue
        found = digest_file(partial, algorithm)
        if found == digest:
            return
        mismatch = f"{algorithm}:{found} from {url}"
        failures.append(f"{url}: wrong checksum")
    if mismatch:
        raise SourceFormatError(name, f"{to.name} must have the checksum {file.checksum}", mismatch, advice)
    got = f"no such file and no download ({'; '.join(failures)})"
    raise SourceNotFoundError(name, f"{to} must be there or be downloaded", got, advice)


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    return str(error) or type(error).__name__


def http_download(url: str, to: Path) -> None:
    """Download with a progress bar on the standard error.

    Args:
        url: What to download.
        to: Where to write it.

    Raises:
        OSError: There is no network, no such host or page, or the connection broke off.
        http.client.HTTPException: The answer is not HTTP.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    request = urllib.request.Request(url, headers={"User-Agent": "stoker"})
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer, to.open("wb") as file:
        stated = answer.headers.get("Content-Length", "")
        size = int(stated) if stated.isdigit() else None
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task(url.rpartition("/")[2] or url, total=size)
            received = 0
            while part := answer.read(_BYTES_AT_ONCE):
                file.write(part)
                received += len(part)
                progress.update(task, completed=received)
        if size is not None and received != size:  # http.client reads a connection that was cut as the end of the body
            raise ConnectionError(f"the connection broke off after {received:,} of {size:,} bytes")
