"""The eager engine: the plain PyTorch loop. Every model, every optimizer, hooks, prints and breakpoints."""

from __future__ import annotations

import inspect
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from stoker.data.batches import Batches
from stoker.data.trees import Batch, batch_rows, call_model, tree_map
from stoker.engines.standing import Standing
from stoker.engines.step import Epoch, EpochOutcome, Step, Watch, one_number
from stoker.errors import CheckpointError

__all__ = ["EagerEngine", "Update", "batch_loss", "eager_step", "windows"]

SEGMENT_SECONDS = 0.1  # how often progress shows and losses are looked at
SEGMENT_STEPS = 512  # at most so many losses wait to be looked at
AGREE_STEPS = 32  # how often processes that share batches look whether one of them wants to end


class Update(NamedTuple):
    """What one step came to.

    Attributes:
        loss: The mean over its samples, before the update: 0-d, detached, still on the device. Reading it is left to
            the caller, because on an accelerator that waits for the queue.
        rows: Its samples.
        stops: How many processes want to end the training, 0-d; ``None`` where there is one process.
    """

    loss: Tensor
    rows: int
    stops: Tensor | None


def eager_step(step: Step, *batches: Batch, stop: bool = False) -> Update:
    """Carry out one step.

    Optimizers that need several evaluations (L-BFGS) get the step as a closure. The others are called when the
    gradients are there, so that hooks that run before an update see those of this step.

    Args:
        step: What to carry out.
        *batches: ``(inputs, targets)``, on the device: one, or several whose samples make this update together.
        stop: Whether this process has a reason to end the training, which the others are told.

    Returns:
        What it came to, before the update.
    """
    first: list[Update] = []

    def closure() -> Tensor:
        step.optimizer.zero_grad()
        update = _gradients(step, batches) if step.replicas is None else _shared_gradients(step, batches, stop)
        if step.clip_norm is not None:
            nn.utils.clip_grad_norm_(step.trained, step.clip_norm)
        first.append(update)
        return update.loss

    if _needs_closure(type(step.optimizer).step):
        step.optimizer.step(closure)  # type: ignore[arg-type]
    else:
        closure()
        step.optimizer.step()
    if step.average is not None:
        step.average.update()
    if step.schedule is not None:
        step.schedule()
    return first[0]


def _gradients(step: Step, batches: Sequence[Batch]) -> Update:
    """The gradients of the mean over all samples of the batches."""
    if len(batches) == 1:
        loss = batch_loss(step, batches[0])
        loss.backward()  # type: ignore[no-untyped-call]
        return Update(loss.detach(), batch_rows(*batches[0]), None)
    total = sum(batch_rows(*batch) for batch in batches)
    mean = torch.zeros((), device=step.device)
    for batch in batches:
        loss = batch_loss(step, batch) * (batch_rows(*batch) / total)
        loss.backward()  # type: ignore[no-untyped-call]
        mean = mean + loss.detach()
    return Update(mean, total, None)


def _shared_gradients(step: Step, batches: Sequence[Batch], stop: bool) -> Update:
    """The same, where each process has a share of each batch."""
    replicas = step.replicas
    assert replicas is not None  # who calls this has looked
    loss_sum, rows, total = torch.zeros((), device=step.device), 0, 0
    for inputs, targets in batches:
        size = batch_rows(inputs, targets)
        mine = replicas.share((inputs, targets), size, least=2)  # a batch norm can do nothing with one
        share = batch_rows(*mine)
        if share:
            loss = batch_loss(step, mine) * share
            loss.backward()  # type: ignore[no-untyped-call]
            loss_sum = loss_sum + loss.detach()
        rows, total = rows + share, total + size
    mean, stops = replicas.average_gradients(step.trained, loss_sum, rows, stop)
    return Update(mean, total, stops)


def batch_loss(step: Step, batch: Batch) -> Tensor:
    """What the step minimises, of one batch: 0-d."""
    inputs, targets = batch
    if step.autocast is None:
        return one_number(step.objective(call_model(step.model, inputs), targets))
    with torch.autocast(step.device.type, dtype=step.autocast):
        return one_number(step.objective(call_model(step.model, inputs), targets))


@cache
def _needs_closure(update: Callable[..., Any]) -> bool:
    """Whether an optimizer evaluates the step itself: its ``step`` cannot be called without a closure."""
    closure = inspect.signature(update).parameters.get("closure")
    return closure is not None and closure.default is closure.empty


