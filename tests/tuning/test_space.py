from __future__ import annotations

import itertools
from typing import Any

import optuna
import pytest

from stoker.errors import ConfigError, InputTypeError, UnknownNameError
from stoker.tuning.space import Categorical, Float, Int, Layers, Parameter, Space, parse_space


def suggested(space: Space, **values: Any) -> dict[str, Any]:
    return space.suggest(optuna.trial.FixedTrial(values))  # type: ignore[arg-type]


def test_toml_and_python_say_the_same() -> None:
    read = parse_space(
        {
            "lr": {"low": 1e-5, "high": 1e-1, "log": True},
            "batch_size": [32, 64],
            "epochs": {"low": 1, "high": 9, "step": 2},
            "dropout": {"low": 0, "high": 0.5},
            "hidden": {"layers": {"low": 1, "high": 3}, "width": {"low": 16, "high": 64}},
            "optimizer": ["adam", "sgd"],
            "momentum": {"low": 0.0, "high": 0.99, "when": {"optimizer": "sgd"}},
            "training": {"clip_norm": [0.5, 1.0]},
        }
    )
    written: dict[str, Parameter] = {
        "lr": Float(1e-5, 1e-1, log=True),
        "batch_size": Categorical((32, 64)),
        "epochs": Int(1, 9, step=2),
        "dropout": Float(0.0, 0.5),
        "hidden": Layers(Int(1, 3), Int(16, 64)),
        "optimizer": Categorical(("adam", "sgd")),
        "momentum": Float(0.0, 0.99, when={"optimizer": "sgd"}),
        "training.clip_norm": Categorical((0.5, 1.0)),
    }
    assert read.parameters == Space(written).parameters


def test_what_a_study_remembers_reads_back_to_the_same() -> None:
    space = Space(
        {
            "lr": Float(1e-5, 1e-1, log=True),
            "dropout": Float(0.0, 0.5, step=0.1),
            "hidden": Layers(Int(1, 3), Categorical((16, 64)), when={"model": ["mlp", "cnn"]}),
            "model": Categorical(("mlp", "linear", "cnn")),
        }
    )
    assert parse_space(space.to_dict()).to_dict() == space.to_dict()


def test_values_come_from_the_trial() -> None:
    space = Space({"lr": Float(0.0, 1.0), "n": Int(1, 9), "kind": Categorical(("a", "b"))})
    assert suggested(space, lr=0.25, n=3, kind="b") == {"lr": 0.25, "n": 3, "kind": "b"}


def test_a_width_for_each_layer_that_there_is() -> None:
    space = Space({"hidden": Layers(Int(0, 3), Int(8, 64))})
    values = {"hidden.layers": 2, "hidden.width_1": 32, "hidden.width_2": 8, "hidden.width_3": 64}
    assert suggested(space, **values) == {"hidden": [32, 8]}
    assert suggested(space, **{"hidden.layers": 0}) == {"hidden": []}


def test_a_parameter_whose_condition_does_not_hold_is_left_out_and_so_is_what_hangs_on_it() -> None:
    space = Space(
        {
            "nesterov": Categorical((True, False), when={"momentum": [0.5, 0.9]}),
            "momentum": Categorical((0.0, 0.5, 0.9), when={"optimizer": "sgd"}),
            "optimizer": Categorical(("sgd", "adam")),
        }
    )
    assert suggested(space, optimizer="adam") == {"optimizer": "adam"}
    assert suggested(space, optimizer="sgd", momentum=0.0) == {"optimizer": "sgd", "momentum": 0.0}
    assert suggested(space, optimizer="sgd", momentum=0.9, nesterov=True)["nesterov"] is True


def test_lists_can_be_chosen_and_stand_in_the_study_as_text() -> None:
    space = Space({"hidden": Categorical(((50, 40), (100,)))})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    trial = study.ask()
    assert space.suggest(trial)["hidden"] in [(50, 40), (100,)]
    assert trial.params["hidden"] in ["[50, 40]", "[100]"]


def test_a_step_that_does_not_divide_the_range_stays_within_it() -> None:
    space = Space({"a": Float(0.0, 1.0, step=0.3), "n": Int(1, 10, step=4)})
    assert [point["a"] for point in space.points() if point["n"] == 1] == [0.0, 0.3, 0.6, 0.9]
    assert sorted({point["n"] for point in space.points()}) == [1, 5, 9]
    suggested(space, a=0.9, n=9)  # warns if the range were not divided


def test_a_grid_has_every_combination_once() -> None:
    space = Space({"a": Categorical((1, 2, 3)), "b": Int(0, 1), "c": Float(0.0, 1.0, step=0.5)})
    points = [(point["a"], point["b"], point["c"]) for point in space.points()]
    assert points == list(itertools.product((1, 2, 3), (0, 1), (0.0, 0.5, 1.0)))


