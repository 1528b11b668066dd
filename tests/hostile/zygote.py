# ruff: noqa: PTH100, PTH118, PTH119, PTH120  # what Python tells of is text
"""A process that has imported what loaders need, and forks for each file: each is read in bounded memory and time.

    python zygote.py < orders > outcomes

Each order is a line of JSON (:class:`Order`), and so is each outcome (:class:`Outcome`).
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["MEMORY", "SECONDS", "Order", "Outcome", "Zygote", "running"]

MEMORY = 1 << 30
"""Bytes of addresses that a loader may take besides what it has when it is asked."""

SECONDS = 20.0
"""That it may take."""

_IMPORTED = {"stoker", "torch", "torchmetrics", "matplotlib", "sklearn", "optuna", "sqlalchemy", "PIL", "jinja2"}
_ACTS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect", "pickle.find_class"}
_WRITES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.chmod", "os.truncate"}


@dataclass(frozen=True)
class Order:
    """What to read.

    Attributes:
        loader: A name of :data:`loaders.LOADERS`.
        folder: Where the files are; a folder ``secret`` beside it must neither be read nor written.
    """

    loader: str
    folder: str


@dataclass(frozen=True)
class Outcome:
    """How that went.

    Attributes:
        how: ``read``; ``refused``, with an error of Stoker's; ``failed``, with another one; ``killed``; or ``slow``.
        text: The error's.
        trace: Of one that is not Stoker's.
        acts: What was done that no loader has reason to do.
        seconds: How long it took.
        peak: Bytes of memory that were taken besides those at the beginning.
    """

    how: str
    text: str = ""
    trace: str = ""
    acts: list[str] = field(default_factory=list)
    seconds: float = 0.0
    peak: int = 0


class Zygote:
    """Has files read in processes of their own.

    Args:
        process: The process that forks.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def read(self, loader: str, folder: Path) -> Outcome:
        """Have a loader read its file in a folder."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(Order(loader, str(folder)))) + "\n")
        self._process.stdin.flush()
        return Outcome(**json.loads(self._process.stdout.readline()))


@contextmanager
def running(good: Path) -> Iterator[Zygote]:
    """The process, until the block ends.

    Args:
        good: The folder of good files. What reading them imports is imported beforehand, once for all forks.
    """
    alone = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment = {**os.environ, **alone, "POLARS_MAX_THREADS": "2", "MPLBACKEND": "agg"}
    command = [sys.executable, __file__, str(good)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            yield Zygote(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()


def main() -> None:
    """Serve orders until there are no more; nothing here may start a thread, which would not live on in a fork."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what loaders print is nobody's answer
    sys.path.insert(0, str(Path(__file__).parent))
    import loaders

    for name in _needed(loaders.LOADERS.values(), Path(sys.argv[1])):
        with suppress(Exception):  # some are only there once others have made them
            import_module(name)
    for line in sys.stdin:
        order = Order(**json.loads(line))
        outcome = _forked(loaders.LOADERS[order.loader].load, Path(order.folder))
        answers.write(json.dumps(asdict(outcome)) + "\n")
        answers.flush()


def _needed(all_loaders: Iterable[Any], good: Path) -> list[str]:
    """The modules that loaders import when they are used, found in a fork."""
    import loaders

    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with tempfile.TemporaryDirectory() as place, suppress(BaseException):
            for number, loader in enumerate(all_loaders):
                loader.load(loaders.needed(loader, good, Path(place) / str(number)))
        with os.fdopen(writing, "w") as answer:
            answer.write(json.dumps(sorted(sys.modules)))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        names: list[str] = json.loads(answer.read())
    os.waitpid(child, 0)
    return [name for name in names if name.partition(".")[0] in _IMPORTED]


def _forked(load: Callable[[Path], object], folder: Path) -> Outcome:
    """Read a file in a fork."""
    reading, writing = os.pipe()
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(reading)
        with os.fdopen(writing, "w") as answer:
            answer.write(json.dumps(asdict(_bounded(load, folder))))
        os._exit(0)
    os.close(writing)
    text, timed_out = "", False
    with os.fdopen(reading) as answer:
        if select.select([answer], [], [], SECONDS)[0]:
            text = answer.read()
        else:
            timed_out = True
            os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    seconds = time.monotonic() - began
    if timed_out:
        return Outcome("slow", seconds=seconds)
    if not text:
        return Outcome("killed", f"by signal {os.waitstatus_to_exitcode(status)}", seconds=seconds)
    return Outcome(**{**json.loads(text), "seconds": seconds})


def _bounded(load: Callable[[Path], object], folder: Path) -> Outcome:
    from loaders import Refused

    from stoker.errors import StokerError

    acts: list[str] = []
    sys.addaudithook(_watcher(folder, acts))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    addresses = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (addresses, addresses))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    how, text, trace = "read", "", ""
    try:
        load(folder)
    except (StokerError, Refused) as error:
        how, text = "refused", str(error)
    except BaseException as error:
        how, text, trace = "failed", f"{type(error).__name__}: {error}"[:500], traceback.format_exc()[-4000:]
    if "antigravity" in sys.modules:
        acts.append("imported a module that the file names")
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    return Outcome(how, text.encode(errors="replace").decode(), trace, acts[:5], peak=peak)


def _watcher(folder: Path, acts: list[str]) -> Callable[[str, tuple[Any, ...]], None]:
    """Notes what is done outside of the folder, and what runs code, as Python itself tells of it."""
    secret = str(folder.with_name("secret"))
    inside = str(folder)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "subprocess.Popen" and args[0] == "uname":  # the standard library asks which processor this is
            return
        if event in _ACTS:
            acts.append(f"{event}{args!r}"[:300])
        elif event == "open" and isinstance(args[0], (str, bytes, os.PathLike)):
            path = os.path.realpath(os.fsdecode(args[0]))
            writes = bool(args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) if isinstance(args[2], int) else False
            if path.startswith(secret) or (writes and not _may_write(path, inside)):
                acts.append(f"opened {path}")
        elif event in _WRITES and isinstance(args[0], (str, bytes, os.PathLike)):
            path = os.path.abspath(os.fsdecode(args[0]))
            path = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
            if not _may_write(path, inside):
                acts.append(f"{event} {os.fsdecode(args[0])}")

    return hook


def _may_write(path: str, inside: str) -> bool:
    own = ("__pycache__", "matplotlib", "torchinductor")  # what libraries keep for themselves
    return path.startswith((inside, "/dev/null", "/dev/shm")) or any(name in path for name in own)


if __name__ == "__main__":
    main()
