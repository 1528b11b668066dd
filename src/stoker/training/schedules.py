"""Learning-rate schedules, on ``torch.optim.lr_scheduler``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from torch.optim import Optimizer
from torch.optim import lr_scheduler as torch_schedulers
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from stoker.errors import ConfigError, InputTypeError, UnknownNameError, suggest

__all__ = ["SCHEDULES", "Schedule", "ScheduleSpec", "build_schedule", "cosine", "linear"]

ScheduleSpec: TypeAlias = str | Callable[[Optimizer], LRScheduler] | None


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
        """Move on after an epoch; ``monitored`` is the value that a plateau is seen in, smaller being better."""
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
                return (step + 1) / rise
            return curve(min(1.0, (step - rise) / max(1, total - rise)), floor=settings["floor"])

        return torch_schedulers.LambdaLR(optimizer, factor)

    return build


def _one_cycle(optimizer: Optimizer, total: int, settings: dict[str, Any]) -> LRScheduler:
    peaks = [group["lr"] for group in optimizer.param_groups]
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


def build_schedule(
    spec: ScheduleSpec, optimizer: Optimizer, *, total_steps: int, settings: Mapping[str, Any] | None = None
) -> Schedule | None:
    """Build a schedule.

    Args:
        spec: A name out of :data:`SCHEDULES`, ``"constant"`` or ``None``, or a function from the optimizer to one of
            torch's schedulers, which then moves after each epoch.
        optimizer: Whose learning rate it moves.
        total_steps: Updates in all epochs together; the curves end there.
        settings: The named schedule's settings, such as ``{"warmup": 0.1}``.

    Returns:
        The schedule, or ``None`` for a constant learning rate.

    Raises:
        UnknownNameError: No schedule has that name.
        ConfigError: A setting is unknown or out of range.
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
        _check_fractions(spec, merged)
        try:
            return Schedule(plan.build(optimizer, total_steps, merged), plan.interval)
        except (ValueError, TypeError) as error:
            raise ConfigError("schedule", f"{spec} refused its settings: {error}", merged) from error
    scheduler = spec(optimizer)
    if not isinstance(scheduler, LRScheduler):
        raise InputTypeError("schedule", "the function must return a torch scheduler", type(scheduler).__name__)
    return Schedule(scheduler, "plateau" if isinstance(scheduler, ReduceLROnPlateau) else "epoch")


def _check_fractions(name: str, settings: Mapping[str, Any]) -> None:
    for key in ("warmup", "floor"):
        if key in settings and not (isinstance(settings[key], (int, float)) and 0 <= settings[key] < 1):
            raise ConfigError(
                "schedule", f"{name}'s {key} must be a number from 0 up to, not including, 1", settings[key]
            )
