"""The compiled engine: the whole epoch as one program, for the user's own module and optimizer, unchanged.

Where a step cannot be captured or lowered, or where its first compiled step is not what the eager one comes to, the
eager engine carries on, and :attr:`CompiledEngine.reason` says why.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from stoker.data.resident import ResidentBatches
from stoker.data.trees import Batch, leaves, tree_map
from stoker.engines.capture import CaptureError, State, capture, idle_parameters, uncapturable
from stoker.engines.eager import EagerEngine, eager_step
from stoker.engines.step import Epoch, EpochOutcome, Step, Watch
from stoker.engines.xla.program import Program, resident, to_torch
from stoker.engines.xla.scan import Carrier, Scan
from stoker.errors import LoweringError

__all__ = ["CompiledEngine"]

SEGMENT_SECONDS = 0.2  # how often progress shows and losses are looked at
FIRST_SEGMENT = 32  # steps, before it is known how long one takes


class CompiledEngine:
    """Carries out an epoch's steps as one XLA program.

    Attributes:
        reason: Why the eager engine carries out the steps instead; ``None`` if it does not.
    """

    name = "compiled"

    def __init__(self) -> None:
        self.reason: str | None = None
        self._eager = EagerEngine()
        self._form: object = None
        self._refusal: str | None = None
        self._whole: Program | None = None
        self._rest: Program | None = None
        self._length: int | None = None
        self._idle: frozenset[str] = frozenset()
        self._data: tuple[object, list[Any], list[Any]] | None = None

    def train_epoch(self, step: Step, batches: Iterable[Batch], watch: Watch) -> EpochOutcome:
        """See :class:`stoker.engines.step.Engine`."""
        self.reason = _unsupported(step, batches)
        if self.reason is not None:
            return self._eager.train_epoch(step, batches, watch)
        assert isinstance(batches, Epoch)
        source: Any = batches.batches
        outcome = EpochOutcome()
        order = source.order(batches.number)
        seed = int(torch.randint(2**31, ()))  # the noise of this epoch, from the generator that was seeded for it
        if self._form is None or self._form != _form(step, source, self._idle):
            self._whole, self._rest, self._length = None, None, None
            self._refusal = self._prepare(step, source, order, outcome, seed)
            self._form = _form(step, source, self._idle)
        if self._refusal is not None:
            self.reason = self._refusal
            rest = itertools.islice(iter(batches), outcome.steps, None)
            return _joined(outcome, self._eager.train_epoch(step, rest, lambda more: watch(_joined(outcome, more))))
        if self._whole is None:  # the epoch ended within the first steps, and nothing is known yet
            self._form = None
            return outcome
        return self._run(step, source, order, outcome, watch, seed)

    def _run(
        self, step: Step, source: ResidentBatches, order: Tensor, outcome: EpochOutcome, watch: Watch, seed: int
    ) -> EpochOutcome:
        """Make the steps that are left of the epoch."""
        assert self._whole is not None
        size = source.batch_size
        steps = len(order) // size
        carrier = Carrier(step, State.of(step, self._idle), self._resident(source), seed)
        scan = Scan(self._whole, carrier, order[: steps * size].view(steps, size))
        length = self._length or FIRST_SEGMENT
        while outcome.steps < steps:
            start, stop = outcome.steps, min(outcome.steps + length, steps)
            if step.on_update is not None:
                stop = start + 1  # who listens to each step may look at the model, and may end the epoch there
            began = time.perf_counter()
            losses = scan.advance(start, stop)
            carrier.hand_over()
            if not self._heard(step, losses, size, outcome) or not watch(outcome):
                return outcome
            if step.on_update is None:
                pace = (time.perf_counter() - began) / (stop - start)
                length = self._length = max(FIRST_SEGMENT, int(SEGMENT_SECONDS / pace))
        rest = order[steps * size :]
        if len(rest) and not self._run_rest(step, source, rest, carrier, outcome, steps):
            return outcome
        outcome.complete = True
        return outcome

    def _run_rest(
        self, step: Step, source: ResidentBatches, rows: Tensor, carrier: Carrier, outcome: EpochOutcome, number: int
    ) -> bool:
        """Make the step with the last, smaller batch; the first time it is a real one, beside a program to compare.

        Returns:
            Whether the epoch goes on after it.
        """
        if self._rest is not None:
            losses = Scan(self._rest, carrier, rows[None], first=number).advance(0, 1)
            carrier.hand_over()
            return self._heard(step, losses, len(rows), outcome)
        batch = _gathered(source, rows)
        state = State.of(step, self._idle)
        try:
            program = Program(capture(step, state, *batch))
        except (CaptureError, LoweringError) as error:
            self._refusal = str(error)
            return _real(step, batch, outcome)
        wanted = _Wanted(state)
        scan = Scan(program, Carrier(step, state, carrier.data, carrier.seed), rows[None])
        scan.put(0, [[float(group["lr"])] for group in state.groups], state.groups)
        goes_on = _real(step, batch, outcome, wanted.losses)
        self._refusal, self._rest = wanted.difference(scan, 0), program
        return goes_on

    @staticmethod
    def _heard(step: Step, losses: list[float], size: int, outcome: EpochOutcome) -> bool:
        """Count steps; whether the epoch goes on after them."""
        heard = False
        for loss in losses:
            heard = _count(step, outcome, torch.tensor(loss), size) or heard
        return not heard and outcome.bad_step is None

    def _prepare(
        self, step: Step, source: ResidentBatches, order: Tensor, outcome: EpochOutcome, seed: int
    ) -> str | None:
        """Make three real steps, and a program whose steps are the last two of them to within rounding.

        Returns:
            Why there is none.
        """
        size = source.batch_size
        if len(order) < 3 * size:
            return "an epoch has fewer than three whole batches"
        steps = len(order) // size
        rows = order[: steps * size].view(steps, size)  # all of them: another number would be another program
        first, *others = (_gathered(source, one) for one in rows[:3])
        if not _real(step, first, outcome):
            return None
        self._idle = idle_parameters(step.model)
        try:
            state = State.of(step, self._idle)
            program = Program(capture(step, state, *others[0]))
        except (CaptureError, LoweringError) as error:
            return str(error)
        wanted = _Wanted(state)
        scan = Scan(program, Carrier(step, state, self._resident(source), seed), rows)
        for place, batch in enumerate(others, start=1):
            scan.put(place, [[float(group["lr"])] for group in state.groups], state.groups)
            if not _real(step, batch, outcome, wanted.losses):
                return None
        self._whole = program
        return wanted.difference(scan, 1)

    def _resident(self, source: ResidentBatches) -> tuple[list[Any], list[Any]]:
        if self._data is None or self._data[0] is not source:
            self._data = source, resident(source.inputs), resident(source.targets)
        return self._data[1], self._data[2]


class _Wanted:
    """What the next real steps come to, for a program's to be compared with."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.before = {name: parameter.detach().clone() for name, parameter in state.parameters.items()}
        self.losses: list[float] = []

    def difference(self, scan: Scan, start: int) -> str | None:
        """How the program's steps differ from the real ones beyond rounding; ``None`` if they do not.

        Noise is drawn anew in each, so that of steps with dropout nothing but the size of the loss can be compared.
        """
        try:
            losses = scan.made(start, start + len(self.losses))
        except Exception as error:  # whatever keeps a program from being compiled or run; the real steps are made
            text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
            return f"the program cannot be made ({type(error).__name__}: {text[:200]})"
        if scan.program.draws:
            return None if all(map(math.isfinite, losses)) else f"the compiled step's loss is {losses[0]}"
        for loss, wanted in zip(losses, self.losses, strict=True):
            if not math.isclose(loss, wanted, rel_tol=1e-4, abs_tol=1e-6):
                return f"the compiled step's loss is {loss:.6g}, not {wanted:.6g}"
        gradients = {name: parameter.grad for name, parameter in self.state.parameters.items()}
        largest = max((float(g.abs().max()) for g in gradients.values() if g is not None and g.numel()), default=0.0)
        for (name, parameter), array in zip(self.state.parameters.items(), scan.carrier.carry[0], strict=True):
            gradient, before = gradients[name], self.before[name]
            if gradient is None:
                return f"{name} got no gradient in a later step"
            change, found = parameter.detach() - before, to_torch(array) - before
            # An optimizer that divides by a gradient's size makes steps of rounding errors where it should be zero.
            real = gradient.abs() > 1e-4 * largest
            if not torch.allclose(found[real], change[real], rtol=1e-2, atol=1e-5 * float(before.abs().max() + 1e-3)):
                return f"the compiled step moves {name} otherwise than the eager one"
        return None


