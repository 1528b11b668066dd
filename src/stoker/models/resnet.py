"""A residual network of tables."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from stoker.models.inputs import TableInput, TableSpec
from stoker.models.layers import MOST_LAYERS, Activation, Norm, ResidualBlock, activations, norms
from stoker.models.numeric import NumericSettings

__all__ = ["ResNet", "ResNetConfig"]

Share = Annotated[float, Field(ge=0, lt=1)]


class ResNetConfig(NumericSettings):
    """Settings of a residual network; also :class:`stoker.models.numeric.NumericSettings`.

    Attributes:
        width: Of what the blocks add to.
        blocks: How many.
        hidden: The width inside of each block.
        activation: A name out of :data:`stoker.models.layers.ACTIVATIONS`.
        norm: What each block's input is normalised by: ``none``, ``batch`` or ``layer``.
        dropout: The part of a block's hidden outputs that is dropped while training, in ``[0, 1)``.
        residual_dropout: The part of what a block adds that is dropped while training.
    """

    name: Literal["resnet"] = "resnet"
    width: Annotated[int, Field(ge=1)] = 192
    blocks: Annotated[int, Field(ge=1, le=MOST_LAYERS)] = 2
    hidden: Annotated[int, Field(ge=1)] = 384
    activation: Activation = "relu"
    norm: Norm = "batch"
    dropout: Share = 0.0
    residual_dropout: Share = 0.0


class ResNet(nn.Module):
    """``x → Linear → ResidualBlock* → norm → activation → Linear`` of a table's columns; categories are embedded.

    Source: Gorishniy, Rubachev, Khrulkov, Babenko, "Revisiting Deep Learning Models for Tabular Data", NeurIPS 2021
    (arXiv:2106.11959), section 3.2.

    Args:
        config: Its settings.
        spec: The table's columns.
        n_outputs: 1 for regression, the number of classes for classification.
    """

    def __init__(self, config: ResNetConfig, spec: TableSpec, n_outputs: int) -> None:
        super().__init__()
        self.input = TableInput(spec, numbers=config)
        self.first = nn.Linear(self.input.width, config.width)
        self.blocks = nn.Sequential(
            *(
                ResidualBlock(
                    config.width,
                    config.hidden,
                    norm=config.norm,
                    activation=config.activation,
                    dropout=config.dropout,
                    residual_dropout=config.residual_dropout,
                )
                for _ in range(config.blocks)
            )
        )
        self.last = nn.Sequential(
            *norms(config.norm, config.width), *activations(config.activation), nn.Linear(config.width, n_outputs)
        )

    def forward(self, numeric: Tensor | None = None, categorical: Tensor | None = None) -> Tensor:
        """See :class:`stoker.models.inputs.TableInput` for the inputs → ``[n, n_outputs]``."""
        output: Tensor = self.last(self.blocks(self.first(self.input(numeric, categorical))))
        return output

    def fit_inputs(self, numeric: Tensor | None = None, categorical: Tensor | None = None) -> None:
        """See :class:`stoker.models.inputs.FitsInputs`."""
        self.input.fit_inputs(numeric, categorical)
