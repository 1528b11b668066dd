"""What every picture shares: colours, lettering, and how it becomes a file.

Everything is set on the objects themselves: matplotlib's global settings are neither changed nor, as far as the look
goes, asked, so that a run's pictures are the same from a notebook with a dark theme as from the command line.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stoker.errors import ConfigError
from stoker.reporting.lettering import BASE_FONT, Lettering, has_bold

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase, SubFigure
    from matplotlib.text import Text
    from matplotlib.transforms import Transform

__all__ = [
    "BLUE",
    "HEADING",
    "INK",
    "METRIC_COLOURS",
    "MUTED",
    "VERMILLION",
    "as_array",
    "dress",
    "fitted",
    "new_figure",
    "number",
    "shifted",
    "text",
    "width_of",
    "write_heading",
    "write_png",
]

# Okabe and Ito, Color Universal Design (2008): told apart with any kind of colour blindness. The two that are too
# pale for letters on white (sky blue, orange) are darkened.
BLUE = "#0072b2"
VERMILLION = "#d55e00"
METRIC_COLOURS = ("#009e73", "#b3568d", "#2a86b8", "#b87f00", "#6a51a3", "#595959")
INK = "#262626"
MUTED = "#6e6e6e"
GRID = "#e9e9e9"

HEADING: dict[str, Any] = {"fontsize": 12.5, "fontweight": "bold"}
_DPI = 150


def new_figure(width: float, height: float) -> Figure:
    """An empty white figure, to be drawn by Agg.

    Args:
        width: In inches; 150 pixels each.
        height: Likewise.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white", edgecolor="white", frameon=True)
    figure.set_layout_engine("none")
    FigureCanvasAgg(figure)  # becomes figure.canvas
    return figure


def write_png(figure: Figure, path: Path | str) -> Path:
    """Draw a figure and write it: the whole picture, or no file.

    Args:
        figure: From :func:`new_figure`.
        path: The file's name; its directory is made if need be. The same figure gives the same bytes.

    Returns:
        The path.

    Raises:
        ConfigError: The path cannot be written to.
        DiskFullError: There is no room.
    """
    # not at the top: runs are a room of their own, which may come to draw pictures
    from stoker.runs.files import naming_full_disk, write_atomic

    path = Path(path)
    png = io.BytesIO()
    # the version of matplotlib would be written into the file otherwise
    figure.canvas.print_png(png, metadata={"Software": None})  # type: ignore[attr-defined]
    try:
        with naming_full_disk(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, png.getvalue())
    except (IsADirectoryError, NotADirectoryError, FileExistsError, PermissionError) as error:
        raise ConfigError(str(path), "must be a file that can be written", error.strerror) from None
    return path


