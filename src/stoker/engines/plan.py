"""What an epoch over resident tensors consists of, and what a program for it depends on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stoker.data.resident import ResidentBatches
from stoker.data.trees import Batch, leaves, tree_map
from stoker.engines.capture import State, uncapturable
from stoker.engines.eager import windows
from stoker.engines.step import Epoch, Step
from stoker.engines.updates.protocol import UnsupportedOptimizerError
from stoker.engines.updates.registry import update_for

__all__ = ["COMPARED", "Plan", "form", "unsupported"]

COMPARED = 2  # updates that a program makes beside the eager engine before its own count


@dataclass(frozen=True)
class Plan:
    """The updates of one epoch: whole ones, all of the same form, and perhaps a smaller one at its end.

    Attributes:
        source: The data.
        order: The rows of the epoch in their order, int64 on the CPU.
        accumulate: Batches of an update.
    """

    source: ResidentBatches
    order: Tensor
    accumulate: int

    @classmethod
    def of(cls, step: Step, source: ResidentBatches, number: int) -> Plan:
        return cls(source, source.order(number), step.accumulate)

    @property
    def rows(self) -> int:
        """Samples of a whole update."""
        return self.source.batch_size * self.accumulate

    @property
    def updates(self) -> int:
        """Whole updates of an epoch."""
        return len(self.order) // self.rows

    def whole(self) -> Tensor:
        """The rows of the whole updates, ``[updates, accumulate, batch]``."""
        return self.order[: self.updates * self.rows].view(self.updates, self.accumulate, self.source.batch_size)

    def window(self, step: Step, update: int) -> tuple[Batch, ...]:
        """The batches of one update, as the step wants them; the one after the last whole one is what is left."""
        rows = self.order[update * self.rows : (update + 1) * self.rows]
        gathered = (_gathered(self.source, part) for part in torch.split(rows, self.source.batch_size))
        return next(windows(step, gathered), ())


def unsupported(step: Step, batches: Iterable[Batch]) -> str | None:
    """Why steps over these batches cannot be one program, as far as can be told without trying."""
    if not isinstance(batches, Epoch) or not isinstance(batches.batches, ResidentBatches):
        return "the data are not resident tensors"
    if step.replicas is not None:
        return "several processes train together"
    if step.device.type != "cpu":
        return f"the device is {step.device.type}"
    if batches.batches.rows < 4 * batches.batches.batch_size * step.accumulate:
        return "an epoch has fewer than four whole updates"
    try:
        update_for(step.optimizer)
    except UnsupportedOptimizerError as error:
        return str(error)
    return uncapturable(step)


def form(step: Step, source: ResidentBatches, state: State) -> tuple[Any, ...]:
    """What a program depends on; another form needs another program.

    Args:
        step: What it carries out.
        source: The data.
        state: With the parameters that it moves.
    """
    return (
        source.batch_size,
        source.rows,
        step.accumulate,
        tuple((leaf.shape[1:], leaf.dtype) for leaf in (*leaves(source.inputs), *leaves(source.targets))),
        tuple(module.training for module in step.model.modules()),
        tuple((name, parameter.shape, parameter.requires_grad) for name, parameter in step.model.named_parameters()),
        tuple(state.parameters),
        type(step.optimizer),
        tuple(state.update.signature(group) for group in state.groups),
        tuple(
            (one.group, one.dtype, len(one.parameters), tuple(tuple(slots) for slots in one.slots))
            for one in state.cohorts
        ),
        step.clip_norm is None,
        step.average is None,
        step.autocast,
        id(step.objective),
    )


def _gathered(source: ResidentBatches, rows: Tensor) -> Batch:
    rows = rows.to(source.device)
    return (
        tree_map(lambda leaf: leaf.index_select(0, rows), source.inputs),
        tree_map(lambda leaf: leaf.index_select(0, rows), source.targets),
    )
