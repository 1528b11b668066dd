"""How images are laid out, and which convolutions PyTorch must not be given so."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from stoker import Trainer
from stoker.errors import ConfigError
from stoker.training.layout import channels_innermost

CPU = torch.device("cpu")


def shrinking(channels: int) -> nn.Module:
    """A residual block's way past: a 1 x 1 convolution with a stride."""
    return nn.Sequential(nn.Conv2d(channels, 6, 1, stride=2), nn.Flatten(), nn.LazyLinear(3))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (nn.Linear(4, 2), False),
        (nn.Conv1d(4, 6, 1, stride=2), False),
        (nn.Conv2d(4, 6, 3, stride=2), True),
        (nn.ConvTranspose2d(4, 6, 3), True),
        (nn.Conv2d(4, 6, 1), True),
        (nn.Conv2d(1, 6, 1, stride=2), True),
        (nn.Conv2d(8, 6, 1, stride=2), True),
        (nn.Conv2d(4, 6, 1, stride=(1, 2)), False),
        (nn.LazyConv2d(6, 1, stride=2), False),
        (shrinking(7), False),
    ],
)
def test_convolutions_like_it_but_for_those_without_a_safe_gradient(model: nn.Module, expected: bool) -> None:
    assert channels_innermost(model, None, CPU) is expected
    assert channels_innermost(model, False, CPU) is False
    assert channels_innermost(shrinking(4), True, torch.device("cuda"))


def test_who_asks_for_it_is_told_which_layer_it_is() -> None:
    wanted = (
        "channels_last: must not be set for a model with a strided 1 x 1 convolution of few channels, got 0. "
        "Leave channels_last out, or give the layer 8 input channels or more."
    )
    with pytest.raises(ConfigError, match=re.escape(wanted)):
        Trainer(shrinking(4), nn.CrossEntropyLoss(), "sgd", channels_last=True, device="cpu")


def test_such_a_model_trains() -> None:
    """In the other layout the process dies (``free(): invalid next size``)."""
    torch.manual_seed(0)
    trainer = Trainer(shrinking(4), nn.CrossEntropyLoss(), "sgd", lr=0.1, device="cpu", engine="eager")
    history = trainer.fit((torch.randn(64, 4, 12, 12), torch.arange(64) % 3), epochs=3, batch_size=8, progress="none")
    assert history.rows[-1]["train_loss"] < history.rows[0]["train_loss"]
