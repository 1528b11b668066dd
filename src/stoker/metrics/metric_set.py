"""Several metrics, accumulated together over the batches of a split."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from stoker.errors import ConfigError, DataError, InputTypeError
from stoker.metrics.registry import Direction, MetricEntry, check_task, entry_for

if TYPE_CHECKING:
    from torchmetrics import Metric

    from stoker.data.dataset import Task

__all__ = ["MetricFunction", "MetricSet", "accumulation_device"]

MetricFunction: TypeAlias = Callable[[Tensor, Tensor], Any]


def accumulation_device(device: torch.device | str) -> torch.device:
    """Where metrics of predictions made on ``device`` are accumulated.

    Args:
        device: Where the model is.

    Returns:
        The same device if it computes in float64, otherwise the CPU.
    """
    device = torch.device(device)
    if device.type == "mps" or (device.type == "xpu" and not torch.xpu.get_device_properties(device).has_fp64):
        return torch.device("cpu")
    return device


class MetricSet:
    """Metrics over a split: fed batch by batch, computed once.

    State is accumulated and then computed; no value is ever a mean of batch values, so it makes no difference how the
    rows were batched. Metrics that need the same things share them. No random number is drawn.

    What is not defined is NaN, without a warning: R² of a constant target, AUROC of a single class, F1 of a class that
    is neither there nor predicted, and each of the named metrics if one prediction is NaN (a prediction of an infinite
    value gives what arithmetic gives). AUROC and F1 of several classes are means over the classes that occur.

    Args:
        metrics: Names, as in :data:`stoker.metrics.registry.METRICS`; or a mapping from the user's own names to such
            names, to ``torchmetrics.Metric`` objects or to functions ``(preds, target) -> number``. A Metric is
            copied, and gets the batches as :meth:`update` does. A function is called once, by :meth:`compute`, with
            all rows on the CPU.
        task: What the model is for.
        n_classes: How many classes there are; of no matter for regression.
        device: Where the predictions will be. State is kept there, or on the CPU if it has no float64.
        shared: Whether each process of torch's process group is fed a share of the rows. :meth:`compute` then waits for
            all of them, and gives each the metrics over all rows. Else processes have nothing to do with each other.

    Raises:
        UnknownNameError: A name is not that of a metric, or of a task.
        ConfigError: A metric does not serve the task, is named twice, or is called ``loss``; ``n_classes`` does not
            fit the task.
        InputTypeError: ``metrics`` is something else.
    """

    def __init__(
        self,
        metrics: Iterable[str] | Mapping[str, str | Metric | MetricFunction],
        task: Task,
        n_classes: int = 0,
        device: torch.device | str = "cpu",
        shared: bool = False,
    ) -> None:
        check_task(task)
        if task != "regression" and (n_classes < 2 or (task == "binary" and n_classes != 2)):
            rule = "must be 2 for the task binary" if task == "binary" else "must be at least 2 for classification"
            raise ConfigError("n_classes", rule, n_classes)
        self.task: Task = task
        self.n_classes = n_classes
        self.device = accumulation_device(device)
        self._rows = 0
        self._outputs: tuple[int, ...] = ()
        self._entries: dict[str, MetricEntry] = {}
        self._functions: dict[str, MetricFunction] = {}
        self._own: dict[str, Metric] = {}
        self._states: dict[str, Metric] = {}
        chosen = _by_name(metrics)
        for name, metric in chosen.items():
            self._add(name, metric)
        self.names = tuple(chosen)
        for state in (*self._states.values(), *self._own.values()):
            state.sync_on_compute = shared  # torchmetrics would wait for all processes wherever there is a group

    def _add(self, name: str, metric: object) -> None:
        from torchmetrics import Metric

        if isinstance(metric, str):
            entry = self._entries[name] = entry_for(metric, self.task)
            if entry.state not in self._states:
                self._states[entry.state] = entry.build(self.n_classes).to(self.device)
        elif isinstance(metric, Metric):
            self._own[name] = metric.clone().to(self.device)
            self._own[name].reset()
        elif callable(metric) and not isinstance(metric, type):
            self._functions[name] = metric
            if "rows" not in self._states:
                self._states["rows"] = entry_for("auroc", "binary").build(self.n_classes).to(self.device)
        else:
            raise InputTypeError(
                f"metric {name!r}",
                "must be a name, a torchmetrics.Metric object or a function of (preds, target)",
                f"the class {metric.__name__}" if isinstance(metric, type) else f"{type(metric).__name__} {metric!r}",
                "Give an object of that class." if isinstance(metric, type) else "",
            )

    @property
    def directions(self) -> dict[str, Direction | None]:
        """Whether each metric is better small or large; ``None`` where only the user knows (a function)."""
        of_own = {True: "max", False: "min", None: None}
        known: dict[str, Any] = {name: entry.direction for name, entry in self._entries.items()}
        known |= {name: of_own[metric.higher_is_better] for name, metric in self._own.items()}
        return {name: known.get(name) for name in self.names}

    @property
    def own(self) -> bool:
        """Whether there are metrics among them that the user has made."""
        return bool(self._own)

    @property
    def rows(self) -> int:
        """How many rows were given since the last reset."""
        return self._rows

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            preds: Regression: predictions, shape ``[n]`` or ``[n, outputs]``. Classification: logits, floating point,
                shape ``[n, n_classes]``, two columns for two classes.
            target: Regression: of the same shape as ``preds``. Classification: class indices, of an integer dtype,
                shape ``[n]``. Both may be on any device. A batch of no rows is nothing.

        Raises:
            InputTypeError: ``preds`` or ``target`` is not a tensor.
            DataError: Their shapes or dtypes do not fit the task or each other, or an index is not that of a class.
            ConfigError: One of the user's own metrics failed.
        """
        for where, value in (("preds", preds), ("target", target)):
            if not isinstance(value, Tensor):
                raise InputTypeError(where, "must be a tensor", type(value).__name__)
        # State made inside inference mode could not be updated outside of it.
        with torch.inference_mode(False), torch.no_grad():
            if self.task == "regression":
                _check_regression(preds, target)
            else:
                _check_classification(preds, target, self.n_classes)
            if self._rows and preds.shape[1:] != self._outputs:
                before = [self._rows, *self._outputs]
                raise DataError(
                    "preds", f"must be shaped as in the batches before, which make {before}", list(preds.shape)
                )
            if len(preds) == 0:
                return
            preds, target = preds.detach().to(self.device), target.detach().to(self.device)
            if self.task != "regression":
                target = _checked_labels(target, self.n_classes)
            self._accumulate(preds, target)
            self._rows += len(preds)
            self._outputs = tuple(preds.shape[1:])

    def _accumulate(self, preds: Tensor, target: Tensor) -> None:
        exact = (preds, target)
        if self.task == "regression":
            exact = (preds.double().contiguous(), target.double().contiguous())
        for key, state in self._states.items():
            state.update(*((preds, target) if key == "rows" else exact))
        for name, metric in self._own.items():
            try:
                metric.update(preds, target)
            except Exception as error:
                raise self._failed(name, error) from error

    def compute(self) -> dict[str, float]:
        """Compute the metrics over all rows since the last :meth:`reset`.

        Returns:
            The metrics by name, in the order in which they were asked for. Computing changes nothing: more batches
            may follow.

        Raises:
            DataError: There were no rows.
            ConfigError: One of the user's own metrics failed, or gave something else than one number.
        """
        if not self.names:
            return {}
        if not self._rows:
            raise DataError(
                "metrics", "need at least one row", "none", "The split is empty, or was never passed to update()."
            )
        with torch.inference_mode(False), torch.no_grad():
            values = {key: state.compute() for key, state in self._states.items()}
            if "rows" in values:
                preds, target = values["rows"]
                values["rows"] = preds.reshape(-1, *self._outputs), target.reshape(self._target_shape)
            return {name: self._read(name, values) for name in self.names}

    @property
    def _target_shape(self) -> tuple[int, ...]:
        return (-1, *self._outputs) if self.task == "regression" else (-1,)

    def _read(self, name: str, values: Mapping[str, Any]) -> float:
        if entry := self._entries.get(name):
            return entry.read(values[entry.state], self.task)
        try:
            if name in self._own:
                return _one_number(self._own[name].compute())
            preds, target = values["rows"]
            return _one_number(self._functions[name](preds.cpu(), target.cpu()))
        except Exception as error:
            raise self._failed(name, error) from error

    def _failed(self, name: str, error: Exception) -> ConfigError:
        takes = (
            "preds and target of one shape"
            if self.task == "regression"
            else f"logits [n, {self.n_classes}] and an int64 target [n]"
        )
        return ConfigError(f"metric {name!r}", f"must turn {takes} into one number", f"{type(error).__name__}: {error}")

    def reset(self) -> None:
        """Forget all rows."""
        with torch.inference_mode(False):
            for state in (*self._states.values(), *self._own.values()):
                state.reset()
        self._rows = 0
        self._outputs = ()


