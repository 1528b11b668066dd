"""Which class was taken for which, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stoker.errors import ConfigError, DataError
from stoker.reporting.canvas import (
    BLUE,
    HEADING,
    INK,
    MUTED,
    VERMILLION,
    as_array,
    fitted,
    new_figure,
    text,
    width_of,
    write_heading,
    write_png,
)
from stoker.reporting.lettering import Lettering

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Pairs", "confusion_matrix", "count_pairs"]

_MOST_WITH_COUNTS = 12  # counts and percentages in the cells
_MOST_WITH_SHARES = 25  # percentages alone
_MOST_NAMED = 50  # every class named at the axes
_MOST_CELLS = 200  # beyond that, a cell stands for a block of classes
_LISTED = 10  # mistakes listed beside the matrix, where its cells say nothing


@dataclass(frozen=True)
class Pairs:
    """How often each class was taken for each; only the pairs that occur, for of a thousand classes few do.

    Attributes:
        true: int64, shape ``[pairs]``: the true class, ascending.
        predicted: int64, shape ``[pairs]``: what it was taken for, ascending within a true class.
        count: int64, shape ``[pairs]``: how often, at least once.
        totals: int64, shape ``[n_classes]``: how many rows are of each class.
    """

    true: NDArray[np.int64]
    predicted: NDArray[np.int64]
    count: NDArray[np.int64]
    totals: NDArray[np.int64]

    @property
    def share(self) -> NDArray[np.float64]:
        """Each count's share of the rows of its true class."""
        return self.count / self.totals[self.true]

    @property
    def rows(self) -> int:
        """How many rows were counted."""
        return int(self.totals.sum())

    @property
    def right(self) -> int:
        """How many rows were put in their class."""
        return int(self.count[self.true == self.predicted].sum())

    def mistakes(self, most: int) -> list[tuple[int, int, int]]:
        """The most frequent ones: count, true class, predicted class."""
        wrong = np.flatnonzero(self.true != self.predicted)
        top = wrong[np.argsort(-self.count[wrong], kind="stable")[:most]]
        return [(int(self.count[at]), int(self.true[at]), int(self.predicted[at])) for at in top]


