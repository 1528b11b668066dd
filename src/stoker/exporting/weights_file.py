"""Weights out of a file that may come from anyone: a PyTorch ``state_dict`` or safetensors; none of it is run."""

from __future__ import annotations

import pickle
import pickletools
import re
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stoker.errors import SourceFormatError, SourceNotFoundError
from stoker.exporting.quiet import listening
from stoker.tensors import BadTensorsError, read_tensors

__all__ = ["read_weights"]

PICKLE_BYTES = 16 << 20  # names and shapes; the numbers stand beside it
ENTRIES = 50_000
DIRECTORY_BYTES = ENTRIES * 128
ALLOWED = {
    "collections.OrderedDict",
    "collections.Counter",  # in the state of schedules
    "torch.Size",
    "torch.nn.parameter.Parameter",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
}
MEMOS = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
GETS = {"GET", "BINGET", "LONG_BINGET"}
TUPLES = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
CALLS = {"REDUCE", "BUILD", "NEWOBJ", "NEWOBJ_EX"}
MAKING = {*TUPLES, "MARK", "REDUCE", "NEWOBJ", "EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET", "BINPERSID"}
MADE = 12 * ENTRIES  # a tensor is ten of these
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
        return read_tensors(path)[1]
    except (BadTensorsError, OSError) as error:
        raise SourceFormatError(str(path), f"must be a safetensors file ({error})") from None


def _of_torch(path: Path) -> dict[str, Tensor]:
    where = str(path)
    _check_archive(path)
    with listening():
        try:
            # read by torch's own reader, so that it is the very one that is loaded
            _check_pickle(torch._C.PyTorchFileReader(where).get_record("data.pkl"), where)
            loaded: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except SourceFormatError:
            raise
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
        count = _entries_of(path)
        if count > ENTRIES:
            raise SourceFormatError(where, f"must have at most {ENTRIES:,} entries", f"{count:,}", RESAVE)
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except SourceFormatError:
        raise
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
    if len({name.lower() for name in names}) < len(names):  # torch's reader takes w/DATA.PKL for w/data.pkl
        raise SourceFormatError(where, "must have each entry once", "two of one name", RESAVE)


def _entries_of(path: Path) -> int:
    """How many entries an archive says it has, from the records at its end, before anything is made of them.

    Those records must be where ``torch.save`` puts them, so that every reader finds the same ones.

    Source: APPNOTE.TXT - .ZIP File Format Specification, 4.3.14 to 4.3.16.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 98))
        end = file.read(98)
    if len(end) < 22 or end[-22:-18] != b"PK\x05\x06" or end[-2:] != b"\0\0":
        raise zipfile.BadZipFile("it has no end of an archive")
    count, length, offset = struct.unpack("<HLL", end[-12:-2])
    where = size - 22
    if end[-42:-38] == b"PK\x06\x07":
        where = size - 98
        if len(end) < 98 or end[:4] != b"PK\x06\x06" or struct.unpack("<Q", end[-34:-26])[0] != where:
            raise zipfile.BadZipFile("its end is damaged")
        count, length, offset = struct.unpack("<QQQ", end[32:56])
    if offset + length != where or length > DIRECTORY_BYTES:
        if count > ENTRIES:
            return int(count)
        raise zipfile.BadZipFile("its directory is damaged or too large")
    return int(count)


def _check_pickle(data: bytes, where: str) -> None:
    """Look at a pickle without loading it: ``weights_only=True`` alone allows what takes memory at a word's notice.

    It would make ``bytearray(10**9)``, a ``torch.Tensor`` of any size, or one large dict over and over again, copied
    from what the pickle refers back to.

    Raises:
        SourceFormatError: It names something else than tensors are made of, or calls something with what it refers to.
    """
    rule = "must hold tensors and plain containers alone"
    made = 0
    before: list[tuple[str, Any]] = [("", None)] * 4  # what was pushed last, the latest first
    for opcode, value, _ in pickletools.genops(data):
        if opcode.name in MEMOS:
            continue
        made += opcode.name in MAKING
        if made > MADE:  # a byte or two each, and hundreds in memory
            raise SourceFormatError(where, f"must be made of at most {MADE:,} parts", "more", RESAVE)
        named = None
        if opcode.name in ("GLOBAL", "INST"):
            named = ".".join(str(value).split(" ", 1))
        elif opcode.name == "STACK_GLOBAL":
            named = f"{before[1][1]}.{before[0][1]}"
        if named is not None and not _allowed(named):
            raise SourceFormatError(where, rule, f"{named[:80]}, which is not loaded", RESAVE)
        given = before[1] if before[0][0] in TUPLES else before[0]
        if opcode.name in CALLS and given[0] in GETS:
            raise SourceFormatError(where, rule, "something made of another again, which is not loaded", RESAVE)
        before = [(opcode.name, value), *before[:3]]


def _allowed(name: str) -> bool:
    """Whether tensors are made of it: the functions that do, kinds of storage, and types of numbers."""
    if name in ALLOWED:
        return True
    module, _, last = name.rpartition(".")
    storage = re.fullmatch(r"[A-Z][A-Za-z0-9]*Storage", last) and last not in ("TypedStorage", "UntypedStorage")
    return module == "torch" and bool(storage or isinstance(getattr(torch, last, None), torch.dtype))


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
