"""Running out of memory, told in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from stoker.errors import OutOfMemoryError, StokerError

__all__ = ["naming_batch_size", "naming_data"]

# torch raises plain RuntimeErrors on the CPU, and some of its libraries' own on CUDA; these are their words on Linux,
# macOS and Windows.
ALLOCATOR_WORDS = ("can't allocate memory", "not enough memory", "out of memory", "could not allocate", "alloc_failed")


@contextmanager
def naming_batch_size(where: str, batch_size: int | None) -> Iterator[None]:
    """Turn running out of memory in this block into :class:`stoker.errors.OutOfMemoryError`, naming the batch size."""
    size = "unknown" if batch_size is None else batch_size
    with _told_as(
        where, "a batch must fit into memory", f"batch size {size}", "Use a smaller one, or a smaller model."
    ):
        yield


@contextmanager
def naming_data(where: str, device: torch.device) -> Iterator[None]:
    """The same where data are moved to a device as a whole."""
    fix = "Pass a Dataset or a DataLoader, which move one batch at a time."
    with _told_as(where, f"the data must fit into the memory of {device}", "too many", fix):
        yield


@contextmanager
def _told_as(where: str, rule: str, got: str, fix: str) -> Iterator[None]:
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
        text = str(error).lower()
        known = isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(
            word in text for word in ALLOCATOR_WORDS
        )
        if not known or isinstance(error, StokerError):
            raise
        raise OutOfMemoryError(where, rule, got, fix) from error
