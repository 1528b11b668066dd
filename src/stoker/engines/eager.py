"""The eager engine: the plain PyTorch loop. Every model, every optimizer, hooks, prints and breakpoints."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from stoker.data.batches import Batch, batch_rows, call_model, tree_map
from stoker.engines.step import EpochOutcome, Step, Watch

__all__ = ["EagerEngine", "eager_step"]

SEGMENT_SECONDS = 0.1  # how often progress shows and losses are looked at
SEGMENT_STEPS = 512  # at most so many losses wait to be looked at


def eager_step(step: Step, inputs: Any, targets: Any) -> Tensor:
    """Carry out one step.

    The optimizer gets the step as a closure, so that those which need several evaluations (L-BFGS) work as well.

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
            loss = step.objective(call_model(step.model, inputs), targets)
        else:
            with torch.autocast(step.device.type, dtype=step.autocast):
                loss = step.objective(call_model(step.model, inputs), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        if step.clip_norm is not None:
            nn.utils.clip_grad_norm_(step.model.parameters(), step.clip_norm)
        loss = loss.detach()
        first.append(loss)
        return loss

    step.optimizer.step(closure)  # type: ignore[arg-type]
    if step.schedule is not None:
        step.schedule()
    return first[0]


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
    values = torch.stack(losses).to("cpu", torch.float64)
    finite = values.isfinite()
    if outcome.bad_step is None and not bool(finite.all()):
        first = int(finite.logical_not().nonzero()[0])
        outcome.bad_step, outcome.bad_loss = outcome.steps + first, float(values[first])
    outcome.steps += len(losses)
    outcome.samples += sum(sizes)
    outcome.loss_sum += float(values @ torch.tensor(sizes, dtype=torch.float64))
    losses.clear()
    sizes.clear()


def _as_is(inputs: Any) -> Any:
    return inputs


def _channels_last(inputs: Any) -> Any:
    return tree_map(_to_channels_last, inputs)


def _to_channels_last(leaf: Tensor) -> Tensor:
    return leaf.contiguous(memory_format=torch.channels_last) if leaf.ndim == 4 else leaf
