"""Programs at work on an epoch: the scalars of each step, and the state on its way from and to the user's objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
import torch
from torch import Tensor

from stoker.engines.capture import State
from stoker.engines.step import Step
from stoker.engines.updates.state import write_state
from stoker.engines.xla.program import Carry, Program, copied, to_torch

__all__ = ["Carrier", "Scan"]


class Carrier:
    """The state that programs have come to.

    Args:
        step: What they carry out.
        state: Where they begin; it is copied.
        data: All inputs and all targets.
        seed: Seeds the noise.

    Attributes:
        carry: The state now.
        counts: Of each cohort.
    """

    def __init__(self, step: Step, state: State, data: tuple[list[Any], list[Any]], seed: int) -> None:
        self.step, self.state, self.data, self.seed = step, state, data, seed
        self.counts = [cohort.counts for cohort in state.cohorts]
        self.constants = copied(list(state.constants.values()))
        self.max_norm: list[Any] = [] if step.clip_norm is None else [np.asarray(step.clip_norm, dtype=np.float32)]
        parameters, buffers = list(state.parameters.values()), list(state.buffers.values())
        self.carry: Carry = copied(parameters), copied(buffers), copied(state.slots)

    @torch.no_grad()
    def hand_over(self) -> None:
        """Give the user's model and optimizer the state."""
        parameters, buffers, slots = self.carry
        for mine, theirs in zip(self.state.parameters.values(), parameters, strict=True):
            mine.copy_(to_torch(theirs))
        for mine, theirs in zip(self.state.buffers.values(), buffers, strict=True):
            mine.copy_(to_torch(theirs))
        moved = iter(slots)
        cohorts = [
            replace(
                cohort,
                counts=counts,
                slots=tuple({name: to_torch(next(moved)) for name in its} for its in cohort.slots),
            )
            for cohort, counts in zip(self.state.cohorts, self.counts, strict=True)
        ]
        write_state(self.step.optimizer, self.state.update, cohorts)


class Scan:
    """One program's steps over some batches.

    Args:
        program: Of a step with batches of this size.
        carrier: What it moves on.
        order: The rows of each batch, ``[steps, batch]``.
        first: The number of the first of these steps within the epoch, which its noise is drawn for.
    """

    def __init__(self, program: Program, carrier: Carrier, order: Tensor, first: int = 0) -> None:
        self.program, self.carrier, self.first = program, carrier, first
        self.order = jnp.asarray(order.to(torch.int32).numpy())
        (self.losses,) = copied([torch.zeros(len(order))])
        self.scalars = [
            np.zeros((len(order), len(names)), dtype=str(cohort.dtype).removeprefix("torch."))
            for names, cohort in zip(program.scalars, carrier.state.cohorts, strict=True)
        ]

    def advance(self, start: int, stop: int) -> list[float]:
        """Make the steps from ``start`` up to ``stop``, and move the schedule on past them; their losses."""
        self._fill(start, stop)
        return self.made(start, stop)

    def made(self, start: int, stop: int) -> list[float]:
        """Make these steps, whose scalars were put in; their losses."""
        carrier = self.carrier
        carrier.carry, self.losses = self.program(
            carrier.carry,
            self.losses,
            start,
            stop,
            self.order,
            self.scalars,
            carrier.constants,
            *carrier.data,
            carrier.max_norm,
            carrier.seed + self.first,
        )
        losses: list[float] = np.asarray(self.losses)[start:stop].tolist()
        return losses

    def _fill(self, start: int, stop: int) -> None:
        """Put in the scalars of these steps."""
        groups, schedule = self.carrier.state.groups, self.carrier.step.schedule
        if schedule is None:
            self.put(start, [[float(group["lr"])] * (stop - start) for group in groups], groups)
            return
        # torch warns of a schedule that is ahead of the optimizer's steps
        self.carrier.step.optimizer._opt_called = True  # type: ignore[attr-defined]
        settings = [dict(group) for group in groups]
        rates: list[list[float]] = [[] for _ in groups]
        for place in range(start, stop):
            if any(_others(now) != _others(then) for now, then in zip(groups, settings, strict=True)):
                self.put(place - len(rates[0]), rates, settings)  # the schedule moves more than the rate
                settings, rates = [dict(group) for group in groups], [[] for _ in groups]
            for each, group in zip(rates, groups, strict=True):
                each.append(float(group["lr"]))
            schedule()
        self.put(stop - len(rates[0]), rates, settings)

    def put(self, start: int, rates: list[list[float]], groups: Sequence[Mapping[str, Any]]) -> None:
        """Put in the scalars of the steps from ``start`` on, with each group's learning rates and other settings."""
        stop = start + len(rates[0])
        carrier = self.carrier
        for place, cohort in enumerate(carrier.state.cohorts):
            group = groups[cohort.group]
            found, carrier.counts[place] = carrier.state.update.scalars(
                group, carrier.counts[place], rates[cohort.group]
            )
            for column, name in enumerate(self.program.scalars[place]):
                self.scalars[place][start:stop, column] = found[name]


def _others(group: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name not in {"params", "lr"}}
