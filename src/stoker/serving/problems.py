"""What a request can be answered with when it cannot be served: a status, a code for programs, and words for people.

The body is ``{"error": "<where>: <rule>, got <value>. <what to do>", "code": "invalid-value", "column": …, "row": …,
"value": …}``; the last three are there where they are known. It is the form that the Open Inference Protocol asks for
(``error`` is text), so that one form serves all paths.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

from stoker.errors import OutOfMemoryError, StokerError

__all__ = ["Problem", "check_count", "problem_of"]

_PLACE = re.compile(r"column (?P<name>'.*'|\".*\")(?:, row (?P<row>\d+)(?: \(counting from 0\))?)?", re.DOTALL)

_LONGEST = 2000


class Problem(Exception):  # noqa: N818  # of the request, not of the server
    """A request that is refused, or could not be served.

    Args:
        status: Of HTTP.
        code: A word for programs, which stays the same when the text is improved.
        text: The text for people.
        column, row, value: What is at fault, where that is known.
        headers: To answer with.
    """

    def __init__(
        self,
        status: int,
        code: str,
        text: str,
        *,
        column: str | None = None,
        row: int | None = None,
        value: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"  # what is wrong with it may be its length
        super().__init__(text)
        self.status = status
        self.code = code
        self.headers = dict(headers or {})
        place = {"column": column, "row": row, "value": value}
        self.body = {"error": text, "code": code} | {name: part for name, part in place.items() if part is not None}


def check_count(count: int, most: int, what: str) -> None:
    """Make sure that a request has something in it, and not too much.

    Args:
        count: How many there are.
        most: How many there may be.
        what: Of what: ``"rows"``, ``"images"``.

    Raises:
        Problem: 422 if there are none, 413 if there are too many.
    """
    if count == 0:
        raise Problem(422, "no-rows", f"body: must have {what}, got none.")
    if count > most:
        text = f"body: must have at most {most:,} {what}, got {count:,}. Send them in several requests."
        raise Problem(413, "too-many-rows", text)


def problem_of(error: StokerError, value: Any = None) -> Problem:
    """One of Stoker's errors as a problem of the request.

    Args:
        error: What reading the rows raised.
        value: The value at fault, if there is one; of long text the beginning is given back.
    """
    if isinstance(error, OutOfMemoryError):
        return Problem(503, "out-of-memory", str(error), headers={"Retry-After": "1"})
    column, row = place_of(error.where)
    code = "invalid-data" if column is None else "invalid-column" if row is None else "invalid-value"
    if isinstance(value, str) and len(value) > 100:
        value = value[:99] + "…"
    return Problem(422, code, str(error), column=column, row=row, value=value)


def place_of(where: str) -> tuple[str | None, int | None]:
    """The column and the row that an error's place names, as :func:`stoker.data.cells.place` wrote it."""
    found = _PLACE.fullmatch(where)
    if found is None:
        return None, None
    try:
        name = str(ast.literal_eval(found["name"]))
    except (SyntaxError, ValueError):
        return None, None
    return name, None if found["row"] is None else int(found["row"])
