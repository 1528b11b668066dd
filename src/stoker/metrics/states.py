"""What is accumulated over the batches, where torchmetrics' own would not give the right number.

Each is a ``torchmetrics.Metric``, so resetting, devices and merging over processes are torchmetrics' affair. This file
imports torchmetrics; :mod:`stoker.metrics.registry` imports it only when a metric is built. Why these are not
torchmetrics' own (1.9):

- ``R2Score`` takes a target whose squared distances sum to less than 1e-4 for constant, and loses the digits of one
  that is far from zero.
- ``MulticlassAccuracy`` and ``MulticlassF1Score`` divide in float32; they count all pairs of classes, and under
  ``torch.use_deterministic_algorithms`` build a ``[rows, classes²]`` tensor to do so.
- ``BinaryAUROC`` guesses batch by batch whether it was given logits; a class that does not occur counts as 0.
- There is no log loss.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from stoker.metrics.scores import r2

__all__ = ["ClassCounts", "LogLoss", "Rows", "TargetMoments", "TopKHits", "merge_moments"]


class _State(Metric):
    full_state_update = False

    def __init__(self) -> None:
        # A cached result would keep a second copy of the rows alive.
        super().__init__(compute_with_cache=False)


class ClassCounts(_State):
    """Per class: the rows put in it rightly, all rows put in it, and the rows that are of it.

    Args:
        n_classes: How many classes there are.
    """

    counts: Tensor
    undefined: Tensor

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.add_state("counts", torch.zeros(3, n_classes, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("undefined", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Count a batch: logits ``[n, n_classes]``, int64 target ``[n]``."""
        highest, predicted = preds.max(dim=1)
        # wrong rows are counted in a class too many, and that is cut off
        right = torch.where(predicted == target, target, self.n_classes)
        size = self.n_classes + 1
        batch = torch.stack([torch.bincount(labels, minlength=size) for labels in (right, predicted, target)])
        self.counts += batch[:, : self.n_classes]
        self.undefined += highest.isnan().sum()  # the maximum of a row with a NaN is NaN

    def compute(self) -> Tensor:
        """The counts, int64, shape ``[3, n_classes]``; all NaN if a logit was."""
        return torch.full_like(self.counts, torch.nan, dtype=torch.float64) if self.undefined else self.counts


class TopKHits(_State):
    """The share of rows whose class is among the ``k`` highest logits.

    Args:
        k: At least 1.
    """

    hits: Tensor
    rows: Tensor
    undefined: Tensor

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k
        for name in ("hits", "rows", "undefined"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Count a batch: logits ``[n, n_classes]``, int64 target ``[n]``."""
        highest, classes = preds.topk(self.k, dim=1)
        self.hits += (classes == target[:, None]).sum()
        self.rows += len(target)
        self.undefined += highest[:, 0].isnan().sum()  # a NaN ranks above all numbers

    def compute(self) -> Tensor:
        """The share, float64; NaN if a logit was."""
        share = self.hits.double() / self.rows
        return torch.full_like(share, torch.nan) if self.undefined else share


class LogLoss(_State):
    """The mean of ``-log softmax(logits)[target]``, in float64."""

    total: Tensor
    rows: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("rows", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch: logits ``[n, n_classes]``, int64 target ``[n]``."""
        self.total += F.cross_entropy(preds.double(), target, reduction="sum")
        self.rows += len(target)

    def compute(self) -> Tensor:
        """The mean over rows, float64."""
        return self.total / self.rows


def merge_moments(parts: Tensor) -> Tensor:
    """Merge the moments of several sets of rows into those of their union.

    Args:
        parts: float64, shape ``[sets, 4, outputs]``: rows, mean of the target, sum of its squared distances from that
            mean, sum of squared errors. A set may be empty (all zeros), but not every one.

    Returns:
        The same four of the union, shape ``[4, outputs]``.

    Source: Chan, Golub and LeVeque, Updating formulae and a pairwise algorithm for computing sample variances (1979).
    It keeps the digits that ``Σy² - (Σy)²/n`` loses when the mean is large.
    """
    n, mean, spread, error = parts.unbind(dim=1)
    rows = n.sum(dim=0)
    middle = (n * mean).sum(dim=0) / rows
    merged = (spread + n * (mean - middle).square()).sum(dim=0)
    return torch.stack([rows, middle, merged, error.sum(dim=0)])


class TargetMoments(_State):
    """What the coefficient of determination takes: the target's moments and the squared errors, per output."""

    moments: Tensor

    def __init__(self) -> None:
        super().__init__()
        # one output until the first batch says how many
        self.add_state("moments", torch.zeros(4, 1, dtype=torch.float64), dist_reduce_fx=merge_moments)

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch: float64, ``[n]`` or ``[n, outputs]``, of the same shape."""
        preds, target = preds.reshape(len(preds), -1), target.reshape(len(target), -1)
        mean = target.mean(dim=0)
        spread = (target - mean).square().sum(dim=0)
        error = (target - preds).square().sum(dim=0)
        batch = torch.stack([torch.full_like(mean, len(target)), mean, spread, error])
        self.moments = merge_moments(torch.stack([self.moments.expand_as(batch), batch]))

    def compute(self) -> Tensor:
        """The coefficient of determination, float64; see :func:`stoker.metrics.scores.r2`."""
        return torch.tensor(r2(self.moments), dtype=torch.float64)


class Rows(_State):
    """All rows, as they came, for what can only be computed from all of them at once."""

    preds: list[Tensor]
    target: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("preds", [], dist_reduce_fx="cat")
        self.add_state("target", [], dist_reduce_fx="cat")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Keep a batch. A copy of it: its memory may be the output buffer of a compiled program."""
        self.preds.append(preds.clone())
        self.target.append(target.clone())

    def compute(self) -> tuple[Tensor, Tensor]:
        """All rows in one tensor each; of a single number, no dimension is left (torchmetrics squeezes those)."""
        return dim_zero_cat(self.preds), dim_zero_cat(self.target)
