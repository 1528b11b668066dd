"""Whether a probability of 80 % is right four times out of five, and a temperature that makes it more so.

Sources: Guo, Pleiss, Sun and Weinberger, On Calibration of Modern Neural Networks (ICML 2017), for both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stoker.errors import DataError

__all__ = ["BINS", "Calibration", "calibration", "fit_temperature", "probabilities"]

BINS = 15
_COLDEST, _HOTTEST = 0.05, 20.0


@dataclass(frozen=True)
class Calibration:
    """Probabilities beside what came of them, in bins of equal width; bins without rows are left out.

    Attributes:
        mean: ``[bins]``: the mean probability in each.
        share: ``[bins]``: how often it came true.
        count: ``[bins]``: of how many rows.
        error: The expected calibration error, ``Σ count/n · |share - mean|``.
    """

    mean: NDArray[np.float64]
    share: NDArray[np.float64]
    count: NDArray[np.int64]
    error: float


def probabilities(logits: Any, temperature: float = 1.0) -> NDArray[np.float64]:
    """``softmax(logits / temperature)`` in float64, ``[n, n_classes]``."""
    scaled = np.asarray(logits, np.float64) / temperature
    with np.errstate(over="ignore", invalid="ignore"):  # of what is not finite, or nearly not
        raised = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def calibration(logits: Any, target: Any, *, bins: int = BINS, temperature: float = 1.0) -> Calibration:
    """Compare probabilities with frequencies.

    Of two classes it is the probability of the second, beside how often that class is the true one; of more, that of
    the class predicted, beside how often it is right (the *confidence*).

    Args:
        logits: ``[n, n_classes]``.
        target: Class indices ``[n]``.
        bins: How many of equal width, from 0 to 1.
        temperature: The logits are divided by it.

    Raises:
        DataError: There are no rows, or a logit is not finite.
    """
    scores, true = np.asarray(logits, np.float64), np.asarray(target)
    if not len(true) or not np.isfinite(scores).all():
        raise DataError("calibration", "needs rows with finite outputs", "none" if not len(true) else "NaN or infinity")
    table = probabilities(scores, temperature)
    if table.shape[1] == 2:
        said, came = table[:, 1], true == 1
    else:
        said, came = table.max(axis=1), table.argmax(axis=1) == true
    places = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], said)
    count = np.bincount(places, minlength=bins)
    filled = count > 0
    mean = np.bincount(places, said, bins)[filled] / count[filled]
    share = np.bincount(places, came, bins)[filled] / count[filled]
    error = float((count[filled] * np.abs(share - mean)).sum() / len(true))
    return Calibration(mean, share, count[filled], error)


def fit_temperature(logits: Any, target: Any) -> float:
    """The temperature with the least log loss; one number, so that which class is predicted does not change.

    The log loss is convex in its inverse. It is kept within 0.05 and 20: if every row is right, the colder the better.

    Args:
        logits: ``[n, n_classes]``, of rows that the model was not trained on.
        target: Class indices ``[n]``.

    Raises:
        DataError: There are no rows, or a logit is not finite.
    """
    from scipy.optimize import minimize_scalar

    scores, true = np.asarray(logits, np.float64), np.asarray(target)
    if not len(true) or not np.isfinite(scores).all():
        raise DataError("temperature", "needs rows with finite outputs", "none" if not len(true) else "NaN or infinity")
    far = scores - scores.max(axis=1, keepdims=True)
    own = far[np.arange(len(true)), true]

    def log_loss(log_inverse: float) -> float:
        inverse = np.exp(log_inverse)
        return float((np.log(np.exp(inverse * far).sum(axis=1)) - inverse * own).mean())

    found = minimize_scalar(
        log_loss, bounds=(np.log(1 / _HOTTEST), np.log(1 / _COLDEST)), method="bounded", options={"xatol": 1e-7}
    )
    return float(np.exp(-found.x))
