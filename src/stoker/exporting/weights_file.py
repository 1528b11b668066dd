"""Weights out of a file that may come from anyone: a PyTorch ``state_dict`` or safetensors; none of it is run."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from stoker.errors import SourceFormatError, SourceNotFoundError
from stoker.exporting.quiet import listening

__all__ = ["read_weights"]

PICKLE_BYTES = 64 << 20  # names and shapes; the numbers stand beside it
ENTRIES = 1_000_000
NAMED = ("state_dict", "model_state_dict", "model")
RESAVE = "In the program that trained it: torch.save(model.state_dict(), path)."


def read_weights(path: Path, *, largest: int) -> dict[str, Tensor]:
    """Read tensors by name.

    A PyTorch file is read with ``weights_only=True``, and mapped into memory instead of copied, so that what it says of
    itself decides neither what is run nor how much memory is taken: tensors that reach beyond the file are refused.

    Args:
        path: A ``.safetensors`` file, or one that ``torch.save`` wrote: a ``state_dict``, or a dict that has one under
            ``state_dict``, as Lightning's and Stoker's own do.
        largest: Bytes beyond which a file is refused.

    Returns:
        The tensors, views of the mapped file.

    Raises:
        SourceNotFoundError: There is no such file.
        SourceFormatError: It is another kind of file, is damaged, too large, or holds more than tensors.
    """
    where = str(path)
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for a writer
            raise SourceNotFoundError(where, "must be a file", "a directory" if path.is_dir() else "something else")
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(16)
    except SourceNotFoundError:
        raise
    except FileNotFoundError:
        raise SourceNotFoundError(where, "no such file") from None
    except OSError as error:
        raise SourceNotFoundError(where, f"must be a file to read: {error.strerror}") from None
    if size > largest:
        rule = f"must not be larger than {largest / 1e6:,.0f} MB, many times this model"
        raise SourceFormatError(where, rule, f"{size / 1e6:,.0f} MB", "Is it of another model?")
    if head.startswith(b"PK\x03\x04"):
        return _of_torch(path)
    if path.suffix == ".safetensors" or (len(head) > 8 and head[8:9] == b"{"):
        return _safetensors(path)
    if head.startswith(b"\x80"):
        rule = "must be a file of torch.save since torch 1.6, or safetensors"
        raise SourceFormatError(where, rule, "a bare pickle, which is not read", RESAVE)
    got = "an empty file" if size == 0 else "another kind of file"
    raise SourceFormatError(where, "must be a file of torch.save, or safetensors", got, RESAVE)


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no dict
    except (SafetensorError, OSError, ValueError, RuntimeError, OverflowError) as error:
        raise SourceFormatError(str(path), f"must be a safetensors file ({error})") from None


def _of_torch(path: Path) -> dict[str, Tensor]:
    where = str(path)
    _check_archive(path)
    with listening():
        try:
            loaded: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except pickle.UnpicklingError as error:
            said = " ".join(str(error).split())
            named = re.search(r"GLOBAL (\S+)", said)
            got = named[1] if named else "something else"
            rule = "must hold tensors and plain containers alone"
            raise SourceFormatError(where, rule, f"{got}, which is not loaded", RESAVE) from None
        except Exception as error:  # the file decides what goes wrong
            said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise SourceFormatError(where, f"must be a file of torch.save ({said})", "", RESAVE) from None
    return _tensors_in(loaded, where)


def _check_archive(path: Path) -> None:
    """torch.save packs nothing together: an entry that grows when it is read is none of its."""
    where = str(path)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RecursionError) as error:
        raise SourceFormatError(where, f"must be a file of torch.save ({error})", "", RESAVE) from None
    names = [entry.filename for entry in entries]
    if any(name.endswith("/constants.pkl") for name in names):
        raise SourceFormatError(where, "must be weights", "a TorchScript program, which is not run", RESAVE)
    if not any(name.endswith("/data.pkl") for name in names):
        raise SourceFormatError(where, "must be a file of torch.save", "another archive", RESAVE)
    for entry in entries:
        packed = entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size
        if packed or (entry.filename.endswith(".pkl") and entry.file_size > PICKLE_BYTES):
            rule = "must be stored as torch.save does, nothing packed"
            raise SourceFormatError(where, rule, repr(entry.filename[:80]), RESAVE)
    if len(entries) > ENTRIES:
        raise SourceFormatError(where, f"must have at most {ENTRIES:,} entries", len(entries), RESAVE)


def _tensors_in(loaded: Any, where: str) -> dict[str, Tensor]:
    """The ``state_dict`` in what was loaded."""
    if not isinstance(loaded, Mapping):
        raise SourceFormatError(where, "must hold a state_dict", type(loaded).__name__, RESAVE)
    inner = next((loaded[name] for name in NAMED if isinstance(loaded.get(name), Mapping)), loaded)
    tensors = {}
    for name, value in inner.items():
        if not isinstance(value, Tensor) or not isinstance(name, str):
            got = f"{type(value).__name__} as {str(name)[:80]!r}"
            raise SourceFormatError(where, "its state_dict must hold tensors by name", got, RESAVE)
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
            got = f"{str(name)[:80]!r}, {value.layout} on {value.device}"
            raise SourceFormatError(where, "its tensors must be plain ones", got, RESAVE)
        tensors[name] = value.detach()
    return tensors
