"""Which rows train, which validate, which test: the same ones again for the same source, settings and seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import polars as pl
import torch

from stoker.data.cells import missing_mask
from stoker.data.dataset import DataSet, ImageSet, Table
from stoker.data.duplicates import DuplicateReport, duplicates_across, image_duplicates
from stoker.data.schema import Schema
from stoker.data.splits import Split, split_rows
from stoker.data.target import encode_target
from stoker.errors import DataError, EncodingError, SchemaError, UnknownNameError, suggest
from stoker.jobs.config import DataConfig

__all__ = ["Parts", "counted", "in_source", "split_images", "split_table"]

Notify = Callable[[str], None]
Rows = TypeVar("Rows", pl.DataFrame, ImageSet)


@dataclass(frozen=True)
class Parts(Generic[Rows]):
    """The three splits; valid and test may be missing.

    Attributes:
        train, valid, test: The rows themselves.
        duplicates: Rows of one split that stand in another as well: what, and how many.
        rows: By split, which rows of its source it holds, from 0, in its order.
    """

    train: Rows
    valid: Rows | None
    test: Rows | None
    duplicates: dict[str, int]
    rows: dict[str, np.ndarray[Any, Any]]

    def items(self) -> list[tuple[str, Rows]]:
        """The splits that there are, by name."""
        named = (("train", self.train), ("valid", self.valid), ("test", self.test))
        return [(name, part) for name, part in named if part is not None]


def split_table(
    table: Table,
    schema: Schema,
    config: DataConfig,
    seed: int,
    *,
    valid: DataSet | None = None,
    test: DataSet | None = None,
    notify: Notify,
) -> Parts[pl.DataFrame]:
    """Split a table.

    Rows without a target are left out. Splits that come from sources of their own are used as they are; of the table,
    only the others are held back.

    Args:
        table: The source.
        schema: Its columns; the target must be known.
        config: Sizes, group and time columns.
        seed: The job's.
        valid: This split from a source of its own.
        test: Likewise.
        notify: Told of rows left out and of duplicates.

    Raises:
        DataError: A source is of another kind.
        SplitError: The split cannot be made.
        UnknownNameError: The group or time column is not there.
    """
    assert schema.target is not None  # the caller has checked
    target = schema.target.name
    given = {"valid": _frame(valid, "valid"), "test": _frame(test, "test")}
    if given["test"] is None and table.test is not None:
        given["test"] = table.test
    columns = [column.name for column in schema.features] + [target]
    # Row numbers of the table rather than a table of those rows: it is copied once alone, into its parts.
    rows = _rows_with_target(table.frame, schema, "the table", notify)
    split = split_rows(
        len(rows),
        seed=seed,
        valid_size=0 if given["valid"] is not None else config.valid_size,
        test_size=0 if given["test"] is not None else config.test_size,
        labels=None if schema.target.task == "regression" else _labels(table.frame[target].gather(rows)),
        groups=_column(table.frame, rows, config.group, "data.group"),
        times=_column(table.frame, rows, config.time, "data.time"),
    )
    frames: dict[str, pl.DataFrame] = {}
    places: dict[str, np.ndarray[Any, Any]] = {}
    for name, indices in _indices(split):
        part = given.get(name)
        if part is not None:
            places[name] = _rows_with_target(part, schema, f"the {name} source", notify)
            frames[name] = _take_rows(part, places[name], columns)
        elif len(indices):
            places[name] = rows[indices]
            frames[name] = _take_rows(table.frame, places[name], columns)
    if config.train_on_valid and "valid" in frames:
        frames["train"] = _joined(frames["train"], frames.pop("valid"))
        places["train"] = np.concatenate([places["train"], places.pop("valid")])
    same = all(part.schema == frames["train"].schema for part in frames.values())
    report = duplicates_across(pl.concat(frames.values()), _consecutive(frames), columns) if same else None
    return Parts(frames["train"], frames.get("valid"), frames.get("test"), _counts(report, notify), places)


def split_images(
    images: ImageSet,
    config: DataConfig,
    seed: int,
    *,
    valid: DataSet | None = None,
    test: DataSet | None = None,
    notify: Notify,
) -> Parts[ImageSet]:
    """Split a set of images, each class in proportion; see :func:`split_table`.

    Raises:
        DataError: The images have no labels, or a source is of another kind or size.
        SplitError: The split cannot be made.
    """
    if images.labels is None:
        fix = "Put the images of each class into a folder of its own."
        raise DataError(images.provenance.origin, "images to train on must have labels", "none", fix)
    given = {"valid": _images(valid, images, "valid"), "test": _images(test, images, "test")}
    if given["test"] is None and images.test is not None:
        given["test"] = _images(images.test, images, "test")
    split = split_rows(
        len(images),
        seed=seed,
        valid_size=0 if given["valid"] is not None else config.valid_size,
        test_size=0 if given["test"] is not None else config.test_size,
        labels=images.labels.numpy(),
    )
    parts = {name: _take(images, indices) if len(indices) else None for name, indices in _indices(split)}
    parts |= {name: part for name, part in given.items() if part is not None}
    places = dict(_indices(split)) | {name: np.arange(len(part)) for name, part in given.items() if part is not None}
    train, held_back = parts["train"], parts["valid"]
    assert train is not None  # split_rows leaves at least one
    if config.train_on_valid and held_back is not None:
        train = parts["train"] = _joined_images(train, held_back)
        parts["valid"] = None
        places["train"] = np.concatenate([places["train"], places["valid"]])
    everything = torch.cat([part.images for part in parts.values() if part is not None])
    report = image_duplicates(everything, _consecutive(parts))
    return Parts(train, parts["valid"], parts["test"], _counts(report, notify), places)


def _frame(source: DataSet | None, name: str) -> pl.DataFrame | None:
    if source is None:
        return None
    if not isinstance(source, Table):
        raise DataError(name, "must be a table, as the training source is", "images")
    return source.frame


def _images(source: DataSet | None, like: ImageSet, name: str) -> ImageSet | None:
    if source is None:
        return None
    if not isinstance(source, ImageSet):
        raise DataError(name, "must be images, as the training source is", "a table")
    if source.labels is None:
        raise DataError(
            name, "images must have labels", "none", "Put the images of each class into a folder of its own."
        )
    unknown = sorted(set(source.classes) - set(like.classes))
    if unknown:
        raise DataError(name, "must have no other classes than the training source", ", ".join(unknown))
    codes = torch.tensor([like.classes.index(label) for label in source.classes])
    return ImageSet(source.images, codes[source.labels], like.classes, source.provenance, source.names)


def _rows_with_target(frame: pl.DataFrame, schema: Schema, what: str, notify: Notify) -> np.ndarray[Any, Any]:
    """The rows that have a target, after making sure that all columns are there and each target is one."""
    assert schema.target is not None  # the caller has checked
    target = schema.target.name
    known = set(frame.columns)
    lacking = [name for name in (target, *(column.name for column in schema.features)) if name not in known]
    if lacking:
        got = f"no {', '.join(map(repr, lacking[:10]))}" + (f" and {len(lacking) - 10} more" if lacking[10:] else "")
        raise SchemaError(what, "must have the training source's columns", got, suggest(lacking[0], frame.columns))
    present = ~missing_mask(frame[target])
    dropped = frame.height - int(present.sum())
    if dropped:
        notify(f"{counted(dropped, 'row')} of {what} without {target!r} left out")
    if dropped == frame.height:
        raise SchemaError(what, f"must have rows with a {target!r}", "none", "Check the source.")
    try:
        encode_target(frame[target].filter(present), schema.target)  # here, where rows are counted as in the source
    except EncodingError as error:
        raise in_source(error, "" if what == "the table" else what, dropped) from None
    return np.flatnonzero(present.to_numpy())


def _take_rows(frame: pl.DataFrame, rows: np.ndarray[Any, Any], columns: list[str]) -> pl.DataFrame:
    """Some rows of some columns; not by ``select``, which takes names such as ``^a.*$`` for patterns."""
    return pl.DataFrame([frame[name].gather(rows) for name in columns])


def _labels(target: pl.Series) -> np.ndarray[Any, Any]:
    return target.cast(pl.String).to_numpy()


def in_source(error: EncodingError, what: str, dropped: int) -> EncodingError:
    """The same error, saying of which source it is, and how its rows are counted if some were left out."""
    rows = f" The {counted(dropped, 'row')} without a target {'is' if dropped == 1 else 'are'} not counted."
    return EncodingError(
        f"{what}, {error.where}" if what else error.where, error.rule, error.got, error.fix + (rows if dropped else "")
    )


def counted(count: int, what: str) -> str:
    """``"1 row"``, ``"2,000 rows"``."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _column(
    frame: pl.DataFrame, rows: np.ndarray[Any, Any], name: str | None, where: str
) -> np.ndarray[Any, Any] | None:
    if name is None:
        return None
    if name not in frame.columns:
        raise UnknownNameError(where, name, frame.columns)
    return frame[name].gather(rows).to_numpy()


