"""Compiling, with what was compiled before at hand: JAX's own cache of programs, in the user's cache folder."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import jax

from stoker.engines.xla.device import threads

__all__ = ["compiled", "directory"]


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
    write to it, there is none: what it holds is run.

    Args:
        lowered: Of ``jax.jit(…).lower(…)``.
    """
    settings: Any = jax.config
    if settings.jax_compilation_cache_dir is None and _ours(directory()):
        settings.update("jax_compilation_cache_dir", str(directory()))
        settings.update("jax_persistent_cache_min_compile_time_secs", 0.1)
        settings.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return lowered.compile()


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
