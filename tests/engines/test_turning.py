from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny import assert_near
from torch import Tensor, nn

from stoker import Trainer
from stoker.engines.turning import Turned, is_better_turned
from stoker.engines.xla.program import Program


@pytest.mark.parametrize(
    ("outputs", "inputs", "turned"),
    # as they were measured; see docs/performance.md
    [
        *((50, 8, True), (1024, 8, True), (40, 50, True), (48, 50, True), (80, 100, True), (128, 32, True)),
        *((1, 40, False), (300, 784, False), (100, 300, False), (10, 100, False), (32, 784, False), (64, 128, False)),
        *((16, 100, False), (50, 32, False), (100, 64, False), (65, 64, False), (8, 300, False), (64, 64, False)),
        *((0, 8, False), (8, 0, True), (0, 0, False)),
    ],
)
def test_which_weights_are_better_turned(outputs: int, inputs: int, turned: bool) -> None:
    assert is_better_turned(outputs, inputs) is turned


class Tied(nn.Module):
    """A table that is looked up in, and multiplied with."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(24, 5)
        self.layer = nn.Linear(5, 24)
        self.out = nn.Linear(24, 1)

    def forward(self, codes: Tensor) -> Tensor:
        found = self.layer(self.table(codes)) @ self.table.weight
        out: Tensor = self.out(torch.relu(found @ self.layer.weight.T))
        return out


class Summed(nn.Module):
    """Its weight goes through more than products."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 24)
        self.out = nn.Linear(24, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(torch.tanh(self.layer(x))) + self.layer.weight.square().mean()
        return out


X, CODES, Y = torch.linspace(-1, 1, 192).view(48, 4), torch.arange(48) % 24, torch.linspace(-1, 1, 48).view(48, 1)
CASES: dict[str, tuple[Callable[[], nn.Module], Tensor, list[str]]] = {
    "plain": (lambda: nn.Sequential(nn.Linear(4, 24), nn.Tanh(), nn.Linear(24, 1)), X, ["0.weight"]),
    "tied": (Tied, CODES, ["layer.weight"]),
    "summed": (Summed, X, []),
}


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("name", CASES)
def test_training_with_turned_weights_is_training(
    monkeypatch: pytest.MonkeyPatch, name: str, optimizer: str, made: list[Program]
) -> None:
    make, inputs, wanted = CASES[name]
    found: list[tuple[Turned, list[str]]] = []
    of = Turned.of

    def noted(*given: Any) -> Turned:
        found.append((of(*given), []))
        return found[-1][0]

    monkeypatch.setattr(Turned, "of", noted)
    models, optimizers = [], []
    for engine in ("eager", "compiled"):
        torch.manual_seed(0)
        models.append(make())
        settings: dict[str, Any] = {"clip_norm": 1.0, "ema": 0.9, "engine": engine, "metrics": ()}
        trainer = Trainer(models[-1], "mse", optimizer, lr=0.01, device="cpu", **settings)
        trainer.fit((inputs, Y), epochs=3, batch_size=8, progress="none")
        optimizers.append(trainer.optimizer)
    assert len(made) == 1
    names = [name for name, _ in models[-1].named_parameters()]
    assert [name for name, flag in zip(names, found[0][0].parameters, strict=True) if flag] == wanted
    assert_near(*models)
    states = [[slot for state in one.state.values() for slot in state.values()] for one in optimizers]
    for mine, theirs in zip(*states, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-6)
        assert mine.stride() == theirs.stride()


def test_the_optimizers_tensors_are_turned_with_their_weights() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 24), nn.Tanh(), nn.Linear(24, 1))
    trainer = Trainer(model, "mse", "adam", device="cpu", metrics=())
    text = trainer.explain((X, Y), batch_size=8).graph
    assert "%0.weight.T: f32[4, 24]" in text
    assert "%0.weight.grad.T: f32[4, 24]" in text
    assert "%0.weight.exp_avg.T: f32[4, 24]" in text
    assert "%0.bias.exp_avg: f32[24]" in text
    assert "%2.weight.exp_avg: f32[1, 24]" in text
    assert "0.weight.exp_avg_sq.T = " in text
