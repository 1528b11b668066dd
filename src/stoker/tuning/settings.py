"""Spaces over the settings of ``fit``: which can be tuned, where each belongs, and a good space for each model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stoker.errors import ConfigError, UnknownNameError
from stoker.jobs.config import DataConfig, FitConfig, TrainingConfig, build_config, setting_names
from stoker.settings import merge
from stoker.tuning.space import Categorical, Float, Int, Layers, Parameter, Space

__all__ = ["check_space", "default_space", "placed"]

COMPARED = {
    "data": (
        "target",
        "task",
        "valid",
        "test",
        "valid_size",
        "test_size",
        "train_on_valid",
        "split_seed",
        "group",
        "time",
    ),
    "training": ("seed", "monitor", "metrics", "device"),
}
"""Settings that say what trials are compared by, or where: with another value the comparison would mean nothing."""
OF_THE_LOSS = {"training": ("loss", "class_weights", "label_smoothing"), "data": ("scale_target",)}


def _paths() -> dict[str, tuple[str, ...]]:
    """The names that a parameter may have, short and dotted, and where each belongs."""
    from stoker.models.registry import MODELS

    paths: dict[str, tuple[str, ...]] = {}
    for name, (group, key) in setting_names().items():
        paths[name] = (group, key) if group else (key,)
    groups = {"data": list(DataConfig.model_fields), "training": list(TrainingConfig.model_fields)}
    groups["model"] = [*dict.fromkeys(name for entry in MODELS.values() for name in entry.config.model_fields)]
    for group, names in groups.items():
        paths |= {f"{group}.{name}": (group, name) for name in names}
    return paths


def _path(name: str, paths: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    if name in paths:
        return paths[name]
    parts = tuple(name.split("."))
    for open_ended in ("model.args", "training.optimizer_settings", "training.schedule_settings", "training.groups"):
        if name.startswith(f"{open_ended}."):
            return parts
    raise UnknownNameError("space", name, paths)


def placed(values: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's values as settings by group: ``{"lr": 0.1}`` to ``{"training": {"lr": 0.1}}``.

    Raises:
        UnknownNameError: A name is not one of the settings; the nearest is suggested.
    """
    paths = _paths()
    raw: dict[str, Any] = {}
    for name, value in values.items():
        nested: Any = value
        for part in reversed(_path(name, paths)):
            nested = {part: nested}
        raw = merge(raw, nested)
    return raw


def check_space(space: Space, raw: Mapping[str, Any], metric: str, default_model: str = "mlp") -> None:
    """Find what is wrong with a space before the first trial, by reading the settings at the ends of each range.

    Args:
        space: The parameters.
        raw: The settings that all trials share, by group.
        metric: What trials are compared by.
        default_model: What the settings are about where no model is named.

    Raises:
        UnknownNameError: A parameter is not one of the settings; the nearest is suggested.
        ConfigError: A value is out of range, a setting is both fixed and tuned, or must not be tuned.
    """
    paths = _paths()
    for name in space:
        group, key = (*_path(name, paths), "")[:2]
        fixed = raw.get(group)
        of_the_loss = key in OF_THE_LOSS.get(group, ())
        if key in COMPARED.get(group, ()) or (metric == "loss" and of_the_loss):
            fix = "Fix it outside of the space." + (" Or choose a --metric." if of_the_loss else "")
            rule = "cannot be tuned: with another value trials could not be compared"
            raise ConfigError(f"space.{name}", rule, "", fix)
        if isinstance(fixed, Mapping) and key in fixed and not isinstance(fixed[key], Mapping):
            got = f"fixed as {fixed[key]!r}"
            raise ConfigError(f"space.{name}", "must be either fixed or tuned", got, "Choose one.")
    for name, parameter in space.parameters.items():
        parts: dict[str, Float | Int | Categorical]
        if isinstance(parameter, Layers):
            parts = {f"{name}.layers": parameter.layers, f"{name}.width_1": parameter.width}
        else:
            parts = {name: parameter}
        for part, one in parts.items():
            for value in one.ends:
                _try(space, merge({"model": {"name": default_model}}, raw), part, value)


