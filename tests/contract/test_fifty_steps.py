"""Fifty steps of SGD by a program, beside fifty eager ones: each epoch's loss, and all weights and buffers in the end.

In float32 they agree to 1e-4, the tensors' by their largest number; in float64, where rounding is a billionth of that,
to 1e-10: what is left in float32 is rounding, not another arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from loops import SEED, built, carried_out, prepare
from torch import Tensor, nn

from stoker.data.trees import tree_map
from stoker.models.inputs import TableSpec
from stoker.models.registry import build_model, model_config
from stoker.training.trainer import Trainer

ROWS, BATCH, EPOCHS = 160, 16, 5  # 50 steps
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}


@pytest.fixture(autouse=True)
def prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(monkeypatch)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(ROWS, *shape, generator=torch.Generator().manual_seed(seed))


def codes(size: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, size, (ROWS, *shape), generator=torch.Generator().manual_seed(seed))


def cnn() -> nn.Module:
    first = [nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*first, nn.Conv2d(6, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32, 3))


def images() -> tuple[Tensor, Tensor]:
    """One of three stripes is brighter."""
    x, kinds = numbers(1, 12, 12), codes(3)
    for row, kind in enumerate(kinds.tolist()):
        x[row, 0, :, 4 * kind : 4 * kind + 4] += 1.0
    return x, kinds


def batch_norm() -> nn.Module:
    first = [nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU()]
    return nn.Sequential(*first, nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))


def embedding() -> nn.Module:
    return nn.Sequential(nn.Embedding(20, 8), nn.Flatten(), nn.Linear(48, 2))


def words() -> tuple[Tensor, Tensor]:
    """Whether most words are among the first half."""
    x = codes(20, 6)
    return x, ((x < 10).sum(1) > 3).long()


class Encoder(nn.Module):
    """A small transformer's encoder; a class from the mean over time."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.last = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.layers(x).mean(dim=1))
        return out


def sequences() -> tuple[Tensor, Tensor]:
    x = numbers(6, 16)
    return x, x.mean(dim=1)[:, :3].argmax(dim=1)


def cnn_1d() -> nn.Module:
    first = [nn.Conv1d(6, 8, 3, padding=1), nn.ReLU(), nn.MaxPool1d(2)]
    return nn.Sequential(*first, nn.Conv1d(8, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3))


class Residual(nn.Module):
    """Convolutions around which the image goes as well, through a smaller one."""

    def __init__(self) -> None:
        super().__init__()
        # Eight channels: of four to six, torch 2.13's own strided 1 × 1 convolution, laid out channels last, writes
        # past its memory on its way back (a crash in plain torch too).
        self.first = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.inner = nn.Sequential(nn.Conv2d(8, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8))
        self.around = nn.Conv2d(8, 8, 1, stride=2)
        self.last = nn.Linear(8 * 9, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        out: Tensor = self.last(torch.relu(self.inner(x) + self.around(x)).flatten(1))
        return out


class Gates(nn.Module):
    """The last output of a GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.last = nn.GRU(16, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.gru(x)[0][:, -1])
        return out


def wide_deep() -> nn.Module:
    return build_model(
        model_config({"name": "wide-deep", "hidden": [16, 8]}), TableSpec(n_numeric=3, cardinalities=(5, 8)), 1
    )


def table() -> tuple[dict[str, Tensor], Tensor]:
    numeric, categorical = numbers(3), torch.stack([codes(5), codes(8, seed=1)], dim=1)
    y = numeric[:, :1] * numeric[:, 1:2] + numeric[:, 2:] + categorical[:, :1] - 2.0
    return {"numeric": numeric, "categorical": categorical}, y


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any], str, float]] = {
    "cnn": (cnn, images, "cross-entropy", 0.05),
    "1-d cnn": (cnn_1d, sequences, "cross-entropy", 0.2),
    "residual cnn": (Residual, images, "cross-entropy", 0.05),
    "gru": (Gates, sequences, "cross-entropy", 0.2),
    "batch norm": (batch_norm, lambda: (numbers(4), numbers(4).prod(1, keepdim=True)), "mse", 0.05),
    "embedding": (embedding, words, "cross-entropy", 0.3),
    "transformer encoder": (Encoder, sequences, "cross-entropy", 0.05),
    "wide and deep": (wide_deep, table, "mse", 0.02),
}


BY_AUTO = {"1-d cnn", "gru", "embedding", "wide and deep"}  # the others at length


@pytest.mark.parametrize(
    ("name", "engine", "dtype"),
    [
        *(pytest.param(name, "compiled", torch.float32) for name in CASES),
        *(
            pytest.param(name, "auto", torch.float32, marks=[] if name in BY_AUTO else pytest.mark.long)
            for name in CASES
        ),
        *(pytest.param(name, "compiled", torch.float64, marks=pytest.mark.slow) for name in CASES),
    ],
    ids=str,
)
def test_fifty_steps_of_a_program_are_fifty_eager_ones(name: str, engine: str, dtype: torch.dtype) -> None:
    make, data, criterion, rate = CASES[name]
    inputs, targets = tree_map(lambda leaf: leaf.to(dtype) if leaf.is_floating_point() else leaf, data())
    found = []
    for each in (engine, "eager"):
        model = built(make).to(dtype)
        trainer = Trainer(model, criterion, "sgd", lr=rate, engine=each, device="cpu", seed=SEED, metrics=())
        history = trainer.fit((inputs, targets), epochs=EPOCHS, batch_size=BATCH, progress="none")
        carried_out(trainer, epochs=EPOCHS, updates=ROWS // BATCH)
        assert trainer.state.step == 50
        found.append((history.column("train_loss"), model.state_dict()))
    (losses, mine), (expected, theirs) = found
    near = TOLERANCE[dtype]
    assert losses == pytest.approx(expected, rel=near, abs=0)
    assert losses[-1] < 0.95 * losses[0]  # it learns, so that there is something to agree on
    for key, tensor in theirs.items():
        apart, largest = float((mine[key] - tensor).abs().max()), float(tensor.abs().max())
        assert apart <= near * largest, f"{key}: {apart} apart, of {largest}"
