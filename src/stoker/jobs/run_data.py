"""A run's data: its own splits made again from their sources, and any source read as its model takes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stoker.data.dataset import DataSet, ImageSet, Table
from stoker.data.sources import load as load_source
from stoker.data.target import drop_missing_target, encode_target
from stoker.errors import DataError, EncodingError, RunError, SourceNotFoundError
from stoker.jobs.config import FitConfig, split_seed
from stoker.jobs.prepare import encoded_inputs
from stoker.jobs.splitting import counted, in_source, split_images, split_table
from stoker.runs.artifact import Artifact
from stoker.runs.record import Record

__all__ = ["OwnSplit", "RunData", "silent"]

Notify = Callable[[str], None]
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class OwnSplit:
    """A split of a run, made again.

    Attributes:
        data: Its rows or images.
        rows: Which rows or images of its source they are, from 0: int64 ``[n]``.
    """

    data: DataSet
    rows: NDArray[np.int64]


@dataclass(frozen=True)
class RunData:
    """Reads data for a run.

    Attributes:
        path: The run's directory.
        config: The settings it was trained with.
        record: All of its ``config.json``.
        artifact: Its model with its recipe.
        asks: Who reads, as errors name it.
        fix: What to do where the run's own sources cannot be read.
    """

    path: Path
    config: FitConfig
    record: Record
    artifact: Artifact
    asks: str = "evaluate"
    fix: str = "Say which source to evaluate on: stoker evaluate RUN SOURCE."

    def load(self, source: Any) -> DataSet:
        """A source's rows or images.

        Raises:
            DataError: It cannot be used.
        """
        recipe = self.artifact.recipe
        shape = None if recipe.kind == "table" else (recipe.spec.channels, recipe.spec.height, recipe.spec.width)  # type: ignore[union-attr]
        target = recipe.target if isinstance(source, tuple) and recipe.kind == "table" else None
        dataset = load_source(source, target=target, skip_bad=self.config.data.skip_bad, image_shape=shape)
        if isinstance(dataset, Table) != (recipe.kind == "table"):
            wanted, got = ("a table", "images") if recipe.kind == "table" else ("images", "a table")
            raise DataError(dataset.provenance.origin, f"must be {wanted}, as this run's model takes", got)
        return dataset

    def load_held_out(self, source: Any, tell: Notify) -> DataSet:
        """What to measure on: of a source that holds a test split of its own, that.

        Raises:
            DataError: It cannot be used.
        """
        dataset = self.load(source)
        if isinstance(dataset, ImageSet):
            if dataset.test is None:
                return dataset
            tell(f"measured on the test split that the source itself has, {len(dataset.test):,} images")
            return dataset.test
        if dataset.test is None:
            return dataset
        tell(f"measured on the test split that the source itself has, {counted(dataset.test.height, 'row')}")
        return Table(dataset.test, dataset.provenance)

    def unchanged(self, split: str) -> DataSet:
        """The source that a split came from.

        Raises:
            RunError: The run does not say which.
            SourceNotFoundError: It is not there any more.
            DataError: It cannot be used, or is not what it was.
        """
        if split not in self.record.sources:
            raise RunError(str(self.path), f"config.json must say the {split} source", "none", self.fix)
        known = self.record.sources[split]
        try:
            dataset = self.load(known.origin)
        except SourceNotFoundError:
            rule = f"the run's {split} source must be where it was, seen from here"
            raise SourceNotFoundError(self.asks, rule, known.origin, self.fix) from None
        if dataset.provenance.fingerprint != known.fingerprint:
            rule = f"the run's {split} source must be as it was in training"
            raise DataError(self.asks, rule, f"other contents in {known.origin}", self.fix)
        return dataset

    def splits(self) -> dict[str, OwnSplit]:
        """The rows or images of each split, read again from the sources that they were made from.

        Raises:
            RunError: The run does not say which.
            SourceNotFoundError: A source is not there any more.
            DataError: A source cannot be used, or is not what it was.
        """
        train = self.unchanged("train")
        given = {name: self.unchanged(name) for name in ("valid", "test") if name in self.record.sources}
        seed = split_seed(self.config)
        if isinstance(train, Table):
            assert self.artifact.schema is not None  # tables have one
            parts = split_table(train, self.artifact.schema, self.config.data, seed, **given, notify=silent)
            return {name: OwnSplit(Table(frame, train.provenance), parts.rows[name]) for name, frame in parts.items()}
        images = split_images(train, self.config.data, seed, **given, notify=silent)
        return {name: OwnSplit(part, images.rows[name]) for name, part in images.items()}

    def held_out(self) -> DataSet:
        """The test split, or the validation split, made again from the source.

        Raises:
            RunError: The run does not say which.
            SourceNotFoundError: The source is not there any more.
            DataError: It cannot be used, is not what it was, or all of it was trained on.
        """
        if "test" in self.record.sources:
            return self.unchanged("test")
        splits = self.splits()
        held_out = splits.get("test", splits.get("valid"))
        if held_out is None:
            fix = "Say a source: stoker evaluate RUN SOURCE."
            raise DataError(self.asks, "the run must have held back rows", "none", fix)
        return held_out.data

    def inputs(self, dataset: DataSet) -> Tensors:
        """Inputs as the trained part takes them.

        Raises:
            EncodingError: A column is missing or a value does not fit it; names column, row and value.
        """
        if isinstance(dataset, ImageSet):
            return {"images": dataset.images}
        columns = self.artifact.columns
        assert columns is not None  # tables have them
        return encoded_inputs(self.artifact.model, columns.read(dataset.frame))

    def labelled(self, dataset: DataSet, tell: Notify) -> tuple[Tensors, Tensor]:
        """Inputs as the trained part takes them, and targets, ``[n, 1]`` or class indices ``[n]``.

        Raises:
            DataError: There are no targets.
            EncodingError: A value or a class does not fit; names column, row and value.
        """
        recipe = self.artifact.recipe
        if isinstance(dataset, ImageSet):
            return self.inputs(dataset), _image_targets(dataset, recipe.classes)
        schema = self.artifact.schema
        assert schema is not None  # tables have one
        assert schema.target is not None  # and it has a target
        target, origin = schema.target, dataset.provenance.origin
        if target.name not in dataset.frame.columns:
            fix = "Use stoker predict for rows without it."
            raise DataError(origin, f"must have the target {target.name!r}", "none", fix)
        frame, dropped = drop_missing_target(dataset.frame, target.name)
        if dropped:
            tell(f"{counted(dropped, 'row')} without {target.name!r} left out")
        if frame.is_empty():
            raise DataError(origin, f"must have rows with a {target.name!r}", "none", "Check the source.")
        try:
            return self.inputs(Table(frame, dataset.provenance)), encode_target(frame[target.name], target)
        except EncodingError as error:
            raise in_source(error, origin, dropped) from None


def silent(_: str) -> None:
    """Tell nobody."""


def _image_targets(images: ImageSet, classes: tuple[str, ...]) -> Tensor:
    if images.labels is None:
        fix = "Put the images of each class into a folder of its own, or use stoker predict."
        raise DataError(images.provenance.origin, "images to evaluate on must have labels", "none", fix)
    unknown = sorted(set(images.classes) - set(classes))
    if unknown:
        fix = f"The run knows {', '.join(classes)}."
        raise DataError(images.provenance.origin, "must have no other classes than the run", ", ".join(unknown), fix)
    return torch.tensor([classes.index(name) for name in images.classes])[images.labels]
