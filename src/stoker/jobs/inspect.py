"""Looking at a source before training on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stoker.data.dataset import DataSet, Table, Task
from stoker.data.schema import Schema, infer_schema
from stoker.data.sources import load
from stoker.errors import ConfigError
from stoker.jobs.config import build_config
from stoker.jobs.prepare import table_schema

__all__ = ["Inspection", "inspect"]


@dataclass(frozen=True)
class Inspection:
    """What a source holds.

    Attributes:
        dataset: The data.
        schema: Of a table; ``None`` for images.
        notices: What the user should know.
    """

    dataset: DataSet
    schema: Schema | None
    notices: list[str]


def inspect(
    source: Any,
    *,
    target: str | None = None,
    task: Task | None = None,
    numeric: Sequence[str] = (),
    categorical: Sequence[str] = (),
    datetime: Sequence[str] = (),
    ignore: Sequence[str] = (),
    skip_bad: bool = False,
) -> Inspection:
    """Say what a source holds and what ``fit`` would take each column for, and why.

    Args:
        source: Anything that ``fit`` takes.
        target: The column to predict; named data sets know theirs, and without one the columns alone are looked at.
        task: Instead of the guess from the target.
        numeric: Columns to take as numbers, whatever they look like.
        categorical: Columns to take as categories.
        datetime: Columns to take as points in time.
        ignore: Columns to leave out.
        skip_bad: Leave out unreadable images instead of stopping.

    Raises:
        SourceNotFoundError: The source is not there.
        DataError: It cannot be read, or the target cannot be used.
        UnknownNameError: A column is not there.
        ConfigError: Settings contradict each other, or are for tables and the source is images.
    """
    dataset = load(source, target=target, skip_bad=skip_bad)
    if not isinstance(dataset, Table):
        given = target or task or numeric or categorical or datetime or ignore
        if given:
            raise ConfigError("inspect", "columns and targets are for tables", "images", "Leave them out.")
        skipped = [f"unreadable image {name} is left out: {reason}" for name, reason in dataset.skipped]
        return Inspection(dataset, None, skipped)
    if target is None and dataset.target is None:
        schema = infer_schema(dataset.frame, numeric=numeric, categorical=categorical, datetime=datetime, ignore=ignore)
        return Inspection(dataset, schema, [])
    kinds = {"numeric": numeric, "categorical": categorical, "datetime": datetime, "ignore": ignore}
    settings = {"target": target, "task": task, **{name: tuple(columns) for name, columns in kinds.items()}}
    return Inspection(dataset, table_schema(dataset, build_config(short=settings)), [])
