"""Where XLA computes: on the CPU, whatever JAX's default device is, with as many threads as torch has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import jax
import torch

__all__ = ["THREADS", "on_cpu", "threads"]

THREADS = "NPROC"  # the variable that XLA's client takes the number of its threads from, once; its flags change nothing


@cache
def threads() -> int:
    """How many threads programs are made for: torch's, when this is first asked."""
    asked = os.environ.get(THREADS, "")
    return int(asked) if asked.isdigit() and int(asked) > 0 else torch.get_num_threads()


@contextmanager
def on_cpu() -> Iterator[None]:
    """Arrays are made, and programs run, on the CPU, where torch has the data; numbers keep their 64 bits."""
    with jax.enable_x64(True), jax.default_device(_cpu()):
        yield


@cache
def _cpu() -> Any:
    """JAX's CPU device. If nothing in this process has used JAX before, it starts with torch's number of threads."""
    before = os.environ.get(THREADS)
    os.environ[THREADS] = str(threads())
    try:
        return jax.local_devices(backend="cpu")[0]
    finally:
        if before is None:
            del os.environ[THREADS]
