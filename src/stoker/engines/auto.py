"""The engine that is done first: eager steps at once, a program beside them where the job is long enough for one.

After some dozens of steps, or two tenths of a second, it is known about how long the job would take eagerly. If a
program is sure to save more than it takes to make (:mod:`stoker.engines.outlook`), it is made at once; if it may, one
is made beside the training and measured there (:mod:`stoker.engines.beside`). It takes over, in the middle of an epoch
if need be, if what is left is done sooner with it, what the hand-over itself costs counted in. A hand-over is at a
moment that depends on the clock, so that two runs may differ in their last bits, as two engines do.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from stoker.data.batches import Batches
from stoker.data.resident import ResidentBatches
from stoker.data.trees import Batch
from stoker.engines.beside import Build, Made, begin, forks
from stoker.engines.capture import CaptureError, State, idle_parameters
from stoker.engines.eager import EagerEngine
from stoker.engines.outlook import slowness, surely_saved
from stoker.engines.plan import CHANGES, CHANGING, COMPARED, Plan, current_state, form, form_digest, unsupported
from stoker.engines.rates import are_constant, keep_constant, known_code
from stoker.engines.reuse import PROGRAMS, sameness
from stoker.engines.standing import Standing
from stoker.engines.step import Epoch, EpochOutcome, Step, Watch

if TYPE_CHECKING:  # these import JAX, which a job that ends before it pays is spared
    from stoker.engines.compiled import CompiledEngine
    from stoker.engines.takeover import Attempt
    from stoker.engines.xla.scan import Data

__all__ = ["AutoEngine"]

BY_SHAPE = "chosen by the job's shape"

EARLY = (16, 80)  # the steps at which a first epoch is looked at before a tenth of a second is over
# Seconds on one machine; more where calls take longer: times :func:`stoker.engines.outlook.slowness`.
BUILD_SECONDS = 6.0  # of eager steps, from which on a program is made beside: it costs them half a second
COLD_SECONDS = 0.7  # what the hand-over takes: importing JAX, looking into the cache, the compared updates
WARM_SECONDS = 0.3  # the same where JAX is there already
READY = 0.05  # and where the program is, too: the compared updates
AT_ONCE = 1.3  # from so many seconds that it is sure to save on, a program is made at once
KEPT = 0.1  # the same where there is one already, of a training before
UNKNOWN = 1.5  # the same for models whose code may turn out to be no program
WARM_BUILD = 2.0  # where nothing can be forked, capture holds the training up: let it be a small part of the job
CERTAIN_UPDATES = 20_000  # with ``deterministic``, jobs of so many updates are compiled from the start


class AutoEngine:
    """Carries out steps eagerly until a program is ready that ends the job sooner.

    Args:
        deterministic: Choose by the job's shape alone, never by a clock.
        trainings: How many of about this length there are to be, by which such a choice counts.

    Attributes:
        name: What carries out the steps now.
        reason: Why that is the eager engine; ``None`` if it is not.
    """

    def __init__(self, *, deterministic: bool = False, trainings: int = 1) -> None:
        self.deterministic = deterministic
        self.trainings = trainings
        self.name = "eager"
        self.reason: str | None = "nothing is known yet"
        self._since = ""
        self._eager = EagerEngine()
        self._certain: CompiledEngine | None = None
        self._pace = _Pace()
        self._longest = 0.0
        self._build: Build | None = None
        self._made: Made | None = None
        self._attempt: Attempt | None = None
        self._data: Data | None = None
        self._builds = 0
        self._form: tuple[Any, ...] | None = None
        self._noise: int | None = None
        self._resumed: Standing | None = None

    def __getstate__(self) -> dict[str, Any]:
        """A copy makes its own program: this one is of the original's tensors, and compiled into this process."""
        return {**vars(self), "_attempt": None, "_made": None, "_build": None, "_data": None}

    @property
    def explanation(self) -> str:
        """See :class:`stoker.engines.step.Engine`."""
        return f"{self.name}: {self._since if self.reason is None else self.reason}"

    def close(self) -> None:
        """See :class:`stoker.engines.step.Engine`: a program that is being made is given up."""
        if self._build is not None:
            self._build.close()
            self._build, self.reason = None, "the training was over before a program was made"

    def standing(self, step: Step, batches: Batches, *, under_way: bool) -> Standing:
        """See :class:`stoker.engines.step.Engine`."""
        if self._certain is not None:
            certain = self._certain.standing(step, batches, under_way=under_way)
            return replace(certain, engine="auto", since=BY_SHAPE)
        unknown = Standing("auto", reason=self.reason, rates_constant=are_constant(step.model))
        blank = replace(unknown, since=self._since, timed=True)
        if self._attempt is not None:
            from stoker.engines.takeover import stood

            if not isinstance(batches, ResidentBatches):
                return unknown
            if self.name == "compiled" and under_way:
                goes_on = self._attempt.goes_on(step, batches)
                return replace(stood(self._attempt, blank), noise=self._noise) if goes_on else unknown
            if not under_way:
                state = self._attempt.state(step, Plan(batches, 0, step.accumulate))
                return unknown if state is None else stood(self._attempt, blank, form_digest(step, batches, state))
        if self._made is not None and self._made.refusal is not None:
            return replace(blank, refusal=self._made.refusal, idle=self._made.idle)
        return unknown

    def resume(self, standing: Standing) -> None:
        """See :class:`stoker.engines.step.Engine`: what a clock has chosen is kept."""
        self._resumed, self._noise = standing, standing.noise
        # what another training has come to says nothing of this one
        self._attempt = self._made = self._certain = None
        self._builds = 0
        self.name, self.reason, self._since = (
            "compiled" if standing.program else "eager",
            standing.reason,
            standing.since,
        )

    def _reopen(self, standing: Standing, step: Step, plan: Plan) -> None:
        """Be where the engine of another process was."""
        if standing.rates_constant:
            keep_constant(step.model)
        if standing.since == BY_SHAPE:
            from stoker.engines.compiled import CompiledEngine

            self._certain = CompiledEngine()
            self._certain.resume(standing)
        elif standing.program:
            from stoker.engines.takeover import reopened
            from stoker.engines.xla.scan import Data

            self._data = Data.of(plan.source)
            self._attempt = reopened(standing, step, plan, self._data)
        elif standing.refusal is not None:
            known = form(step, plan.source, State.of(step, standing.idle))
            self._made = Made(standing.idle, known, standing.refusal)

    def train_epoch(self, step: Step, batches: Iterable[Batch], watch: Watch) -> EpochOutcome:
        """See :class:`stoker.engines.step.Engine`."""
        refusal = unsupported(step, batches)
        if refusal is None and step.device.type != "cpu":  # where nobody has measured which engine is faster
            refusal = f"the device is {step.device.type}"
        if refusal is not None:
            return self._stay(refusal).train_epoch(step, batches, watch)
        assert isinstance(batches, Epoch)
        assert isinstance(batches.batches, ResidentBatches)
        plan = Plan(batches.batches, batches.number, step.accumulate)
        if self._resumed is not None:
            self._reopen(self._resumed, step, plan)
            self._resumed = None
        if self.deterministic:
            return self._by_shape(step, batches, plan, watch)
        outcome = batches.outcome
        state = None if self._attempt is None else self._attempt.state(step, plan)
        if state is not None:
            self._builds = 0
            if not outcome.steps:
                self._noise = _noise()
            return self._compiled(step, state, plan, batches, watch)
        made = self._made
        if made is not None and current_state(step, plan.source, made.idle, made.known) is None:
            self._made = None  # it was for another step
        if self._builds == CHANGES and self._build is None and self._made is None:
            self._look_again(step, plan)
        if self._eagerly(step, batches, plan, outcome, watch):
            return outcome
        return self._taken_over(step, batches, plan, outcome, watch)

    def _eagerly(self, step: Step, batches: Epoch, plan: Plan, outcome: EpochOutcome, watch: Watch) -> bool:
        """Make eager steps until the epoch ends or a program takes over; whether the epoch is over."""
        sooner, began, before = False, time.perf_counter(), outcome.steps

        def look(so_far: EpochOutcome) -> bool:
            nonlocal sooner, began, before
            self._note(time.perf_counter() - began, so_far.steps - before)
            goes_on = watch(so_far)
            sooner = goes_on and self._pace.known and self._sooner(step, batches, plan, so_far)
            # Who watches may take its time, which is not the steps'.
            began, before = time.perf_counter(), so_far.steps
            return goes_on and not sooner

        def cut(steps: int) -> int | None:
            theirs = batches.cut(steps)
            if self._pace.known:
                return theirs
            mine = (place for place in EARLY if place > steps)
            return min((place for place in (theirs, *mine) if place is not None), default=None)

        self.name = "eager"
        if self._pace.known and self._sooner(step, batches, plan, outcome):
            return False
        self._eager.go_on(step, batches, look, outcome, cut)
        self._note(time.perf_counter() - began, outcome.steps - before)
        return not sooner

    def _look_again(self, step: Step, plan: Plan) -> None:
        """Once too many programs were made in vain: whether the step is what it was when the last epoch began."""
        idle = idle_parameters(step.model)
        if self._form is not None and current_state(step, plan.source, idle, self._form) is not None:
            self._builds -= 1
        self._form = form(step, plan.source, State.of(step, idle))

    def _note(self, seconds: float, steps: int) -> None:
        """Note how long steps took, unless a program was being made beside them, which holds them up."""
        if self._build is None:
            self._pace.add(seconds, steps)

    def _sooner(self, step: Step, batches: Epoch, plan: Plan, outcome: EpochOutcome) -> bool:
        """Whether a program is there with which the job ends sooner; begin to make one if it could."""
        left = (1 + batches.left) * plan.updates - outcome.steps
        seconds = left * self._pace.seconds
        if self._build is None and self._made is None:
            at_once = seconds >= KEPT and _is_kept(step, plan)
            least = slowness() * (AT_ONCE if known_code(step.model) else UNKNOWN)
            if seconds >= least and not at_once:
                at_once = left * surely_saved(step, plan, self._pace.seconds) >= least
            if not at_once and seconds < slowness() * BUILD_SECONDS * (1.0 if forks() else WARM_BUILD):
                self._longest = max(self._longest, seconds)
                self.reason = f"{_about(self._longest)} of steps are too few to compile for"
                return False
            if all(parameter.grad is None for parameter in step.trained):  # no step was made yet
                return False
            if self._builds == CHANGES:
                self.reason = CHANGING
                return False
            self._builds += 1
            self.reason = "a program is being made"
            self._build = begin(step, plan, idle_parameters(step.model), at_once=at_once)
        if self._made is None:
            assert self._build is not None
            self._made = self._build.made()
            if self._made is None:
                return False
            self._build = None
        made = self._made
        if made.refusal is not None:
            self.reason = made.refusal
            return False
        hand_over = COLD_SECONDS if "jax" not in sys.modules else READY if made.program is not None else WARM_SECONDS
        if made.pace >= self._pace.seconds or left * made.pace + slowness() * hand_over >= seconds:
            self.reason = f"a step takes {_about(self._pace.seconds)}, compiled {_about(made.pace)}"
            return False
        return outcome.steps + COMPARED <= plan.updates

    def _taken_over(self, step: Step, batches: Epoch, plan: Plan, outcome: EpochOutcome, watch: Watch) -> EpochOutcome:
        """Let the program make the rest of the epoch, once its first updates were compared with real ones."""
        from stoker.engines.takeover import first_updates
        from stoker.engines.xla.scan import AnotherUpdateError

        made, place = self._made, f"epoch {batches.number + 1}, step {outcome.steps + 1}"
        assert made is not None
        attempt = self._opened(made, step, plan)
        if attempt is not None:
            assert self._data is not None
            try:
                compared = first_updates(attempt, step, plan, self._data, _noise(), outcome)
            except AnotherUpdateError:
                return self._rest(step, plan, batches, watch)
            if compared is None:
                return outcome
            if compared.refusal is None:
                self._attempt = compared
                paces = f"a step takes {_about(made.pace)}, eagerly {_about(self._pace.seconds)}"
                self._since = f"from {place} on; {paces}"
                self._noise = _noise()
                self.name, self.reason = "compiled", None
                if not watch(outcome):  # who watches may keep what has been chosen
                    return outcome
                state = compared.state(step, plan)
                if state is None:  # who watches has made another step of it
                    return self._another(step, plan, batches, watch)
                return self._compiled(step, state, plan, batches, watch)
            self._made = Made(made.idle, made.known, compared.refusal)
            self.reason = compared.refusal
        return self._rest(step, plan, batches, watch)

    def _rest(self, step: Step, plan: Plan, batches: Epoch, watch: Watch) -> EpochOutcome:
        """Make what is left of an epoch eagerly."""
        made = batches.outcome.steps
        return self._eager.go_on(step, plan.rest(made), watch, batches.outcome, batches.cut)

    def _another(self, step: Step, plan: Plan, batches: Epoch, watch: Watch) -> EpochOutcome:
        """The same, where the program is no longer the step's."""
        self._attempt = self._made = None
        self.name, self.reason = "eager", "the step has become another"
        return self._rest(step, plan, batches, watch)

    def _opened(self, made: Made, step: Step, plan: Plan) -> Attempt | None:
        """The program that was made; ``None`` if the step is another by now, and needs another."""
        from stoker.engines.takeover import Attempt
        from stoker.engines.xla.program import Program
        from stoker.engines.xla.scan import Data, arguments_like

        attempt = Attempt(made.idle, made.known, made.program, pace=made.pace)
        state = attempt.state(step, plan)
        if state is None:
            self._made = None
            return None
        self._data = Data.of(plan.source)
        if made.saved is not None:
            like = arguments_like(step, state, plan, self._data, made.saved.signature.scalars)
            attempt.program = Program.loaded(made.saved, like)
            attempt.exported = True
        return attempt

    def _compiled(self, step: Step, state: State, plan: Plan, batches: Epoch, watch: Watch) -> EpochOutcome:
        from stoker.engines.takeover import run_epoch
        from stoker.engines.xla.scan import Data

        assert self._attempt is not None
        self._data = Data.of(plan.source, self._data)
        self.name, self.reason = "compiled", None
        outcome, cut = batches.outcome, batches.cut
        if self._noise is not None:
            if run_epoch(self._attempt, step, state, plan, self._data, self._noise, outcome, watch, cut):
                return outcome
            if self._attempt.state(step, plan) is None:
                return self._another(step, plan, batches, watch)
        self._noise = self._attempt.seen = None  # what is kept within an epoch that goes on eagerly has no noise
        return self._rest(step, plan, batches, watch)

    def _by_shape(self, step: Step, batches: Epoch, plan: Plan, watch: Watch) -> EpochOutcome:
        from stoker.engines.compiled import CompiledEngine

        if self._certain is None:
            convolves = any(isinstance(module, nn.modules.conv._ConvNd) for module in step.model.modules())
            if convolves or self.trainings * (1 + batches.left) * plan.updates < CERTAIN_UPDATES:
                return self._stay(BY_SHAPE).train_epoch(step, batches, watch)
            self._certain = CompiledEngine()
        outcome = self._certain.train_epoch(step, batches, watch)
        self.name, self.reason = ("compiled" if self._certain.reason is None else "eager"), self._certain.reason
        self._since = BY_SHAPE
        return outcome

    def _stay(self, reason: str) -> EagerEngine:
        self.name, self.reason = "eager", reason
        return self._eager


class _Pace:
    """How long an eager step takes: the mean so far, but for the first look, which has what comes once in it."""

    def __init__(self) -> None:
        self._steps, self._seconds, self._looks = 0, 0.0, 0

    @property
    def known(self) -> bool:
        return self._steps > 0

    @property
    def seconds(self) -> float:
        return self._seconds / self._steps

    def add(self, seconds: float, steps: int) -> None:
        if not steps:
            return
        self._looks += 1
        if self._looks > 1:
            self._seconds, self._steps = self._seconds + seconds, self._steps + steps


def _is_kept(step: Step, plan: Plan) -> bool:
    """Whether this process has made the step's program in a training before."""
    try:
        return sameness(step, plan, State.of(step, idle_parameters(step.model))) in PROGRAMS
    except CaptureError:
        return False


def _noise() -> int:
    """The seed of the noise of what is left of an epoch, from the generator that was seeded for it."""
    return int(torch.randint(2**31 - 1, ()))


def _about(seconds: float) -> str:
    for size, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.2g} µs"