def as_array(values: Any) -> np.ndarray[Any, Any]:
    """A NumPy array of a tensor on any device, a sequence or an array."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        if values.is_floating_point():
            values = values.double()  # NumPy has no bfloat16
        values = values.numpy()
    return np.asarray(values)


def number(value: float) -> str:
    """A number with about three digits that mean something: ``0.972``, ``12,300``, ``1.2e-05``."""
    size = abs(value)
    if value == 0 or not np.isfinite(value):
        shown = f"{value:g}"
    elif size >= 1e8 or size < 1e-4:
        shown = f"{value:.1e}"
    elif size < 0.1:
        shown = f"{value:.3g}"
    else:
        decimals = 3 if size < 0.9995 else 4 if size < 1 else 2 if size < 9.995 else 1 if size < 99.95 else 0
        shown = f"{value:,.{decimals}f}"
    return shown.replace("-", "−") if value < 0 else shown


def text(owner: Axes | FigureBase, x: float, y: float, content: str, **style: Any) -> Text:
    """Write text that came from anyone: no dollar sign in it starts a formula.

    Args:
        owner: What to write on; axes take ``transform`` with their own coordinates by default.
        x: Where.
        y: Where.
        content: What.
        style: As matplotlib has it.

    Returns:
        The text, placed.
    """
    house: dict[str, Any] = {"color": INK, "fontsize": 9, "fontfamily": [BASE_FONT], "fontweight": "normal"}
    house |= {"usetex": False, "parse_math": False}
    if hasattr(owner, "transAxes"):
        house["transform"] = owner.transAxes
    chosen = house | style
    if chosen["fontweight"] == "bold" and not all(map(has_bold, chosen["fontfamily"])):
        chosen["fontweight"] = "normal"
    return owner.text(x, y, content, **chosen)


def width_of(figure: Figure | SubFigure, content: str, **style: Any) -> float:
    """How wide a text will be.

    Args:
        figure: Any; it is left as it was.
        content: What.
        style: As for :func:`text`.

    Returns:
        Inches.
    """
    probe = text(figure, 0, 0, content, **style)
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    inches = probe.get_window_extent(renderer).width / figure.dpi
    probe.remove()
    return float(inches)


def fitted(figure: Figure | SubFigure, content: str, inches: float, **style: Any) -> Lettering:
    """Prepare a single text and shorten it until it fits.

    Args:
        figure: Any; it is left as it was.
        content: What.
        inches: How wide it may be.
        style: As for :func:`text`, but for the fonts.
    """
    longest = 120
    while True:
        lettering = Lettering.line(content, longest)
        wide = width_of(figure, lettering.names[0], fontfamily=lettering.fonts, **style)
        if wide <= inches or longest <= 4:
            return lettering
        longest = max(4, min(longest - 1, int(len(lettering.names[0]) * inches / wide)))


def shifted(axes: Axes, right: float, up: float) -> Transform:
    """The axes' own coordinates, moved by so many points."""
    from matplotlib.transforms import ScaledTranslation

    return axes.transAxes + ScaledTranslation(right / 72, up / 72, axes.figure.dpi_scale_trans)


def dress(axes: Axes, title: str = "", *, grid: str = "y", fonts: Sequence[str] = (BASE_FONT,)) -> None:
    """Give axes the house's look: two thin spines, quiet ticks, a faint grid, a title at the left.

    Args:
        axes: Which.
        title: Above them, in bold.
        fonts: The families for the title.
        grid: ``"x"``, ``"y"``, ``"both"`` or empty.
    """
    axes.set_facecolor("white")
    axes.set_axisbelow(True)
    axes.minorticks_off()
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("#b0b0b0")
        spine.set_linewidth(0.8)
    axes.tick_params(which="both", direction="out", left=True, bottom=True, top=False, right=False)
    axes.tick_params(which="major", labelleft=True, labelbottom=True, labeltop=False, labelright=False)
    axes.tick_params(which="both", color="#b0b0b0", labelcolor=MUTED, labelsize=8.5, width=0.8, length=3, pad=3)
    axes.tick_params(which="both", labelfontfamily=BASE_FONT)
    axes.grid(visible=False, which="both")
    if grid:
        axes.grid(visible=True, which="major", axis=grid, color=GRID, linewidth=0.8, linestyle="-", alpha=1)  # type: ignore[arg-type]
    if title:
        text(
            axes,
            0,
            1,
            title,
            transform=shifted(axes, 0, 6),
            fontsize=10,
            fontweight="bold",
            va="bottom",
            fontfamily=list(fonts),
        )


def write_heading(figure: Figure, title: str, says: str) -> None:
    """Write a figure's title, if it has one, and a line below it, at the top left.

    Args:
        figure: At its final size.
        title: In bold; may be empty.
        says: The line below, in grey.
    """
    width, height = figure.get_size_inches()
    if title:
        heading = fitted(figure, title, width - 0.4, **HEADING)
        at = 0.2 / width, 1 - 0.17 / height
        text(figure, *at, heading.names[0], va="top", fontfamily=heading.fonts, **HEADING)
    text(figure, 0.2 / width, 1 - (0.45 if title else 0.17) / height, says, color=MUTED, va="top")
