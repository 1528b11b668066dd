"""What each column of a table is, and why: guessed with reasons, overridden by name, kept as JSON.

The rules are written down where they are applied: for features in :mod:`stoker.data.kinds`, for the target in
:mod:`stoker.data.tasks`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from stoker.data import strict
from stoker.data.dataset import Task
from stoker.data.kinds import Kind
from stoker.errors import ConfigError, InputTypeError, SchemaError, UnknownNameError, suggest

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Column", "Kind", "Schema", "Target", "infer_schema"]


@dataclass(frozen=True)
class Column:
    """What a feature column is.

    Attributes:
        name: Its name.
        kind: What it is taken as.
        dtype: The type it had in the table that the schema was made from, as polars writes it.
        reason: Why it is taken as that, in plain words.
        missing: How many rows have no value.
        distinct: How many distinct values there are, the missing one aside.
        example: The first value that is not missing, as text of at most 40 characters; empty if there is none.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    name: str
    kind: Kind
    dtype: str
    reason: str
    missing: int
    distinct: int
    example: str


@dataclass(frozen=True)
class Target:
    """What is to be learnt.

    Attributes:
        name: The column's name.
        task: The task.
        classes: The text form of the classes, in the order of their codes: by value if they are numbers, else as text.
            Of two, the second is the positive one. Empty for regression.
        reason: Why it is that task, in plain words.
        missing: How many rows have no target; they are of no use for training.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    name: str
    task: Task
    classes: tuple[str, ...]
    reason: str
    missing: int


@dataclass(frozen=True)
class Schema:
    """All columns of a table but the target, in the table's order, and the target."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    columns: tuple[Column, ...]
    target: Target | None

    @property
    def features(self) -> tuple[Column, ...]:
        """The columns that are used: all but the ignored ones."""
        return tuple(column for column in self.columns if column.kind != "ignored")

    def to_dict(self) -> dict[str, Any]:
        """The schema as JSON takes it; :meth:`from_dict` makes the same schema of it."""
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]

    @classmethod
    def from_dict(cls, data: object) -> Schema:
        """Build a schema from what :meth:`to_dict` made, trusting nothing.

        Raises:
            SchemaError: A field is missing, unknown, of another type, or contradicts another.
        """
        schema = strict.parse(cls, data, "schema")
        names = Counter([column.name for column in schema.columns])
        if schema.target is not None:
            names[schema.target.name] += 1
            _check_target(schema.target)
        name, count = names.most_common(1)[0] if names else ("", 0)
        if count > 1:
            raise SchemaError("schema", "must name each column once", repr(name), "Make the schema anew.")
        if any(column.missing < 0 or column.distinct < 0 for column in schema.columns):
            raise SchemaError("schema", "must count missing and distinct values from 0 on", "", "Make the schema anew.")
        return schema


def _check_target(target: Target) -> None:
    n = len(target.classes)
    fits = {"regression": n == 0, "binary": n == 2, "multiclass": n >= 2}[target.task]
    if not fits or len(set(target.classes)) < n or "" in target.classes or target.missing < 0:
        got = f"{n} classes for task {target.task}"
        raise SchemaError("schema, target", "must have the distinct classes of its task", got, "Make the schema anew.")


def infer_schema(
    frame: pl.DataFrame,
    target: str | None = None,
    *,
    task: Task | None = None,
    numeric: Sequence[str] = (),
    categorical: Sequence[str] = (),
    datetime: Sequence[str] = (),
    ignore: Sequence[str] = (),
) -> Schema:
    """Say what each column is, and why.

    Args:
        frame: The table; all its rows are looked at.
        target: The column to be learnt; ``None`` to look at the columns only.
        task: The task, if it is not to be guessed from the target's values.
        numeric: Columns to take as numbers, whatever they look like; likewise the next three.
        categorical: Columns to take as categories.
        datetime: Columns to take as points in time.
        ignore: Columns to leave out.

    Returns:
        The schema. Its ``columns`` are all but the target, in the table's order.

    Raises:
        SchemaError: The table is empty, the target is not there or of no use, no usable feature is left beside it, or
            a column cannot be read as what it was declared; names column, row and value.
        UnknownNameError: An override names a column that is not there, or ``task`` is not a task.
        ConfigError: Two overrides name one column, or one names the target.
        InputTypeError: ``frame`` is not a polars data frame.
    """
    import polars as pl

    from stoker.data.kinds import force_kind, guess_kind
    from stoker.data.tasks import guess_target

    given: object = frame  # what the caller's type checker may not have seen
    if not isinstance(given, pl.DataFrame):
        fix = "Read it with stoker's sources first."
        raise InputTypeError("frame", "must be a polars.DataFrame", type(given).__name__, fix)
    if frame.is_empty():
        raise SchemaError("table", "must have rows and columns", f"{frame.height} x {frame.width}", "Check the source.")
    if target is not None and target not in frame.columns:
        raise SchemaError("target", "must be a column of the table", repr(target), suggest(target, frame.columns))
    if task is not None and target is None:
        raise ConfigError("task", "needs a target to be the task of", repr(task), "Name the target as well.")
    forced = _overrides(
        frame.columns, target, {"numeric": numeric, "categorical": categorical, "datetime": datetime, "ignored": ignore}
    )
    columns = []
    for series in frame:
        if series.name == target:
            continue
        guess = force_kind(series, forced[series.name]) if series.name in forced else guess_kind(series)
        columns.append(Column(series.name, guess.kind, str(series.dtype), *guess[1:]))
    learnt = None if target is None else Target(target, *guess_target(frame[target], task))
    schema = Schema(tuple(columns), learnt)
    if target is not None and not schema.features:
        reasons = "; ".join(f"{column.name}: {column.reason}" for column in columns[:5]) or "there are no others"
        fix = "Declare a column numeric or categorical to use it all the same."
        raise SchemaError("table", "must have a usable column beside the target", f"none ({reasons})", fix)
    return schema


def _overrides(names: Sequence[str], target: str | None, given: dict[Kind, Sequence[str]]) -> dict[str, Kind]:
    """The kind of each column that an override names."""
    forced: dict[str, Kind] = {}
    for kind, listed in given.items():
        option = "ignore" if kind == "ignored" else kind
        for name in [listed] if isinstance(listed, str) else listed:
            if name == target:
                raise ConfigError(option, "must not name the target", repr(name), "Its kind follows from the task.")
            if name not in names:
                raise UnknownNameError(option, str(name), names)
            if forced.setdefault(name, kind) != kind:
                first = "ignore" if forced[name] == "ignored" else forced[name]
                raise ConfigError(
                    option, f"must not name a column that {first} names too", repr(name), "Keep one of them."
                )
    return forced
