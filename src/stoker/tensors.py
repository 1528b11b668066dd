"""Tensors by name out of a safetensors file, which may come from anyone."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

__all__ = ["MOST_TENSORS", "BadTensorsError", "read_tensors"]

MOST_TENSORS = 100_000
"""More than any network has; each costs a kilobyte or so, however few bytes of the file it takes."""

MOST_HEADER = 100_000_000  # which is the library's own limit


class BadTensorsError(Exception):
    """A file that is no safetensors, and why; its reader makes it an error of Stoker's."""


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Read a safetensors file.

    The library makes sure that the header (of at most 100 MB) is JSON of tensors that lie one behind the other, without
    gaps, and fill the file to its end; so no more memory is taken than the file is large, and what Python needs for
    each tensor.

    Args:
        path: The file.

    Returns:
        The header's metadata, and the tensors, which may be views of the mapped file.

    Raises:
        OSError: It is not there, or may not be read.
        BadTensorsError: It is no such file.
    """
    if path.exists() and not path.is_file():  # opening a pipe would wait for a writer
        raise BadTensorsError("not a file")
    with path.open("rb") as start:  # safetensors takes every file that it cannot open for one that is not there
        size = int.from_bytes(start.read(8), "little")
        if not 2 <= size <= min(MOST_HEADER, path.stat().st_size - 8):  # before it is mapped, however large it is
            raise BadTensorsError("no header of such a file")
    try:
        with safe_open(path, "pt") as file:
            names = file.keys()
            if len(names) > MOST_TENSORS:
                raise BadTensorsError(f"more than {MOST_TENSORS:,} tensors")
            return file.metadata() or {}, {name: file.get_tensor(name) for name in names}
    except BadTensorsError:
        raise
    except MemoryError:
        raise BadTensorsError("more than can be mapped into memory") from None
    except (SafetensorError, ValueError, TypeError, AttributeError, KeyError, RuntimeError, OverflowError) as error:
        raise BadTensorsError(str(error) or type(error).__name__) from None
