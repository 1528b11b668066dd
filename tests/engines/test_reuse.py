"""One program for steps that differ in numbers alone, and another for those that differ in anything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny import some
from torch import Tensor, nn

from stoker.engines.reuse import KEPT, PROGRAMS, Kept
from stoker.engines.xla.program import Program
from stoker.training.trainer import Trainer

X, Y, LABELS = some(160, 4), some(160, 1, seed=1), torch.arange(160) % 3


def network(width: int = 8, last: int = 1, slope: float = 0.1, dropout: float = 0.2, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = [nn.Linear(4, width), nn.LeakyReLU(slope), nn.BatchNorm1d(width), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(width, last))


def trained(
    model: nn.Module, criterion: Any = "mse", data: Any = (X, Y), batch: int = 16, **settings: Any
) -> list[float]:
    settings = {"optimizer": "adam", "lr": 0.01, "seed": 5, **settings}
    trainer = Trainer(model, criterion, engine="compiled", device="cpu", metrics=(), **settings)
    history = trainer.fit(data, epochs=3, batch_size=batch, progress="none", check=False)
    assert trainer.engine.reason is None
    return history.column("train_loss")


NUMBERS: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
    "rate": (network, {"lr": 0.03}),
    "betas": (network, {"optimizer_settings": {"betas": (0.8, 0.9), "eps": 1e-6}}),
    "dropout": (lambda: network(dropout=0.6), {}),
    "weights": (lambda: network(seed=9), {}),
    "seed": (network, {"seed": 6}),
    "data": (network, {"data": (X * 2, Y + 1)}),
    "schedule": (network, {"schedule": "one-cycle"}),
}


@pytest.mark.parametrize("what", NUMBERS)
def test_numbers_are_inputs(what: str, made: list[Program]) -> None:
    make, settings = NUMBERS[what]
    first = trained(network())
    model, alone = make(), make()
    losses = trained(model, **settings)
    assert len(made) == 1
    assert losses != first
    PROGRAMS.clear()
    assert trained(alone, **settings) == losses  # the same as with a program of its own, to the bit
    assert len(made) == 2
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), alone.state_dict().values(), strict=True))


def frozen() -> nn.Module:
    model = network()
    model[0].requires_grad_(False)
    return model


def still() -> nn.Module:
    model = network()
    model[2].eval()
    return model


def tied(really: bool) -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Linear(4, 1))
    if really:
        model[2].weight = model[0].weight
    return model


class Own(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        for module in self:
            x = module(x)
        return x


def own() -> nn.Module:
    return Own(*network())


def own_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().mean()


def shared(second: bool) -> nn.Module:
    one, other = nn.Sigmoid(), nn.Tanh()
    layers = [nn.Linear(4, 4), one, nn.Linear(4, 4), other, nn.Linear(4, 4), one if second else other]
    return nn.Sequential(*layers, nn.Linear(4, 1), nn.Dropout(0.1))


FACTOR = [1.0]


def squeezed(x: Tensor) -> Tensor:
    return torch.relu(x) * FACTOR[0]


def encoder(activation: Any) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.TransformerEncoderLayer(4, 2, 8, activation=activation), nn.Linear(4, 1))


CLASSES: dict[str, Any] = {"data": (X, LABELS), "criterion": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0]))}
HEAVIER = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 4.0]))
SMOOTH = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0]), label_smoothing=0.1)
OTHERS: dict[str, tuple[Callable[[], nn.Module], dict[str, Any], Callable[[], nn.Module], dict[str, Any]]] = {
    "width": (network, {}, lambda: network(width=9), {}),
    "an attribute": (network, {}, lambda: network(slope=0.2), {}),
    "no dropout": (network, {}, lambda: network(dropout=0.0), {}),
    "frozen": (network, {}, frozen, {}),
    "in evaluation mode": (network, {}, still, {}),
    "tied": (lambda: tied(False), {}, lambda: tied(True), {}),
    "momentum": (network, {"optimizer": "sgd"}, network, {"optimizer": "sgd", "momentum": 0.9}),
    "amsgrad": (network, {}, network, {"optimizer_settings": {"amsgrad": True}}),
    "batch": (network, {}, network, {"batch": 32}),
    "rows": (network, {}, network, {"data": (X[:128], Y[:128])}),
    "clipping": (network, {}, network, {"clip_norm": 1.0}),
    "accumulation": (network, {}, network, {"accumulate": 2}),
    "average": (network, {}, network, {"ema": 0.9}),
    "precision": (network, {}, network, {"precision": "bf16"}),
    "criterion": (network, {}, network, {"criterion": "mae"}),
    "class weights": (lambda: network(last=3), CLASSES, lambda: network(last=3), CLASSES | {"criterion": HEAVIER}),
    "smoothing": (lambda: network(last=3), CLASSES, lambda: network(last=3), CLASSES | {"criterion": SMOOTH}),
    "where a shared part stands": (lambda: shared(False), {}, lambda: shared(True), {}),
    "an activation": (lambda: encoder("relu"), {}, lambda: encoder(nn.functional.gelu), {}),
    "an activation of the user's own": (lambda: encoder(squeezed), {}, lambda: encoder(squeezed), {}),
    "code of the user's own": (own, {}, own, {}),
    "a loss of the user's own": (network, {"criterion": own_loss}, network, {"criterion": own_loss}),
}


@pytest.mark.parametrize("what", OTHERS)
def test_everything_else_takes_another_program(what: str, made: list[Program]) -> None:
    make, settings, other, others = OTHERS[what]
    trained(make(), **settings)
    trained(other(), **others)
    assert len(made) == 2


def test_names_of_inputs_tell_programs_apart(made: list[Program]) -> None:
    for names in (("input1", "input2"), ("input2", "input1")):
        torch.manual_seed(0)
        trained(nn.Bilinear(4, 4, 1), data=({names[0]: X, names[1]: X.flip(0)}, Y))
    assert len(made) == 2


def test_class_weights_of_the_same_values_are_the_same(made: list[Program]) -> None:
    for _ in range(2):
        criterion = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0]))
        trained(network(last=3), criterion=criterion, data=(X, LABELS))
    assert len(made) == 1


def test_the_program_used_least_recently_goes_first() -> None:
    kept: Kept[int] = Kept()
    for number in range(KEPT):
        assert kept.get_or_make(number, lambda number=number: number) == number  # type: ignore[misc]
    assert kept.get_or_make(0, lambda: -1) == 0
    kept.get_or_make("new", lambda: 7)
    assert 0 in kept
    assert 1 not in kept
    assert kept.get_or_make(None, lambda: 3) == 3
    assert None not in kept
