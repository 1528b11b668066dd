"""In-place operations that break the backward pass, told in words: what was overwritten, by what, where."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from stoker.training.preflight.findings import Finding
from stoker.training.preflight.watch import Watch

__all__ = ["about_in_place", "explain_in_place"]

FIX = "Write it out of place: x = x + 1 instead of x += 1, nn.ReLU() instead of nn.ReLU(inplace=True)."
TORCH, STOKER = Path(torch.__file__).parent, Path(__file__).parents[2]


def about_in_place(error: BaseException) -> bool:
    """Whether autograd complains of an in-place operation."""
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "modified by an inplace operation" in text
        or "is being used in an in-place operation" in text
        or "is being modified inplace" in text
    )


def explain_in_place(model: nn.Module, loss: Callable[[], Any]) -> Finding:
    """Carry the forward pass out again, watching for what is written to after it was kept for the backward pass.

    Args:
        model: The model.
        loss: Carries out the forward pass and the objective; an error that it raises is where the operation is.
    """
    with Watch(model) as watch, _Writes(watch) as writes, torch.autograd.graph.saved_tensors_hooks(writes.kept, _same):
        try:
            loss()
        except Exception as error:
            if not about_in_place(error):
                raise
            where = watch.under_way[-1].name if watch.under_way else "criterion"
            line = f" {writes.latest}" if writes.latest else ""
            what = f"an in-place operation{line} changes what autograd does not let change: a parameter, or a view"
            return Finding("error", what, where, "Work on a copy: x = x.clone().")
    culprit = writes.culprit
    if culprit is None:
        what = "an in-place operation changes a value that the backward pass needs"
        return Finding("error", what, "the model or the criterion", FIX)
    what = f"the in-place operation {culprit.operation} overwrites a value that the backward pass of {culprit.keeper}"
    return Finding("error", f"{what} needs", culprit.writer, FIX)


@dataclass(frozen=True)
class _Culprit:
    operation: str
    writer: str
    keeper: str


class _Writes(TorchFunctionMode):
    """Notes what autograd keeps, and the first in-place operation that writes to it afterwards."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.culprit: _Culprit | None = None
        self.latest = ""
        self._watch = watch
        self._keepers: dict[int, str] = {}
        self._alive: list[Tensor] = []  # or another tensor could come to lie in the same memory

    def kept(self, tensor: Tensor) -> Tensor:
        self._keepers.setdefault(_memory(tensor), self._at_work())
        self._alive.append(tensor)
        return tensor

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        target = args[0] if args else None
        if isinstance(target, Tensor) and _in_place(name, kwargs):
            self.latest = f"({name}{_line()})"
            keeper = self._keepers.get(_memory(target))
            if keeper is not None and self.culprit is None and target.requires_grad:
                self.culprit = _Culprit(f"{name}{_line()}", self._at_work(), keeper)
        return function(*args, **kwargs)

    def _at_work(self) -> str:
        return self._watch.under_way[-1].name if self._watch.under_way else "the criterion"


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _in_place(name: str, kwargs: dict[str, Any]) -> bool:
    special = name.startswith("__")
    return (
        name == "__setitem__"
        or (special and name.startswith("__i") and name not in {"__index__", "__int__", "__invert__"})
        or (not special and name.endswith("_") and name != "requires_grad_")
        or kwargs.get("inplace") is True
    )


def _line() -> str:
    """Where the user's code is, such as `` in model.py, line 12``; nothing if the operation is a module of torch's."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if STOKER in path.parents:
            return ""
        if TORCH not in path.parents:
            return f" in {path.name}, line {frame.f_lineno}"
        frame = frame.f_back
    return ""
