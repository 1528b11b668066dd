from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawing import Drawn
from matplotlib.collections import PolyCollection
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score, root_mean_squared_error
from sklearn.model_selection import cross_val_predict

from stoker.errors import DataError
from stoker.reporting.canvas import number
from stoker.reporting.residuals import predicted_vs_true, robust_range

Array = np.ndarray[Any, Any]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    return Drawn(monkeypatch)


@pytest.fixture(scope="module")
def diabetes() -> tuple[Array, Array]:
    X, y = load_diabetes(return_X_y=True)
    return y, cross_val_predict(Ridge(alpha=0.1), X, y)


def test_diabetes(tmp_path: Path, drawn: Drawn, diabetes: tuple[Array, Array]) -> None:
    target, preds = diabetes
    predicted_vs_true(target, preds, tmp_path / "a.png", name="progression", title="diabetes")
    texts = drawn.texts()
    assert f"R² {r2_score(target, preds):.3f}" in texts
    assert f"RMSE {root_mean_squared_error(target, preds):.1f}" in texts
    assert "442 rows" in texts
    assert {"true progression", "predicted progression", "error in progression"} <= set(texts)
    errors = preds - target
    assert f"mean {number(errors.mean())}\nhalf within ±{np.median(np.abs(errors)):.1f}" in texts
    dots = drawn.figure.axes[0].lines[1]
    assert np.array_equal(dots.get_xdata(), target)
    assert np.array_equal(dots.get_ydata(), preds)
    drawn.assert_legible()


def test_the_line_is_the_identity(tmp_path: Path, drawn: Drawn, diabetes: tuple[Array, Array]) -> None:
    predicted_vs_true(*diabetes, tmp_path / "a.png", name="y")
    axes = drawn.figure.axes[0]
    assert axes.get_xlim() == axes.get_ylim()
    line = axes.lines[0]
    assert np.array_equal(line.get_xdata(), line.get_ydata())
    assert axes.bbox.width == pytest.approx(axes.bbox.height)  # so that it is at 45 degrees


@pytest.mark.parametrize("rows", [1, 2, 20, 3000, 3001, 100_000])
def test_any_number_of_rows(tmp_path: Path, drawn: Drawn, rows: int) -> None:
    rng = np.random.default_rng(0)
    target = rng.gamma(2, 1e5, rows)
    predicted_vs_true(target, target * rng.normal(1, 0.1, rows), tmp_path / "a.png", name="price", title="any")
    cells = [item for item in drawn.figure.axes[0].collections if isinstance(item, PolyCollection)]
    assert bool(cells) == (rows > 3000)
    if cells:  # each row is in some cell, or said to lie outside
        outside = [
            int(text.split()[0].replace(",", "")) for text in drawn.texts() if "outside" in text and "lie" in text
        ]
        assert np.asarray(cells[0].get_array()).sum() == rows - sum(outside)
    drawn.assert_legible()


@pytest.mark.slow
def test_a_million_rows(tmp_path: Path, drawn: Drawn) -> None:
    rng = np.random.default_rng(0)
    target = np.exp(rng.normal(12, 0.6, 1_000_000))
    predicted_vs_true(target, target * np.exp(rng.normal(0, 0.2, len(target))), tmp_path / "a.png", name="price")
    assert "1,000,000 rows" in drawn.texts()
    drawn.assert_legible()


def test_heavy_tails_do_not_squash_the_picture(tmp_path: Path, drawn: Drawn) -> None:
    rng = np.random.default_rng(0)
    target = rng.normal(size=20_000)
    preds = target + 0.4 * rng.standard_t(1.2, size=len(target))
    assert np.abs(preds).max() > 100
    predicted_vs_true(target, preds, tmp_path / "a.png", name="return")
    low, high = drawn.figure.axes[0].get_xlim()
    assert -15 < low < target.min()
    assert target.max() < high < 15
    outside = int(((preds < low) | (preds > high) | (target < low) | (target > high)).sum())
    assert f"{outside:,} rows lie outside" in drawn.texts()
    assert f"R² {number(r2_score(target, preds))}" in drawn.texts()  # of all rows
    drawn.assert_legible()


