"""The models by name, and how each is built from its config."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import nn

from stoker.errors import ConfigError, UnknownNameError
from stoker.models.cnn import CNN, CNNConfig
from stoker.models.inputs import ImageSpec, InputSpec, TableSpec
from stoker.models.linear import Linear, LinearConfig
from stoker.models.mlp import ImageMLP, MLPConfig, TableMLP
from stoker.models.own import OwnModel, OwnModelConfig, build_own
from stoker.models.resnet import ResNet, ResNetConfig
from stoker.models.wide_deep import TableWideAndDeep, WideDeepConfig
from stoker.settings import parse_settings

__all__ = ["MODELS", "ModelConfig", "build_model", "model_config"]

_BuiltIn: TypeAlias = LinearConfig | MLPConfig | ResNetConfig | WideDeepConfig | CNNConfig
ModelConfig: TypeAlias = _BuiltIn | OwnModelConfig


@dataclass(frozen=True)
class _Entry:
    """A model: its config, and a builder for each kind of input that it takes."""

    config: type[_BuiltIn]
    builders: dict[type[InputSpec], Callable[..., nn.Module]]


MODELS: dict[str, _Entry] = {
    "linear": _Entry(LinearConfig, {TableSpec: lambda _, spec, outputs: Linear(spec, outputs)}),
    "mlp": _Entry(MLPConfig, {TableSpec: TableMLP, ImageSpec: ImageMLP}),
    "resnet": _Entry(ResNetConfig, {TableSpec: ResNet}),
    "wide-deep": _Entry(WideDeepConfig, {TableSpec: TableWideAndDeep}),
    "cnn": _Entry(CNNConfig, {ImageSpec: CNN}),
}

DEFAULTS: dict[type[InputSpec], str] = {TableSpec: "mlp", ImageSpec: "cnn"}


def model_config(raw: Mapping[str, Any], kind: type[InputSpec] | None = None) -> ModelConfig:
    """Read a model's config.

    Args:
        raw: ``{"name": "mlp", "hidden": [50, 40]}``; without a name (or with ``"auto"``) it is the default model of
            ``kind``: an MLP for tables, a CNN for images.
            ``{"name": "package.module:Class", "args": {"n_hidden": 50}}`` is a model of the user's own, which is not
            imported for its config.
        kind: What the model is for.

    Raises:
        UnknownNameError: No model has that name, or it has no such setting.
        ConfigError: A value is out of range.
    """
    settings = {name: value for name, value in raw.items() if name != "name"}
    name = str(raw.get("name", "auto"))
    if name == "auto":
        name = DEFAULTS[kind or TableSpec]
    if ":" in name:
        return _own_config(name, settings)
    if name not in MODELS:
        raise UnknownNameError("model", name, ["auto", *MODELS])
    try:
        return parse_settings(MODELS[name].config, settings, "model")
    except UnknownNameError as error:
        having = [other for other, entry in MODELS.items() if error.name in entry.config.model_fields]
        if "args" in settings and error.name == "args":
            having = ["a model of your own, package.module:Class"]
        if having:
            error.fix += f" {error.name!r} is a setting of {', '.join(having)}."
        raise


def _own_config(name: str, settings: Mapping[str, Any]) -> OwnModelConfig:
    for other in settings.keys() - {"args"}:
        fix = f"Have the constructor take it: --model-arg {other}=VALUE (model_args={{{other!r}: VALUE}})."
        raise ConfigError(f"model.{other}", "is no setting of a model of your own", repr(settings[other]), fix)
    config = parse_settings(OwnModelConfig, {"name": name, **settings}, "model")
    for argument, value in config.args.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            rule = "must be a finite number, text, true or false, or a list of these"
            fix = "Make other objects in the constructor, or use stoker.Trainer."
            raise ConfigError(f"model.args.{argument}", rule, repr(value), fix) from None
    return config


def build_model(config: ModelConfig, spec: InputSpec, n_outputs: int, own: OwnModel | None = None) -> nn.Module:
    """Build a network, its weights drawn from torch's global generator.

    Args:
        config: Which one, and its settings.
        spec: What goes in.
        n_outputs: How many numbers come out: 1 for regression, the number of classes for classification.
        own: What the user named, if the config is of a model of the user's own.

    Raises:
        ConfigError: The model does not take this kind of input; or see :func:`stoker.models.own.build_own`.
        InputTypeError: A model of the user's own is no module.
    """
    if isinstance(config, OwnModelConfig):
        return build_own(config, spec, n_outputs, own)
    builder = MODELS[config.name].builders.get(type(spec))
    if builder is None:
        fitting = [name for name, entry in MODELS.items() if type(spec) in entry.builders]
        raise ConfigError(
            "model", f"must be one for {spec.kind}", repr(config.name), f"Use one of {', '.join(fitting)}."
        )
    return builder(config, spec, n_outputs)
