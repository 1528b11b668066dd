"""Numeric embeddings: each number of a row as a vector of its own, so that a network bends along it more easily.

Source: Gorishniy, Rubachev, Babenko, "On Embeddings for Numerical Features in Tabular Deep Learning", NeurIPS 2022
(arXiv:2203.05556).
"""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator
from torch import Tensor, nn

from stoker.errors import ConfigError
from stoker.models.layers import ActivationSpec, activations
from stoker.settings import Settings

__all__ = [
    "FeatureLinear",
    "NumericSettings",
    "PeriodicEmbedding",
    "PiecewiseLinearEmbedding",
    "numeric_embedding",
    "periodic",
    "piecewise_linear",
    "quantile_edges",
]

UNFITTED = 3.0  # until bins are fitted, they divide the numbers from minus to plus this evenly


def piecewise_linear(x: Tensor, start: Tensor, length: Tensor, low: Tensor, high: Tensor) -> Tensor:
    r"""How far each number has come through each of its feature's bins: 0 before a bin, 1 after it.

    .. math:: e_t = \mathrm{clamp}\left(\frac{x - b_{t-1}}{b_t - b_{t-1}},\ low_t,\ high_t\right)

    with 0 and 1 for the limits, but that the first bin has no lower limit and the last one no upper limit: equation 1
    of the paper. A bin whose limits are both 0 is none.

    Args:
        x: Shape ``[n, f]``.
        start: Each bin's :math:`b_{t-1}`, shape ``[f, T]``.
        length: Each bin's :math:`b_t - b_{t-1}`, shape ``[f, T]``.
        low: Shape ``[f, T]``.
        high: Shape ``[f, T]``.

    Returns:
        Shape ``[n, f, T]``.
    """
    return ((x.unsqueeze(-1) - start) / length).clamp(low, high)


def periodic(x: Tensor, frequencies: Tensor) -> Tensor:
    r"""Sines and cosines: :math:`[\sin v, \cos v]` with :math:`v_i = 2 \pi c_i x`; equation 2 of the paper.

    Args:
        x: Shape ``[n, f]``.
        frequencies: Each feature's :math:`c`, shape ``[f, k]``.

    Returns:
        Shape ``[n, f, 2·k]``: the sines, then the cosines.
    """
    angles = 2 * math.pi * frequencies * x.unsqueeze(-1)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def quantile_edges(values: Tensor, bins: int) -> Tensor:
    """The edges of bins that hold equally many of the values: their quantiles, section 3.2.1 of the paper.

    Quantiles are values themselves, never between two, so that whole numbers are not cut into bins that hold nothing.

    Args:
        values: One feature's training values, floating, shape ``[n]``, finite.
        bins: How many at most: equal quantiles are one edge, so that a feature with few values has fewer.

    Returns:
        float32, ascending, shape ``[edges]``, ``1 ≤ edges ≤ bins + 1``; one edge alone, of a constant, bounds no bin.
    """
    ordered = values.float().sort().values
    n, steps = len(ordered), torch.arange(bins + 1, device=values.device)
    places = (n * steps + bins - 1) // bins - 1  # the t/bins-quantile is the ⌈n·t/bins⌉-th value
    edges: Tensor = torch.unique_consecutive(ordered[places.clamp(min=0)])
    return edges


