"""Running out of memory, told in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from stoker.errors import OutOfMemoryError

__all__ = ["naming_batch_size"]

# torch raises plain RuntimeErrors on the CPU; these are its allocator's words on Linux, macOS and Windows.
ALLOCATOR_WORDS = ("can't allocate memory", "not enough memory", "out of memory", "could not allocate")


@contextmanager
def naming_batch_size(where: str, batch_size: int | None) -> Iterator[None]:
    """Turn whatever running out of memory raises in this block into :class:`stoker.errors.OutOfMemoryError`."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
        text = str(error).lower()
        known = isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(
            word in text for word in ALLOCATOR_WORDS
        )
        if not known or isinstance(error, OutOfMemoryError):
            raise
        size = "unknown" if batch_size is None else batch_size
        raise OutOfMemoryError(
            where, "a batch must fit into memory", f"batch size {size}", "Use a smaller one, or a smaller model."
        ) from error
