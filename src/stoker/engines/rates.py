"""Dropout rates as inputs of a step, so that a program holds for every rate."""

from __future__ import annotations

from collections.abc import Iterator
from types import FunctionType, MethodType

from torch import nn

__all__ = ["known_code", "rated"]


def rated(model: nn.Module) -> Iterator[tuple[str, nn.Dropout]]:
    """The dropout layers whose rate is an input: of a model that none but they can look at it.

    A rate of 0 or 1 stays a constant: such a layer draws no noise.
    """
    if not known_code(model):
        return
    for name, module in model.named_modules():
        if type(module) is nn.Dropout and module.training and 0.0 < module.p < 1.0:
            yield name, module


def known_code(model: nn.Module) -> bool:
    """Whether all of a model's code is torch's or Stoker's, which can be traced; others' may look at values.

    Code is in classes and those they derive from, and in functions that modules hold, such as an activation.
    """
    return all(_is_known(module) for module in model.modules())


def _is_known(module: nn.Module) -> bool:
    held = [value for value in vars(module).values() if isinstance(value, (FunctionType, MethodType))]
    code = [*type(module).__mro__[:-1], type(module).forward, *held]
    return all(_place(one).startswith(("torch.", "stoker.")) for one in code)


def _place(code: object) -> str:
    """Where something was written; functions made by ``exec`` do not say."""
    return f"{getattr(code, '__module__', None)}."
