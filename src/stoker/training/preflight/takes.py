"""What the known criteria take: logits, probabilities or values; and as targets classes, fractions or values."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch.nn.functional as F
from torch import nn

from stoker.training.criteria import MeanCrossEntropy, OnScaledTarget

__all__ = ["Takes", "inner_criterion", "what_it_takes"]


@dataclass(frozen=True)
class Takes:
    """What a criterion takes.

    Attributes:
        name: What the criterion is called.
        outputs: What the model's outputs must be.
        targets: ``"classes"`` are indices, ``"fractions"`` lie from 0 to 1.
        ignored: The class index that stands for no target, or ``None``.
        by_element: Whether each output is compared with the target in its place.
    """

    name: str
    outputs: Literal["logits", "scores", "probabilities", "log-probabilities", "values"]
    targets: Literal["classes", "fractions", "values"]
    ignored: int | None = None
    by_element: bool = True


def _classes(outputs: Literal["logits", "scores", "log-probabilities"], ignored: int | None = -100) -> Takes:
    return Takes("", outputs, "classes", ignored, by_element=False)


VALUES = Takes("", "values", "values")
KNOWN: dict[Any, Takes] = {
    nn.CrossEntropyLoss: _classes("logits"),
    F.cross_entropy: _classes("logits"),
    MeanCrossEntropy: _classes("logits"),
    nn.NLLLoss: _classes("log-probabilities"),
    F.nll_loss: _classes("log-probabilities"),
    nn.MultiMarginLoss: _classes("scores", None),
    F.multi_margin_loss: _classes("scores", None),
    nn.BCEWithLogitsLoss: Takes("", "logits", "fractions"),
    F.binary_cross_entropy_with_logits: Takes("", "logits", "fractions"),
    nn.MultiLabelSoftMarginLoss: Takes("", "logits", "fractions"),
    F.multilabel_soft_margin_loss: Takes("", "logits", "fractions"),
    nn.BCELoss: Takes("", "probabilities", "fractions"),
    F.binary_cross_entropy: Takes("", "probabilities", "fractions"),
    nn.KLDivLoss: Takes("", "log-probabilities", "values"),
    F.kl_div: Takes("", "log-probabilities", "values"),
    **dict.fromkeys((nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss, nn.PoissonNLLLoss), VALUES),
    **dict.fromkeys((F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss, F.poisson_nll_loss), VALUES),
}


def what_it_takes(criterion: Any) -> Takes | None:
    """What a criterion takes; ``None`` if it is not one of torch's or Stoker's, or computes something of its own.

    Args:
        criterion: A module, a function, or a ``functools.partial`` of one.
    """
    criterion = inner_criterion(criterion)
    settings: dict[str, Any] = {}
    if isinstance(criterion, functools.partial):
        if criterion.args:
            return None
        criterion, settings = criterion.func, criterion.keywords
    if isinstance(criterion, nn.Module):
        kind = next((kind for kind in KNOWN if isinstance(kind, type) and isinstance(criterion, kind)), None)
        if kind is None or type(criterion).forward is not vars(kind)["forward"]:
            return None
        settings = vars(criterion)
        known, name = KNOWN[kind], type(criterion).__name__
    else:
        found = _function(criterion)
        if found is None:
            return None
        known, name = found, criterion.__name__
    return replace(known, name=name, ignored=settings.get("ignore_index", known.ignored))


def inner_criterion(criterion: Any) -> Any:
    """The criterion that is computed on scaled targets, or the criterion itself."""
    return criterion.criterion if isinstance(criterion, OnScaledTarget) else criterion


def _function(criterion: Callable[..., Any]) -> Takes | None:
    try:
        return None if isinstance(criterion, type) else KNOWN.get(criterion)
    except TypeError:  # a callable object that cannot be hashed
        return None
