"""From eager steps to a program's: building it, comparing its first updates with real ones, and letting it run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from stoker.data.resident import ResidentBatches
from stoker.engines.capture import Captured, State, capture, refusal_of
from stoker.engines.eager import eager_step
from stoker.engines.plan import COMPARED, Plan, current_state, form, form_digest
from stoker.engines.rehearsal import Came, Rehearsal, difference
from stoker.engines.standing import Standing
from stoker.engines.step import EpochOutcome, Step, Watch
from stoker.engines.xla.program import Arguments, Program, saved_program
from stoker.engines.xla.scan import AnotherUpdateError, Data, Scan, arguments_like
from stoker.errors import CheckpointError

__all__ = [
    "Advance",
    "Attempt",
    "alone",
    "captured_step",
    "compared_program",
    "first_updates",
    "measured_pace",
    "real_update",
    "reopened",
    "run_epoch",
    "stood",
]

SEGMENT_SECONDS = 0.2  # how often progress shows and losses are looked at
FIRST_SEGMENT = 32  # updates, before it is known how long one takes

Advance = Callable[[Scan, int, int], tuple[list[float], float]]
"""Makes the updates from one to another, or only the first of them; their losses, and the seconds that they took."""


def alone(scan: Scan, start: int, stop: int) -> tuple[list[float], float]:
    """Make the updates from ``start`` up to ``stop`` by the scan's own program; see :data:`Advance`."""
    began = time.perf_counter()
    losses = scan.advance(start, stop)
    return losses, time.perf_counter() - began


@dataclass
class Attempt:
    """What became of the attempt to make a program.

    Attributes:
        idle: Parameters that got no gradient.
        known: The form that it was made for.
        program: ``None`` if there is none.
        refusal: Why there is none.
        pace: Seconds of an update; ``None`` before it was measured.
        exported: Whether the program went through its saved form.
        seen: The form at the end of the last segment, which may have come to differ by what forward passes noted down;
            ``None`` where no program is at work.
    """

    idle: frozenset[str]
    known: tuple[Any, ...]
    program: Program | None = None
    refusal: str | None = None
    pace: float | None = None
    exported: bool = False
    seen: tuple[Any, ...] | None = None

    def goes_on(self, step: Step, source: ResidentBatches) -> bool:
        """Whether the epoch under way will go on with it."""
        known = self.known if self.seen is None else self.seen
        return current_state(step, source, self.idle, known) is not None

    def state(self, step: Step, plan: Plan) -> State | None:
        """The state as it is now; ``None`` if the attempt does not hold for it and these data."""
        return current_state(step, plan.source, self.idle, self.known)


def captured_step(step: Step, state: State, plan: Plan, data: Data) -> tuple[Captured, Arguments]:
    """Capture a step, with arguments of the form that its program will be called with.

    Args:
        step: The step.
        state: As it is now.
        plan: Any epoch over the data.
        data: The data as arrays.

    Raises:
        CaptureError: The step cannot be traced.
    """
    captured = capture(step, state, *plan.window(step, 0)[0])
    return captured, arguments_like(step, state, plan, data, captured.scalars)


def compared_program(step: Step, state: State, plan: Plan, data: Data) -> Program:
    """The program of what :func:`captured_step` captures; of one that draws noise, its first updates are compared.

    Raises:
        CaptureError: The step cannot be traced, operators have no lowering, or the program computes something else.
        LoweringError: A lowering does not do what is asked of it.
    """
    captured, like = captured_step(step, state, plan, data)
    return Rehearsal(captured, step, state, plan, data).passed(Program.of(captured, like))


def stood(attempt: Attempt, blank: Standing, form: str | None = None) -> Standing:
    """What another process must know of an attempt, written into what it must know besides.

    Args:
        attempt: The attempt.
        blank: What it must know besides.
        form: Of the step between epochs; see :func:`stoker.engines.plan.form_digest`.
    """
    return replace(
        blank,
        program=attempt.program is not None,
        refusal=attempt.refusal,
        idle=attempt.idle,
        exported=attempt.exported,
        form=form,
    )


def reopened(standing: Standing, step: Step, plan: Plan, data: Data) -> Attempt | None:
    """What became of the attempt in another process: the same program again, without a single update.

    Returns:
        The attempt; ``None`` if the step has become another since.

    Raises:
        CheckpointError: It cannot be made here.
    """
    known: tuple[Any, ...] = ()
    try:
        state = State.of(step, standing.idle)
        known = form(step, plan.source, state)
        if standing.form is not None and standing.form != form_digest(step, plan.source, state):
            return None
        if standing.refusal is not None:
            return Attempt(standing.idle, known, refusal=standing.refusal)
        captured, like = captured_step(step, state, plan, data)
        if standing.exported:
            program = Program.loaded(saved_program(captured, like), like)
        else:
            program = Program.of(captured, like)
    except Exception as error:  # whatever keeps a program from being made
        if standing.refusal is not None:
            return Attempt(standing.idle, known, refusal=standing.refusal)
        fix = "Go on where it was trained before, or start anew."
        raise CheckpointError("engine", "must be able to make its program again", refusal_of(error), fix) from error
    return Attempt(standing.idle, known, program, exported=standing.exported)


def measured_pace(program: Program, step: Step, state: State, plan: Plan, data: Data, seconds: float = 0.05) -> float:
    """Seconds of one of the program's updates, measured on copies of the state."""
    scan = Scan(program, step, state, plan, data, seed=0)
    groups = state.groups
    scan.put(0, [[float(group["lr"])] * plan.updates for group in groups], groups)
    scan.made(0, 1)  # the first call costs more
    made, began = 0, time.perf_counter()
    length = 1
    while made < plan.updates:
        stop = min(made + length, plan.updates)
        scan.made(made, stop)
        made, spent = stop, time.perf_counter() - began
        if spent >= seconds:
            break
        length *= 4  # so that a small program's calls do not count
    return (time.perf_counter() - began) / made


