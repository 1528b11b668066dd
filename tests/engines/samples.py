"""PyTorch's own sample inputs for its operators, as functions of tensors that can be traced."""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

with warnings.catch_warnings():  # of what else it could test if it were installed
    warnings.simplefilter("ignore")
    from torch.testing._internal.common_methods_invocations import op_db
# That import forbids to set cudnn's flags for the rest of the process, which other tests and deterministic training do.
torch.backends.flags_frozen.__globals__["__allow_nonbracketed_mutation_flag"] = True

OPS = {op.formatted_name: op for op in op_db}


@dataclass(frozen=True, eq=False)
class Sample:
    """A call of an operator.

    Attributes:
        call: From the tensors among its arguments to the tensors among its results.
        tensors: Those arguments.
        differentiable: For which of them the operator has a gradient.
    """

    call: Callable[..., list[Tensor]]
    tensors: list[Tensor]
    differentiable: list[bool]

    def __call__(self, *tensors: Tensor) -> list[Tensor | None]:
        """The results, and the gradients of a weighted sum of them."""
        leaves = [t.detach().requires_grad_(wanted) for t, wanted in zip(tensors, self.differentiable, strict=True)]
        results = self.call(*(leaf.clone() for leaf in leaves))
        total = sum((result * _weights(result.shape, result.dtype)).sum() for result in results if result.requires_grad)
        inputs = [leaf for leaf in leaves if leaf.requires_grad]
        gradients = torch.autograd.grad(total, inputs, allow_unused=True) if isinstance(total, Tensor) else []
        return [*(result.detach() for result in results), *gradients]


@functools.cache  # made when a sample is first called, to be a constant when it is traced
def _weights(shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Different ones, so that a gradient at the wrong place shows."""
    return (torch.arange(shape.numel()).reshape(shape) * 7 % 11 / 8 + 0.25).to(dtype)


def samples(name: str, dtype: torch.dtype, most: int) -> list[Sample]:
    """Some of an operator's samples, evenly over all kinds of them; half of them 0-d or empty where there are such."""
    torch.manual_seed(0)
    op = OPS[name]
    differentiable = op.supports_autograd and dtype.is_floating_point
    inputs = itertools.islice(op.sample_inputs("cpu", dtype, requires_grad=differentiable), 400)  # type: ignore[no-untyped-call]
    found = [_sample(op, each) for each in inputs]
    odd = [sample for sample in found if any(not tensor.ndim or not tensor.numel() for tensor in sample.tensors)]
    ordinary = [sample for sample in found if sample not in odd]
    chosen = _spread(odd, max(most // 2, most - len(ordinary)))
    return chosen + _spread(ordinary, most - len(chosen))


def _spread(found: Sequence[Sample], most: int) -> list[Sample]:
    step = max(len(found) / most, 1) if most else 1
    return [found[int(i * step)] for i in range(min(most, len(found)))]


def _sample(op: Any, given: Any) -> Sample:
    leaves, spec = pytree.tree_flatten((given.input, given.args, given.kwargs))
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]

    def call(*tensors: Tensor) -> list[Tensor]:
        own = list(leaves)
        for place, tensor in zip(places, tensors, strict=True):
            own[place] = tensor
        first, args, kwargs = pytree.tree_unflatten(own, spec)
        result = op.op(first, *args, **kwargs)
        return [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)]

    tensors = [leaves[place] for place in places]
    return Sample(call, [tensor.detach() for tensor in tensors], [tensor.requires_grad for tensor in tensors])


def together(cases: Sequence[Sample]) -> tuple[Callable[..., list[Tensor | None]], list[Tensor]]:
    """All samples as one function and its arguments: one graph to trace, and one program to compile."""

    def function(*tensors: Tensor) -> list[Tensor | None]:
        given: Iterator[Tensor] = iter(tensors)
        return [result for case in cases for result in case(*itertools.islice(given, len(case.tensors)))]

    return function, [tensor for case in cases for tensor in case.tensors]
