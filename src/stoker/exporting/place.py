"""Where an export goes: beside its target while it is made, and there only when it is whole and right."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from stoker.errors import ConfigError, ExportError, RunExistsError
from stoker.exporting.formats import Format
from stoker.runs.files import write_atomic
from stoker.training.interrupts import Terminated

__all__ = ["drop_log", "flush", "keep_log", "refuse_existing", "target_path", "terminable", "workplace"]

LOG_HEAD = "# stoker export: all that the exporter said\n"


def target_path(run: Path, one: Format, out: str | Path | None, quantize: str | None, *, alone: bool) -> Path:
    """Where the file is to be.

    Args:
        run: The run's directory.
        one: The format.
        out: What the user asked for.
        quantize: Likewise.
        alone: Whether it is the only file.

    Raises:
        ConfigError: ``out`` cannot be that.
    """
    name = f"model{'.int8' if quantize else ''}{one.suffix}"
    if out is None:
        return run / "exports" / name
    path = Path(out)
    ending = "." + one.suffix.rpartition(".")[2]
    if not alone or path.is_dir() or str(out).endswith(os.sep):
        if os.path.lexists(path) and not path.is_dir():
            raise ConfigError("--out", "must be a directory for several formats", str(out), "Choose another --out.")
        return path / name
    if path.suffix != ending:
        raise ConfigError("--out", f"must end in {ending} for {one.name}", str(out), f"Such as model{one.suffix}.")
    return path


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Make sure that nothing stands where the file and its contract are to be, or that it may go.

    Raises:
        RunExistsError: Something does.
    """
    for file in (path, path.with_name(f"{path.name}.json")):
        if os.path.lexists(file) and not (overwrite and file.is_file()):
            fix = "Choose another --out" + ("." if overwrite else ", or say --overwrite.")
            raise RunExistsError("--out", "must not exist yet", str(file), fix)


@contextmanager
def terminable() -> Iterator[None]:
    """Within this block SIGTERM is an exception, so that what must be put in order is; the second one ends at once.

    A program that handles SIGTERM itself, or ignores it, goes on doing so; and Python takes handlers in the main thread
    alone.

    Raises:
        Terminated: It came.
    """

    def end(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise Terminated

    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def workplace(path: Path) -> Iterator[Path]:
    """A directory beside the target, on the same disk, that is gone afterwards; and with it what was refused.

    Raises:
        ConfigError: There can be none.
        Terminated: SIGTERM came.
    """
    with terminable(), _directory(path) as folder:
        yield folder


@contextmanager
def _directory(path: Path) -> Iterator[Path]:
    missing = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".tmp-export-", dir=path.parent))
    except FileExistsError:
        raise ConfigError(
            "--out", "must be in a directory", f"a file as {path.parent}", "Choose another --out."
        ) from None
    except OSError as error:
        reason = f"must be in a directory that can be written to ({error.strerror})"
        raise ConfigError("--out", reason, str(path), "Choose another --out.") from None
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        for made in missing:  # from the innermost outwards
            with suppress(OSError):
                made.rmdir()
        raise
    shutil.rmtree(folder, ignore_errors=True)


def flush(path: Path) -> None:
    """Have a file on the disk, and not only in the system's memory."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def keep_log(error: ExportError, path: Path) -> None:
    """Write all that an exporter said where the file would have been, with ``.log`` behind its name.

    A file of that name that is somebody else's stays as it is.
    """
    log = path.with_name(f"{path.name}.log")
    if not error.log.strip() or (os.path.lexists(log) and not _ours(log)):
        return
    with suppress(OSError):
        log.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(log, LOG_HEAD + error.log)
        error.fix = f"{error.fix} All that the exporter said is in {log}.".strip()


def drop_log(path: Path) -> None:
    """Remove what :func:`keep_log` wrote of an earlier try, and nothing else."""
    log = path.with_name(f"{path.name}.log")
    with suppress(OSError):
        if _ours(log):
            log.unlink()


def _ours(log: Path) -> bool:
    if log.is_symlink() or not log.is_file():
        return False
    try:
        with log.open("rb") as file:
            return file.read(len(LOG_HEAD)) == LOG_HEAD.encode()
    except OSError:
        return False