def test_a_grid_of_a_conditional_space_has_no_combination_twice() -> None:
    space = Space(
        {
            "optimizer": Categorical(("sgd", "adam")),
            "momentum": Categorical((0.0, 0.9), when={"optimizer": "sgd"}),
            "hidden": Layers(Int(1, 2), Categorical((8, 16))),
        }
    )
    points = space.points()
    assert len(points) == (2 + 1) * (2 + 4)
    assert len({tuple(sorted(point.items())) for point in points}) == len(points)


ODD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({}, ConfigError, "space: must have at least one parameter, got none."),
    ({"lr": 0.1}, ConfigError, "space.lr: must be a range or a list of choices, got 0.1."),
    ({"lr": {"low": 1.0, "hihg": 2.0}}, UnknownNameError, "Did you mean 'high'?"),
    ({"lr": {"low": 1.0}}, ConfigError, "space.lr.high: must be a number, got none."),
    (
        {"lr": {"low": 1.0, "high": 0.1}},
        ConfigError,
        "space.lr: must not be empty: low must not be above high, got 1.0",
    ),
    ({"lr": {"low": 0.0, "high": 0.1, "log": True}}, ConfigError, "space.lr: must be above 0 to be drawn by its log"),
    ({"lr": {"low": 0.1, "high": 1.0, "log": True, "step": 0.1}}, ConfigError, "must have either log or step"),
    ({"lr": {"low": 0.1, "high": 1.0, "step": 0.0}}, ConfigError, "space.lr.step: must be above 0, got 0.0."),
    ({"lr": {"low": 0.1, "high": float("inf")}}, ConfigError, "space.lr.high: must be a finite number, got inf."),
    ({"lr": {"low": 0.1, "high": 1, "log": "yes"}}, ConfigError, "space.lr.log: must be true or false, got 'yes'."),
    ({"act": []}, ConfigError, "space.act: must have at least one choice, got none."),
    ({"act": ["relu", "relu"]}, ConfigError, 'space.act: must not have a choice twice, got "relu".'),
    ({"act": [object()]}, ConfigError, "space.act: must choose among finite numbers, text"),
    ({"act": {"choices": "relu"}}, ConfigError, "space.act: must have a list of choices, got 'relu'."),
    ({"n": Int(1, 2.5)}, ConfigError, "space.n: must have whole numbers for low, high and step, got 2.5."),  # type: ignore[arg-type]
    ({"h": {"layers": {"low": -1, "high": 2}, "width": [8]}}, ConfigError, "space.h.layers: must have a low of 0 or"),
    ({"h": {"layers": {"low": 1, "high": 2}}}, ConfigError, "space.h.width: must be a range or a list of choices"),
    ({"m": {"low": 0, "high": 1, "when": {"optimiser": "sgd"}}, "optimizer": ["sgd"]}, UnknownNameError, "'optimizer'"),
    ({"m": {"low": 0, "high": 1, "when": "sgd"}}, ConfigError, "space.m.when: must be values by name, got 'sgd'."),
    (
        {"m": {"low": 0, "high": 1, "when": {"optimizer": "sdg"}}, "optimizer": ["sgd", "adam"]},
        UnknownNameError,
        "space.m.when.optimizer: must be one of the known names, got 'sdg'. Did you mean 'sgd'?",
    ),
    (
        {"m": {"low": 0, "high": 1, "when": {"n": 50}}, "n": {"low": 1, "high": 9}},
        ConfigError,
        "space.m.when.n: must be from 1 to 9, as n is, got 50.",
    ),
    (
        {"a": {"choices": [1], "when": {"b": 1}}, "b": {"choices": [1], "when": {"a": 1}}},
        ConfigError,
        "space: parameters must not depend on each other in a circle",
    ),
]


@pytest.mark.parametrize(("raw", "kind", "text"), ODD, ids=[text[:40] for _, _, text in ODD])
def test_what_is_wrong_is_said(raw: dict[str, Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind) as caught:
        parse_space(raw)
    assert text in str(caught.value)


def test_other_objects_are_no_parameters() -> None:
    with pytest.raises(InputTypeError, match=r"space.lr: must be a parameter, got float"):
        Space({"lr": 0.1})  # type: ignore[dict-item]


def test_a_grid_must_be_countable_and_finite() -> None:
    with pytest.raises(ConfigError, match=r"space.lr: must be countable for a grid, got 0.1 to 1.0"):
        Space({"lr": Float(0.1, 1.0)}).points()
    with pytest.raises(ConfigError, match="must not have more than 100,000 points"):
        Space({"a": Int(1, 1000), "b": Int(1, 1000)}).points()
