"""The jobs' networks and data for the sides that train PyTorch modules."""

from __future__ import annotations

from typing import Any

import torch
import torch._dynamo  # torch.optim imports it when it is first called: an import all the same, and not training
from torch import Tensor, nn

from benchmarks.jobs import Array, Data, Job, first_weights
from benchmarks.sides import Trained


class Dense(nn.Module):
    """Fully connected layers with ReLU between, over flattened inputs."""

    def __init__(self, shapes: list[torch.Size]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(shape[1], shape[0]) for shape in shapes)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        return self.layers[-1](x)  # type: ignore[no-any-return]


class Convolutional(Dense):
    def __init__(self, convolutions: list[torch.Size], shapes: list[torch.Size]) -> None:
        super().__init__(shapes)
        self.convolutions = nn.ModuleList(nn.Conv2d(shape[1], shape[0], 3, padding=1) for shape in convolutions)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        for convolution in self.convolutions:
            x = self.pool(torch.relu(convolution(x)))
        return super().forward(x)


class Recurrent(Dense):
    def __init__(self, inputs: int, units: int, shapes: list[torch.Size]) -> None:
        super().__init__(shapes)
        self.lstm = nn.LSTM(inputs, units, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.lstm(x)[0][:, -1])


class Embedded(Dense):
    """Numbers beside a vector for each code."""

    def __init__(self, embeddings: list[torch.Size], shapes: list[torch.Size]) -> None:
        super().__init__(shapes)
        self.embeddings = nn.ModuleList(nn.Embedding(*shape) for shape in embeddings)

    def forward(self, numbers: Tensor, codes: Tensor) -> Tensor:  # type: ignore[override]
        vectors = [embedding(codes[:, place]) for place, embedding in enumerate(self.embeddings)]
        return super().forward(torch.cat([numbers, *vectors], 1))


def network(job: Job, data: Data) -> nn.Module:
    """The job's network with its first weights."""
    weights = {name: torch.from_numpy(array) for name, array in first_weights(job, data).items()}

    def shapes(part: str) -> list[torch.Size]:
        return [w.shape for name, w in weights.items() if name.startswith(part) and name.endswith(".weight")]

    model: nn.Module
    if job.kind == "cnn":
        model = Convolutional(shapes("convolutions."), shapes("layers."))
    elif job.kind == "lstm":
        model = Recurrent(data.inputs[0].shape[-1], job.hidden[0], shapes("layers."))
    elif job.kind == "embedding":
        model = Embedded(shapes("embeddings."), shapes("layers."))
    else:
        model = Dense(shapes("layers."))
    model.load_state_dict(weights)
    return model


def criterion(job: Job) -> nn.Module:
    return nn.MSELoss() if job.task == "regression" else nn.CrossEntropyLoss()


def tensors(data: Data) -> tuple[tuple[Tensor, ...], Tensor]:
    """Inputs and targets, over the arrays' own memory."""
    return tuple(torch.from_numpy(array) for array in data.inputs), torch.from_numpy(data.targets)


def trained(model: nn.Module, note: str = "") -> Trained:
    def outputs(inputs: tuple[Array, ...]) -> Array:
        model.eval()
        with torch.no_grad():
            result: Any = model(*(torch.from_numpy(array) for array in inputs))
        return result.numpy()  # type: ignore[no-any-return]

    return Trained(outputs, note)
