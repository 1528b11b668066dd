"""Metrics as pure functions of what was accumulated. What is not defined is NaN: never 0, and never a warning."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["accuracy", "auroc", "binary_f1", "macro_f1", "r2", "separation"]


def accuracy(counts: Tensor) -> float:
    """The share of rows put in their class.

    Args:
        counts: Shape ``[3, n_classes]``: per class the rows put in it rightly, all rows put in it, and the rows that
            are of it. Any dtype; NaN where the predictions were NaN.
    """
    correct, _, actual = counts.double().sum(dim=1).tolist()
    return correct / actual if actual else math.nan


def _f1_by_class(counts: Tensor) -> Tensor:
    # 2·tp / (2·tp + fp + fn), in which tp + fp are the rows put in the class and tp + fn those that are of it;
    # 0/0, a class that is neither there nor predicted, is NaN as it should be
    correct, predicted, actual = counts.double()
    return torch.div(2 * correct, predicted + actual)


def binary_f1(counts: Tensor) -> float:
    """F1 of class 1. NaN if no row is of it and none was put in it.

    Args:
        counts: As for :func:`accuracy`, of two classes.
    """
    return float(_f1_by_class(counts)[1])


def macro_f1(counts: Tensor) -> float:
    """The mean of each class's F1, over the classes that occur in the target or the predictions, as in scikit-learn.

    Args:
        counts: As for :func:`accuracy`.
    """
    if bool(counts.isnan().any()):
        return math.nan
    return float(_f1_by_class(counts).nanmean())


def r2(moments: Tensor) -> float:
    """The coefficient of determination, ``1 - Σ(y - ŷ)² / Σ(y - ȳ)²``; of several outputs, the mean.

    Args:
        moments: float64, shape ``[4, outputs]``: per output the number of rows, the target's mean, the sum of its
            squared distances from that mean, and the sum of squared errors.

    Returns:
        NaN for fewer than two rows and for a target that is constant, where nothing is there to be explained.
        (scikit-learn says 0 or 1 of a constant target.)
    """
    n, mean, spread, error = moments
    # The mean of equal numbers is off by some last bits, and `spread` then by the square of that.
    constant = spread <= n * (16 * torch.finfo(torch.float64).eps * mean).square()
    score = 1 - error / spread
    return float(torch.where(constant | (n < 2), math.nan, score).mean())


def separation(scores: Tensor, positive: Tensor) -> float:
    """The chance that a positive row scores above a negative one, ties counting half: the area under the ROC curve.

    By the Mann-Whitney identity the area is a number of pairs divided by a number of pairs. Both are counted in
    integers, so the result is exact, whatever the order of the rows.

    Args:
        scores: float64, shape ``[n]``.
        positive: bool, shape ``[n]``.

    Returns:
        A number in ``[0, 1]``; NaN if there is no positive row, no negative one, or a score is NaN.

    Source: Hanley and McNeil, The meaning and use of the area under a ROC curve, Radiology 143 (1982).
    """
    above, below = scores[positive], scores[~positive].sort().values
    pairs = above.numel() * below.numel()
    if pairs == 0 or bool(scores.isnan().any()):
        return math.nan
    won = torch.searchsorted(below, above).sum()
    won_or_tied = torch.searchsorted(below, above, right=True).sum()
    return int(won + won_or_tied) / (2 * pairs)


def auroc(preds: Tensor, target: Tensor) -> float:
    """The area under the ROC curve: of class 1 of two, otherwise the mean of each class against the rest.

    Args:
        preds: Logits, shape ``[n, n_classes]``.
        target: int64, shape ``[n]``.

    Returns:
        NaN if it is undefined: of two classes only one occurs, or a logit is NaN. Of more than two classes, those
        that do not occur are left out of the mean, for they have no curve.
    """
    n_classes = preds.shape[1]
    if n_classes == 2:
        # Ranks the rows as their probabilities do, also where those are too near 1 to be told apart.
        return separation(preds[:, 1].double() - preds[:, 0].double(), target == 1)
    # A block of rows at a time: the whole in float64 may be more than the device has left.
    normaliser = torch.cat([block.double().logsumexp(dim=1) for block in torch.split(preds, 65_536)])
    present = [index for index, count in enumerate(torch.bincount(target, minlength=n_classes).tolist()) if count]
    if len(present) < 2:
        return math.nan
    areas = [separation(preds[:, index].double() - normaliser, target == index) for index in present]
    return math.fsum(areas) / len(areas)
