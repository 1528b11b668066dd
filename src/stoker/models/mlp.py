"""Multilayer perceptrons, of tables and of images."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from stoker.errors import ConfigError
from stoker.models.inputs import ImageSpec, TableInput, TableSpec, hidden_layers
from stoker.models.layers import MOST_LAYERS, Activation, Norm
from stoker.models.numeric import NumericSettings

__all__ = ["ImageMLP", "MLPConfig", "TableMLP"]


class MLPConfig(NumericSettings):
    """Settings of a multilayer perceptron; for tables also :class:`stoker.models.numeric.NumericSettings`.

    Attributes:
        hidden: The width of each hidden layer; none makes the model linear.
        activation: After each hidden layer; a name out of :data:`stoker.models.layers.ACTIVATIONS`.
        dropout: The part of each hidden layer's outputs that is dropped while training, in ``[0, 1)``.
        norm: What each hidden layer is normalised by before its activation: ``none``, ``batch`` or ``layer``.
    """

    name: Literal["mlp"] = "mlp"
    hidden: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(max_length=MOST_LAYERS)] = (128, 64)
    activation: Activation = "relu"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    norm: Norm = "none"


class TableMLP(nn.Module):
    """``x → Linear → activation → … → Linear`` of a table's columns; categories are embedded, numbers if asked.

    Args:
        config: Widths, activation, dropout, normalisation, numeric embedding.
        spec: The table's columns.
        n_outputs: 1 for regression, the number of classes for classification.
    """

    def __init__(self, config: MLPConfig, spec: TableSpec, n_outputs: int) -> None:
        super().__init__()
        self.input = TableInput(spec, numbers=config)
        layers, width = hidden_layers(self.input.width, config.hidden, config.activation, config.dropout, config.norm)
        self.layers = nn.Sequential(*layers, nn.Linear(width, n_outputs))

    def forward(self, numeric: Tensor | None = None, categorical: Tensor | None = None) -> Tensor:
        """See :class:`stoker.models.inputs.TableInput` for the inputs → ``[n, n_outputs]``."""
        output: Tensor = self.layers(self.input(numeric, categorical))
        return output

    def fit_inputs(self, numeric: Tensor | None = None, categorical: Tensor | None = None) -> None:
        """See :class:`stoker.models.inputs.FitsInputs`."""
        self.input.fit_inputs(numeric, categorical)


class ImageMLP(nn.Module):
    """The same of an image's pixels, one after the other.

    Args:
        config: Widths, activation, dropout, normalisation.
        spec: The images' shape.
        n_outputs: The number of classes.

    Raises:
        ConfigError: There is to be a numeric embedding.
    """

    def __init__(self, config: MLPConfig, spec: ImageSpec, n_outputs: int) -> None:
        super().__init__()
        if config.numeric_embedding != "none":
            raise ConfigError(
                "model.numeric_embedding", "is for tables", f"{config.numeric_embedding!r} for images", "Leave it out."
            )
        pixels = spec.channels * spec.height * spec.width
        layers, width = hidden_layers(pixels, config.hidden, config.activation, config.dropout, config.norm)
        self.layers = nn.Sequential(nn.Flatten(), *layers, nn.Linear(width, n_outputs))

    def forward(self, images: Tensor) -> Tensor:
        """Images float32 ``[n, channels, height, width]`` → ``[n, n_outputs]``."""
        output: Tensor = self.layers(images)
        return output
