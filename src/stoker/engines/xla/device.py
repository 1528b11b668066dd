"""Where XLA computes: where torch has the model and the data; on the CPU with as many threads as torch has.

Across to CUDA nothing was run so far: there was no such device. What is of the crossing itself is tested on the CPU.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import jax
import torch

from stoker.errors import LoweringError

__all__ = ["CPU", "THREADS", "lacking", "on", "threads"]

CPU = torch.device("cpu")
THREADS = "NPROC"  # the variable that XLA's client takes the number of its threads from, once; its flags change nothing
PREALLOCATE = "XLA_PYTHON_CLIENT_PREALLOCATE"  # unless told otherwise, JAX takes most of a GPU's memory when it starts
ELSEWHERE = "jax_cpu_enable_async_dispatch"  # whether programs on the CPU run in a thread of the client's own


@cache
def threads() -> int:
    """How many threads programs are made for: torch's, when this is first asked."""
    asked = os.environ.get(THREADS, "")
    return int(asked) if asked.isdigit() and int(asked) > 0 else torch.get_num_threads()


@contextmanager
def on(device: torch.device) -> Iterator[None]:
    """Arrays are made, and programs run, where torch has the data; numbers keep their 64 bits.

    Raises:
        LoweringError: JAX has no such device.
    """
    with jax.enable_x64(True), jax.default_device(_jax_device(device)):
        yield


def lacking(device: torch.device) -> str | None:
    """Why nothing can be computed on a device, in one line; ``None`` if it can."""
    try:
        _jax_device(device)
    except LoweringError:
        return f"JAX has no {device}"
    return None


@cache
def _jax_device(device: torch.device) -> Any:
    """JAX's device. If nothing in this process has used JAX before, it starts as programs of Stoker's want it."""
    try:
        with _starting():
            devices = jax.local_devices(backend=device.type)
    except RuntimeError:  # no such platform
        devices = []
    if device.type == "cpu" and devices:
        return devices[0]
    index: int | None = device.index  # torch: the one that is current
    for one in devices:
        if one.local_hardware_id == (torch.cuda.current_device() if index is None else index):
            return one
    raise LoweringError("device", "must be one that JAX has", str(device), "Install JAX for it.")


@contextmanager
def _starting() -> Iterator[None]:
    """If JAX's client starts in here, it has torch's number of threads, and runs programs in the thread that calls.

    Who calls waits for each program anyway. On another core its own caches, and the caller's, are cold again each time,
    which costs an epoch of a small network a seventh of its time on one processor; see ``docs/performance.md``.
    """
    mine = {THREADS: str(threads()), PREALLOCATE: os.environ.get(PREALLOCATE, "false")}
    before = {name: os.environ.get(name) for name in mine}
    settings: Any = jax.config
    known = {ELSEWHERE: settings.values[ELSEWHERE]} if ELSEWHERE in settings.values else {}  # a later JAX may have none
    os.environ.update(mine)
    if known and ELSEWHERE.upper() not in os.environ:  # what the user says holds
        settings.update(ELSEWHERE, False)
    try:
        yield
    finally:
        for name, value in known.items():
            settings.update(name, value)
        for name, text in before.items():
            if text is None:
                del os.environ[name]
            else:
                os.environ[name] = text
