"""From eager steps to a program's: building it, comparing its first updates with real ones, and letting it run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from stoker.engines.capture import Captured, State, capture, refusal_of
from stoker.engines.eager import eager_step
from stoker.engines.fidelity import far
from stoker.engines.plan import COMPARED, Plan, current_state, form, form_digest
from stoker.engines.standing import Standing
from stoker.engines.step import EpochOutcome, Step, Watch
from stoker.engines.xla.crossing import to_torch
from stoker.engines.xla.program import Arguments, Program, Signature, saved_program
from stoker.engines.xla.scan import Data, Scan, arguments_like
from stoker.errors import CheckpointError

__all__ = [
    "Advance",
    "Attempt",
    "alone",
    "captured_step",
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
    """

    idle: frozenset[str]
    known: tuple[Any, ...]
    program: Program | None = None
    refusal: str | None = None
    pace: float | None = None
    exported: bool = False

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
    heard = step.on_update is not None and bool(step.on_update(outcome.steps, update.loss))
    return not heard and outcome.bad_step is None


def first_updates(
    attempt: Attempt, step: Step, plan: Plan, data: Data, seed: int, outcome: EpochOutcome
) -> Attempt | None:
    """Make real updates, and the same by the program on a copy of the state.

    Noise is drawn anew in each, so that of updates with dropout nothing but the loss's being finite can be compared
    here; their graph was compared when it was captured.

    Returns:
        The attempt; without its program if that differs by more than rounding. ``None`` if the epoch was ended.
    """
    assert attempt.program is not None
    state = State.of(step, attempt.idle)
    before = {name: parameter.detach().clone() for name, parameter in state.parameters.items()}
    scan = Scan(attempt.program, step, state, plan, data, seed)
    start, losses = outcome.steps, list[float]()
    for place in range(start, start + COMPARED):
        scan.put(place, [[float(group["lr"])] for group in state.groups], state.groups)
        if not real_update(step, plan, outcome, losses):
            return None
    try:
        found = scan.made(start, start + COMPARED)
    except Exception as error:  # whatever keeps a program from being run; the real steps were made
        return replace(attempt, program=None, refusal=refusal_of(error))
    refusal = _difference(scan, state, before, found, losses, attempt.program.signature)
    return replace(attempt, program=None, refusal=refusal) if refusal is not None else attempt


def _difference(
    scan: Scan, state: State, before: dict[str, Any], found: list[float], wanted: list[float], signature: Signature
) -> str | None:
    """How a program's updates differ from the real ones beyond rounding; ``None`` if they do not."""
    if signature.draws:
        bad = [loss for loss in found if not math.isfinite(loss)]
        return f"the compiled step's loss is {bad[0]}" if bad else None
    half = signature.half  # then a product's last bits are those of its kernel, of 8
    for mine, theirs in zip(found, wanted, strict=True):
        if not math.isclose(mine, theirs, rel_tol=1e-2 if half else 1e-4, abs_tol=1e-6):
            return f"the compiled step's loss is {mine:.6g}, not {theirs:.6g}"
    gradients = {name: parameter.grad for name, parameter in state.parameters.items()}
    largest = max((float(g.abs().max()) for g in gradients.values() if g is not None and g.numel()), default=0.0)
    for (name, parameter), array in zip(state.parameters.items(), scan.carry[0], strict=True):
        gradient, old = gradients[name], before[name]
        if gradient is None:
            return f"{name} got no gradient in a later step"
        change, moved = parameter.detach() - old, to_torch(array) - old
        # An optimizer that divides by a gradient's size makes steps of rounding errors where it should be zero.
        real = gradient.abs() > (0.05 if half else 1e-4) * largest
        least = 1e-5 * float(old.abs().max() + 1e-3) if old.numel() else 0.0
        if not _same_moves(moved[real], change[real], least, half):
            return f"the compiled step moves {name} otherwise than the eager one"
    for (name, buffer), array in zip(scan.step.model.named_buffers(), scan.carry[1], strict=True):
        if far(to_torch(array), buffer.detach(), half=half):
            return f"the compiled step leaves another {name} than the eager one"
    return None


def _same_moves(mine: Tensor, theirs: Tensor, least: float, half: bool) -> bool:
    """Whether a parameter's elements moved alike.

    In half precision a unit that is at its activation's kink may be on either side of it, by the last of 8 bits, and
    sums of terms of both signs keep fewer bits than that; so single elements differ by any ratio, and all of them
    together by some hundredths of their norm.
    """
    if not half:
        return torch.allclose(mine, theirs, rtol=1e-2, atol=least)
    return float((mine - theirs).norm()) <= 0.1 * float(theirs.norm()) + least * math.sqrt(theirs.numel())


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
) -> EpochOutcome:
    """Make the updates that are left of an epoch: the whole ones by the program, a smaller one at the end eagerly."""
    program = attempt.program
    assert program is not None
    scan = Scan(program, step, state, plan, data, seed)
    while outcome.steps < plan.updates:
        length = FIRST_SEGMENT if attempt.pace is None else max(1, int(SEGMENT_SECONDS / attempt.pace))
        if step.on_update is not None:
            length = 1  # who listens to each step may look at the model, and may end the epoch there
        start = outcome.steps
        stop = min(start + length, plan.updates, cut(start) or plan.updates)
        losses, seconds = advance(scan, start, stop)
        stop = start + len(losses)
        if stop - start > 1:
            attempt.pace = seconds / (stop - start)
        scan.hand_over()
        outcome.add(losses, [plan.rows] * len(losses))
        heard = step.on_update is not None and bool(step.on_update(stop, torch.tensor(losses[-1])))
        if heard or outcome.bad_step is not None or (stop < plan.updates and not watch(outcome)):
            return outcome
    ragged = len(plan.order) > plan.updates * plan.rows and outcome.steps == plan.updates
    if ragged and not real_update(step, plan, outcome):
        return outcome
    outcome.complete = outcome.bad_step is None
    return outcome
