"""Charts as inline SVG: their colours come from the page's style, light or dark, and their text stays text.

Everything is given as attributes and classes, for the page's security policy allows no ``style`` attributes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from stoker.reporting.canvas import number

__all__ = ["Axis", "Chart", "bar"]

Numbers = Sequence[float] | NDArray[Any]


class Axis:
    """A range of numbers, and where its ticks are.

    Args:
        label: What is measured.
        low: The least value shown.
        high: The largest.
        log: On a logarithmic scale; both ends are above 0 then.
        whole: Ticks at whole numbers only.
        bare: No ticks at all.
    """

    def __init__(
        self, label: str, low: float, high: float, *, log: bool = False, whole: bool = False, bare: bool = False
    ) -> None:
        if not high > low:
            spread = abs(low) * 0.05 or 1.0
            low, high, log = low - spread, low + spread, False
        self.label, self.low, self.high, self.log, self.whole = label, float(low), float(high), log, whole
        self.bare = bare

    def place(self, values: Numbers | float) -> NDArray[np.float64]:
        """Where values lie: 0 at the low end, 1 at the high one."""
        array = np.asarray(values, np.float64)
        if self.log:
            low, high = math.log(self.low), math.log(self.high)
            return np.asarray((np.log(np.maximum(array, 1e-300)) - low) / (high - low))
        return np.asarray((array - self.low) / (self.high - self.low))

    def ticks(self, most: int) -> list[tuple[float, str]]:
        """At most so many round numbers within the range, and how each is written."""
        from matplotlib.ticker import LogLocator, MaxNLocator

        if self.bare:
            return []
        found: Any = []
        if self.log:
            decades = math.log10(self.high / self.low)
            found = LogLocator(subs=(1.0,) if decades > 2.5 else (1.0, 2.0, 5.0), numticks=12).tick_values(
                self.low, self.high
            )
        if not self.log or sum(self.low <= value <= self.high for value in found) < 2:
            found = MaxNLocator(nbins=most, integer=self.whole, min_n_ticks=1, steps=[1, 2, 2.5, 5, 10]).tick_values(
                self.low, self.high
            )
        slack = 1e-9 * (self.high - self.low)
        inside = [float(value) for value in found if self.low - slack <= value <= self.high + slack]
        return [(value, _tick(value, max(abs(self.low), abs(self.high)))) for value in inside]


def _tick(value: float, largest: float) -> str:
    if abs(value) < 1e-9 * largest:
        return "0"
    if largest >= 1e5:
        power, unit = next(((p, u) for p, u in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")) if largest >= p))
        shown = f"{value / power:.4g}{unit}" if largest < 1e15 else f"{value:.2g}"
    else:
        shown = f"{value:,.6g}" if largest >= 1e-4 else f"{value:.2g}"
    return shown.replace("-", "−")


class Chart:
    """A rectangle with two axes that is drawn upon.

    Args:
        alt: What it shows, in words, for whoever does not see it.
        x: The horizontal axis.
        y: The vertical axis.
        square: As high as it is wide.
    """

    WIDTH = 400

    def __init__(self, alt: str, x: Axis, y: Axis, *, square: bool = False) -> None:
        self.alt, self.x, self.y = alt, x, y
        self._yticks = y.ticks(6)
        longest = max((len(says) for _, says in self._yticks), default=1)
        self._left, self._right = 14 + 7.2 * longest, 14.0
        self._top, self._bottom = 24.0, 40.0
        self._wide = self.WIDTH - self._left - self._right
        self._tall = self._wide if square else 200.0
        self._parts: list[Markup] = []

    def line(self, xs: Numbers, ys: Numbers, css: str, *, dots: bool = False) -> None:
        """A line through points; values that are not finite leave a gap."""
        across, up = self._at(xs, ys)
        finite = np.isfinite(across) & np.isfinite(up)
        for piece in np.split(np.arange(len(finite)), np.flatnonzero(~finite)):
            piece = piece[finite[piece]]
            if len(piece):
                path = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across[piece], up[piece], strict=True))
                self._add('<polyline class="line {}" points="{}"/>', css, path)
                if dots or len(piece) == 1:
                    self.dots(np.asarray(xs)[piece], np.asarray(ys)[piece], css, 3.0)

    def dots(self, xs: Numbers, ys: Numbers, css: str, radius: float = 2.5, opacity: float = 1.0) -> None:
        """A dot at each point."""
        for a, b in zip(*self._at(xs, ys), strict=True):
            if math.isfinite(a) and math.isfinite(b):
                self._add(
                    '<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="{}" fill-opacity="{:.2g}"/>',
                    css, a, b, radius, opacity,
                )  # fmt: skip

    def box(self, left: float, right: float, low: float, high: float, css: str, opacity: float = 1.0) -> None:
        """A filled rectangle."""
        (a, c), (b, d) = self._at([left, right], [low, high])
        self._add(
            '<rect class="fill {}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" fill-opacity="{:.3g}"/>',
            css, min(a, c), min(b, d), abs(c - a), abs(d - b), opacity,
        )  # fmt: skip

    def rule(self, x0: float, y0: float, x1: float, y1: float, css: str = "guide") -> None:
        """A straight line that guides the eye."""
        (a, c), (b, d) = self._at([x0, x1], [y0, y1])
        self._add('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>', css, a, b, c, d)

    def write(self, x: float, y: float, says: str, *, anchor: str = "start", up: float = 0.0) -> None:
        """A short text at a point."""
        (a,), (b,) = self._at([x], [y])
        self._add('<text class="note" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>', a, b - up, anchor, says)

    def svg(self) -> Markup:
        """The whole picture."""
        height = self._top + self._tall + self._bottom
        floor, parts = self._top + self._tall, list(self._frame())
        return (
            Markup('<svg class="chart" viewBox="0 0 {} {:.0f}" role="img" aria-label="{}">').format(
                self.WIDTH, height, self.alt
            )
            + Markup("").join([*parts, *self._parts])
            + Markup('<text class="label" x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text>').format(
                self._left + self._wide / 2, floor + 33, _short(self.x.label)
            )
            + Markup('<text class="label" x="2" y="12">{}</text></svg>').format(_short(self.y.label))
        )

    def _frame(self) -> list[Markup]:
        right, floor = self._left + self._wide, self._top + self._tall
        parts = []
        for value, says in self._yticks:
            y = floor - float(self.y.place(value)) * self._tall
            parts.append(
                Markup(
                    '<line class="grid" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>'
                    '<text class="tick" x="{:.1f}" y="{:.1f}" text-anchor="end">{}</text>'
                ).format(self._left, y, right, y, self._left - 6, y + 4, says)
            )
        for value, says in self.x.ticks(6):
            x = self._left + float(self.x.place(value)) * self._wide
            parts.append(
                Markup(
                    '<line class="axis" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>'
                    '<text class="tick" x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text>'
                ).format(x, floor, x, floor + 4, x, floor + 17, says)
            )
        parts.append(
            Markup('<line class="axis" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(
                self._left, floor, right, floor
            )
        )
        return parts

    def _at(self, xs: Numbers, ys: Numbers) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Points in the picture; what lies outside of the axes is kept at their edge."""
        across, up = self.x.place(xs), self.y.place(ys)
        return self._left + across.clip(0, 1) * self._wide, self._top + (1 - up.clip(0, 1)) * self._tall

    def _add(self, form: str, *values: object) -> None:
        self._parts.append(Markup(form).format(*values))