class EagerEngine:
    """Carries out each step with ordinary PyTorch calls, one after the other.

    Args:
        reason: Why it stands in for another engine; ``None`` if it does not.
    """

    name = "eager"

    def __init__(self, reason: str | None = None) -> None:
        self.reason = reason

    @property
    def explanation(self) -> str:
        """See :class:`stoker.engines.step.Engine`."""
        return f"eager: {self.reason or 'as asked'}"

    def close(self) -> None:
        """See :class:`stoker.engines.step.Engine`: there is nothing."""

    def train_epoch(self, step: Step, batches: Iterable[Batch], watch: Watch) -> EpochOutcome:
        """See :class:`stoker.engines.step.Engine`."""
        if isinstance(batches, Epoch):
            return self.go_on(step, batches, watch, batches.outcome, batches.cut)
        return self.go_on(step, batches, watch, EpochOutcome())

    def standing(self, step: Step, batches: Batches, *, under_way: bool) -> Standing:  # noqa: ARG002
        """See :class:`stoker.engines.step.Engine`: there is nothing but its name."""
        return Standing("eager")

    def resume(self, standing: Standing) -> None:
        """See :class:`stoker.engines.step.Engine`."""
        if standing.program:
            fix = "Train where JAX is installed, or start anew."
            raise CheckpointError("engine", "must be the one that the training began with", "a program's steps", fix)

    def go_on(
        self,
        step: Step,
        batches: Iterable[Batch],
        watch: Watch,
        outcome: EpochOutcome,
        cut: Callable[[int], int | None] = lambda _: None,
    ) -> EpochOutcome:
        """The same for the rest of an epoch.

        Args:
            step: What to carry out.
            batches: Those that are left.
            watch: As ever.
            outcome: The epoch so far, which is added to.
            cut: See :class:`stoker.engines.step.Epoch`.
        """
        waiting: list[Update] = []
        due, place = time.perf_counter() + SEGMENT_SECONDS, cut(outcome.steps)
        stop = False
        for window in windows(step, batches):
            update = eager_step(step, *window, stop=stop)
            waiting.append(update)
            if step.on_update is not None and step.on_update(outcome.steps + len(waiting), update.loss):
                stop = True
            reached = outcome.steps + len(waiting) == place
            if reached or len(waiting) >= SEGMENT_STEPS or time.perf_counter() >= due:
                _add(outcome, waiting)
                stop = stop or outcome.bad_step is not None or not watch(outcome)
                due, place = time.perf_counter() + SEGMENT_SECONDS, cut(outcome.steps)
            # Where processes share the batches, they all have to leave the epoch at the same step, or they would wait
            # for each other forever: each says with its gradients whether it wants to, and now and then they look.
            look = step.replicas is not None and (outcome.steps + len(waiting)) % AGREE_STEPS == 0
            if (look and _agreed(update)) or (stop and step.replicas is None):
                _add(outcome, waiting)
                return outcome
        _add(outcome, waiting)
        outcome.complete = outcome.bad_step is None
        return outcome


def windows(step: Step, batches: Iterable[Batch]) -> Iterator[tuple[Batch, ...]]:
    """The batches of one update at a time, laid out as the step wants them; in the end those that are left."""
    prepare = _channels_last if step.channels_last else _as_is
    iterator = iter(batches)
    while window := tuple(
        (prepare(inputs), targets) for inputs, targets in itertools.islice(iterator, step.accumulate)
    ):
        yield window


def _agreed(update: Update) -> bool:
    return update.stops is not None and bool(update.stops > 0)


def _add(outcome: EpochOutcome, waiting: list[Update]) -> None:
    """Move the waiting losses into the outcome."""
    if not waiting:
        return
    values = torch.stack([update.loss for update in waiting]).cpu()
    # Double precision last: not every device has it.
    outcome.add(values.double().tolist(), [update.rows for update in waiting])
    waiting.clear()


def _as_is(inputs: Any) -> Any:
    return inputs


def _channels_last(inputs: Any) -> Any:
    return tree_map(_to_channels_last, inputs)


def _to_channels_last(leaf: Tensor) -> Tensor:
    return leaf.contiguous(memory_format=torch.channels_last) if leaf.ndim == 4 else leaf
