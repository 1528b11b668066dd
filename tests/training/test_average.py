"""Averages of weights of which some are frozen, or unfrozen, in the middle of training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stoker.training.average import WeightAverage
from stoker.training.callbacks import Callback
from stoker.training.history import Row
from stoker.training.trainer import Trainer

DECAY = 0.75


def some(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def moved(model: nn.Module, by: float) -> None:
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(by)


def three_updates(model: nn.Linear, average: WeightAverage, change: Callable[[], Any] = lambda: None) -> None:
    for by in (1.0, 2.0):
        moved(model, by)
        average.update()
    change()
    moved(model, 4.0)
    average.update()


def test_one_that_joins_begins_as_itself() -> None:
    model = nn.Linear(2, 1)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    model.bias.requires_grad_(False)
    average = WeightAverage(model, DECAY)
    three_updates(model, average, lambda: model.bias.requires_grad_(True))
    with average.applied():
        assert model.bias.item() == 4.0
        weight = 0.75 * (0.75 * 1.0 + 0.25 * 3.0) + 0.25 * 7.0
        assert model.weight.tolist() == [[weight, weight]]
    assert (model.bias.item(), model.weight[0, 0].item()) == (4.0, 7.0)
    moved(model, 8.0)
    average.update()
    average.keep()
    assert model.bias.item() == 0.75 * 4.0 + 0.25 * 12.0


def test_looking_at_it_changes_nothing() -> None:
    found = []
    for look in (False, True):
        model = nn.Linear(2, 1)
        nn.init.zeros_(model.bias)
        model.bias.requires_grad_(False)
        average = WeightAverage(model, DECAY)

        def change(model: nn.Linear = model, average: WeightAverage = average, look: bool = look) -> None:
            model.bias.requires_grad_(True)
            if look:
                average.tensors()
                average.state_dict()
                with average.applied():
                    pass

        three_updates(model, average, change)
        found.append(average.tensors()[1].item())
    assert found == [4.0, 4.0]


def test_one_that_is_frozen_keeps_its_weight_and_may_join_again() -> None:
    model = nn.Linear(2, 1)
    nn.init.zeros_(model.bias)
    average = WeightAverage(model, DECAY)
    three_updates(model, average, lambda: model.bias.requires_grad_(False))
    average.keep()
    assert model.bias.item() == 3.0
    model.bias.requires_grad_(True)
    moved(model, 1.0)
    average.update()
    average.keep()
    assert model.bias.item() == 4.0


@pytest.mark.parametrize("frozen", [False, True])
def test_its_state_is_that_of_another(frozen: bool) -> None:
    model = nn.Linear(2, 1)
    average, other = WeightAverage(model, DECAY), WeightAverage(model, DECAY)
    model.bias.requires_grad_(not frozen)
    three_updates(model, average)
    model.bias.requires_grad_(True)  # it has no average yet, and gets none by being kept
    state = average.state_dict()
    assert state["places"] == ([0] if frozen else [0, 1])
    other.load_state_dict(state)
    moved(model, 1.0)
    for one in (average, other):
        one.update()
    for mine, theirs in zip(average.tensors(), other.tensors(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_state_of_before_parameters_could_join_fits_too() -> None:
    model = nn.Linear(2, 1)
    model.weight.requires_grad_(False)
    average, other = WeightAverage(model, DECAY), WeightAverage(model, DECAY)
    three_updates(model, average)
    other.load_state_dict({"updates": average.updates, "tensors": average.tensors()})
    assert other.state_dict()["places"] == [1]
    assert torch.equal(other.tensors()[0], average.tensors()[0])
    with pytest.raises(ValueError, match="zip"):
        other.load_state_dict({"updates": 1, "tensors": []})


@pytest.mark.parametrize("thaws", [False, True])
def test_engines_agree_where_a_callback_freezes_or_unfreezes(thaws: bool) -> None:
    class Changes(Callback):
        def on_epoch_end(self, row: Row, is_best: bool) -> None:  # noqa: ARG002
            if row["epoch"] == 2:
                model[0].requires_grad_(thaws)

    models: list[nn.Sequential] = []
    for engine in ("compiled", "eager"):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        model[0].requires_grad_(not thaws)
        trainer = Trainer(model, "mse", "sgd", lr=0.05, ema=0.9, engine=engine, device="cpu", metrics=())
        fitting: dict[str, Any] = {"epochs": 4, "batch_size": 16, "progress": "none", "check": False}
        trainer.fit((some(150, 4), some(150, 1, seed=1)), callbacks=[Changes()], **fitting)
        assert trainer.engine_reason == f"{engine}: as asked"
        models.append(model)
    for mine, theirs in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)