def test_one_wild_prediction(tmp_path: Path, drawn: Drawn) -> None:
    target = np.linspace(0, 1, 300)
    preds = target.copy()
    preds[3] = 1e6
    predicted_vs_true(target, preds, tmp_path / "a.png", name="y")
    assert "1 row lies outside" in drawn.texts()
    assert drawn.figure.axes[0].get_ylim()[1] < 1.1
    assert "half within ±0" in [line for text in drawn.texts() for line in text.split("\n")]
    drawn.assert_legible()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0], (1.0, 1.0)),
        ([0.0, 1.0], (0.0, 1.0)),
        ([*range(100)], (0, 99)),
        ([*range(1000), 1_000_000], (0, 999)),
        ([0.0] * 999 + [5.0], (0.0, 5.0)),  # nearly all the same: there is no range but the whole
    ],
)
def test_robust_range(values: list[float], expected: tuple[float, float]) -> None:
    low, high = robust_range(np.array(values, dtype=float), 0.005)
    assert (low, high) == expected


@pytest.mark.parametrize("value", [0.0, 0.1, -7.0])
def test_a_constant_target_has_no_r2(tmp_path: Path, drawn: Drawn, value: float) -> None:
    target = np.full(30, value)
    predicted_vs_true(target, target + np.linspace(0, 1, 30), tmp_path / "a.png", name="y")
    assert "R² undefined" in drawn.texts()
    predicted_vs_true(target, target, tmp_path / "a.png", name="y")
    assert "RMSE 0" in drawn.texts()
    drawn.assert_legible()


@pytest.mark.parametrize("scale", [1e-30, 1e-5, 1e-3, 1e4, 1e6, 1e14, 1e90])
def test_any_scale(tmp_path: Path, drawn: Drawn, scale: float) -> None:
    rng = np.random.default_rng(0)
    target = scale * rng.normal(size=50)
    predicted_vs_true(target, target + 0.1 * scale * rng.normal(size=50), tmp_path / "a.png", name="y")
    assert [text for text in drawn.texts() if text.startswith("R² 0.9")]
    drawn.assert_legible()


def test_rows_that_are_not_finite_are_left_out_and_counted(tmp_path: Path, drawn: Drawn) -> None:
    target = [1.0, 2.0, math.nan, 4.0, 5.0, 6.0]
    preds = [1.5, math.inf, 3.0, 4.5, 5.5, 1e200]
    predicted_vs_true(target, preds, tmp_path / "a.png", name="y")
    assert "3 rows; 3 more left out, whose values are not finite" in drawn.texts()
    assert "RMSE 0.500" in drawn.texts()


def test_tensors_columns_and_lists_give_equal_bytes(tmp_path: Path, diabetes: tuple[Array, Array]) -> None:
    target, preds = diabetes
    first = predicted_vs_true(target, preds, tmp_path / "a.png", name="y", title="t").read_bytes()
    tensors = torch.from_numpy(target)[:, None], torch.from_numpy(preds)[:, None].requires_grad_()
    assert predicted_vs_true(*tensors, tmp_path / "b.png", name="y", title="t").read_bytes() == first
    lists = target.tolist(), preds.tolist()
    assert predicted_vs_true(*lists, tmp_path / "c.png", name="y", title="t").read_bytes() == first


def test_names_of_any_kind(tmp_path: Path, drawn: Drawn) -> None:
    predicted_vs_true([1.0, 2.0], [1.0, 2.5], tmp_path / "a.png", name="価格 in $_{x " + "long " * 30, title="🐱 " * 90)
    drawn.assert_legible()


@pytest.mark.parametrize(
    ("target", "preds", "message"),
    [
        ([], [], r"target: must have at least one row, got none\. The split is empty"),
        ([1.0, 2.0], [1.0], r"preds: must have as many rows as the target, 2, got 1"),
        ([[1.0, 2.0]], [[1.0, 2.0]], r"target: must be of shape \[n\] or \[n, 1\], got \[1, 2\]\. Draw one output"),
        (["a"], [1.0], r"target: must be numbers, got <U1"),
        ([math.nan], [1.0], r"preds: must have at least one row with finite values, got none"),
    ],
)
def test_inputs_that_do_not_fit(tmp_path: Path, target: Any, preds: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        predicted_vs_true(target, preds, tmp_path / "a.png", name="y")
    assert not list(tmp_path.iterdir())
