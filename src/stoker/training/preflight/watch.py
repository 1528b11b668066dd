"""Which module is at work: hooks that follow a forward pass from module to module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from stoker.data.trees import leaves

__all__ = ["Call", "Watch"]


@dataclass
class Call:
    """One call of one module.

    Attributes:
        path: The module's path in the model, ``""`` for the model itself.
        module: The module.
        inputs: Every tensor among its arguments.
        outputs: Every tensor that it returned; none while it is at work.
    """

    path: str
    module: nn.Module
    inputs: list[Tensor]
    outputs: list[Tensor]

    @property
    def name(self) -> str:
        """What to call it in a text."""
        kind = type(self.module).__name__
        return f"module {self.path!r} ({kind})" if self.path else f"the model ({kind})"


class Watch:
    """Within this context every call of a module is followed; modules within scripted ones are not seen.

    Args:
        model: The model.
        tell: Given each call when it ends, inner ones before the outer.

    Attributes:
        under_way: Calls that have begun and not ended, outermost first; after an error, where it was raised.
    """

    def __init__(self, model: nn.Module, tell: Callable[[Call], None] = lambda _: None) -> None:
        self._model = model
        self._tell = tell
        self._handles: list[RemovableHandle] = []
        self.under_way: list[Call] = []

    def __enter__(self) -> Watch:
        for path, module in self._model.named_modules():
            if not isinstance(module, torch.jit.ScriptModule):
                self._handles.append(module.register_forward_pre_hook(self._begin(path), with_kwargs=True))
                self._handles.append(module.register_forward_hook(self._end))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()

    def _begin(self, path: str) -> Callable[[nn.Module, Any, Any], None]:
        def begin(module: nn.Module, args: Any, kwargs: Any) -> None:
            self.under_way.append(Call(path, module, leaves((args, kwargs)), []))

        return begin

    def _end(self, module: nn.Module, args: Any, outputs: Any) -> None:  # noqa: ARG002
        while self.under_way:  # calls above it ended in errors that the model caught
            call = self.under_way.pop()
            if call.module is module:
                call.outputs = leaves(outputs)
                self._tell(call)
                return
