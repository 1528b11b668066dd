"""Training in bfloat16 by a program, beside the eager engine's, within what its eight bits allow.

A number is rounded to one of eight bits by at most 2^-9 of itself. A program keeps some numbers in float32 where eager
torch rounds, and adds in another order: of one operation the results may be 2^-8 apart. Through ``OPERATIONS`` after
one another, forward and back, that is ``OPERATIONS × 2^-8`` of a gradient, and so it is of each step that a weight
makes: two trainings may end apart by that part of the way that the weights went, all steps in sum.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from loops import BATCH, EPOCHS, SEED, built, carried_out, labels, prepare, rows
from torch import Tensor, nn

from stoker.training.callbacks import Callback, StepProgress
from stoker.training.trainer import Trainer

OPERATIONS = 12  # two weighty layers, what is between them, and the loss: six ways forward, and six back
NEAR = OPERATIONS * 2.0**-8


@pytest.fixture(autouse=True)
def prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(monkeypatch)


class Attention(nn.Module):
    """Without biases: that of the keys has no gradient, and Adam would make full steps of rounding errors."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, bias=False, batch_first=True)
        self.last = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.attention(x, x, x)[0].mean(dim=1))
        return out


def conv() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 3))


def batch_norm() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8, bias=False), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "mlp": (lambda: nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)), rows(4)),
    "conv": (conv, rows(2, 6, 6)),
    "batch norm": (batch_norm, rows(4)),
    "attention": (Attention, rows(5, 4)),
}


class Way(Callback):
    """How far each parameter went, step by step."""

    def __init__(self, model: nn.Module) -> None:
        self.parameters = dict(model.named_parameters())
        self.before = self.now()
        self.gone = dict.fromkeys(self.parameters, 0.0)

    def now(self) -> dict[str, Tensor]:
        return {name: parameter.detach().clone() for name, parameter in self.parameters.items()}

    def on_step_end(self, _: StepProgress) -> None:
        now = self.now()
        for name in now:
            self.gone[name] += float((now[name] - self.before[name]).norm())
        self.before = now


QUICK = {("sgd", "conv"), ("sgd", "batch norm"), ("adam", "mlp"), ("adam", "attention")}


@pytest.mark.parametrize(
    ("optimizer", "network"),
    [
        pytest.param(*case, marks=[] if case in QUICK else pytest.mark.long)
        for case in itertools.product(["sgd", "adam"], NETWORKS)
    ],
)
def test_a_program_is_as_near_to_eager_steps_as_eight_bits_allow(optimizer: str, network: str) -> None:
    make, x = NETWORKS[network]

    def fit(engine: str, precision: str, listening: bool = False) -> tuple[list[float], nn.Module, Way]:
        model = built(make)
        settings: dict[str, Any] = {"lr": 0.01, "precision": precision, "device": "cpu", "seed": SEED, "metrics": ()}
        trainer = Trainer(model, "cross-entropy", optimizer, engine=engine, **settings)
        way = Way(model)
        callbacks = [way] if listening else []
        history = trainer.fit((x, labels(3)), epochs=EPOCHS, batch_size=BATCH, progress="none", callbacks=callbacks)
        carried_out(trainer)
        return history.column("train_loss"), model, way

    losses, mine, _ = fit("compiled", "bf16")
    expected, theirs, way = fit("eager", "bf16", listening=True)
    assert losses == pytest.approx(expected, rel=NEAR)
    for (name, parameter), other in zip(mine.named_parameters(), theirs.parameters(), strict=True):
        apart = float((parameter - other).norm().detach())
        assert parameter.dtype == torch.float32
        assert way.gone[name] > 0
        assert apart <= NEAR * way.gone[name], f"{name}: {apart} apart, after a way of {way.gone[name]}"
    assert losses != fit("eager", "32")[0]
