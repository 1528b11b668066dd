"""Which device, which precision, and how repeatable."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias

import torch

from stoker.errors import ConfigError, UnknownNameError

__all__ = ["Precision", "autocast_dtype", "deterministic_algorithms", "resolve_device"]

Precision: TypeAlias = Literal["32", "bf16"]


def resolve_device(name: str | torch.device) -> torch.device:
    """Turn a device's name into a device that is here.

    Args:
        name: ``"auto"`` (the first there is of cuda, mps, xpu, cpu), or any of torch's, such as ``"cuda:1"``. Of
            several processes that ``torchrun`` started, each has the CUDA device of its local rank, if none is named.

    Raises:
        UnknownNameError: No kind of device has that name.
        ConfigError: This machine has no such device.
    """
    if str(name) == "auto":
        name = next(kind for kind in ("cuda", "mps", "xpu", "cpu") if _count(kind))
    if str(name) == "cuda" and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"  # torchrun's processes have one each
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UnknownNameError("device", str(name), ["auto", "cpu", "cuda", "mps", "xpu"]) from None
    if device.type != "meta" and (device.index or 0) >= _count(device.type):
        here = [kind for kind in ("cuda", "mps", "xpu", "cpu") if _count(kind)]
        raise ConfigError("device", "must be a device of this machine", repr(str(name)), f"Here: {', '.join(here)}.")
    return device


def _count(kind: str) -> int:
    if kind == "cpu":
        return 1
    if kind == "mps":
        return int(torch.backends.mps.is_available())
    module = getattr(torch, kind, None)
    return int(module.device_count()) if module is not None and module.is_available() else 0


def autocast_dtype(precision: str | int) -> torch.dtype | None:
    """The dtype to autocast to: ``None`` for ``"32"``, bfloat16 for ``"bf16"``.

    Raises:
        UnknownNameError: It is neither.
    """
    names: dict[str, torch.dtype | None] = {"32": None, "bf16": torch.bfloat16}
    if str(precision) not in names:
        raise UnknownNameError("precision", str(precision), names)
    return names[str(precision)]


@contextmanager
def deterministic_algorithms(wanted: bool) -> Iterator[None]:
    """Within this block torch uses deterministic algorithms only, and raises where there is none."""
    if not wanted:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when first used
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = benchmark
