"""Trees of tensors: one tensor, several by position, several by name. What batches, inputs, outputs and targets are."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeAlias

from torch import Tensor

__all__ = [
    "Batch",
    "Tree",
    "batch_rows",
    "call_model",
    "leaves",
    "outline",
    "tree_map",
]

Tree: TypeAlias = Tensor | tuple[Tensor, ...] | dict[str, Tensor]
"""One tensor, several by position, or several by name; the first dimension of each counts the rows."""

Batch: TypeAlias = tuple[Any, Any]
"""``(inputs, targets)``; targets are ``None`` where there are none."""


def tree_map(function: Callable[[Tensor], Tensor], tree: Any) -> Any:
    """Apply ``function`` to every tensor of a tree of tuples, lists and dicts; leave the rest as it is."""
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, Mapping):
        return {name: tree_map(function, leaf) for name, leaf in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(tree_map(function, leaf) for leaf in tree))
    if isinstance(tree, (tuple, list)):
        return tuple(tree_map(function, leaf) for leaf in tree)
    return tree


def outline(tree: Any) -> Hashable:
    """What a tree is without its tensors: which names and places there are, in their order."""
    if isinstance(tree, Mapping):
        return tuple((name, outline(leaf)) for name, leaf in tree.items())
    if isinstance(tree, (tuple, list)):
        return type(tree).__name__, tuple(outline(leaf) for leaf in tree)
    return type(tree).__name__


def call_model(model: Callable[..., Any], inputs: Any) -> Any:
    """Call a model as its inputs say: ``model(x)``, ``model(*x)`` for a tuple, ``model(**x)`` for a dict."""
    if isinstance(inputs, dict):
        return model(**inputs)
    if isinstance(inputs, tuple):
        return model(*inputs)
    return model(inputs)


def leaves(tree: Any) -> list[Tensor]:
    """Every tensor of a tree, in order."""
    found: list[Tensor] = []

    def keep(leaf: Tensor) -> Tensor:
        found.append(leaf)
        return leaf

    tree_map(keep, tree)
    return found


def batch_rows(inputs: Any, targets: Any) -> int:
    """How many samples a batch has: the first dimension of its first tensor with dimensions, targets first."""
    for leaf in (*leaves(targets), *leaves(inputs)):
        if leaf.ndim:
            return int(leaf.shape[0])
    return 1
