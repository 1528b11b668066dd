"""Outputs that do not depend on the inputs, or are the same for every row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from stoker.data.trees import leaves, tree_map
from stoker.randomness import generator
from stoker.training.preflight.findings import Finding

__all__ = ["dependence", "nudge"]


def dependence(
    inputs: Any, outputs: list[Tensor], rows: int, forward: Callable[[Any, bool], list[Tensor]], where: str
) -> Finding | None:
    """An error if the outputs do not depend on the inputs, a warning if they are the same for every row.

    It is tried, not read from the graph: a frozen part under ``no_grad`` cuts the graph, integer inputs never have one.
    Each row's inputs are replaced by the first row's, values that the model is sure to take. Outputs that stay the
    same, to the bit, may do so for weights that are zero at first, as those of a last layer may be; so it is tried
    again with weights that are moved a little.

    Args:
        inputs: The batch's inputs.
        outputs: What the loss is made of, for these inputs.
        rows: The batch's samples.
        forward: Gives the outputs for other inputs, all else being the same; with ``True``, after :func:`nudge`.
        where: What to call the model.
    """
    first = tree_map(lambda leaf: leaf[:1].expand_as(leaf).clone() if leaf.ndim else leaf, inputs)
    if not outputs or _same(leaves(inputs), leaves(first)):
        return None  # all rows are alike, so that nothing can be said
    try:
        if not _constant(outputs, rows) and not _same(outputs, forward(first, False)):
            return None
        moved = forward(inputs, True)
        independent = _same(moved, forward(first, True))
    except Exception:  # the model refuses such a batch: no evidence
        return None
    if independent:
        what = "the loss does not depend on the inputs: with others, the outputs are the same to the bit"
        fix = "Look whether forward uses its arguments, and for units that are all off or saturated."
        return Finding("error", what, where, fix)
    if _constant(moved, rows):
        what = "the outputs are the same for every row of the batch, though the inputs differ"
        fix = "Look for a mean over the batch's dimension, and for units that are all off or saturated."
        return Finding("warning", what, where, fix)
    return None


@torch.no_grad()
def nudge(model: nn.Module) -> None:
    """Move every weight a little, the same way each time, so that none is zero."""
    noise = generator(0, "check")
    for parameter in model.parameters():
        if parameter.is_floating_point() and parameter.layout is torch.strided and parameter.numel():
            size = 0.1 * parameter.abs().mean() + 0.01
            draws = torch.randn(parameter.shape, generator=noise).to(parameter.device, parameter.dtype)
            parameter.data.add_(draws * size)


def _same(some: list[Tensor], others: list[Tensor]) -> bool:
    return len(some) == len(others) and all(map(torch.equal, some, others))


def _constant(outputs: list[Tensor], rows: int) -> bool:
    by_row = [leaf for leaf in outputs if leaf.is_floating_point() and leaf.ndim and leaf.shape[0] == rows]
    return bool(by_row) and all(torch.equal(leaf, leaf[:1].expand_as(leaf)) for leaf in by_row)
