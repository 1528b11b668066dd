"""The models by name, and how each is built from its config."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import nn

from stoker.errors import ConfigError, UnknownNameError
from stoker.models.cnn import CNN, CNNConfig
from stoker.models.inputs import ImageSpec, InputSpec, TableSpec
from stoker.models.linear import Linear, LinearConfig
from stoker.models.mlp import ImageMLP, MLPConfig, TableMLP
from stoker.settings import parse_settings

__all__ = ["MODELS", "ModelConfig", "build_model", "model_config"]

ModelConfig: TypeAlias = LinearConfig | MLPConfig | CNNConfig


@dataclass(frozen=True)
class _Entry:
    """A model: its config, and a builder for each kind of input that it takes."""

    config: type[ModelConfig]
    builders: dict[type[InputSpec], Callable[..., nn.Module]]


MODELS: dict[str, _Entry] = {
    "linear": _Entry(LinearConfig, {TableSpec: lambda _, spec, outputs: Linear(spec, outputs)}),
    "mlp": _Entry(MLPConfig, {TableSpec: TableMLP, ImageSpec: ImageMLP}),
    "cnn": _Entry(CNNConfig, {ImageSpec: CNN}),
}

DEFAULTS: dict[type[InputSpec], str] = {TableSpec: "mlp", ImageSpec: "cnn"}


def model_config(raw: Mapping[str, Any], kind: type[InputSpec] | None = None) -> ModelConfig:
    """Read a model's config.

    Args:
        raw: ``{"name": "mlp", "hidden": [50, 40]}``; without a name (or with ``"auto"``) it is the default model of
            ``kind``: an MLP for tables, a CNN for images.
        kind: What the model is for.

    Raises:
        UnknownNameError: No model has that name, or it has no such setting.
        ConfigError: A value is out of range.
    """
    settings = {name: value for name, value in raw.items() if name != "name"}
    name = str(raw.get("name", "auto"))
    if name == "auto":
        name = DEFAULTS[kind or TableSpec]
    if name not in MODELS:
        raise UnknownNameError("model", name, ["auto", *MODELS])
    return parse_settings(MODELS[name].config, settings, "model")


def build_model(config: ModelConfig, spec: InputSpec, n_outputs: int) -> nn.Module:
    """Build a network, its weights drawn from torch's global generator.

    Args:
        config: Which one, and its settings.
        spec: What goes in.
        n_outputs: How many numbers come out: 1 for regression, the number of classes for classification.

    Raises:
        ConfigError: The model does not take this kind of input.
    """
    builder = MODELS[config.name].builders.get(type(spec))
    if builder is None:
        fitting = [name for name, entry in MODELS.items() if type(spec) in entry.builders]
        raise ConfigError(
            "model", f"must be one for {spec.kind}", repr(config.name), f"Use one of {', '.join(fitting)}."
        )
    return builder(config, spec, n_outputs)
