"""The learning-rate range test: a short training whose rate grows from step to step, and what its losses say."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from stoker.data.trees import Batch, batch_rows
from stoker.engines.eager import batch_loss, eager_step, windows
from stoker.engines.step import Step
from stoker.errors import ConfigError, DataError, NonFiniteLossError, TrainingError
from stoker.randomness import preserved_randomness, seed_globally
from stoker.training.best import Snapshot

__all__ = ["LrCurve", "find_lr", "growing_rates", "smoothed_changes", "suggested"]

LEAST_STEPS = 10
SMOOTHED_OVER = 0.1  # of all steps, whatever their number: so many decades of the rate
LEAST_FALL = 1e-3  # of the loss before; less is rounding, not learning
DIVERGED = 3.0  # times as far above the lowest loss as that is from 0 or from the first, whichever is farther


@dataclass(frozen=True)
class LrCurve:
    """What a range test found.

    Attributes:
        lrs: The first parameter group's rate at each step made, ascending.
        losses: The loss of each step's batch, before its update.
        before: The loss of the same batch with the weights that the test began with.
        smoothed: The mean of ``before``, plus the :func:`smoothed_changes` from there.
        suggestion: See :func:`suggested`.
    """

    lrs: tuple[float, ...]
    losses: tuple[float, ...]
    before: tuple[float, ...]
    smoothed: tuple[float, ...]
    suggestion: float

    @property
    def levelled(self) -> tuple[float, ...]:
        """The losses without what made one batch harder than another from the start: ``loss − before + mean(before)``.

        Before the rate is large enough to change anything, they are all alike.
        """
        mean = float(np.mean(self.before))
        return tuple(loss - first + mean for loss, first in zip(self.losses, self.before, strict=True))


def find_lr(
    step: Step,
    epoch: Callable[[int], Iterable[Batch]],
    *,
    start: float = 1e-7,
    end: float = 10.0,
    steps: int = 100,
    seed: int = 0,
    watch: Callable[[int], object] = lambda _: None,
) -> LrCurve:
    """Train for some steps while the learning rate grows exponentially, look where the loss falls, and undo it all.

    Source: Smith, Cyclical Learning Rates for Training Neural Networks (2017, arXiv:1506.01186), section 3.3; but with
    a rate that grows exponentially and not in a line, so that each decade gets as many steps, and with losses that are
    compared with those of the same batches under the first weights. Small batches differ so much from one another that
    the fall, often of a hundredth of the loss, would drown in their noise otherwise.

    The steps are those of training, with clipping, autocast and whatever else belongs to them, but for the schedule.
    They end early where the loss diverges. Afterwards the parameters, buffers and gradients, the modes of the modules,
    the optimizer's state and settings, and torch's random numbers are bit for bit what they were.

    Args:
        step: What to carry out. Parameter groups keep the ratio of their rates to the first group's.
        epoch: From an epoch's number, from 0, to its batches; they are gone through again and again.
        start: The first step's rate.
        end: The last one's.
        steps: How many, at most.
        seed: Of the noise (dropout).
        watch: Called after each step with the number of those made.

    Raises:
        ConfigError: A setting is out of range, or the first parameter group has no rate above 0.
        DataError: The data yield no batch.
        NonFiniteLossError: The loss is NaN or infinite before a single update.
        TrainingError: The loss falls nowhere.
    """
    rates = growing_rates(start, end, steps)
    ratios = _ratios(step.optimizer)
    beta = 1 - 1 / (SMOOTHED_OVER * steps)
    losses: list[float] = []
    before: list[float] = []
    smoothed: NDArray[np.float64] = np.empty(0)
    with preserved_randomness(step.device), _undone(step.model, step.optimizer), torch.enable_grad():
        if not step.model.training:
            step.model.train()
        seed_globally(seed, step.device)
        first = _FirstWeights(step.model)
        trial = replace(step, schedule=None, average=None, on_update=None)
        for rate, batches in zip(rates, _endless(trial, epoch), strict=False):
            for group, ratio in zip(step.optimizer.param_groups, ratios, strict=True):
                given = group["lr"]
                group["lr"] = torch.full_like(given, rate * ratio) if isinstance(given, Tensor) else rate * ratio
            with preserved_randomness(step.device):  # the step itself is to draw the same noise
                was = first.loss(trial, batches)
            loss = float(eager_step(trial, *batches).loss)
            if not (math.isfinite(loss) and math.isfinite(was)):
                break
            losses.append(loss)
            before.append(was)
            watch(len(losses))
            smoothed = np.mean(before) + smoothed_changes(losses, before, beta)
            if _has_diverged(smoothed, float(np.mean(before))):
                break
    if not losses:
        fix = "Look for extreme values in the data, or in the weights the model begins with."
        raise NonFiniteLossError("find_lr", "the loss of the first batch must be finite", loss, fix)
    lrs = rates[: len(losses)]
    suggestion = suggested(lrs, smoothed, float(np.mean(before)))
    if suggestion is None:
        got = f"{np.mean(before):.4g} before, {smoothed.min():.4g} at the lowest"
        fix = f"Tried: {lrs[0]:.1e} to {lrs[-1]:.1e}. Try others, or look whether the model learns at all."
        raise TrainingError("find_lr", "the loss must fall somewhere between the rates tried", got, fix)
    return LrCurve(tuple(lrs), tuple(losses), tuple(before), tuple(smoothed.tolist()), suggestion)


def growing_rates(start: float, end: float, steps: int) -> list[float]:
    """``start · (end / start) ** (i / (steps − 1))`` for each step ``i``.

    Raises:
        ConfigError: They cannot grow from ``start`` to ``end``, or the steps are fewer than 10.
    """
    if not (0 < start < end < math.inf):
        raise ConfigError("find_lr", "start must be above 0 and end above start", f"{start!r} and {end!r}")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < LEAST_STEPS:
        raise ConfigError("find_lr", f"steps must be a whole number from {LEAST_STEPS} on", repr(steps))
    return [start * (end / start) ** (place / (steps - 1)) for place in range(steps)]


def smoothed_changes(losses: Sequence[float], before: Sequence[float], beta: float) -> NDArray[np.float64]:
    """The exponential mean, up to each step, of how the batches' losses have changed.

    ``m_i = β·m_{i−1} + (1 − β)·(loss_i − before_i)`` from ``m_{−1} = 0``, divided by ``1 − β^{i+1}`` against its bias
    towards 0, as Adam corrects its moments (Kingma and Ba, 2015, arXiv:1412.6980, section 3).
    """
    mean, corrected = 0.0, []
    for place, (loss, was) in enumerate(zip(losses, before, strict=True), 1):
        mean = beta * mean + (1 - beta) * (loss - was)
        corrected.append(mean / (1 - beta**place))
    return np.array(corrected, dtype=np.float64)


def suggested(lrs: Sequence[float], smoothed: NDArray[np.float64], level: float) -> float | None:
    """A tenth of the rate at which the smoothed loss is lowest.

    Beyond the lowest loss training becomes unstable, and since the mean lags behind, it has begun to somewhat earlier;
    a tenth leaves room. The point of the steepest fall, which is often taken instead, is a derivative of noisy numbers,
    and lies close to the brink: for small networks on digits and California housing at 3 to 40 times the best rate.

    Args:
        lrs: Of each step.
        smoothed: float64, shape ``[n]``.
        level: The loss before anything changed.

    Returns:
        The rate, or ``None`` if the loss falls by less than 0.1 % of the level.
    """
    lowest = int(smoothed.argmin())
    return lrs[lowest] / 10 if level - smoothed[lowest] > LEAST_FALL * abs(level) else None


def _has_diverged(smoothed: NDArray[np.float64], level: float) -> bool:
    lowest = smoothed.min()
    return bool(smoothed[-1] - lowest > DIVERGED * max(abs(lowest), level - lowest))


def _endless(step: Step, epoch: Callable[[int], Iterable[Batch]]) -> Iterator[tuple[Batch, ...]]:
    """The batches of one update after the other, epoch after epoch."""
    for number in itertools.count():
        empty = True
        for window in windows(step, epoch(number)):
            empty = False
            yield window
        if empty:
            fix = "Look at the data set's length, and whether it can be gone through again."
            raise DataError("find_lr", "the data must yield batches, and again in each epoch", "none", fix)


def _ratios(optimizer: Optimizer) -> list[float]:
    """Each group's rate, in the first one's: that which it was made with, where a schedule has moved it since."""
    rates = [float(group.get("initial_lr", group.get("lr", 0.0))) for group in optimizer.param_groups]
    if not rates[0] > 0:
        got = f"{rates[0]:g} in {type(optimizer).__name__}"
        raise ConfigError("find_lr", "the optimizer's first parameter group must have a learning rate above 0", got)
    return [rate / rates[0] for rate in rates]


class _FirstWeights:
    """A copy of what a model begins with, to be put in its place for a moment."""

    def __init__(self, model: nn.Module) -> None:
        self._tensors = [*model.parameters(), *model.buffers()]
        self._others = [tensor.detach().clone() for tensor in self._tensors]

    @torch.no_grad()
    def loss(self, step: Step, batches: Sequence[Batch]) -> float:
        """The loss of one update's batches with these weights, a mean over samples."""
        sizes = [batch_rows(*batch) for batch in batches]
        self._exchange()
        try:
            losses = [float(batch_loss(step, batch)) for batch in batches]
        finally:
            self._exchange()
        return float(np.average(losses, weights=sizes))

    def _exchange(self) -> None:
        for place, tensor in enumerate(self._tensors):
            tensor.data, self._others[place] = self._others[place], tensor.data


