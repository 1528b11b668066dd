"""Double precision that nobody asked for: it takes twice the memory and, on most devices, many times as long."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from stoker.data.trees import leaves
from stoker.training.preflight.findings import Finding
from stoker.training.preflight.statics import listed

__all__ = ["double_precision", "is_double"]


def is_double(tensor: Tensor) -> bool:
    """Whether a tensor is float64 or complex128."""
    return tensor.dtype in {torch.float64, torch.complex128}


def double_precision(
    model: nn.Module, inputs: Any, outputs: list[Tensor], targets: list[Tensor], loss: Tensor, maker: str | None
) -> Finding | None:
    """A warning if float64 mixes with other precisions up to the loss; a model that is float64 throughout is meant so.

    Args:
        model: The model.
        inputs: The batch's inputs.
        outputs: What the loss is made of.
        targets: What they are compared with.
        loss: The loss.
        maker: The first module that made float64 of other dtypes.
    """
    weights = {name: parameter for name, parameter in model.named_parameters() if parameter.is_floating_point()}
    double = [name for name, parameter in weights.items() if is_double(parameter)]
    if torch.get_default_dtype() is torch.float64 or (double and len(double) == len(weights)):
        return None
    if double:
        what = "the parameters are float64, others of the model are not"
        return Finding("warning", what, listed(double), "Make them of one dtype: model.float().")
    if any(map(is_double, outputs)):
        if maker is None and any(map(is_double, leaves(inputs))):
            return Finding("warning", "are float64, and the outputs become so", "inputs", "Cast them: x.float().")
        fix = "Look for NumPy arrays and torch.float64 constants in it, and make them float32."
        return Finding("warning", "makes float64 of other dtypes", maker or "the model", fix)
    if is_double(loss):
        if any(map(is_double, targets)):
            return Finding("warning", "are float64, and the loss becomes so", "targets", "Cast them: y.float().")
        return Finding("warning", "makes float64 of other dtypes", "criterion", "Make its tensors float32.")
    return None
