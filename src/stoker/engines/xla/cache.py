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

    A cache that the user has set for JAX is used as it is. One that cannot be written is one that is never hit: JAX
    warns, and compiles.

    Args:
        lowered: Of ``jax.jit(…).lower(…)``.
        single: Whether the program shall keep to one thread on a CPU.
    """
    settings: Any = jax.config
    if settings.jax_compilation_cache_dir is None:
        settings.update("jax_compilation_cache_dir", str(directory()))
        settings.update("jax_persistent_cache_min_compile_time_secs", 0.1)
        settings.update("jax_persistent_cache_min_entry_size_bytes", -1)
    options = {"xla_cpu_multi_thread_eigen": False} if single and jax.default_backend() == "cpu" else None
    return lowered.compile(compiler_options=options)
