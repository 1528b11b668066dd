"""Of steps that draw noise, too, a program that computes something else is found out, and no other."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import test_auto
import torch
from test_compiled import trained, weights
from tiny import Y, some
from torch import Tensor, nn

from stoker.engines import auto, rehearsal
from stoker.engines.reuse import PROGRAMS
from stoker.engines.xla.table import LOWERINGS
from stoker.training.trainer import Trainer


@pytest.fixture(autouse=True)
def _no_programs() -> Iterator[None]:
    """None is kept from other tests, nor for them."""
    PROGRAMS.clear()
    yield
    PROGRAMS.clear()


def net(*layers: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), *layers, nn.Linear(8, 1))


def noisy() -> nn.Module:
    return net(nn.ReLU(), nn.BatchNorm1d(8), nn.Dropout(0.4))


def spoilt(monkeypatch: pytest.MonkeyPatch, operator: str, factor: float) -> None:
    right = LOWERINGS[operator]
    monkeypatch.setitem(LOWERINGS, operator, lambda *args, **kwargs: right(*args, **kwargs) * factor)


WRONG = [
    ("aten.relu.default", 1.05, r"the compiled step's loss is .*, not "),
    ("aten.mean.default", 1.001, r"the compiled step's loss is .*, not "),
    ("aten.mm.default", 1.05, r"the compiled step moves \d\.\w+ otherwise"),
]


@pytest.mark.parametrize(("operator", "factor", "reason"), WRONG)
def test_a_program_that_computes_something_else_is_found_out(
    operator: str, factor: float, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoilt(monkeypatch, operator, factor)
    trainer = trained(net(nn.ReLU(), nn.Dropout(0.4)), "sgd", lr=1e-4)
    assert re.match(f"eager: {reason}", trainer.engine_reason)


def test_another_update_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    spoilt(monkeypatch, "aten.sqrt.default", 1.1)
    trainer = trained(noisy(), "adam")
    assert re.match(r"eager: the compiled step moves .* otherwise", trainer.engine_reason)


@pytest.mark.parametrize("right", [True, False])
def test_one_that_was_made_in_a_thread_is_compared(right: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "AT_ONCE", 1e9)
    for name in ("BUILD_SECONDS", "COLD_SECONDS", "WARM_SECONDS", "READY"):
        monkeypatch.setattr(auto, name, 0.0)
    if not right:
        spoilt(monkeypatch, "aten.relu.default", 1.05)
    trainer, _ = test_auto.trained(net(nn.ReLU(), nn.Dropout(0.4)))
    assert re.match("compiled: from epoch" if right else "eager: the compiled step's loss is", trainer.engine_reason)


FORKED = """
import sys
sys.path.insert(0, "tests/engines")
from torch import nn
from test_auto import trained
from stoker.engines import auto, beside
auto.BUILD_SECONDS = auto.COLD_SECONDS = auto.WARM_SECONDS = auto.READY = 0.0
auto.AT_ONCE = 1e9
work = beside._work

def spoilt(*given):
    from stoker.engines.xla.interpret import LOWERINGS
    right = LOWERINGS["aten.relu.default"]
    LOWERINGS["aten.relu.default"] = lambda x: right(x) * 1.05
    work(*given)

if sys.argv[1] == "wrong":
    beside._work = spoilt
assert "jax" not in sys.modules
trainer, _ = trained(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.4), nn.Linear(8, 1)))
print(trainer.engine_reason)
"""


@pytest.mark.parametrize(
    ("which", "reason"), [("right", "compiled: from epoch "), ("wrong", "eager: the compiled step's loss is ")]
)
def test_one_that_was_made_in_another_process_is_compared(which: str, reason: str) -> None:
    found = subprocess.run([sys.executable, "-c", FORKED, which], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith(reason)


class Gaussian(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 0.1 * torch.randn_like(x)


class Attentive(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.2, batch_first=True)
        self.last = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layer(x).mean(1))  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.last = nn.LSTM(4, 5, num_layers=2, dropout=0.3, batch_first=True), nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layer(x)[0][:, -1])  # type: ignore[no-any-return]


def images() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.Dropout2d(0.3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 1))


SEQUENCES = some(150, 6, 4), Y
RIGHT: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
    "dropout": (noisy, {"optimizer": "sgd"}),
    "dropout of planes": (images, {"data": (some(150, 1, 4, 4), Y)}),
    "attention": (Attentive, {"data": SEQUENCES}),
    "rrelu": (lambda: net(nn.RReLU()), {}),
    "gaussian": (lambda: net(Gaussian(), nn.Tanh()), {}),
    "lstm": (Recurrent, {"data": SEQUENCES}),
    "bf16": (noisy, {"precision": "bf16"}),
    "accumulated": (noisy, {"accumulate": 2, "batch_size": 8}),
    "clipped": (noisy, {"clip_norm": 0.1}),
    "averaged": (noisy, {"ema": 0.9, "schedule": "cosine"}),
}


@pytest.mark.parametrize("which", RIGHT)
def test_what_is_right_is_not_refused(which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    call = rehearsal.difference

    def noted(*args: Any, **kwargs: Any) -> str | None:
        compared.append(args)
        return call(*args, **kwargs)

    monkeypatch.setattr(rehearsal, "difference", noted)
    make, settings = RIGHT[which]
    torch.manual_seed(0)
    trainer = trained(make(), epochs=1, **settings)
    assert trainer.engine_reason == "compiled: as asked"
    assert compared


@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_a_bias_before_a_batch_norm_is_no_reason(rate: float) -> None:
    """Its gradient is rounding errors, of which Adam makes whole steps; the batch norm's mean has them too."""
    trainer = trained(net(nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(rate)), "adam", lr=0.1, epochs=1)
    assert trainer.engine_reason == "compiled: as asked"


@pytest.mark.parametrize(
    ("optimizer", "schedule"), [("sgd", "constant"), ("adam", "constant"), ("sgd", "cosine"), ("adam", "one-cycle")]
)
def test_it_leaves_all_as_it_was(optimizer: str, schedule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, optimizer and random numbers: the training is the same to the bit as without a comparison."""

    def fit() -> tuple[list[Tensor], Tensor, Trainer]:
        model = noisy()
        trainer = trained(model, optimizer, ema=0.9, schedule=schedule)
        assert trainer.engine.reason is None
        slots = [one for state in trainer.optimizer.state.values() for one in state.values() if one is not None]
        return [*weights(model), *slots], torch.get_rng_state(), trainer

    mine, numbers, _ = fit()
    monkeypatch.setattr(rehearsal.Rehearsal, "passed", lambda _, program: program)
    theirs, others, _ = fit()
    assert len(mine) == len(theirs)
    assert all(torch.equal(one, other) for one, other in zip(mine, theirs, strict=True))
    assert torch.equal(numbers, others)