def _unsupported(step: Step, batches: Iterable[Batch]) -> str | None:
    if not isinstance(batches, Epoch) or not isinstance(batches.batches, ResidentBatches):
        return "the data are not resident tensors"
    if step.accumulate != 1:
        return "batches are accumulated"
    if step.average is not None:
        return "the weights are averaged"
    if step.replicas is not None:
        return "several processes train together"
    if step.device.type != "cpu":
        return f"the device is {step.device.type}"
    try:
        State.of(step)
    except CaptureError as error:
        return str(error)
    return uncapturable(step)


def _form(step: Step, source: ResidentBatches, idle: frozenset[str]) -> object:
    """What programs depend on; another form needs other programs."""
    state = State.of(step, idle)
    shapes = [(leaf.shape[1:], leaf.dtype) for leaf in (*leaves(source.inputs), *leaves(source.targets))]
    modes = [module.training for module in step.model.modules()]
    trained = [(parameter.shape, parameter.requires_grad) for parameter in step.model.parameters()]
    cohorts = [
        (one.group, one.dtype, len(one.parameters), [list(slots) for slots in one.slots]) for one in state.cohorts
    ]
    return (
        source.batch_size,
        source.rows,
        shapes,
        modes,
        trained,
        type(step.optimizer),
        [state.update.signature(group) for group in state.groups],
        cohorts,
        step.clip_norm is None,
        step.autocast,
        id(step.objective),
    )