@contextmanager
def _undone(model: nn.Module, optimizer: Optimizer) -> Iterator[None]:
    """Whatever is done to a model and its optimizer in this block is undone after it."""
    snapshot = Snapshot(model)
    modes = [(module, module.training) for module in model.modules()]
    mine = set(model.parameters())
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    others = {parameter: parameter.detach().clone() for parameter in trained if parameter not in mine}
    gradients = {parameter: parameter.grad for parameter in (*mine, *trained)}
    states = dict(optimizer.state)
    settings = [dict(group) for group in optimizer.param_groups]
    try:
        # What belongs to the optimizer is put aside and it works on copies, so that its own tensors are never touched.
        for parameter in gradients:
            parameter.grad = None
        optimizer.state.update({parameter: copy.deepcopy(state) for parameter, state in states.items()})
        for group in optimizer.param_groups:
            group.update({name: copy.deepcopy(value) for name, value in group.items() if name != "params"})
        yield
    finally:
        snapshot.restore()
        for parameter, value in others.items():
            parameter.data.copy_(value)
        for module, mode in modes:
            module.training = mode
        for parameter, gradient in gradients.items():
            parameter.grad = gradient
        optimizer.state.clear()
        optimizer.state.update(states)
        for group, kept in zip(optimizer.param_groups, settings, strict=True):
            group.clear()
            group.update(kept)
