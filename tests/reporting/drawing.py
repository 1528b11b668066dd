"""What tests ask of a figure, as its parts and as a whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from stoker.reporting import canvas, confusion, curves, lr_curve, residuals

__all__ = ["Drawn"]


class Drawn:
    """The figure that was written last; it is kept, and written all the same."""

    figure: Figure

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for room in (curves, confusion, residuals, lr_curve):
            monkeypatch.setattr(room, "write_png", self._keep)

    def _keep(self, figure: Figure, path: Path | str) -> Path:
        self.figure = figure
        return canvas.write_png(figure, path)

    def _own(self) -> list[Text]:
        texts = [*self.figure.texts, *(text for axes in self.figure.axes for text in axes.texts)]
        return [text for text in texts if text.get_text().strip()]

    def texts(self) -> list[str]:
        """Every text in the figure but those at the ticks."""
        return [text.get_text() for text in self._own()]

    def assert_legible(self) -> None:
        """Nothing leaves the figure, and no text covers another, in pixels."""
        renderer = self.figure.canvas.get_renderer()  # type: ignore[attr-defined]
        shown = self._own()
        for axes in self.figure.axes:
            assert axes.get_window_extent().x0 >= 0
            for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
                low, high = min(low, high), max(low, high)
                ticks = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
                shown += [
                    label for at, label in ticks if low <= at <= high and label.get_visible() and label.get_text()
                ]
        boxes = np.array([text.get_window_extent(renderer).extents for text in shown])
        left, bottom, right, top = boxes.T
        width, height = self.figure.bbox.size
        for text, inside in zip(shown, (left >= 0) & (bottom >= 0) & (right <= width) & (top <= height), strict=True):
            assert inside, f"{text.get_text()!r} leaves the figure"
        # a box has room for descenders and accents, which are seldom there
        left, bottom, right, top = left + 3, bottom + 4, right - 3, top - 4
        covers = (left[:, None] < right) & (left < right[:, None]) & (bottom[:, None] < top) & (bottom < top[:, None])
        for first, second in np.argwhere(np.triu(covers, 1)):
            raise AssertionError(f"{shown[first].get_text()!r} covers {shown[second].get_text()!r}")
