"""Settings that say what is wrong with them: pydantic models whose errors are Stoker's own."""

from __future__ import annotations

import errno
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from stoker.errors import ConfigError, SourceFormatError, SourceNotFoundError, UnknownNameError, suggest

__all__ = ["Settings", "merge", "override", "parse_arguments", "parse_assignment", "parse_settings", "read_toml"]


TOML_BYTES = 16 << 20
DEEPEST = 30


class Settings(BaseModel):
    """A group of settings: frozen, no unknown names, no silent conversions but those that lose nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


Kind = TypeVar("Kind", bound=Settings)


def parse_settings(kind: type[Kind], raw: Mapping[str, Any], where: str = "") -> Kind:
    """Make settings out of plain data.

    Args:
        kind: Which settings.
        raw: Names to values; nested mappings for nested settings.
        where: What stands before each name in an error, such as ``"model"``.

    Raises:
        UnknownNameError: A name is not one of the settings; the nearest is suggested.
        ConfigError: A value is of the wrong kind or out of range.
    """
    try:
        return kind.model_validate(dict(raw))
    except ValidationError as error:
        # Of a union's branches the one that came furthest is the one that was meant.
        first = max(error.errors(include_url=False), key=lambda found: len(_path(found["loc"])))
        path = _path(first["loc"])
        if first["type"] == "extra_forbidden":  # its own name is the user's, and may be of any form
            path = [*_path(first["loc"][:-1]), str(first["loc"][-1])]
        dotted = ".".join([where, *path] if where else path) or kind.__name__
        if first["type"] == "extra_forbidden":
            raise UnknownNameError(
                ".".join([where, *path[:-1]] if where else path[:-1]) or "settings", path[-1], _names(kind, path[:-1])
            ) from None
        if first["type"] == "literal_error":
            expected = str(first.get("ctx", {}).get("expected", ""))
            fix = suggest(
                str(first["input"]), [name.strip().strip("'") for name in expected.replace(" or ", ",").split(",")]
            )
            raise ConfigError(dotted, "must be one of the known names", repr(first["input"]), fix) from None
        if first["type"] == "missing":
            raise ConfigError(dotted, "must be there", "none") from None
        rule = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        rule = f"must be {rule}" if first["msg"].startswith("Input should be ") else rule[:1].lower() + rule[1:]
        rule = next((said for kind, said in _RULES.items() if first["type"].startswith(kind)), rule)
        got = repr(first["input"])
        raise ConfigError(dotted, rule, got if len(got) <= 60 else f"{got[:59]}…") from None


# what pydantic says in Python's words
_RULES = {
    "model_type": "must be settings by name",
    "dict_type": "must be settings by name",
    "tuple_type": "must be a list",
    "string_type": "must be text",
}


def _path(parts: tuple[int | str, ...]) -> list[str]:
    return [str(part) for part in parts if not _names_a_union_branch(part)]


def _names_a_union_branch(part: int | str) -> bool:
    """Whether a part of pydantic's path is not a name of ours: it says which branch of a union was tried."""
    return isinstance(part, str) and (not part.isidentifier() or part in {"int", "float", "str", "bool", "tuple"})


def _names(kind: type[BaseModel], path: list[str]) -> list[str]:
    """The names of the settings at a path below ``kind``."""
    for part in path:
        field = kind.model_fields.get(part)
        inner = field.annotation if field is not None else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            break
        kind = inner
    return list(kind.model_fields)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings merged; where both have a plain value, ``over``'s counts."""
    merged = dict(base)
    for name, value in over.items():
        mine = merged.get(name)
        merged[name] = merge(mine, value) if isinstance(mine, Mapping) and isinstance(value, Mapping) else value
    return merged


def override(raw: Mapping[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """Settings with ``a.b=c`` assignments applied, the later over the earlier."""
    result: dict[str, Any] = dict(raw)
    for assignment in assignments:
        result = merge(result, parse_assignment(assignment))
    return result


def parse_assignment(text: str) -> dict[str, Any]:
    """``"training.lr=0.1"`` to ``{"training": {"lr": 0.1}}``.

    The value is read as TOML (numbers, ``true``, ``[1, 2]``, quoted text) and taken as text if it is none.

    Raises:
        ConfigError: There is no name or no ``=``.
    """
    name, equals, value = text.partition("=")
    path = [part.strip() for part in name.split(".")]
    if not equals or not all(path) or len(path) > DEEPEST:
        raise ConfigError("--set", "must be name=value", repr(text[:200]), "Such as --set training.lr=0.1.")
    result = _value(value.strip())
    for part in reversed(path):
        result = {part: result}
    return cast("dict[str, Any]", result)


def parse_arguments(texts: Iterable[str]) -> dict[str, Any]:
    """``["n_hidden=50"]`` to ``{"n_hidden": 50}``, each value as :func:`parse_assignment` reads it.

    Raises:
        ConfigError: There is no ``=``, or before it no name that an argument may have.
    """
    arguments: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip().isidentifier():
            fix = "Such as --model-arg n_hidden=50."
            raise ConfigError("--model-arg", "must be name=value", repr(text), fix)
        arguments[name.strip()] = _value(value.strip())
    return arguments


def _value(text: str) -> Any:
    try:
        parsed = _nested(tomllib.loads(f"value = {text}"))
    except (ValueError, RecursionError):  # no TOML; or a number of too many digits, or too many brackets
        return text
    return parsed["value"] if len(parsed) == 1 else text


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        SourceNotFoundError: There is none.
        SourceFormatError: It is not TOML; the text says line and column.
    """
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for a writer
            got = os.strerror(errno.EISDIR) if path.is_dir() else "it is none"
            raise SourceNotFoundError("--config", f"must be a file to read: {got}", str(path))
        if path.stat().st_size > TOML_BYTES:
            raise SourceFormatError(str(path), f"must be TOML of at most {TOML_BYTES >> 20} MB", "more")
        return _nested(tomllib.loads(path.read_text(encoding="utf-8-sig")))  # some editors begin a file with a mark
    except (SourceNotFoundError, SourceFormatError):
        raise
    except FileNotFoundError:
        raise SourceNotFoundError("--config", "no such file", str(path)) from None
    except OSError as error:
        raise SourceNotFoundError("--config", f"must be a file to read: {error.strerror}", str(path)) from None
    except RecursionError:
        raise SourceFormatError(str(path), "must be TOML that is not nested so deeply") from None
    except ValueError as error:  # also bytes that are no UTF-8, a number of very many digits, a path with a null byte
        raise SourceFormatError(str(path), f"must be TOML: {error}") from None


def _nested(parsed: dict[str, Any]) -> dict[str, Any]:
    """What was parsed, if it is not nested more deeply than any settings are: ``a.a.a.a = 1`` may be.

    Raises:
        RecursionError: It is.
    """
    level: list[Any] = [parsed]
    for _ in range(DEEPEST):
        level = [
            inner for one in level for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, (dict, list))
        ]  # fmt: skip
        if not level:
            return parsed
    raise RecursionError
