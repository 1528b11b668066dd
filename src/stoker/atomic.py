"""Files that are, whatever happens while they are written, either the whole old one or the whole new one."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stoker.errors import DiskFullError

__all__ = ["NO_ROOM", "leads_out", "naming_full_disk", "write_atomic"]

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def naming_full_disk(path: str | Path) -> Iterator[None]:
    """Turn a full disk, whoever notices it, into :class:`stoker.errors.DiskFullError`."""
    try:
        yield
    except DiskFullError:
        raise
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise DiskFullError(str(path), "no room left on the disk", os.strerror(error.errno), "Make room.") from error
    except Exception as error:
        # safetensors reports a failed write as an error of its own, with the system's words in its text
        if not any(os.strerror(number).lower() in str(error).lower() for number in NO_ROOM):
            raise
        raise DiskFullError(str(path), "no room left on the disk", str(error), "Make room.") from error


def write_atomic(path: Path, write: bytes | str | Callable[[Path], None]) -> None:
    """Write a file under a temporary name, flush it to the disk, then give it its name.

    Args:
        path: The file's name.
        write: Its content, or a function that writes it to the path given.

    Raises:
        DiskFullError: There is no room; nothing is left behind.
    """
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        temporary.unlink(missing_ok=True)  # a link that somebody put there would lead what is written elsewhere
        with naming_full_disk(path):
            if callable(write):
                write(temporary)
            else:
                temporary.write_bytes(write.encode() if isinstance(write, str) else write)
            with suppress(OSError):  # safetensors writes for the owner's eyes only
                temporary.chmod(path.parent.stat().st_mode & 0o666)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
            _flush_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def leads_out(path: Path, folder: Path) -> bool:
    """Whether a path in a folder is, once links are followed, outside of it."""
    try:
        return not path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # links in a circle
        return True


def _flush_folder(folder: Path) -> None:
    """Flush a folder's names to the disk, where the system can: the new name outlives a power cut too."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
