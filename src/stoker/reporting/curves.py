"""A training as a picture: losses, metrics and learning rate by epoch."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stoker.errors import DataError, UnknownNameError
from stoker.metrics.registry import direction
from stoker.reporting.canvas import (
    BLUE,
    INK,
    METRIC_COLOURS,
    MUTED,
    VERMILLION,
    dress,
    fitted,
    new_figure,
    number,
    shifted,
    text,
    width_of,
    write_heading,
    write_png,
)
from stoker.reporting.lettering import Lettering

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["learning_curves"]

_ERRORS = ("rmse", "mae")  # both in the target's unit; the squared error is in that of no other metric
_SPELT = {"mse": "MSE", "rmse": "RMSE", "mae": "MAE", "r2": "R²", "f1": "F1", "auroc": "AUROC"}
_MOST_PANELS = 8
_MOST_LINES = 6
_FONT = 9


@dataclass(frozen=True)
class _Line:
    name: str
    epochs: np.ndarray[Any, Any]
    values: np.ndarray[Any, Any]
    colour: str

    def at(self, epoch: float) -> tuple[float, float]:
        """The point of that epoch; the last one before it if there is none."""
        index = max(0, int(np.searchsorted(self.epochs, epoch, side="right")) - 1)
        return float(self.epochs[index]), float(self.values[index])

    def label(self, epoch: float) -> tuple[str, list[str]]:
        """The line's name with its value at that epoch, and the fonts to write it with."""
        lettering = Lettering.line(self.name, 22)
        return f"{lettering.names[0]} {number(self.at(epoch)[1])}".strip(), lettering.fonts


@dataclass(frozen=True)
class _Panel:
    title: str
    lines: list[_Line]
    log: bool = False
    loss: bool = False
    shares: bool = False

    @property
    def least(self) -> float:
        """The smallest range to show: a hundredth of a share is as good as nothing."""
        return 0.02 if self.shares else 0.0


def learning_curves(
    history: Sequence[Mapping[str, float]], path: Path | str, *, best_epoch: int | None = None, title: str = ""
) -> Path:
    """Draw losses, validation metrics and the learning rate by epoch.

    Losses that span more than a decade are on a logarithmic axis. The dots, and the numbers beside them, are of the
    best epoch if there is one, otherwise of the last. A metric that equals the validation loss is not drawn again, nor
    a learning rate that never changed.

    Args:
        history: A row per epoch: ``epoch``, ``train_loss``; where there is a validation split also ``valid_loss`` and
            ``valid_<metric>``; ``lr``. Values that are missing, None or not finite leave a gap.
        path: The PNG file to write.
        best_epoch: The epoch whose weights were kept.
        title: Above the picture.

    Returns:
        The path.

    Raises:
        DataError: There is no row, a row has no ``epoch``, or no loss is finite.
        ConfigError: The path cannot be written to.
        DiskFullError: There is no room.
    """
    if not len(history):
        raise DataError("history", "must have at least one row", "none", "No epoch was finished.")
    epochs = _column(history, "epoch")
    if not np.isfinite(epochs).all():
        row = int(np.flatnonzero(~np.isfinite(epochs))[0])
        raise DataError(f"history, row {row}", "must have a number as its epoch", repr(history[row].get("epoch")))
    order = np.argsort(epochs, kind="stable")
    history, epochs = [history[index] for index in order], epochs[order]
    main = _loss_panel(history, epochs)
    panels = [*_metric_panels(history, epochs), *_rate_panel(history, epochs)]
    left_out = max(0, len(panels) - _MOST_PANELS)
    panels = panels[:_MOST_PANELS]
    dot = float(epochs[-1] if best_epoch is None else best_epoch)

    # All in inches from here on, from the left and from the bottom.
    figure = new_figure(1, 1)
    rows = min(len(panels), 3 if len(panels) == 3 or len(panels) > 4 else 2)
    columns = [panels[start : start + rows] for start in range(0, len(panels), rows)] if rows else []
    height = 5.2 if rows == 3 else 4.5
    top, bottom, gap = 0.95 if title else 0.68, 0.42, 0.58
    edge = 0.6 + 5.4
    places = [(main, 0.6, 5.4, bottom, height - top - bottom)]
    edge += _label_width(figure, [main], dot)
    for column in columns:
        left = edge + 0.75
        tall = (height - top - bottom - gap * (rows - 1)) / rows
        for row, panel in enumerate(column):
            places.append((panel, left, 2.5, bottom + (rows - 1 - row) * (tall + gap), tall))
        edge = left + 2.5 + _label_width(figure, column, dot)
    width = edge + 0.25
    figure.set_size_inches(width, height)
    for panel, left, wide, low, tall in places:
        axes = figure.add_axes((left / width, low / height, wide / width, tall / height))
        _draw(axes, panel, epochs, dot, best=best_epoch is not None and len(epochs) > 1)

    says = _says(epochs, best_epoch)
    if lost := int(sum(not np.isfinite(row["train_loss"]) for row in history if row.get("train_loss") is not None)):
        says += f"; {lost} epoch{'s' if lost > 1 else ''} without a finite loss"
    if left_out:
        says += f"; {left_out} more columns of the history are not drawn"
    write_heading(figure, title, says)
    return write_png(figure, path)


