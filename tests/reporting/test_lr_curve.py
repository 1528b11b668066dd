from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawing import Drawn
from matplotlib import rc_context

from stoker.errors import DataError
from stoker.reporting.lr_curve import lr_curve


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    return Drawn(monkeypatch)


def curve(start: float = 1e-7, end: float = 10.0, steps: int = 100, level: float = 2.3) -> dict[str, Any]:
    """A loss that falls around a thousandth of ``end`` and climbs steeply after a tenth."""
    rates = np.geomspace(start, end, steps)
    smooth = level - 0.4 / (1 + (rates / (1e-3 * end)) ** -2) + np.minimum((rates / (0.1 * end)) ** 3, 1e12)
    noise = np.random.default_rng(0).normal(0, 0.05, steps)
    return {"lrs": rates.tolist(), "losses": (smooth + noise).tolist(), "smoothed": smooth.tolist()}


def test_what_is_there(tmp_path: Path, drawn: Drawn) -> None:
    made = curve()
    path = lr_curve(**made, path=tmp_path / "a.png", suggestion=0.0048, title="digits")
    assert path.read_bytes()[:4] == b"\x89PNG"
    texts = drawn.texts()
    wanted = [
        "digits",
        "100 steps with a growing rate; suggested: 0.0048",
        "suggested: 0.0048",
        "smoothed",
        "each batch",
    ]
    assert set(wanted) | {"Loss", "learning rate, on a log scale"} <= set(texts)
    (axes,) = drawn.figure.axes
    assert axes.get_xscale() == "log"
    each, smooth, line, dot = axes.lines
    for drawn_line, values in ((each, made["losses"]), (smooth, made["smoothed"])):
        assert np.asarray(drawn_line.get_xdata()).tolist() == made["lrs"]
        assert np.asarray(drawn_line.get_ydata()).tolist() == values
    assert np.asarray(line.get_xdata()).tolist() == [0.0048, 0.0048]
    at = float(np.interp(math.log(0.0048), np.log(made["lrs"]), made["smoothed"]))
    assert np.asarray(dot.get_xydata()).ravel().tolist() == pytest.approx([0.0048, at])
    drawn.assert_legible()


def test_the_climb_leaves_the_picture_and_the_fall_does_not(tmp_path: Path, drawn: Drawn) -> None:
    made = curve(end=1000.0)
    lr_curve(**made, path=tmp_path / "a.png", suggestion=1.0)
    low, high = drawn.figure.axes[0].get_ylim()
    assert low < min(made["smoothed"]) < 2.3 < high < 2.6
    assert max(made["smoothed"]) > 1e3


@pytest.mark.parametrize(
    ("start", "end", "suggestion"),
    [(1e-7, 10, 1e-6), (1e-7, 10, 1.0), (1e-7, 10, 1e-8), (1e-4, 1e-2, 1e-3), (1e-3, 2e-3, 1.5e-3), (1e-12, 1e6, 1e-3)],
)
def test_any_range(tmp_path: Path, drawn: Drawn, start: float, end: float, suggestion: float) -> None:
    lr_curve(**curve(start, end), path=tmp_path / "a.png", suggestion=suggestion, title="a title " * 20)
    (axes,) = drawn.figure.axes
    low, high = axes.get_xlim()
    assert low <= min(start, suggestion)
    assert max(end, suggestion) <= high
    assert len([tick for tick in axes.get_xticks() if low <= tick <= high]) >= 2
    drawn.assert_legible()


@pytest.mark.parametrize("level", [1e-6, 1e6, -3.0])
def test_any_loss(tmp_path: Path, drawn: Drawn, level: float) -> None:
    made = curve(level=level)
    lr_curve(**made, path=tmp_path / "a.png", suggestion=0.01)
    drawn.assert_legible()


def test_a_constant_loss_and_two_steps(tmp_path: Path, drawn: Drawn) -> None:
    lr_curve([0.1, 1.0], [2.0, 2.0], [2.0, 2.0], tmp_path / "a.png", suggestion=0.1)
    low, high = drawn.figure.axes[0].get_ylim()
    assert low < 2 < high
    drawn.assert_legible()


def test_equal_input_gives_equal_bytes_whatever_the_theme(tmp_path: Path) -> None:
    first = lr_curve(**curve(), path=tmp_path / "a.png", suggestion=0.01).read_bytes()
    dark: dict[Any, Any] = {"axes.facecolor": "black", "lines.linewidth": 7, "font.size": 20, "axes.grid": True}
    with rc_context(dark):
        assert lr_curve(**curve(), path=tmp_path / "b.png", suggestion=0.01).read_bytes() == first


@pytest.mark.parametrize(
    ("lrs", "losses", "text"),
    [
        ([0.1, 0.2], [1.0], r"lr_curve: must be of one length, got 2 rates, 1 losses, 1 smoothed ones"),
        ([0.1], [1.0], r"lr_curve: must have at least two steps, got 1"),
        ([0.0, 0.1], [1.0, 1.0], r"lr_curve: must be finite, and the rates above 0, got others"),
        ([0.1, 0.2], [1.0, math.nan], r"lr_curve: must be finite, and the rates above 0, got others"),
    ],
)
def test_bad_input(tmp_path: Path, lrs: list[float], losses: list[float], text: str) -> None:
    with pytest.raises(DataError, match=text):
        lr_curve(lrs, losses, losses, tmp_path / "a.png", suggestion=0.1)
    assert not list(tmp_path.iterdir())
