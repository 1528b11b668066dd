# ruff: noqa: E501  # a case a line, to be read as a table
"""Malicious and damaged files, made by code: each with why it is hostile, and which forms of files it concerns."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from containers import BOUNDARY, disposition, form, graph

from torch_archives import as_torch, lying

__all__ = ["CASES", "Case", "cases_of"]

Make = Callable[[bytes, Path], bytes]
"""From the good file's bytes, and a place that nothing may make, to the hostile file's."""

JSON = ("config", "json", "job", "body", "contract", "cmaes")
TENSORS = ("safetensors", "checkpoint")
GZIP = ("gz", "tar")
TEXT = ("csv", "tsv", "jsonl", "history", "toml", *JSON)
BINARY = (
    *TENSORS, "torch", "parquet", "arrow", "ipc", "image", "idx", *GZIP, "zip", "sqlite", "form", "onnx", "graph",
)  # fmt: skip
DIGESTED = ("checkpoint", "onnx", *GZIP)
"""Forms with a digest over all that is read: not a bit of them may be another."""

ENDLESS = ("csv", "tsv", "jsonl", "history", "toml")
"""Forms of which a part may be a whole; all others say where they end, by a length, a digest or a bracket."""

LOOSE = (*ENDLESS, "config", "json", "job", "sqlite", "image", "form")
"""Forms whose last byte says nothing: the end of a line, or of what is passed over."""


@dataclass(frozen=True)
class Case:
    """A hostile file.

    Attributes:
        name: What it is.
        why: What it would do to a loader that trusts it.
        kinds: The forms of files that it stands in for.
        make: Makes it.
        harmless: Whether a loader may as well read it, or in which forms: it does no more than a file may.
    """

    name: str
    why: str
    kinds: tuple[str, ...]
    make: Make
    harmless: bool | tuple[str, ...] = False

    def may_be_read(self, kind: str) -> bool:
        """Whether a loader of such files may read it."""
        return kind in self.harmless if isinstance(self.harmless, tuple) else self.harmless


class Payload:
    """What a pickle runs when it is loaded: it makes a directory."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.place),)


def _json(name: str, why: str, text: bytes, *, kinds: tuple[str, ...] = JSON) -> Case:
    return Case(name, why, kinds, lambda _good, _place: text)


def _edited(
    name: str,
    why: str,
    kinds: tuple[str, ...],
    change: Callable[[Any], object],
    harmless: bool | tuple[str, ...] = False,
) -> Case:
    def make(good: bytes, _: Path) -> bytes:
        data = json.loads(good)
        change(data)
        return json.dumps(data).encode()

    return Case(name, why, kinds, make, harmless)


def flipped(data: bytes, place: int) -> bytes:
    """The same but for a bit."""
    return data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :]


def put(path: str, value: Any) -> Callable[[Any], None]:
    """A change of JSON data: the value at a dotted path."""

    def change(data: Any) -> None:
        *before, last = path.split(".")
        for part in before:
            data = data[int(part) if isinstance(data, list) else part]
        data[int(last) if isinstance(data, list) else last] = value

    return change


# -- safetensors


def tensors(head: bytes, data: bytes = b"") -> bytes:
    """A safetensors file with any header."""
    return struct.pack("<Q", len(head)) + head + data


def _header(good: bytes) -> tuple[Any, bytes]:
    length = struct.unpack("<Q", good[:8])[0]
    return json.loads(good[8 : 8 + length]), good[8 + length :]


def _reheaded(name: str, why: str, change: Callable[[Any], object]) -> Case:
    def make(good: bytes, _: Path) -> bytes:
        head, data = _header(good)
        change(head)
        return tensors(json.dumps(head).encode(), data)

    return Case(name, why, TENSORS, make)


def _first(head: dict[str, Any]) -> Any:
    return next(value for name, value in head.items() if name != "__metadata__")


def _overlap(head: dict[str, Any]) -> None:
    entries = [value for name, value in head.items() if name != "__metadata__"]
    entries[-1]["data_offsets"] = entries[0]["data_offsets"]


# -- torch.save


def saved(data: Any) -> bytes:
    """What torch.save makes."""
    import torch

    buffer = io.BytesIO()
    torch.save(data, buffer)
    return buffer.getvalue()


