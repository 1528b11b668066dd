"""A training step looked at: its operators, where their time goes, and what keeps it from being compiled."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from stoker.data.batches import Batches
from stoker.data.resident import ResidentBatches
from stoker.data.trees import Batch, batch_rows
from stoker.engines.calls import Call, carried_out, is_call, phases
from stoker.engines.capture import Captured, CaptureError, State, traced, uncapturable
from stoker.engines.eager import batch_loss, windows
from stoker.engines.explanation import Explanation
from stoker.engines.graph_text import averages_of, given_to_gradients, given_to_update, graph_text
from stoker.engines.plan import unfit
from stoker.engines.step import Step

__all__ = ["explain", "obstacles"]


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
    found += [] if (reason := _no_device(step.device)) is None else [reason]
    try:
        State.of(step)
    except CaptureError as error:
        found.append(str(error))
    if (reason := uncapturable(step)) is not None:
        found.append(reason)
    if isinstance(batches, ResidentBatches) and batches.rows < 4 * batches.batch_size * step.accumulate:
        found.append("an epoch has fewer than four whole updates")
    return found


def _no_device(device: torch.device) -> str | None:
    """Why no program can run there."""
    reason = unfit(device)
    if reason is not None or importlib.util.find_spec("jax") is None:
        return reason
    from stoker.engines.xla.device import lacking

    return lacking(device)


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
