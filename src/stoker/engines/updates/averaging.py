"""The exponential moving average of weights, as a pure function."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from stoker.engines.updates.terms import moving_average

__all__ = ["average_weights", "averaging_weights"]


def averaging_weights(decay: float, updates: int, count: int) -> np.ndarray:
    """How much of the weights each of the next averagings takes.

    Args:
        decay: ``d``, from 0 up to, not including, 1.
        updates: How many were averaged before.
        count: How many follow.

    Returns:
        ``1 − d``, and 1 in the very first, which starts the average; float64 of shape ``[count]``.
    """
    weights = np.full(count, 1 - decay, dtype=np.float64)
    weights[: 1 if updates == 0 else 0] = 1.0
    return weights


def average_weights(averages: list[Tensor], parameters: list[Tensor], weight: Tensor) -> list[Tensor]:
    """``a ← a + w(θ − a)``, which gives θ exactly where ``w = 1``; nothing is changed in place.

    The numbers are those of :class:`stoker.training.average.WeightAverage`, where the source is.

    Args:
        averages: Before; before the first averaging, anything finite of the parameters' shapes and dtypes.
        parameters: The weights after an update.
        weight: One of :func:`averaging_weights`, 0-d, of the parameters' dtype.
    """
    return [moving_average(a, p, weight.to(p.dtype)) for a, p in zip(averages, parameters, strict=True)]
