"""The ``model`` parameter to a network: by name, by config, by class or function, or a module that is there."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from stoker.data.trees import tree_map
from stoker.errors import ConfigError
from stoker.models.assembly import Head
from stoker.models.importing import told
from stoker.models.inputs import TableSpec
from stoker.models.own import OwnModel, OwnModelConfig, OwnNetwork, filled_in, own_model
from stoker.models.registry import build_model, model_config
from stoker.randomness import derive_seed
from stoker.training.evaluation import evaluating

__all__ = ["ModelSpec", "NetworkPlan", "SplitLogits", "check_outputs", "plan_network"]

ModelSpec: TypeAlias = str | Mapping[str, Any] | nn.Module | Callable[..., nn.Module]


class SplitLogits(nn.Module):
    """The logits of several outputs, side by side, to a tuple with one tensor for each.

    Args:
        sizes: How many classes each output has.
    """

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.sizes = sizes

    def forward(self, logits: Tensor) -> tuple[Tensor, ...]:
        """``[n, sum(sizes)]`` → ``[n, size]`` for each size."""
        return torch.split(logits, list(self.sizes), dim=1)


@dataclass(frozen=True)
class NetworkPlan:
    """What is known of a network before the data are.

    Attributes:
        make: Builds it, given what goes in and how many numbers come out.
        categories: In which form it takes categories; see :meth:`stoker.data.encoder.TableEncoder.fit`.
        aux_weight: The share of the loss that its auxiliary output has; 0 without one.
    """

    make: Callable[[TableSpec, int], nn.Module]
    categories: Literal["auto", "embedding", "one-hot"] = "auto"
    aux_weight: float = 0.0

    def build(self, spec: TableSpec, n_outputs: int, seed: int) -> nn.Module:
        """The network, its weights drawn from ``(seed, "init")``; those of a module that was there are its own.

        Raises:
            UnknownNameError: It has no parameter of such a name.
            ConfigError: It does not take its settings or arguments.
            InputTypeError: What was made is no module.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "init"))
            return self.make(spec, n_outputs)


def plan_network(model: ModelSpec, settings: Mapping[str, Any], args: Mapping[str, Any]) -> NetworkPlan:
    """Read the ``model`` parameter.

    Args:
        model: The name of one of Stoker's, or its config; ``"package.module:Class"``, a class or a function, called by
            name with the sizes that it has parameters for (:func:`stoker.models.own.filled_in`) and ``args``; or a
            module, which is copied.
        settings: Of one of Stoker's, over those of the config.
        args: Further settings, or arguments.

    Raises:
        UnknownNameError: No model has that name, or it has no such setting.
        ConfigError: A setting is out of range, or does not go with such a model.
        InputTypeError: ``model`` is of another kind.
    """
    named: Any = {"name": model} if isinstance(model, str) else model
    if isinstance(named, Mapping) and ":" not in str(named.get("name", "")):
        config = model_config({**named, **settings, **args}, TableSpec)
        return NetworkPlan(
            lambda spec, n_outputs: build_model(config, spec, n_outputs),
            aux_weight=float(getattr(config, "aux_weight", 0.0)),
        )
    for name in settings:
        fix = "Set it on the module." if isinstance(model, nn.Module) else "Hand it over in model_args."
        raise ConfigError(name, "is for Stoker's own models", "a model of your own", fix)
    if isinstance(model, nn.Module):
        if args:
            raise ConfigError("model_args", "are for classes and functions", "a module that is already made")
        module = model
        codes = "categorical" in inspect.signature(module.forward).parameters
        return NetworkPlan(
            lambda spec, n_outputs: OwnNetwork(copy.deepcopy(module), spec, n_outputs), _form_of_categories(codes)
        )
    given = {**named.get("args", {}), **args} if isinstance(named, Mapping) else args
    own = own_model(str(named["name"]) if isinstance(named, Mapping) else named)
    own.check(given)
    return NetworkPlan(lambda spec, n_outputs: _call(own, given, spec, n_outputs), _form_of_categories(own.takes_codes))


def _form_of_categories(codes: bool) -> Literal["embedding", "one-hot"]:
    return "embedding" if codes else "one-hot"


def _call(own: OwnModel, args: Mapping[str, Any], spec: TableSpec, n_outputs: int) -> nn.Module:
    config = filled_in(OwnModelConfig(name=own.name, args=dict(args)), own, spec, n_outputs)
    try:
        made: Any = own.factory(**config.args)
    except Exception as error:
        raise ConfigError(f"model {own.name}", "must take its arguments", told(error), f"It is {own.shown}.") from error
    if not isinstance(made, nn.Module):
        fix = "Return an instance of one."
        raise ConfigError(f"model {own.name}", "must give a torch.nn.Module", type(made).__name__, fix)
    return OwnNetwork(made, spec, n_outputs)


def check_outputs(head: Head, inputs: dict[str, Tensor], n_outputs: int, seed: int) -> None:
    """Call the network on a row or two, to see that it gives what it should before it is trained.

    Lazy modules learn their sizes here, and draw their weights from ``(seed, "init")`` as others do.

    Raises:
        ConfigError: It does not take the features, or does not return ``[n, n_outputs]``.
    """
    rows = tree_map(lambda leaf: leaf[:2], inputs)
    with evaluating(head.network), torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "init"))
        try:
            outputs = head.network(**rows)
        except Exception as error:
            shapes = ", ".join(f"{name} {list(leaf.shape)}" for name, leaf in rows.items())
            raise ConfigError("model", f"must take {shapes}", told(error), "Look at its first layers.") from error
    wanted = [len(next(iter(rows.values()))), n_outputs]
    if not isinstance(outputs, Tensor) or list(outputs.shape) != wanted:
        got = f"shape {list(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
        fix = "Its last layer must have n_outputs units: one for each target, or one logit for each class."
        raise ConfigError("model", f"must return shape {wanted} for {wanted[0]} rows", got, fix)
