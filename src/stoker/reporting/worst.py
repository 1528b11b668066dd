"""The rows that a model got most wrong: where to look for wrong labels, odd values and what it has not learnt."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stoker.reporting.calibration import probabilities

__all__ = ["most_wrong"]


def most_wrong(outputs: Any, target: Any, *, regression: bool, most: int = 12) -> NDArray[np.int64]:
    """The rows with the largest errors, the worst first; equal ones in the rows' order.

    Args:
        outputs: Predictions ``[n, 1]``, or logits ``[n, n_classes]``.
        target: ``[n, 1]``, or class indices ``[n]``.
        regression: By the absolute error; else by how improbable the true class was held to be, and of the rows that
            are in a wrong class alone.
        most: How many at most.

    Returns:
        Row numbers, from 0. Rows whose outputs are not finite come first.
    """
    preds, true = np.asarray(outputs, np.float64), np.asarray(target)
    if regression:
        error = np.abs(preds.reshape(len(true)) - true.reshape(len(true)))
        candidates = np.arange(len(true))
    else:
        # in the tail probabilities are 0 throughout, and their order lost: by logits, then
        largest = preds.max(axis=1)
        error = largest - preds[np.arange(len(true)), true] + np.log(1 / probabilities(preds).max(axis=1))
        candidates = np.flatnonzero((preds.argmax(axis=1) != true) | ~np.isfinite(error))
    error = np.where(np.isfinite(error), error, np.inf)[candidates]
    return candidates[np.argsort(-error, kind="stable")[:most]].astype(np.int64)
