"""Dense layers and residual blocks: the modules that one would write by hand, and usable in anyone's model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stoker import Dense, ResidualBlock, Trainer
from stoker.errors import ConfigError, UnknownNameError
from stoker.models.layers import BatchNorm


def rows(n: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("settings", "kinds"),
    [
        ({}, [nn.Linear, nn.ReLU]),
        ({"activation": None}, [nn.Linear]),
        ({"norm": "batch", "dropout": 0.2}, [nn.Linear, BatchNorm, nn.ReLU, nn.Dropout]),
        ({"norm": "layer", "activation": "gelu"}, [nn.Linear, nn.LayerNorm, nn.GELU]),
        ({"activation": nn.Mish}, [nn.Linear, nn.Mish]),
        ({"activation": lambda: nn.LeakyReLU(0.3)}, [nn.Linear, nn.LeakyReLU]),
    ],
)
def test_a_dense_layer_is_its_parts_in_order(settings: dict[str, Any], kinds: list[type[nn.Module]]) -> None:
    assert [type(part) for part in Dense(3, 5, **settings)] == kinds


def test_a_dense_layer_draws_what_its_linear_draws() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        mine = Dense(3, 5, norm="batch", dropout=0.1)
        torch.manual_seed(1)
        theirs = nn.Linear(3, 5)
    assert torch.equal(mine.get_parameter("0.weight"), theirs.weight)
    assert torch.equal(mine.get_parameter("0.bias"), theirs.bias)
    assert "0.bias" not in Dense(3, 5, bias=False).state_dict()


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
def test_the_formula_of_a_dense_layer(norm: Any) -> None:
    layer, x = Dense(3, 5, norm=norm, activation="tanh"), rows(7, 3)
    y = x @ layer.get_parameter("0.weight").T + layer.get_parameter("0.bias")
    if norm != "none":
        over = 0 if norm == "batch" else 1
        y = (y - y.mean(over, keepdim=True)) / (y.var(over, keepdim=True, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(layer(x), y.tanh())


def test_dropout_is_for_training_alone() -> None:
    layer, x = Dense(3, 400, activation=None, dropout=0.25), rows(50, 3)
    whole = layer.eval()(x)
    torch.testing.assert_close(whole, F.linear(x, layer.get_parameter("0.weight"), layer.get_parameter("0.bias")))
    dropped = layer.train()(x)
    gone = dropped == 0
    assert gone.float().mean().item() == pytest.approx(0.25, abs=0.02)
    torch.testing.assert_close(dropped[~gone], whole[~gone] / 0.75)


def test_the_formula_of_a_residual_block() -> None:
    block, x = ResidualBlock(4, 6, norm="layer", activation="silu"), rows(5, 4)
    state = block.state_dict()
    inner = F.layer_norm(x, (4,)) @ state["layers.1.weight"].T + state["layers.1.bias"]
    expected = x + F.silu(inner) @ state["layers.3.weight"].T + state["layers.3.bias"]
    torch.testing.assert_close(block(x), expected)


def test_the_parts_of_a_residual_block() -> None:
    kinds = [type(part).__name__ for part in ResidualBlock(4, dropout=0.1, residual_dropout=0.2).layers]
    assert kinds == ["BatchNorm", "Linear", "ReLU", "Dropout", "Linear", "Dropout"]
    linear = ResidualBlock(4).layers[1]
    assert isinstance(linear, nn.Linear)
    assert linear.out_features == 8, "twice the width, if not said otherwise"


def test_batch_norm_is_torchs_but_for_a_single_row() -> None:
    mine, theirs = BatchNorm(3), nn.BatchNorm1d(3)
    for _ in range(3):
        x = rows(6, 3) * 4 + 2
        assert torch.equal(mine(x), theirs(x))
    before = {name: tensor.clone() for name, tensor in mine.state_dict().items()}
    single = rows(1, 3, seed=1)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        theirs(single)
    assert torch.equal(mine(single), theirs.eval()(single))
    assert all(torch.equal(mine.state_dict()[name], tensor) for name, tensor in before.items())


def test_an_epoch_may_end_in_a_batch_of_one_row() -> None:
    model = nn.Sequential(Dense(3, 8, norm="batch"), ResidualBlock(8), nn.Linear(8, 1))
    X = rows(17, 3)
    trainer = Trainer(model, "mse", "adam", lr=0.01, device="cpu", metrics=())
    history = trainer.fit((X, X[:, :1]), epochs=5, batch_size=8, progress="none")
    assert history.column("train_loss")[-1] < history.column("train_loss")[0]


BACH: dict[str, Any] = {"norm": "bach"}


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (
            lambda: Dense(3, 5, **BACH),
            UnknownNameError,
            r"norm: .* got 'bach'\. Did you mean 'batch'\? Known: none",
        ),
        (
            lambda: Dense(3, 5, activation="rulu"),
            UnknownNameError,
            r"activation: .* got 'rulu'\. Did you mean 'relu'\?",
        ),
        (lambda: Dense(0, 5), ConfigError, r"Dense\.in_features: must be 1 or more, got 0\."),
        (lambda: Dense(3, -1), ConfigError, r"Dense\.out_features: must be 1 or more, got -1\."),
        (lambda: Dense(3, 5, dropout=1), ConfigError, r"dropout: must be from 0 up to, not including, 1, got 1\."),
        (lambda: ResidualBlock(3, 0), ConfigError, r"ResidualBlock\.hidden: must be 1 or more, got 0\."),
        (
            lambda: ResidualBlock(3, residual_dropout=-0.1),
            ConfigError,
            r"residual_dropout: must be from 0 .* got -0\.1",
        ),
    ],
)
def test_what_cannot_be_is_refused(make: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        make()
