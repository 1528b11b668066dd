"""What a step is, and what an engine owes: the contract that every engine passes the same suite for."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from stoker.data.batches import Batches
from stoker.data.trees import Batch
from stoker.engines.replicas import Replicas
from stoker.engines.standing import Standing
from stoker.errors import InputTypeError

__all__ = ["Average", "Engine", "Epoch", "EpochOutcome", "Step", "Watch", "one_number"]

Watch = Callable[["EpochOutcome"], bool]
"""Called between segments with the epoch so far; returning ``False`` ends the epoch there."""


class Average(Protocol):
    """An exponential moving average of the weights: ``a ← d·a + (1 − d)·w``, begun as ``a = w``.

    Attributes:
        decay: ``d``.
        updates: How many were averaged.
    """

    decay: float
    updates: int

    def update(self) -> None:
        """Take the model's weights into the average."""

    def tensors(self) -> list[Tensor]:
        """The average itself, of each parameter that requires a gradient in the model's order; begun if need be."""


@dataclass
class Step:
    """One forward, backward and update, without saying how it is carried out.

    Attributes:
        model: The user's module, in training mode; it holds the parameters between epochs.
        objective: ``(outputs, targets)`` to the 0-d loss, a mean over the batch's samples.
        optimizer: The user's optimizer; it holds its state between epochs.
        schedule: Called after each update, to move the learning rate; ``None`` if it moves by epoch or not at all.
        clip_norm: The largest total 2-norm of the gradients of what the optimizer trains, or ``None``.
        accumulate: Batches whose samples make one update together; the epoch's last update may have fewer.
        average: Of the weights, moved along after each update; ``None`` without one.
        on_update: Told after each update how many the epoch has made and this one's loss, 0-d and still on the device;
            returning true ends the epoch there. ``None`` if nobody listens.
        replicas: The processes that share each batch; ``None`` if this is the only one.
        autocast: The dtype to compute in where that is safe, or ``None`` for the parameters' own.
        device: Where it happens.
        channels_last: Whether 4-D inputs are laid out with the channels innermost, as convolutions like it.
        criteria: The modules that the objective calls, for what they hold.
        kind: What the objective does besides calling them, equal for two that do the same; ``None`` if nobody knows.
    """

    model: nn.Module
    objective: Callable[[Any, Any], Tensor]
    optimizer: Optimizer
    schedule: Callable[[], None] | None = None
    clip_norm: float | None = None
    accumulate: int = 1
    average: Average | None = None
    on_update: Callable[[int, Tensor], bool | None] | None = None
    replicas: Replicas | None = None
    autocast: torch.dtype | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    channels_last: bool = False
    criteria: tuple[nn.Module, ...] = ()
    kind: Hashable | None = None

    @property
    def trained(self) -> list[nn.Parameter]:
        """What the optimizer trains; gradients of the model's other parameters pile up, and count in no norm."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]


@dataclass(frozen=True)
class Epoch:
    """One pass over the training data: its batches, one after the other.

    An engine that does not go through them one by one may know them all from the two attributes.

    Attributes:
        batches: All data.
        number: Of the epoch, from 0.
        iterator: Its batches; of an epoch that goes on where it was left, those that follow.
        left: How many epochs are to follow this one, at most.
        outcome: What it came to so far, which is added to: the number of updates says where it was left.
        cut: From the number of updates made in it to the next at which ``watch`` is to be called; ``None`` if any will
            do.
    """

    batches: Batches
    number: int
    iterator: Iterator[Batch]
    left: int = 0
    outcome: EpochOutcome = field(default_factory=lambda: EpochOutcome())
    cut: Callable[[int], int | None] = lambda _: None

    def __iter__(self) -> Iterator[Batch]:
        return self.iterator


@dataclass
class EpochOutcome:
    """What an epoch, or the part of it so far, came to.

    Attributes:
        steps: Updates made.
        samples: Samples seen.
        loss_sum: Sum over batches of loss × samples, in double precision.
        bad_step: The first step of this epoch (from 0) whose loss was NaN or infinite, or ``None``.
        bad_loss: That loss.
        complete: Whether every batch was used.
    """

    steps: int = 0
    samples: int = 0
    loss_sum: float = 0.0
    bad_step: int | None = None
    bad_loss: float = 0.0
    complete: bool = False

    def add(self, losses: Sequence[float], rows: Sequence[int]) -> None:
        """Count some more updates, with the samples of each."""
        before = self.steps
        self.steps += len(losses)
        self.samples += sum(rows)
        # One by one, in order: where the epoch was cut into segments must not show in the sum's last bits.
        self.loss_sum = functools.reduce(operator.add, map(operator.mul, losses, rows), self.loss_sum)
        if self.bad_step is None and not math.isfinite(self.loss_sum):
            bad = next((place for place, loss in enumerate(losses) if not math.isfinite(loss)), None)
            if bad is not None:
                self.bad_step, self.bad_loss = before + bad, losses[bad]

    @property
    def loss(self) -> float:
        """The mean over samples."""
        return self.loss_sum / self.samples if self.samples else float("nan")


def one_number(loss: Any) -> Tensor:
    """What an objective returned, as a 0-d tensor.

    Raises:
        InputTypeError: It is not a tensor of one number.
    """
    if isinstance(loss, Tensor) and loss.ndim == 0:
        return loss
    if isinstance(loss, Tensor) and loss.numel() == 1:
        return loss.reshape(())
    got = f"a tensor of shape {list(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
    raise InputTypeError(
        "criterion", "must return one number, the mean over the batch's samples", got, "Take its mean()."
    )


class Engine(Protocol):
    """Carries out the steps of an epoch.

    Same batches, same order, same arithmetic as every other engine; after each segment the model and the optimizer hold
    the state reached.

    Attributes:
        name: What it is called.
        reason: Why the eager engine's steps stand in for its own; ``None`` if they do not.
    """

    name: str
    reason: str | None

    @property
    def explanation(self) -> str:
        """What carries out the steps, and why: ``"compiled: as asked"``, ``"eager: a hook on layers.0"``."""

    def close(self) -> None:
        """Give up what goes on beside the steps; called at the end of each training, after which another may begin."""

    def standing(self, step: Step, batches: Batches, *, under_way: bool) -> Standing:
        """What another process must know to go on from here.

        Args:
            step: What a step is.
            batches: The data.
            under_way: Whether an epoch is; else the next one is about to begin.
        """

    def resume(self, standing: Standing) -> None:
        """Go on as another process would have; called before the first epoch.

        Raises:
            CheckpointError: It stands as this engine never does.
        """

    def train_epoch(self, step: Step, batches: Iterable[Batch], watch: Watch) -> EpochOutcome:
        """Make one update per batch, until the batches end, ``watch`` says stop, or a loss is not finite.

        Random numbers come from torch's global generators, which the caller has seeded for the epoch.
        """