def _by_name(metrics: object) -> dict[str, object]:
    """The metrics by the name they will be reported under."""
    if isinstance(metrics, Mapping):
        chosen = dict(metrics)
    elif isinstance(metrics, Iterable) and not isinstance(metrics, str | bytes):
        names = list(metrics)
        if strange := [name for name in names if not isinstance(name, str)]:
            raise InputTypeError(
                "metrics",
                "must be names",
                f"{type(strange[0]).__name__}",
                'Name your own in a mapping: {"mine": metric}.',
            )
        if twice := [name for name in names if names.count(name) > 1]:
            raise ConfigError("metrics", "must each be named once", repr(twice[0]))
        chosen = {name: name for name in names}
    else:
        fix = f'Write ["{metrics}"].' if isinstance(metrics, str) else ""
        raise InputTypeError(
            "metrics", "must be a sequence of names or a mapping", f"{type(metrics).__name__} {metrics!r}", fix
        )
    for name in chosen:
        if not isinstance(name, str) or not name or name == "loss":
            raise ConfigError("metrics", "must have names that are texts other than 'loss'", repr(name))
    return chosen


def _check_regression(preds: Tensor, target: Tensor) -> None:
    if preds.shape != target.shape:
        # such as [n] and [n, 1], which would broadcast to all pairs
        raise DataError(
            "preds", f"must have the target's shape {list(target.shape)}", list(preds.shape), "Reshape one of the two."
        )
    if preds.ndim not in (1, 2) or 0 in preds.shape[1:]:
        raise DataError("preds", "must be of shape [n] or [n, outputs]", list(preds.shape))
    if preds.is_complex() or target.is_complex():
        raise DataError("preds and target", "must be real", f"{preds.dtype} and {target.dtype}")