def _indices(split: Split) -> list[tuple[str, Any]]:
    return [("train", split.train), ("valid", split.valid), ("test", split.test)]


def _consecutive(parts: Mapping[str, pl.DataFrame | ImageSet | None]) -> Split:
    """The split of all parts laid one after the other."""
    rows = {name: np.arange(0, dtype=np.int64) for name in ("train", "valid", "test")}
    total = 0
    for name, part in parts.items():
        if part is not None:
            size = part.height if isinstance(part, pl.DataFrame) else len(part)
            rows[name] = np.arange(total, total + size, dtype=np.int64)
            total += size
    return Split(**rows)


def _take(images: ImageSet, indices: np.ndarray[Any, Any]) -> ImageSet:
    rows = torch.from_numpy(indices)
    labels = None if images.labels is None else images.labels[rows]
    names = tuple(images.names[row] for row in indices) if images.names else ()
    return ImageSet(images.images[rows], labels, images.classes, images.provenance, names)


def _joined(train: pl.DataFrame, valid: pl.DataFrame) -> pl.DataFrame:
    try:
        return pl.concat([train, valid], how="vertical_relaxed")
    except pl.exceptions.PolarsError as error:
        rule = f"must have columns of the training source's kinds to be trained on as well ({error})"
        raise SchemaError("the valid source", rule) from None


def _joined_images(train: ImageSet, valid: ImageSet) -> ImageSet:
    assert train.labels is not None  # seen to before
    assert valid.labels is not None
    images, labels = torch.cat([train.images, valid.images]), torch.cat([train.labels, valid.labels])
    return ImageSet(images, labels, train.classes, train.provenance, (*train.names, *valid.names))


def _counts(report: DuplicateReport | None, notify: Notify) -> dict[str, int]:
    if report is None:
        return {}
    counts = {
        "of valid also in train": report.valid_in_train,
        "of test also in train": report.test_in_train,
        "of test also in valid": report.test_in_valid,
    }
    found = {what: count for what, count in counts.items() if count}
    for what, count in found.items():
        notify(f"{counted(count, 'row')} {what}, equal in every column: there, learning by heart looks like skill")
    return found
