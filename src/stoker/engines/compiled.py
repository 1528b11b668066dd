"""The compiled engine: the whole epoch as one program, for the user's own module and optimizer, unchanged.

Where a step cannot be captured or lowered, or where its first compiled steps are not what the eager ones come to, the
eager engine carries on, and :attr:`CompiledEngine.reason` says why.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from stoker.data.batches import Batches
from stoker.data.resident import ResidentBatches
from stoker.data.trees import Batch
from stoker.engines.capture import State, idle_parameters, refusal_of
from stoker.engines.eager import EagerEngine
from stoker.engines.plan import CHANGING, Plan, form, form_digest, unsupported
from stoker.engines.rates import are_constant, keep_constant
from stoker.engines.reuse import PROGRAMS, sameness
from stoker.engines.settled import Changes
from stoker.engines.standing import Standing
from stoker.engines.step import Epoch, EpochOutcome, Step, Watch
from stoker.engines.takeover import (
    Advance,
    Attempt,
    alone,
    compared_program,
    first_updates,
    real_update,
    reopened,
    run_epoch,
    stood,
)
from stoker.engines.together import Lane
from stoker.engines.xla.device import lacking
from stoker.engines.xla.scan import AnotherUpdateError, Data

__all__ = ["CompiledEngine"]


class CompiledEngine:
    """Carries out an epoch's steps as one XLA program, from the fourth step of the first epoch on.

    Args:
        lane: Where this training is one of several that meet for their steps; ``None`` for one by itself.

    Attributes:
        reason: Why the eager engine carries out the steps instead; ``None`` if it does not.
    """

    name = "compiled"

    def __init__(self, lane: Lane | None = None) -> None:
        self._lane = lane
        self.reason: str | None = None
        self._eager = EagerEngine()
        self._attempt: Attempt | None = None
        self._data: Data | None = None
        self._changes = Changes()
        self._noise: int | None = None
        self._resumed: Standing | None = None

    def __getstate__(self) -> dict[str, Any]:
        """A copy makes its own program: this one is of the original's tensors, and compiled into this process."""
        return {**vars(self), "_attempt": None, "_data": None, "_lane": None}

    @property
    def explanation(self) -> str:
        """See :class:`stoker.engines.step.Engine`."""
        return "compiled: as asked" if self.reason is None else f"eager: {self.reason}"

    def close(self) -> None:
        """See :class:`stoker.engines.step.Engine`: there is nothing."""

    def standing(self, step: Step, batches: Batches, *, under_way: bool) -> Standing:
        """See :class:`stoker.engines.step.Engine`."""
        changes, attempt = self._changes, self._attempt
        blank = Standing("compiled", changes=changes.count, same=changes.same, form=changes.form, reason=self.reason)
        blank = replace(blank, rates_constant=are_constant(step.model))
        if attempt is None or not isinstance(batches, ResidentBatches):
            return blank
        if under_way:
            stale = attempt.program is not None and self.reason is not None  # eager steps are made instead
            goes_on = not stale and attempt.goes_on(step, batches)
            return replace(stood(attempt, blank), noise=self._noise) if goes_on else blank
        state = attempt.state(step, Plan(batches, 0, step.accumulate))
        return blank if state is None else stood(attempt, blank, form_digest(step, batches, state))

    def resume(self, standing: Standing) -> None:
        """See :class:`stoker.engines.step.Engine`."""
        self._resumed, self._noise = standing, standing.noise
        made = standing.program or standing.refusal is not None  # whose form it is then
        self._changes = Changes(standing.changes, standing.same, None if made else standing.form)
        self._attempt = None  # of another training
        self.reason = standing.reason

    def train_epoch(self, step: Step, batches: Iterable[Batch], watch: Watch) -> EpochOutcome:
        """See :class:`stoker.engines.step.Engine`."""
        self.reason = unsupported(step, batches) or lacking(step.device)
        if self.reason is not None:
            return self._eager.train_epoch(step, batches, watch)
        assert isinstance(batches, Epoch)
        assert isinstance(batches.batches, ResidentBatches)
        plan = Plan(batches.batches, batches.number, step.accumulate)
        outcome = batches.outcome
        begun = outcome.steps
        if not begun:
            self._noise = int(torch.randint(2**31 - 1, ()))  # of this epoch, from the generator seeded for it
        self._data = Data.of(plan.source, self._data)
        if self._resumed is not None:
            if self._resumed.rates_constant:
                keep_constant(step.model)
            if self._resumed.program or self._resumed.refusal is not None:
                self._attempt = reopened(self._resumed, step, plan, self._data)
            self._resumed = None
        state = None if self._attempt is None else self._attempt.state(step, plan)
        if not begun:
            self._changes.begin(step, plan.source, fits=state is not None)
        if self._changes.too_many:
            self.reason, self._attempt, self._noise = CHANGING, None, None
            return self._eager.train_epoch(step, batches, watch)
        if self._noise is None:  # it went on eagerly before it was interrupted
            return self._rest(step, plan, batches, watch)
        if self._attempt is None or state is None:
            self._attempt = None
            try:
                self._attempt = self._tried(step, plan, self._data, self._noise, outcome)
            except AnotherUpdateError:
                return self._rest(step, plan, batches, watch)
            if self._attempt is None:  # the epoch was ended within the first steps, and nothing is known yet
                return outcome
            state = State.of(step, self._attempt.idle)
        if self._attempt.program is None:
            return self._rest(step, plan, batches, watch)
        advance: Advance = alone
        if self._lane is not None:
            advance = partial(self._lane.advance, sameness(step, plan, state), self._data)
        if run_epoch(self._attempt, step, state, plan, self._data, self._noise, outcome, watch, batches.cut, advance):
            return outcome
        if self._attempt.state(step, plan) is None:
            self._attempt = None
        return self._rest(step, plan, batches, watch)

    def _rest(self, step: Step, plan: Plan, batches: Epoch, watch: Watch) -> EpochOutcome:
        """Make what is left of an epoch eagerly; what is kept within it says so by having no noise."""
        self._noise, self.reason = None, None
        if self._attempt is not None:
            self.reason, self._attempt.seen = self._attempt.refusal, None
        made = batches.outcome.steps
        return self._eager.go_on(step, plan.rest(made), watch, batches.outcome, batches.cut)

    @staticmethod
    def _tried(step: Step, plan: Plan, data: Data, seed: int, outcome: EpochOutcome) -> Attempt | None:
        """Make three real updates, and a program whose updates are the last two of them to within rounding.

        Raises:
            AnotherUpdateError: The schedule came to another update than the program's.
        """
        if not real_update(step, plan, outcome):
            return None
        idle = idle_parameters(step.model)
        known: tuple[Any, ...] = ()
        try:
            state = State.of(step, idle)
            known = form(step, plan.source, state)
            program = PROGRAMS.get_or_make(
                sameness(step, plan, state), lambda: compared_program(step, state, plan, data)
            )
        except Exception as error:  # whatever keeps a program from being made; the step itself was made
            return Attempt(idle, known, refusal=refusal_of(error))
        return first_updates(Attempt(idle, known, program), step, plan, data, seed, outcome)
