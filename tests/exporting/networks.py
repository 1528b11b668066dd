"""Modules of a user's own that exporters take, and some that they must not take as they are."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Plain(nn.Module):
    def __init__(self, n_features: int, n_outputs: int, width: int = 8) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(n_features, width), nn.Tanh(), nn.Linear(width, n_outputs))

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.layers(x)
        return output


class Flat(Plain):
    """One number a row, without a dimension for it."""

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.layers(x)
        return output[:, 0]


class Named(nn.Module):
    def __init__(self, n_numeric: int, cardinalities: list[int], n_outputs: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(max(cardinalities), 3)
        self.output = nn.Linear(n_numeric + 3 * len(cardinalities), n_outputs)

    def forward(self, numeric: Tensor, categorical: Tensor) -> Tensor:
        output: Tensor = self.output(torch.cat([numeric, self.embedding(categorical).flatten(1)], dim=1))
        return output


class Branching(Plain):
    """What it answers to a batch depends on the batch's first value."""

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.layers(x)
        if x[:, 0].sum() > 0:
            return output
        return output * 2


class Scaled(Plain):
    """A value of its input becomes a Python number."""

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.layers(x) * float(x.abs().max())
        return output


class Careful(Plain):
    """It looks at shapes that are always the same."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] != self.layers[0].in_features:
            raise ValueError("other features")
        output: Tensor = self.layers(x)
        return output


def exporting() -> bool:
    return torch.compiler.is_exporting() or bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


class Otherwise(Plain):
    """It answers otherwise while it is exported, by a tenth."""

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.layers(x)
        return output * 1.1 if exporting() else output


class Tied(Plain):
    """All classes are as good as equally probable, and another one is on top while it is exported."""

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.layers(x)
        if self.training:
            return output
        top = torch.zeros(output.shape[1])
        top[1 if exporting() else 0] = 1e-6
        return output * 0.0 + top


class Numpy(Plain):
    """A part of it is not torch's."""

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.layers(x)
        return output + torch.from_numpy(x.detach().numpy().mean(axis=1, keepdims=True))


class Half(Plain):
    """It answers in bfloat16."""

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.layers(x)
        return output.to(torch.bfloat16)
