"""A learning-rate range test as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stoker.errors import DataError
from stoker.reporting.canvas import (
    BLUE,
    INK,
    dress,
    new_figure,
    number,
    shifted,
    text,
    width_of,
    write_heading,
    write_png,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["lr_curve"]

_PALE = "#9cc4de"  # of each batch's loss: there, but behind the smoothed one
_WIDTH, _HEIGHT = 6.9, 4.3
_LEFT, _RIGHT, _BOTTOM = 0.72, 0.3, 0.62


def lr_curve(
    lrs: Sequence[float],
    losses: Sequence[float],
    smoothed: Sequence[float],
    path: Path | str,
    *,
    suggestion: float,
    title: str = "",
) -> Path:
    """Draw the loss by the learning rate, which is on a logarithmic axis, and mark the suggested one.

    Where the loss climbs in the end it leaves the picture, so that its fall can be seen.

    Args:
        lrs: Of each step, ascending, above 0.
        losses: Of each step's batch.
        smoothed: The same smoothed.
        path: The PNG file to write.
        suggestion: The rate to mark.
        title: Above the picture.

    Returns:
        The path.

    Raises:
        DataError: There are fewer than two steps, the lengths differ, a rate is not above 0, or a loss is not finite.
        ConfigError: The path cannot be written to.
        DiskFullError: There is no room.
    """
    rates, raw, smooth = (np.asarray(values, dtype=np.float64) for values in (lrs, losses, smoothed))
    if not len(rates) == len(raw) == len(smooth):
        got = f"{len(rates)} rates, {len(raw)} losses, {len(smooth)} smoothed ones"
        raise DataError("lr_curve", "must be of one length", got)
    if len(rates) < 2:
        raise DataError("lr_curve", "must have at least two steps", len(rates))
    if (
        not (rates > 0).all()
        or not suggestion > 0
        or not all(np.isfinite(values).all() for values in (rates, raw, smooth))
    ):
        raise DataError("lr_curve", "must be finite, and the rates above 0", "others")

    figure = new_figure(_WIDTH, _HEIGHT)
    top = 0.95 if title else 0.68
    sides = _LEFT / _WIDTH, _BOTTOM / _HEIGHT, 1 - (_LEFT + _RIGHT) / _WIDTH, 1 - (_BOTTOM + top) / _HEIGHT
    axes = figure.add_axes(sides)
    dress(axes, "Loss", grid="both")
    axes.set_xscale("log")
    line: dict[str, Any] = {"linestyle": "-", "marker": "", "solid_capstyle": "round", "solid_joinstyle": "round"}
    axes.plot(rates, raw, color=_PALE, linewidth=1, zorder=2, **line)
    axes.plot(rates, smooth, color=BLUE, linewidth=2, zorder=3, **line)
    _limit(axes, rates, raw, smooth, suggestion)
    _scale(axes)
    _name_lines(axes)
    _mark(axes, rates, smooth, suggestion)
    text(axes, 0.5, 0, "learning rate, on a log scale", transform=shifted(axes, 0, -22), ha="center", va="top")
    write_heading(figure, title, f"{len(rates):,} steps with a growing rate; suggested: {number(suggestion)}")
    return write_png(figure, path)


def _limit(
    axes: Axes, rates: np.ndarray[Any, Any], raw: np.ndarray[Any, Any], smooth: np.ndarray[Any, Any], suggestion: float
) -> None:
    """Show all of the fall, and of the climb after it no more than is as high as what was before."""
    low, high = min(float(rates[0]), suggestion), max(float(rates[-1]), suggestion)
    span = (high / low) ** 0.02
    axes.set_xlim(low / span, high * span)
    lowest = int(smooth.argmin())
    falling = raw[: lowest + 1]
    low = min(float(smooth.min()), float(falling.min()))
    high = max(float(smooth[: lowest + 1].max()), float(np.quantile(falling, 0.98)))
    room = 0.12 * (high - low) or 0.1 * abs(high) or 1.0
    axes.set_ylim(low - room, high + room)


def _scale(axes: Axes) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    low, high = (math.log10(limit) for limit in axes.get_xlim())
    decades = range(math.ceil(low), math.floor(high) + 1)
    every = math.ceil(len(decades) / 10) if len(decades) else 1
    within = (1, 2, 5) if len(decades) < 3 else (1,)
    ticks = [first * 10.0**decade for decade in range(math.floor(low), math.floor(high) + 1) for first in within]
    axes.xaxis.set_major_locator(FixedLocator(ticks[::every]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _rate(value)))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}".replace("-", "−")))


def _rate(value: float) -> str:
    return f"{value:g}" if value >= 1e-3 else f"{value:.0e}".replace("e-0", "e−").replace("e-", "e−")


def _name_lines(axes: Axes) -> None:
    """Name the lines above the axes, where no curve comes."""
    right = 0.0
    for name, colour in (("each batch", "#5f9dc4"), ("smoothed", BLUE)):
        text(axes, 1, 1, name, transform=shifted(axes, -72 * right, 6), color=colour, ha="right", va="bottom")
        right += width_of(axes.figure, name) + 0.15


def _mark(axes: Axes, rates: np.ndarray[Any, Any], smooth: np.ndarray[Any, Any], suggestion: float) -> None:
    """A dot on the curve, a line through it, and the rate beside the line, near the axis, on the side with room."""
    from matplotlib.patheffects import withStroke

    at = float(np.interp(np.log(suggestion), np.log(rates), smooth))
    axes.axvline(suggestion, color=INK, linewidth=0.9, linestyle=(0, (2, 3)), alpha=0.55, zorder=1, marker="",
                 dash_capstyle="butt")  # fmt: skip
    axes.plot([suggestion], [at], marker="o", markersize=7, color=BLUE, markeredgecolor="white", markeredgewidth=1.2,
              linestyle="", zorder=4)  # fmt: skip
    content = f"suggested: {number(suggestion)}"
    x = float(axes.transData.transform((suggestion, at))[0])
    wide = width_of(axes.figure, content) * axes.figure.dpi + 12
    left = x - wide > axes.bbox.x0  # the curve is high there, since it has not fallen yet
    moved = shifted(axes, -5 if left else 5, 5)
    text(axes, (x - axes.bbox.x0) / axes.bbox.width, 0, content, transform=moved, ha="right" if left else "left",
         va="bottom", path_effects=[withStroke(linewidth=3, foreground="white")], zorder=5)  # fmt: skip
