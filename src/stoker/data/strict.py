"""Dataclasses from JSON that may come from anyone."""

from __future__ import annotations

import json
from typing import TypeVar

from stoker.errors import SchemaError

__all__ = ["parse"]

T = TypeVar("T")


def parse(kind: type[T], data: object, where: str) -> T:
    """Build a dataclass, and the dataclasses in it, from plain JSON data: every field there, and of its own type.

    A dataclass forbids fields that it does not know by ``__pydantic_config__: ClassVar = {"extra": "forbid"}``.

    Args:
        kind: The dataclass.
        data: What ``json.load`` gave.
        where: What the data are, for the error's text.

    Raises:
        SchemaError: Something is missing, unknown or of another type; the text says where.
    """
    from pydantic import TypeAdapter, ValidationError

    fix = "Take it from a file that Stoker wrote, unchanged."
    try:
        text = json.dumps(data)
    except (TypeError, ValueError, RecursionError):
        raise SchemaError(where, "must be plain JSON data", type(data).__name__, fix) from None
    try:
        # JSON mode, for in Python mode strictness would take neither lists for tuples nor dicts for dataclasses
        return TypeAdapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(str(part) for part in first["loc"]) or where
        got = repr(first["input"])
        rule = f"{path}: {first['msg'][0].lower()}{first['msg'][1:]}"
        raise SchemaError(where, rule, got if len(got) <= 60 else f"{got[:59]}…", fix) from None
