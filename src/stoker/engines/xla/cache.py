"""Compiling, with what was compiled before at hand: JAX's own cache of programs, in the user's cache folder.

JAX can bound its cache itself (``jax_compilation_cache_max_size``), but holds a lock over all processes at each look
then, and writes nothing any more into a folder that has programs from before, or of a process that was killed while
it wrote. So the folder is pruned here, after a program was added to it, without a lock: a program that another
process removes at the same time, or is about to read, is compiled anew.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax

from stoker.engines.xla.device import threads
from stoker.engines.xla.heap import give_back
from stoker.errors import ConfigError

__all__ = ["compiled", "directory", "limit", "prune"]

WORTH = 0.1  # seconds of compiling, from which on a program is kept
MEGABYTES = 1000.0  # kept of all programs together, if nothing else is said


def directory() -> Path:
    """Where compiled programs are kept: ``$STOKER_CACHE/xla``, or ``stoker/xla`` in the user's cache folder.

    In a folder for each number of threads: XLA cuts a program up for them, and does not tell such programs apart.
    """
    own, home = os.environ.get("STOKER_CACHE"), os.environ.get("XDG_CACHE_HOME")
    cache = Path(own) if own else (Path(home) if home else Path.home() / ".cache") / "stoker"
    return cache / "xla" / f"{threads()}-threads"


def compiled(lowered: Any) -> Any:
    """Compile a lowered function, or find it compiled.

    A cache that the user has set for JAX is used as it is. Where the folder cannot be made or written, or others can
    write to it, there is none: what it holds is run. Memory that compiling took goes back to the system.

    Args:
        lowered: Of ``jax.jit(…).lower(…)``.

    Raises:
        ConfigError: ``STOKER_CACHE_MB`` is no number from 0.
    """
    settings: Any = jax.config
    home = directory().parent
    if settings.jax_compilation_cache_dir is None and _ours(directory()):
        settings.update("jax_compilation_cache_dir", str(directory()))
        settings.update("jax_persistent_cache_min_compile_time_secs", WORTH)
        settings.update("jax_persistent_cache_min_entry_size_bytes", -1)
    in_use = settings.jax_compilation_cache_dir
    ours = in_use is not None and Path(in_use).parent == home
    most, began = limit() if ours else 0.0, time.perf_counter()
    program = lowered.compile()
    if ours and time.perf_counter() - began >= WORTH:  # else there is none more than before
        prune(home, most)
    give_back()
    return program


def limit() -> float:
    """How many bytes of programs are kept: ``$STOKER_CACHE_MB`` million, or 1,000 million; ``inf`` is no limit.

    Raises:
        ConfigError: It is no number from 0.
    """
    given = os.environ.get("STOKER_CACHE_MB") or str(MEGABYTES)
    try:
        megabytes = float(given)
    except ValueError:
        megabytes = -1.0
    if not megabytes >= 0:
        fix = f"Set it to such as {MEGABYTES:.0f}, or unset it."
        raise ConfigError("STOKER_CACHE_MB", "must be a number of megabytes from 0", repr(given), fix)
    return megabytes * 1e6


def prune(home: Path, most: float) -> None:
    """Remove the programs that were not used for longest, until the others are small enough together.

    The last one stays however large it is, for the process that waits for it. When a file was read last, the file
    system says: most of them to within a day, some not at all, and then it counts when it was written.

    Args:
        home: Of the folders with programs, one for each number of threads.
        most: How many bytes are kept.
    """
    found = sorted(_programs(home), reverse=True)
    total = 0
    for place, (_, size, path) in enumerate(found):
        total += size
        if place and total > most:
            with suppress(OSError):  # another process was here before, or reads it on a system that minds
                Path(path).unlink()


def _programs(home: Path) -> Iterator[tuple[float, int, str]]:
    """When each was used last, how many bytes it has, and where it is."""
    for folder in home.glob("*-threads"):
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith("-cache"):
                    with suppress(OSError):
                        about = entry.stat(follow_symlinks=False)
                        yield max(about.st_atime, about.st_mtime), about.st_size, entry.path


def _ours(folder: Path) -> bool:
    """Whether it can be written, and neither it nor the two it is in belong to others or let all others write."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = [path.stat() for path in (folder, *list(folder.parents)[:2])]
    except OSError:
        return False
    if hasattr(os, "getuid"):  # not on Windows
        if any(about.st_uid not in (os.getuid(), 0) for about in found):
            return False
        if any(about.st_mode & stat.S_IWOTH and not about.st_mode & stat.S_ISVTX for about in found):
            return False
    return os.access(folder, os.W_OK)
