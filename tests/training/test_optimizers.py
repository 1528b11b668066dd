from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import nn

from stoker.errors import ConfigError, InputTypeError, UnknownNameError
from stoker.training.optimizers import build_optimizer, optimizer_names


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))


def test_names_are_those_of_torchs_classes() -> None:
    names = optimizer_names()
    assert {"sgd", "adam", "adamw", "rmsprop", "lbfgs", "adagrad", "nadam", "muon"} <= set(names)
    assert names["adamw"] is torch.optim.AdamW
    assert all(kind.__name__.lower() == name for name, kind in names.items())


@pytest.mark.parametrize("name", sorted(set(optimizer_names()) - {"muon"}))
def test_every_name_builds(name: str) -> None:
    model = net()
    optimizer = build_optimizer(name, model, lr=0.125)
    assert type(optimizer) is optimizer_names()[name]
    assert optimizer.param_groups[0]["lr"] == 0.125
    assert optimizer.param_groups[0]["params"] == list(model.parameters())


def test_muon_takes_matrices() -> None:
    assert isinstance(build_optimizer("muon", nn.Linear(3, 2, bias=False)), torch.optim.Muon)
    with pytest.raises(ConfigError, match=r"optimizer: Muon refused its settings: Muon only supports 2D parameters"):
        build_optimizer("muon", net())


@pytest.mark.parametrize(("name", "lr"), [("sgd", 0.01), ("SGD", 0.01), ("adam", 0.001), ("adagrad", 0.01)])
def test_learning_rate_left_out(name: str, lr: float) -> None:
    assert build_optimizer(name, net()).param_groups[0]["lr"] == lr


def test_settings() -> None:
    optimizer = build_optimizer("sgd", net(), momentum=0.9, weight_decay=0.1, settings={"nesterov": True})
    group = optimizer.param_groups[0]
    assert (group["momentum"], group["weight_decay"], group["nesterov"]) == (0.9, 0.1, True)


@pytest.mark.parametrize(
    "spec",
    [
        torch.optim.RMSprop,
        functools.partial(torch.optim.RMSprop, alpha=0.5),
        lambda parameters: torch.optim.RMSprop(parameters, momentum=0.5),
    ],
    ids=["class", "partial", "function"],
)
def test_whatever_makes_one(spec: Any) -> None:
    model = net()
    optimizer = build_optimizer(spec, model)
    assert type(optimizer) is torch.optim.RMSprop
    assert optimizer.param_groups[0]["params"] == list(model.parameters())


def test_a_class_takes_settings_too() -> None:
    optimizer = build_optimizer(torch.optim.SGD, net(), lr=0.5, momentum=0.9)
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]) == (0.5, 0.9)


def test_one_that_is_made_is_used_as_it_is() -> None:
    model = net()
    mine = torch.optim.SGD(model.parameters(), lr=0.5)
    assert build_optimizer(mine, model) is mine


def test_frozen_parameters_are_left_out() -> None:
    model = net()
    model.get_submodule("0").requires_grad_(False)
    assert build_optimizer("adam", model).param_groups[0]["params"] == list(model.get_submodule("1").parameters())


class TestFused:
    @pytest.mark.parametrize(("name", "fused"), [("adam", True), ("adamw", True), ("sgd", False), ("adagrad", False)])
    def test_where_it_was_measured_to_be_faster(self, name: str, fused: bool) -> None:
        assert bool(build_optimizer(name, net()).defaults["fused"]) is fused

    @pytest.mark.parametrize("settings", [{"foreach": False}, {"fused": False}, {"differentiable": True}])
    def test_unless_the_user_decides(self, settings: dict[str, Any]) -> None:
        assert not build_optimizer("adam", net(), settings=settings).defaults["fused"]

    def test_not_for_complex_numbers(self) -> None:
        model = nn.Linear(2, 1, dtype=torch.complex64)
        assert not build_optimizer("adam", model).defaults["fused"]

    def test_not_for_classes_which_keep_torchs_default(self) -> None:
        assert not build_optimizer(torch.optim.Adam, net()).defaults["fused"]


def other_models() -> torch.optim.Optimizer:
    return torch.optim.Adam(net().parameters())


@pytest.mark.parametrize(
    ("spec", "settings", "kind", "text"),
    [
        (
            "addam",
            {},
            UnknownNameError,
            r"optimizer: must be one of the known names, got 'addam'\. Did you mean 'adam'\?",
        ),
        (
            "adam",
            {"momentum": 0.9},
            ConfigError,
            r"optimizer: Adam has no such setting, got 'momentum'\. .*Known: lr, b",
        ),
        (
            "adam",
            {"settings": {"beta": 1}},
            ConfigError,
            r"optimizer: Adam has no such setting, got 'beta'\. Did you mean 'betas'\? Known: lr, betas,",
        ),
        (
            "sgd",
            {"lr": -1.0},
            ConfigError,
            r"SGD refused its settings: Invalid learning rate: -1\.0, got lr=-1\.0\.",
        ),
        (
            "adam",
            {"lr": float("nan")},
            ConfigError,
            r"Adam refused its settings: Invalid learning rate: nan, got lr=nan",
        ),
        (3, {}, InputTypeError, r"optimizer: must be a name, a class, a function or an optimizer, got int\."),
        (lambda _: 3, {}, InputTypeError, r"optimizer: the function must return a torch optimizer, got int\."),
        (
            lambda _: other_models(),
            {},
            ConfigError,
            r"optimizer: must be made of the model's parameters, got a Adam of",
        ),
        (other_models(), {}, ConfigError, r"optimizer: must be made of the model's parameters, got a Adam of others\."),
        (
            other_models(),
            {"lr": 1.0},
            ConfigError,
            r"an optimizer that is already made takes no settings, got lr\. Set",
        ),
    ],
)
def test_what_is_refused(spec: Any, settings: dict[str, Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        build_optimizer(spec, net(), **settings)


@pytest.mark.parametrize("model", [nn.ReLU(), nn.Linear(2, 1).requires_grad_(False)])
def test_a_model_without_parameters(model: nn.Module) -> None:
    text = rf"optimizer: the model must have parameters to train, got none in {type(model).__name__}\. Unfreeze some\."
    with pytest.raises(ConfigError, match=text):
        build_optimizer("adam", model)
