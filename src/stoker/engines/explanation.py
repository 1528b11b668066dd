"""What a training step consists of and what keeps it from being compiled, and both as a table of 80 columns."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import get_args

from stoker.engines.calls import REPEATS, Call, Phase

__all__ = ["Explanation", "Kind"]

WIDTH = 80
NAME = 34  # columns at most; a longer name is folded
UNITS = ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP")
PHASES: tuple[Phase, ...] = get_args(Phase)


@dataclass(frozen=True)
class Kind:
    """All calls of one operator.

    Attributes:
        operator: Its full name, such as ``"aten.mm.default"``.
        room: Where its lowering is (``"matrix"``, ``"elementwise"``, …; see docs/operators.md); ``None`` if it has
            none, or if JAX is not installed and nobody knows.
        calls: How many in each part of the step.
        seconds: Of all calls together, each carried out alone by PyTorch.
        flops: Likewise; of matrix products and convolutions.
    """

    operator: str
    room: str | None
    calls: Counter[Phase]
    seconds: float
    flops: int


@dataclass(frozen=True)
class Explanation:
    """What a training step consists of. ``str()`` of it is a table of at most 80 columns.

    Attributes:
        rows: Of the batch that it was captured for.
        device: Where it was carried out.
        calls: Its operators, in order; empty if it cannot be captured, and without those of the update if only the
            optimizer cannot.
        rooms: Of each operator, the room that lowers it; see :class:`Kind`.
        reasons: All that was found to keep it from being compiled.
        unlowered: Operators without a lowering, by their full names, sorted.
        graph: The step as text, a line an operator, with shapes and dtypes.
    """

    rows: int
    device: str
    calls: tuple[Call, ...]
    rooms: dict[str, str | None]
    reasons: tuple[str, ...]
    unlowered: tuple[str, ...]
    graph: str

    @property
    def reason(self) -> str | None:
        """The reasons in one line; ``None`` if nothing stands in the way."""
        return "; ".join(self.reasons) or None

    @cached_property
    def kinds(self) -> tuple[Kind, ...]:
        """The operators, those that take most time first."""
        by_name: dict[str, list[Call]] = {}
        for call in self.calls:
            by_name.setdefault(call.operator, []).append(call)
        kinds = [
            Kind(
                name,
                self.rooms[name],
                Counter(call.phase for call in calls),
                sum(call.seconds for call in calls),
                sum(call.flops for call in calls),
            )
            for name, calls in by_name.items()
        ]
        return tuple(sorted(kinds, key=lambda kind: -kind.seconds))

    @property
    def seconds(self) -> float:
        """Of all calls, each carried out alone; a step as a whole takes another time."""
        return sum(call.seconds for call in self.calls)

    @property
    def flops(self) -> int:
        """Of all matrix products and convolutions."""
        return sum(call.flops for call in self.calls)

    def __str__(self) -> str:
        return _text(self)


def _text(explanation: Explanation) -> str:
    """What a step consists of, and what keeps it from being compiled; no line is longer than 80 columns."""
    parts = [_title(explanation)]
    if explanation.calls:
        parts += ["", *_table(explanation), "", *_how_measured(explanation)]
    return "\n".join([*parts, "", *_verdict(explanation)])


def _title(explanation: Explanation) -> str:
    batch = f"One step of {_counted(explanation.rows, 'row')} on {explanation.device}"
    if not explanation.calls:
        return f"{batch}: it cannot be captured"
    kinds = f"{len(explanation.kinds):,} kind{'' if len(explanation.kinds) == 1 else 's'}"
    update = "" if any(call.phase == "update" for call in explanation.calls) else ", without the update"
    return f"{batch}: {_counted(len(explanation.calls), 'operator')} of {kinds}{update}"


def _table(explanation: Explanation) -> Iterator[str]:
    rooms: dict[str, list[Kind]] = {}
    for kind in explanation.kinds:
        rooms.setdefault(_room(kind, explanation), []).append(kind)
    whole = explanation.seconds or 1.0  # a coarse clock
    scale = 0
    while scale < len(UNITS) - 1 and explanation.flops >= 1000 ** (scale + 1):
        scale += 1
    rows: list[tuple[str, ...]] = [("", *PHASES, "time", *([UNITS[scale]] if explanation.flops else []))]

    def row(label: str, kinds: Iterable[Kind]) -> None:
        kinds = list(kinds)
        counts = [sum(kind.calls[phase] for kind in kinds) for phase in PHASES]
        flops = sum(kind.flops for kind in kinds)
        share = sum(kind.seconds for kind in kinds) / whole
        shown = [f"{flops / 1000**scale:,.1f}" if flops else ""] if explanation.flops else []
        rows.append((label, *(f"{count:,}" if count else "" for count in counts), f"{share:.1%}", *shown))

    for room, kinds in sorted(rooms.items(), key=lambda item: -sum(kind.seconds for kind in item[1])):
        row(room, kinds)
        for kind in kinds:
            row(f"  {kind.operator.removeprefix('aten.').removesuffix('.default')}", [kind])
    row("in all", explanation.kinds)
    seconds = [sum(call.seconds for call in explanation.calls if call.phase == phase) for phase in PHASES]
    shares = (f"{share:.1%}" if share else "" for share in (part / whole for part in seconds))
    rows.append(("time", *shares, *([""] * (len(rows[0]) - 4))))
    return _aligned(rows)


def _room(kind: Kind, explanation: Explanation) -> str:
    if kind.room is not None:
        return kind.room
    return "without a lowering" if kind.operator in explanation.unlowered else "operators"


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The first column to the left, and folded where it is too long, the others to the right."""
    widths = [min(max(map(len, column)), NAME) for column in zip(*rows, strict=True)]
    for label, *cells in rows:
        first, *rest = [label[start : start + widths[0]] for start in range(0, len(label), widths[0])] or [""]
        padded = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        yield "  ".join([first.ljust(widths[0]), *padded]).rstrip()
        yield from (f"  {more}" for more in rest)


def _how_measured(explanation: Explanation) -> list[str]:
    loops = " Recurrences are timed as plain loops over time, which no engine runs."
    loops = loops if any(kind.operator.startswith("stoker.") for kind in explanation.kinds) else ""
    counted = f" {UNITS[0]} are those of matrix products and convolutions, by formula." if explanation.flops else ""
    return textwrap.wrap(
        f"Time: that of each operator carried out alone by PyTorch, the median of {REPEATS} calls; "
        f"{explanation.seconds * 1e6:,.0f} µs in all. A whole step takes another time: what is around the calls is not "
        f"in it, and a compiler makes one of many operators.{loops}{counted}",
        WIDTH,
    )


def _verdict(explanation: Explanation) -> list[str]:
    if not explanation.reasons:
        return ["Nothing found keeps this step from being compiled."]
    lines = [
        line for reason in explanation.reasons for line in textwrap.wrap(f"- {reason}", WIDTH, subsequent_indent="  ")
    ]
    return ["What keeps this step from being compiled:", *lines]


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
