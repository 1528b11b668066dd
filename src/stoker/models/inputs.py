"""What goes into a network once it is encoded, and how columns become one vector."""

from __future__ import annotations

import itertools
import math
from typing import Annotated, Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from stoker.errors import ConfigError
from stoker.models.layers import Dense, Norm
from stoker.models.numeric import NumericSettings, PiecewiseLinearEmbedding, numeric_embedding
from stoker.settings import Settings

__all__ = [
    "FitsInputs",
    "ImageSpec",
    "InputSpec",
    "TableInput",
    "TableSpec",
    "embedding_width",
    "hidden_layers",
]


class TableSpec(Settings):
    """An encoded table: ``numeric`` float32 ``[n, n_numeric]``, ``categorical`` int64 ``[n, len(cardinalities)]``.

    Of the numeric features, the last ``n_flags`` are 0 or 1: what is missing, and one-hot categories.

    Attributes:
        numeric_columns, categorical_columns: The name of the table's column that each is made from; empty if they do
            not come from a table with names.
    """

    kind: Literal["table"] = "table"
    n_numeric: int
    cardinalities: tuple[int, ...] = ()
    n_flags: Annotated[int, Field(ge=0)] = 0
    numeric_columns: tuple[str, ...] = ()
    categorical_columns: tuple[str, ...] = ()

    @property
    def n_measured(self) -> int:
        """How many numeric features are no flags; they come first."""
        return max(0, self.n_numeric - self.n_flags)


class ImageSpec(Settings):
    """Encoded images: float32 ``[n, channels, height, width]``."""

    kind: Literal["images"] = "images"
    channels: int
    height: int
    width: int


InputSpec = TableSpec | ImageSpec


def embedding_width(cardinality: int) -> int:
    """How wide an embedding shall be: ``min(50, round(1.6 · cardinality^0.56))``, fastai's rule of thumb."""
    return min(50, round(1.6 * math.pow(cardinality, 0.56)))


def hidden_layers(
    width: int, hidden: tuple[int, ...], activation: str, dropout: float, norm: Norm = "none"
) -> tuple[list[nn.Module], int]:
    """Linear layers, each followed by its activation and, if asked, normalisation before it and dropout after it.

    Returns:
        The layers in order, and the width of the last one's output.
    """
    layers: list[nn.Module] = []
    for units in hidden:
        layers += Dense(width, units, norm=norm, activation=activation, dropout=dropout)
        width = units
    return layers, width


@runtime_checkable
class FitsInputs(Protocol):
    """A network that learns something about its inputs before training, such as the bins of its numbers."""

    def fit_inputs(self, numeric: Tensor | None = None, categorical: Tensor | None = None) -> None:
        """Learn it from the training rows, and from no others."""


class TableInput(nn.Module):
    """Numeric columns and categories to one vector: ``[numeric, e_1[c_1], …, e_k[c_k]]``.

    With a numeric embedding, the vectors of all numbers but the flags stand behind the numbers, which stay. (The paper
    has the vectors alone; small tables were measured to do better with both.)

    Args:
        spec: What comes in.
        one_hot: Spread each category over columns of its own instead of embedding it, as linear models want.
        numbers: How to take the numbers; by default as they are.

    Attributes:
        width: Of the vector.
        unknown_columns: Where the one-hot columns for categories never seen stand in it.

    Raises:
        ConfigError: There is nothing to put in.
    """

    def __init__(self, spec: TableSpec, *, one_hot: bool = False, numbers: NumericSettings | None = None) -> None:
        super().__init__()
        self.cardinalities = spec.cardinalities
        widths = [0 if one_hot else embedding_width(cardinality) for cardinality in spec.cardinalities]
        embeddings = [
            nn.Embedding(cardinality, width)
            for cardinality, width in zip(spec.cardinalities, widths, strict=True)
            if width
        ]
        for embedding in embeddings:
            with torch.no_grad():
                embedding.weight[0] = 0.0  # a category never seen says nothing until training has taught it something
        self.embeddings = nn.ModuleList(embeddings)
        self.one_hot = one_hot
        self.n_measured = spec.n_measured
        self.numbers = None if numbers is None else numeric_embedding(numbers, spec.n_measured)
        wider = 0 if self.numbers is None else spec.n_measured * self.numbers.width
        self.width = spec.n_numeric + wider + (sum(spec.cardinalities) if one_hot else sum(widths))
        starts = itertools.accumulate((spec.n_numeric, *spec.cardinalities[:-1]))
        self.unknown_columns = list(starts) if one_hot and spec.cardinalities else []
        if self.width == 0:
            raise ConfigError("model", "must have at least one input column", "none")

    def forward(self, numeric: Tensor | None = None, categorical: Tensor | None = None) -> Tensor:
        """``numeric`` float32 ``[n, f]``, ``categorical`` int64 ``[n, k]`` → float32 ``[n, width]``."""
        parts = [] if numeric is None else [numeric]
        if numeric is not None and self.numbers is not None:
            parts.append(self.numbers(numeric[:, : self.n_measured]).flatten(1))
        if categorical is not None:
            columns = categorical.unbind(dim=1)
            if self.one_hot:
                parts += [F.one_hot(c, size).float() for c, size in zip(columns, self.cardinalities, strict=True)]
            else:
                parts += [embedding(c) for c, embedding in zip(columns, self.embeddings, strict=True)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def fit_inputs(self, numeric: Tensor | None = None, categorical: Tensor | None = None) -> None:
        """Take the bins of the numbers, if they have any, from the training rows; see :class:`FitsInputs`."""
        del categorical  # nothing is learnt from it
        if numeric is not None and isinstance(self.numbers, PiecewiseLinearEmbedding):
            self.numbers.fit(numeric[:, : self.n_measured])
