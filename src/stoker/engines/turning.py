"""Which weights a program keeps turned, ``[in, out]`` rather than torch's ``[out, in]``, from step to step.

How long a product of small matrices takes depends on how well a weight's rows fill the processor's registers, and on
whether each begins at a multiple of so many numbers. So which of a weight's two dimensions had better be its rows
follows from their lengths: a rule that was read off measurements (``docs/performance.md``). Only weights that nothing
but products use are turned.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx

from stoker.engines.updates.state import Cohort

__all__ = ["Turned", "is_better_turned"]

VECTOR = 16  # numbers of single precision in the widest registers
ALIGNED = 8  # numbers at whose multiples a row's reads cross no line of memory more often than they must
UNALIGNED = 0.8  # what is left of the speed otherwise
_TURNS_AND_PRODUCTS = {"aten.permute.default", "aten.permute_copy.default", "aten.mm.default"}


@dataclass(frozen=True)
class Turned:
    """Which of a program's arrays are turned.

    Attributes:
        parameters: Of each parameter (its gradient and its average are as it is).
        slots: Of each of the optimizer's tensors.
    """

    parameters: tuple[bool, ...]
    slots: tuple[bool, ...]

    @classmethod
    def of(cls, gradients: fx.GraphModule, cohorts: Sequence[Cohort]) -> Turned:
        """Those that are better turned.

        Args:
            gradients: A graph whose first inputs are the parameters, cohort by cohort.
            cohorts: The optimizer's state.
        """
        places = (node for node in gradients.graph.nodes if node.op == "placeholder")
        parameters, slots = [], []
        for cohort in cohorts:
            for parameter, its_slots in zip(cohort.parameters, cohort.slots, strict=True):
                node = next(places)
                turned = is_better_turned(*parameter.shape) if parameter.ndim == 2 else False
                parameters.append(turned and all(str(user.target) in _TURNS_AND_PRODUCTS for user in node.users))
                slots += [parameters[-1] and slot.shape == parameter.shape for slot in its_slots.values()]
        return cls(tuple(parameters), tuple(slots))

    def turn(self, arrays: Iterable[Any]) -> list[Any]:
        """Turn arrays that are as the parameters are, or back."""
        return _turned(arrays, self.parameters)

    def turn_slots(self, arrays: Iterable[Any]) -> list[Any]:
        """Turn arrays that are as the optimizer's tensors are, or back."""
        return _turned(arrays, self.slots)


def is_better_turned(outputs: int, inputs: int) -> bool:
    """Whether products with a weight ``[outputs, inputs]`` are sooner made where it is kept turned."""
    return 3 * outputs >= inputs and (_fullness(outputs), outputs) > (_fullness(inputs), inputs)


def _fullness(length: int) -> float:
    """How much of the registers that a row takes is used, less for rows that begin anywhere."""
    if not length:
        return 0.0
    used = length / (VECTOR * math.ceil(length / VECTOR))
    return used if length % ALIGNED == 0 else UNALIGNED * used


def _turned(arrays: Iterable[Any], flags: Sequence[bool]) -> list[Any]:
    return [array.T if flag else array for array, flag in zip(arrays, flags, strict=True)]
