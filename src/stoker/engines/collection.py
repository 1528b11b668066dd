"""Garbage collection, put off while much is made that stays."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["collected_later"]


@contextmanager
def collected_later() -> Iterator[None]:
    """Within it, Python looks for no cycles of garbage, unless somebody asks for it.

    Beside PyTorch, a look at all objects takes some 40 ms, and importing JAX and tracing a step make so many new ones
    that it is made several times over, in vain. What is garbage is collected afterwards, as ever.
    """
    if not gc.isenabled():  # someone else has put it off, and puts it on again
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
