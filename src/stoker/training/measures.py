"""Which metrics a Trainer computes, and which of them compares epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from stoker.data.dataset import Task
from stoker.errors import ConfigError, InputTypeError
from stoker.metrics.registry import Direction, default_metrics, direction, entry_for

__all__ = ["Metrics", "check_metrics", "monitor_direction", "to_preds", "what_to_measure"]

Metrics: TypeAlias = Literal["auto"] | Sequence[str] | Mapping[str, Any]
"""``"auto"``, names, or a mapping as :class:`stoker.metrics.metric_set.MetricSet` takes it."""


def check_metrics(metrics: Metrics, task: Task | None) -> None:
    """Find what is wrong with a choice of metrics before there is anything to measure.

    Raises:
        InputTypeError: It is one text.
        UnknownNameError: A name is not that of a metric.
        ConfigError: A metric is of another task, or the task is not known.
    """
    if metrics == "auto":
        return
    if isinstance(metrics, str):
        raise InputTypeError("metrics", 'must be "auto", names or a mapping', repr(metrics), f'Write ["{metrics}"].')
    if len(metrics) and task is None:
        raise ConfigError("metrics", "need the task", "none", 'Say task="regression", "binary" or "multiclass".')
    for metric in metrics.values() if isinstance(metrics, Mapping) else metrics:
        if isinstance(metric, str) and task is not None:
            entry_for(metric, task)


def what_to_measure(
    metrics: Metrics, task: Task | None, outputs: Any, targets: Any
) -> tuple[Sequence[str] | Mapping[str, Any], Task, int] | None:
    """The metrics of a split, by its first batch.

    Args:
        metrics: As the user asked for; ``"auto"`` gives the task's, where they are defined for such outputs and
            targets: not for a class per pixel, for several labels a row, or for probabilities as targets.
        task: What the model is for; two classes make it binary.
        outputs: What the model returned.
        targets: What it should have.

    Returns:
        What :class:`stoker.metrics.metric_set.MetricSet` is made of: metrics, task and number of classes; ``None`` if
        there is nothing to measure.

    Raises:
        InputTypeError: Metrics were asked for, but the outputs or targets are not one tensor.
    """
    if task is None or not len(metrics) or (metrics == "auto" and not _defined(task, outputs, targets)):
        return None
    preds, _ = to_preds(outputs, targets, task)
    classes = 0 if task == "regression" else max(2, int(preds.shape[1]))
    if classes == 2:
        task = "binary"
    if metrics == "auto":
        return default_metrics(task, classes), task, classes
    return metrics if isinstance(metrics, Mapping) else tuple(metrics), task, classes


def _defined(task: Task, outputs: Any, targets: Any) -> bool:
    if not (isinstance(outputs, Tensor) and isinstance(targets, Tensor) and outputs.ndim in (1, 2)):
        return False
    if task == "regression":
        return targets.ndim <= 2 and not outputs.is_complex()
    one_logit = outputs.ndim == 1 or outputs.shape[1] == 1
    return targets.numel() == len(outputs) and (one_logit or not targets.is_floating_point())


def monitor_direction(name: str, metrics: Metrics) -> Direction:
    """Whether a monitored metric is better small or large.

    Args:
        name: ``"loss"`` or a metric's.
        metrics: As the user asked for.

    Raises:
        UnknownNameError: No metric is called that.
        ConfigError: It is the user's own, and does not say.
    """
    own = metrics.get(name) if isinstance(metrics, Mapping) else None
    if own is None or isinstance(own, str):
        return direction(own or name)
    larger_is_better: bool | None = getattr(own, "higher_is_better", None)
    if larger_is_better is None:
        raise ConfigError(
            "monitor",
            "must be a metric that says whether larger is better",
            f"valid_{name}",
            "Make it a torchmetrics.Metric with higher_is_better.",
        )
    return "max" if larger_is_better else "min"


def to_preds(outputs: Any, targets: Any, task: Task | None) -> tuple[Tensor, Tensor]:
    """Turn a model's outputs and the targets into what the metrics take.

    A single logit per row, as ``nn.BCEWithLogitsLoss`` wants it, becomes two: ``softmax([0, z])[1] = sigmoid(z)``.

    Raises:
        InputTypeError: The outputs or the targets are not one tensor.
    """
    if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
        got = f"outputs {type(outputs).__name__}, targets {type(targets).__name__}"
        raise InputTypeError("metrics", "need one tensor of outputs and one of targets", got, "Pass metrics=().")
    if task in {"binary", "multiclass"} and (outputs.ndim == 1 or outputs.shape[1] == 1):
        logits = outputs.reshape(-1, 1)
        return torch.cat([torch.zeros_like(logits), logits], dim=1), targets.reshape(-1).long()
    return outputs, targets
