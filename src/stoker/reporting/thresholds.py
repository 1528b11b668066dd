"""ROC and precision-recall curves, with as many points as can be seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Curve", "precision_recall", "roc"]

_MOST_POINTS = 200


@dataclass(frozen=True)
class Curve:
    """A curve in the unit square.

    Attributes:
        x, y: float64 ``[points]``.
        area: Under the ROC curve; of a precision-recall curve the average precision.
        base: What guessing gives: 0.5, or the share of positive rows.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    area: float
    base: float


def roc(scores: Any, positive: Any) -> Curve | None:
    """The share of positive rows above a threshold, by that of negative ones, for every threshold.

    Args:
        scores: ``[n]``, higher for what is more likely positive.
        positive: bool ``[n]``.

    Returns:
        The curve; ``None`` if not both kinds of rows occur, for then it has no meaning.
    """
    from sklearn.metrics import roc_auc_score, roc_curve

    if len(np.unique(positive)) < 2 or not np.isfinite(scores).all():
        return None
    false_rate, true_rate, _ = roc_curve(positive, scores)
    return Curve(*_thinned(false_rate, true_rate), float(roc_auc_score(positive, scores)), 0.5)


def precision_recall(scores: Any, positive: Any) -> Curve | None:
    """Precision by recall, for every threshold; arguments and result as for :func:`roc`."""
    from sklearn.metrics import average_precision_score, precision_recall_curve

    if len(np.unique(positive)) < 2 or not np.isfinite(scores).all():
        return None
    precision, recall, _ = precision_recall_curve(positive, scores)
    area = float(average_precision_score(positive, scores))
    return Curve(*_thinned(recall[::-1], precision[::-1]), area, float(np.mean(positive)))


def _thinned(x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points spread evenly along the curve's length, the ends among them."""
    if len(x) > _MOST_POINTS:
        length = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
        kept = np.unique(np.searchsorted(length, np.linspace(0, length[-1], _MOST_POINTS)).clip(0, len(x) - 1))
        x, y = x[kept], y[kept]
    return np.asarray(x, np.float64), np.asarray(y, np.float64)
