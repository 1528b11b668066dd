"""A training step explained: its operators by kind, where their time goes, and what keeps it from being compiled."""

from __future__ import annotations

import importlib.util
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from stoker.data.batches import Batches
from stoker.data.resident import ResidentBatches
from stoker.data.trees import Batch, batch_rows
from stoker.engines import explain_text
from stoker.engines.calls import Call, Phase, carried_out, is_call, phases
from stoker.engines.capture import Captured, CaptureError, State, traced, uncapturable
from stoker.engines.eager import batch_loss, windows
from stoker.engines.graph_text import averages_of, given_to_gradients, given_to_update, graph_text
from stoker.engines.step import Step

__all__ = ["Explanation", "Kind", "explain", "obstacles"]


@dataclass(frozen=True)
class Kind:
    """All calls of one operator.

    Attributes:
        operator: Its full name, such as ``"aten.mm.default"``.
        room: Where its lowering is (``"matrix"``, ``"elementwise"``, …; see docs/operators.md); ``None`` if it has
            none, or if JAX is not installed and nobody knows.
        calls: How many in each part of the step.
        seconds: Of all calls together, each carried out alone by PyTorch.
        flops: Likewise; of matrix products and convolutions.
    """

    operator: str
    room: str | None
    calls: Counter[Phase]
    seconds: float
    flops: int


@dataclass(frozen=True)
class Explanation:
    """What a training step consists of. ``str()`` of it is a table of at most 80 columns.

    Attributes:
        rows: Of the batch that it was captured for.
        device: Where it was carried out.
        calls: Its operators, in order; empty if it cannot be captured, and without those of the update if only the
            optimizer cannot.
        rooms: Of each operator, the room that lowers it; see :class:`Kind`.
        reasons: All that was found to keep it from being compiled.
        unlowered: Operators without a lowering, by their full names, sorted.
        graph: The step as text, a line an operator, with shapes and dtypes.
    """

    rows: int
    device: str
    calls: tuple[Call, ...]
    rooms: dict[str, str | None]
    reasons: tuple[str, ...]
    unlowered: tuple[str, ...]
    graph: str

    @property
    def reason(self) -> str | None:
        """The reasons in one line; ``None`` if nothing stands in the way."""
        return "; ".join(self.reasons) or None

    @cached_property
    def kinds(self) -> tuple[Kind, ...]:
        """The operators, those that take most time first."""
        by_name: dict[str, list[Call]] = {}
        for call in self.calls:
            by_name.setdefault(call.operator, []).append(call)
        kinds = [
            Kind(
                name,
                self.rooms[name],
                Counter(call.phase for call in calls),
                sum(call.seconds for call in calls),
                sum(call.flops for call in calls),
            )
            for name, calls in by_name.items()
        ]
        return tuple(sorted(kinds, key=lambda kind: -kind.seconds))

    @property
    def seconds(self) -> float:
        """Of all calls, each carried out alone; a step as a whole takes another time."""
        return sum(call.seconds for call in self.calls)

    @property
    def flops(self) -> int:
        """Of all matrix products and convolutions."""
        return sum(call.flops for call in self.calls)

    def __str__(self) -> str:
        return explain_text.text(self)


def explain(step: Step, batches: Batches, batch: Batch, known: str | None = None) -> Explanation:
    """Capture a step, carry out its operators one by one, and look for what keeps it from being compiled.

    The model is called, as in training: buffers and random numbers move, and the caller puts them back.

    Args:
        step: Its model in the modes in which it shall train.
        batches: All data.
        batch: One of them.
        known: What kept the last training eager, which counts if nothing else is found: some things show only there.

    Raises:
        Exception: What the model or the objective raises.
    """
    reasons = obstacles(step, batches)
    ((inputs, targets),) = next(windows(replace(step, accumulate=1), [batch]))
    rows = batch_rows(inputs, targets)
    idle = _idle(step, (inputs, targets))
    try:
        try:
            state, supported = State.of(step, idle), True
        except CaptureError:  # an obstacle already; the gradients are the same with another optimizer
            state, supported = State.of(replace(step, optimizer=torch.optim.SGD(step.trained, lr=0.1)), idle), False
        captured, unfaithful = traced(step, state, inputs, targets)
    except CaptureError as error:
        reasons += [] if str(error) in reasons else [str(error)]
        return Explanation(rows, str(step.device), (), {}, tuple(reasons), (), "")
    reasons += [] if unfaithful is None else [unfaithful]
    calls, graph = _looked_at(step, state, captured, (inputs, targets), supported)
    missing, refused, rooms = _lowered(captured, supported, {call.operator for call in calls})
    reasons += refused
    if not reasons and known is not None:
        reasons = [f"in the last training: {known}"]
    return Explanation(rows, str(step.device), tuple(calls), rooms, tuple(reasons), tuple(missing), graph)


