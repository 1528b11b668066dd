"""When a checkpoint is due: every so many epochs, updates or minutes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from stoker.errors import ConfigError

__all__ = ["Every"]

UNITS = {
    "epoch": "epochs",
    "step": "steps",
    "s": "seconds",
    "sec": "seconds",
    "second": "seconds",
    "min": "minutes",
    "minute": "minutes",
    "h": "hours",
    "hour": "hours",
}
SECONDS = {"seconds": 1, "minutes": 60, "hours": 3600}


@dataclass(frozen=True)
class Every:
    """How often; one of the three is not ``None``.

    Attributes:
        epochs: After so many.
        steps: After so many updates, counted from the training's beginning.
        seconds: After so many, at the next moment that suits the engine, a fifth of a second later at most.
    """

    epochs: int | None = None
    steps: int | None = None
    seconds: float | None = None

    @classmethod
    def of(cls, text: str) -> Every:
        """Read ``"1epoch"``, ``"500steps"``, ``"2min"`` and their like.

        Raises:
            ConfigError: It is of another form.
        """
        match = re.fullmatch(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*([a-z]+?)s?\s*", text) if isinstance(text, str) else None
        second = isinstance(text, str) and re.fullmatch(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*(s)\s*", text)
        match = second or match
        unit = UNITS.get(match[2]) if match else None
        if match is None or unit is None or not float(match[1]) > 0 or (unit not in SECONDS and "." in match[1]):
            fix = 'Such as "1epoch", "500steps" or "2min".'
            raise ConfigError("checkpoint_every", "must be a number of epochs, steps or minutes", repr(text), fix)
        if unit in SECONDS:
            return cls(seconds=float(match[1]) * SECONDS[unit])
        return cls(epochs=int(match[1])) if unit == "epochs" else cls(steps=int(match[1]))

    def next_step(self, step: int) -> int | None:
        """The number of updates after this one at which a checkpoint is due; ``None`` if updates do not tell."""
        return None if self.steps is None else (step // self.steps + 1) * self.steps