class FeatureLinear(nn.Module):
    """A linear map of its own for each feature: ``y[n, f] = x[n, f] · W[f] + b[f]``.

    Weights and biases are drawn as those of ``nn.Linear``: evenly from ``±1/√in_features``.

    Args:
        n_features: ``f``.
        in_features: Width of each feature's input.
        out_features: Width of each feature's output.
    """

    def __init__(self, n_features: int, in_features: int, out_features: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(in_features)
        self.weight = nn.Parameter(torch.empty(n_features, in_features, out_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(n_features, out_features).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """``[n, f, in_features]`` → ``[n, f, out_features]``."""
        return torch.bmm(x.transpose(0, 1), self.weight).transpose(0, 1) + self.bias


class PiecewiseLinearEmbedding(nn.Module):
    """``activation(FeatureLinear(piecewise_linear(x)))``: bins of the training values, and a linear map of their fill.

    :meth:`fit` takes the bins' edges from training rows: their quantiles. Until then they divide the numbers from -3
    to 3 evenly. Bins are buffers, a part of the ``state_dict``.

    Args:
        n_features: Numbers of a row.
        width: Of each number's vector.
        bins: Of each number, at most.
        activation: See :class:`stoker.models.layers.Dense`.

    Attributes:
        start, length, low, high: Buffers, float32, shape ``[n_features, bins]``; see :func:`piecewise_linear`.

    Raises:
        UnknownNameError: There is no such activation.
        ConfigError: A size is below 1.

    Example:
        >>> embedding = PiecewiseLinearEmbedding(8, width=16)
        >>> embedding.fit(X_train)
        >>> model = nn.Sequential(embedding, nn.Flatten(), Dense(8 * 16, 128), nn.Linear(128, 1))
    """

    start: Tensor
    length: Tensor
    low: Tensor
    high: Tensor

    def __init__(
        self, n_features: int, width: int = 24, *, bins: int = 48, activation: ActivationSpec | None = "relu"
    ) -> None:
        super().__init__()
        _check_sizes("PiecewiseLinearEmbedding", n_features=n_features, width=width, bins=bins)
        self.width = width
        for name in ("start", "length", "low", "high"):
            self.register_buffer(name, torch.zeros(n_features, bins))
        self._set_bins(slice(None), torch.linspace(-UNFITTED, UNFITTED, bins + 1))
        self.linear = FeatureLinear(n_features, bins, width)
        self.activation = nn.Sequential(*activations(activation))

    def fit(self, x: Tensor, *, rows_per_bin: int = 16) -> None:
        """Take the bins from training rows, and from no others.

        Args:
            x: Floating, shape ``[n, n_features]``, finite.
            rows_per_bin: As many rows as a bin is to hold at the least, so that few rows make few bins.

        Raises:
            ConfigError: There are no rows, of another width, or with values that are not finite; or ``rows_per_bin`` is
                below 1.
        """
        features, most = self.start.shape
        _check_sizes("PiecewiseLinearEmbedding.fit", rows_per_bin=rows_per_bin)
        if x.ndim != 2 or len(x) == 0 or x.shape[1] != features:
            rule = f"must be training rows of {features} numbers"
            raise ConfigError("PiecewiseLinearEmbedding.fit", rule, f"shape {list(x.shape)}")
        if not bool(x.isfinite().all()):
            fix = "Fill what is missing first."
            raise ConfigError("PiecewiseLinearEmbedding.fit", "must be finite numbers", "NaN or infinity", fix)
        for feature in range(features):
            self._set_bins(feature, quantile_edges(x[:, feature], max(1, min(most, len(x) // rows_per_bin))))

    @torch.no_grad()
    def _set_bins(self, features: int | slice, edges: Tensor) -> None:
        """Give features the bins between ``edges``; what is left of their rows is no bin."""
        count = len(edges) - 1
        start, length, low, high = (buffer[features] for buffer in (self.start, self.length, self.low, self.high))
        start.zero_()[..., :count] = edges[:-1]
        length.fill_(1)[..., :count] = edges.diff()
        low.zero_()[..., :1] = -math.inf if count else 0.0
        high.zero_()[..., :count] = 1
        high[..., count - 1 : count] = math.inf

    def forward(self, x: Tensor) -> Tensor:
        """Floating ``[n, n_features]`` → ``[n, n_features, width]``."""
        output: Tensor = self.activation(self.linear(piecewise_linear(x, self.start, self.length, self.low, self.high)))
        return output


class PeriodicEmbedding(nn.Module):
    """``activation(FeatureLinear(periodic(x)))``: waves of trained frequencies, and a linear map of them.

    Args:
        n_features: Numbers of a row.
        width: Of each number's vector.
        frequencies: Waves of each number.
        scale: Standard deviation of the frequencies drawn at first, the paper's σ: the one setting that matters.
            Larger ones let the network bend more sharply; too large ones have it learn noise.
        activation: See :class:`stoker.models.layers.Dense`.

    Raises:
        UnknownNameError: There is no such activation.
        ConfigError: A size is below 1, or ``scale`` is not positive.

    Example:
        >>> nn.Sequential(PeriodicEmbedding(8, width=16), nn.Flatten(), Dense(8 * 16, 128), nn.Linear(128, 1))
    """

    def __init__(
        self,
        n_features: int,
        width: int = 24,
        *,
        frequencies: int = 48,
        scale: float = 0.05,
        activation: ActivationSpec | None = "relu",
    ) -> None:
        super().__init__()
        _check_sizes("PeriodicEmbedding", n_features=n_features, width=width, frequencies=frequencies)
        if not 0 < scale < math.inf:
            raise ConfigError("PeriodicEmbedding.scale", "must be a positive number", scale)
        self.width = width
        self.frequencies = nn.Parameter(torch.empty(n_features, frequencies).normal_(0.0, scale))
        self.linear = FeatureLinear(n_features, 2 * frequencies, width)
        self.activation = nn.Sequential(*activations(activation))

    def forward(self, x: Tensor) -> Tensor:
        """Floating ``[n, n_features]`` → ``[n, n_features, width]``."""
        output: Tensor = self.activation(self.linear(periodic(x, self.frequencies)))
        return output


Size = Annotated[int, Field(ge=1)]


class NumericSettings(Settings):
    """How a model of tables takes its numbers; what its kind of embedding does not use is ``None``.

    Attributes:
        numeric_embedding: ``none``: as they are.
        embedding_width: Of each number's vector.
        bins: Of a piecewise-linear embedding, at most.
        frequencies: Of a periodic one.
        frequency_scale: The standard deviation that they are drawn with.
    """

    name: str
    numeric_embedding: Literal["none", "piecewise-linear", "periodic"] = "none"
    embedding_width: Size | None = None
    bins: Size | None = None
    frequencies: Size | None = None
    frequency_scale: Annotated[float, Field(gt=0)] | None = None

    SIZES: ClassVar[dict[str, dict[str, float]]] = {
        "none": {},
        "piecewise-linear": {"embedding_width": 24, "bins": 48},
        "periodic": {"embedding_width": 24, "frequencies": 48, "frequency_scale": 0.05},
    }

    @model_validator(mode="before")
    @classmethod
    def _sized(cls, raw: Any) -> Any:
        """Fill in the sizes that are used, and leave out those that are not."""
        kind = raw.get("numeric_embedding", "none")
        if not isinstance(kind, str) or kind not in cls.SIZES:
            return raw  # the field's own error says what is wrong
        every = {name for sizes in cls.SIZES.values() for name in sizes}
        used = {name: raw[name] if raw.get(name) is not None else size for name, size in cls.SIZES[kind].items()}
        return {**{name: value for name, value in raw.items() if name not in every}, **used}

    @model_serializer(mode="wrap")
    def _used(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What is not used is not kept."""
        return {name: value for name, value in serialize(self).items() if value is not None}


def numeric_embedding(
    settings: NumericSettings, n_features: int
) -> PiecewiseLinearEmbedding | PeriodicEmbedding | None:
    """The embedding that the settings ask for, ``[n, n_features]`` → ``[n, n_features, embedding_width]``."""
    if settings.numeric_embedding == "none" or n_features == 0:
        return None
    assert settings.embedding_width is not None  # NumericSettings filled it in, and what else is used
    if settings.numeric_embedding == "piecewise-linear":
        assert settings.bins is not None
        return PiecewiseLinearEmbedding(n_features, settings.embedding_width, bins=settings.bins)
    assert settings.frequencies is not None
    assert settings.frequency_scale is not None
    return PeriodicEmbedding(
        n_features, settings.embedding_width, frequencies=settings.frequencies, scale=settings.frequency_scale
    )


def _check_sizes(layer: str, **sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ConfigError(f"{layer}.{name}", "must be 1 or more", size)
