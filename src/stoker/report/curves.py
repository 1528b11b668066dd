"""A training as a picture: losses, metrics and learning rate by epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stoker.errors import DataError
from stoker.report.canvas import BLUE, INK, METRIC_COLOURS, MUTED, VERMILLION, Lettering, dress, new_figure, number, text, write_png  # fmt: skip

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["learning_curves"]

# Metrics in the target's unit, and the squared one, which belongs to no other.
_ERRORS = ("rmse", "mae")
_MOST_PANELS = 8
_MOST_LINES = 6


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


@dataclass(frozen=True)
class _Panel:
    title: str
    lines: list[_Line]
    log: bool = False
    unit: bool = False


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
    loss = _loss_panel(history, epochs)
    panels = [*_metric_panels(history, epochs), *_rate_panel(history, epochs)]
    left_out = max(0, len(panels) - _MOST_PANELS)
    panels = panels[:_MOST_PANELS]
    dot = float(epochs[-1] if best_epoch is None else best_epoch)

    rows = 0 if not panels else min(len(panels), 3 if len(panels) % 2 else 2)
    columns = math.ceil(len(panels) / rows) if panels else 0
    height = 4.6 if rows < 3 else 5.4
    top = 0.98 if title else 0.68
    figure = new_figure(7.4 + 4.1 * columns, height)
    width, height = figure.get_size_inches()

    def place(left: float, bottom: float, wide: float, tall: float) -> Axes:
        return figure.add_axes((left / width, bottom / height, wide / width, tall / height))

    body = height - top - 0.55
    _draw(place(0.6, 0.55, 5.6, body), loss, epochs, dot, best=best_epoch is not None, bottom=True)
    gap = 0.62
    for index, panel in enumerate(panels):
        column, row = divmod(index, rows)
        tall = (body - gap * (rows - 1)) / rows
        axes = place(7.85 + 4.1 * column, 0.55 + (rows - 1 - row) * (tall + gap), 2.4, tall)
        last = row == rows - 1 or index == len(panels) - 1
        _draw(axes, panel, epochs, dot, best=best_epoch is not None, bottom=last)
    count = f"{epochs[-1]:,.0f}"
    says = (
        f"Numbers and dots: the last epoch, {count}"
        if best_epoch is None
        else f"Numbers and dots: the best epoch, {best_epoch:,} of {count}"
    )
    text(figure, 0.22 / width, 1 - (0.46 if title else 0.2) / height, says, fontsize=9, color=MUTED, va="top")
    if title:
        heading = Lettering.of([title], 120)
        text(figure, 0.22 / width, 1 - 0.2 / height, heading.names[0], fontsize=12.5, fontweight="bold", va="top",
             fontfamily=heading.fonts)  # fmt: skip
    if left_out:
        text(figure, 1 - 0.15 / width, 0.08 / height, f"{left_out} more in the history", fontsize=8, color=MUTED, ha="right")  # fmt: skip
    return write_png(figure, path)


def _column(history: Sequence[Mapping[str, float]], name: str) -> np.ndarray[Any, Any]:
    values = [row.get(name) for row in history]
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def _line(history: Sequence[Mapping[str, float]], epochs: np.ndarray[Any, Any], key: str, name: str, colour: str) -> list[_Line]:  # fmt: skip
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
    values = np.concatenate([line.values for line in lines])
    log = bool(values.min() > 0 and values.max() / values.min() > 10)
    return _Panel("Loss, on a log scale" if log else "Loss", lines, log)


def _metric_panels(history: Sequence[Mapping[str, float]], epochs: np.ndarray[Any, Any]) -> list[_Panel]:
    keys = dict.fromkeys(key for row in history for key in row if key.startswith("valid_") and key != "valid_loss")
    loss = _column(history, "valid_loss")
    shares: list[str] = []
    errors: list[str] = []
    others: list[str] = []
    for key in keys:
        values = _column(history, key)
        finite = values[np.isfinite(values)]
        if not len(finite) or np.allclose(values, loss, rtol=1e-5, atol=0, equal_nan=True):
            continue
        name = key.removeprefix("valid_")
        if name in _ERRORS:
            errors.append(key)
        elif 0 <= finite.min() and finite.max() <= 1 and not _is_an_error(name):
            shares.append(key)
        else:
            others.append(key)
    grouped = [(keys, True) for keys in _chunks(shares)] + [(keys, False) for keys in _chunks(errors)]
    grouped += [([key], False) for key in others]
    panels = []
    for keys_of_panel, unit in grouped:
        names = Lettering.of((key.removeprefix("valid_").replace("_", " ") for key in keys_of_panel), 22).names
        lines = [
            line
            for key, name, colour in zip(keys_of_panel, names, METRIC_COLOURS, strict=False)
            for line in _line(history, epochs, key, name, colour)
        ]
        heading = "Validation metrics" if len(lines) > 1 else f"Validation {lines[0].name}"
        panels.append(_Panel(heading, lines, unit=unit))
    return panels


def _is_an_error(name: str) -> bool:
    from stoker.errors import UnknownNameError
    from stoker.metrics.registry import direction

    try:
        return direction(name) == "min"
    except UnknownNameError:
        return False


def _chunks(keys: list[str]) -> list[list[str]]:
    return [keys[start : start + _MOST_LINES] for start in range(0, len(keys), _MOST_LINES)]


def _rate_panel(history: Sequence[Mapping[str, float]], epochs: np.ndarray[Any, Any]) -> list[_Panel]:
    lines = _line(history, epochs, "lr", "", MUTED)
    if not lines or np.ptp(lines[0].values) == 0:
        return []
    values = lines[0].values
    log = bool(values.min() > 0 and values.max() / values.min() > 10)
    return [_Panel("Learning rate, on a log scale" if log else "Learning rate", lines, log)]


def _draw(axes: Axes, panel: _Panel, epochs: np.ndarray[Any, Any], dot: float, *, best: bool, bottom: bool) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    dress(axes, panel.title)
    if panel.log:
        axes.set_yscale("log")
    for line in panel.lines:
        few = len(line.epochs) <= 12
        axes.plot(
            line.epochs, line.values, color=line.colour, linewidth=1.8, linestyle="-", marker="o" if few else "",
            markersize=3.6, markeredgewidth=0, solid_capstyle="round", solid_joinstyle="round",
        )  # fmt: skip
    _limit(axes, panel, epochs)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True, min_n_ticks=1))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}".replace("-", "−")))
    axes.yaxis.set_minor_locator(NullLocator())
    if panel.log:
        low, high = axes.get_ylim()
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if high / low > 1000 else (1.0, 2.0, 5.0), numticks=9))
    else:
        axes.yaxis.set_major_locator(MaxNLocator(nbins=7 if axes.bbox.height > 400 else 4))
    axes.tick_params(labelbottom=bottom)
    if bottom:
        text(axes, 1, 0, "epoch", transform=_below(axes), color=MUTED, fontsize=8.5, ha="right", va="top")
    if best:
        axes.axvline(dot, color=INK, linewidth=0.9, linestyle=(0, (2, 3)), alpha=0.55, zorder=1)
    _label(axes, panel.lines, dot)


def _limit(axes: Axes, panel: _Panel, epochs: np.ndarray[Any, Any]) -> None:
    first, last = float(epochs[0]), float(epochs[-1])
    margin = 0.02 * (last - first) or 0.5
    axes.set_xlim(first - margin, last + margin)
    values = np.concatenate([line.values for line in panel.lines])
    low, high = float(values.min()), float(values.max())
    if panel.log:
        room = (high / low) ** 0.06 if high > low else 2.0
        axes.set_ylim(low / room, high * room)
        return
    outside = 0
    if not panel.title.startswith("Loss") and len(values) >= 10:
        # A bad start (R² of -500 in the first epoch) would leave the rest a flat line.
        tenth, ninetieth = np.quantile(values, [0.1, 0.9])
        reach = 3 * (ninetieth - tenth)
        if reach > 0:
            low, high = max(low, float(tenth - reach)), min(high, float(ninetieth + reach))
            outside = int(((values < low) | (values > high)).sum())
    # lines that hardly move should look so
    least = 0.01 if panel.unit else 1e-3 * max(abs(low), abs(high)) or 1.0
    lack = max(0.0, least - (high - low)) / 2
    room = 0.06 * (high - low + 2 * lack)
    axes.set_ylim(low - lack - room, high + lack + room)
    if outside:
        extreme = number(float(values[np.abs(values - (low + high) / 2).argmax()]))
        note = f"{outside} off the scale, to {extreme}"
        text(axes, 0.98, 0.03, note, color=MUTED, fontsize=8, ha="right", va="bottom")


def _label(axes: Axes, lines: list[_Line], dot: float) -> None:
    """Name each line at its end, with its value at the dot; names that would touch move apart."""
    wanted = []
    for line in lines:
        x, y = line.at(dot)
        axes.plot([x], [y], marker="o", markersize=6.5, color=line.colour, markeredgecolor="white", markeredgewidth=1.2,
                  linestyle="", zorder=4, clip_on=False)  # fmt: skip
        end = axes.transData.transform((line.epochs[-1], line.values[-1]))[1]
        wanted.append((float(np.clip(end, axes.bbox.y0, axes.bbox.y1)), line, y))
    spacing = 13.5 / 72 * axes.figure.dpi
    heights = _apart([height for height, _, _ in wanted], spacing, axes.bbox.y0, axes.bbox.y1)
    for height, (_, line, value) in zip(heights, wanted, strict=True):
        y = (height - axes.bbox.y0) / axes.bbox.height
        name = Lettering.of([line.name], 22)
        content = f"{name.names[0]} {number(value)}" if line.name else number(value)
        text(axes, 1, y, content, transform=_beside(axes), color=line.colour, fontsize=9, va="center",
             fontfamily=name.fonts)  # fmt: skip


def _apart(heights: list[float], spacing: float, low: float, high: float) -> list[float]:
    """Move heights as little as need be, so that each is ``spacing`` from the next, and within bounds if they fit."""
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    placed = [heights[index] for index in order]
    for _ in range(50):
        for lower in range(len(placed) - 1):
            overlap = spacing - (placed[lower + 1] - placed[lower])
            if overlap > 0:
                placed[lower] -= overlap / 2
                placed[lower + 1] += overlap / 2
        if placed and spacing * (len(placed) - 1) <= high - low:
            placed = [height + max(0.0, low - placed[0]) for height in placed] if placed[0] < low else placed
            placed = [height - max(0.0, placed[-1] - high) for height in placed] if placed[-1] > high else placed
    result = [0.0] * len(heights)
    for index, height in zip(order, placed, strict=True):
        result[index] = height
    return result


def _beside(axes: Axes) -> Any:
    from matplotlib.transforms import ScaledTranslation

    return axes.transAxes + ScaledTranslation(7 / 72, 0, axes.figure.dpi_scale_trans)


def _below(axes: Axes) -> Any:
    from matplotlib.transforms import ScaledTranslation

    return axes.transAxes + ScaledTranslation(0, -18 / 72, axes.figure.dpi_scale_trans)
