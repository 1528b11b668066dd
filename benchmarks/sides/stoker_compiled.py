"""Stoker's Trainer with ``engine="compiled"``; its late imports are made early, as those of the other sides are.

How long they took it says: ``auto`` makes them within the call.
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import time
from dataclasses import replace
from typing import Any

import torch.fx.experimental.proxy_tensor  # noqa: F401

import stoker.engines
from benchmarks.sides import Trained
from benchmarks.sides import stoker as any_engine
from stoker.engines.collection import collected_later

__all__ = ["train"]

_began = time.perf_counter()
with collected_later():  # as the engines import it
    with contextlib.suppress(ImportError):  # without it, Stoker trains eagerly, and its note says so
        import jax.dlpack
        import jax.numpy  # noqa: F401
    for module in pkgutil.walk_packages(stoker.engines.__path__, "stoker.engines."):
        importlib.import_module(module.name)
IMPORTS_S = time.perf_counter() - _began


def train(*arguments: Any, **settings: Any) -> Trained:
    return replace(any_engine.train(*arguments, **settings), imports_s=IMPORTS_S)
