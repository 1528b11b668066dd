"""How much each sample counts: ``sample_weight`` and ``class_weight``."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Number
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_array

from stoker.data.kinds import shorten
from stoker.errors import ConfigError, DataError, UnknownNameError
from stoker.sklearn.labels import Labels

__all__ = ["check_weights", "class_weights"]


def check_weights(sample_weight: Any, rows: int) -> NDArray[np.float64] | None:
    """Check the samples' weights.

    Args:
        sample_weight: ``[n]``, a number, or ``None``.
        rows: n.

    Returns:
        float64 ``[n]``; ``None`` if none were given.

    Raises:
        DataError: They are not one for each row, negative, or all zero.
    """
    if sample_weight is None:
        return None
    given = np.full(rows, sample_weight) if isinstance(sample_weight, Number) else sample_weight
    weights = np.asarray(check_array(given, ensure_2d=False, dtype=np.float64, input_name="sample_weight"))
    if weights.shape != (rows,):
        raise DataError("sample_weight", f"must have one weight for each of {rows} samples", list(weights.shape))
    if (weights < 0).any():
        row = int((weights < 0).argmax())
        raise DataError(f"sample_weight, row {row}", "must not be negative", weights[row], "Use 0 to leave a row out.")
    if not weights.any():
        raise DataError("sample_weight", "must not be zero for all samples", "zero weights alone")
    return weights


def class_weights(
    class_weight: Any, labels: Labels, codes: NDArray[np.int64], weights: NDArray[np.float64] | None
) -> NDArray[np.float64] | None:
    r"""What each sample counts by its class; with several outputs, the product over these.

    ``"balanced"`` gives every class the same say: :math:`\sum_i w_i / (K \sum_{i: y_i = c} w_i)` for class :math:`c` of
    :math:`K`, which without weights is scikit-learn's ``n / (K · count)``.

    Args:
        class_weight: ``None``, ``"balanced"``, or a dict from class to weight (of several outputs a list of dicts);
            classes that are not in it have weight 1.
        labels: The classes.
        codes: ``[n, outputs]``, each sample's place among them.
        weights: The samples' own weights.

    Returns:
        float64 ``[n]``; ``None`` if no ``class_weight`` was given.

    Raises:
        ConfigError: ``class_weight`` is none of these, or a weight is negative.
        UnknownNameError: It names a class that there is not.
    """
    if class_weight is None:
        return None
    several = labels.several and not isinstance(class_weight, str)
    listed = list(class_weight) if several else [class_weight] * len(labels.classes)
    if len(listed) != len(labels.classes):
        raise ConfigError("class_weight", f"must be {len(labels.classes)} dicts, one for each output", len(listed))
    product = np.ones(len(codes))
    for place, (given, classes) in enumerate(zip(listed, labels.classes, strict=True)):
        product *= _by_class(given, classes, codes[:, place], weights)[codes[:, place]]
    return product


def _by_class(
    given: Any, classes: NDArray[Any], codes: NDArray[np.int64], weights: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    if isinstance(given, str) and given == "balanced":
        counts = np.bincount(codes, weights, minlength=len(classes)).astype(np.float64)
        present = counts > 0
        balanced = np.zeros(len(classes))
        balanced[present] = counts.sum() / (present.sum() * counts[present])
        return balanced
    if not isinstance(given, Mapping):
        fix = 'Such as {"rare": 10, "usual": 1}.'
        raise ConfigError("class_weight", 'must be "balanced", a dict from class to weight, or None', repr(given), fix)
    known = classes.tolist()
    if strange := [label for label in given if label not in known]:
        raise UnknownNameError("class_weight", shorten(strange[0]), [str(label) for label in known])
    by_class = np.array([float(given.get(label, 1.0)) for label in known])
    if (by_class < 0).any() or not by_class.any():
        raise ConfigError("class_weight", "must not be negative, nor all zero", dict(given))
    return by_class
