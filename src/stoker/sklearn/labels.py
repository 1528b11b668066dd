"""Classes to codes and back: of one output, or of several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_array, column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from stoker.data.kinds import shorten
from stoker.errors import ConfigError, DataError

__all__ = ["Labels", "check_labels"]


def check_labels(y: Any) -> NDArray[Any]:
    """Check the labels as scikit-learn does: ``[n]``, or ``[n, outputs]``; of one column a warning is given.

    Raises:
        ValueError: scikit-learn's own: they are numbers with fractions, or missing.
        DataError: They are of several types.
    """
    checked = np.asarray(check_array(y, ensure_2d=False, dtype=None, input_name="y", ensure_min_samples=0))
    if checked.ndim == 2 and checked.shape[1] == 1:
        checked = np.asarray(column_or_1d(checked, warn=True))
    for column in _columns(checked):
        try:
            check_classification_targets(column)
        except TypeError:  # NumPy's, which cannot sort them
            raise DataError("y", "labels must be of one type", "several", "Convert them to text.") from None
    return checked


@dataclass(frozen=True, eq=False)
class Labels:
    """The classes of each output.

    Attributes:
        classes: For each output its classes, sorted.
        several: Whether labels are ``[n, outputs]`` rather than ``[n]``.
    """

    classes: tuple[NDArray[Any], ...]
    several: bool

    @classmethod
    def fit(cls, y: NDArray[Any]) -> Labels:
        """Find the classes of labels that :func:`check_labels` let through."""
        return cls(tuple(np.unique(column) for column in _columns(y)), y.ndim == 2)

    @classmethod
    def given(cls, classes: Any, several: bool) -> Labels:
        """Take the classes that the user gave to ``partial_fit``.

        Args:
            classes: An array of all classes; for several outputs a list of arrays.
            several: Whether the labels have several outputs.

        Raises:
            ConfigError: They are not such.
        """
        listed = list(classes) if several else [classes]
        arrays = tuple(np.unique(np.asarray(one)) for one in listed)
        if not arrays or any(array.size == 0 for array in arrays):
            raise ConfigError("classes", "must name the classes of each output", repr(classes), "Give np.unique(y).")
        return cls(arrays, several)

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many classes each output has."""
        return tuple(len(classes) for classes in self.classes)

    def same_as(self, other: Labels) -> bool:
        """Whether both have the same classes."""
        pairs = zip(self.classes, other.classes, strict=False)
        return self.sizes == other.sizes and all(one.tolist() == two.tolist() for one, two in pairs)

    def encode(self, y: NDArray[Any]) -> NDArray[np.int64]:
        """Labels to their places among the classes: int64 ``[n, outputs]``.

        Raises:
            DataError: There are more or fewer outputs, or a label is none of the classes; names the row.
        """
        columns = _columns(y)
        if (y.ndim == 2) != self.several or len(columns) != len(self.classes):
            shape = f"[n, {len(self.classes)}]" if self.several else "[n]"
            raise DataError("y", f"must have shape {shape}, as at first", list(y.shape), "Set warm_start=False.")
        codes = np.empty((len(y), len(columns)), np.int64)
        for place, classes in enumerate(self.classes):
            code = {label: index for index, label in enumerate(classes.tolist())}
            codes[:, place] = [code.get(label, -1) for label in columns[place].tolist()]
            if (codes[:, place] < 0).any():
                row = int((codes[:, place] < 0).argmax())
                known = ", ".join(shorten(label) for label in classes[:20])
                fix = f"The classes: {known}. Name all of them in the first call to partial_fit, or fit anew."
                raise DataError(f"y, row {row}", "must be one of the classes", shorten(columns[place][row]), fix)
        return codes

    def decode(self, codes: NDArray[np.int64]) -> NDArray[Any]:
        """Places among the classes ``[n, outputs]`` to labels, shaped as they were."""
        columns = [classes[codes[:, place]] for place, classes in enumerate(self.classes)]
        if not self.several:
            return columns[0]
        kinds = {column.dtype for column in columns}
        return np.column_stack(columns if len(kinds) == 1 else [column.astype(object) for column in columns])


def _columns(y: NDArray[Any]) -> list[NDArray[Any]]:
    """The labels of each output; those of a frame of text and numbers are numbers again where all of them are."""
    columns = list(y.T) if y.ndim == 2 else [y]
    return [_plain(column) if column.dtype == object else column for column in columns]


def _plain(column: NDArray[Any]) -> NDArray[Any]:
    kinds = {type(label) for label in column}
    return np.array(column.tolist()) if len(kinds) == 1 and not kinds & {str} else column
