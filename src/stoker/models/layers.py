"""Layers that networks are made of, Stoker's own and anyone's: a dense layer in one, and a residual block of two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch.nn.functional as F
from torch import Tensor, nn

from stoker.errors import ConfigError, UnknownNameError

__all__ = ["ACTIVATIONS", "MOST_LAYERS", "NORMS", "Activation", "BatchNorm", "Dense", "Norm", "ResidualBlock"]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "leaky-relu": nn.LeakyReLU,
    "mish": nn.Mish,
    "hardswish": nn.Hardswish,
    "softplus": nn.Softplus,
}

Activation = Literal[
    "relu", "gelu", "silu", "tanh", "sigmoid", "elu", "selu", "leaky-relu", "mish", "hardswish", "softplus"
]
ActivationSpec: TypeAlias = str | Callable[[], nn.Module]

Norm = Literal["none", "batch", "layer"]

MOST_LAYERS = 1000
"""Of a network built from settings, which may be a file's: a layer takes some kilobytes even without weights."""


class BatchNorm(nn.BatchNorm1d):
    """``nn.BatchNorm1d`` that trains on a batch of one row, such as an epoch's last, instead of stopping there.

    One row has no variance: it is normalised by the running mean and variance, as in evaluation, and leaves them alone.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's own name
        """``[n, num_features]`` → ``[n, num_features]``."""
        if self.training and input.shape[0] == 1:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(input)


NORMS: dict[str, Callable[[int], nn.Module]] = {"batch": BatchNorm, "layer": nn.LayerNorm}


class Dense(nn.Sequential):
    """``dropout(activation(norm(W·x + b)))``; what is not asked for is not there.

    The parts are its children, in this order: a ``Dense`` of an ``nn.Linear`` and a ReLU is the ``nn.Sequential`` that
    one would write, with the same random numbers drawn.

    Args:
        in_features: Width of the input.
        out_features: Width of the output.
        norm: ``"none"``, ``"batch"`` (over the rows of a batch) or ``"layer"`` (over a row's own features).
        activation: A name out of :data:`ACTIVATIONS`, a class such as ``nn.GELU`` or another function that makes a
            module, or ``None``.
        dropout: The part of the outputs that is set to 0 while training, in ``[0, 1)``; the others grow to make up
            for it.
        bias: Whether there is a ``b``.

    Raises:
        UnknownNameError: There is no such normalisation or activation.
        ConfigError: A width is below 1, or ``dropout`` is out of its range.

    Example:
        >>> nn.Sequential(Dense(8, 64, norm="batch", activation="silu", dropout=0.1), nn.Linear(64, 1))
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        norm: Norm = "none",
        activation: ActivationSpec | None = "relu",
        dropout: float = 0.0,
        bias: bool = True,
    ) -> None:
        _check_widths("Dense", in_features=in_features, out_features=out_features)
        super().__init__(
            nn.Linear(in_features, out_features, bias=bias),
            *norms(norm, out_features),
            *activations(activation),
            *dropouts(dropout),
        )


class ResidualBlock(nn.Module):
    """``x + dropout(W₂·dropout(activation(W₁·norm(x) + b₁)) + b₂)``.

    Source: Gorishniy, Rubachev, Khrulkov, Babenko, "Revisiting Deep Learning Models for Tabular Data", NeurIPS 2021
    (arXiv:2106.11959), section 3.2, ``ResNetBlock``.

    Args:
        width: Of the input and of the output.
        hidden: Of what is between the two linear layers; twice the width if it is not given.
        norm: See :class:`Dense`.
        activation: See :class:`Dense`.
        dropout: Of the hidden outputs.
        residual_dropout: Of what is added to ``x``.

    Raises:
        UnknownNameError: There is no such normalisation or activation.
        ConfigError: A width is below 1, or a dropout is out of its range.
    """

    def __init__(
        self,
        width: int,
        hidden: int | None = None,
        *,
        norm: Norm = "batch",
        activation: ActivationSpec | None = "relu",
        dropout: float = 0.0,
        residual_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        hidden = 2 * width if hidden is None else hidden
        _check_widths("ResidualBlock", width=width, hidden=hidden)
        self.layers = nn.Sequential(
            *norms(norm, width),
            *Dense(width, hidden, activation=activation, dropout=dropout),
            nn.Linear(hidden, width),
            *dropouts(residual_dropout, "residual_dropout"),
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[n, width]`` → ``[n, width]``."""
        output: Tensor = x + self.layers(x)
        return output


def norms(norm: str, width: int) -> list[nn.Module]:
    """The normalisation of that name, or nothing for ``"none"``."""
    if norm == "none":
        return []
    if norm not in NORMS:
        raise UnknownNameError("norm", norm, ["none", *NORMS])
    return [NORMS[norm](width)]


def activations(activation: ActivationSpec | None) -> list[nn.Module]:
    """The activation asked for, or nothing for ``None``."""
    if activation is None:
        return []
    if not isinstance(activation, str):
        return [activation()]
    if activation not in ACTIVATIONS:
        raise UnknownNameError("activation", activation, ACTIVATIONS)
    return [ACTIVATIONS[activation]()]


def dropouts(share: float, where: str = "dropout") -> list[nn.Module]:
    """The dropout asked for, or nothing for 0."""
    if not 0 <= share < 1:
        raise ConfigError(where, "must be from 0 up to, not including, 1", share)
    return [nn.Dropout(share)] if share else []


def _check_widths(layer: str, **widths: int) -> None:
    for name, width in widths.items():
        if width < 1:
            raise ConfigError(f"{layer}.{name}", "must be 1 or more", width)
