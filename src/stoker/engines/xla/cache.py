"""Compiling, with what was compiled before at hand: JAX's own cache of programs, in the user's cache folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jax

__all__ = ["compiled", "directory"]


def directory() -> Path:
    """Where compiled programs are kept: ``$STOKER_CACHE/xla``, or ``stoker/xla`` in the user's cache folder."""
    own = os.environ.get("STOKER_CACHE")
    if own:
        return Path(own) / "xla"
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "stoker" / "xla"


def compiled(lowered: Any, *, single: bool) -> Any:
    """Compile a lowered function, or find it compiled.

    A cache that the user has set for JAX is used as it is. Where the folder cannot be made or written, there is none.

    Args:
        lowered: Of ``jax.jit(…).lower(…)``.
        single: Whether the program shall keep to one thread on a CPU.
    """
    settings: Any = jax.config
    if settings.jax_compilation_cache_dir is None and _writable(directory()):
        settings.update("jax_compilation_cache_dir", str(directory()))
        settings.update("jax_persistent_cache_min_compile_time_secs", 0.1)
        settings.update("jax_persistent_cache_min_entry_size_bytes", -1)
    options = {"xla_cpu_multi_thread_eigen": False} if single else None
    return lowered.compile(compiler_options=options)


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)