def packed(content: bytes) -> bytes:
    """An archive with packed entries, as torch.save does not make."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w/data.pkl", b"\x80\x02}.")
        archive.writestr("w/data/0", content)
    return buffer.getvalue()


def copies(count: int) -> bytes:
    """A pickle with a list of ordered dicts, all made of one that it holds."""
    many = b"".join(b"J" + struct.pack("<i", number) + b"N" for number in range(1000))
    made = b"ccollections\nOrderedDict\nh\x00\x85R" * count
    return b"\x80\x02](}q\x00(" + many + b"u" + made + b"e."


def twice(good: bytes) -> bytes:
    """An archive with a second entry of the pickle's name, but for its case."""
    buffer = io.BytesIO(good)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(archive.namelist()[0].partition("/")[0] + "/DATA.PKL", b"\x80\x02}.")
    return buffer.getvalue()


# -- archives, images, tables


@cache
def bomb(size: int, begin: bytes = b"a,b\n", piece: bytes = b"0,0\n" * 250_000) -> bytes:
    """Gzip that becomes ``size`` bytes of text."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as file:
        file.write(begin)
        for _ in range(size // len(piece)):
            file.write(piece)
    return buffer.getvalue()


def zipped(entries: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@cache
def zip_bomb(size: int) -> bytes:
    """A zip archive with a table that becomes ``size`` bytes."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("table.csv", "w", force_zip64=True) as file,
    ):
        file.write(b"a,b\n")
        for _ in range(size // 1_000_000):
            file.write(b"0,0\n" * 250_000)
    return buffer.getvalue()


def tarred(name: str, content: bytes = b"", link: str = "") -> bytes:
    """A tar archive of one entry, a link if asked."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        if link:
            entry.type, entry.linkname = tarfile.SYMTYPE, link
        tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def png(width: int, height: int, data: bytes = b"\0" * 100, chunks: bytes = b"") -> bytes:
    """A PNG whose header says what it likes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunks + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    )


def text_chunk(size: int) -> bytes:
    """A PNG's packed text that becomes ``size`` bytes."""
    content = b"Comment\0\0" + zlib.compress(b"\0" * size)
    return struct.pack(">I", len(content)) + b"zTXt" + content + struct.pack(">I", zlib.crc32(b"zTXt" + content))


@cache
def constant_parquet(rows: int) -> bytes:
    """Parquet of one value over and over."""
    import polars as pl

    buffer = io.BytesIO()
    pl.select(pl.repeat(0, rows, dtype=pl.Int8).alias("a")).write_parquet(buffer, compression="zstd")
    return buffer.getvalue()


@cache
def constant_arrow(rows: int) -> bytes:
    """Arrow of one value over and over."""
    import polars as pl

    buffer = io.BytesIO()
    pl.select(pl.repeat(0, rows, dtype=pl.Int64).alias("a")).write_ipc(buffer, compression="zstd")
    return buffer.getvalue()


HUGE = 1 << 40
MANY = 3_000_000
_DEEP = 100_000
_NAN = b'{"dtype":"F32","shape":[NaN,1],"data_offsets":[0,4]}'


