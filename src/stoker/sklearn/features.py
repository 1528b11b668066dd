"""From what scikit-learn's users pass as ``X`` to raw tensors, and the encoder that standardises them.

An array of numbers, or a data frame of them, becomes one tensor as it stands. A data frame that holds anything else
(text, categories, dates) is read as Stoker reads tables: by :class:`stoker.data.columns.Columns`.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import narwhals as nw
import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import validate_data
from torch import Tensor

from stoker.data.columns import Columns, NumericColumn
from stoker.data.encoder import TableEncoder
from stoker.data.schema import Schema, infer_schema
from stoker.data.sources.frames import frame_from, kind_of
from stoker.errors import DataError, InputTypeError

__all__ = ["FeatureReader", "Features", "check_features", "fit_encoder", "mean_and_scale"]

Features: TypeAlias = "NDArray[np.floating[Any]] | pl.DataFrame"
Weights: TypeAlias = "NDArray[np.float64] | None"


def check_features(estimator: Any, X: Any, *, reader: FeatureReader | None = None) -> Features:
    """Check ``X`` as scikit-learn does, and convert it.

    Args:
        estimator: Given ``n_features_in_`` and ``feature_names_in_`` where there is no ``reader`` yet; else compared
            with them.
        X: An array-like ``[n, features]``, or a data frame that narwhals knows.
        reader: What read the rows that the estimator was fitted to.

    Returns:
        float32 or float64 ``[n, features]`` with NaN for missing values, or a polars data frame.

    Raises:
        DataError: An array holds text.
        ValueError: scikit-learn's own, such as for another number of features, or infinite values in an array.
        TypeError: scikit-learn's own, such as for sparse matrices.
        InputTypeError: The estimator was fitted to a data frame with other columns than numbers, and this is none.
        SchemaError: Two columns have the same name, or hold what are no values.
    """
    reset = reader is None
    if not (_holds_more_than_numbers(X) if reader is None else reader.schema is not None):
        dtypes = [np.float64, np.float32]
        try:
            checked = validate_data(estimator, X, reset=reset, dtype=dtypes, ensure_all_finite="allow-nan")
        except ValueError as error:
            if not str(error).startswith("could not convert string"):
                raise
            fix = "Text goes into a data frame, whose columns are encoded."
            raise DataError("X", "an array must hold numbers", str(error).partition(": ")[2], fix) from None
        return np.asarray(checked)
    if not nw.dependencies.is_into_dataframe(X):
        fix = "Make one of it, with the columns that fit was given."
        raise InputTypeError("X", "must be a data frame, as it was in fit", kind_of(X), fix)
    validate_data(estimator, X, reset=reset, skip_check_array=True)
    frame = frame_from(X)
    assert frame is not None
    return frame


def _holds_more_than_numbers(X: Any) -> bool:
    if not nw.dependencies.is_into_dataframe(X):
        return False
    dtypes = nw.from_native(X, eager_only=True).schema.dtypes()
    return not all(dtype.is_numeric() or dtype == nw.Boolean for dtype in dtypes)


@dataclass(frozen=True)
class FeatureReader:
    """Turns checked features into raw tensors.

    Attributes:
        columns: How each column is read.
        schema: What each column of a data frame is, and why; ``None`` for numbers alone.
    """

    columns: Columns
    schema: Schema | None

    @classmethod
    def fit(cls, X: Features, names: NDArray[Any] | None) -> FeatureReader:
        """Learn how to read features from training rows.

        In a data frame, numbers are numbers; what the other columns are is guessed (:mod:`stoker.data.kinds`). Warns of
        columns that are left out because nothing can be learnt from them.

        Args:
            X: The training rows, and no others.
            names: The columns' names, if they have any; those of a data frame are its own.

        Raises:
            SchemaError: There is no usable column.
            EncodingError: A value does not fit its column.
        """
        if not isinstance(X, pl.DataFrame):
            given = [f"x{place}" for place in range(X.shape[1])] if names is None else [str(name) for name in names]
            return cls(Columns(tuple(NumericColumn(name, "number") for name in given), ()), None)
        schema = infer_schema(X, numeric=[series.name for series in X if series.dtype.is_numeric()])
        columns = Columns.fit(X, schema)
        if left_out := [f"{column.name!r} ({column.reason})" for column in schema.columns if column.kind == "ignored"]:
            warnings.warn(f"X: columns left out: {'; '.join(left_out)}.", UserWarning, stacklevel=2)
        return cls(columns, schema)

    def read(self, X: Features) -> dict[str, Tensor]:
        """Raw tensors, as :meth:`stoker.data.columns.Columns.read` gives them.

        Raises:
            EncodingError: A value does not fit its column.
        """
        if isinstance(X, pl.DataFrame):
            return self.columns.read(X)
        return {"numeric": torch.from_numpy(np.require(X, requirements=["C", "W"]))}


def fit_encoder(
    raw: dict[str, Tensor],
    columns: Columns,
    weights: Weights,
    *,
    categories: Literal["auto", "embedding", "one-hot"],
) -> TableEncoder:
    """Fit the encoder, its means and standard deviations weighted as the samples are.

    Args:
        raw: The training rows.
        columns: What read them.
        weights: float64 ``[n]``, or ``None``.
        categories: See :meth:`stoker.data.encoder.TableEncoder.fit`.
    """
    encoder = TableEncoder.fit(raw, columns, categories=categories)
    if "numeric" in raw:
        mean, scale = mean_and_scale(raw["numeric"].numpy(), weights)
        encoder.mean.copy_(mean)
        encoder.std.copy_(scale)
    return encoder


def mean_and_scale(values: NDArray[Any], weights: Weights) -> tuple[Tensor, Tensor]:
    r"""Weighted means and standard deviations of columns, as scikit-learn's ``StandardScaler`` computes them.

    :math:`\mu = \sum w_i x_i / \sum w_i` and :math:`\sigma^2 = \sum w_i (x_i - \mu)^2 / \sum w_i`, so that a sample of
    weight 2 counts as the sample twice. (The unbiased :math:`\sigma`, over :math:`n - 1`, would depend on the weights'
    unit.)

    Args:
        values: ``[n, k]``, NaN for missing values.
        weights: ``[n]``, or ``None``.

    Returns:
        float64 ``[k]`` each; 0 and 1 where nothing is known, and a scale of 1 where nothing varies.
    """
    with np.errstate(divide="ignore", invalid="ignore"):  # of a column in which every value is missing
        scaler = StandardScaler().fit(values, sample_weight=weights)
    mean, scale = np.nan_to_num(scaler.mean_, nan=0.0), np.nan_to_num(scaler.scale_, nan=1.0)
    return torch.from_numpy(mean.astype(np.float64)), torch.from_numpy(scale.astype(np.float64))
