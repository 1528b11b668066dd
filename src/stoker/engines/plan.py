"""What an epoch over resident tensors consists of, and what a program for it depends on."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from stoker.data.resident import ResidentBatches
from stoker.data.trees import Batch, leaves, outline, tree_map
from stoker.engines.capture import CaptureError, State, uncapturable
from stoker.engines.eager import windows
from stoker.engines.held import code_of, held_by, held_values, mark
from stoker.engines.rates import are_constant, rated
from stoker.engines.step import Epoch, Step
from stoker.engines.updates.protocol import UnsupportedOptimizerError
from stoker.engines.updates.registry import update_for

__all__ = [
    "CHANGES",
    "CHANGING",
    "COMPARED",
    "Plan",
    "arrangement",
    "current_state",
    "form",
    "form_digest",
    "shape_of_work",
    "unfit",
    "unsupported",
]

CHANGING = "what the model or the criterion holds changes from epoch to epoch"
CHANGES = 3  # so many programs are made for a step that is another in each epoch, then no more
COMPARED = 2  # updates that a program makes beside the eager engine before its own count


@dataclass(frozen=True)
class Plan:
    """The updates of one epoch: whole ones, all of the same form, and perhaps a smaller one at its end.

    Attributes:
        source: The data.
        number: Of the epoch, from 0.
        accumulate: Batches of an update.
    """

    source: ResidentBatches
    number: int
    accumulate: int

    @cached_property
    def order(self) -> Tensor:
        """The rows of the epoch in their order, int64 ``[rows]`` on the CPU."""
        return self.source.order(self.number)

    @property
    def rows(self) -> int:
        """Samples of a whole update."""
        return self.source.batch_size * self.accumulate

    @property
    def updates(self) -> int:
        """Whole updates of an epoch."""
        return self.source.rows // self.rows

    def whole(self) -> Tensor:
        """The rows of the whole updates, ``[updates, accumulate, batch]``."""
        return self.order[: self.updates * self.rows].view(self.updates, self.accumulate, self.source.batch_size)

    def rest(self, updates: int) -> Iterator[Batch]:
        """The batches that are left of the epoch after so many updates."""
        return itertools.islice(self.source.epoch(self.number), updates * self.accumulate, None)

    def window(self, step: Step, update: int) -> tuple[Batch, ...]:
        """The batches of one update, as the step wants them; the one after the last whole one is what is left."""
        rows = self.order[update * self.rows : (update + 1) * self.rows]
        gathered = (_gathered(self.source, part) for part in torch.split(rows, self.source.batch_size))
        return next(windows(step, gathered), ())


def unfit(device: torch.device) -> str | None:
    """Why no program is made for a kind of device; ``None`` if one is, where JAX has that device too."""
    return None if device.type in ("cpu", "cuda") else f"the device is {device.type}"


def unsupported(step: Step, batches: Iterable[Batch]) -> str | None:
    """Why steps over these batches cannot be one program, as far as can be told without trying."""
    if not isinstance(batches, Epoch) or not isinstance(batches.batches, ResidentBatches):
        return "the data are not resident tensors"
    if step.on_update is not None:  # who is told of each step may change what the next one begins with
        return "a callback listens to each step"
    if step.replicas is not None:
        return "several processes train together"
    if (reason := unfit(step.device)) is not None:
        return reason
    if batches.batches.rows < 4 * batches.batches.batch_size * step.accumulate:
        return "an epoch has fewer than four whole updates"
    try:
        update_for(step.optimizer)
    except UnsupportedOptimizerError as error:
        return str(error)
    return uncapturable(step)


def form(step: Step, source: ResidentBatches, state: State) -> tuple[Any, ...]:
    """What a program depends on; another form needs another program.

    What modules and criteria hold besides parameters and buffers (a temperature, class weights) is traced as a
    constant, and so is their code. Variables outside of them are not seen.

    Args:
        step: What it carries out.
        source: The data.
        state: With the parameters that it moves.

    Returns:
        Of which the last are the dropout rates that the step is given. They count only where they are constants, which
        nobody knows before a program is made; see :func:`current_state`.
    """
    return *_form(step, source, state, portable=False), _rates(step)


def form_digest(step: Step, source: ResidentBatches, state: State) -> str:
    """A hash of :func:`form` that another process can compare: without where objects lie in memory."""
    described = _form(step, source, state, portable=True)
    if are_constant(step.model):
        described = *described, _rates(step)
    return hashlib.blake2b(repr(described).encode(), digest_size=16).hexdigest()


def _rates(step: Step) -> tuple[float, ...]:
    return tuple(float(module.p) for _, module in rated(step.model))


def _form(step: Step, source: ResidentBatches, state: State, *, portable: bool) -> tuple[Any, ...]:
    inputs = {id(module) for _, module in rated(step.model)}
    own = {id(parameter) for parameter in step.model.parameters()}

    def look(tensor: Tensor) -> Hashable:
        return "the model's" if id(tensor) in own else mark(tensor, portable=portable)

    criteria = [module for criterion in step.criteria for module in criterion.modules()]
    kinds = dict.fromkeys(type(module) for module in (*step.model.modules(), *criteria))
    return (
        shape_of_work(step, source, state),
        held_by(step.objective, look, portable=portable),
        arrangement(step.model),
        tuple(
            tuple(
                pair
                for pair in held_values(module, look, portable=portable)
                if pair[0] != "p" or id(module) not in inputs
            )
            for module in step.model.modules()
        ),
        tuple(
            (
                tuple(held_values(module, look, portable=portable)),
                tuple(mark(tensor, portable=portable) for tensor in module.buffers(recurse=False)),
            )
            for module in criteria
        ),
        tuple(code_of(kind) for kind in kinds),
    )


def shape_of_work(step: Step, source: ResidentBatches, state: State) -> Hashable:
    """The part of a step's form that does not depend on which objects its model and its objective are.

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
        tuple((name, parameter.shape, parameter.requires_grad) for name, parameter in step.model.named_parameters()),
        outline(source.inputs),
        outline(source.targets),
        tuple((name, *_form_of(tensor)) for name, tensor in (*state.buffers.items(), *state.constants.items())),
        tuple(state.parameters),
        type(step.optimizer),
        tuple(tuple(sorted(state.update.signature(group))) for group in state.groups),
        tuple(
            (one.group, one.dtype, len(one.parameters), tuple(tuple(slots) for slots in one.slots))
            for one in state.cohorts
        ),
        step.clip_norm is None,
        step.average is None,
        step.autocast,
        tuple(state.rates),
    )


