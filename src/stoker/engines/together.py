"""Trainings that meet where each would run its program: there one program makes the steps of all.

They take turns (:mod:`stoker.engines.turns`), and each waits where it comes to a segment of an epoch. Once all wait,
those that have the same program and are at the same step of their epoch get the segment made by
:class:`stoker.engines.xla.vectorised.Vectorised`; those that are behind wait for the others to come round to the next
epoch.

The program is made for as many trainings as first meet, and stays so: places of those that have ended are filled. A
training's last bits depend on the program's size, which must therefore depend on nothing that may happen to the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from stoker.data.trees import leaves
from stoker.engines.capture import refusal_of
from stoker.engines.reuse import PROGRAMS
from stoker.engines.turns import Turn, take_turns

if TYPE_CHECKING:  # these import JAX, which eager trainings are spared
    from stoker.engines.step import Engine
    from stoker.engines.xla.scan import Data, Scan
    from stoker.engines.xla.vectorised import Vectorised

__all__ = ["Lane", "abreast"]

OWN_CODE = "the network or the loss is code that is neither torch's nor Stoker's"
OWN_SHAPE = "no other has the same network, batch size, optimizer and data"


Result = TypeVar("Result")


@dataclass
class Lane:
    """One of several trainings that take turns, as its engine sees it.

    Attributes:
        size: For how many trainings the program is that makes its steps; ``None`` before it has met the others. May be
            set before, for a training that goes on.
        sized: Told the size when it is settled.
        engine: What carries out its steps.
        reason: Why no program was made for it and others.
    """

    size: int | None = None
    sized: Callable[[int], object] = lambda _: None
    engine: Engine | None = None
    reason: str | None = None
    _turn: Turn[_Meeting] = field(default_factory=lambda: Turn(), init=False, repr=False)
    _compared: dict[Hashable, bool] = field(default_factory=dict, init=False, repr=False)

    @property
    def alone(self) -> str | None:
        """Why it was trained by itself; ``None`` if it was not, or if nothing is known."""
        if self.engine is None or (self.size or 1) > 1:
            return None
        if self.engine.name == "eager":
            return self.engine.reason or "the engine is eager"
        return self.engine.reason or self.reason or (OWN_SHAPE if self.size == 1 else None)

    def advance(self, key: Hashable | None, data: Data, scan: Scan, start: int, stop: int) -> tuple[list[float], float]:
        """Make the updates from ``start`` up to ``stop``, or only the first of them, together with those who can.

        Args:
            key: What it has in common with those that have the same program; ``None`` if that cannot be told.
            data: What it is trained on.
            scan: Makes the updates.
            start: The first update.
            stop: The first that is not to be made.

        Returns:
            Their losses, and the seconds that they took.
        """
        if key is None:
            self.reason = OWN_CODE
            return _alone(scan, start, stop)
        meeting = _Meeting(self, scan, key, data, start, stop)
        self._turn.wait(meeting)
        if meeting.error is not None:
            raise meeting.error
        return meeting.losses, meeting.seconds


@dataclass
class _Meeting:
    """What a training waits for."""

    lane: Lane
    scan: Scan
    key: Hashable
    data: Data
    start: int
    stop: int
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    error: Exception | None = None
    served: bool = False


def _alone(scan: Scan, start: int, stop: int) -> tuple[list[float], float]:
    from stoker.engines.takeover import alone

    return alone(scan, start, stop)


def abreast(
    lanes: Sequence[Lane], works: Sequence[Callable[[Lane], Result]], ended: Callable[[int, Result], object]
) -> None:
    """Carry out trainings that meet for their steps.

    Args:
        lanes: One for each.
        works: Each trains in its lane.
        ended: Told the place and the result of each as soon as it has ended.

    Raises:
        BaseException: What one of them raised, after the others have ended; or ``ended``, after the others were given
            up.
    """
    calls = [partial(work, lane) for lane, work in zip(lanes, works, strict=True)]
    take_turns([lane._turn for lane in lanes], calls, ended, _serve)


def _serve(waiting: Sequence[_Meeting]) -> list[bool]:
    """Make a segment for those that are furthest in their epoch, of each form; who may go on."""
    for first in _families([meeting for meeting in waiting if meeting.lane.size is None]):
        for meeting in first:
            _settle(meeting.lane, len(first))
    for family in _families(waiting):
        furthest = max(meeting.start for meeting in family)
        group = [meeting for meeting in family if meeting.start == furthest]
        size = group[0].lane.size or 1
        for place in range(0, len(group), size):
            _make(group[place : place + size], size)
    return [meeting.served for meeting in waiting]


def _families(waiting: Sequence[_Meeting]) -> list[list[_Meeting]]:
    """Those that can have their steps made by the same call of a program."""
    families: list[list[_Meeting]] = []
    for meeting in waiting:
        for family in families:
            first = family[0]
            fits = (first.key, first.lane.size) == (meeting.key, meeting.lane.size)
            if fits and _same_data(first, meeting):
                family.append(meeting)
                break
        else:
            families.append([meeting])
    return families


def _same_data(one: _Meeting, other: _Meeting) -> bool:
    """Whether two are trained on the same numbers: the same memory, or a copy, which is looked through once."""
    pairs = list(zip(_tensors(one.data), _tensors(other.data), strict=True))
    where = tuple((mine.data_ptr(), mine.stride(), its.data_ptr(), its.stride()) for mine, its in pairs)
    known = one.lane._compared
    if where not in known:
        known[where] = all(_same_bits(mine, its) for mine, its in pairs)
    return known[where]


def _tensors(data: Data) -> list[Tensor]:
    return [*leaves(data.source.inputs), *leaves(data.source.targets)]


def _same_bits(one: Tensor, other: Tensor) -> bool:
    if (one.data_ptr(), one.stride()) == (other.data_ptr(), other.stride()):
        return True
    mine, its = (tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other))
    return torch.equal(mine, its)


def _settle(lane: Lane, size: int) -> None:
    lane.size = size
    lane.sized(size)


def _make(group: Sequence[_Meeting], size: int) -> None:
    """Make a segment, of equal length for all."""
    start, stop = group[0].start, min(meeting.stop for meeting in group)
    program = None if size == 1 else _program(group, size)
    ready: list[_Meeting] = []
    for meeting in group:
        meeting.served = True
        try:
            if program is None:
                meeting.losses, meeting.seconds = _alone(meeting.scan, start, stop)
            else:
                filled = meeting.scan.fill(start, stop)
                if filled == stop:
                    ready.append(meeting)
                elif filled > start:  # its schedule came to another update than the program's
                    meeting.losses = meeting.scan.made(start, filled)
        except Exception as error:  # a schedule's
            meeting.error = error
    if program is None or not ready:
        return
    began = time.perf_counter()
    try:
        losses = program([meeting.scan for meeting in ready], start, stop)
    except Exception as error:  # no memory
        for meeting in ready:
            meeting.error = error
        return
    for meeting, its in zip(ready, losses, strict=True):
        meeting.losses, meeting.seconds = its, time.perf_counter() - began


def _program(group: Sequence[_Meeting], size: int) -> Vectorised | None:
    """The program for so many; ``None`` if it cannot be made, and each of them goes on by itself from now on."""
    from stoker.engines.xla.vectorised import Vectorised

    scan = group[0].scan
    try:
        program: Vectorised = PROGRAMS.get_or_make((group[0].key, size), lambda: Vectorised(scan, size))
    except Exception as error:  # whatever keeps it from being made
        for meeting in group:
            meeting.lane.reason = f"of several no program can be made: {refusal_of(error)}"
            _settle(meeting.lane, 1)
        return None
    return program
