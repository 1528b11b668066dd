"""Stoker's Trainer with ``engine="compiled"``; its late imports are made early, as those of the other sides are."""

from __future__ import annotations

import contextlib
import importlib
import pkgutil

with contextlib.suppress(ImportError):  # without it, Stoker trains eagerly, and its note says so
    import jax.dlpack
    import jax.numpy  # noqa: F401
import torch.fx.experimental.proxy_tensor  # noqa: F401

import stoker.engines
from benchmarks.sides.stoker import train

__all__ = ["train"]

for module in pkgutil.walk_packages(stoker.engines.__path__, "stoker.engines."):
    importlib.import_module(module.name)
