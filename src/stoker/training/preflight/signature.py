"""Whether a batch's inputs fit the arguments that a model's ``forward`` takes."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn

from stoker.errors import InputTypeError, suggest

__all__ = ["check_call", "describe"]


def check_call(model: nn.Module, inputs: Any) -> None:
    """Make sure that a model can be called with these inputs, as far as its signature tells.

    Models whose signature tells nothing pass: those written in C or scripted, those that take ``*args, **kwargs``, and
    those whose call is rewritten by a ``forward_pre_hook`` or a ``__call__`` of their own.

    Args:
        model: Called as ``model(x)``, ``model(*inputs)`` for a tuple, ``model(**inputs)`` for a dict.
        inputs: A batch's inputs.

    Raises:
        InputTypeError: An argument is missing, or there are too many, or one has a name that ``forward`` does not know.
    """
    model = getattr(model, "_orig_mod", model)  # the module that torch.compile wrapped
    if model._forward_pre_hooks or type(model).__call__ is not nn.Module.__call__:
        return
    try:
        signature = inspect.signature(model.forward)
    except (TypeError, ValueError):
        return
    args, kwargs = _arguments(inputs)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise InputTypeError(
            type(model).__name__,
            f"the inputs must fit forward{_plain(signature)}",
            _came(args, kwargs),
            f"{_capital(str(error))}.{_hint(signature, inputs)}",
        ) from None


def describe(value: Any) -> str:
    """A value in a few words: a tensor by dtype and shape, such as ``float32 [32, 8]``; anything else by its type."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return type(value).__name__


def _arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(inputs, dict):
        return (), inputs
    return (inputs if isinstance(inputs, tuple) else (inputs,)), {}


def _plain(signature: inspect.Signature) -> str:
    """The parameters by name and default, without annotations: ``(x, mask=None)``."""
    bare = [
        parameter.replace(annotation=inspect.Parameter.empty)
        if parameter.default is inspect.Parameter.empty or len(repr(parameter.default)) <= 20
        else parameter.replace(annotation=inspect.Parameter.empty, default=...)
        for parameter in signature.parameters.values()
    ]
    return str(inspect.Signature(bare))


def _came(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    if not args and not kwargs:
        return "nothing"
    if args:
        return f"{len(args)} by position: {', '.join(map(describe, args))}"
    return f"{len(kwargs)} by name: {', '.join(f'{name} {describe(value)}' for name, value in kwargs.items())}"


def _hint(signature: inspect.Signature, inputs: Any) -> str:
    names = [
        name
        for name, parameter in signature.parameters.items()
        if parameter.kind in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}
    ]
    if isinstance(inputs, dict):
        unknown = [name for name in inputs if name not in names]
        return f" Of {unknown[0]!r}: {suggest(unknown[0], names)}" if unknown and names else ""
    return " Inputs are passed one by one from a tuple, and by name from a dict."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
