"""How many threads each process of a study has.

By a fixed rule, and not by a clock: the number of threads decides how sums are split, and so their last bits. What the
rule stands on was measured (``docs/performance.md``, Studies).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from stoker.errors import ConfigError

__all__ = ["having_threads", "threads_each"]


def threads_each(asked: Any, workers: int, *, own: int, environ: Mapping[str, str] = os.environ) -> int:
    """How many threads each worker has.

    Args:
        asked: ``"auto"``: the threads of one process, shared out among the workers. Or how many each has.
        workers: How many processes run trials.
        own: torch's threads in a process of its own, one for each core that it may use.
        environ: Where ``OMP_NUM_THREADS`` may say how many a process has: then each has as many.

    Raises:
        ConfigError: It is neither, or more than the machine's cores.
    """
    if asked == "auto":
        return own if workers == 1 or environ.get("OMP_NUM_THREADS") else max(1, own // workers)
    if isinstance(asked, bool) or not isinstance(asked, int):
        raise ConfigError("--threads", "must be auto, or a whole number from 1 on", repr(asked))
    cores = os.cpu_count() or 1
    if not 1 <= asked <= cores:
        fix = "More threads than cores wait for each other."
        raise ConfigError("--threads", f"must be from 1 to the cores of this machine, {cores}", asked, fix)
    return asked


@contextmanager
def having_threads(count: int) -> Iterator[None]:
    """Within this block torch has so many threads in this process, and what is compiled is for as many.

    JAX takes its number of threads once, when a process first compiles something, and keeps it.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