def _check_classification(preds: Tensor, target: Tensor, n_classes: int) -> None:
    if preds.ndim != 2 or preds.shape[1] != n_classes:
        raise DataError("preds", f"must be logits of shape [n, {n_classes}], one for each class", list(preds.shape))
    if not preds.is_floating_point():
        raise DataError("preds", "must be logits of a floating-point dtype", preds.dtype)
    if target.shape != preds.shape[:1]:
        raise DataError(
            "target", f"must be of shape {[len(preds)]}, as preds have {len(preds)} rows", list(target.shape)
        )
    if target.is_floating_point() or target.is_complex():
        raise DataError("target", "must be class indices of an integer dtype", target.dtype, "Use target.long().")


def _checked_labels(target: Tensor, n_classes: int) -> Tensor:
    target = target.long()
    lowest, highest = torch.stack(target.aminmax()).tolist()  # one wait for the device, not two
    if lowest < 0 or highest >= n_classes:
        wrong = lowest if lowest < 0 else highest
        raise DataError("target", f"must be class indices from 0 to {n_classes - 1}", wrong)
    return target


def _one_number(value: Any) -> float:
    if isinstance(value, Tensor) and value.numel() != 1:
        raise ValueError(f"a tensor of shape {list(value.shape)}")
    return float(value)
