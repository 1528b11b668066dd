"""What a source yields: a table, or a set of images, whole and in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    import polars as pl
    from torch import Tensor

__all__ = ["DataSet", "ImageSet", "Provenance", "Table", "Task"]

Task: TypeAlias = Literal["regression", "binary", "multiclass"]


@dataclass(frozen=True)
class Provenance:
    """Where data came from, so that a run can say on what it was trained.

    Attributes:
        name: A short name, fit for a directory: ``housing`` for ``data/housing.csv``, ``digits`` for the named set.
        origin: What the user gave: a path, a named set, or the kind of an object (``pandas.DataFrame``).
        fingerprint: ``sha256:`` and the hash of the bytes read (of the files as they are on disk; of the column
            values for objects in memory).
        rows: How many rows or images, before any split.
    """

    name: str
    origin: str
    fingerprint: str
    rows: int


@dataclass(frozen=True)
class Table:
    """A table whose columns have unique names.

    Attributes:
        frame: The rows. Missing values are nulls; NaN counts as missing too.
        provenance: Where they came from.
        target: The target column, where the source itself knows it (the named sets do).
        task: The task, where the source itself knows it.
        test: Rows that the source itself holds back for testing, of the same columns.
    """

    frame: pl.DataFrame
    provenance: Provenance
    target: str | None = None
    task: Task | None = None
    test: pl.DataFrame | None = None

    def __len__(self) -> int:
        return self.frame.height


@dataclass(frozen=True)
class ImageSet:
    """Images of one size, whole and in memory.

    Attributes:
        images: uint8, shape ``[n, channels, height, width]``, values as in the files.
        labels: int64, shape ``[n]``, indices into ``classes``; ``None`` where the source has no labels.
        classes: The names of the classes, in the order of their indices.
        provenance: Where they came from.
        names: A name for each image (its file, relative to the source), or empty if they have none.
        test: Images that the source itself holds back for testing.
        skipped: ``(name, reason)`` of each unreadable image, where the user asked to skip those.
    """

    images: Tensor
    labels: Tensor | None
    classes: tuple[str, ...]
    provenance: Provenance
    names: tuple[str, ...] = ()
    test: ImageSet | None = None
    skipped: tuple[tuple[str, str], ...] = field(default=())

    def __len__(self) -> int:
        return int(self.images.shape[0])


DataSet: TypeAlias = Table | ImageSet
