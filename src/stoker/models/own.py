"""Models of the user's own: constructed from settings, fed as they take it, tried out before they are trained."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from stoker.errors import ConfigError, InputTypeError, UnknownNameError
from stoker.models.importing import Factory, find_factory, name_of, require_factory, told
from stoker.models.inputs import ImageSpec, InputSpec, TableSpec
from stoker.settings import Settings

__all__ = ["OwnModel", "OwnModelConfig", "OwnNetwork", "build_own", "filled_in", "named_anew", "own_model"]

_TABLE_INPUTS = {"numeric", "categorical"}
_FEATURES = ("n_features", "n_inputs", "in_features")
_CHANNELS = ("in_channels", "n_channels")
_OUTPUTS = ("n_outputs", "n_classes", "num_classes", "out_features")
_FILLABLE = {*_FEATURES, *_CHANNELS, *_OUTPUTS, "n_numeric", "cardinalities"}
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_ANY_NUMBER = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class OwnModelConfig(Settings):
    """A model of the user's own.

    Attributes:
        name: ``package.module:Class``; a function that returns a module will do.
        args: What it is called with, by name: numbers, text, true or false, and lists of these.
    """

    name: str
    args: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class OwnModel:
    """What a user named, imported.

    Attributes:
        name: ``package.module:Class``.
        factory: The class, or a function that returns a module.
    """

    name: str
    factory: Factory

    @property
    def shown(self) -> str:
        """How it is called: ``Net(n_features, n_hidden=50)``."""
        return f"{self.name.rpartition(':')[2]}{_plain(self.factory)}"

    @property
    def takes_codes(self) -> bool:
        """Whether its ``forward`` has a parameter ``categorical``, for the codes of categories.

        Of a function nothing is known before it is called, unless it says what it returns.
        """
        kind: Any = self.factory
        if not isinstance(kind, type):
            kind = getattr(kind, "__annotations__", {}).get("return")
            kind = getattr(self.factory, "__globals__", {}).get(kind) if isinstance(kind, str) else kind
        is_module = isinstance(kind, type) and issubclass(kind, nn.Module)
        return is_module and "categorical" in (_parameters(kind.forward) or ())

    def check(self, args: Mapping[str, Any]) -> None:
        """Make sure that it can be called with these arguments, as far as can be said before the data are known.

        Raises:
            UnknownNameError: It has no parameter of that name; the nearest is suggested.
            ConfigError: An argument is missing.
        """
        parameters = _parameters(self.factory)
        if parameters is None:
            return
        takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
        named = [name for name, parameter in parameters.items() if parameter.kind in _BY_NAME]
        for name in args:
            if name not in named and not takes_any:
                error = UnknownNameError(f"model {self.name}, arguments", name, named)
                error.fix += f" It is {self.shown}."
                raise error
        missing = [
            name
            for name, parameter in parameters.items()
            if parameter.default is inspect.Parameter.empty
            and parameter.kind not in _ANY_NUMBER
            and name not in {*args, *_FILLABLE}
        ]
        if missing:
            fix = f"It is {self.shown}. Say --model-arg {missing[0]}=VALUE (model_args={{{missing[0]!r}: VALUE}})."
            raise ConfigError(f"model {self.name}", f"needs {', '.join(missing)}", _given(args), fix)


def own_model(model: str | Factory) -> OwnModel:
    """Import what a user named, or take what a user passed.

    Args:
        model: ``"package.module:Class"``, or the class itself, or a function that returns a module.

    Raises:
        ConfigError: The name is of another form, or importing fails.
        UnknownNameError: The module has nothing of that name.
        InputTypeError: It is no class of modules and no function.
    """
    if isinstance(model, str):
        return OwnModel(model, find_factory(model))
    return OwnModel(name_of(require_factory(model, "model")), model)


def named_anew(recorded: str, model: str | Factory | None) -> Callable[[], OwnModel] | None:
    """See whether what a user names for a stored run is the run's model.

    A class or function need not stand in the module in which it stood in training, as long as it has the same name.

    Args:
        recorded: The name of the run's model.
        model: As :func:`own_model` takes it; ``None`` if the user named none.

    Returns:
        What imports it, when it is needed; ``None`` if none was named.

    Raises:
        ConfigError: It is another, or the run's model is one of Stoker's own.
        InputTypeError: It is no class of modules and no function.
    """
    if model is None:
        return None
    name = model if isinstance(model, str) else name_of(require_factory(model, "model"))
    if ":" not in recorded:
        fix = f"This run's model is {recorded!r}, which Stoker builds itself: leave it out."
        raise ConfigError("model", "is to be named for runs with a model of your own", repr(name), fix)
    same = name == recorded if isinstance(model, str) else name.partition(":")[2] == recorded.partition(":")[2]
    if not same:
        raise ConfigError("model", f"must be the run's own, {recorded!r}", repr(name), "Name that one.")
    return (lambda: own_model(model)) if isinstance(model, str) else (lambda: OwnModel(recorded, model))


def filled_in(config: OwnModelConfig, own: OwnModel, spec: InputSpec, n_outputs: int) -> OwnModelConfig:
    """The config with all arguments: those that the user left out follow from the data, or are the defaults.

    Defaults are written down too, so that a run does not change with them; those that JSON cannot hold are left out.

    ==========================================  ========================================  ==========================
    parameter                                   tables                                    images
    ==========================================  ========================================  ==========================
    ``n_features``, ``n_inputs``,               numeric features, once encoded            channels · height · width
    ``in_features``
    ``n_numeric``                               the same
    ``cardinalities``                           how many codes each category has
    ``in_channels``, ``n_channels``                                                       channels
    ``n_outputs``, ``n_classes``,               1 for regression, the number of classes for classification
    ``num_classes``, ``out_features``
    ==========================================  ========================================  ==========================
    """
    if isinstance(spec, TableSpec):
        known: dict[str, Any] = dict.fromkeys((*_FEATURES, "n_numeric"), spec.n_numeric)
        known["cardinalities"] = list(spec.cardinalities)
    else:
        known = dict.fromkeys(_FEATURES, spec.channels * spec.height * spec.width)
        known |= dict.fromkeys(_CHANNELS, spec.channels)
    known |= dict.fromkeys(_OUTPUTS, n_outputs)
    own.check(config.args)
    there = _parameters(own.factory) or {}
    found = {
        name: known.get(name, parameter.default)
        for name, parameter in there.items()
        if parameter.kind in _BY_NAME and (name in known or _is_plain(parameter.default))
    }
    return config.model_copy(update={"args": found | config.args})


def build_own(config: OwnModelConfig, spec: InputSpec, n_outputs: int, own: OwnModel | None) -> OwnNetwork:
    """Construct a user's model, and try it out on two rows of zeros, which also gives lazy modules their shapes.

    Args:
        config: Its name and all its arguments (:func:`filled_in`).
        spec: What goes in.
        n_outputs: How many numbers shall come out.
        own: The model, named by the user; nothing is imported because a config says so.

    Raises:
        ConfigError: It was not named, or is another; it refuses its arguments or its inputs; or its output is not of
            the shape that is needed.
        InputTypeError: It is no module.
    """
    if own is None:
        fix = f'Name it: stoker.load(path, model="{config.name}"), or --model {config.name} on the command line.'
        rule = f"the run's model is your own, {config.name}, and is imported only if you name it"
        raise ConfigError("model", rule, "no name", fix)
    if own.name != config.name:
        raise ConfigError("model", f"must be the run's own, {config.name!r}", repr(own.name), "Name that one.")
    where = f"model {own.name}"
    try:
        module = own.factory(**json.loads(json.dumps(config.args)))  # the same lists, whether now or from a file
    except MemoryError:
        raise
    except Exception as error:
        fix = f"It got {_given(config.args)}; it is {own.shown}."
        raise ConfigError(where, "must take its arguments", told(error), fix) from error
    if not isinstance(module, nn.Module):
        raise InputTypeError(where, "must give a torch.nn.Module", type(module).__name__, "Return an instance of one.")
    network = OwnNetwork(module, spec, n_outputs)
    _try_out(network, spec, n_outputs, where)
    return network


class OwnNetwork(nn.Module):
    """A user's module, called as it takes its inputs.

    A module whose ``forward`` has a parameter ``numeric`` or ``categorical`` is called with a table's features by
    these names. Every other is called with one tensor: float32 ``[n, features]`` of a table, categories one-hot among
    them, or ``[n, channels, height, width]`` of images.

    Args:
        module: It returns ``[n, n_outputs]``; ``[n]`` will do where ``n_outputs`` is 1.
        spec: What goes in.
        n_outputs: How many numbers come out.
    """

    def __init__(self, module: nn.Module, spec: InputSpec, n_outputs: int) -> None:
        super().__init__()
        self.module = module
        self.by_name = isinstance(spec, TableSpec) and bool(_TABLE_INPUTS & {*(_parameters(module.forward) or ())})
        self.single = n_outputs == 1

    def forward(self, *inputs: Tensor, **named: Tensor) -> Any:
        """Encoded inputs → ``[n, n_outputs]``."""
        outputs = self.module(*inputs, **named) if self.by_name else self.module(*inputs, *named.values())
        return outputs[:, None] if self.single and isinstance(outputs, Tensor) and outputs.ndim == 1 else outputs


def _try_out(network: OwnNetwork, spec: InputSpec, n_outputs: int, where: str) -> None:
    inputs = _zeros(spec)
    shown = ", ".join(f"{name}={_shape(value)}" if network.by_name else _shape(value) for name, value in inputs.items())
    forward = f"{type(network.module).__name__}.forward{_plain(network.module.forward)}"
    modes = [(module, module.training) for module in network.modules()]
    network.eval()  # so that neither statistics nor counters of the user's change
    try:
        with torch.no_grad():
            outputs = network(**inputs)
    except MemoryError:
        raise
    except Exception as error:
        rule, fix = f"its forward must take {shown}", f"It is {forward}."
        if "categorical" in inputs and not network.by_name:
            fix = "One tensor has no place for codes: leave data.categories out, or give forward a parameter for them."
        raise ConfigError(where, rule, told(error), fix) from error
    finally:
        for module, mode in modes:
            module.training = mode
    if not isinstance(outputs, Tensor) or outputs.shape != (2, n_outputs) or not outputs.is_floating_point():
        fix = "Return one number a row." if n_outputs == 1 else f"Return a logit for each of the {n_outputs} classes."
        got = type(outputs).__name__
        if isinstance(outputs, Tensor):
            got = f"{_shape(outputs)} of two rows"
        else:
            fix = "For several outputs there is stoker.Trainer."
        raise ConfigError(where, f"its forward must return one float tensor [n, {n_outputs}]", got, fix)
    kept = next((name for name, value in network.state_dict().items() if not isinstance(value, Tensor)), None)
    if kept is not None:
        fix = "A run keeps tensors alone: make it a buffer, or an argument of the constructor."
        raise ConfigError(where, "its state_dict must hold tensors alone", f"another object as {kept}", fix)
    unused = [name for name, value in network.module.named_parameters() if isinstance(value, UninitializedParameter)]
    if unused:
        fix = "Leave out the lazy modules that forward does not call."
        raise ConfigError(where, "its forward must give every lazy module its shape", f"none for {unused[0]}", fix)


def _shape(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _zeros(spec: InputSpec) -> dict[str, Tensor]:
    """Two rows of zeros, as the encoder gives them."""
    if isinstance(spec, ImageSpec):
        return {"images": torch.zeros(2, spec.channels, spec.height, spec.width)}
    rows = {"numeric": torch.zeros(2, spec.n_numeric)} if spec.n_numeric else {}
    if spec.cardinalities:
        rows["categorical"] = torch.zeros(2, len(spec.cardinalities), dtype=torch.int64)
    return rows


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter] | None:
    """By name; ``None`` if Python does not know, as of some that are written in C."""
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return None


def _plain(function: Callable[..., Any]) -> str:
    """A signature without its annotations."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return "(…)"
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))


def _is_plain(value: Any) -> bool:
    """Whether it is the same after it was written as JSON."""
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError):
        return False


def _given(args: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in args.items()) or "no arguments"
