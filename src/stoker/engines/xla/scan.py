"""A program at work on an epoch: each update's scalars, and the state on its way from and to the user's objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from stoker.data.resident import ResidentBatches
from stoker.data.trees import leaves
from stoker.engines.capture import State
from stoker.engines.plan import Plan
from stoker.engines.step import Step
from stoker.engines.updates.averaging import averaging_weights
from stoker.engines.updates.state import write_state
from stoker.engines.xla.crossing import borrowed, copied, overwrite, to_torch
from stoker.engines.xla.program import Arguments, Carry, Program

__all__ = ["Data", "Scan", "arguments_like"]


@dataclass(frozen=True)
class Data:
    """A data set as arrays."""

    source: ResidentBatches
    inputs: list[Any]
    targets: list[Any]

    @classmethod
    def of(cls, source: ResidentBatches) -> Data:
        return cls(source, borrowed(leaves(source.inputs)), borrowed(leaves(source.targets)))


class Scan:
    """The updates of one epoch, from a state on.

    Args:
        program: What makes them.
        step: What they are.
        state: Where they begin; it is copied.
        plan: The epoch.
        data: Its data.
        seed: Seeds the noise.

    Attributes:
        carry: The state that the updates made so far have come to.
    """

    def __init__(self, program: Program, step: Step, state: State, plan: Plan, data: Data, seed: int) -> None:
        self.program, self.step, self.state = program, step, state
        self.counts = [cohort.counts for cohort in state.cohorts]
        self.averaged = 0 if step.average is None else step.average.updates
        self._arguments = arguments_like(step, state, plan, data, program.signature.scalars, seed)
        self.carry: Carry = self._arguments.carry

    def advance(self, start: int, stop: int) -> list[float]:
        """Make the updates from ``start`` up to ``stop``, and move the schedule on past them; their losses."""
        self.fill(start, stop)
        return self.made(start, stop)

    def made(self, start: int, stop: int) -> list[float]:
        """Make these updates, whose scalars were put in; their losses."""
        return self.taken(*self.program(self.given(start, stop)), start, stop)

    def given(self, start: int, stop: int) -> Arguments:
        """What a program is called with to make these updates."""
        return self._arguments._replace(carry=self.carry, start=np.int32(start), stop=np.int32(stop))

    def taken(self, carry: Carry, losses: Any, start: int, stop: int) -> list[float]:
        """Take what a program made of it; the losses of these updates."""
        self.carry = carry
        values: list[float] = np.asarray(losses)[start:stop].tolist()
        return values

    @torch.no_grad()
    def hand_over(self) -> None:
        """Give the user's model and optimizer the state."""
        parameters, buffers, slots, averages = self.carry
        state, average = self.state, self.step.average
        # A buffer that is not written to stays as old as it is: the criterion may hold it too, as a program's constant.
        moved = [
            (tensor, array)
            for tensor, array in zip(state.buffers.values(), buffers, strict=True)
            if not _same_bits(tensor, to_torch(array))
        ]
        mine = [*state.parameters.values(), *state.slots, *state.averages, *(tensor for tensor, _ in moved)]
        overwrite(mine, [*parameters, *slots, *averages, *(array for _, array in moved)])
        if average is not None:
            average.updates = self.averaged
        cohorts = [replace(cohort, counts=counts) for cohort, counts in zip(state.cohorts, self.counts, strict=True)]
        write_state(self.step.optimizer, state.update, cohorts)

    def fill(self, start: int, stop: int) -> None:
        """Put in the scalars of these updates, and move the schedule on past them."""
        groups, schedule = self.state.groups, self.step.schedule
        if schedule is None:
            self.put(start, [[float(group["lr"])] * (stop - start) for group in groups], groups)
            return
        # torch warns of a schedule that is ahead of the optimizer's steps
        self.step.optimizer._opt_called = True  # type: ignore[attr-defined]
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
        """Put in the scalars of the updates from ``start`` on, with each group's learning rates and other settings."""
        stop = start + len(rates[0])
        for place, cohort in enumerate(self.state.cohorts):
            found, self.counts[place] = self.state.update.scalars(
                groups[cohort.group], self.counts[place], rates[cohort.group]
            )
            for column, name in enumerate(self.program.signature.scalars[place]):
                self._arguments.scalars[place][start:stop, column] = found[name]
        if self.step.average is not None:
            weights = averaging_weights(self.step.average.decay, self.averaged, stop - start)
            self._arguments.weights[0][start:stop] = weights
            self.averaged += stop - start


def arguments_like(
    step: Step, state: State, plan: Plan, data: Data, scalars: Sequence[Sequence[str]], seed: int = 0
) -> Arguments:
    """Arguments of the form that a program will be called with, with no scalars put in."""
    parameters, buffers = list(state.parameters.values()), list(state.buffers.values())
    return Arguments(
        carry=(
            copied(parameters),
            copied(buffers),
            copied(state.slots),
            copied(state.averages),
        ),
        start=np.int32(0),
        stop=np.int32(0),
        order=plan.whole().to(torch.int32).numpy(),
        scalars=[
            np.zeros((plan.updates, len(names)), dtype=str(cohort.dtype).removeprefix("torch."))
            for names, cohort in zip(scalars, state.cohorts, strict=True)
        ],
        weights=[np.zeros(plan.updates)] if state.averages else [],
        constants=borrowed(state.constants.values()),
        rates=[rate.numpy() for rate in state.rates.values()],
        inputs=data.inputs,
        targets=data.targets,
        max_norm=[] if step.clip_norm is None else [np.asarray(step.clip_norm, dtype=np.float32)],
        seed=np.int32(seed),
    )


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8))


def _others(group: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name not in {"params", "lr"}}
