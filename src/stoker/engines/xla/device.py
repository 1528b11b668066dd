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
    """JAX's device. If nothing in this process has used JAX before, it starts with torch's number of threads."""
    mine = {THREADS: str(threads()), PREALLOCATE: os.environ.get(PREALLOCATE, "false")}
    before = {name: os.environ.get(name) for name in mine}
    os.environ.update(mine)
    try:
        devices = jax.local_devices(backend=device.type)
    except RuntimeError:  # no such platform
        devices = []
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    if device.type == "cpu" and devices:
        return devices[0]
    index: int | None = device.index  # torch: the one that is current
    for one in devices:
        if one.local_hardware_id == (torch.cuda.current_device() if index is None else index):
            return one
    raise LoweringError("device", "must be one that JAX has", str(device), "Install JAX for it.")