def _says(epochs: np.ndarray[Any, Any], best_epoch: int | None) -> str:
    if len(epochs) == 1:
        return f"Epoch {epochs[0]:,.0f}, the only one"
    if best_epoch is None:
        return f"Dots and numbers: the last epoch, {epochs[-1]:,.0f}"
    return f"Dots and numbers: the best epoch, {best_epoch:,} of {epochs[-1]:,.0f}"


def _label_width(figure: Figure, panels: list[_Panel], dot: float) -> float:
    labels = [line.label(dot) for panel in panels for line in panel.lines]
    return 0.12 + max(width_of(figure, label, fontsize=_FONT, fontfamily=fonts) for label, fonts in labels)


def _column(history: Sequence[Mapping[str, float]], name: str) -> np.ndarray[Any, Any]:
    values = [row.get(name) for row in history]
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def _line(
    history: Sequence[Mapping[str, float]], epochs: np.ndarray[Any, Any], key: str, name: str, colour: str
) -> list[_Line]:
    values = _column(history, key)
    finite = np.isfinite(values)
    return [_Line(name, epochs[finite], values[finite], colour)] if finite.any() else []


def _loss_panel(history: Sequence[Mapping[str, float]], epochs: np.ndarray[Any, Any]) -> _Panel:
    lines = [
        *_line(history, epochs, "train_loss", "train", BLUE),
        *_line(history, epochs, "valid_loss", "valid", VERMILLION),
    ]
    if not lines:
        raise DataError("history", "must have a finite train_loss or valid_loss", "none")
    log = _spans_a_decade(lines)
    return _Panel("Loss, on a log scale" if log else "Loss", lines, log, loss=True)


def _rate_panel(history: Sequence[Mapping[str, float]], epochs: np.ndarray[Any, Any]) -> list[_Panel]:
    lines = _line(history, epochs, "lr", "", MUTED)
    if not lines or np.ptp(lines[0].values) == 0:
        return []
    log = _spans_a_decade(lines)
    return [_Panel("Learning rate, on a log scale" if log else "Learning rate", lines, log)]


def _spans_a_decade(lines: list[_Line]) -> bool:
    values = np.concatenate([line.values for line in lines])
    return bool(values.min() > 0 and values.max() / values.min() > 10)


def _metric_panels(history: Sequence[Mapping[str, float]], epochs: np.ndarray[Any, Any]) -> list[_Panel]:
    """The metrics on the validation split: shares of one together, errors in one unit together, each other alone."""
    loss = _column(history, "valid_loss")
    shares: list[str] = []
    errors: list[str] = []
    others: list[list[str]] = []
    for key in dict.fromkeys(key for row in history for key in row if key.startswith("valid_")):
        values, name = _column(history, key), key.removeprefix("valid_")
        finite = values[np.isfinite(values)]
        if name == "loss" or not len(finite) or np.allclose(values, loss, rtol=1e-5, atol=0, equal_nan=True):
            continue
        if name in _ERRORS:
            errors.append(name)
        elif finite.min() >= 0 and finite.max() <= 1 and _larger_is_better(name):
            shares.append(name)
        else:
            others.append([name])
    groups = [("scores", names) for names in _chunks(shares)]
    groups += [("errors", names) for names in _chunks(errors)]
    groups += [("", names) for names in others]
    panels = []
    for heading, names in groups:
        lines = [
            line
            for name, colour in zip(names, METRIC_COLOURS, strict=False)
            for line in _line(history, epochs, f"valid_{name}", _spelt(name) if len(names) > 1 else "", colour)
        ]
        title = f"Validation {heading if len(names) > 1 else _spelt(names[0])}"
        panels.append(_Panel(title, lines, shares=heading == "scores"))
    return panels


