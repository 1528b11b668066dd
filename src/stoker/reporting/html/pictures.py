"""The charts of a report, from plain numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from stoker.reporting.calibration import Calibration
from stoker.reporting.canvas import number
from stoker.reporting.html.chart import Axis, Chart, describe
from stoker.reporting.residuals import robust_range
from stoker.reporting.thresholds import Curve

__all__ = [
    "Key",
    "Picture",
    "calibration_chart",
    "curves_chart",
    "dots_chart",
    "epochs_chart",
    "errors_chart",
    "history_charts",
    "pairs_chart",
]

SERIES = 10  # colours in the page's style, s0 to s9
_MOST_DOTS = 1500
_MOST_EPOCHS = 400  # points of a line


@dataclass(frozen=True)
class Key:
    """An entry of a legend: the class of the line, and what it is."""

    css: str
    says: str


@dataclass(frozen=True)
class Picture:
    """A chart with what belongs to it.

    Attributes:
        title: Above it.
        svg: The chart.
        caption: Below it, what it shows.
        keys: The legend; empty for a single line.
    """

    title: str
    svg: Markup
    caption: str = ""
    keys: list[Key] = field(default_factory=list)


def epochs_chart(
    title: str, lines: Sequence[tuple[str, str, Sequence[float], Sequence[float]]], *, best: int | None = None
) -> Picture | None:
    """Values by epoch.

    Args:
        title: What is drawn.
        lines: A name, a class, epochs and values each.
        best: The epoch to mark.

    Returns:
        The picture; ``None`` if no value is finite.
    """
    lines = [line for line in lines if any(math.isfinite(value) for value in line[3])]
    if not lines:
        return None
    values = np.concatenate([np.asarray(line[3], np.float64) for line in lines])
    values = values[np.isfinite(values)]
    low, high = float(values.min()), float(values.max())
    log = low > 0 and high / low > 10
    if not log:
        low, high = robust_range(values, 0.02)
    room = (high / low) ** 0.05 if log else 0.05 * (high - low) or 0.05 * abs(high) or 0.5
    epochs = np.concatenate([np.asarray(line[2], np.float64) for line in lines])
    first, last = float(epochs.min()), float(epochs.max())
    alone = first == last
    x = Axis("epoch", first - 0.5, last + 0.5, whole=True) if alone else Axis("epoch", first, last, whole=True)
    y = Axis(
        "log scale" if log else "", low / room if log else low - room, high * room if log else high + room, log=log
    )
    says = "; ".join(describe(name, line) for name, _, _, line in lines[:8])
    marked = f" Epoch {best} is marked as the best." if best is not None and not alone else ""
    chart = Chart(f"{title} by epoch, {first:.0f} to {last:.0f}: {says}.{marked}", x, y)
    if best is not None and not alone:
        chart.rule(best, y.low, best, y.high)
        right = (best - first) / (last - first) > 0.6
        chart.write(best, y.high, f"epoch {best}" + (" " if right else ""), anchor="end" if right else "start", up=3)
    for _, css, xs, ys in lines:
        kept = np.unique(np.linspace(0, len(xs) - 1, min(len(xs), _MOST_EPOCHS)).astype(int))
        chart.line(np.asarray(xs, np.float64)[kept], np.asarray(ys, np.float64)[kept], css, dots=len(xs) <= 12)
    keys = [Key(css, name) for name, css, _, _ in lines] if len(lines) > 1 else []
    return Picture(title, chart.svg(), "", keys)


def history_charts(rows: Sequence[Mapping[str, float]], best: int | None) -> list[Picture]:
    """Losses, each metric on the validation split, and the learning rate if it changes.

    Args:
        rows: A row an epoch, as in ``history.csv``.
        best: The epoch whose weights were kept.
    """

    def column(name: str) -> list[float]:
        return [row.get(name, math.nan) for row in rows]

    epochs = column("epoch")
    losses = [
        (says, css, epochs, column(name))
        for says, css, name in (("train", "s0", "train_loss"), ("valid", "s1", "valid_loss"))
    ]
    found = [epochs_chart("Loss", losses, best=best)]
    names = dict.fromkeys(name for row in rows for name in row)
    for name in names:
        if name == "valid_mse" and "valid_rmse" in names:
            continue  # the same curve, squared
        if name.startswith("valid_") and name != "valid_loss":
            of = name.removeprefix("valid_")
            if not np.allclose(column(name), column("valid_loss"), rtol=1e-5, atol=0, equal_nan=True):
                title = f"{of}, validation split"
                found.append(epochs_chart(title, [(of, "s0", epochs, column(name))], best=best))
    if len(set(column("lr"))) > 1:
        found.append(epochs_chart("Learning rate", [("learning rate", "s0", epochs, column("lr"))]))
    return [picture for picture in found if picture is not None][:12]


def curves_chart(title: str, names: tuple[str, str], curves: Sequence[tuple[str, Curve]], area: str) -> Picture:
    """Curves in the unit square, such as ROC curves.

    Args:
        title: What they are.
        names: Of the axes.
        curves: A name and a curve each.
        area: What the area under one is called.
    """
    says = "; ".join(f"{name} {area} {number(curve.area)}" for name, curve in curves)
    chart = Chart(f"{title}: {says}.", Axis(names[0], 0, 1), Axis(names[1], 0, 1), square=True)
    roc = all(curve.base == 0.5 for _, curve in curves) and area == "AUROC"
    if roc:
        chart.rule(0, 0, 1, 1)
    elif len(curves) == 1:
        chart.rule(0, curves[0][1].base, 1, curves[0][1].base)
    for place, (_, curve) in enumerate(curves):
        chart.line(curve.x, curve.y, f"s{place % SERIES}")
    keys = [
        Key(f"s{place % SERIES}", f"{name}: {area} {number(curve.area)}") for place, (name, curve) in enumerate(curves)
    ]
    caption = "The dashed line is what guessing gives." if roc or len(curves) == 1 else ""
    return Picture(title, chart.svg(), caption, keys)


def calibration_chart(found: Sequence[tuple[str, str, Calibration]], binary: str | None) -> Picture:
    """Probabilities beside what came of them.

    Args:
        found: A name, a class and a calibration each.
        binary: The second of two classes; ``None`` if there are more.
    """
    said = f"probability of {binary}" if binary is not None else "confidence in the predicted class"
    came = "share of rows that are of it" if binary is not None else "share that is right"
    says = "; ".join(f"{name}, ECE {number(one.error)}" for name, _, one in found)
    chart = Chart(f"Calibration: {says}.", Axis(said, 0, 1), Axis(came, 0, 1), square=True)
    chart.rule(0, 0, 1, 1)
    for _, css, one in found:
        most = one.count.max()
        chart.line(one.mean, one.share, css)
        for x, y, count in zip(one.mean, one.share, one.count, strict=True):
            chart.dots([x], [y], css, round(2 + 5 * math.sqrt(count / most), 1), 0.55)
    caption = "On the dashed line probabilities are what they say. A dot is a bin; the larger, the more rows are in it."
    return Picture(
        "Calibration", chart.svg(), caption, [Key(css, f"{name}: ECE {number(one.error)}") for name, css, one in found]
    )


def pairs_chart(target: NDArray[np.float64], preds: NDArray[np.float64], name: str) -> Picture:
    """Predictions by true values: a dot each, or, of many, cells that are the darker, the more rows there are."""
    ranges = robust_range(target, 0.005), robust_range(preds, 0.02)
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    room = 0.03 * (high - low) or 0.5 * abs(low) or 1.0
    low, high = low - room, high + room
    inside = (target >= low) & (target <= high) & (preds >= low) & (preds <= high)
    chart = Chart(
        f"Predicted {name} by true {name}, {len(target):,} rows; the nearer to the diagonal, the better.",
        Axis(f"true {name}", low, high), Axis(f"predicted {name}", low, high), square=True,
    )  # fmt: skip
    true, said = target[inside], preds[inside]
    if len(true) <= _MOST_DOTS:
        chart.dots(true, said, "s0", 2.2, float(np.clip(12 / math.sqrt(max(1, len(true))), 0.35, 0.8)))
        how = "A dot is a row."
    else:
        counts, edges, _ = np.histogram2d(true, said, bins=44, range=((low, high), (low, high)))
        most = counts.max()
        for a, b in np.argwhere(counts):
            opacity = 0.12 + 0.88 * math.log1p(counts[a, b]) / math.log1p(most)
            chart.box(edges[a], edges[a + 1], edges[b], edges[b + 1], "s0", opacity)
        how = f"The darker a cell, the more rows: up to {most:,.0f}, on a log scale."
    chart.rule(low, low, high, high)
    outside = int((~inside).sum())
    more = f" {outside:,} row{'s lie' if outside > 1 else ' lies'} outside." if outside else ""
    return Picture("Predicted by true", chart.svg(), f"{how} On the dashed line predictions are right.{more}")


def errors_chart(errors: NDArray[np.float64], name: str) -> Picture:
    """How errors, predicted minus true, are distributed."""
    low, high = robust_range(errors, 0.02)
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        low, high = -1.0, 1.0
    inside = errors[(errors >= low) & (errors <= high)]
    bins = int(np.clip(math.sqrt(len(inside)), 8, 50))
    counts, edges = np.histogram(inside, bins=bins, range=(low, high))
    says = f"mean {number(float(errors.mean()))}, half of them within ±{number(float(np.median(np.abs(errors))))}"
    x, y = (
        Axis(f"error in {name}, predicted − true", low, high),
        Axis("rows", 0, 1.05 * float(counts.max()), whole=True),
    )
    chart = Chart(f"Histogram of errors: {says}.", x, y, square=True)
    for left, right, count in zip(edges[:-1], edges[1:], counts, strict=True):
        if count:
            chart.box(left, right, 0, float(count), "s0", 0.8)
    chart.rule(0, 0, 0, y.high)
    outside = len(errors) - len(inside)
    more = f" {outside:,} row{'s lie' if outside > 1 else ' lies'} outside." if outside else ""
    return Picture("Errors", chart.svg(), f"{says[0].upper()}{says[1:]}.{more}")


def dots_chart(title: str, rows: Sequence[tuple[str, str, float, float, float]]) -> Picture | None:
    """One value and its interval for each of some runs, below each other.

    Args:
        title: What is drawn.
        rows: A name, a class, the value and the interval's ends each; the ends may be NaN.
    """
    values: list[Any] = [value for row in rows for value in row[2:] if math.isfinite(value)]
    if not values:
        return None
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    says = "; ".join(f"{name} {number(value)}" for name, _, value, _, _ in rows)
    y = Axis("", 0.4 - len(rows), 0.6, bare=True)
    chart = Chart(f"{title}: {says}.", Axis("", low - room, high + room), y)
    for place, (name, css, value, least, most) in enumerate(rows):
        if math.isfinite(least):
            chart.rule(least, -place, most, -place, f"range {css}")
        chart.dots([value], [-place], css, 4.5)
        chart.write(low - room, -place + 0.24, name)
    return Picture(title, chart.svg(), "")
