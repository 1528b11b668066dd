"""Learning-rate schedules, on ``torch.optim.lr_scheduler``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import torch
from torch.optim import SGD, Optimizer
from torch.optim import lr_scheduler as torch_schedulers
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from stoker.errors import ConfigError, InputTypeError, UnknownNameError, suggest

__all__ = ["SCHEDULES", "Interval", "Schedule", "ScheduleSpec", "build_schedule", "check_schedule", "cosine", "linear"]

ScheduleSpec: TypeAlias = str | Callable[[Optimizer], LRScheduler] | None


Interval: TypeAlias = Literal["step", "epoch"]


def cosine(progress: float, *, floor: float = 0.0) -> float:
    """Half a cosine from 1 down to ``floor``: ``floor + (1 − floor)(1 + cos(π·progress))/2``.

    Source: Loshchilov & Hutter, "SGDR", 2017 (arXiv:1608.03983), equation 5, without restarts.
    """
    return floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2


def linear(progress: float, *, floor: float = 0.0) -> float:
    """A straight line from 1 down to ``floor``."""
    return 1 - (1 - floor) * progress


@dataclass
class Schedule:
    """A scheduler, and when it moves.

    Attributes:
        scheduler: One of torch's.
        interval: ``"step"``: after each update. ``"epoch"``: after each epoch. ``"plateau"``: after each epoch, told
            the monitored value.
    """

    scheduler: LRScheduler
    interval: Literal["step", "epoch", "plateau"]

    def after_epoch(self, monitored: float) -> None:
        """Move on after an epoch; ``monitored`` is the value that a plateau is seen in."""
        if self.interval == "plateau":
            self.scheduler.step(monitored)  # type: ignore[arg-type]
        elif self.interval == "epoch":
            self.scheduler.step()


@dataclass(frozen=True)
class _Plan:
    """How one named schedule is built; its settings are those of ``defaults`` and no others."""

    interval: Literal["step", "epoch", "plateau"]
    build: Callable[[Optimizer, int, dict[str, Any]], LRScheduler]
    defaults: dict[str, Any] = field(default_factory=dict)


def _decay(curve: Callable[..., float]) -> Callable[[Optimizer, int, dict[str, Any]], LRScheduler]:
    """A factor per step: up in a line over the first ``warmup`` of all steps, then down along ``curve``."""

    def build(optimizer: Optimizer, total: int, settings: dict[str, Any]) -> LRScheduler:
        rise = round(settings["warmup"] * total)

        def factor(step: int) -> float:
            if step < rise:
                return float((step + 1) / rise)
            return curve(min(1.0, (step - rise) / max(1, total - rise)), floor=settings["floor"])

        return torch_schedulers.LambdaLR(optimizer, factor)

    return build


def _one_cycle(optimizer: Optimizer, total: int, settings: dict[str, Any]) -> LRScheduler:
    # A cycle before this one has left the rate at its lowest, and beside it what its peak was.
    peaks = [group.get("max_lr", group["lr"]) for group in optimizer.param_groups]
    # Momentum is the user's; torch would cycle it as well, and fails where there is none.
    return torch_schedulers.OneCycleLR(optimizer, peaks, total_steps=total + 1, cycle_momentum=False, **settings)


SCHEDULES: dict[str, _Plan] = {
    "cosine": _Plan("step", _decay(cosine), {"warmup": 0.0, "floor": 0.0}),
    "linear": _Plan("step", _decay(linear), {"warmup": 0.0, "floor": 0.0}),
    "one-cycle": _Plan("step", _one_cycle, {"pct_start": 0.3, "div_factor": 25.0, "final_div_factor": 1e4}),
    "exponential": _Plan(
        "epoch", lambda optimizer, _, settings: torch_schedulers.ExponentialLR(optimizer, **settings), {"gamma": 0.95}
    ),
    "step": _Plan(
        "epoch",
        lambda optimizer, _, settings: torch_schedulers.StepLR(optimizer, **settings),
        {"step_size": 10, "gamma": 0.1},
    ),
    "plateau": _Plan(
        "plateau",
        lambda optimizer, _, settings: ReduceLROnPlateau(optimizer, **settings),
        {"factor": 0.1, "patience": 5, "min_lr": 0.0, "threshold": 1e-4},
    ),
}
"""The named schedules, with their settings' defaults; ``warmup`` is a fraction of all steps, ``floor`` of the rate."""


def check_schedule(
    spec: ScheduleSpec, settings: Mapping[str, Any] | None = None, interval: Interval | None = None
) -> None:
    """Find what is wrong with a schedule before there is anything to train; a function of the user's is not called.

    Raises:
        UnknownNameError: No schedule has that name.
        ConfigError: A setting is unknown or out of range.
        InputTypeError: It is neither a name nor a function.
    """
    if spec is None or isinstance(spec, str):
        build_schedule(spec, SGD([torch.zeros(1)], lr=0.1), total_steps=100, settings=settings, interval=interval)
        return
    if not callable(spec):
        raise InputTypeError(
            "schedule",
            "must be a name or a function from the optimizer to a scheduler",
            type(spec).__name__,
            "Such as lambda optimizer: StepLR(optimizer, 10).",
        )
    if interval not in (None, "step", "epoch"):
        raise UnknownNameError("schedule_interval", str(interval), ["step", "epoch"])
    if settings:
        raise ConfigError(
            "schedule", "a function takes no settings", ", ".join(settings), "Set them within the function."
        )


