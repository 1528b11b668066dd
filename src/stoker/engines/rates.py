"""Dropout rates as inputs of a step, so that a program holds for every rate.

While a step is traced, dropout layers hold no numbers but :class:`Rate` objects, which torch's dropout functions take
and nothing else can look at: code that branches on a rate, or computes with one, would be traced as it is for that rate
alone. Of a model where something does look, rates are constants (:func:`keep_constant`), as they are of
``F.dropout(x, 0.5)``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FunctionType, MethodType
from typing import Any, NoReturn
from weakref import WeakSet

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["DROPOUTS", "Rate", "RateLookedAtError", "are_constant", "as_inputs", "keep_constant", "known_code", "rated"]

LAYERS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
"""Those that do nothing with their rate but hand it to a function of :data:`DROPOUTS`."""

_CONSTANT: WeakSet[nn.Module] = WeakSet()  # a property of their code, which only a trace can tell


def rated(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """The dropout layers whose rates ``p`` a step is given; whether it takes them says :func:`are_constant`.

    A rate of 0 or 1 stays a constant: such a layer draws no noise. So does one of a class of the user's own.
    """
    for name, module in model.named_modules():
        if type(module) in LAYERS and module.training and isinstance(module.p, float) and 0.0 < module.p < 1.0:
            yield name, module


def are_constant(model: nn.Module) -> bool:
    """Whether rates are constants of this model's programs, because its code looked at one in a trace."""
    return model in _CONSTANT


def keep_constant(model: nn.Module) -> None:
    """Have them be constants from now on."""
    _CONSTANT.add(model)


class RateLookedAtError(Exception):
    """Code looks at a dropout rate, so that its trace holds for that rate alone."""

    def __init__(self) -> None:
        super().__init__("the model's code looks at a dropout rate")


class Rate:
    """A rate that is an input of a trace: whatever dropout functions do not do with it raises, and is noted.

    Args:
        value: float64, 0-d.
    """

    __slots__ = ("looked", "value")

    def __init__(self, value: Tensor) -> None:
        self.value = value
        self.looked = False

    def __getattribute__(self, name: str) -> NoReturn:
        _look(self)


def _look(rate: Rate, *_: object) -> NoReturn:
    rate.looked = True  # whoever asks may go on after the error
    raise RateLookedAtError


for _name in vars(float).keys() - {"__new__", "__doc__", "__getattribute__"}:  # ``rate > 0``, ``float(rate)``, a key
    setattr(Rate, _name, _look)


@contextmanager
def as_inputs(model: nn.Module, rates: Mapping[str, Tensor]) -> Iterator[None]:
    """Within this block a model's layers have these rates; afterwards, their own again.

    Args:
        model: Whose layers they are.
        rates: By the layers' names, float64, 0-d.

    Raises:
        RateLookedAtError: Something looked at one or wrote another, even if it went on afterwards.
    """
    layers = {name: vars(model.get_submodule(name)) for name in rates}
    written = {name: layer["p"] for name, layer in layers.items()}
    given = {name: Rate(rate) for name, rate in rates.items()}
    error: Exception | None = None
    try:
        for name, layer in layers.items():
            layer["p"] = given[name]
        try:
            yield
        except Exception as raised:  # by the code that looked, of what it was told
            error = raised
        rewritten = any(layer.get("p") is not given[name] for name, layer in layers.items())
    finally:
        for name, layer in layers.items():
            layer["p"] = written[name]
    if rewritten or any(object.__getattribute__(rate, "looked") for rate in given.values()):
        raise RateLookedAtError from error
    if error is not None:
        raise error


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


def _zeros(x: Tensor, kept: Tensor, p: Tensor) -> Tensor:
    return torch.where(kept, x / (1 - p).to(x.dtype), torch.zeros((), dtype=x.dtype, device=x.device))


_SELU_FLOOR = 1.7580993408473766  # minus what SELU comes to far below zero: there is what alpha dropout drops


def _selus_floor(x: Tensor, kept: Tensor, p: Tensor) -> Tensor:
    """What keeps mean 0 and variance 1."""
    scale = ((_SELU_FLOOR**2 * p + 1) * (1 - p)) ** -0.5
    floor = -_SELU_FLOOR * scale
    return torch.where(kept, x * scale.to(x.dtype), floor.to(x.dtype)) - (floor * p).to(x.dtype)


def _with_rates(
    function: Callable[..., Tensor], dropped: Callable[[Tensor, Tensor, Tensor], Tensor], kind: Callable[[Tensor], int]
) -> Callable[..., Tensor]:
    """A dropout function that takes a :class:`Rate` as well.

    Args:
        function: ``(input, p, training, inplace)``, without it.
        dropped: From input, which of it is kept, and the rate.
        kind: How many of the input's dimensions have noise of their own; along the others it is the same.
    """
    signature = inspect.signature(function)

    def dropout(*args: Any, **kwargs: Any) -> Tensor:
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        x, rate, training, inplace = given.arguments.values()
        if type(rate) is not Rate:
            return function(*args, **kwargs)
        if not x.is_floating_point():  # noise of complex numbers is torch's own
            _look(rate)
        if not training:
            result: Tensor = x
            return result
        p: Tensor = object.__getattribute__(rate, "value")
        own, accurate = kind(x), torch.promote_types(x.dtype, torch.float32)  # as torch's bernoulli
        shape = x.shape[:own] + (1,) * (x.ndim - own)
        if own == x.ndim:
            noise = torch.rand_like(x, dtype=accurate)
        else:
            noise = torch.rand(shape, dtype=accurate, device=x.device)
        result = dropped(x, noise < 1 - p, p)
        return x.copy_(result) if inplace else result

    return dropout


DROPOUTS: Mapping[Callable[..., Any], Callable[..., Any]] = {
    F.dropout: _with_rates(F.dropout, _zeros, lambda x: x.ndim),
    F.dropout1d: _with_rates(F.dropout1d, _zeros, lambda x: 2 if x.ndim == 3 else 1),
    F.dropout2d: _with_rates(F.dropout2d, _zeros, lambda _: 2),  # of three dimensions, too
    F.dropout3d: _with_rates(F.dropout3d, _zeros, lambda x: 2 if x.ndim == 5 else 1),
    F.alpha_dropout: _with_rates(F.alpha_dropout, _selus_floor, lambda x: x.ndim),
    F.feature_alpha_dropout: _with_rates(F.feature_alpha_dropout, _selus_floor, lambda _: 2),
}
"""torch's functions, and what they are while a step is traced."""
