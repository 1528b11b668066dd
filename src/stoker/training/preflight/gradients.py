"""Gradients: whether the loss has any, and which parameters get none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from stoker.data.trees import leaves
from stoker.training.preflight.findings import Finding
from stoker.training.preflight.finite import values_of
from stoker.training.preflight.statics import listed

__all__ = ["Gradients", "gradients_of", "no_gradient", "trained_parameters", "unused_parameters", "vanished"]

RECOMPUTED = "CheckpointFunctionBackward"  # its backward pass adds to .grad by itself: the graph does not tell


@dataclass
class Gradients:
    """What a backward pass gives.

    Attributes:
        found: The gradients of parameters that the loss depends on, by name.
        missing: The names of those on which it does not depend.
        elsewhere: Those of them that other outputs of the model depend on.
    """

    found: dict[str, Tensor]
    missing: list[str]
    elsewhere: list[str]


def trained_parameters(model: nn.Module, optimizer: Optimizer | None) -> dict[str, nn.Parameter]:
    """What is to be trained, by name: not frozen, and with the optimizer if there is one."""
    held = None if optimizer is None else {id(p) for group in optimizer.param_groups for p in group["params"]}
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and (held is None or id(parameter) in held)
    }


def gradients_of(loss: Tensor, trained: dict[str, nn.Parameter], outputs: Any) -> Gradients | None:
    """The gradients of a loss, without touching any ``.grad``; ``None`` where they cannot be had so.

    Raises:
        RuntimeError: The backward pass fails.
    """
    try:
        grads = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
    except RuntimeError as error:
        if "compatible with .grad()" in str(error):  # reentrant checkpointing
            return None
        raise
    found = {name: grad for name, grad in zip(trained, grads, strict=True) if grad is not None}
    missing = [name for name in trained if name not in found]
    if missing and any(node.name() == RECOMPUTED for node in _graph([loss])):
        return None
    others = {id(node.variable) for node in _graph(leaves(outputs)) if hasattr(node, "variable")} if missing else set()
    return Gradients(found, missing, [name for name in missing if id(trained[name]) in others])


def no_gradient(outputs: Any, model: str) -> Finding:
    """The error of a loss that gives none of the trained parameters a gradient.

    Args:
        outputs: What the model returned.
        model: What to call it.
    """
    if any(leaf.requires_grad for leaf in leaves(outputs)):
        what = "no trained parameter gets a gradient, though the outputs have one: the loss is cut off from them"
        fix = "Compute it with torch from the outputs as they are: no detach, item, numpy, round or argmax."
        return Finding("error", what, "criterion", fix)
    what = "no trained parameter gets a gradient: the outputs are cut off from all of them"
    fix = "Look in forward for no_grad, detach, numpy or argmax, and whether the parameters that it uses are frozen."
    return Finding("error", what, model, fix)


def unused_parameters(names: list[str]) -> Finding | None:
    """A warning of parameters on which neither the loss nor any output depends."""
    if not names:
        return None
    fix = "Use them in forward, without detach or no_grad, freeze them with requires_grad_(False), or remove them."
    return Finding("warning", "no gradient reaches these parameters, so they are not trained", listed(names), fix)


def vanished(grads: dict[str, Tensor], loss: Tensor, model: str) -> Finding | None:
    """A warning if the loss is not zero, but all gradients are."""
    if float(loss) == 0 or any(bool(values_of(grad).any()) for grad in grads.values()):
        return None
    fix = "Look for units that are all off or saturated, for clamp, round and sign, and at the inputs' scale."
    return Finding("warning", "every gradient is zero, so that the first step changes nothing", model, fix)


def _graph(tensors: Iterable[Tensor]) -> Iterator[Any]:
    """Every node of the autograd graph behind some tensors."""
    waiting: list[Any] = [tensor.grad_fn for tensor in tensors if tensor.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        yield node
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)
