"""The rows that an estimator is trained on, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stoker.sklearn.features import Features

__all__ = ["Samples"]


@dataclass(frozen=True, eq=False)
class Samples:
    """Checked rows to train on.

    Attributes:
        X: The features.
        y: ``[n, outputs]``: class codes (int64) or numbers (float64).
        weights: The samples' own, ``[n]``, none of them 0; or ``None``.
        losses: What weighs the samples' losses, class weights included, with a mean of 1 over all rows of ``fit``; or
            ``None``.
    """

    X: Features
    y: NDArray[Any]
    weights: NDArray[np.float64] | None
    losses: NDArray[np.float64] | None

    def __len__(self) -> int:
        return len(self.y)

    def take(self, rows: NDArray[Any]) -> Samples:
        """Some of the rows."""
        return Samples(
            self.X[rows],
            self.y[rows],
            None if self.weights is None else self.weights[rows],
            None if self.losses is None else self.losses[rows],
        )
