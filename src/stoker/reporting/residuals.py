"""Predicted against true values, as a picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stoker.errors import DataError
from stoker.reporting.canvas import (
    BLUE,
    INK,
    MUTED,
    as_array,
    dress,
    fitted,
    new_figure,
    number,
    shifted,
    text,
    write_heading,
    write_png,
)
from stoker.reporting.lettering import Lettering

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["predicted_vs_true", "robust_range"]

_INFINITE = 1e100
_MOST_DOTS = 3000  # beyond that, dots hide one another and a density says more


def robust_range(values: np.ndarray[Any, Any], tail: float) -> tuple[float, float]:
    """The range to show of some numbers, such that a few far-off ones do not squash the rest.

    Args:
        values: Finite numbers, at least one.
        tail: The share of them on either side that may be far off.

    Returns:
        Their whole range, unless it is more than twice as wide as that of the values that are no farther from the
        quantiles ``tail`` and ``1 - tail`` than half of what lies between those; then the latter.
    """
    least, lower, upper, most = (float(edge) for edge in np.quantile(values, [0, tail, 1 - tail, 1]))
    reach = 0.5 * (upper - lower)
    near = values[(values >= lower - reach) & (values <= upper + reach)]
    low, high = float(near.min()), float(near.max())
    return (low, high) if high > low and most - least > 2 * (high - low) else (least, most)


def predicted_vs_true(target: Any, preds: Any, path: Path | str, *, name: str, title: str = "") -> Path:
    """Draw predictions against true values, and the errors' distribution.

    The nearer to the line, the better. Up to 3,000 rows each is a dot; beyond that the colour says how many there are.
    A few far-off values do not squash the picture: they are left outside, and counted there. R² and RMSE are of all
    rows.

    Args:
        target: The true values, shape ``[n]`` or ``[n, 1]``: tensor, array or sequence.
        preds: The predicted ones, likewise.
        path: The PNG file to write.
        name: What they are values of: the target column.
        title: Above the picture.

    Returns:
        The path.

    Raises:
        DataError: There are no rows, the shapes differ, there are several outputs, or no row is finite.
        ConfigError: The path cannot be written to.
        DiskFullError: There is no room.
    """
    true, predicted = _column("target", target), _column("preds", preds)
    if len(true) != len(predicted):
        raise DataError("preds", f"must have as many rows as the target, {len(true)}", len(predicted))
    if not len(true):
        raise DataError("target", "must have at least one row", "none", "The split is empty.")
    # Squares of what is beyond would not be finite either.
    finite = (np.abs(true) < _INFINITE) & (np.abs(predicted) < _INFINITE)
    if not finite.any():
        raise DataError("preds", "must have at least one row with finite values", "none")
    lost = int(len(finite) - finite.sum())
    true, predicted = true[finite], predicted[finite]

    # All in inches from here on, from the left and from the bottom.
    width, height = 9.6, 5.75 if title else 5.48
    left, bottom, side = 0.95, 0.6, 4.2
    figure = new_figure(width, height)
    shown = fitted(figure, name, 2.6)
    main = figure.add_axes((left / width, bottom / height, side / width, side / height))
    beside = figure.add_axes(((left + side + 0.75) / width, bottom / height, 3.35 / width, side / height))
    _draw_pairs(main, true, predicted, shown)
    _draw_errors(beside, predicted - true, shown)
    says = f"{len(true):,} {'row' if len(true) == 1 else 'rows'}"
    if lost:
        says += f"; {lost:,} more left out, whose values are not finite"
    write_heading(figure, title, says)
    return write_png(figure, path)


def _column(where: str, values: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    array = as_array(values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(where, "must be of shape [n] or [n, 1]", list(array.shape), "Draw one output at a time.")
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError):
        raise DataError(where, "must be numbers", array.dtype) from None


def _draw_pairs(axes: Axes, true: np.ndarray[Any, Any], predicted: np.ndarray[Any, Any], name: Lettering) -> None:
    # The true values say what is to be shown; wild predictions give way before they do.
    ranges = robust_range(true, 0.005), robust_range(predicted, 0.02)
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    room = 0.03 * (high - low) or 0.5 * abs(low) or 1.0
    low, high = low - room, high + room
    dress(axes, "Predicted against true", grid="both")
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    inside = (true >= low) & (true <= high) & (predicted >= low) & (predicted <= high)
    axes.plot([low, high], [low, high], color=INK, linewidth=1, linestyle="-", marker="", zorder=3, alpha=0.8,
              solid_capstyle="butt")  # fmt: skip
    if inside.sum() <= _MOST_DOTS:
        size = float(np.clip(80 / math.sqrt(max(1, inside.sum())), 2.4, 6))
        axes.plot(
            true[inside], predicted[inside], linestyle="", marker="o", markersize=size, markeredgewidth=0, color=BLUE,
            alpha=float(np.clip(12 / math.sqrt(max(1, inside.sum())), 0.35, 0.9)), zorder=2,
        )  # fmt: skip
    else:
        _draw_density(axes, true[inside], predicted[inside], (low, high))
    _scale(axes)
    what = name.names[0]
    text(axes, 0.5, 0, f"true {what}", transform=shifted(axes, 0, -22), ha="center", va="top", fontfamily=name.fonts)
    text(axes, 0, 0.5, f"predicted {what}", transform=shifted(axes, -62, 0), ha="left", va="center", rotation=90,
         fontfamily=name.fonts)  # fmt: skip
    _say_scores(axes, true, predicted, outside=int((~inside).sum()))


def _draw_density(
    axes: Axes, true: np.ndarray[Any, Any], predicted: np.ndarray[Any, Any], limits: tuple[float, float]
) -> None:
    from matplotlib.colors import LinearSegmentedColormap, LogNorm

    # From a blue that is seen on white to one that is nearly black: lightness alone tells the counts apart.
    colours = LinearSegmentedColormap.from_list("density", ["#c6dcec", "#6aaed6", BLUE, "#08306b", "#021a3a"])
    cells = axes.hexbin(
        true, predicted, gridsize=(56, 32), extent=(*limits, *limits), mincnt=1, cmap=colours, norm=LogNorm(),
        linewidths=0.15, edgecolors="face", zorder=2,
    )  # fmt: skip
    most = int(np.asarray(cells.get_array()).max())
    cells.set_norm(LogNorm(1, max(most, 2)))
    key = axes.inset_axes((0.6, 0.1, 0.34, 0.022), zorder=5)
    key.imshow(np.linspace(0, 1, 256)[None], aspect="auto", cmap=colours, interpolation="nearest")
    key.set_axis_off()
    small = {"fontsize": 8, "color": MUTED, "zorder": 6}
    text(axes, 0.6, 0.085, "1", va="top", ha="left", **small)
    text(axes, 0.77, 0.085, "rows", va="top", ha="center", **small)
    text(axes, 0.94, 0.085, f"{most:,}", va="top", ha="right", **small)


def _say_scores(axes: Axes, true: np.ndarray[Any, Any], predicted: np.ndarray[Any, Any], *, outside: int) -> None:
    errors = np.square(predicted - true)
    # compared by range: the mean of equal numbers is off by some last bits, and their spread then not 0
    score = number(1 - errors.sum() / np.square(true - true.mean()).sum()) if np.ptp(true) else "undefined"
    style: dict[str, Any] = {"va": "top", "path_effects": _halo(), "zorder": 6}
    for line, says in enumerate((f"R² {score}", f"RMSE {number(math.sqrt(errors.mean()))}")):
        text(axes, 0, 1, says, transform=shifted(axes, 9, -9 - 15 * line), fontsize=10, fontweight="bold", **style)
    if outside:
        says = f"{outside:,} {'row lies' if outside == 1 else 'rows lie'} outside"
        text(axes, 0, 1, says, transform=shifted(axes, 9, -40), fontsize=8.5, color=MUTED, **style)


def _halo() -> list[Any]:
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=3, foreground="white")]


def _draw_errors(axes: Axes, errors: np.ndarray[Any, Any], name: Lettering) -> None:
    low, high = robust_range(errors, 0.02)
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high:  # every prediction is right
        low, high = -1.0, 1.0
    inside = errors[(errors >= low) & (errors <= high)]
    heights, edges = np.histogram(inside, bins=_bins(inside, low, high), range=(low, high))
    dress(axes, "Error, predicted − true", grid="")
    axes.stairs(heights, edges, fill=True, color=BLUE, alpha=0.85, linewidth=0)
    axes.axvline(0, color=INK, linewidth=1, alpha=0.8, linestyle="-", marker="")
    axes.set_ylim(0, 1.16 * heights.max())
    room = 0.04 * (high - low)
    axes.set_xlim(low - room, high + room)
    _scale(axes, "x")
    axes.spines["left"].set_visible(False)
    axes.set_yticks([])
    axes.tick_params(left=False, labelleft=False)
    text(axes, 0.5, 0, f"error in {name.names[0]}", transform=shifted(axes, 0, -22), ha="center", va="top",
         fontfamily=name.fonts)  # fmt: skip
    says = [f"mean {number(float(errors.mean()))}", f"half within ±{number(float(np.median(np.abs(errors))))}"]
    if outside := len(errors) - len(inside):
        says.append(f"{outside:,} outside")
    text(axes, 1, 1, "\n".join(says), color=MUTED, fontsize=8.5, ha="right", va="top", linespacing=1.45,
         path_effects=_halo())  # fmt: skip


def _bins(errors: np.ndarray[Any, Any], low: float, high: float) -> int:
    """As many bins as Freedman and Diaconis would take, but neither too few to show a shape nor a comb."""
    lower, upper = np.quantile(errors, [0.25, 0.75])
    width = 2 * float(upper - lower) / len(errors) ** (1 / 3)
    most = 80 if len(errors) >= 1000 else 30
    return int(np.clip(math.ceil((high - low) / width), 5, most)) if width > 0 else 20


def _scale(axes: Axes, which: str = "both") -> None:
    from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator

    for letter, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
        if which not in ("both", letter):
            continue
        largest = max(abs(limit) for limit in (axes.get_xlim() if letter == "x" else axes.get_ylim()))
        wide = largest < 0.01 or largest >= 1e15  # to write
        axis.set_major_locator(MaxNLocator(nbins=4 if wide else 7, steps=[1, 2, 2.5, 5, 10]))
        if 1e5 <= largest < 1e15:
            axis.set_major_formatter(EngFormatter(sep=""))
        else:
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}".replace("-", "−")))