def obstacles(step: Step, batches: Batches) -> list[str]:
    """What keeps a step from being compiled, as far as can be told without tracing it; empty if nothing does."""
    found = [] if importlib.util.find_spec("jax") is not None else ["JAX is not installed"]
    resident = isinstance(batches, ResidentBatches)
    found += [] if resident else ["the data are not resident tensors"]
    found += ["several processes train together"] if step.replicas is not None else []
    found += [f"the device is {step.device.type}"] if step.device.type != "cpu" else []
    try:
        State.of(step)
    except CaptureError as error:
        found.append(str(error))
    if (reason := uncapturable(step)) is not None:
        found.append(reason)
    if isinstance(batches, ResidentBatches) and batches.rows < 4 * batches.batch_size * step.accumulate:
        found.append("an epoch has fewer than four whole updates")
    return found


def _idle(step: Step, batch: Batch) -> frozenset[str]:
    """Parameters that get no gradient, which the optimizer passes over."""
    named = {name: parameter for name, parameter in step.model.named_parameters() if parameter.requires_grad}
    found = torch.autograd.grad(batch_loss(step, batch), list(named.values()), allow_unused=True)
    return frozenset(name for name, gradient in zip(named, found, strict=True) if gradient is None)


def _looked_at(step: Step, state: State, captured: Captured, batch: Batch, with_update: bool) -> tuple[list[Call], str]:
    """The calls of both graphs, and their text."""
    values = pytree.tree_leaves((state.parameters, state.buffers, state.constants, state.rates, *batch))
    parts = phases(captured.gradients)
    calls, outputs = carried_out(captured.gradients, values, parts, step.device)
    names = [f"{name}.grad" for name in state.parameters]
    text = graph_text(captured.gradients, given_to_gradients(state, *batch), parts, ["loss", *names, *state.buffers])
    if not with_update:
        return calls, text
    turned, gradients = captured.turned, outputs[1 : 1 + len(state.parameters)]
    clip = [] if step.clip_norm is None else [torch.tensor(step.clip_norm)]
    values = [*turned.turn(state.parameters.values()), *turned.turn(gradients), *turned.turn_slots(state.slots)]
    values += [*_scalars(state, captured), *clip]
    if step.average is not None:
        values += [*turned.turn(state.averages), torch.tensor(1 - step.average.decay, dtype=torch.float64)]
    parts = {node: "update" for node in captured.update.graph.nodes if is_call(node)}
    more, _ = carried_out(captured.update, values, parts, step.device)
    given = given_to_update(state, captured, bool(clip))
    after = given[: len(state.parameters)] + given[2 * len(state.parameters) :][: len(state.slots)]
    after += averages_of(state, captured)
    return calls + more, f"{text}\n\n{graph_text(captured.update, given, parts, after)}"


def _scalars(state: State, captured: Captured) -> list[Tensor]:
    """The numbers of the optimizer's next update."""
    found = []
    for cohort, names in zip(state.cohorts, captured.scalars, strict=True):
        group = state.groups[cohort.group]
        columns, _ = state.update.scalars(group, cohort.counts, [float(group["lr"])])
        found += [torch.tensor(float(columns[name][0]), dtype=cohort.dtype) for name in names]
    return found


def _lowered(
    captured: Captured, with_update: bool, names: set[str]
) -> tuple[list[str], list[str], dict[str, str | None]]:
    """Operators without a lowering; why the graphs cannot be lowered; and the room of each operator."""
    if importlib.util.find_spec("jax") is None:
        return [], [], dict.fromkeys(names)
    from stoker.engines.xla.interpret import UNLOWERED, refusal, unlowered
    from stoker.engines.xla.table import room_of

    graphs = [captured.gradients, captured.update] if with_update else [captured.gradients]
    missing = unlowered(*graphs)
    if missing:
        reasons = [UNLOWERED + ", ".join(missing)]
    else:
        reasons = [text for text in map(refusal, graphs) if text is not None]
    return missing, reasons, {name: room_of(name) for name in names}
