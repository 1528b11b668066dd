"""Targets that do not fit the outputs: of shapes that broadcast, out of the classes' range, of another dtype."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from stoker.training.criteria import Criterion
from stoker.training.preflight.findings import Finding
from stoker.training.preflight.takes import KNOWN, Takes

__all__ = ["broadcast", "explain_criterion", "out_of_range"]

ROUNDING = 1e-3  # of labels that were smoothed or mixed


def broadcast(criterion: Criterion, takes: Takes | None, output: Tensor, target: Tensor, where: str) -> Finding | None:
    """An error if the criterion compares each output with the targets of other rows: ``[m, 1]`` with ``[m]``.

    A criterion that is not known is called, and watched for an operation between outputs and targets that blows up.

    Args:
        criterion: What is called.
        takes: What is known of it.
        output: The model's output.
        target: Its target.
        where: What to call the targets.
    """
    if output.shape == target.shape or not _blows_up(output.shape, target.shape):
        return None
    if takes is None and not _Broadcasts(output, target).seen_in(criterion):
        return None
    if takes is not None and not takes.by_element:
        return None
    what = f"must have the shape of the model's outputs, {list(output.shape)}, got {list(target.shape)}"
    if output.numel() == target.numel():
        what += ", so that each row would be compared with all others"
    return Finding("error", what, where, "Reshape one of the two, such as y[:, None].")


def _broadcast_shape(one: torch.Size, other: torch.Size) -> torch.Size | None:
    """The shape that the two broadcast to; ``None`` if they do not."""
    try:
        return (torch.empty(one, device="meta") + torch.empty(other, device="meta")).shape
    except RuntimeError:
        return None


def _blows_up(one: torch.Size, other: torch.Size) -> bool:
    """Whether the two broadcast to something larger than both."""
    both = _broadcast_shape(one, other)
    return both is not None and both.numel() > max(one.numel(), other.numel())


class _Broadcasts(TorchFunctionMode):
    """Looks for a call with tensors of the output's and of the target's shape, of which only the first is learnt from.

    Losses that compare all pairs on purpose do so among outputs, or among targets, or after giving them other shapes.
    """

    def __init__(self, output: Tensor, target: Tensor) -> None:
        super().__init__()
        self._output = output.detach().requires_grad_(output.is_floating_point())
        self._target = target
        self._blown = _broadcast_shape(output.shape, target.shape)
        self._seen = False

    def seen_in(self, criterion: Criterion) -> bool:
        with torch.enable_grad(), self:
            try:
                criterion(self._output, self._target)
            except Exception:  # the objective itself is called later, and its errors are told then
                return False
        return self._seen

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        tensors = [value for value in (*args, *(kwargs or {}).values()) if isinstance(value, Tensor)]
        outputs = any(value.shape == self._output.shape and value.requires_grad for value in tensors)
        targets = any(value.shape == self._target.shape and not value.requires_grad for value in tensors)
        if outputs and targets:
            known = KNOWN.get(function) if callable(function) else None
            blown = isinstance(result, Tensor) and result.shape == self._blown
            self._seen = self._seen or blown or (known is not None and known.by_element)
        return result


def out_of_range(takes: Takes, output: Tensor, target: Tensor, where: str) -> Finding | None:
    """An error if class indices are out of the range of the output's classes, or fractions out of ``[0, 1]``.

    Args:
        takes: What the criterion takes.
        output: ``[n, classes, …]``, or ``[classes]``.
        target: All of the batch's.
        where: What to call the targets.
    """
    if takes.targets == "fractions" and target.numel():
        low, high = float(target.min()), float(target.max())
        if low < -ROUNDING or high > 1 + ROUNDING:
            fix = "Labels of two classes are 0 and 1; other numbers want a regression's criterion."
            return Finding("error", f"{takes.name} takes targets from 0 to 1, got {low:g} to {high:g}", where, fix)
    if takes.targets != "classes" or target.is_floating_point() or target.dtype == torch.bool or not output.ndim:
        return None
    if target.shape == output.shape:
        return None  # one-hot, which the criterion itself refuses
    classes = output.shape[1] if output.ndim > 1 else output.shape[0]
    bad = (target < 0) | (target >= classes)
    if takes.ignored is not None:
        bad &= target != takes.ignored
    if not bool(bad.any()):
        return None
    values = sorted({int(value) for value in target[bad][:1000]})[:5]
    row = int(bad.nonzero()[0, 0]) if bad.ndim else 0
    what = (
        f"class indices must be from 0 to {classes - 1}, as the output has {classes} "
        f"class{'es' if classes > 1 else ''}, got {', '.join(map(str, values))}, first in row {row} of the batch"
    )
    counted = target[target != takes.ignored] if takes.ignored is not None else target
    low, high = int(counted.min()), int(counted.max())
    if classes == 1:
        fix = "One logit for two classes wants nn.BCEWithLogitsLoss; else give the output one logit per class."
    elif low == 1 and high == classes:
        fix = "Classes count from 0: subtract 1."
    elif low < 0:
        fix = "Rows without a label are marked with the criterion's ignore_index, and dropped otherwise."
    else:
        fix = f"Give the model's output {high + 1} classes, or number the labels from 0 on."
    return Finding("error", what, where, fix)


def explain_criterion(takes: Takes | None, output: Any, target: Any, where: str) -> Finding | None:
    """What about a target's dtype or shape may have made the criterion or its backward pass fail; ``None`` if nothing.

    Args:
        takes: What the criterion takes.
        output: The model's output.
        target: Its target.
        where: What to call the targets.
    """
    if takes is None or not isinstance(output, Tensor) or not isinstance(target, Tensor):
        return None
    got = str(target.dtype).removeprefix("torch.")
    if takes.targets == "classes":
        if target.shape == output.shape:
            if target.is_floating_point():
                return None
            what = f"{takes.name} takes class indices, or one-hot targets that are floating point, got one-hot {got}"
            return Finding("error", what, where, "Pass indices, y.argmax(1), or y.float().")
        if output.ndim > 1 and target.shape != (fitting := (*output.shape[:1], *output.shape[2:])):
            what = f"{takes.name} takes class indices of shape {list(fitting)}, got {list(target.shape)}"
            return Finding("error", what, where, "Reshape them, such as y.squeeze(1).")
        if target.dtype != torch.int64:
            return Finding(
                "error", f"{takes.name} takes class indices of dtype int64, got {got}", where, "Cast them: y.long()."
            )
        return None
    if target.dtype != output.dtype and output.is_floating_point():
        wanted = str(output.dtype).removeprefix("torch.")
        what = f"{takes.name} takes targets of the outputs' dtype, {wanted}, got {got}"
        return Finding(
            "error", what, where, "Cast them: y.float()." if wanted == "float32" else f"Cast them to {wanted}."
        )
    return None