def _larger_is_better(name: str) -> bool:
    try:
        return direction(name) == "max"
    except UnknownNameError:  # the user's own; a share as likely as not
        return True


def _spelt(name: str) -> str:
    return _SPELT.get(name) or re.sub(r"^top(\d+) ", r"top-\1 ", name.replace("_", " "))


def _chunks(names: list[str]) -> list[list[str]]:
    return [names[start : start + _MOST_LINES] for start in range(0, len(names), _MOST_LINES)]


def _draw(axes: Axes, panel: _Panel, epochs: np.ndarray[Any, Any], dot: float, *, best: bool) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    inches = (axes.bbox.width + 60) / axes.figure.dpi
    title = fitted(axes.figure, panel.title, inches, fontsize=10, fontweight="bold")
    dress(axes, title.names[0], fonts=title.fonts)
    if panel.log:
        axes.set_yscale("log")
    for line in panel.lines:
        axes.plot(
            line.epochs, line.values, color=line.colour, linestyle="-", linewidth=1.8 if len(epochs) <= 100 else 1.2,
            marker="o" if len(line.epochs) <= 12 else "", markersize=3.6, markeredgewidth=0,
            solid_capstyle="round", solid_joinstyle="round",
        )  # fmt: skip
    _limit(axes, panel, epochs)
    axes.xaxis.set_major_locator(
        MaxNLocator(nbins=8 if panel.loss else 5, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10])
    )
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}".replace("-", "−")))
    axes.yaxis.set_minor_locator(NullLocator())
    if panel.log:
        low, high = axes.get_ylim()
        decades = high / low > (1000 if panel.loss else 30)
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if decades else (1.0, 2.0, 5.0), numticks=9))
    else:
        axes.yaxis.set_major_locator(MaxNLocator(nbins=7 if axes.bbox.height > 400 else 4, steps=[1, 2, 2.5, 5, 10]))
    beyond = 2.7 * len(f"{epochs[-1]:,.0f}") + 3  # half of the last tick's number
    text(axes, 1, 0, "epoch", transform=shifted(axes, max(7, beyond), -6), color=MUTED, fontsize=8.5, va="top")
    if best:
        axes.axvline(dot, color=INK, linewidth=0.9, linestyle=(0, (2, 3)), alpha=0.55, zorder=1, marker="",
                     dash_capstyle="butt")  # fmt: skip
        if panel.loss:
            _mark_best(axes, panel.lines, dot)
    _label(axes, panel.lines, dot)


def _mark_best(axes: Axes, lines: list[_Line], best: float) -> None:
    """Write which epoch was the best beside its line, in the corner of the line that the curves leave free."""
    from matplotlib.patheffects import withStroke

    box, x = axes.bbox, float(axes.transData.transform((best, 1))[0])
    steps = np.arange(box.x0, box.x1, 4.0)
    curves = []
    for line in lines:
        points = axes.transData.transform(np.column_stack([line.epochs, line.values]))
        curves.append(np.interp(steps, points[:, 0], points[:, 1]))
    content = f"best: epoch {best:,.0f}"
    wide, tall = width_of(axes.figure, content, fontsize=_FONT) * axes.figure.dpi + 24, 40

    def crossed(place: tuple[bool, bool]) -> tuple[int, bool]:
        right, top = place
        under = (steps > (x if right else x - wide)) & (steps < (x + wide if right else x))
        near = [curve > box.y1 - tall if top else curve < box.y0 + tall for curve in curves]
        beyond = x + wide > box.x1 if right else x - wide < box.x0
        return sum(int((under & close).sum()) for close in near), beyond

    # outside of the axes is worst, then over a curve; at the top right if nothing speaks against it
    places = [(True, True), (False, True), (True, False), (False, False)]
    right, top = min(places, key=lambda place: crossed(place)[::-1])
    moved = shifted(axes, 5 if right else -5, -4 if top else 4)
    halo = [withStroke(linewidth=3, foreground="white")]
    text(axes, (x - box.x0) / box.width, float(top), content, transform=moved, ha="left" if right else "right",
         va="top" if top else "bottom", path_effects=halo, zorder=5)  # fmt: skip


