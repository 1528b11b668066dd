"""The metrics that have a name: what each means, which tasks it serves, and how it is accumulated.

torchmetrics costs seconds to import, so nothing here imports it before a metric is built.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from stoker.errors import ConfigError, UnknownNameError

if TYPE_CHECKING:
    from torchmetrics import Metric

    from stoker.data.dataset import Task

__all__ = ["METRICS", "Direction", "MetricEntry", "check_task", "default_metrics", "direction", "entry_for", "lookup"]

Direction: TypeAlias = Literal["min", "max"]

_TASKS: tuple[Task, ...] = ("regression", "binary", "multiclass")
_TOP_K = re.compile(r"top([1-9][0-9]{0,5})_accuracy")


@dataclass(frozen=True)
class MetricEntry:
    """One metric.

    Attributes:
        name: What users write, and what reports show.
        tasks: The tasks it serves.
        direction: ``"min"`` if smaller is better, ``"max"`` if larger is.
        meaning: One line on what it says.
        state: What is accumulated for it; metrics of the same state share one, updated once a batch.
        build: Makes that state, given the number of classes (0 for regression).
        read: Turns the state's value (what its ``compute()`` returns) and the task into the metric.
    """

    name: str
    tasks: tuple[Task, ...]
    direction: Direction
    meaning: str
    state: str
    build: Callable[[int], Metric]
    read: Callable[[Any, Task], float]


def _squared_error(_n_classes: int) -> Metric:
    import torch
    from torchmetrics.regression import MeanSquaredError

    return MeanSquaredError(compute_with_cache=False).set_dtype(torch.float64)


def _absolute_error(_n_classes: int) -> Metric:
    import torch
    from torchmetrics.regression import MeanAbsoluteError

    return MeanAbsoluteError(compute_with_cache=False).set_dtype(torch.float64)


def _moments(_n_classes: int) -> Metric:
    from stoker.metrics.states import TargetMoments

    return TargetMoments()


def _class_counts(n_classes: int) -> Metric:
    from stoker.metrics.states import ClassCounts

    return ClassCounts(n_classes)


def _top_k_hits(n_classes: int, k: int) -> Metric:
    from stoker.metrics.states import TopKHits

    if k >= n_classes:
        raise ConfigError(
            f"metric 'top{k}_accuracy'",
            "must look at fewer classes than there are (with all of them it is always 1)",
            f"k = {k} with {n_classes} classes",
            f"Use a smaller k, such as 'top{max(1, n_classes - 1)}_accuracy'.",
        )
    return TopKHits(k)


def _log_loss(_n_classes: int) -> Metric:
    from stoker.metrics.states import LogLoss

    return LogLoss()


def _rows(_n_classes: int) -> Metric:
    from stoker.metrics.states import Rows

    return Rows()


def _number(value: Any, _task: Task) -> float:
    return float(value)


def _root(value: Any, _task: Task) -> float:
    # of the very number that is reported as the MSE, so that the two never differ in a bit
    return math.sqrt(float(value))


def _read_accuracy(value: Any, _task: Task) -> float:
    from stoker.metrics.scores import accuracy

    return accuracy(value)


def _read_f1(value: Any, task: Task) -> float:
    from stoker.metrics.scores import binary_f1, macro_f1

    return binary_f1(value) if task == "binary" else macro_f1(value)


def _read_auroc(value: Any, _task: Task) -> float:
    from stoker.metrics.scores import auroc

    preds, target = value
    return auroc(preds, target)


_REGRESSION: tuple[Task, ...] = ("regression",)
_CLASSIFICATION: tuple[Task, ...] = ("binary", "multiclass")

_ENTRIES = (
    MetricEntry("mse", _REGRESSION, "min", "mean squared error", "squared error", _squared_error, _number),
    MetricEntry("rmse", _REGRESSION, "min", "root of the mean squared error", "squared error", _squared_error, _root),
    MetricEntry("mae", _REGRESSION, "min", "mean absolute error", "absolute error", _absolute_error, _number),
    MetricEntry("r2", _REGRESSION, "max", "share of the target's variance explained", "moments", _moments, _number),
    MetricEntry(
        name="accuracy",
        tasks=_CLASSIFICATION,
        direction="max",
        meaning="share of rows put in their class",
        state="counts",
        build=_class_counts,
        read=_read_accuracy,
    ),
    MetricEntry(
        name="top3_accuracy",
        tasks=("multiclass",),
        direction="max",
        meaning="share of rows whose class is among the 3 highest logits (any number: top5_accuracy)",
        state="top 3",
        build=partial(_top_k_hits, k=3),
        read=_number,
    ),
    MetricEntry(
        name="f1",
        tasks=_CLASSIFICATION,
        direction="max",
        meaning="harmonic mean of precision and recall: of class 1 of two, else the mean over classes",
        state="counts",
        build=_class_counts,
        read=_read_f1,
    ),
    MetricEntry(
        name="auroc",
        tasks=_CLASSIFICATION,
        direction="max",
        meaning="chance that a row of the class outscores another: of class 1 of two, else the mean over classes",
        state="rows",
        build=_rows,
        read=_read_auroc,
    ),
    MetricEntry(
        "log_loss", _CLASSIFICATION, "min", "mean of -log(p of the true class)", "log loss", _log_loss, _number
    ),
)
METRICS: dict[str, MetricEntry] = {entry.name: entry for entry in _ENTRIES}
"""Every metric by name. ``top3_accuracy`` stands for any ``k``: ``top5_accuracy`` is found by :func:`lookup` too."""


def lookup(name: str) -> MetricEntry:
    """The metric of that name.

    Args:
        name: Such as ``"rmse"`` or ``"top5_accuracy"``.

    Raises:
        UnknownNameError: No metric is called that; the text lists those that are.
    """
    if name in METRICS:
        return METRICS[name]
    if match := _TOP_K.fullmatch(name):
        k = int(match[1])
        family = METRICS["top3_accuracy"]
        meaning = f"share of rows whose class is among the {k} highest logits"
        return replace(family, name=name, meaning=meaning, state=f"top {k}", build=partial(_top_k_hits, k=k))
    raise UnknownNameError("metric", name, METRICS)


def entry_for(name: str, task: Task) -> MetricEntry:
    """The metric of that name, if it serves the task.

    Args:
        name: As in :func:`lookup`.
        task: What the model is for.

    Raises:
        UnknownNameError: No metric is called that, or no task.
        ConfigError: The metric is of another task; the text lists those of this one.
    """
    check_task(task)
    entry = lookup(name)
    if task not in entry.tasks:
        valid = ", ".join(known.name for known in METRICS.values() if task in known.tasks)
        raise ConfigError(
            f"metric {name!r}", f"serves {' and '.join(entry.tasks)}", f"the task {task}", f"For {task}: {valid}."
        )
    return entry


def check_task(task: str) -> None:
    """Raise UnknownNameError unless ``task`` is one of the three."""
    if task not in _TASKS:
        raise UnknownNameError("task", task, _TASKS)


def direction(name: str) -> Direction:
    """Whether a metric is better small or large.

    Args:
        name: As in :func:`lookup`, or ``"loss"``.

    Returns:
        ``"min"`` or ``"max"``.

    Raises:
        UnknownNameError: No metric is called that.
    """
    if name == "loss":
        return "min"
    try:
        return lookup(name).direction
    except UnknownNameError:
        raise UnknownNameError("metric", name, ["loss", *METRICS]) from None


def default_metrics(task: Task, n_classes: int = 0) -> tuple[str, ...]:
    """What is measured when nothing else was asked for.

    Args:
        task: What the model is for.
        n_classes: How many classes there are; of no matter for regression.

    Returns:
        Names of metrics. ``top3_accuracy`` is among them only from five classes on: of three it is always 1, of
        four it is nearly.

    Raises:
        UnknownNameError: No task is called that.
    """
    check_task(task)
    if task == "regression":
        return ("mse", "rmse", "mae", "r2")
    if task == "binary":
        return ("accuracy", "f1", "auroc", "log_loss")
    top = ("top3_accuracy",) if n_classes >= 5 else ()
    return ("accuracy", *top, "f1", "auroc", "log_loss")
