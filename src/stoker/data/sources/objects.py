"""Objects in memory to a table or a set of images: frames, dicts of columns, arrays, tensors, and ``(X, y)``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from stoker.data.dataset import DataSet, ImageSet, Provenance, Table
from stoker.data.sources.fingerprint import fingerprint_arrays, fingerprint_frame
from stoker.data.sources.frames import array_from, frame_from, kind_of, series_from
from stoker.data.sources.tidy import check_unique
from stoker.errors import DataError, InputTypeError, SchemaError

__all__ = ["from_object", "image_set", "labels_from"]

_TAKEN = (
    "Taken are: a path, a named data set, a polars, pandas or pyarrow table, a dict of columns, a NumPy array or torch "
    "tensor of two dimensions (or of images), a structured array, and a tuple (X, y) of these."
)


def from_object(source: Any, *, target: str | None = None) -> DataSet:
    """Take data from an object in memory.

    Args:
        source: One of

            - a data frame (see :func:`stoker.data.sources.frames.frame_from`),
            - a dict from column names to columns of one length,
            - an array or tensor ``[n, features]``: columns ``x0``, ``x1``, …; a structured array: its fields,
            - uint8 images ``[n, height, width]`` or ``[n, channels, height, width]``: an image set without labels,
            - ``(X, y)``: any of these and its target, n values. For images, y is classes: integers or text.
        target: What to call y, instead of its own name or ``"y"``.

    Returns:
        The data. With ``(X, y)``, a table's ``target`` is set.

    Raises:
        InputTypeError: It is of another kind; or images are not uint8.
        DataError: Its shape does not fit, columns differ in length, or X and y do; or a label is missing.
        SchemaError: Two columns have the same name, or hold objects that are not values.
    """
    if isinstance(source, tuple):
        if len(source) != 2:
            raise InputTypeError("source", "a tuple must be (X, y)", f"{len(source)} parts", _TAKEN)
        return _from_pair(source[0], source[1], target)
    data = _features(source)
    if isinstance(data, pl.DataFrame):
        return _table(data, source)
    return image_set(data, None, (), _provenance(source, {"images": data}))


def image_set(
    images: NDArray[np.uint8], labels: Tensor | None, classes: tuple[str, ...], provenance: Provenance
) -> ImageSet:
    """Images ``[n, channels, height, width]`` as tensors, without a copy where the array may be written to."""
    whole = np.require(images, requirements=["C", "W"])
    return ImageSet(torch.from_numpy(whole), labels, classes, provenance)


def labels_from(values: pl.Series, where: str) -> tuple[Tensor, tuple[str, ...]]:
    """Turn a column of classes into indices.

    Args:
        values: Integers, text, categories or booleans, n of them.
        where: What to call them in errors.

    Returns:
        The indices, int64 ``[n]``, and the names of the classes in their order: numbers by size, text by alphabet,
        categories in their own order.

    Raises:
        DataError: One is missing, or they are not classes.
    """
    values = values.alias("")  # polars takes some names for patterns
    if values.null_count():
        row = int(values.is_null().arg_max() or 0)
        fix = "Give it one, or leave the image out."
        raise DataError(f"{where}, row {row}", "each image must have a label", "none", fix)
    dtype = values.dtype.base_type()
    if not (dtype.is_integer() or dtype in (pl.String, pl.Enum, pl.Categorical, pl.Boolean)):
        fix = "For other targets of images, train with stoker.Trainer on tensors."
        raise DataError(where, "labels of images must be integers or text", f"the dtype {values.dtype}", fix)
    known = values.unique().sort()
    indices = values.rank("dense").to_numpy().astype(np.int64) - 1
    return torch.from_numpy(indices), tuple(str(value) for value in known.to_list())


def _from_pair(x: Any, y: Any, target: str | None) -> DataSet:
    data = _features(x)
    frame = frame_from(y)
    if frame is not None:
        if frame.width != 1:
            raise DataError("(X, y)", "y must be one column", f"{frame.width}", "Choose one of them as the target.")
        y = frame.to_series()
    name = target or _name_of(y) or "y"
    column = series_from(name, y)
    if len(column) != len(data):
        got = f"{len(data)} and {len(column)}"
        raise DataError("(X, y)", "X and y must have as many rows", got, "Check where rows were lost.")
    if isinstance(data, pl.DataFrame):
        if name in data.columns:
            fix = "Name y otherwise, with target=, or drop that column of X."
            raise SchemaError("(X, y)", "y must not be called as a column of X is", repr(name), fix)
        return _table(data.with_columns(column), (x, y), target=name)
    labels, classes = labels_from(column, "y")
    return image_set(data, labels, classes, _provenance((x, y), {"images": data, "labels": labels.numpy()}))


def _name_of(y: Any) -> str:
    name = getattr(y, "name", None)
    return "" if name is None or callable(name) else str(name)


def _features(source: Any) -> pl.DataFrame | NDArray[np.uint8]:
    """A table, or images ``[n, channels, height, width]``."""
    frame = frame_from(source)
    if frame is None and isinstance(source, Mapping):
        frame = _from_columns(source)
    if frame is None:
        array = array_from(source)
        if array is None:
            fix = "Call .toarray() on it." if hasattr(source, "toarray") else _TAKEN
            raise InputTypeError("source", "an object must be of a kind that holds data", kind_of(source), fix)
        if array.dtype.names is not None:
            frame = _from_columns({name: array[name] for name in array.dtype.names})
        elif array.ndim == 2:
            frame = pl.DataFrame([series_from(f"x{place}", column) for place, column in enumerate(array.T)])
        else:
            return _images(array)
    if frame.is_empty():
        raise DataError(kind_of(source), "must have rows and columns", f"the shape {frame.shape}", "")
    return frame


def _from_columns(columns: Mapping[Any, Any]) -> pl.DataFrame:
    names = [str(name) for name in columns]
    check_unique(names, "dict of columns")
    series = [series_from(name, values) for name, values in zip(names, columns.values(), strict=True)]
    lengths = {column.name: len(column) for column in series}
    if len(set(lengths.values())) > 1:
        got = ", ".join(f"{length} in {name!r}" for name, length in list(lengths.items())[:10])
        raise DataError("dict of columns", "columns must have as many rows", got, "Check where rows were lost.")
    return pl.DataFrame(series)


def _images(array: NDArray[Any]) -> NDArray[np.uint8]:
    shape = f"the shape {array.shape}"
    if array.ndim not in (3, 4):
        rule = "must be [n, features], or images [n, height, width] or [n, channels, height, width]"
        raise DataError("array", rule, shape, "A single feature needs .reshape(-1, 1).")
    if array.dtype != np.uint8:
        fix = "Give the values 0 to 255 as uint8, or train with stoker.Trainer on tensors."
        raise InputTypeError("images", "must be uint8", f"{array.dtype} of {shape}", fix)
    if array.size == 0:
        raise DataError("images", "must not be empty", shape, "")
    if array.ndim == 4 and array.shape[1] > 4 and array.shape[3] in (1, 3, 4):
        fix = "Channels come before height and width: x.transpose(0, 3, 1, 2)."
        raise DataError("images", "must be [n, channels, height, width]", shape, fix)
    return array[:, None] if array.ndim == 3 else array


def _table(frame: pl.DataFrame, source: Any, target: str | None = None) -> Table:
    provenance = Provenance("data", kind_of(source), fingerprint_frame(frame), frame.height)
    return Table(frame, provenance, target=target)


def _provenance(source: Any, arrays: dict[str, NDArray[Any]]) -> Provenance:
    return Provenance("data", kind_of(source), fingerprint_arrays(arrays), len(arrays["images"]))
