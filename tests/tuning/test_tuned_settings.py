from __future__ import annotations

from typing import Any

import optuna
import pytest

from stoker.errors import ConfigError, UnknownNameError
from stoker.jobs.config import build_config
from stoker.models.inputs import ImageSpec, TableSpec
from stoker.models.registry import MODELS
from stoker.settings import merge
from stoker.tuning.settings import check_space, default_space, placed
from stoker.tuning.space import Space, parse_space


def test_names_are_placed_where_fit_has_them() -> None:
    values = {"lr": 0.1, "hidden": [8], "model": "mlp", "preset": "best", "data.clip": 3.0, "model.blocks": 2}
    assert placed(values) == {
        "training": {"lr": 0.1},
        "model": {"hidden": [8], "name": "mlp", "blocks": 2},
        "preset": "best",
        "data": {"clip": 3.0},
    }
    assert placed({"training.optimizer_settings.nesterov": True}) == {
        "training": {"optimizer_settings": {"nesterov": True}}
    }


def spaces() -> list[Any]:
    kinds = {TableSpec: False, ImageSpec: True}
    found = [(name, kinds[kind]) for name, entry in MODELS.items() for kind in entry.builders]
    return [pytest.param(*one, id=f"{one[0]}-{'images' if one[1] else 'tables'}") for one in found]


@pytest.mark.parametrize(("model", "images"), spaces())
def test_each_model_has_a_default_space_all_of_which_fit_takes(model: str, images: bool) -> None:
    raw = {"model": {"name": model}}
    space = default_space(build_config(raw), raw, images=images)
    check_space(space, raw, "loss")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    for _ in range(20):
        build_config(merge(raw, placed(space.suggest(study.ask()))))
    assert {"lr", "batch_size"} < set(space)


def test_the_default_space_leaves_out_what_is_fixed() -> None:
    raw = {"training": {"lr": 0.01}, "model": {"hidden": [8]}}
    names = set(default_space(build_config(raw), raw, images=False))
    assert not names & {"lr", "hidden"}
    assert {"batch_size", "dropout"} < names


def test_a_preset_keeps_its_network() -> None:
    raw = {"preset": "best"}
    assert set(default_space(build_config(raw), raw, images=False)) == {"lr", "batch_size", "weight_decay", "dropout"}


ODD: list[tuple[dict[str, Any], dict[str, Any], type[Exception], str]] = [
    ({"leaning_rate": [1]}, {}, UnknownNameError, "space: must be one of the known names, got 'leaning_rate'."),
    ({"drop_out": [0.1]}, {}, UnknownNameError, "Did you mean 'dropout'?"),
    ({"training.lrr": [1]}, {}, UnknownNameError, "Did you mean 'training.lr'?"),
    ({"dropout": {"low": 0.0, "high": 1.5}}, {}, ConfigError, "model.dropout: must be less than 1, got 1.5."),
    (
        {"activation": ["relu", "rulu"]},
        {},
        ConfigError,
        "model.activation: must be one of the known names, got 'rulu'.",
    ),
    ({"hidden": {"layers": {"low": 1, "high": 2}, "width": {"low": 0, "high": 9}}}, {}, ConfigError, "got 0."),
    ({"blocks": [1]}, {}, UnknownNameError, "got 'blocks'"),
    ({"model.blocks": [1]}, {"model": {"name": "mlp"}}, UnknownNameError, "'blocks' is a setting of resnet."),
    ({"valid_size": [0.1, 0.2]}, {}, ConfigError, "space.valid_size: cannot be tuned"),
    (
        {"seed": [0, 1]},
        {},
        ConfigError,
        "space.seed: cannot be tuned: with another value trials could not be compared.",
    ),
    ({"loss": ["mse", "mae"]}, {}, ConfigError, "Or choose a --metric."),
    (
        {"lr": [0.1]},
        {"training": {"lr": 0.2}},
        ConfigError,
        "space.lr: must be either fixed or tuned, got fixed as 0.2.",
    ),
    (
        {
            "optimizer": ["sgd", "adam"],
            "momentum": {"low": -1.0, "high": 0.9, "when": {"optimizer": "sgd"}},
            "epochs": [0],
        },
        {},
        ConfigError,
        "training.epochs: must be greater than or equal to 1, got 0.",
    ),
]


@pytest.mark.parametrize(("space", "raw", "kind", "text"), ODD, ids=[text[:40] for *_, text in ODD])
def test_what_is_wrong_is_said_before_the_first_trial(
    space: dict[str, Any], raw: dict[str, Any], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind) as caught:
        check_space(parse_space(space), raw, "loss")
    assert text in str(caught.value)


def test_the_loss_can_be_tuned_where_a_metric_compares() -> None:
    check_space(parse_space({"loss": ["mse", "mae"]}), {}, "rmse")


def test_conditions_are_met_when_values_are_tried_out() -> None:
    space = parse_space(
        {"model": ["mlp", "resnet"], "model.blocks": {"low": 1, "high": 3, "when": {"model": "resnet"}}}
    )
    check_space(space, {}, "loss")
    with pytest.raises(ConfigError, match=r"model\.blocks: must be greater than or equal to 1, got 0"):
        check_space(
            parse_space({"model": ["mlp", "resnet"], "model.blocks": {"choices": [0, 3], "when": {"model": "resnet"}}}),
            {},
            "loss",
        )


def test_everything_fixed_leaves_nothing_to_try() -> None:
    raw = {"training": {"lr": 0.1, "batch_size": 32, "weight_decay": 0.0}, "model": {"name": "linear"}}
    with pytest.raises(ConfigError, match="space: must have a parameter that is not fixed"):
        default_space(build_config(raw), raw, images=False)
    assert isinstance(default_space(build_config({}), {}, images=False), Space)
