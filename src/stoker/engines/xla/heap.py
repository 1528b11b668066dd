"""What compiling leaves behind, given back to the system."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

__all__ = ["give_back"]


def give_back() -> bool:
    """Give back to the system what the C heap holds free; whether there was any.

    XLA and LLVM free some 40 MB once a program is compiled, in pieces that lie between others: glibc keeps them, and
    what a training takes afterwards, tensors of megabytes, comes on top. It is one call of some 10 ms and no setting.
    Other C libraries have no such call, and nothing is done there.
    """
    trim = _trim()
    return trim is not None and bool(trim(0))


@cache
def _trim() -> Any:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library; Windows takes no None
        return None
