"""The compiled engine: the whole epoch as one program, for the user's own module and optimizer, unchanged.

Where a step cannot be captured or lowered, or where its first compiled steps are not what the eager ones come to, the
eager engine carries on, and :attr:`CompiledEngine.reason` says why.
"""

from __future__ import annotations

import itertools
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
from stoker.engines.plan import CHANGES, CHANGING, Plan, form, form_digest, unsupported
from stoker.engines.reuse import PROGRAMS, sameness
from stoker.engines.standing import Standing
from stoker.engines.step import Epoch, EpochOutcome, Step, Watch
from stoker.engines.takeover import (
    Advance,
    Attempt,
    alone,
    captured_step,
    first_updates,
    real_update,
    reopened,
    run_epoch,
    stood,
)
from stoker.engines.together import Lane
from stoker.engines.xla.program import Program
from stoker.engines.xla.scan import Data

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
        self._changes = 0
        self._noise: int | None = None
        self._resumed: Standing | None = None

    @property
    def explanation(self) -> str:
        """See :class:`stoker.engines.step.Engine`."""
        return "compiled: as asked" if self.reason is None else f"eager: {self.reason}"

    def close(self) -> None:
        """See :class:`stoker.engines.step.Engine`: there is nothing."""

    def standing(self, step: Step, batches: Batches, *, under_way: bool) -> Standing:
        """See :class:`stoker.engines.step.Engine`."""
        attempt, blank = self._attempt, Standing("compiled", changes=self._changes, reason=self.reason)
        if attempt is None:
            return blank
        if under_way:
            stale = attempt.program is not None and self.reason is not None  # eager steps are made instead
            return blank if stale else replace(stood(attempt, blank), noise=self._noise)
        if not isinstance(batches, ResidentBatches):
            return blank
        state = attempt.state(step, Plan(batches, 0, step.accumulate))
        return blank if state is None else stood(attempt, blank, form_digest(step, batches, state))

    def resume(self, standing: Standing) -> None:
        """See :class:`stoker.engines.step.Engine`."""
        self._resumed, self._changes, self._noise = standing, standing.changes, standing.noise
        self._attempt = None  # of another training
        self.reason = standing.reason

    def train_epoch(self, step: Step, batches: Iterable[Batch], watch: Watch) -> EpochOutcome:
        """See :class:`stoker.engines.step.Engine`."""
        self.reason = unsupported(step, batches)
        if self.reason is not None:
            return self._eager.train_epoch(step, batches, watch)
        assert isinstance(batches, Epoch)
        assert isinstance(batches.batches, ResidentBatches)
        plan = Plan(batches.batches, batches.number, step.accumulate)
        outcome = batches.outcome
        begun = outcome.steps
        if not begun:
            self._noise = int(torch.randint(2**31 - 1, ()))  # of this epoch, from the generator seeded for it
        seed = self._noise or 0
        if self._data is None or self._data.source is not plan.source:
            self._data = Data.of(plan.source)
        if self._resumed is not None:
            if self._resumed.program or self._resumed.refusal is not None:
                self._attempt = reopened(self._resumed, step, plan, self._data)
            self._resumed = None
        state = None if self._attempt is None else self._attempt.state(step, plan)
        if not begun:
            self._changes = 0 if state is not None else self._changes + 1
        if self._changes > CHANGES:
            self.reason = CHANGING
            return self._eager.train_epoch(step, batches, watch)
        if self._attempt is None or state is None:
            self._attempt = self._tried(step, plan, self._data, seed, outcome)
            if self._attempt is None:  # the epoch was ended within the first steps, and nothing is known yet
                return outcome
            state = State.of(step, self._attempt.idle)
        self.reason = self._attempt.refusal
        if self._attempt.program is None:
            made = itertools.islice(iter(batches), (outcome.steps - begun) * step.accumulate, None)
            return self._eager.go_on(step, made, watch, outcome, batches.cut)
        advance: Advance = alone
        if self._lane is not None:
            advance = partial(self._lane.advance, sameness(step, plan, state), self._data)
        return run_epoch(self._attempt, step, state, plan, self._data, seed, outcome, watch, batches.cut, advance)

    @staticmethod
    def _tried(step: Step, plan: Plan, data: Data, seed: int, outcome: EpochOutcome) -> Attempt | None:
        """Make three real updates, and a program whose updates are the last two of them to within rounding."""
        if not real_update(step, plan, outcome):
            return None
        idle = idle_parameters(step.model)
        known: tuple[Any, ...] = ()
        try:
            state = State.of(step, idle)
            known = form(step, plan.source, state)
            program = PROGRAMS.get_or_make(
                sameness(step, plan, state), lambda: Program.of(*captured_step(step, state, plan, data))
            )
        except Exception as error:  # whatever keeps a program from being made; the step itself was made
            return Attempt(idle, known, refusal=refusal_of(error))
        return first_updates(Attempt(idle, known, program), step, plan, data, seed, outcome)
