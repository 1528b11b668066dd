"""Criteria by name, what task a criterion belongs to, and criteria that torch lacks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stoker.data.dataset import Task
from stoker.errors import ConfigError, InputTypeError, UnknownNameError

__all__ = [
    "Criterion",
    "MeanCrossEntropy",
    "OnScaledTarget",
    "balanced_weights",
    "build_criterion",
    "compares_elements",
    "task_of",
    "unreduced",
]

Criterion: TypeAlias = Callable[[Any, Any], Tensor]
"""``(outputs, targets)`` to a 0-d loss, a mean over the batch's samples."""


class MeanCrossEntropy(nn.Module):
    """Cross-entropy as a mean over samples, also with class weights: ``(1/n) Σ w[y_i]·CE(logits_i, y_i)``.

    ``nn.CrossEntropyLoss(weight=w)`` divides by ``Σ w[y_i]`` instead, so that a batch's loss depends on which classes
    fell into it, and an epoch's loss on the batch size. Without weights the two are equal.

    Args:
        weight: One per class, or ``None``.
        label_smoothing: The part of each target's mass that is spread evenly over all classes (Szegedy et al., 2016,
            arXiv:1512.00567, section 7).

    Raises:
        ConfigError: A weight is negative, all are zero, or the smoothing is not in ``[0, 1)``.
    """

    weight: Tensor | None

    def __init__(self, weight: Sequence[float] | Tensor | None = None, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ConfigError("label_smoothing", "must be from 0 up to, not including, 1", label_smoothing)
        values = None if weight is None else torch.as_tensor(weight, dtype=torch.float32)
        if values is not None and (not bool((values >= 0).all()) or not bool((values > 0).any())):
            raise ConfigError("class_weights", "must not be negative, nor all zero", values.tolist())
        self.register_buffer("weight", values)
        self.label_smoothing = label_smoothing
        self.reduction = "mean"

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Logits ``[n, classes]``, target int64 ``[n]`` → 0-d, or ``[n]`` where the reduction is ``"none"``."""
        if self.weight is None:
            return F.cross_entropy(logits, target, label_smoothing=self.label_smoothing, reduction=self.reduction)
        losses = F.cross_entropy(logits, target, reduction="none", label_smoothing=self.label_smoothing)
        losses = losses * self.weight[target]
        return losses if self.reduction == "none" else losses.mean()


class OnScaledTarget(nn.Module):
    """A regression criterion in units of the target's standard deviation, for a model that predicts in its own.

    ``criterion((outputs − mean)/std, (targets − mean)/std)``: the learning rate then does not depend on whether prices
    are in euros or in millions, and predictions need no undoing.

    Args:
        criterion: What is computed on the scaled values.
        mean: Of the training targets, shape ``[k]``.
        std: Of the training targets, shape ``[k]``.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, criterion: Criterion, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.criterion = criterion
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Outputs and targets ``[n, k]`` in the target's unit → 0-d, without unit."""
        loss: Tensor = self.criterion((outputs - self.mean) / self.std, (targets - self.mean) / self.std)
        return loss


CRITERIA: dict[str, tuple[Callable[[], nn.Module], tuple[Task, ...]]] = {
    "mse": (nn.MSELoss, ("regression",)),
    "mae": (nn.L1Loss, ("regression",)),
    "huber": (nn.HuberLoss, ("regression",)),
    "cross-entropy": (MeanCrossEntropy, ("binary", "multiclass")),
}


def build_criterion(
    name: str, task: Task, *, class_weights: Sequence[float] | None = None, label_smoothing: float = 0.0
) -> nn.Module:
    """A criterion by name.

    Args:
        name: ``"auto"`` (mean squared error for regression, cross-entropy for classes) or one of :data:`CRITERIA`.
        task: What it is for.
        class_weights: One weight per class; for cross-entropy.
        label_smoothing: For cross-entropy.

    Raises:
        UnknownNameError: No criterion has that name.
        ConfigError: It is for another task, or takes no class weights or label smoothing.
    """
    if name == "auto":
        name = "mse" if task == "regression" else "cross-entropy"
    if name not in CRITERIA:
        raise UnknownNameError("loss", name, ["auto", *CRITERIA])
    build, tasks = CRITERIA[name]
    if task not in tasks:
        fitting = [known for known, (_, its) in CRITERIA.items() if task in its]
        raise ConfigError("loss", f"must be one for {task}", repr(name), f"For {task}: {', '.join(fitting)}.")
    if name == "cross-entropy":
        return MeanCrossEntropy(class_weights, label_smoothing)
    if class_weights is not None or label_smoothing:
        what = "class_weights" if class_weights is not None else "label_smoothing"
        raise ConfigError(what, "is for classification", f"task {task}", "Leave it out.")
    return build()


def balanced_weights(labels: Tensor, classes: int) -> list[float]:
    """Weights that give every class the same say: ``n / (classes · count)``, as scikit-learn's ``"balanced"``.

    Args:
        labels: int64, shape ``[n]``, of the training split.
        classes: How many classes there are; one without rows gets weight 0.
    """
    counts = torch.bincount(labels, minlength=classes).double()
    weights = torch.where(counts > 0, len(labels) / (classes * counts.clamp(min=1)), torch.zeros_like(counts))
    return [float(weight) for weight in weights]


def task_of(criterion: Any) -> Task | None:
    """The task a criterion is for, so that metrics can be chosen; ``None`` if it is not one of the known kinds."""
    if isinstance(criterion, OnScaledTarget):
        return task_of(criterion.criterion)
    if isinstance(criterion, (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss)):
        return "regression"
    if isinstance(criterion, (MeanCrossEntropy, nn.CrossEntropyLoss, nn.NLLLoss)):
        return "multiclass"
    return "binary" if isinstance(criterion, nn.BCEWithLogitsLoss) else None


BY_ELEMENT = (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss, nn.BCEWithLogitsLoss)


def compares_elements(criterion: Any) -> bool:
    """Whether a criterion is known to compare outputs with targets element by element, so that they must be alike."""
    return isinstance(criterion.criterion if isinstance(criterion, OnScaledTarget) else criterion, BY_ELEMENT)


def unreduced(criterion: Any) -> Callable[[Any, Any], Tensor]:
    """The criterion without its mean: a loss for each element or sample.

    Args:
        criterion: One of torch's, or any module with a ``reduction``. It is not changed.

    Raises:
        InputTypeError: It has no ``reduction``.
    """
    if isinstance(criterion, OnScaledTarget):
        inner: Any = unreduced(criterion.criterion)
        return OnScaledTarget(inner, criterion.mean, criterion.std)
    if not isinstance(criterion, nn.Module) or not isinstance(getattr(criterion, "reduction", None), str):
        raise InputTypeError(
            "sample_weight",
            'needs a criterion with a reduction, so that it can be "none"',
            getattr(criterion, "__name__", type(criterion).__name__),
            "Use one of torch's, or weigh the samples within your own.",
        )
    single = copy.copy(criterion)  # shares the buffers, and is moved with them
    single.reduction = "none"  # type: ignore[assignment]  # mypy knows modules' attributes as tensors
    return single
