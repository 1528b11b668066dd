"""What is to be learnt, and why: the rules of :func:`stoker.data.schema.infer_schema` for the target.

1. Text, categories and booleans are classes: **binary** if there are two, else **multiclass**. Text that is numbers
   throughout is taken as those numbers.
2. Two distinct whole numbers are **binary**, however they are stored.
3. Integers with at most 20 distinct values, and floats that are all whole with at most 10, are **multiclass** if there
   are at least five rows to a value on average.
4. All other numbers, and durations (as seconds), are **regression**.
"""

from __future__ import annotations

from typing import NamedTuple

import polars as pl

from stoker.data import cells
from stoker.data.dataset import Task
from stoker.data.kinds import plain, shorten
from stoker.errors import SchemaError, UnknownNameError

__all__ = ["MAX_CLASSES", "TASKS", "TargetGuess", "guess_target", "sort_classes"]

TASKS: tuple[Task, ...] = ("regression", "binary", "multiclass")
MAX_CLASSES = 1000
"""A target with more distinct values than this is no set of classes."""

_FEW_INTEGERS, _FEW_FLOATS = 20, 10  # distinct values that whole numbers may have to be taken for classes
_ROWS_PER_CLASS = 5


class TargetGuess(NamedTuple):
    """What was found out about the target: the fields of :class:`stoker.data.schema.Target` but its name."""

    task: Task
    classes: tuple[str, ...]
    reason: str
    missing: int


def guess_target(series: pl.Series, task: Task | None = None) -> TargetGuess:
    """Find the task of a target by the rules at the top of this module, and its classes.

    Args:
        series: The target, under its name.
        task: The task, where the user named it; it is then only checked against the values.

    Raises:
        SchemaError: Nothing can be learnt from the target: it has no or one value, infinite values, a type that is
            neither numbers nor classes, a class of one row, or it does not fit ``task``. The text says what to do.
        UnknownNameError: ``task`` is not a task.
    """
    where = f"target {series.name!r}"
    if task is not None and task not in TASKS:
        raise UnknownNameError("task", str(task), TASKS)
    labels = cells.texts(series)
    if labels is None or series.dtype in (pl.Date, pl.Datetime, pl.Time):
        raise SchemaError(where, "must hold numbers or classes", str(series.dtype), "Turn it into a number first.")
    missing = cells.missing_mask(series)
    n_missing = int(missing.sum())
    if n_missing == len(series):
        raise SchemaError(where, "must have values", "missing ones only", "Name another target.")
    reading = cells.numbers(series, infinite=True)
    assert reading is not None  # what has a text form and is no time can be read as numbers
    odd_row = reading.first_odd()
    infinite = reading.values.is_infinite()
    if odd_row is None and infinite.any():
        row = int(infinite.fill_null(value=False).arg_max() or 0)
        fix = "Correct it, or drop the row."
        raise SchemaError(cells.place(series.name, row), "must be finite", str(reading.values[row]), fix)
    present = labels.filter(~missing)
    distinct = present.n_unique()
    if distinct == 1:
        fix = "There is nothing to learn from it: name another target."
        raise SchemaError(where, "must have more than one value", f"{shorten(present[0])} in every row", fix)
    guessed, reason = _guess_task(series, reading.values if odd_row is None else None, distinct, len(present))
    if task is not None:
        reason = f"{task} on request"
    if (task or guessed) == "regression":
        if odd_row is not None:
            got, fix = shorten(series[odd_row]), "Correct it, or take the target as classes (task multiclass)."
            raise SchemaError(cells.place(series.name, odd_row), "must be a number for regression", got, fix)
        return TargetGuess("regression", (), reason, n_missing)
    classes = _classes(where, present, distinct, task or guessed, numeric=odd_row is None)
    return TargetGuess(task or guessed, classes, reason, n_missing)


def sort_classes(names: list[str]) -> tuple[str, ...]:
    """Sort classes or categories: by value if all are numbers, else as text."""
    values = pl.Series(names, dtype=pl.String).cast(pl.Float64, strict=False)
    if values.is_finite().fill_null(value=False).all():
        return tuple(name for _, name in sorted(zip(values, names, strict=True)))
    return tuple(sorted(names))


def _guess_task(series: pl.Series, numbers: pl.Series | None, distinct: int, rows: int) -> tuple[Task, str]:
    """The task and the reason; ``numbers`` is ``None`` for what is not numbers throughout."""
    classes: Task = "binary" if distinct == 2 else "multiclass"
    dtype = series.dtype
    if dtype == pl.Boolean:
        return "binary", "true or false"
    if numbers is None or (cells.texts_of(series) and dtype != pl.String):
        what = "text" if dtype == pl.String else "categories"
        return classes, f"{what} with {distinct:,} distinct values"
    prefix = "text, but " if dtype == pl.String else ""
    values = numbers.drop_nulls()
    if dtype == pl.Duration:
        return "regression", "durations, taken as seconds"
    if not (values % 1 == 0).all():
        return "regression", f"{prefix}numbers with fractions, from {plain(values.min())} to {plain(values.max())}"
    what = f"{prefix}whole numbers with {distinct:,} distinct values"
    few = _FEW_FLOATS if dtype.is_float() or dtype.is_decimal() else _FEW_INTEGERS
    if distinct == 2:
        return "binary", what
    if distinct > few:
        return "regression", f"{what}; up to {few} would be classes"
    if distinct * _ROWS_PER_CLASS > rows:
        return "regression", f"{what} in {rows:,} rows; with {_ROWS_PER_CLASS} rows to a value they would be classes"
    return "multiclass", f"{what}; more than {few} would be regression"


def _classes(where: str, present: pl.Series, distinct: int, task: Task, *, numeric: bool) -> tuple[str, ...]:
    """The names of the classes, after all that can be wrong with them."""
    other = "take it as numbers (task regression), or name another target" if numeric else "name another target"
    if distinct > MAX_CLASSES:
        got = f"{distinct:,} distinct values"
        raise SchemaError(where, f"must have at most {MAX_CLASSES:,} classes", got, f"Merge classes, {other}.")
    if distinct > 2 and 2 * distinct > len(present):
        got = f"{distinct:,} distinct values in {len(present):,} rows"
        raise SchemaError(where, "must have classes of several rows each", got, f"Nearly every value differs: {other}.")
    counts = present.rename("label").value_counts(name="rows").sort("rows", "label")
    if counts["rows"][0] == 1:
        single = counts.filter(pl.col("rows") == 1)["label"].to_list()
        names = ", ".join(shorten(name) for name in single[:5]) + (" and others" if len(single) > 5 else "")
        rule = "must have classes of two rows at least, for one can be either learnt or tested"
        alone = "class" if len(single) == 1 else "classes"
        also = ", or take the target as numbers (task regression)" if numeric else ""
        fix = f"Drop the row, merge the class with another{also}."
        raise SchemaError(where, rule, f"one row of {alone} {names}", fix)
    if task == "binary" and distinct != 2:
        names = ", ".join(shorten(name) for name in sort_classes(counts["label"].to_list())[:5])
        got = f"{distinct:,} ({names}{', …' if distinct > 5 else ''})"
        raise SchemaError(where, "must have two classes for task binary", got, "Take it as task multiclass.")
    return sort_classes(counts["label"].to_list())
