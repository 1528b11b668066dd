"""When a program that was made for one step is that of another, so that a study's trials need not each make their own.

A trace is a function of the code that runs and of what that code can see. Where all code is torch's and Stoker's, that
is what modules hold, the forms of all tensors, and the objective; two steps that agree in these have the same program,
whatever their weights, learning rates and other inputs are.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from stoker.engines.capture import State
from stoker.engines.plan import Plan, arrangement, shape_of_work
from stoker.engines.rates import are_constant, known_code, rated
from stoker.engines.step import Step

__all__ = ["PROGRAMS", "Kept", "sameness"]

Made = TypeVar("Made")
KEPT = 32  # programs of a process; the one that was used least recently goes first
LARGEST_CONSTANT = 4096  # elements of a tensor up to which it is compared by its values


class Kept(OrderedDict[Hashable, Made]):
    """Programs by what they are for."""

    def get_or_make(self, key: Hashable | None, make: Callable[[], Made]) -> Made:
        """The one that is kept; else it is made, and kept unless there is no key."""
        if key is None:
            return make()
        if key not in self:
            self[key] = make()
            while len(self) > KEPT:
                self.popitem(last=False)
        self.move_to_end(key)
        return self[key]


PROGRAMS: Kept[Any] = Kept()
"""Those of this process (:class:`stoker.engines.xla.program.Program`)."""


def sameness(step: Step, plan: Plan, state: State) -> Hashable | None:
    """What two steps have in common that have the same program; ``None`` where that cannot be told.

    Args:
        step: The step.
        plan: An epoch over its data.
        state: With the parameters that it moves.
    """
    if step.kind is None or not all(map(known_code, (step.model, *step.criteria))) or are_constant(step.model):
        return None
    inputs = {id(module) for _, module in rated(step.model)}
    modules = [module for one in (step.model, *step.criteria) for module in one.modules()]
    try:
        key = (
            step.kind,
            shape_of_work(step, plan.source, state),
            torch.get_default_dtype(),
            torch.get_float32_matmul_precision(),
            tuple(_tied(step.model)),
            tuple(arrangement(one) for one in (step.model, *step.criteria)),
            tuple((type(module), tuple(_seen(module, id(module) in inputs))) for module in modules),
            tuple(_values(tensor) for one in step.criteria for tensor in (*one.buffers(), *one.parameters())),
        )
        hash(key)
    except (_UnknownError, TypeError):  # a TypeError: something that cannot be compared by its value
        return None
    return key


class _UnknownError(Exception):
    """Something that a trace may look at, and that cannot be told apart."""


def _seen(module: nn.Module, rate_is_input: bool) -> Iterator[tuple[str, Hashable]]:
    """What a module's code can see of it, besides its tensors and parts."""
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            raise _UnknownError
        if name not in _TORCHS and not (rate_is_input and name == "p"):
            yield name, tuple(value) if isinstance(value, list) else value


_TORCHS = frozenset(vars(nn.Module())) - {"training"}


def _tied(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Each parameter's name with the first that it goes by."""
    first: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        yield name, first.setdefault(id(parameter), name)


def _form(tensor: Tensor) -> Hashable:
    return tensor.shape, tensor.dtype, tensor.requires_grad


def _values(tensor: Tensor) -> Hashable:
    """A criterion's tensors are constants of a program."""
    if tensor.numel() > LARGEST_CONSTANT:
        raise _UnknownError
    return _form(tensor), tuple(tensor.detach().flatten().tolist())
