"""Everything as it was: what calling a model may change, remembered and given back."""

from __future__ import annotations

import copy
import random
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from stoker.randomness import preserved_randomness

__all__ = ["same_draws", "untouched"]

MAPPINGS = (dict, OrderedDict, defaultdict, Counter)
CONTAINERS = (*MAPPINGS, list, set, deque)


@contextmanager
def untouched(roots: Sequence[nn.Module]) -> Iterator[Callable[[], None]]:
    """After this block, and whenever what it yields is called, the modules are as they were before it.

    That is every parameter, buffer and gradient (the objects and their values), ``requires_grad``, every module's mode,
    hooks, submodules and other attributes, with the tensors, lists, dicts and sets among these. What lies deeper in
    objects of the user's own is out of reach. It takes one copy of the weights.

    Args:
        roots: The modules, with all that are within them.
    """
    restores = [_remember(root) for root in roots]

    def rewind() -> None:
        for restore in restores:
            restore()

    try:
        yield rewind
    finally:
        rewind()


@contextmanager
def same_draws(device: torch.device) -> Iterator[None]:
    """After this block all global generators are as before: torch's, NumPy's and Python's own."""
    of_python, of_numpy = random.getstate(), np.random.get_state()  # the one that models draw from
    try:
        with preserved_randomness(device):
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)


def _remember(root: nn.Module) -> Callable[[], None]:
    # A scripted module's attributes live outside Python: of those, parameters, buffers and modes are kept.
    scripted = [(m, m.training) for m in root.modules() if isinstance(m, torch.jit.ScriptModule)]
    modules = [module for module in root.modules() if not isinstance(module, torch.jit.ScriptModule)]
    attributes = [(vars(module), dict(vars(module))) for module in modules]
    containers = [
        (value, copy.copy(value)) for _, kept in attributes for value in kept.values() if type(value) in CONTAINERS
    ]
    leaves = [*root.parameters(), *root.buffers()]
    known = {id(leaf) for leaf in leaves}
    for _, kept in (*attributes, *containers):
        for value in _values(kept):
            if isinstance(value, Tensor) and id(value) not in known:
                known.add(id(value))
                leaves.append(value)
    tensors = [(leaf, leaf.detach().clone()) for leaf in leaves if _has_values(leaf)]
    flags = [(leaf, leaf.requires_grad) for leaf in root.parameters()]
    grads = [(leaf, leaf.grad, None if leaf.grad is None else leaf.grad.clone()) for leaf in root.parameters()]

    def restore() -> None:
        for module, mode in scripted:
            module.training = mode
        for now, kept in attributes:
            now.clear()
            now.update(kept)
        for container, kept in containers:
            container.clear()
            (container.update if isinstance(container, (*MAPPINGS, set)) else container.extend)(kept)
        for leaf, value in tensors:
            _write(leaf, value)
        for leaf, flag in flags:
            leaf.requires_grad_(flag)
        for leaf, grad, of_grad in grads:
            leaf.grad = grad
            if grad is not None and of_grad is not None:
                _write(grad, of_grad)

    return restore


def _values(container: Any) -> list[Any]:
    return list(container.values() if isinstance(container, MAPPINGS) else container)


def _has_values(leaf: Tensor) -> bool:
    return not is_lazy(leaf) and not leaf.is_meta and leaf.layout is torch.strided


@torch.no_grad()
def _write(leaf: Tensor, value: Tensor) -> None:
    if leaf.shape != value.shape or leaf.dtype != value.dtype or leaf.device != value.device:
        leaf.data = value.clone()
    elif value.layout is not torch.strided or not torch.equal(leaf, value):
        leaf.data.copy_(value)
