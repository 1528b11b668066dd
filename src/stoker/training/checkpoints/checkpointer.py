"""Writes a checkpoint when one is due."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stoker.engines.step import EpochOutcome
from stoker.errors import StokerError
from stoker.training.checkpoints.files import write_checkpoint
from stoker.training.checkpoints.state import Legs, Parts, captured
from stoker.training.checkpoints.tree import pack
from stoker.training.checkpoints.when import Every

__all__ = ["Checkpointer"]


@dataclass
class Checkpointer:
    """One training's checkpoints.

    Attributes:
        folder: Where they go.
        every: How often; see :class:`stoker.training.checkpoints.when.Every`.
        keep: How many remain.
        asked: Whether training ends where none can be written, and one is written at its end.
        about: What must be the same where it goes on: ``{"job": …, "environment": …}``.
        legs: Which epochs are trained.
        seconds: How long training took before.
        notify: Told why there will be none, where nobody asked for them.
        callbacks_end: Whether a training that a callback ended is over. If not, none is written there.
        clock: Seconds.
    """

    folder: Path
    every: Every
    keep: int
    asked: bool
    about: dict[str, Any]
    legs: Legs
    seconds: float = 0.0
    notify: Callable[[str], None] = lambda _: None
    callbacks_end: bool = True
    clock: Callable[[], float] = time.monotonic
    given_up: bool = field(default=False, init=False)
    _began: float = field(default=0.0, init=False)
    _written: float = field(default=0.0, init=False)
    _step: int = field(default=0, init=False)
    _choice: Any = field(default=None, init=False)

    def begin(self, parts: Parts, step: int) -> None:
        """Begin to count, and see that the state can be kept at all.

        Raises:
            CheckpointError: The schedule, a callback or the model has something to remember that cannot be kept.
        """
        self._began = self._written = self.clock()
        self._step = step
        self._choice = parts.engine.standing(parts.step, parts.batches, under_way=True).choice
        with self._asked_or_given_up():
            pack(captured(parts, parts.state.epoch, None, 0.0), {}, "state")

    @contextmanager
    def _asked_or_given_up(self) -> Iterator[None]:
        """What goes wrong in this block ends a training only where checkpoints were asked for."""
        try:
            yield
        except (StokerError, OSError) as error:
            if self.asked:
                raise
            self.given_up = True
            self.notify(f"this training keeps no checkpoints: {error}")

    def cut(self, step: int) -> int | None:
        """The number of updates after this one at which :meth:`due` is to be asked; ``None`` if any will do."""
        return self.every.next_step(step)

    def due(self, parts: Parts, step: int, epochs: int | None = None) -> bool:
        """Whether a checkpoint is to be written now.

        Args:
            parts: What holds the state.
            step: Updates made.
            epochs: How many are over, at the end of one; ``None`` within.
        """
        if self.given_up:
            return False
        if epochs is not None and self.every.epochs is not None and epochs % self.every.epochs == 0:
            return True
        if self.every.steps is not None and step // self.every.steps > self._step // self.every.steps:
            return True
        if self.every.seconds is not None and self.clock() - self._written >= self.every.seconds:
            return True
        # What a clock has chosen would be chosen otherwise another time: it is kept before more is built on it.
        return bool(parts.engine.standing(parts.step, parts.batches, under_way=True).choice != self._choice)

    def write(self, parts: Parts, step: int, epochs: int, outcome: EpochOutcome | None, stopped: str) -> None:
        """Write one.

        Args:
            parts: What holds the state.
            step: Updates made.
            epochs: How many are over.
            outcome: Of the one under way; ``None`` between two.
            stopped: Why training ended; ``"running"`` if it goes on.

        Raises:
            CheckpointError: It cannot be written.
            DiskFullError: There is no room.
        """
        if self.given_up:
            return
        seconds = self.seconds + self.clock() - self._began
        with self._asked_or_given_up():
            state = captured(parts, epochs, outcome, seconds)
            value = {**self.about, "legs": dict(vars(self.legs)), "stopped": stopped, **state}
            write_checkpoint(self.folder, step, value, self.keep)
        self._step, self._written = step, self.clock()
        self._choice = parts.engine.standing(parts.step, parts.batches, under_way=True).choice
