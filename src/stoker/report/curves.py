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
    top = 0.85 if title else 0.45
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
        markers = {"marker": "o", "markersize": 3.5, "markeredgewidth": 0} if len(line.epochs) <= 12 else {"marker": ""}
        axes.plot(line.epochs, line.values, color=line.colour, linewidth=1.8, linestyle="-", solid_capstyle="round",
                  solid_joinstyle="round", **markers)  # fmt: skip
    _limits(axes, panel, epochs)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}".replace("-", "−")))
    axes.yaxis.set_minor_locator(NullLocator())
    low, high = axes.get_ylim()
    if panel.log:
        wide = high / low > 1000
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0), numticks=8))
    else:
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6 if axes.bbox.height > 300 else 4))
    if bottom:
        axes.set_xlabel("epoch", color=MUTED, fontsize=9, fontfamily=BASE, labelpad=3, usetex=False)
    else:
        axes.tick_params(labelbottom=False)
    if best:
        axes.axvline(dot, color=INK, linewidth=0.8, linestyle=(0, (3, 3)), alpha=0.6, zorder=1)
    _label_ends(axes, panel, dot)
    if best and panel.title.startswith("Loss"):
        _say_best(axes, panel, dot)
