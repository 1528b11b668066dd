"""Ctrl-C and SIGTERM end a training at the next good moment instead of in the middle of an update."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import ClassVar, TypeVar

__all__ = ["CtrlC", "Terminated"]

TERMINATED = 128 + signal.SIGTERM

Item = TypeVar("Item")


class Terminated(SystemExit):
    """SIGTERM ended what ran, after it had kept or tidied up what it must; the program ends with code 143."""

    def __init__(self) -> None:
        super().__init__(TERMINATED)


class CtrlC:
    """Within this block the first Ctrl-C is only noted; the second one interrupts as usual.

    Outside the main thread, where Python takes no signal handlers, it notes nothing and Ctrl-C stays as it was; unless
    the main thread is in a block that notes for all threads, which this one then hears from.

    Args:
        terminable: Whether SIGTERM is noted likewise; the second one ends the program as usual.
        threads: Whether blocks of other threads, begun within this one, are told.

    Attributes:
        pressed: Whether it was.
        cut: Whether it was in a block within this one, which it ended.
        lost: Whether batches were lost to it: the epoch ended before its time.
        terminated: Whether SIGTERM came.
    """

    _telling: ClassVar[CtrlC | None] = None

    def __init__(self, *, terminable: bool = False, threads: bool = False) -> None:
        self.pressed = False
        self.cut = False
        self.lost = False
        self.terminated = False
        self._terminable = terminable
        self._threads = threads
        self._listeners: list[CtrlC] = []
        self._told_by: CtrlC | None = None
        self._installed = False
        self._installed_term = False

    def __enter__(self) -> CtrlC:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.getsignal(signal.SIGINT)
            # A program that ignores Ctrl-C (nohup, a service) goes on ignoring it.
            if self._before not in (signal.SIG_IGN, None):
                signal.signal(signal.SIGINT, self._note)
                self._installed = True
            self._before_term = signal.getsignal(signal.SIGTERM)
            if self._terminable and self._before_term not in (signal.SIG_IGN, None):
                signal.signal(signal.SIGTERM, self._note_term)
                self._installed_term = True
            if self._threads:
                CtrlC._telling = self
        elif CtrlC._telling is not None:
            self._told_by = CtrlC._telling
            self._told_by._listeners.append(self)
            self.pressed, self.terminated = self._told_by.pressed, self._told_by.terminated
        return self

    def _note_term(self, number: int, _frame: FrameType | None) -> None:
        if self.terminated:
            signal.signal(number, self._before_term)
            signal.raise_signal(number)
        for one in (self, *self._listeners):
            one.terminated = True

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        if self.pressed:
            raise KeyboardInterrupt
        for one in (self, *self._listeners):
            one.pressed = True
        # Those around are told, without its counting as their first one: a second one interrupts what runs now.
        outer = getattr(self._before, "__self__", None)
        while isinstance(outer, CtrlC):
            outer.cut = True
            outer = getattr(outer._before, "__self__", None)

    def until(self, items: Iterator[Item]) -> Iterator[Item]:
        """The items, which may end in a RuntimeError after Ctrl-C: it reaches a DataLoader's workers too."""
        try:
            yield from items
        except RuntimeError:
            if not self.pressed and not self.terminated:
                raise
            self.lost = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, self._before)
            self._installed = False
        if self._installed_term:
            signal.signal(signal.SIGTERM, self._before_term)
            self._installed_term = False
        if CtrlC._telling is self:
            CtrlC._telling = None
        if self._told_by is not None:
            self._told_by._listeners.remove(self)
            self._told_by = None