def arrangement(model: nn.Module) -> tuple[tuple[str, str, type], ...]:
    """Where each module stands, by which path the same one stood before, and what it is."""
    first: dict[int, str] = {}
    return tuple(
        (path, first.setdefault(id(module), path), type(module))
        for path, module in model.named_modules(remove_duplicate=False)
    )


def _form_of(tensor: Tensor) -> tuple[torch.Size, torch.dtype]:
    return tensor.shape, tensor.dtype


def current_state(step: Step, source: ResidentBatches, idle: frozenset[str], known: tuple[Any, ...]) -> State | None:
    """The state as it is now; ``None`` if a program made for that form does not fit it.

    Args:
        step: The step.
        source: The data.
        idle: Parameters that get no gradient.
        known: Of :func:`form`.
    """
    try:
        state = State.of(step, idle)
    except CaptureError:
        return None
    now = form(step, source, state)
    rates_fit = known[-1:] == now[-1:] or not are_constant(step.model)
    return state if known[:-1] == now[:-1] and rates_fit else None


def _gathered(source: ResidentBatches, rows: Tensor) -> Batch:
    rows = rows.to(source.device)
    return (
        tree_map(lambda leaf: leaf.index_select(0, rows), source.inputs),
        tree_map(lambda leaf: leaf.index_select(0, rows), source.targets),
    )