def _gathered(source: ResidentBatches, rows: Tensor) -> Batch:
    rows = rows.to(source.device)
    return (
        tree_map(lambda leaf: leaf.index_select(0, rows), source.inputs),
        tree_map(lambda leaf: leaf.index_select(0, rows), source.targets),
    )


def _real(step: Step, batch: Batch, outcome: EpochOutcome, losses: list[float] | None = None) -> bool:
    """Make one step eagerly, and count it; whether the epoch goes on after it."""
    update = eager_step(step, batch)
    if losses is not None:
        losses.append(float(update.loss))
    return not _count(step, outcome, update.loss, update.rows) and outcome.bad_step is None


def _count(step: Step, outcome: EpochOutcome, loss: Tensor, rows: int) -> bool:
    """Count a step; whether somebody asks to end the epoch there."""
    value = float(loss)
    if outcome.bad_step is None and not math.isfinite(value):
        outcome.bad_step, outcome.bad_loss = outcome.steps, value
    outcome.steps += 1
    outcome.samples += rows
    outcome.loss_sum += value * rows
    return step.on_update is not None and bool(step.on_update(outcome.steps, loss))


def _joined(first: EpochOutcome, then: EpochOutcome) -> EpochOutcome:
    bad = (
        first.bad_step if first.bad_step is not None else None if then.bad_step is None else first.steps + then.bad_step
    )
    return EpochOutcome(
        steps=first.steps + then.steps,
        samples=first.samples + then.samples,
        loss_sum=first.loss_sum + then.loss_sum,
        bad_step=bad,
        bad_loss=first.bad_loss if first.bad_step is not None else then.bad_loss,
        complete=then.complete and first.bad_step is None,
    )