def default_space(config: FitConfig, raw: Mapping[str, Any], *, images: bool) -> Space:
    """A space that does well for the model of these settings, without what they fix already.

    The ranges are those of Gorishniy et al. (2021), Revisiting Deep Learning Models for Tabular Data,
    arXiv:2106.11959, appendix F, made smaller where a smaller network does.

    Args:
        config: The settings as read.
        raw: The settings that the user gave, by group.
        images: Whether the data are images.

    Raises:
        ConfigError: All of it is fixed.
    """
    model = str(config.model.get("name", "auto"))
    model = ("cnn" if images else "mlp") if model == "auto" else model
    parameters: dict[str, Parameter] = {
        "lr": Float(1e-4, 3e-2, log=True),
        "batch_size": Categorical((32, 64, 128, 256)),
        "weight_decay": Float(1e-6, 1e-1, log=True),
        **_of_model(model, images=images),
    }
    paths = _paths()
    fixed = {paths[name] for name in parameters if paths[name][1] in (raw.get(paths[name][0]) or {})}
    free = {name: parameter for name, parameter in parameters.items() if paths[name] not in fixed}
    if config.preset is not None:  # it chose the network; what is left is how it is trained
        free = {name: parameter for name, parameter in free.items() if paths[name][0] == "training"} | {
            name: parameter for name, parameter in free.items() if name == "dropout"
        }
    if not free:
        fix = "Fix fewer settings, or say what to try in [space]."
        raise ConfigError("space", "must have a parameter that is not fixed", "none", fix)
    return Space(free)


def _of_model(model: str, *, images: bool) -> dict[str, Parameter]:
    """What there is to try about a model; of one of the user's own nothing is known."""
    share = Float(0.0, 0.5)
    activation = Categorical(("relu", "gelu", "silu"))
    wide = Layers(Int(1, 4), Int(16, 512, log=True))
    match model:
        case "mlp":
            found: dict[str, Parameter] = {
                "hidden": wide,
                "activation": activation,
                "dropout": share,
                "norm": Categorical(("none", "batch", "layer")),
            }
            return found if images else found | {"numeric_embedding": Categorical(("none", "piecewise-linear"))}
        case "resnet":
            return {
                "model.blocks": Int(1, 4),
                "model.width": Int(64, 512, log=True),
                "model.hidden": Int(64, 1024, log=True),
                "dropout": share,
                "model.residual_dropout": share,
                "numeric_embedding": Categorical(("none", "piecewise-linear")),
            }
        case "wide-deep":
            return {"hidden": wide, "activation": activation, "dropout": share}
        case "cnn":
            return {
                "channels": Layers(Int(1, 3), Int(8, 64, log=True)),
                "hidden": Layers(Int(0, 2), Int(32, 256, log=True)),
                "activation": activation,
                "dropout": share,
            }
        case _:
            return {}


def _try(space: Space, raw: Mapping[str, Any], wanted: str, value: Any) -> None:
    """Read the settings of a trial in which one parameter has this value, if there can be such a trial."""
    needed: dict[str, Any] = {}
    pending = [next((name for name in space if wanted == name or wanted.startswith(f"{name}.")), wanted)]
    while pending:
        for other, accepted in (space.parameters[pending.pop()].when or {}).items():
            needed[other] = accepted[0] if isinstance(accepted, (list, tuple)) else accepted
            pending.append(other)
    reached = False

    def choose(name: str, parameter: Float | Int | Categorical) -> Any:
        nonlocal reached
        reached = reached or name == wanted
        if name == wanted:
            return value
        if name.endswith(".layers") and wanted.startswith(name.removesuffix("layers")):
            return max(1, parameter.ends[0])
        return needed.get(name, parameter.ends[0])

    values = space.walk(choose)
    if reached:
        build_config(merge(raw, placed(values)))
