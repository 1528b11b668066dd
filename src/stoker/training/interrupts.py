"""Ctrl-C ends a training at the next good moment instead of in the middle of an update."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import TypeVar

__all__ = ["CtrlC"]

Item = TypeVar("Item")


class CtrlC:
    """Within this block the first Ctrl-C is only noted; the second one interrupts as usual.

    Outside the main thread, where Python takes no signal handlers, it notes nothing and Ctrl-C stays as it was.

    Attributes:
        pressed: Whether it was.
        cut: Whether it was in a block within this one, which it ended.
    """

    def __init__(self) -> None:
        self.pressed = False
        self.cut = False
        self._installed = False

    def __enter__(self) -> CtrlC:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.getsignal(signal.SIGINT)
            # A program that ignores Ctrl-C (nohup, a service) goes on ignoring it.
            if self._before not in (signal.SIG_IGN, None):
                signal.signal(signal.SIGINT, self._note)
                self._installed = True
        return self

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        if self.pressed:
            raise KeyboardInterrupt
        self.pressed = True
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
            if not self.pressed:
                raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, self._before)
            self._installed = False
