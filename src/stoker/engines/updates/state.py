"""Between a torch optimizer's own state and the slots and counts of pure updates."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from stoker.engines.updates.protocol import Counts, Group, UnsupportedOptimizerError, Update

__all__ = ["Cohort", "read_state", "write_state"]


@dataclass(frozen=True)
class Cohort:
    """Parameters of one group that have had the same updates, and so share their scalars.

    Attributes:
        group: Which of ``optimizer.param_groups``.
        dtype: Theirs, and that of their scalars.
        counts: What is counted for each of them.
        parameters: Whose slots these are, in the group's order.
        slots: One dict for each, by name.
    """

    group: int
    dtype: torch.dtype
    counts: Counts
    parameters: tuple[Tensor, ...]
    slots: tuple[dict[str, Tensor], ...]


def read_state(optimizer: Optimizer, update: Update, parameters: Iterable[Tensor] | None = None) -> list[Cohort]:
    """The state that an optimizer has, or would make at its first step.

    Args:
        optimizer: The optimizer, which stays as it is.
        update: Its update.
        parameters: Those that get gradients; ``None`` for all that require them. torch updates no others.

    Returns:
        Most often one cohort a group; more where parameters came later or differ in dtype. Slots that the optimizer has
        already are its own tensors, not copies.

    Raises:
        UnsupportedOptimizerError: A parameter's state lacks a tensor that the settings call for, which were changed
            since; torch's own step fails then.
    """
    chosen = None if parameters is None else {id(parameter) for parameter in parameters}
    found: dict[tuple[object, ...], tuple[int, Counts, list[tuple[Tensor, dict[str, Tensor]]]]] = {}
    for index, group in enumerate(optimizer.param_groups):
        for parameter in group["params"]:
            if id(parameter) in chosen if chosen is not None else parameter.requires_grad:
                state = optimizer.state.get(parameter, {})
                counts = update.counts(state)
                slots = {name: _slot(update, name, parameter, state, counts) for name in update.slots(group)}
                key = index, parameter.dtype, *sorted(counts.items())
                found.setdefault(key, (index, counts, []))[2].append((parameter, slots))
    return [
        Cohort(index, members[0][0].dtype, counts, *map(tuple, zip(*members, strict=True)))
        for index, counts, members in found.values()
    ]


def _slot(update: Update, name: str, parameter: Tensor, state: Group, counts: Counts) -> Tensor:
    if name in state:
        held: Tensor | None = state[name]
        if held is not None:
            return held
    if counts["step"] > 0:
        raise UnsupportedOptimizerError(f"an optimizer whose state has no {name}, which its settings call for")
    return update.initial(name, parameter.detach())


@torch.no_grad()
def write_state(optimizer: Optimizer, update: Update, cohorts: Iterable[Cohort]) -> None:
    """Make the optimizer hold what it would hold after the same updates: the same names, dtypes, devices and strides.

    Tensors that it has keep their memory. The parameters themselves are left to the caller.

    Args:
        optimizer: The optimizer.
        update: Its update.
        cohorts: Of :func:`read_state`, with the counts and slots that the updates came to.
    """
    for cohort in cohorts:
        if cohort.counts["step"] == 0:
            continue  # no update yet, and torch makes no state before the first
        group = optimizer.param_groups[cohort.group]
        for parameter, slots in zip(cohort.parameters, cohort.slots, strict=True):
            values = {name: cohort.counts[name] for name in update.counters}
            if not values and not slots:
                continue
            state = optimizer.state[parameter]
            for name, value in values.items():
                if name in state:
                    state[name].fill_(value)
                else:
                    state[name] = _counter(group, parameter, value)
            for name in update.slots(group):  # in torch's order, whatever became of the dict's
                slot = slots[name]
                if state.get(name) is None:
                    state[name] = torch.empty_like(parameter, memory_format=torch.preserve_format)
                if state[name] is not slot:
                    state[name].copy_(slot)


def _counter(group: Group, parameter: Tensor, value: float) -> Tensor:
    """A count as torch keeps it: on the host, in the default dtype; the fused update wants float32 on the device."""
    if group.get("fused"):
        return torch.tensor(value, dtype=torch.float32, device=parameter.device)
    double = torch.get_default_dtype() == torch.float64
    return torch.tensor(value, dtype=torch.float64 if double else torch.float32)
