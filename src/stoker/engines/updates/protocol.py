"""What an optimizer's update owes to be a part of a traced program."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
from torch import Tensor

__all__ = ["Counts", "Group", "Signature", "UnsupportedOptimizerError", "Update", "columns"]

Group: TypeAlias = Mapping[str, Any]
"""One of ``optimizer.param_groups``."""

Counts: TypeAlias = Mapping[str, float]
"""What is counted on the host between updates, by name: ``step``, the updates made; NAdam's ``mu_product``."""

Signature: TypeAlias = frozenset[str]
"""The settings of a group that are on and change the program, such as ``{"momentum", "nesterov"}``."""


class UnsupportedOptimizerError(Exception):
    """An optimizer has no pure update, or not as it is set up; the text is a reason of one line for the user."""


class Update(ABC):
    """One class of ``torch.optim``'s optimizers: the same numbers from a pure function.

    What a step needs is of three kinds. *Slots* are tensors of a parameter's shape that go from one update to the next,
    under the names that they have in the optimizer's state. *Scalars* are numbers of one update: hyperparameters, and
    what follows from them and from the step's number, such as bias corrections. They are computed on the host in
    double precision, as torch's own loop over parameters does (``0.999**t`` drifts in float32), and are inputs of the
    program, so that changing a hyperparameter changes no program. The *signature* is what does change it.

    Args:
        defaults: The optimizer's ``defaults``.

    Attributes:
        flags: The settings whose truth is part of the signature.
        counters: Which counts the optimizer keeps in its state.
    """

    flags: ClassVar[tuple[str, ...]] = ("maximize",)
    counters: ClassVar[tuple[str, ...]] = ("step",)

    def __init__(self, defaults: Group) -> None:
        self.defaults = defaults

    def signature(self, group: Group) -> Signature:
        """What, when it changes, needs a new program; hashable."""
        return frozenset(name for name in self.flags if group[name])

    @abstractmethod
    def slots(self, group: Group) -> tuple[str, ...]:
        """Names of the tensors kept for each parameter."""

    def initial(self, name: str, parameter: Tensor) -> Tensor:  # noqa: ARG002  # Adagrad's depends on the name's slot alone
        """A slot before the first update; new, of the parameter's shape, dtype, device and strides."""
        return torch.zeros_like(parameter, memory_format=torch.preserve_format)

    def counts(self, state: Mapping[str, Any]) -> Counts:
        """The counts in a parameter's part of the optimizer's state, which is empty before the first update."""
        return {"step": float(state["step"]) if state else 0.0}

    @abstractmethod
    def scalars(self, group: Group, counts: Counts, lrs: Sequence[float]) -> tuple[dict[str, np.ndarray], Counts]:
        """The scalars of the next updates.

        Args:
            group: The hyperparameters; its learning rate is not looked at.
            counts: Before these updates.
            lrs: The learning rate of each of them.

        Returns:
            By name, float64 of shape ``[updates]``; and the counts after these updates.
        """

    @abstractmethod
    def apply(
        self,
        parameter: Tensor,
        gradient: Tensor,
        slots: Mapping[str, Tensor],
        scalars: Mapping[str, Tensor],
        signature: Signature,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """One update of one parameter; nothing is changed in place.

        Args:
            parameter: float32 or float64, of any shape.
            gradient: Of the same shape and dtype.
            slots: Likewise, by name.
            scalars: 0-d, of the parameter's dtype, by name.
            signature: The group's.

        Returns:
            The parameter and the slots after the update.
        """


def columns(updates: int, values: Mapping[str, float | Sequence[float]]) -> dict[str, np.ndarray]:
    """Each as float64 of shape ``[updates]``; a number is the same in every update."""
    return {name: np.full(updates, value, dtype=np.float64) for name, value in values.items()}
