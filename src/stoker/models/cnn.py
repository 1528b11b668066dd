"""A small convolutional network."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from stoker.models.inputs import ImageSpec, hidden_layers
from stoker.models.layers import ACTIVATIONS, MOST_LAYERS, Activation
from stoker.settings import Settings

__all__ = ["CNN", "CNNConfig"]


class CNNConfig(Settings):
    """Settings of a convolutional network.

    Attributes:
        channels: Of each 3 × 3 convolution; after each the image is halved, while both sides
            have 2 pixels or more.
        hidden: The widths of the linear layers after them.
        activation: After each convolution and each hidden layer.
        dropout: In the linear layers.
    """

    name: Literal["cnn"] = "cnn"
    channels: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(16, 32), min_length=1, max_length=MOST_LAYERS)
    hidden: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(max_length=MOST_LAYERS)] = (128,)
    activation: Activation = "relu"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


class CNN(nn.Module):
    """``(Conv 3×3 → activation → max-pool 2×2)* → hidden layers → Linear``.

    Args:
        config: Widths, activation, dropout.
        spec: The images' shape.
        n_outputs: The number of classes.
    """

    def __init__(self, config: CNNConfig, spec: ImageSpec, n_outputs: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        channels, height, width = spec.channels, spec.height, spec.width
        for wanted in config.channels:
            blocks += [nn.Conv2d(channels, wanted, kernel_size=3, padding=1), ACTIVATIONS[config.activation]()]
            channels = wanted
            if min(height, width) >= 2:
                blocks.append(nn.MaxPool2d(2))
                height, width = height // 2, width // 2
        layers, last = hidden_layers(channels * height * width, config.hidden, config.activation, config.dropout)
        self.blocks = nn.Sequential(*blocks)
        self.layers = nn.Sequential(nn.Flatten(), *layers, nn.Linear(last, n_outputs))

    def forward(self, images: Tensor) -> Tensor:
        """Images float32 ``[n, channels, height, width]`` → ``[n, n_outputs]``."""
        output: Tensor = self.layers(self.blocks(images))
        return output
