"""A report's charts, read back: from pixels to the numbers that they stand for."""

from __future__ import annotations

import html
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Drawn", "charts"]

Points = NDArray[np.float64]
_UNITS = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


def charts(page: Path) -> dict[str, list[Drawn]]:
    """The charts of a report by the heading that each stands below, in order."""
    found: dict[str, list[Drawn]] = {}
    for figure in re.findall(r"<figure.*?</figure>", page.read_text(encoding="utf-8"), re.DOTALL):
        if 'class="chart"' in figure:
            one = Drawn(figure)
            found.setdefault(one.title, []).append(one)
    return found


class Drawn:
    """A chart.

    Args:
        figure: Its HTML, with title, legend and caption.

    Attributes:
        title: Above it.
        alt: For who does not see it.
        keys: The legend: what each line is, by its class.
        caption: Below it.
    """

    def __init__(self, figure: str) -> None:
        svg = re.search(r'<svg class="chart".*?</svg>', figure, re.DOTALL)
        assert svg
        self._svg = svg[0]
        self.alt = html.unescape(_attribute(self._svg, "aria-label"))
        rest = figure.replace(self._svg, "")
        self.keys = {
            css: html.unescape(says)
            for css, says in re.findall(r'<line class="line (\w+)".*?</svg>(.*?)</li>', rest, re.DOTALL)
        }
        self.title, self.caption = (
            html.unescape(found[1]) if (found := re.search(form, rest, re.DOTALL)) else ""
            for form in (r'<p class="title">(.*?)</p>', r"<figcaption>(.*?)</figcaption>")
        )
        ticks = re.findall(r'<text class="tick" ([^>]*)>([^<]*)<', self._svg)
        self._x = [(_numbers(about, "x")[0], _value(says)) for about, says in ticks if '"middle"' in about]
        self._y = [(_numbers(about, "y")[0] - 4, _value(says)) for about, says in ticks if '"end"' in about]
        self.log = ">log scale<" in self._svg

    def lines(self) -> dict[str, Points]:
        """Points ``[n, 2]`` of each line, by its class; pieces of a line one after the other."""
        found: dict[str, list[Points]] = {}
        for css, points in re.findall(r'<polyline class="line (\w+)" points="([^"]*)"', self._svg):
            pairs = np.array([[float(part) for part in pair.split(",")] for pair in points.split()])
            found.setdefault(css, []).append(self._values(pairs))
        return {css: np.concatenate(pieces) for css, pieces in found.items()}

    def dots(self) -> dict[str, Points]:
        """Points and radii, ``[n, 3]``, by class."""
        found: dict[str, list[list[float]]] = {}
        for css, about in re.findall(r'<circle class="dot (\w+)" ([^>]*)>', self._svg):
            found.setdefault(css, []).append(_numbers(about, "cx", "cy", "r"))
        return {
            css: np.column_stack([self._values(np.array(dots)[:, :2]), np.array(dots)[:, 2]])
            for css, dots in found.items()
        }

    def boxes(self) -> Points:
        """Left, right and upper end of each bar that stands on the floor, ``[n, 3]``."""
        found = [
            _numbers(about, "x", "y", "width") for about in re.findall(r'<rect class="fill \w+" ([^>]*)>', self._svg)
        ]
        corners = np.array([[[x, y], [x + width, y]] for x, y, width in found])
        values = self._values(corners.reshape(-1, 2)).reshape(-1, 2, 2)
        return np.column_stack([values[:, 0, 0], values[:, 1, 0], values[:, 0, 1]])

    def guides(self) -> Points:
        """The ends of the lines that guide the eye, ``[n, 2, 2]``."""
        found = [_numbers(line, "x1", "y1", "x2", "y2") for line in re.findall(r'<line class="guide"[^>]*>', self._svg)]
        return self._values(np.array(found).reshape(-1, 2)).reshape(-1, 2, 2)

    def _values(self, pixels: Points) -> Points:
        return np.column_stack([_scaled(pixels[:, 0], self._x), _scaled(pixels[:, 1], self._y, log=self.log)])


def _scaled(pixels: Points, ticks: list[tuple[float, float]], *, log: bool = False) -> Points:
    """By the outermost ticks, which are read most exactly; of a bare axis the pixels."""
    if not ticks:
        return pixels
    (near, low), (far, high) = min(ticks), max(ticks)
    if log:
        low, high = math.log(low), math.log(high)
    values = low + (pixels - near) / (far - near) * (high - low)
    return np.asarray(np.exp(values) if log else values)


def _value(says: str) -> float:
    text = html.unescape(says).replace("−", "-").replace(",", "")
    return float(text[:-1]) * _UNITS[text[-1]] if text[-1] in _UNITS else float(text)


def _attribute(markup: str, name: str) -> str:
    found = re.search(rf'\b{name}="([^"]*)"', markup)
    assert found, (name, markup[:200])
    return found[1]


def _numbers(markup: str, *names: str) -> list[Any]:
    return [float(_attribute(markup, name)) for name in names]
