"""How large a file's contents may become in memory: what is read may come from anyone."""

from __future__ import annotations

import os
from typing import IO, Protocol

from stoker.errors import DataError, SourceFormatError

__all__ = ["GROWTH", "LEAST_BYTES", "physical_memory", "read_whole", "too_large", "unpacked"]

LEAST_BYTES = 256 << 20
"""What a file may always become in memory, however small it is."""

GROWTH = 100
"""Times its size that a packed file may become: real data are packed to a tenth or so, nothing but zeros to a
thousandth."""

_AT_ONCE = 1 << 20


class Readable(Protocol):
    """What gives its bytes part by part."""

    def read(self, size: int, /) -> bytes: ...


def unpacked(file: Readable, packed: int, where: str) -> bytes:
    """Read all that a packed file holds.

    Args:
        file: What unpacks it.
        packed: Bytes that it takes packed.
        where: What to call it in errors.

    Raises:
        SourceFormatError: It becomes more than :data:`LEAST_BYTES` and :data:`GROWTH` times as large.
    """
    most = max(LEAST_BYTES, GROWTH * packed)
    data = bytearray()
    while part := file.read(_AT_ONCE):
        data += part
        if len(data) > most:
            raise too_large(most, where)
    return bytes(data)


def too_large(most: int, where: str) -> SourceFormatError:
    """The error for a packed file that becomes too large."""
    rule = f"must not become more than {most >> 20:,} MB when it is unpacked, {GROWTH} times its size"
    return SourceFormatError(where, rule, "more", "Unpack it yourself if it is meant.")


def read_whole(file: IO[bytes], where: str) -> bytes:
    """Read a file, if the machine could hold it: one with holes in it takes no disk, and says that it is huge.

    Raises:
        DataError: It is larger than the machine's memory.
    """
    size, memory = os.fstat(file.fileno()).st_size, physical_memory()
    if memory is not None and size > memory:
        got = f"{size / 2**30:,.1f} GiB"
        raise DataError(where, f"must fit into memory ({memory / 2**30:.1f} GiB)", got, "Take a part of it.")
    return file.read()


def physical_memory() -> int | None:
    """The machine's memory in bytes; ``None`` where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on Windows
        return None