def _limit(axes: Axes, panel: _Panel, epochs: np.ndarray[Any, Any]) -> None:
    first, last = float(epochs[0]), float(epochs[-1])
    margin = 0.02 * (last - first) or 0.5
    axes.set_xlim(first - margin, last + margin)
    values = np.concatenate([line.values for line in panel.lines])
    low, high = float(values.min()), float(values.max())
    if panel.log:
        room = (high / low) ** 0.06
        axes.set_ylim(low / room, high * room)
        return
    outside = 0
    if not panel.loss:
        # A bad start (R² of -500 in the first epoch) would leave the rest a flat line.
        lower, upper = np.quantile(values, [0.25, 0.75])
        reach = 6 * float(upper - lower)
        inner = max(low, lower - reach), min(high, upper + reach)
        if reach and high - low > 5 * (inner[1] - inner[0]):
            low, high = inner
            outside = int(((values < low) | (values > high)).sum())
    # What hardly moves should look so, and a single epoch has no range of its own.
    least = max(panel.least, (0.25 if first == last else 1e-3) * max(abs(low), abs(high))) or 1.0
    if (lack := least - (high - low)) > 0:
        low, high = low - lack / 2, high + lack / 2
        if panel.shares and high > 1:
            low, high = low - (high - 1), 1.0
    room = 0.06 * (high - low)
    axes.set_ylim(low - room, high + room)
    if outside:
        farthest = float(values[np.abs(values - (low + high) / 2).argmax()])
        below = farthest < low
        note = f"{outside:,} off the scale, {'down' if below else 'up'} to {number(farthest)}"
        text(
            axes,
            0.96,
            0.05 if below else 0.95,
            note,
            color=MUTED,
            fontsize=8,
            ha="right",
            va="bottom" if below else "top",
        )


def _label(axes: Axes, lines: list[_Line], dot: float) -> None:
    """Name each line at its end, with its value at the dot; names that would touch move apart."""
    ends = []
    for line in lines:
        x, y = line.at(dot)
        low, high = axes.get_ylim()
        if low <= y <= high:
            axes.plot([x], [y], marker="o", markersize=6.5, color=line.colour, markeredgecolor="white",
                      markeredgewidth=1.2, linestyle="", zorder=4, clip_on=False)  # fmt: skip
        end = axes.transData.transform((line.epochs[-1], line.values[-1]))[1]
        ends.append(float(np.clip((end - axes.bbox.y0) / axes.bbox.height, 0, 1)))
    spacing = 1.45 * _FONT / 72 * axes.figure.dpi / axes.bbox.height
    for line, height in zip(lines, _apart(ends, spacing), strict=True):
        label, fonts = line.label(dot)
        text(axes, 1, height, label, transform=shifted(axes, 7, 0), color=line.colour, fontsize=_FONT, va="center",
             fontfamily=fonts)  # fmt: skip


def _apart(heights: list[float], spacing: float) -> list[float]:
    """Move heights between 0 and 1 as little as need be for each to be ``spacing`` from the next."""
    order = np.argsort(heights, kind="stable")
    placed = np.asarray(heights, dtype=float)[order]
    if not len(placed):
        return []
    # Least squares over sorted heights with a least distance: pool neighbours that overlap around their mean.
    pools = [[height, 1.0] for height in placed - spacing * np.arange(len(placed))]
    merged: list[list[float]] = []
    for pool in pools:
        merged.append(pool)
        while len(merged) > 1 and merged[-2][0] > merged[-1][0]:
            (mean, count), (other, more) = merged[-2:]
            merged[-2:] = [[(mean * count + other * more) / (count + more), count + more]]
    level = np.concatenate([np.full(int(count), mean) for mean, count in merged])
    room = max(0.0, 1 - spacing * (len(placed) - 1))
    result = np.empty(len(placed))
    result[order] = np.clip(level, 0, room) + spacing * np.arange(len(placed))
    return [float(height) for height in result]
