"""Which weights a program keeps transposed from step to step.

A linear layer multiplies by the transpose of its weights ``[out, in]``, and XLA makes one in every step. Kept
transposed, as people who write such a network for XLA by hand would have them, small weights need none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

__all__ = ["turn", "turned"]

LARGEST = 2**14
"""Elements of a weight up to which that was measured to be faster, or no slower; 784 × 300 take a sixth longer."""


def turned(gradients: fx.GraphModule, parameters: Sequence[Tensor]) -> frozenset[int]:
    """The places of the parameters to keep transposed: matrices that the graph, too, transposes.

    Args:
        gradients: Whose first placeholders are the parameters.
        parameters: Themselves, or examples.
    """
    nodes = [node for node in gradients.graph.nodes if node.op == "placeholder"]
    return frozenset(
        place
        for place, (node, parameter) in enumerate(zip(nodes, parameters, strict=False))
        if parameter.ndim == 2 and parameter.numel() <= LARGEST and any(map(_transposes, node.users))
    )


def turn(matrices: Iterable[Any], places: frozenset[int]) -> list[Any]:
    """Transpose those at these places; twice brings them back."""
    return [matrix.T if place in places else matrix for place, matrix in enumerate(matrices)]


def _transposes(node: fx.Node) -> bool:
    return node.target is torch.ops.aten.permute.default and list(node.args[1]) in ([1, 0], [-1, 0], [1, -2])  # type: ignore[arg-type]
