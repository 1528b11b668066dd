"""Linear and logistic regression."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from stoker.models.inputs import TableInput, TableSpec
from stoker.settings import Settings

__all__ = ["Linear", "LinearConfig"]


class LinearConfig(Settings):
    """A linear model has no settings."""

    name: Literal["linear"] = "linear"


class Linear(nn.Module):
    """``y = W·x + b`` of a table's columns; categories are one-hot.

    With squared error it is linear regression, with cross-entropy multinomial logistic regression.

    Args:
        spec: The table's columns.
        n_outputs: 1 for regression, the number of classes for classification.
    """

    def __init__(self, spec: TableSpec, n_outputs: int) -> None:
        super().__init__()
        self.input = TableInput(spec, one_hot=True)
        self.output = nn.Linear(self.input.width, n_outputs)
        with torch.no_grad():  # a category never seen says nothing until training has taught it something
            self.output.weight[:, self.input.unknown_columns] = 0.0

    def forward(self, numeric: Tensor | None = None, categorical: Tensor | None = None) -> Tensor:
        """See :class:`stoker.models.inputs.TableInput` for the inputs → ``[n, n_outputs]``."""
        output: Tensor = self.output(self.input(numeric, categorical))
        return output
