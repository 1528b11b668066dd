"""Files that are either the whole old one or the whole new one, and directories that are never overwritten."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from stoker.atomic import NO_ROOM, leads_out, naming_full_disk, write_atomic
from stoker.errors import ConfigError, DiskFullError, RunError, RunExistsError, StokerError

__all__ = [
    "CHECKPOINTS",
    "JOB",
    "naming_full_disk",
    "new_directory",
    "read_json",
    "read_text",
    "refuse_bad_path",
    "refuse_link_out",
    "refuse_links_out",
    "require_room",
    "write_atomic",
    "write_json",
]

TEXT_BYTES = 256 << 20  # vocabularies can be long, but not longer than this
VALUES = 4_000_000  # in a text file: each takes up to 250 bytes in memory, be it two bytes long
CHECKPOINTS = "checkpoints"  # the folder of what going on needs
JOB = f"{CHECKPOINTS}/job.json"  # how the training was begun; without config.json beside it, it has not ended
RUN_FILES = ("model.safetensors", "metrics.json", "history.csv", "README.md", "config.json")


@contextmanager
def new_directory(
    out: str | Path | None,
    name: str,
    now: datetime,
    *,
    parent: Path = Path("runs"),
    stays: Callable[[Path, BaseException], bool] = lambda *_: False,
) -> Iterator[Path]:
    """Make the directory of a new run; should the block fail, what Stoker wrote is removed again.

    Args:
        out: What the user asked for; ``None`` for ``runs/<name>-<time>``, with a number behind it if that is taken.
        name: The source's; cut if it is very long.
        now: The time that goes into the name.
        parent: Where unnamed runs go.
        stays: Whether it is worth keeping although the block failed, because of what is in it.

    Yields:
        The directory, empty.

    Raises:
        RunExistsError: ``out`` is there already, be it an empty directory.
        ConfigError: No directory can be made there.
        DiskFullError: There is no room.
    """
    wanted = Path(out) if out is not None else parent / f"{_short(name)}-{now:%Y%m%d-%H%M%S}"
    missing = [folder for folder in wanted.parents if not os.path.lexists(folder)]
    path: Path | None = None
    try:
        path = _make(wanted, numbered=out is None)
        yield path
    except BaseException as error:
        if path is not None and stays(path, error):
            raise
        if path is not None:  # else it is not ours
            _remove_run(path)
        for folder in missing:  # from the innermost outwards
            with suppress(OSError):
                folder.rmdir()  # only if nothing else came to stand in it
        raise


def refuse_bad_path(out: str | Path | None) -> None:
    """Tell before the work, and not after it, that a run's directory is there already, or cannot be made.

    Raises:
        RunExistsError: It is there.
        ConfigError: It cannot be made.
    """
    if out is None:
        return
    path = Path(out)
    if os.path.lexists(path):
        raise _exists(path)
    with _naming_bad_path(path):
        nearest = next(folder for folder in path.parents if os.path.lexists(folder))
        if not nearest.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _make(wanted: Path, *, numbered: bool) -> Path:
    """Make a directory that was not there; with a number behind its name if need be and allowed."""
    path = wanted
    with naming_full_disk(path), _naming_bad_path(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(2):
            try:
                path.mkdir()
            except FileExistsError:
                if not numbered:
                    raise _exists(path) from None
                path = wanted.with_name(f"{wanted.name}-{number}")
            else:
                break
    return path


def _exists(path: Path) -> RunExistsError:
    fix = "Choose another --out, or remove it yourself: Stoker overwrites nothing."
    return RunExistsError("--out", "must not exist yet", str(path), fix)


@contextmanager
def _naming_bad_path(path: str | Path) -> Iterator[None]:
    try:
        yield
    except (StokerError, KeyboardInterrupt):
        raise
    except (OSError, ValueError) as error:  # ValueError: a null byte
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(
            "--out", f"must be a directory that can be made ({reason})", repr(str(path)), "Choose another --out."
        ) from None


def _short(name: str) -> str:
    """A name of at most 100 bytes, which leaves room for the time within the 255 that file systems allow.

    The name may come from a run's own files: nothing in it leads to another folder.
    """
    plain = re.sub(r"[\x00-\x1f/\\\\]+", "-", name).strip(".-") or "run"
    return plain.encode(errors="replace")[:100].decode(errors="ignore")


def _remove_run(path: Path) -> None:
    """Remove a run, or the part of it that was written, and nothing that others put into its directory."""
    with suppress(OSError):
        events = (path / "tensorboard").glob("events.out.tfevents.*")
        pictures = (path / "figures").glob("*.png")
        kept = (path / CHECKPOINTS).glob("step-*.safetensors")
        notes = (path / JOB, path / CHECKPOINTS / "lock", *(path / CHECKPOINTS).glob(".tmp-*"))
        for file in (*path.glob(".tmp-*"), *pictures, *events, *kept, *notes, *(path / name for name in RUN_FILES)):
            file.unlink(missing_ok=True)
        for folder in (path / "figures", path / "tensorboard", path / CHECKPOINTS, path):
            if folder.is_dir():
                folder.rmdir()


def require_room(path: Path, needed: int) -> None:
    """Make sure, before hours of work, that their result can be written.

    Raises:
        DiskFullError: The disk of ``path`` has less than ``needed`` bytes left.
    """
    free = shutil.disk_usage(path).free
    if free < needed:
        got = f"{free / 1e6:.1f} MB free"
        fix = "Make room, or choose another --out."
        raise DiskFullError(str(path), f"the run needs about {needed / 1e6:.1f} MB of disk", got, fix)


def write_json(path: Path, data: Any) -> None:
    """Write JSON, NaN and infinities as ``null``, which JSON has in their place."""
    write_atomic(path, json.dumps(_finite(data), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _finite(data: Any) -> Any:
    if isinstance(data, float):
        return data if data - data == 0 else None
    if isinstance(data, dict):
        return {name: _finite(value) for name, value in data.items()}
    return [_finite(value) for value in data] if isinstance(data, (list, tuple)) else data


def refuse_link_out(path: Path, folder: Path) -> None:
    """Make sure that a file or folder of a run is in it: a run from elsewhere must not reach for other files.

    Raises:
        RunError: It is a link that leads out of ``folder``.
    """
    if leads_out(path, folder):
        fix = "Put a copy in its place, if you know what it leads to."
        raise RunError(str(path), "must be in the run", "a link out of it", fix)


def refuse_links_out(run: Path) -> None:
    """Make sure, before a run is written to, that nothing which Stoker writes there is elsewhere.

    Raises:
        RunError: One of its files or folders is a link that leads out of it.
    """
    for name in (*RUN_FILES, "figures", "tensorboard", CHECKPOINTS):
        refuse_link_out(run / name, run)
        if (run / name).is_dir():
            for path in sorted((run / name).iterdir()):
                refuse_link_out(path, run)


def read_text(path: Path, run: Path | None = None) -> str:
    """Read a text file of a run, which may come from anyone.

    Args:
        path: The file.
        run: The run's directory; by default the file's.

    Raises:
        RunError: It is missing, no file, too large, not UTF-8, a link out of the run, or may not be read.
    """
    try:
        refuse_link_out(path, run or path.parent)
        if path.exists() and not path.is_file():
            raise RunError(str(path), "must be a file", "something else", "Copy the run again, whole.")
        size = path.stat().st_size
        if size > TEXT_BYTES:
            raise RunError(str(path), f"must not be larger than {TEXT_BYTES >> 20} MB", f"{size >> 20} MB")
        text = path.read_text(encoding="utf-8")
        if sum(map(text.count, ",:[{\n")) > VALUES:
            raise RunError(str(path), f"must not have more than {VALUES:,} values", "more")
        return text
    except FileNotFoundError:
        raise RunError(str(path), "is missing from the run", "", "Copy the run again, whole.") from None
    except OSError as error:
        raise RunError(str(path), "must be readable", error.strerror or error, "Look at its permissions.") from None
    except UnicodeDecodeError as error:
        raise RunError(str(path), f"must be UTF-8 text: {error}", "", "The file is damaged; copy it again.") from None


def read_json(path: Path, run: Path | None = None) -> dict[str, Any]:
    """Read a JSON object that may come from anyone; see :func:`read_text`.

    Raises:
        RunError: It is missing, too large, not JSON, or not an object.
    """
    text = read_text(path, run)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RunError(str(path), f"must be JSON: {error}", "", "The file is damaged; copy it again.") from None
    if not isinstance(data, dict):
        raise RunError(str(path), "must be a JSON object", type(data).__name__, "The file is damaged; copy it again.")
    return data