def count_pairs(target: Any, preds: Any, n_classes: int) -> Pairs:
    """Count how often each class was taken for each.

    Args:
        target: Class indices, shape ``[n]``: tensor, array or sequence.
        preds: The predicted ones, likewise.
        n_classes: How many classes there are.

    Raises:
        DataError: There are no rows, the shapes differ, or a value is not the index of a class.
    """
    columns = []
    for where, values in (("target", as_array(target)), ("preds", as_array(preds))):
        if values.ndim != 1:
            raise DataError(where, "must be of shape [n]", list(values.shape))
        if len(values) and values.dtype.kind not in "iub":
            raise DataError(where, "must be class indices of an integer dtype", values.dtype)
        columns.append(values.astype(np.int64))
    true, predicted = columns
    if len(true) != len(predicted):
        raise DataError("preds", f"must have as many rows as the target, {len(true)}", len(predicted))
    if not len(true):
        raise DataError("target", "must have at least one row", "none", "The split is empty.")
    for where, values in (("target", true), ("preds", predicted)):
        wrong = values[(values < 0) | (values >= n_classes)]
        if len(wrong):
            raise DataError(where, f"must be class indices from 0 to {n_classes - 1}", int(wrong[0]))
    codes, count = np.unique(true * n_classes + predicted, return_counts=True)
    totals = np.bincount(true, minlength=n_classes)
    return Pairs(codes // n_classes, codes % n_classes, count.astype(np.int64), totals)


def confusion_matrix(target: Any, preds: Any, classes: Sequence[object], path: Path | str, *, title: str = "") -> Path:
    """Draw how often each class was taken for each.

    A cell's colour is its share of its row, that is, of the true class: blue on the diagonal, vermillion off it, grey
    in the row of a class that does not occur. Up to 12 classes a cell says its count and its percentage, up to 25 its
    percentage; beyond that the most frequent mistakes are listed beside the matrix.

    Args:
        target: Class indices, shape ``[n]``: tensor, array or sequence.
        preds: The predicted ones, likewise.
        classes: The names of the classes, in the order of their indices.
        path: The PNG file to write.
        title: Above the picture.

    Returns:
        The path.

    Raises:
        DataError: There are no rows, the shapes differ, or a value is not the index of a class.
        ConfigError: There are fewer than two classes, or the path cannot be written to.
        DiskFullError: There is no room.
    """
    n = len(classes)
    if n < 2:
        raise ConfigError("classes", "must be at least two", n)
    pairs = count_pairs(target, preds, n)
    names = Lettering.of(classes, 28 if n <= _MOST_WITH_COUNTS else 20)
    says = f"{pairs.right:,} of {pairs.rows:,} right: {_percent(pairs.right / pairs.rows, 1)}"
    notes = [_reading(n)]
    if names.replaced:
        notes.append(f"#: {names.replaced} names are in a script that no font here has")

    # All in inches from here on, from the left and from the bottom.
    figure = new_figure(1, 1)
    size = 9.0 if n <= _MOST_WITH_SHARES else 7.0
    named = range(0, n, 1 if n <= _MOST_NAMED else _step(n))
    widest = max(width_of(figure, names.names[index], fontsize=size, fontfamily=names.fonts) for index in named)
    side, upright = _side(n, widest, named.step)
    mistakes = pairs.mistakes(_LISTED) if n > _MOST_WITH_SHARES else []
    listed = [f"{names.names[true]} → {names.names[predicted]}" for _, true, predicted in mistakes]
    beside = 0.95
    if n > _MOST_WITH_SHARES:
        beside = 0.95 + max((width_of(figure, line, fontfamily=names.fonts) for line in listed), default=0.0)
    foot = 0.17 * len(notes) + 0.12
    left = 0.45 + widest + 0.12
    bottom = foot + 0.33 + (widest if upright else size / 72) + 0.1
    heading = fitted(figure, title, 8, **HEADING)
    written: list[tuple[str, dict[str, Any]]] = [(line, {"fontsize": 8}) for line in notes] + [(says, {})]
    written.append((heading.names[0], {"fontfamily": heading.fonts, **HEADING}))
    width = max(left + side + beside + 0.25, 0.42 + max(width_of(figure, line, **style) for line, style in written))
    height = bottom + side + (0.8 if title else 0.52)
    figure.set_size_inches(width, height)
    axes = figure.add_axes((left / width, bottom / height, side / width, side / height))

    _paint(axes, pairs)
    _name_axes(axes, names, named, size, upright=upright)
    text(axes, 0.5, (foot + 0.12 - bottom) / side, "predicted", color=MUTED, ha="center", va="bottom")
    text(axes, (0.14 - left) / side, 0.5, "true", color=MUTED, rotation=90, ha="left", va="center")
    if n <= _MOST_WITH_SHARES:
        _write_cells(axes, pairs)
    elif mistakes:
        _write_mistakes(axes, mistakes, listed, names.fonts, side)
    write_heading(figure, title, says)
    _write_notes(figure, notes)
    return write_png(figure, path)


def _reading(n: int) -> str:
    what = "Percentages and colours" if n <= _MOST_WITH_COUNTS else "Numbers (in %) and colours"
    if n <= _MOST_WITH_SHARES:
        return f"{what} are shares of the row"
    block = -(-n // _MOST_CELLS)
    cells = f"; a cell is {block} × {block} classes and shows the worst of them" if block > 1 else ""
    return f"Colours are shares of the row{cells}"


def _side(n: int, widest: float, every: int) -> tuple[float, bool]:
    """How wide and tall the matrix is, and whether the names below it must stand upright."""
    cell = 0.62 if n <= _MOST_WITH_COUNTS else 0.4 if n <= _MOST_WITH_SHARES else 6.2 / n
    side = max(cell * n, 2.2)
    room = (widest + 0.12) * n / every
    if n <= 6 and side < room <= 1.3 * n:
        side = room  # few classes may take some more, so that their names can be read
    return side, room > side


def _step(n: int) -> int:
    """A round number such that at most 25 of ``n`` classes are named."""
    steps = (size * int(10**power) for power in range(12) for size in (1, 2, 5))
    return next(step for step in steps if n <= 25 * step)


def _percent(share: float, decimals: int) -> str:
    """A percentage that says 0 or 100 only where it is exactly that."""
    step = 10.0**-decimals
    if 1 - step / 200 <= share < 1:
        return f">{100 - step:.{decimals}f}%"
    if 0 < share <= step / 200:
        return f"<{step:.{decimals}f}%"
    return f"{100 * share:.{decimals}f}%"


def _colours(pairs: Pairs) -> NDArray[np.float64]:
    """The matrix as an image, RGB in 0 to 1, shape ``[cells, cells, 3]``."""
    from matplotlib.colors import to_rgb

    n = len(pairs.totals)
    block = -(-n // _MOST_CELLS)
    cells = -(-n // block)
    strongest = np.zeros((cells, cells))
    wrong = pairs.true != pairs.predicted
    np.maximum.at(strongest, (pairs.true[wrong] // block, pairs.predicted[wrong] // block), pairs.share[wrong])
    hue = np.tile(np.array(to_rgb(VERMILLION)), (cells, cells, 1))
    # On the diagonal what counts is how much of its classes was right; a block shows the worst of them.
    right = np.where(pairs.totals > 0, 0.0, np.nan)
    right[pairs.true[~wrong]] = pairs.share[~wrong]
    starts = np.arange(0, n, block)
    diagonal = np.arange(cells)
    strongest[diagonal, diagonal] = np.nan_to_num(np.fmin.reduceat(right, starts))
    hue[diagonal, diagonal] = to_rgb(BLUE)
    # The square root lifts small shares off the white, for it is the rare mistakes that are looked for.
    image: NDArray[np.float64] = 1 - np.sqrt(strongest)[..., None] * (1 - hue)
    image[np.add.reduceat(pairs.totals, starts) == 0] = 0.95  # not white, which is "never"
    return image


def _paint(axes: Axes, pairs: Pairs) -> None:
    n = len(pairs.totals)
    extent = (-0.5, n - 0.5, n - 0.5, -0.5)
    axes.imshow(_colours(pairs), interpolation="nearest", aspect="auto", origin="upper", extent=extent)
    axes.set_xlim(-0.5, n - 0.5)
    axes.set_ylim(n - 0.5, -0.5)
    axes.set_facecolor("white")
    axes.grid(visible=False)
    if n <= _MOST_NAMED:
        edges = np.arange(1, n) - 0.5
        width = 1.2 if n <= _MOST_WITH_SHARES else 0.5
        axes.hlines(edges, -0.5, n - 0.5, color="white", linewidth=width)
        axes.vlines(edges, -0.5, n - 0.5, color="white", linewidth=width)
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color("#d0d0d0")
        spine.set_linewidth(0.8)


def _name_axes(axes: Axes, names: Lettering, named: range, size: float, *, upright: bool) -> None:
    axes.tick_params(which="both", length=0, pad=4, left=True, bottom=True, top=False, right=False)
    axes.tick_params(labelleft=True, labelbottom=True, labeltop=False, labelright=False)
    shown = [names.names[index] for index in named]
    style: dict[str, Any] = {"color": INK, "fontsize": size, "fontfamily": names.fonts}
    style |= {"parse_math": False, "usetex": False}
    axes.set_xticks(list(named), shown, rotation=90 if upright else 0, ha="center", va="top", **style)
    axes.set_yticks(list(named), shown, ha="right", va="center", **style)


def _write_cells(axes: Axes, pairs: Pairs) -> None:
    n = len(pairs.totals)
    image = _colours(pairs)
    for true, predicted, count, share in zip(pairs.true, pairs.predicted, pairs.count, pairs.share, strict=True):
        colour = "white" if _luminance(image[true, predicted]) < 0.22 else INK
        at: dict[str, Any] = {"transform": axes.transData, "ha": "center", "color": colour}
        if n <= _MOST_WITH_COUNTS:
            text(axes, predicted, true - 0.02, f"{count:,}", va="bottom", fontsize=9.5, **at)
            text(axes, predicted, true + 0.06, _percent(share, 0), va="top", fontsize=7.5, **at)
        else:
            text(axes, predicted, true, _percent(share, 0).removesuffix("%"), va="center", fontsize=8, **at)
    for index, total in enumerate(pairs.totals):
        says, at = f"of {total:,}", {"transform": axes.transData, "color": MUTED, "fontsize": 8, "va": "center"}
        text(axes, n - 0.5 + 0.06 * n / axes.bbox.width * axes.figure.dpi, index, says, **at)


def _luminance(colour: NDArray[np.float64]) -> float:
    """Relative luminance as in WCAG 2; below 0.22 white letters have more contrast than dark ones."""
    linear = np.where(colour <= 0.03928, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    return float(linear @ np.array([0.2126, 0.7152, 0.0722]))


def _write_mistakes(
    axes: Axes, mistakes: list[tuple[int, int, int]], listed: list[str], fonts: list[str], side: float
) -> None:
    x = 1 + 0.3 / side
    text(axes, x, 1, "Most frequent mistakes", fontsize=10, fontweight="bold", va="top")
    text(axes, x, 1 - 0.22 / side, "true → predicted", color=MUTED, fontsize=8, va="top")
    for line, ((count, _, _), content) in enumerate(zip(mistakes, listed, strict=True)):
        y = 1 - (0.55 + 0.24 * line) / side
        text(axes, x + 0.35 / side, y, f"{count:,}", ha="right", va="center", color=VERMILLION, fontweight="bold")
        text(axes, x + 0.45 / side, y, content, va="center", fontfamily=fonts)


def _write_notes(figure: Figure, notes: list[str]) -> None:
    width, height = figure.get_size_inches()
    for line, note in enumerate(reversed(notes)):
        text(figure, 0.2 / width, (0.12 + 0.17 * line) / height, note, color=MUTED, fontsize=8, va="bottom")
