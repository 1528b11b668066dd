"""All that the next step depends on: taken from a training, and given to one that goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from stoker.data.batches import Batches
from stoker.data.loaders import LoaderBatches
from stoker.engines.standing import Standing
from stoker.engines.step import Engine, EpochOutcome, Step
from stoker.errors import CheckpointError
from stoker.randomness import random_states
from stoker.training.best import Snapshot
from stoker.training.callbacks import Callback
from stoker.training.checkpoints.checks import (
    MOST,
    check_rows,
    check_snapshot,
    check_tensors,
    count,
    listed,
    number,
    tensors_of,
)
from stoker.training.checkpoints.moving import check_optimizer, check_schedule
from stoker.training.history import History
from stoker.training.state import TrainState

__all__ = ["Begun", "Legs", "Parts", "captured", "legs_of", "restored"]


@dataclass(frozen=True)
class Legs:
    """Where a training stands among the epochs asked for.

    Attributes:
        origin: Epochs of the trainer before this training.
        asked: How many this training has, as last asked for.
        first: Epochs before the leg that is trained now: each time that more are asked for, another begins.
        epochs: How many this leg has.
    """

    origin: int
    asked: int
    first: int
    epochs: int


@dataclass(frozen=True)
class Begun:
    """An epoch that was left in its middle.

    Attributes:
        outcome: What it came to.
        random: The generators' states; see :func:`stoker.randomness.random_states`.
    """

    outcome: EpochOutcome
    random: tuple[Tensor, Tensor | None]


@dataclass(frozen=True)
class Parts:
    """The objects that hold a training's state.

    Attributes:
        step: With the model, its criteria, the optimizer and the weights' average.
        state: Counters, schedule and best epoch.
        snapshot: The best weights.
        history: The rows so far.
        engine: What carries out the steps.
        batches: The training data.
        callbacks: Those that may have a state of their own.
    """

    step: Step
    state: TrainState
    snapshot: Snapshot
    history: History
    engine: Engine
    batches: Batches
    callbacks: Sequence[Callback]

    def modules(self) -> dict[str, nn.Module]:
        """The modules with parameters and buffers that a step may change."""
        return {"model": self.step.model} | {f"criterion {i}": one for i, one in enumerate(self.step.criteria)}


def captured(parts: Parts, epoch: int, outcome: EpochOutcome | None, seconds: float) -> dict[str, Any]:
    """The state as plain data and tensors, which are the training's own and no copies.

    Args:
        parts: What holds it.
        epoch: How many epochs are over.
        outcome: Of the one under way; ``None`` between two.
        seconds: How long training took so far.
    """
    state, step = parts.state, parts.step
    modules = {name: tensors_of(module) for name, module in parts.modules().items()}
    under_way, batches = None, parts.batches
    if outcome is not None:
        numbers = {"steps": outcome.steps, "samples": outcome.samples, "loss_sum": outcome.loss_sum}
        under_way = {**numbers, "random": random_states(step.device)}
    return {
        "epoch": epoch,
        "step": state.step,
        "under_way": under_way,
        "orders": batches.orders(under_way=outcome is not None) if isinstance(batches, LoaderBatches) else [],
        "engine": parts.engine.standing(step, parts.batches, under_way=outcome is not None).as_dict(),
        "rows": [dict(row) for row in parts.history.rows],
        "seconds": seconds,
        "best": {"value": state.best.value, "epoch": state.best.epoch, "waited": state.best.waited},
        "modules": modules,
        "extra": _extra_states(step.model),
        "snapshot": parts.snapshot.besides(modules["model"]),
        "average": None if state.average is None else state.average.state_dict(),
        "optimizer": step.optimizer.state_dict(),
        "schedule": None if state.schedule is None else state.schedule.scheduler.state_dict(),
        "callbacks": [[type(one).__name__, one.state_dict()] for one in parts.callbacks],
    }


def legs_of(saved: Mapping[str, Any]) -> Legs:
    """Where a checkpoint's training stood.

    Raises:
        CheckpointError: It does not say so.
    """
    legs = saved.get("legs")
    if not isinstance(legs, dict) or set(legs) != set(Legs.__annotations__):
        raise _unfit("where its training stood", legs)
    if not all(type(value) is int and value >= 0 for value in legs.values()):
        raise _unfit("where its training stood", legs)
    found = Legs(**legs)
    over = found.origin + found.asked
    if not found.origin <= found.first <= over <= MOST or over != found.first + found.epochs:
        raise _unfit("where its training stood", legs)
    return found


def _begun(saved: Mapping[str, Any], parts: Parts) -> Begun | None:
    under_way = saved["under_way"]
    if under_way is None:
        return None
    most = _updates(parts)
    steps = count(under_way["steps"], "steps", MOST if most is None else most)
    outcome = EpochOutcome(steps, count(under_way["samples"], "samples"), number(under_way["loss_sum"], "loss_sum"))
    cpu, device = under_way["random"]
    torch.Generator().set_state(cpu)  # which refuses what is no state
    if device is not None:
        torch.Generator(parts.step.device).set_state(device)
    return Begun(outcome, (cpu, device))


def _updates(parts: Parts) -> int | None:
    """How many updates an epoch makes, if the data say."""
    try:
        return -(-len(parts.batches) // parts.step.accumulate)
    except TypeError:  # an iterable Dataset does not know
        return None


def _moves(saved: Mapping[str, Any], parts: Parts) -> int | None:
    """How often the schedule can have moved in its leg; ``None`` if nobody knows."""
    epochs, updates = saved["epoch"] - saved["legs"]["first"], _updates(parts)
    if parts.state.schedule is not None and parts.state.schedule.interval != "step":
        return int(epochs)
    begun = saved["under_way"]
    return None if updates is None else int(epochs * updates + (0 if begun is None else begun["steps"]))


def restored(saved: Mapping[str, Any], parts: Parts, *, new_leg: bool) -> Begun | None:
    """Give a training the state of a checkpoint.

    Args:
        saved: What :func:`captured` returned, as read.
        parts: What is to hold it: of the same job, freshly made.
        new_leg: Whether more epochs were asked for than the training had. The schedule begins anew then, and so does
            the waiting for an improvement.

    Returns:
        The epoch that it was taken in; ``None`` if it was taken between two.

    Raises:
        CheckpointError: It does not fit, or is malformed.
    """
    try:
        for name, module in parts.modules().items():
            check_tensors(name, saved["modules"].get(name), module)
        _restore(saved, parts, new_leg)
        return _begun(saved, parts)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise _unfit("a state that fits this training", f"{type(error).__name__}: {error}") from error


@torch.no_grad()
def _restore(saved: Mapping[str, Any], parts: Parts, new_leg: bool) -> None:
    state, step = parts.state, parts.step
    state.epoch, state.step = count(saved["epoch"], "epoch"), count(saved["step"], "step")
    check_rows(saved["rows"])
    parts.history.rows[:] = [dict(row) for row in saved["rows"]]
    parts.history.seconds = number(saved["seconds"], "seconds", finite=True)
    for name, module in parts.modules().items():
        Snapshot(module, _placed(saved["modules"][name], step.device)).restore()
    for name, extra in saved["extra"].items():
        step.model.get_submodule(name).set_extra_state(extra)
    check_snapshot(saved["snapshot"], step.model)
    parts.snapshot.put(_placed({**saved["modules"]["model"], **saved["snapshot"]}, step.device))
    best = saved["best"]
    state.best.value, state.best.epoch = number(best["value"], "value"), count(best["epoch"], "epoch", state.epoch)
    state.best.waited = 0 if new_leg else count(best["waited"], "waited")
    parts.history.best_epoch = state.best.epoch
    if state.average is not None:
        state.average.load_state_dict(saved["average"])
    _restore_optimizer(step, saved["optimizer"], rates=not new_leg)
    if state.schedule is not None and not new_leg:
        check_schedule(state.schedule.scheduler, saved["schedule"], _moves(saved, parts))
        state.schedule.scheduler.load_state_dict(saved["schedule"])
    if isinstance(parts.batches, LoaderBatches):
        parts.batches.set_orders(listed(saved["orders"]))
    parts.engine.resume(Standing.from_dict(saved["engine"]))
    _restore_callbacks(parts.callbacks, saved["callbacks"])


def _restore_optimizer(step: Step, saved: dict[str, Any], *, rates: bool) -> None:
    """Give the optimizer its state; torch would cast what is not of its parameter's dtype, and drop the strides."""
    optimizer = step.optimizer
    before = [group["lr"] for group in optimizer.param_groups]
    check_optimizer(optimizer, saved)
    optimizer.load_state_dict(saved)
    # The updates before were made, in another process: a schedule that moves next would warn that there were none.
    optimizer._opt_called = True  # type: ignore[attr-defined]
    for lr, mine, theirs in zip(before, optimizer.param_groups, saved["param_groups"], strict=True):
        if not rates:
            mine["lr"] = lr
        for parameter, place in zip(mine["params"], theirs["params"], strict=True):
            for name, value in saved["state"].get(place, {}).items():
                held = optimizer.state[parameter].get(name)
                if isinstance(value, Tensor) and isinstance(held, Tensor) and not _alike(held, value):
                    optimizer.state[parameter][name] = value.to(held.device)


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.stride() == other.stride()


def _restore_callbacks(callbacks: Sequence[Callback], saved: Sequence[Any]) -> None:
    kept = [(place, name, state) for place, (name, state) in enumerate(saved) if state is not None]
    for place, name, state in kept:
        if place >= len(callbacks) or type(callbacks[place]).__name__ != name:
            fix = "Pass the same callbacks in the same order."
            raise CheckpointError("callbacks", f"must have a {name} in place {place + 1}, as the checkpoint", "", fix)
        callbacks[place].load_state_dict(state)


def _placed(tensors: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def _extra_states(model: nn.Module) -> dict[str, Any]:
    """What modules keep besides tensors, by torch's own protocol."""
    return {
        name: module.get_extra_state()
        for name, module in model.named_modules()
        if type(module).get_extra_state is not nn.Module.get_extra_state
    }


def _unfit(rule: str, got: Any) -> CheckpointError:
    return CheckpointError("checkpoint", f"must hold {rule}", str(got)[:200], "Go on from another one, or start anew.")