def build_schedule(
    spec: ScheduleSpec,
    optimizer: Optimizer,
    *,
    total_steps: int | None,
    settings: Mapping[str, Any] | None = None,
    direction: Literal["min", "max"] = "min",
    interval: Interval | None = None,
    epochs: int = 1,
) -> Schedule | None:
    """Build a schedule.

    Args:
        spec: A name out of :data:`SCHEDULES`, ``"constant"`` or ``None``, or a function from the optimizer to one of
            torch's schedulers, which then moves when torch says it should: ``OneCycleLR`` and ``CyclicLR`` after each
            update, the others after each epoch, ``ReduceLROnPlateau`` told the monitored value.
        optimizer: Whose learning rate it moves.
        total_steps: Updates in all epochs together, where the curves end; ``None`` if that is not known.
        settings: The named schedule's settings, such as ``{"warmup": 0.1}``.
        direction: Whether the monitored value is better small or large, for ``"plateau"``.
        interval: Whether it moves after each ``"step"`` or each ``"epoch"``, instead of what is said above; the
            curves then go over so many of them. A plateau is always looked for after an epoch.
        epochs: How many there are, for curves that move by epoch.

    Returns:
        The schedule, or ``None`` for a constant learning rate.

    Raises:
        UnknownNameError: No schedule has that name.
        ConfigError: A setting is unknown or out of range, the schedule needs to know the number of steps, or the
            function returned a scheduler of another optimizer.
        InputTypeError: The function returned something else than a scheduler.
    """
    if spec is None or spec == "constant":
        if settings:
            raise ConfigError("schedule", "a constant schedule has no settings", ", ".join(settings))
        return None
    if isinstance(spec, str):
        if spec not in SCHEDULES:
            raise UnknownNameError("schedule", spec, ["constant", *SCHEDULES])
        plan = SCHEDULES[spec]
        for key in settings or {}:
            if key not in plan.defaults:
                raise ConfigError("schedule", f"{spec} has no such setting", repr(key), suggest(key, plan.defaults))
        merged = {**plan.defaults, **(settings or {})}
        _check_ranges(spec, merged)
        when = _interval(plan.interval, interval)
        if when == "epoch":
            total_steps = epochs
        if when == "step" and total_steps is None:
            raise ConfigError(
                "schedule",
                f"{spec} must know how many steps an epoch has",
                "data without a length",
                "Give them a __len__, or use one that moves by epoch, such as exponential.",
            )
        try:
            given = merged | {"mode": direction} if plan.interval == "plateau" else merged
            return Schedule(plan.build(optimizer, total_steps or 0, given), when)
        except (ValueError, TypeError, ArithmeticError) as error:
            raise ConfigError("schedule", f"{spec} refused its settings: {error}", merged) from error
    scheduler = spec(optimizer)
    if not isinstance(scheduler, LRScheduler):
        raise InputTypeError("schedule", "the function must return a torch scheduler", type(scheduler).__name__)
    if scheduler.optimizer is not optimizer:
        raise ConfigError(
            "schedule",
            "the function must make a scheduler of the optimizer it is given",
            "one of another optimizer",
            "Write lambda optimizer: StepLR(optimizer, 10).",
        )
    if isinstance(scheduler, ReduceLROnPlateau):
        return Schedule(scheduler, _interval("plateau", interval))
    by_step = isinstance(scheduler, (torch_schedulers.OneCycleLR, torch_schedulers.CyclicLR))
    return Schedule(scheduler, _interval("step" if by_step else "epoch", interval))


def _interval(
    usual: Literal["step", "epoch", "plateau"], wanted: Interval | None
) -> Literal["step", "epoch", "plateau"]:
    if wanted is None:
        return usual
    if wanted not in ("step", "epoch"):
        raise UnknownNameError("schedule_interval", str(wanted), ["step", "epoch"])
    if usual == "plateau" and wanted == "step":
        fix = "Leave schedule_interval out."
        raise ConfigError("schedule_interval", "a plateau is looked for after an epoch", repr(wanted), fix)
    return "plateau" if usual == "plateau" else wanted


def _check_ranges(name: str, settings: Mapping[str, Any]) -> None:
    for key in ("warmup", "floor"):
        if key in settings and not (isinstance(settings[key], (int, float)) and 0 <= settings[key] < 1):
            raise ConfigError(
                "schedule", f"{name}'s {key} must be a number from 0 up to, not including, 1", settings[key]
            )
    size = settings.get("step_size", 1)
    if not isinstance(size, int) or size < 1:
        raise ConfigError("schedule", f"{name}'s step_size must be a whole number of epochs from 1 on", size)
    gamma = settings.get("gamma", 1.0)
    if not isinstance(gamma, (int, float)) or not gamma > 0:
        raise ConfigError("schedule", f"{name}'s gamma must be above 0", gamma)