def _all() -> Iterator[Case]:
    # of every form
    every = (*TEXT, *BINARY)
    yield Case("a bare pickle", "loading it runs code", every, lambda _, place: pickle.dumps(Payload(place)))
    yield Case(
        "a pickle in an archive of torch's",
        "loading it runs code",
        every,
        lambda _, place: saved({"w": Payload(place)}),
    )
    yield Case("an empty file", "it was never written to its end", every, lambda *_: b"", harmless=("toml",))
    yield Case("the first half", "it was cut off", every, lambda good, _: good[: len(good) // 2], harmless=ENDLESS)
    yield Case("all but the last byte", "it was cut off", every, lambda good, _: good[:-1], harmless=LOOSE)
    yield Case("zeros", "a disk lost it", every, lambda good, _: bytes(len(good)))
    yield Case("0xff throughout", "no text, and counts that are huge", every, lambda good, _: b"\xff" * len(good))
    yield Case("a program", "to have it run", every, lambda *_: b"#!/bin/sh\nexit 1\n", harmless=("csv", "tsv"))
    yield Case("a bit flipped in each tenth byte", "a disk lost it", BINARY, lambda good, _: bytes(
        byte ^ (1 << place % 8 if place % 10 == 5 else 0) for place, byte in enumerate(good)))  # fmt: skip
    yield Case("a bit flipped in the middle", "a disk lost it", (*DIGESTED, "zip"), lambda good, _: flipped(
        good, len(good) // 2))  # fmt: skip
    yield Case("a bit flipped at its end", "a disk lost it", DIGESTED, lambda good, _: flipped(good, len(good) - 1))

    # JSON
    yield _json("JSON: null", "no object", b"null")
    yield _json("JSON: a list of nothing", "no object", b"[[]]")
    yield _json("JSON: text", "no object", b'"config"')
    yield _json("JSON: lists in lists", "a parser that recurses overflows its stack", b"[" * _DEEP)
    yield _json("JSON: whole lists in lists", "likewise", b"[" * _DEEP + b"]" * _DEEP)
    yield _json("JSON: objects in objects", "likewise", b'{"a":' * _DEEP + b"1" + b"}" * _DEEP)
    yield _json("JSON: very many lists", "two bytes take sixty of memory", b'{"a":[' + b"[]," * 20_000_000 + b"[]]}")
    yield _json("JSON: very many objects", "likewise", b'[{"a":{"":0}' + b',{"":{}}' * 8_000_000 + b"]")
    yield _json("JSON: a number of very many digits", "reading it takes quadratic time", b'{"a":' + b"9" * 10**6 + b"}")
    yield _json("JSON: Latin-1", "no UTF-8", '{"ä": 1}'.encode("latin-1"))
    yield _json("JSON: UTF-16", "no UTF-8", '{"a": 1}'.encode("utf-16"))
    for text in ("NaN", "Infinity", "-Infinity", "1e999"):
        yield _edited(f"JSON: {text}", "no number", ("config", "job"), put("format", float(text)))

    # config.json: names and sizes
    yield _edited("config: a module to import", "importing it runs code", ("config",), put(
        "recipe.model", {"name": "antigravity:fly", "args": {}}))  # fmt: skip
    yield _edited("config: another module in the settings", "likewise", ("config", "job"), put(
        "settings.model", {"name": "antigravity:fly", "args": {}}), harmless=("config",))  # fmt: skip
    for size in (10**9, 10**18, 10**30, -1, 0, 1.5, True, None, "x", [1]):
        yield _edited(f"config: a layer of {size}", "memory for its weights", ("config",), put(
            "recipe.model.hidden", [size]))  # fmt: skip
    yield _edited(
        "config: very many layers", "each takes kilobytes", ("config",), put("recipe.model.hidden", [1] * MANY)
    )
    yield _edited("config: very many classes", "each is an output", ("config",), put(
        "recipe.classes", [str(number) for number in range(1_000_000)]))  # fmt: skip
    yield _edited("config: a class twice", "which is it?", ("config",), put("recipe.classes", ["low", "low", "top"]))
    yield _edited(
        "config: huge cardinalities", "memory for embeddings", ("config",), put("recipe.spec.cardinalities", [HUGE])
    )
    yield _edited(
        "config: very many numbers in", "memory for weights", ("config",), put("recipe.spec.n_numeric", 10**15)
    )
    yield _edited(
        "config: very many numbers to encode", "memory for means", ("config",), put("recipe.encoder.numeric", 10**12)
    )
    yield _edited(
        "config: another kind", "a table's rows to a network for images", ("config",), put("recipe.kind", "images")
    )
    yield _edited("config: a negative count", "an index before the beginning", ("config",), put("training.epochs", -1))
    yield _edited("config: very many epochs", "memory for a row each", ("config",), put("training.epochs", 10**15))
    yield _edited("config: a long flat object", "a dictionary each", ("config",), lambda data: data["settings"].update(
        {f"x{number}": {} for number in range(400_000)}))  # fmt: skip
    yield _edited("config: a deep setting", "whoever walks it recurses", ("config",), lambda data: data["settings"].update(
        model=json.loads('{"a":' * 400 + "1" + "}" * 400)), harmless=True)  # fmt: skip
    for name in (
        "../../escaped",
        "/tmp/escaped",
        "..",
        "a\0b",
        "con\nfig",
        "x" * 5000,
        "\ud800",
        "<script>alert(1)</script>",
    ):
        yield _edited(
            f"config: a run called {name[:30]!r}",
            "a path or a page made of it leads elsewhere",
            ("config",),
            put("name", name),
            harmless=True,
        )

    # job.json
    yield _edited(
        "job: a source that never ends", "/dev/zero fills the memory", ("job",), put("given.train", "/dev/zero")
    )
    yield _edited("job: a logger of another's", "importing it runs code", ("job",), put("log", ["antigravity"]))
    yield _edited("job: no interval", "never", ("job",), put("every", "9" * 5000 + "steps"))
    yield _edited("job: a negative number of checkpoints", "all are removed", ("job",), put("keep", -3))
    yield _edited("job: an optimizer of another's", "importing it runs code", ("job",), put(
        "settings.training.optimizer", "antigravity:fly"))  # fmt: skip

    # the contract beside an export, and the export
    for what, change in {
        "no digests": lambda data: data.pop("sha256"),
        "a list of digests": put("sha256", ["0" * 64] * 3),
        "a digest that is a number": put("sha256.file", 7),
        "another digest of the file": put("sha256.file", "0" * 64),
        "another digest of the weights": put("sha256.weights", "0" * 64),
        "another digest of the recipe": put("sha256.recipe", None),
        "another format": put("format", "torchscript-trace"),
        "a format that is none": put("format", {"name": "onnx"}),
        "8 bits": put("quantized", {}),
        "no versions": lambda data: data.pop("versions"),
        "versions that are text": put("versions", "2.13"),
        "another version of torch": put("versions.torch", "1.0"),
        "a version that is a list": put("versions.stoker", [0, 1]),
    }.items():
        yield _edited(f"contract: {what}", "another file than was compared would be served", ("contract",), change)
    yield Case("ONNX: numbers out of a secret file", "its predictions tell them", ("graph",), lambda _, place: graph(
        outside=str(place.with_name("secret") / "file")))  # fmt: skip
    yield Case("ONNX: numbers of a path that leads out", "likewise", ("graph",), lambda *_: graph(
        outside="../../secret/file"))  # fmt: skip
    yield Case("ONNX: numbers of a device without an end", "likewise", ("graph",), lambda *_: graph(
        shape=(1 << 20,), outside="/dev/zero"))  # fmt: skip
    yield Case("ONNX: more numbers than it has", "it shows what else is in memory", ("graph",), lambda *_: graph(
        shape=(1000,)))  # fmt: skip
    yield Case("ONNX: a shape that overflows", "its product is small again", ("graph",), lambda *_: graph(
        shape=(2**32, 2**32)))  # fmt: skip
    yield Case("ONNX: a negative shape", "likewise", ("graph",), lambda *_: graph(shape=(-1,)))
    yield Case("ONNX: zeros without an end", "computing it takes all memory", ("graph",), lambda *_: graph(fill=HUGE))
    yield Case("ONNX: another output", "what is it?", ("graph",), lambda *_: graph(output="more things"))

    # the state of CMA-ES in a study
    yield Case("CMA-ES: a pickle in hexadecimal", "Optuna's own sampler would load it", ("cmaes",), lambda _, place: (
        pickle.dumps(Payload(place)).hex().encode()))  # fmt: skip
    for name, value in {
        "_n_dim": 10**9, "_popsize": 10**9, "_n_max_resampling": 10**18, "_g": -1, "_sigma": float("nan"), "_mean": [0.5],
        "_c_1d": [float("nan")] * 3, "_B": [[[1]]], "_funhist_values": [], "_bounds": [[0, 1]] * 99, "_mu_eff": "x",
    }.items():  # fmt: skip
        yield _edited(
            f"CMA-ES: another {name}", "memory for it, or numbers that are none", ("cmaes",), put(name, value)
        )
    yield _edited("CMA-ES: one part more", "a name of the object's", ("cmaes",), put("__class__", "x"))
    yield _edited("CMA-ES: a huge step", "values beyond the space", ("cmaes",), put("_sigma", 1e299), harmless=True)

    # safetensors
    yield Case(
        "tensors: a header longer than the file",
        "it is read past the end",
        TENSORS,
        lambda *_: struct.pack("<Q", 1 << 60) + b"{}",
    )
    yield Case(
        "tensors: a header of the largest number", "adding to it overflows", TENSORS, lambda *_: b"\xff" * 8 + b"{}"
    )
    yield Case(
        "tensors: a header of a gigabyte of spaces",
        "memory for it",
        TENSORS,
        lambda *_: struct.pack("<Q", 200 << 20) + b"{" + b" " * (200 << 20),
    )
    yield Case("tensors: a header that is no JSON", "a parser that guesses", TENSORS, lambda *_: tensors(b"{'a': 1}"))
    yield Case(
        "tensors: a header of lists in lists",
        "its parser recurses",
        TENSORS,
        lambda *_: tensors(b'{"a":' + b"[" * _DEEP),
    )
    yield Case("tensors: a header of objects in objects", "likewise", TENSORS, lambda *_: tensors(b'{"a":' * _DEEP))
    yield Case("tensors: very many empty tensors", "fifty bytes take thousands of memory", TENSORS, lambda *_: tensors(
        b"{" + b",".join(b'"%x":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % number for number in range(400_000)) + b"}"))  # fmt: skip
    yield Case("tensors: no tensors at all", "weights are left as they were", TENSORS, lambda *_: tensors(b"{}"))
    yield Case("tensors: one name twice", "which is it?", TENSORS, lambda *_: tensors(
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"\0" * 4))  # fmt: skip
    yield Case("tensors: NaN in a shape", "no number", TENSORS, lambda *_: tensors(b'{"a":' + _NAN + b"}", b"\0" * 4))
    yield Case(
        "tensors: bytes behind the last", "a second file hides there", TENSORS, lambda good, _: good + b"\0" * 64
    )
    yield Case("tensors: a name that is a path", "written as a file, it leads elsewhere", TENSORS, lambda *_: tensors(
        b'{"../../escaped":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"\0" * 4))  # fmt: skip
    for shape in ([2**63, 2**63], [2**64], [-1], [1.5], ["1"], [1] * 2000, None, 4):
        yield _reheaded(f"tensors: the shape {str(shape)[:30]}", "its product overflows, or is none",
                        lambda head, shape=shape: _first(head).update(shape=shape))  # type: ignore[misc]  # fmt: skip
    for dtype in ("F4", "F8_E8M0", "F6_E2M3", "C64", "object", "", None, 3):
        yield _reheaded(f"tensors: the type {dtype!r}", "torch has no such numbers",
                        lambda head, dtype=dtype: _first(head).update(dtype=dtype))  # type: ignore[misc]  # fmt: skip
    for offsets in ([0, 2**63], [2**64, 2**65], [-8, 0], [8, 0], [0], [0, 1], "all"):
        yield _reheaded(f"tensors: the offsets {offsets}", "they lead out of the file",
                        lambda head, offsets=offsets: _first(head).update(data_offsets=offsets))  # type: ignore[misc]  # fmt: skip
    yield _reheaded("tensors: two in one place", "one is the other's", _overlap)
    yield _reheaded(
        "tensors: metadata that are no text",
        "a reader that formats them",
        lambda head: head.update(__metadata__={"a": [1]}),
    )

    # torch.save
    yield Case("torch: many bytes made of a number", "weights_only allows it", ("torch",), lambda *_: as_torch(
        b"\x80\x02c__builtin__\nbytearray\nJ\x00\x00\x00\x30\x85R."))  # fmt: skip
    yield Case("torch: a tensor made of a number", "likewise", ("torch",), lambda *_: as_torch(
        b"\x80\x02ctorch\nTensor\nJ\x00\x00\x00\x30\x85R."))  # fmt: skip
    yield Case("torch: one dict copied over and over", "likewise", ("torch",), lambda *_: as_torch(copies(9)))
    yield Case("torch: very many empty dicts", "a byte takes sixty of memory", ("torch",), lambda *_: as_torch(
        b"\x80\x02](" + b"}" * 600_000 + b"e."))  # fmt: skip
    yield Case("torch: lists in lists", "whoever walks them recurses", ("torch",), lambda *_: as_torch(
        b"\x80\x02" + b"](" * 5000 + b"e" * 5000 + b"."))  # fmt: skip
    yield Case("torch: an archive that grows", "packed, it is small", ("torch",), lambda *_: packed(b"\0" * (1 << 26)))
    yield Case("torch: an entry twice", "one reader takes this, another that", ("torch",), lambda good, _: twice(good))
    yield Case(
        "torch: a tensor beyond its storage",
        "it shows what else is in memory",
        ("torch",),
        lambda *_: lying(4, (1000,), (1,)),
    )
    yield Case("torch: a storage beyond the file", "likewise", ("torch",), lambda *_: lying(HUGE, (HUGE,), (1,)))
    yield Case("torch: a stride before the beginning", "likewise", ("torch",), lambda *_: lying(4, (2,), (-9,)))
    yield Case(
        "torch: a huge view of one number",
        "copying it takes all memory",
        ("torch",),
        lambda *_: lying(1, (HUGE,), (0,)),
    )
    yield Case(
        "torch: shapes that overflow",
        "their product is small again",
        ("torch",),
        lambda *_: lying(4, (2**32, 2**32), (1, 1)),
    )

    # tables
    yield Case("CSV: no line but the header", "nothing to read", ("csv", "tsv"), lambda good, _: good.split(b"\n")[0])
    yield Case(
        "CSV: a quote that is not closed", "all of the file is one value", ("csv", "tsv"), lambda good, _: good + b'"'
    )
    yield Case("CSV: a byte order mark alone", "there is no first line", ("csv", "tsv"), lambda *_: b"\xef\xbb\xbf")
    yield Case("CSV: a byte order mark and ends of lines", "likewise", ("csv", "tsv"), lambda *_: b"\xef\xbb\xbf\r\n\n")
    yield Case("CSV: lines of other lengths", "columns shift", ("csv", "tsv"), lambda good, _: good + b"1\n")
    yield Case("CSV: a header of very many columns", "each takes kilobytes", ("csv",), lambda *_: b",".join(
        b"c%d" % number for number in range(300_000)) + b"\n")  # fmt: skip
    yield Case("CSV: one name twice", "which is it?", ("csv",), lambda *_: b"a,a\n1,2\n")
    yield Case(
        "JSON lines: lists in lists",
        "a parser recurses",
        ("jsonl",),
        lambda *_: b'{"a":' + b"[" * _DEEP + b"]" * _DEEP + b"}\n",
    )
    yield Case(
        "JSON lines: objects in objects", "likewise", ("jsonl",), lambda *_: b'{"a":' * _DEEP + b"1" + b"}" * _DEEP
    )
    yield Case("JSON lines: another name in each line", "lines times names are cells", ("jsonl",), lambda *_: b"".join(
        b'{"k%d":1}\n' % number for number in range(100_000)))  # fmt: skip
    yield Case("JSON lines: the same beside NaN", "likewise, for the slow reader", ("jsonl",), lambda *_: b'{"a":NaN}\n' + b"".join(
        b'{"k%d":1}\n' % number for number in range(20_000)))  # fmt: skip
    yield Case("JSON lines: half a surrogate pair", "no text", ("jsonl",), lambda *_: b'{"a":"\\ud800"}\n{"a":NaN}\n')
    yield Case(
        "JSON lines: a number of very many digits",
        "quadratic time",
        ("jsonl",),
        lambda *_: b'{"a":' + b"9" * 10**6 + b"}\n",
    )
    yield Case(
        "history: very many rows", "each is a dictionary", ("history",), lambda *_: b"epoch\n" + b"1\n" * 20_000_000
    )
    yield Case(
        "history: a header of very many columns",
        "each is a curve",
        ("history",),
        lambda *_: b"a," * 3_000_000 + b"a\n1\n2\n",
        harmless=True,
    )
    yield Case(
        "history: columns that are others",
        "a picture of nothing",
        ("history",),
        lambda *_: b"x,y\n1,2\n3,4\n",
        harmless=True,
    )
    yield Case("history: NaN and infinity", "a picture of nothing", ("history",), lambda good, _: good.splitlines()[0] + b"\n" + b"\n".join(
        b",".join([b"inf", b"nan", b"-inf"] * 9)[: good.splitlines()[0].count(b",") * 4 + 3] for _ in range(2)), harmless=True)  # fmt: skip
    yield Case("gzip: a bomb", "a megabyte becomes a gigabyte", ("gz", "tar"), lambda *_: bomb(1 << 29))
    yield Case("gzip: one in another", "a bomb in a bomb", ("gz",), lambda good, _: gzip.compress(good))
    yield Case(
        "gzip: another checksum",
        "not what was packed",
        GZIP,
        lambda good, _: good[:-8] + b"\0\0\0\0" + good[-4:],
    )
    yield Case("zip: a bomb", "a megabyte becomes a gigabyte", ("zip",), lambda *_: zip_bomb(1 << 29))
    yield Case("zip: a path out of the folder", "unpacked, it overwrites files", ("zip",), lambda *_: zipped(
        {"../../escaped.csv": b"a,b\n1,2\n"}), harmless=True)  # fmt: skip
    yield Case(
        "zip: an absolute path",
        "likewise",
        ("zip",),
        lambda *_: zipped({"/tmp/escaped.csv": b"a,b\n1,2\n"}),
        harmless=True,
    )
    yield Case(
        "zip: several tables", "which is it?", ("zip",), lambda *_: zipped({"a.csv": b"a\n1\n", "b.csv": b"a\n1\n"})
    )
    yield Case("zip: LZMA that is damaged", "another decoder's errors", ("zip",), lambda *_: (
        lambda data: data[:60] + bytes(20) + data[80:])(zipped({"t.csv": b"a,b\n" + b"1,2\n" * 99}, zipfile.ZIP_LZMA)))  # fmt: skip
    yield Case("zip: bzip2 that is damaged", "likewise", ("zip",), lambda *_: (
        lambda data: data[:60] + bytes(20) + data[80:])(zipped({"t.csv": b"a,b\n" + b"1,2\n" * 99}, zipfile.ZIP_BZIP2)))  # fmt: skip
    yield Case("tar: a link to another file", "what is read is that file", ("tar",), lambda _, place: tarred(
        "CaliforniaHousing/cal_housing.data", link=str(place.with_name("secret"))))  # fmt: skip
    yield Case(
        "tar: a path out of the folder",
        "unpacked, it overwrites files",
        ("tar",),
        lambda *_: tarred("../../escaped", b"1"),
    )
    yield Case(
        "parquet: one value over and over",
        "a kilobyte becomes a gigabyte",
        ("parquet",),
        lambda *_: constant_parquet(100_000_000),
    )
    yield Case("arrow: one value over and over", "likewise", ("arrow",), lambda *_: constant_arrow(50_000_000))
    yield Case(
        "IDX: sides of the largest number", "memory for them", ("idx",), lambda *_: b"\0\0\x08\x03" + b"\xff" * 12
    )
    yield Case(
        "IDX: no values of a huge shape",
        "their product overflows",
        ("idx",),
        lambda *_: b"\0\0\x08\x03" + b"\xff" * 8 + b"\0" * 4,
    )
    yield Case(
        "IDX: very many dimensions", "more than arrays have", ("idx",), lambda *_: b"\0\0\x08\xff" + b"\0\0\0\1" * 255
    )
    yield Case("IDX: a bomb of gzip", "what its header states", ("idx", "gz"), lambda *_: bomb(
        1 << 29, b"\0\0\x08\x01" + struct.pack(">I", 1 << 30), b"\0" * (1 << 20)))  # fmt: skip
    yield Case("image: huge sides", "decoding it takes all memory", ("image",), lambda *_: png(100_000, 100_000))
    yield Case(
        "image: sides of the largest number",
        "their product overflows",
        ("image",),
        lambda *_: png(2**31 - 1, 2**31 - 1),
    )
    yield Case("image: no sides", "nothing to divide by", ("image",), lambda *_: png(0, 0))
    yield Case(
        "image: a bomb in its text",
        "unpacking it takes all memory",
        ("image",),
        lambda *_: png(8, 8, b"\0" * 72, text_chunk(1 << 28)),
    )
    yield Case("image: PostScript", "a program, which pillow hands to another to run", ("image",), lambda _, place: (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(" + str(place).encode() + b") (w) file closefile\nshowpage\n"))  # fmt: skip

    # forms
    png_file = png(8, 8, b"\0" * 72)
    yield Case("form: very many files", "each is kept open", ("form",), lambda *_: form(
        *[(disposition("file", f"{number}.png"), b"") for number in range(100_000)]))  # fmt: skip
    yield Case("form: very many fields", "each is an object", ("form",), lambda *_: form(
        *[(f'Content-Disposition: form-data; name="{number}"', b"") for number in range(100_000)]))  # fmt: skip
    yield Case(
        "form: a part without a name", "a reader that looks for it", ("form",), lambda *_: form(("A: b", png_file))
    )
    yield Case("form: a part without headers", "likewise", ("form",), lambda *_: form(("", png_file)))
    yield Case("form: fields alone", "no files", ("form",), lambda *_: form(
        ('Content-Disposition: form-data; name="file"', png_file)))  # fmt: skip
    yield Case("form: a field of megabytes", "it is kept as text", ("form",), lambda *_: form(
        ('Content-Disposition: form-data; name="file"', b"x" * (8 << 20))))  # fmt: skip
    yield Case("form: a header of megabytes", "it is put together bit by bit", ("form",), lambda *_: form(
        (disposition("file", "a.png") + "\r\nX: " + "y" * (8 << 20), png_file)), harmless=True)  # fmt: skip
    yield Case("form: very many headers", "each is kept", ("form",), lambda *_: form(
        (disposition("file", "a.png") + "".join(f"\r\nX{number}: y" for number in range(200_000)), png_file)), harmless=True)  # fmt: skip
    yield Case(
        "form: boundaries alone",
        "parts without end",
        ("form",),
        lambda *_: f"--{BOUNDARY}\r\n".encode() * 200_000 + form(),
    )
    yield Case(
        "form: another boundary", "no part at all", ("form",), lambda good, _: good.replace(BOUNDARY.encode(), b"other")
    )
    yield Case("form: a file that is none", "a decoder that guesses", ("form",), lambda *_: form(
        (disposition("file", "a.png"), b"%!PS-Adobe-3.0 EPSF-3.0\n")))  # fmt: skip
    for filename in ("../../escaped", "/tmp/escaped", "a\0b", "", "\ufffe" * 4000):
        yield Case(f"form: a file called {filename[:20]!r}", "written under its name, it lands elsewhere", ("form",), (
            lambda *_, filename=filename: form((disposition("file", filename), png_file))), harmless=True)  # fmt: skip

    # TOML
    yield Case("TOML: lists in lists", "a parser recurses", ("toml",), lambda *_: b"a = " + b"[" * _DEEP + b"]" * _DEEP)
    yield Case(
        "TOML: tables in tables", "whoever merges them recurses", ("toml",), lambda *_: b"a" + b".a" * 2000 + b" = 1\n"
    )
    yield Case("TOML: a table in tables", "likewise", ("toml",), lambda *_: b"[model" + b".a" * 5000 + b"]\nx = 1\n")
    yield Case("TOML: a number of very many digits", "quadratic time", ("toml",), lambda *_: b"a = " + b"9" * 10**6)
    yield Case("TOML: one name twice", "which is it?", ("toml",), lambda *_: b"a = 1\na = 2\n")
    yield Case(
        "TOML: a module to import",
        "importing it runs code",
        ("toml",),
        lambda *_: b'[model]\nname = "antigravity:fly"\n',
        harmless=True,
    )
    yield Case("TOML: very much of it", "memory for it", ("toml",), lambda *_: b"a = 1 #" + b"x" * (20 << 20))

    # requests
    yield _json(
        "request: very many rows", "a million rows in a megabyte", b"[" + b"{}," * 600_000 + b"{}]", kinds=("body",)
    )
    yield _json(
        "request: very many inputs",
        "each is looked at",
        b'{"inputs":[' + b'{"name":"a"},' * 99_999 + b"{}]}",
        kinds=("body",),
    )
    yield _json("request: a shape that overflows", "memory for it", (
        b'{"inputs":[{"name":"size","shape":[2147483647,2147483647],"datatype":"FP64","data":[1]}]}'), kinds=("body",))  # fmt: skip


CASES: dict[str, Case] = {case.name: case for case in _all()}


def cases_of(kind: str) -> list[Case]:
    """Those that concern a form of file."""
    return [case for case in CASES.values() if kind in case.kinds]
