"""What a Trainer takes, as data and as settings, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fitting import QUIET, VALID, X, Y, net, same, trainer_of, weights
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from stoker.data.resident import ResidentBatches
from stoker.errors import ConfigError, DataError, InputTypeError, UnknownNameError
from stoker.training.trainer import Trainer


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Weights are the same whichever tests ran before."""
    torch.manual_seed(0)


class TestData:
    def test_a_loader_a_data_set_and_tensors_come_to_the_same(self) -> None:
        found = []
        for data in (
            (X, Y),
            (X.numpy(), Y.numpy()),
            TensorDataset(X, Y),
            ResidentBatches(X, Y),
            DataLoader(TensorDataset(X, Y), batch_size=32),
        ):
            model = nn.Linear(3, 1)
            model.load_state_dict({"weight": torch.ones(1, 3), "bias": torch.zeros(1)})
            trainer_of(model).fit(data, epochs=3, shuffle=False, **QUIET)
            found.append(weights(model))
        assert all(same(each, found[0]) for each in found)

    def test_a_shuffling_loader_has_the_same_order_each_time(self) -> None:
        found = []
        for global_seed in (1, 2):
            model = net()
            torch.manual_seed(global_seed)
            trainer_of(model).fit(DataLoader(TensorDataset(X, Y), batch_size=8, shuffle=True), epochs=3, **QUIET)
            found.append(weights(model))
        assert same(*found)

    def test_data_that_yield_nothing(self) -> None:
        loader = DataLoader(TensorDataset(X, Y), batch_size=100, drop_last=True)
        text = r"fit: the data must yield at least one batch, got none\. Look at the data set\'s length, and at dro"
        with pytest.raises(DataError, match=text):
            trainer_of(net()).fit(loader, **QUIET)

    def test_the_users_data_are_left_alone(self) -> None:
        model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 1))
        x = X.clone()
        trainer_of(model).fit((x, Y), (x, Y), epochs=2, shuffle=False, **QUIET)
        assert torch.equal(x, X)

    def test_an_iterable_without_a_length_with_a_schedule_over_all_steps(self) -> None:
        class Stream(IterableDataset[Any]):
            def __iter__(self) -> Iterator[Any]:
                return zip(X, Y, strict=True)

        with pytest.raises(ConfigError, match="schedule: cosine must know how many steps an epoch has"):
            trainer_of(nn.Linear(3, 1), schedule="cosine").fit(Stream(), **QUIET)
        history = trainer_of(nn.Linear(3, 1), schedule="exponential").fit(Stream(), epochs=2, **QUIET)
        assert history.column("step") == [3, 6]


SETTINGS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"model": nn.Linear}, InputTypeError, r"model: must be a torch\.nn\.Module, got type\. Pass an instance of it\."),
    (
        {"criterion": nn.MSELoss},
        InputTypeError,
        r"criterion: must be a module, .*, got the class MSELoss\. Pass an inst",
    ),
    ({"criterion": 3}, InputTypeError, r"criterion: must be a module, a function or a name, got int\."),
    ({"criterion": "msee"}, UnknownNameError, r"loss: must be one of the known names, got 'msee'\. Did you mean 'mse'"),
    ({"optimizer": "addam"}, UnknownNameError, r"optimizer: must be one of the known names, got 'addam'"),
    ({"schedule": "cosin"}, UnknownNameError, r"schedule: must be one of the known names, got 'cosin'"),
    ({"clip_norm": 0}, ConfigError, r"clip_norm: must be above 0, got 0\. Leave it out not to clip\."),
    ({"clip_norm": math.nan}, ConfigError, r"clip_norm: must be above 0, got nan\."),
    ({"device": "gpu"}, UnknownNameError, r"device: must be one of the known names, got 'gpu'"),
    ({"precision": "16"}, UnknownNameError, r"precision: must be one of the known names, got '16'"),
    (
        {"engine": "egaer"},
        UnknownNameError,
        r"engine: must be one of the known names, got 'egaer'\. Did you mean 'eager",
    ),
    ({"metrics": ["mea"]}, UnknownNameError, r"metric: must be one of the known names, got 'mea'"),
    ({"metrics": ["mae"], "criterion": F.mse_loss}, ConfigError, r"metrics: need the task, got none"),
]


@pytest.mark.parametrize(("settings", "kind", "text"), SETTINGS)
def test_settings_that_are_refused(settings: dict[str, Any], kind: type[Exception], text: str) -> None:
    given: dict[str, Any] = {"model": nn.Linear(3, 1), "criterion": "mse", "device": "cpu"} | settings
    with pytest.raises(kind, match=text):
        Trainer(**given)


FIT: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"epochs": 0}, ConfigError, r"epochs: must be a whole number from 1 on, got 0\."),
    ({"epochs": 2.5}, ConfigError, r"epochs: must be a whole number from 1 on, got 2\.5\."),
    ({"batch_size": 0}, ConfigError, r"batch_size: must be a whole number from 1 on, got 0\."),
    ({"patience": 3, "valid": None}, ConfigError, r"patience: needs a validation split to compare epochs by, got none"),
    ({"patience": 0}, ConfigError, r"patience: must be at least 1 epoch, got 0\."),
    ({"min_delta": -1}, ConfigError, r"min_delta: must not be negative, got -1\."),
    (
        {"monitor": "loss"},
        ConfigError,
        r"monitor: must begin with \"valid_\", got 'loss'\. Such as valid_loss or valid_",
    ),
    ({"monitor": "valid_rmes"}, UnknownNameError, r"metric: must be one of the known names, got 'rmes'\. Did you mean"),
    (
        {"monitor": "valid_f1"},
        UnknownNameError,
        r"monitor: must be one of the known names, got 'valid_f1'\. .*Known: va",
    ),
    ({"progress": "loud"}, UnknownNameError, r"progress: must be one of the known names, got 'loud'"),
    ({"train": (X, Y[:3])}, DataError, r"data: inputs and targets must have the same number of rows"),
    (
        {"train": (X, Y[:, 0]), "valid": None},
        DataError,
        r"targets: must have the shape of the model's outputs, \[32, 1\]",
    ),
    (
        {"valid": (VALID[0], VALID[1][:, 0])},
        DataError,
        r"targets: must have the shape of the model's outputs, \[40, 1\]",
    ),
    ({"callbacks": [print]}, InputTypeError, r"callbacks: must be instances of stoker\.Callback, got builtin_function"),
    ({"train": "housing.csv"}, InputTypeError, r"data: must be \(inputs, targets\), .* go to stoker\.fit\."),
]


@pytest.mark.parametrize(("settings", "kind", "text"), FIT)
def test_what_fit_refuses(settings: dict[str, Any], kind: type[Exception], text: str) -> None:
    given: dict[str, Any] = {"train": (X, Y), "valid": VALID, "epochs": 1} | QUIET | settings
    model = net()
    trainer = trainer_of(model)
    with pytest.raises(kind, match=text):
        trainer.fit(given.pop("train"), given.pop("valid"), **given)
    assert not torch.are_deterministic_algorithms_enabled()