def real_update(step: Step, plan: Plan, outcome: EpochOutcome, losses: list[float] | None = None) -> bool:
    """Make the epoch's next update eagerly, and count it; whether the epoch goes on after it."""
    update = eager_step(step, *plan.window(step, outcome.steps))
    loss = float(update.loss)
    if losses is not None:
        losses.append(loss)
    outcome.add([loss], [update.rows])
    return outcome.bad_step is None


def first_updates(
    attempt: Attempt, step: Step, plan: Plan, data: Data, seed: int, outcome: EpochOutcome
) -> Attempt | None:
    """Make real updates, and the same by the program on a copy of the state.

    Noise is drawn anew in each, so that of updates with dropout nothing but the loss's being finite can be compared
    here. Their graph was compared with the step when it was captured, and the program with the graph, under the noise
    that it draws itself, when it was made; see :class:`stoker.engines.rehearsal.Rehearsal`.

    Returns:
        The attempt; without its program if that differs by more than rounding. ``None`` if the epoch was ended.

    Raises:
        AnotherUpdateError: After the first of them the schedule came to another update than the program's.
    """
    program = attempt.program
    assert program is not None
    first: Scan | None = None
    for place in range(outcome.steps, outcome.steps + COMPARED):  # each from the same state
        state, losses = State.of(step, attempt.idle), list[float]()
        before = {name: parameter.detach().clone() for name, parameter in state.parameters.items()}
        scan = Scan(program, step, state, plan, data, seed)
        first = first or scan
        if not first.fits(state.groups):  # the program was made for the settings that the first began with
            raise AnotherUpdateError
        scan.put(place, [[float(group["lr"])] for group in state.groups], state.groups)
        if not real_update(step, plan, outcome, losses):
            return None
        try:
            (loss,) = scan.made(place, place + 1)
        except Exception as error:  # whatever keeps a program from being run; the real step was made
            return replace(attempt, program=None, refusal=refusal_of(error))
        if program.signature.draws:  # it was compared when it was made
            refusal = None if math.isfinite(loss) else f"the compiled step's loss is {loss}"
        else:
            came = Came(losses[0], before, state.parameters, dict(step.model.named_buffers()))
            refusal = difference(scan.carry, loss, came, half=program.signature.half)
        if refusal is not None:
            return replace(attempt, program=None, refusal=refusal)
    return attempt


def run_epoch(
    attempt: Attempt,
    step: Step,
    state: State,
    plan: Plan,
    data: Data,
    seed: int,
    outcome: EpochOutcome,
    watch: Watch,
    cut: Callable[[int], int | None] = lambda _: None,
    advance: Advance = alone,
) -> bool:
    """Make the updates that are left of an epoch: the whole ones by the program, a smaller one at the end eagerly.

    Returns:
        Whether the epoch is over. If not, the rest of it is the eager engine's: the schedule came to an update that is
        not the program's, who watches has made another step of it, or a loss was not finite that is finite eagerly.
    """
    program = attempt.program
    assert program is not None
    scan = Scan(program, step, state, plan, data, seed)
    while outcome.steps < plan.updates:
        length = FIRST_SEGMENT if attempt.pace is None else max(1, int(SEGMENT_SECONDS / attempt.pace))
        start = outcome.steps
        stop = min(start + length, plan.updates, cut(start) or plan.updates)
        losses, seconds = advance(scan, start, stop)
        stop = start + len(losses)
        if len(losses) > 1:
            attempt.pace = seconds / len(losses)
        if not math.isfinite(sum(losses)):
            return not _made_again(scan, step, plan, outcome)
        if losses:
            scan.hand_over()
            outcome.add(losses, [plan.rows] * len(losses))
        if stop == plan.updates:
            break
        if not scan.fits(state.groups):
            attempt.seen = ()
            return not watch(outcome)
        before = State.of(step, attempt.idle)
        attempt.seen, counts = form(step, plan.source, before), [cohort.counts for cohort in before.cohorts]
        if not watch(outcome):
            return True
        now = current_state(step, plan.source, attempt.idle, attempt.seen)
        if now is None:
            return False
        if not scan.is_at(now, counts):  # who watches has changed weights or moments
            scan = Scan(program, step, now, plan, data, seed)
    ragged = len(plan.order) > plan.updates * plan.rows and outcome.steps == plan.updates
    if ragged and not real_update(step, plan, outcome):
        return True
    outcome.complete = outcome.bad_step is None
    return True


def _made_again(scan: Scan, step: Step, plan: Plan, outcome: EpochOutcome) -> bool:
    """Make a segment's updates eagerly, from the state before it, which was not handed over; whether the epoch goes on.

    A loss that is not finite may stand for an error that torch raises: an index out of range. The schedule was moved
    past these updates already, so that each gets the settings that it had then.
    """
    groups, alone = scan.state.groups, replace(step, schedule=None)
    after = [dict(group) for group in groups]
    for settings in scan.settings():
        _set(groups, settings)
        if not real_update(alone, plan, outcome):
            return False
    _set(groups, after)
    return True


def _set(groups: Iterable[Mapping[str, Any]], settings: Iterable[Mapping[str, Any]]) -> None:
    for group, values in zip(groups, settings, strict=True):
        cast("dict[str, Any]", group).update(values)
