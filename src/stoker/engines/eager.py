"""The eager engine: the plain PyTorch loop. Every model, every optimizer, hooks, prints and breakpoints."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from stoker.data.batches import Batch, batch_rows, call_model, tree_map
from stoker.engines.step import EpochOutcome, Step, Watch, one_number

__all__ = ["EagerEngine", "eager_step"]

SEGMENT_SECONDS = 0.1  # how often progress shows and losses are looked at
SEGMENT_STEPS = 512  # at most so many losses wait to be looked at


def eager_step(step: Step, inputs: Any, targets: Any) -> Tensor:
    """Carry out one step.

    Optimizers that need several evaluations (L-BFGS) get the step as a closure. The others are called when the
    gradients are there, so that hooks that run before an update see those of this step.

    Args:
        step: What to carry out.
        inputs: The batch's inputs, on the device.
        targets: Its targets.

    Returns:
        The loss before the update, 0-d, detached, still on the device: reading it is left to the caller, because on an
        accelerator that waits for the queue.
    """
    first: list[Tensor] = []

    def closure() -> Tensor:
        step.optimizer.zero_grad()
        if step.autocast is None:
            loss = one_number(step.objective(call_model(step.model, inputs), targets))
        else:
            with torch.autocast(step.device.type, dtype=step.autocast):
                loss = one_number(step.objective(call_model(step.model, inputs), targets))
        loss.backward()  # type: ignore[no-untyped-call]
        if step.clip_norm is not None:
            # Not the model's: gradients of parameters that are not trained pile up, and would count in the norm.
            trained = [parameter for group in step.optimizer.param_groups for parameter in group["params"]]
            nn.utils.clip_grad_norm_(trained, step.clip_norm)
        loss = loss.detach()
        first.append(loss)
        return loss

    if _needs_closure(type(step.optimizer).step):
        step.optimizer.step(closure)  # type: ignore[arg-type]
    else:
        closure()
        step.optimizer.step()
    if step.schedule is not None:
        step.schedule()
    return first[0]


@cache
def _needs_closure(update: Callable[..., Any]) -> bool:
    """Whether an optimizer evaluates the step itself: its ``step`` cannot be called without a closure."""
    closure = inspect.signature(update).parameters.get("closure")
    return closure is not None and closure.default is closure.empty


class EagerEngine:
    """Carries out each step with ordinary PyTorch calls, one after the other."""

    name = "eager"

    def train_epoch(self, step: Step, batches: Iterable[Batch], watch: Watch) -> EpochOutcome:
        """See :class:`stoker.engines.step.Engine`."""
        outcome = EpochOutcome()
        losses: list[Tensor] = []
        sizes: list[int] = []
        prepare = _channels_last if step.channels_last else _as_is
        due = time.perf_counter() + SEGMENT_SECONDS
        for inputs, targets in batches:
            losses.append(eager_step(step, prepare(inputs), targets))
            sizes.append(batch_rows(inputs, targets))
            if len(losses) >= SEGMENT_STEPS or time.perf_counter() >= due:
                _add(outcome, losses, sizes)
                if outcome.bad_step is not None or not watch(outcome):
                    return outcome
                due = time.perf_counter() + SEGMENT_SECONDS
        _add(outcome, losses, sizes)
        outcome.complete = outcome.bad_step is None
        return outcome


def _add(outcome: EpochOutcome, losses: list[Tensor], sizes: list[int]) -> None:
    """Move the waiting losses into the outcome."""
    if not losses:
        return
    values = torch.stack(losses).cpu().double()  # in this order: not every device has double precision
    finite = values.isfinite()
    if outcome.bad_step is None and not bool(finite.all()):
        first = int(finite.logical_not().nonzero()[0])
        outcome.bad_step, outcome.bad_loss = outcome.steps + first, float(values[first])
    outcome.steps += len(losses)
    outcome.samples += sum(sizes)
    # One by one, in order: where the epoch was cut into segments must not show in the sum's last bits.
    for value, size in zip(values.tolist(), sizes, strict=True):
        outcome.loss_sum += value * size
    losses.clear()
    sizes.clear()


def _as_is(inputs: Any) -> Any:
    return inputs


def _channels_last(inputs: Any) -> Any:
    return tree_map(_to_channels_last, inputs)


def _to_channels_last(leaf: Tensor) -> Tensor:
    return leaf.contiguous(memory_format=torch.channels_last) if leaf.ndim == 4 else leaf
