"""A program at work on an epoch: each update's scalars, and the state on its way from and to the user's objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
from stoker.engines.xla.crossing import borrowed, copied, overwrite, same_bits
from stoker.engines.xla.program import Arguments, Carry, Program

__all__ = ["AnotherUpdateError", "Data", "Scan", "arguments_like"]


class AnotherUpdateError(Exception):
    """The optimizer's settings have become those of another update than the program's: momentum went to zero."""


@dataclass(frozen=True)
class Data:
    """A data set as arrays."""

    source: ResidentBatches
    inputs: list[Any]
    targets: list[Any]
    versions: tuple[int, ...]

    @classmethod
    def of(cls, source: ResidentBatches, known: Data | None = None) -> Data:
        """The data as they are now.

        Args:
            source: Where they lie.
            known: As they were. What had to be copied is copied again if it has been written to.
        """
        inputs, targets = leaves(source.inputs), leaves(source.targets)
        versions = tuple(tensor._version for tensor in (*inputs, *targets))
        if known is None or known.source is not source or known.versions != versions:
            known = None
        before = ([], []) if known is None else (known.inputs, known.targets)
        return cls(source, borrowed(inputs, before[0]), borrowed(targets, before[1]), versions)


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
        self._put: list[tuple[list[list[float]], list[dict[str, Any]]]] = []
        self._signatures = [state.update.signature(group) for group in state.groups]

    def advance(self, start: int, stop: int) -> list[float]:
        """Make the updates from ``start`` up to ``stop``, and move the schedule on past them; their losses.

        They are fewer where the schedule comes to settings that call for another update than the program's.
        """
        stop = self.fill(start, stop)
        return self.made(start, stop) if stop > start else []

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
            if not same_bits(tensor, array)
        ]
        mine = [*state.parameters.values(), *state.slots, *state.averages, *(tensor for tensor, _ in moved)]
        overwrite(mine, [*parameters, *slots, *averages, *(array for _, array in moved)])
        if average is not None:
            average.updates = self.averaged
        cohorts = [replace(cohort, counts=counts) for cohort, counts in zip(state.cohorts, self.counts, strict=True)]
        write_state(self.step.optimizer, state.update, cohorts)

    def fits(self, groups: Sequence[Mapping[str, Any]]) -> bool:
        """Whether the program's update is the one that these settings call for."""
        return self._signatures == [self.state.update.signature(group) for group in groups]

    def settings(self) -> Iterator[list[dict[str, Any]]]:
        """Of each update of the segment that was advanced over last, each group's."""
        for rates, groups in self._put:
            for lrs in zip(*rates, strict=True):
                yield [{**group, "lr": lr} for group, lr in zip(groups, lrs, strict=True)]

    def is_at(self, state: State, counts: list[Any]) -> bool:
        """Whether a state is the one that was handed over, to the bit.

        Args:
            state: As it is now, of the same form.
            counts: As they were read then.
        """
        parameters, buffers, slots, averages = self.carry
        mine = [*parameters, *buffers, *slots, *averages, *self._arguments.constants]
        theirs = [*state.parameters.values(), *state.buffers.values(), *state.slots, *state.averages]
        theirs += state.constants.values()
        rates = zip(state.rates.values(), self._arguments.rates, strict=True)
        return (
            counts == [cohort.counts for cohort in state.cohorts]
            and (self.step.average is None or self.averaged == self.step.average.updates)
            and all(float(now) == float(then) for now, then in rates)
            and all(same_bits(tensor, array) for tensor, array in zip(theirs, mine, strict=True))
        )

    def fill(self, start: int, stop: int) -> int:
        """Put in the scalars of these updates, and move the schedule on past them, up to one that is not the program's.

        Returns:
            Which that is; ``stop`` if there is none.
        """
        groups, schedule = self.state.groups, self.step.schedule
        self._put = []
        if not self.fits(groups):
            return start
        if schedule is None:
            self.put(start, [[float(group["lr"])] * (stop - start) for group in groups], groups)
            return stop
        # torch warns of a schedule that is ahead of the optimizer's steps
        self.step.optimizer._opt_called = True  # type: ignore[attr-defined]
        settings = [dict(group) for group in groups]
        rates: list[list[float]] = [[] for _ in groups]
        for place in range(start, stop):
            if any(_others(now) != _others(then) for now, then in zip(groups, settings, strict=True)):
                self.put(place - len(rates[0]), rates, settings)  # the schedule moves more than the rate
                settings, rates = [dict(group) for group in groups], [[] for _ in groups]
                if not self.fits(groups):
                    return place
            for each, group in zip(rates, groups, strict=True):
                each.append(float(group["lr"]))
            schedule()
        self.put(stop - len(rates[0]), rates, settings)
        return stop

    def put(self, start: int, rates: list[list[float]], groups: Sequence[Mapping[str, Any]]) -> None:
        """Put in the scalars of the updates from ``start`` on, with each group's learning rates and other settings.

        Raises:
            AnotherUpdateError: The settings are not those of the program's update.
        """
        if not self.fits(groups):
            raise AnotherUpdateError
        stop = start + len(rates[0])
        self._put.append((rates, [_others(group) for group in groups]))
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


def _others(group: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name not in {"params", "lr"}}
