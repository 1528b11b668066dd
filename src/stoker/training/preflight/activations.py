"""Outputs of another kind than the criterion takes: probabilities for logits, logits for probabilities."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

from stoker.training.preflight.findings import Finding
from stoker.training.preflight.takes import Takes

__all__ = ["last_activation", "misfit"]

ACTIVATIONS = {
    "SoftmaxBackward0": "softmax",
    "LogSoftmaxBackward0": "log_softmax",
    "SigmoidBackward0": "sigmoid",
}
SAME_VALUES = re.compile(
    r"(View|UnsafeView|ReshapeAlias|Squeeze|Unsqueeze|Transpose|T|Permute|Clone|Alias|ToCopy|Slice|Select|Unbind|Split"
    r"|SplitWithSizes|Expand|Index)Backward\d+"
)
ABOVE_ZERO = 1e-3  # log-probabilities are below zero, but for rounding


def last_activation(output: Tensor) -> tuple[str, Any] | None:
    """The softmax, log-softmax or sigmoid that an output comes from, and its node of the autograd graph.

    The graph is evidence, where values would be a guess: outputs may lie between 0 and 1 by chance. Operations that
    only reshape, cut or cast are passed through.
    """
    node: Any = output.grad_fn
    while node is not None:
        if node.name() in ACTIVATIONS:
            return ACTIVATIONS[node.name()], node
        if not SAME_VALUES.fullmatch(node.name()):
            return None
        node = node.next_functions[0][0] if node.next_functions else None
    return None


def misfit(takes: Takes, output: Tensor, made_by: dict[Any, str], where: str) -> Finding | None:
    """What is wrong with an output of another kind than the criterion takes, or ``None``.

    Args:
        takes: What the criterion takes.
        output: The model's output, with its graph.
        made_by: Modules' names by the node of the graph that made their output.
        where: What to call the output.
    """
    found = last_activation(output)
    kind, node = found if found is not None else ("", None)
    where = made_by.get(node, where)
    if takes.outputs in {"logits", "scores"} and kind:
        if kind == "log_softmax" and takes.targets == "classes":
            if takes.outputs == "scores":
                return None  # margins between log-probabilities are those between logits
            what = f"log_softmax comes before {takes.name}, which applies it itself"
            return Finding("warning", what, where, "It changes nothing but time: leave it out, or use nn.NLLLoss.")
        what = f"{kind} comes before {takes.name}, which takes {takes.outputs}: it learns slowly, or not at all"
        return Finding("warning", what, where, f"Let the model return what {kind} is given; apply it when predicting.")
    if not output.numel() or not output.is_floating_point():
        return None
    low, high = (float(value) for value in output.detach().aminmax())
    if takes.outputs == "log-probabilities" and high > ABOVE_ZERO:
        what = f"{takes.name} takes log-probabilities, which are not above 0, got {low:.3g} to {high:.3g}"
        if kind == "softmax":
            return Finding(
                "warning", what, where, "Use log_softmax instead of softmax, or logits and CrossEntropyLoss."
            )
        fix = "End the model with nn.LogSoftmax(dim=1)" + (
            ", or use nn.CrossEntropyLoss, which takes logits." if takes.targets == "classes" else "."
        )
        return Finding("warning", what, where, fix)
    if takes.outputs == "probabilities" and (low < 0 or high > 1):
        what = f"{takes.name} takes probabilities from 0 to 1, got {low:.3g} to {high:.3g}"
        return Finding(
            "error", what, where, "Use nn.BCEWithLogitsLoss, which takes logits, or end the model with a sigmoid."
        )
    return None
