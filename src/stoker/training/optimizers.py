"""Any torch optimizer, by name, by class, by factory, or ready made."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.optim import Optimizer

from stoker.errors import ConfigError, InputTypeError, UnknownNameError, suggest

__all__ = ["OptimizerSpec", "build_optimizer", "optimizer_names"]

OptimizerSpec: TypeAlias = str | type[Optimizer] | Callable[[Iterable[nn.Parameter]], Optimizer] | Optimizer

DEFAULT_LR = {"sgd": 0.01, "asgd": 0.01}  # torch's own default of 0.001 barely moves plain SGD
FUSED = {"cpu": {"Adam", "AdamW"}}  # where torch's fused update was measured to be faster: docs/performance.md


def optimizer_names() -> dict[str, type[Optimizer]]:
    """Every optimizer that torch has, by its class name in lower case."""
    return {
        name.lower(): kind
        for name, kind in vars(torch.optim).items()
        if inspect.isclass(kind) and issubclass(kind, Optimizer) and kind is not Optimizer
    }


def build_optimizer(
    spec: OptimizerSpec,
    model: nn.Module,
    *,
    lr: float | None = None,
    momentum: float | None = None,
    weight_decay: float | None = None,
    settings: Mapping[str, Any] | None = None,
    groups: Mapping[str, Mapping[str, Any]] | None = None,
) -> Optimizer:
    """Build the optimizer of a model's trainable parameters.

    Args:
        spec: A name such as ``"adam"`` (see :func:`optimizer_names`), a class, a function from parameters to an
            optimizer, or an optimizer, which is used as it is.
        model: The model; parameters with ``requires_grad=False`` are left out.
        lr: Learning rate; ``None`` means the optimizer's own default, and 0.01 for SGD, whose own barely moves.
        momentum: Only for those that have it.
        weight_decay: Only for those that have it.
        settings: Further arguments of the optimizer, such as ``{"nesterov": True}``.
        groups: Settings of their own for some of the parameters, by a module's or parameter's name or a pattern with
            ``*``: ``{"backbone": {"lr": 1e-4}, "*.bias": {"weight_decay": 0.0}}``. The first that fits counts.

    Raises:
        UnknownNameError: No optimizer has that name, or no trainable parameter one of the groups'.
        ConfigError: It does not take one of the settings, a value is out of its range, the model has nothing to train,
            or settings came beside an optimizer that is already made, or it trains nothing of the model.
        InputTypeError: ``spec`` is of another kind.
    """
    given = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
    arguments = {name: value for name, value in given.items() if value is not None} | dict(settings or {})
    if isinstance(spec, Optimizer):
        arguments |= {"groups": groups} if groups else {}
        if arguments:
            raise ConfigError(
                "optimizer",
                "an optimizer that is already made takes no settings",
                ", ".join(arguments),
                "Set them on it.",
            )
        _check_trains(spec, model)
        return spec
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ConfigError(
            "optimizer", "the model must have parameters to train", f"none in {type(model).__name__}", "Unfreeze some."
        )
    if isinstance(spec, str):
        names = optimizer_names()
        if spec.lower() not in names:
            raise UnknownNameError("optimizer", spec, sorted(names))
        arguments.setdefault("lr", DEFAULT_LR.get(spec.lower()))
        if arguments["lr"] is None:
            del arguments["lr"]
        spec = names[spec.lower()]
        arguments = _fused_where_possible(spec, parameters, arguments)
    if not callable(spec):
        raise InputTypeError("optimizer", "must be a name, a class, a function or an optimizer", type(spec).__name__)
    name = getattr(spec, "__name__", type(spec).__name__)
    _check_settings(spec, name, arguments)
    grouped = _grouped(model, groups, spec, name) if groups else parameters
    try:
        made = spec(grouped, **arguments)  # type: ignore[arg-type]  # torch takes both
    except (ValueError, TypeError, RuntimeError) as error:
        given_text = ", ".join(f"{key}={value!r}" for key, value in arguments.items()) or "no settings"
        raise ConfigError("optimizer", f"{name} refused its settings: {error}", given_text) from error
    if not isinstance(made, Optimizer):
        raise InputTypeError("optimizer", "the function must return a torch optimizer", type(made).__name__)
    _check_trains(made, model)
    return made


def _grouped(
    model: nn.Module, groups: Mapping[str, Mapping[str, Any]], spec: Callable[..., Any], name: str
) -> list[dict[str, Any]]:
    """The parameters as torch's optimizers take groups; those in none come first, as theirs is the rate shown."""
    members: dict[str | None, list[nn.Parameter]] = {None: [], **{pattern: [] for pattern in groups}}
    for parameter_name, parameter in model.named_parameters():
        if parameter.requires_grad:
            fitting = (pattern for pattern in groups if _fits(parameter_name, pattern))
            members[next(fitting, None)].append(parameter)
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    for pattern, own in groups.items():
        if not any(_fits(parameter_name, pattern) for parameter_name in trainable):
            modules = {part.rpartition(".")[0] for part in trainable} - {""}
            raise UnknownNameError("groups", pattern, [*sorted(modules), *trainable])
        _check_settings(spec, name, own)
    return [
        {"params": parameters, **({} if pattern is None else groups[pattern])}
        for pattern, parameters in members.items()
        if parameters
    ]


def _fits(name: str, pattern: str) -> bool:
    return name == pattern or name.startswith(f"{pattern}.") or fnmatchcase(name, pattern)


def _check_trains(optimizer: Optimizer, model: nn.Module) -> None:
    mine = {id(parameter) for parameter in model.parameters()}
    if not any(id(parameter) in mine for group in optimizer.param_groups for parameter in group["params"]):
        raise ConfigError(
            "optimizer",
            "must be made of the model's parameters",
            f"a {type(optimizer).__name__} of others",
            "Make it of this model's, after the last copy or rebuilding of the model.",
        )


def _check_settings(spec: Callable[..., Any], name: str, arguments: Mapping[str, Any]) -> None:
    accepted = inspect.signature(spec).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values()):
        return
    valid = [key for key in accepted if key not in {"self", "params"}]
    for key in arguments:
        if key not in accepted:
            raise ConfigError("optimizer", f"{name} has no such setting", repr(key), suggest(key, valid))


def _fused_where_possible(
    kind: type[Optimizer], parameters: list[nn.Parameter], arguments: dict[str, Any]
) -> dict[str, Any]:
    """Use torch's fused update, the same formula in one pass over memory, where it is faster and possible."""
    if {"fused", "foreach", "differentiable"} & set(arguments):
        return arguments
    simple = all(
        kind.__name__ in FUSED.get(parameter.device.type, ()) and parameter.is_floating_point()
        for parameter in parameters
    )
    return {**arguments, "fused": True} if simple else arguments
