# ruff: noqa: E501  # lists of odd values
"""Damage good files by chance, from a seeded generator: bytes, and JSON by its structure."""

from __future__ import annotations

import json
import random
import struct
from typing import Any

__all__ = ["any_json", "damaged_bytes", "damaged_json", "damaged_tensors", "damaged_text"]

TOKENS = (
    b"NaN", b"Infinity", b"-1", b"1e999", b"9" * 30, b"null", b"true", b'""', b"[]", b"{}", b"\\ud800", b"\\u0000", b"\0",
    b"\xff", b"\xef\xbb\xbf", b",", b'"', b"\n", b"\r", b";", b"..", b"/", b"[" * 40, b"]" * 40, b'{"a":' * 20, b"0", b"00",
    b"PK\x03\x04", b"\x1f\x8b", b"x\x9c", b"\x80\x02}.", b"cos\nsystem\n", b"__class__", b"\xc2\xa0", b"1_000", b"0x10",
)  # fmt: skip
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**30, 0.0, -0.0, 1e-320, 1e308, float("nan"), float("inf"),
    float("-inf"), "", "a", "NaN", "0", "../..", "/etc/passwd", "\ud800", "\0", "é" * 50, "antigravity:fly", [], {}, [[]],
    [None], {"": None}, "auto", "adam", "sgd", "mlp", "cnn", "images", "table", "regression", "binary",
)  # fmt: skip


def damaged_bytes(good: bytes, chance: random.Random) -> bytes:
    """Flip bits, cut, double, splice and overwrite."""
    data = bytearray(good)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        place = chance.randrange(len(data) + 1)
        size = chance.choice((1, 1, 2, 4, 8, 40))
        match chance.randrange(8):
            case 0 if data:
                data[place % len(data)] ^= 1 << chance.randrange(8)
            case 1 if data:
                data[place % len(data)] = chance.randrange(256)
            case 2:
                del data[place : place + size]
            case 3:
                data[place:place] = chance.randbytes(size)
            case 4:
                other = chance.randrange(len(data) + 1)
                data[place:place] = data[other : other + size]
            case 5:
                data[place : place + 8] = struct.pack("<q", chance.choice((0, -1, 1, 2**31, 2**62, 255)))
            case 6:
                token = chance.choice(TOKENS)
                data[place : place + chance.choice((0, len(token)))] = token
            case _:
                del data[place:]
    return bytes(data)


def any_json(chance: random.Random, level: int = 0) -> Any:
    """A value of any kind."""
    kind = chance.randrange(8 if level < 3 else 6)
    if kind == 6:
        return [any_json(chance, level + 1) for _ in range(chance.randrange(4))]
    if kind == 7:
        return {str(chance.choice(ODD)): any_json(chance, level + 1) for _ in range(chance.randrange(4))}
    return chance.choice(ODD)


def damaged_json(data: Any, chance: random.Random) -> Any:
    """Replace, remove, double, swap and rename values anywhere; the data are a copy of the caller's."""
    data = json.loads(json.dumps(data))
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        places = list(_places(data))
        if not places:
            return any_json(chance)
        holder, key = chance.choice(places)
        match chance.randrange(7):
            case 0 | 1:
                holder[key] = any_json(chance)
            case 2:
                del holder[key]
            case 3:
                other, name = chance.choice(places)
                holder[key] = json.loads(json.dumps(other[name]))
            case 4 if isinstance(holder, dict):
                holder[str(chance.choice(ODD))] = holder.pop(key)
            case 5 if isinstance(holder, list):
                holder.extend([holder[key]] * chance.choice((1, 2, 50)))
            case 6 if type(holder[key]) in (int, float):
                holder[key] = chance.choice(
                    (-holder[key], holder[key] * 10**6, holder[key] + 1, str(holder[key]), [holder[key]])
                )
            case _:
                holder[key] = chance.choice(ODD)
    return data


def _places(data: Any) -> Any:
    if isinstance(data, dict):
        for key in list(data):
            yield data, key
            yield from _places(data[key])
    elif isinstance(data, list):
        for place in range(len(data)):
            yield data, place
            yield from _places(data[place])


def damaged_text(good: bytes, chance: random.Random) -> bytes:
    """JSON text: damaged by its structure, then, sometimes, its bytes; with names twice, deep nests, NaN."""
    try:
        text = json.dumps(damaged_json(json.loads(good), chance)).encode()
    except (ValueError, RecursionError):
        return damaged_bytes(good, chance)
    match chance.randrange(6):
        case 0:
            return damaged_bytes(text, chance)
        case 1:
            return b'{"format":null,' + text.lstrip(b"{[")
        case 2:
            return text.replace(b"null", chance.choice((b"[" * 900 + b"]" * 900, b"NaN", b"-Infinity", b"1e999")), 1)
    return text


def damaged_tensors(good: bytes, chance: random.Random) -> bytes:
    """A safetensors file whose header is damaged by its structure, and whose length fits again."""
    length = int.from_bytes(good[:8], "little")
    try:
        text = json.dumps(damaged_json(json.loads(good[8 : 8 + length]), chance)).encode()
    except (ValueError, RecursionError):
        return damaged_bytes(good, chance)
    return struct.pack("<Q", len(text)) + text + good[8 + length :]
