"""Trainings in threads of their own that take turns, so that each has the process to itself while it is its turn.

Never two run at a time, and torch's global generator and settings are as a training left them whenever its turn comes
again. So they need not know of each other, and what they come to does not depend on how fast each is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch

__all__ = ["Turn", "take_turns"]

Wish = TypeVar("Wish")
Result = TypeVar("Result")


class _AbandonedError(BaseException):
    """Nobody waits any more for what a training comes to."""


@dataclass(frozen=True)
class _Surroundings:
    """What torch has once for the whole process, and a training must find as it left it."""

    random: torch.Tensor
    deterministic: tuple[bool, bool]
    benchmark: bool
    dtype: torch.dtype
    precision: str

    @classmethod
    def now(cls) -> _Surroundings:
        return cls(
            torch.get_rng_state(),
            (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
            torch.backends.cudnn.benchmark,
            torch.get_default_dtype(),
            torch.get_float32_matmul_precision(),
        )

    def restore(self) -> None:
        now = _Surroundings.now()
        torch.set_rng_state(self.random)
        if now.deterministic != self.deterministic:  # each of these costs more than to look
            torch.use_deterministic_algorithms(self.deterministic[0], warn_only=self.deterministic[1])
        if now.benchmark != self.benchmark:
            torch.backends.cudnn.benchmark = self.benchmark
        if now.dtype != self.dtype:
            torch.set_default_dtype(self.dtype)
        if now.precision != self.precision:
            torch.set_float32_matmul_precision(self.precision)


class Turn(Generic[Wish]):
    """Whether it is a training's turn, which goes back and forth between its thread and the one that serves all.

    Attributes:
        wish: What the training waits for; ``None`` before its first turn.
    """

    def __init__(self) -> None:
        self.wish: Wish | None = None
        self._abandoned = False
        self._its = threading.Semaphore(0)
        self._ours = threading.Semaphore(0)

    def wait(self, wish: Wish) -> None:
        """Called by the training: wait until the wish is fulfilled."""
        self.wish = wish
        mine = _Surroundings.now()
        self.end()
        self.begin()
        mine.restore()

    def begin(self) -> None:
        """Called by the training's thread: wait for the turn."""
        self._its.acquire()
        if self._abandoned:
            raise _AbandonedError

    def end(self) -> None:
        """Called by the training's thread: it is the other's turn."""
        self._ours.release()

    def let(self) -> None:
        """Called by who serves all: let the training go on until it waits again, or ends."""
        ours = _Surroundings.now()
        self._its.release()
        try:
            self._ours.acquire()
        finally:
            ours.restore()

    def abandon(self, *, waits: bool) -> None:
        """Called by who serves all: have the training end where it is; at its next turn, if it does not wait for one.

        Else it is in the middle of something, of which nobody knows how long it takes.
        """
        self._abandoned = True
        if waits:
            self.let()
        else:
            self._its.release()


class _Thread(threading.Thread):
    """A training's thread."""

    def __init__(self, turn: Turn[Any], work: Callable[[], Any]) -> None:
        super().__init__(name="stoker-lane", daemon=True)  # who interrupts twice does not wait for it
        self.turn, self.work = turn, work
        self.over = self.at_work = False
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.turn.begin()
            self.result = self.work()
        except BaseException as error:
            self.error = error
        finally:
            self.over = True
            self.turn.end()

    def let(self) -> None:
        """Let it go on until it waits again, or ends."""
        self.at_work = True
        self.turn.let()
        self.at_work = False


def take_turns(
    turns: Sequence[Turn[Wish]],
    works: Sequence[Callable[[], Result]],
    ended: Callable[[int, Result], object],
    serve: Callable[[Sequence[Wish]], Sequence[bool]],
) -> None:
    """Carry out trainings, each until it waits for something; once all wait, serve them.

    Args:
        turns: One for each, which the training knows.
        works: What each does.
        ended: Told the place and the result of each as soon as it has ended.
        serve: Fulfils wishes of those that wait, at least one of them; says of each whether it may go on.

    Raises:
        BaseException: What one of them raised, after the others have ended; or ``ended`` or ``serve``, after all that
            had not ended were given up.
    """
    threads = [_Thread(turn, work) for turn, work in zip(turns, works, strict=True)]
    for thread in threads:
        thread.start()
    alive, ready, errors = list(threads), list(threads), list[BaseException]()
    try:
        while alive:
            for thread in ready:
                thread.let()
                if not thread.over:
                    continue
                thread.join()
                alive.remove(thread)
                if thread.error is None:
                    ended(threads.index(thread), thread.result)
                else:
                    errors.append(thread.error)
            wishes = [thread.turn.wish for thread in alive]
            served = serve([wish for wish in wishes if wish is not None])  # each has one, or it would not wait
            ready = [thread for thread, may in zip(alive, served, strict=True) if may]
    finally:
        for thread in alive:
            thread.turn.abandon(waits=not thread.at_work)
    if errors:
        raise errors[0]