def bar(value: float, spread: float, low: float, high: float) -> Markup:
    """A small bar from 0 with a whisker of ± ``spread``, for a cell of a table that says the numbers beside it.

    Args:
        value: How long.
        spread: Half the whisker.
        low: The least that the cell shows, at most 0.
        high: The most, at least 0.
    """
    width, span = 160.0, (high - low) or 1.0

    def at(number_: float) -> float:
        return float(np.clip((number_ - low) / span, 0, 1)) * width

    zero, end = at(0.0), at(value)
    return Markup(
        '<svg class="bar" viewBox="0 0 160 16" aria-hidden="true" preserveAspectRatio="none">'
        '<rect class="fill s0" x="{:.1f}" y="3" width="{:.1f}" height="10" fill-opacity="0.75"/>'
        '<line class="whisker" x1="{:.1f}" y1="8" x2="{:.1f}" y2="8"/>'
        '<line class="axis" x1="{:.1f}" y1="0" x2="{:.1f}" y2="16"/></svg>'
    ).format(min(zero, end), abs(end - zero), at(value - spread), at(value + spread), zero, zero)


def _short(label: str, most: int = 44) -> Markup:
    return escape(label if len(label) <= most else f"{label[: most - 1]}…")


def describe(name: str, values: Numbers) -> str:
    """A line in words: from where to where it goes."""
    finite = [float(value) for value in values if math.isfinite(value)]
    if not finite:
        return f"{name} has no finite value"
    return f"{name} from {number(finite[0])} to {number(finite[-1])}"
