from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawing import Drawn
from matplotlib import rc_context, rcParams
from matplotlib.lines import Line2D
from PIL import Image

from stoker.errors import DataError
from stoker.reporting.curves import _apart, learning_curves

Row = dict[str, Any]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    return Drawn(monkeypatch)


def points(line: Line2D) -> tuple[list[float], list[float]]:
    return np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist()


def classification(epochs: int, rate: float = 1e-3) -> list[Row]:
    rows = []
    for epoch in range(1, epochs + 1):
        loss, accuracy = 2 * math.exp(-epoch / 6), 1 - 0.9 * math.exp(-epoch / 4)
        rows.append(
            {
                "epoch": epoch,
                "step": 10 * epoch,
                "lr": rate,
                "train_loss": loss + 0.05,
                "valid_loss": loss + 0.1 + 0.002 * epoch,
                "valid_accuracy": 0.95 * accuracy,
                "valid_top3_accuracy": accuracy,
                "valid_f1": 0.94 * accuracy,
                "valid_auroc": 0.5 + accuracy / 2,
                "valid_log_loss": loss + 0.1 + 0.002 * epoch,
            }
        )
    return rows


def regression(epochs: int) -> list[Row]:
    rows = []
    for epoch in range(1, epochs + 1):
        mse = 0.4 + 2 * math.exp(-epoch / 3)
        rows.append(
            {
                "epoch": epoch,
                "lr": 0.1 / epoch,
                "train_loss": 0.9 * mse,
                "valid_loss": mse,
                "valid_mse": mse,
                "valid_rmse": math.sqrt(mse),
                "valid_mae": 0.7 * math.sqrt(mse),
                "valid_r2": -500.0 if epoch == 1 else 1 - mse / 2.5,
            }
        )
    return rows


def test_classification(tmp_path: Path, drawn: Drawn) -> None:
    rows = classification(40)
    learning_curves(rows, tmp_path / "a.png", best_epoch=17, title="digits")
    texts = drawn.texts()
    assert {"digits", "Dots and numbers: the best epoch, 17 of 40"} <= set(texts)
    assert "Loss, on a log scale" in texts
    assert "best: epoch 17" in texts
    assert f"train {rows[16]['train_loss']:.3f}" in texts
    assert f"valid {rows[16]['valid_loss']:.3f}" in texts
    # the scores share a panel; log loss is the loss already drawn, and the rate never changed
    assert [axes.get_yscale() for axes in drawn.figure.axes] == ["log", "linear"]
    assert f"top-3 accuracy {rows[16]['valid_top3_accuracy']:.3f}" in texts
    assert f"AUROC {rows[16]['valid_auroc']:.3f}" in texts
    assert not [text for text in texts if "log loss" in text or "Learning rate" in text]
    drawn.assert_legible()


def test_regression(tmp_path: Path, drawn: Drawn) -> None:
    rows = regression(20)
    learning_curves(rows, tmp_path / "a.png", best_epoch=20, title="housing")
    texts = drawn.texts()
    titles = ["Loss", "Validation errors", "Validation R²", "Learning rate, on a log scale"]
    assert [text for text in texts if text in titles] == titles
    assert f"RMSE {rows[-1]['valid_rmse']:.3f}" in texts
    assert not [text for text in texts if "MSE" in text.replace("RMSE", "")]  # it is the loss
    assert "1 off the scale, down to −500" in texts
    r2 = drawn.figure.axes[2]
    assert r2.get_ylim()[0] > -5
    drawn.assert_legible()


@pytest.mark.parametrize("rows", [classification(1), regression(1), [{"epoch": 7, "train_loss": 0.0}]])
def test_one_epoch(tmp_path: Path, drawn: Drawn, rows: list[Row]) -> None:
    learning_curves(rows, tmp_path / "a.png", best_epoch=1)
    epoch = rows[0]["epoch"]
    assert f"Epoch {epoch}, the only one" in drawn.texts()
    assert not [text for text in drawn.texts() if text.startswith("best")]
    for axes in drawn.figure.axes:
        assert axes.get_xlim() == (epoch - 0.5, epoch + 0.5)
        low, high = axes.get_ylim()
        assert all(low < y < high for line in axes.lines for y in points(line)[1])
        assert [tick for tick in axes.get_xticks() if abs(tick - epoch) <= 0.5] == [epoch]
    drawn.assert_legible()


@pytest.mark.parametrize("epochs", [2, 13, 1000])
def test_histories_of_any_length(tmp_path: Path, drawn: Drawn, epochs: int) -> None:
    learning_curves(classification(epochs), tmp_path / "a.png", best_epoch=max(1, epochs // 2), title="any length")
    drawn.assert_legible()


def test_without_a_best_epoch_the_last_is_numbered(tmp_path: Path, drawn: Drawn) -> None:
    learning_curves([{"epoch": e, "train_loss": 1 / e + 0.3} for e in range(1, 9)], tmp_path / "a.png")
    assert drawn.texts()[0] == "Dots and numbers: the last epoch, 8"
    assert "train 0.425" in drawn.texts()
    assert len(drawn.figure.axes) == 1


@pytest.mark.parametrize("best", [1, 20, 37, 40])
def test_the_best_epoch_is_labelled_inside_the_panel(tmp_path: Path, drawn: Drawn, best: int) -> None:
    learning_curves(classification(40), tmp_path / "a.png", best_epoch=best)
    axes = drawn.figure.axes[0]
    label = next(text for text in axes.texts if text.get_text() == f"best: epoch {best}")
    box = label.get_window_extent()
    assert axes.bbox.x0 <= box.x0
    assert box.x1 <= axes.bbox.x1
    assert axes.bbox.y0 <= box.y0
    assert box.y1 <= axes.bbox.y1


def test_the_dots_are_at_the_best_epoch(tmp_path: Path, drawn: Drawn) -> None:
    rows = classification(30)
    learning_curves(rows, tmp_path / "a.png", best_epoch=11)
    dots = [points(line) for line in drawn.figure.axes[0].lines if len(points(line)[0]) == 1]
    assert dots == [([11], [rows[10]["train_loss"]]), ([11], [rows[10]["valid_loss"]])]


@pytest.mark.parametrize(
    ("losses", "scale"),
    [
        ([1.0, 0.5, 0.2], "linear"),
        ([1.0, 0.5, 0.05], "log"),
        ([1.0, -9.0, 0.01], "linear"),
        ([1.0, 0.5, 0.0], "linear"),
    ],
)
def test_a_loss_that_spans_a_decade_is_on_a_log_scale(
    tmp_path: Path, drawn: Drawn, losses: list[float], scale: str
) -> None:
    learning_curves([{"epoch": e, "train_loss": v} for e, v in enumerate(losses, 1)], tmp_path / "a.png")
    assert drawn.figure.axes[0].get_yscale() == scale


def test_a_diverged_training_is_drawn_as_far_as_it_went(tmp_path: Path, drawn: Drawn) -> None:
    losses = [1.2, 0.9, 1e30, math.nan, math.inf]
    rows: list[Row] = [
        {"epoch": e, "train_loss": v, "valid_loss": None, "valid_f1": math.nan} for e, v in enumerate(losses, 1)
    ]
    learning_curves(rows, tmp_path / "a.png")
    assert "Dots and numbers: the last epoch, 5; 2 epochs without a finite loss" in drawn.texts()
    assert "train 1.0e+30" in drawn.texts()
    drawn.assert_legible()


def test_metrics_measured_now_and_then(tmp_path: Path, drawn: Drawn) -> None:
    rows = [
        {"epoch": e, "train_loss": 1 / e} | ({"valid_accuracy": e / 10} if e % 3 == 0 else {}) for e in range(1, 10)
    ]
    learning_curves(rows, tmp_path / "a.png", best_epoch=6)
    assert points(drawn.figure.axes[1].lines[0])[0] == [3, 6, 9]
    assert "0.600" in drawn.texts()


def test_many_metrics_of_any_name(tmp_path: Path, drawn: Drawn) -> None:
    rows = [
        {"epoch": e, "train_loss": 1 / e, "lr": 1 / e}
        | {f"valid_share_{k}": k / 20 for k in range(9)}
        | {f"valid_large_{k}": 1e5 * k + e for k in range(1, 9)}
        | {"valid_cost in $_{": 12.0 + e, "valid_" + "long " * 20: 0.5}
        for e in range(1, 6)
    ]
    learning_curves(rows, tmp_path / "a.png", best_epoch=3, title="a title $ of \\frac " * 3)
    assert len(drawn.figure.axes) == 9
    assert [text for text in drawn.texts() if "more columns of the history are not drawn" in text]
    drawn.assert_legible()


def test_the_order_of_the_rows_does_not_matter(tmp_path: Path) -> None:
    rows = classification(12)
    shuffled = random.Random(0).sample(rows, len(rows))
    first = learning_curves(rows, tmp_path / "a.png", best_epoch=3).read_bytes()
    assert learning_curves(shuffled, tmp_path / "b.png", best_epoch=3).read_bytes() == first


def test_equal_input_gives_equal_bytes_whatever_the_theme(tmp_path: Path) -> None:
    before = dict(rcParams)
    rows = regression(15)
    first = learning_curves(rows, tmp_path / "a.png", best_epoch=9, title="bytes").read_bytes()
    dark: dict[Any, Any] = {
        "axes.facecolor": "black",
        "figure.facecolor": "black",
        "savefig.facecolor": "black",
        "text.color": "white",
        "axes.labelcolor": "white",
        "xtick.color": "white",
        "ytick.color": "white",
        "axes.grid": True,
        "grid.color": "red",
        "font.size": 20,
        "lines.linewidth": 7,
        "lines.marker": "x",
        "xtick.minor.visible": True,
        "figure.autolayout": True,
        "axes.spines.top": True,
        "figure.dpi": 300,
        "savefig.dpi": 300,
        "font.family": "serif",
    }
    with rc_context(dark):
        assert learning_curves(rows, tmp_path / "b.png", best_epoch=9, title="bytes").read_bytes() == first
    assert dict(rcParams) == before
    with Image.open(tmp_path / "a.png") as image:
        assert image.getpixel((2, 2))[:3] == (255, 255, 255)  # type: ignore[index]


def test_no_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"history: must have at least one row, got none\. No epoch was finished"):
        learning_curves([], tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("rows", [[{"epoch": 1}], [{"epoch": 1, "train_loss": math.nan, "valid_loss": None}]])
def test_no_finite_loss(tmp_path: Path, rows: list[Row]) -> None:
    with pytest.raises(DataError, match="history: must have a finite train_loss or valid_loss, got none"):
        learning_curves(rows, tmp_path / "a.png")


@pytest.mark.parametrize("row", [{}, {"epoch": None}, {"epoch": math.nan}])
def test_a_row_without_an_epoch(tmp_path: Path, row: Row) -> None:
    with pytest.raises(DataError, match=r"history, row 1: must have a number as its epoch, got (None|nan)"):
        learning_curves([{"epoch": 1, "train_loss": 1.0}, {"train_loss": 1.0, **row}], tmp_path / "a.png")


@pytest.mark.parametrize("heights", [[0.5], [0.5, 0.5, 0.5], [0.0, 0.01, 1.0, 0.99], [1.0] * 5, [0.2, 0.5, 0.9], []])
def test_labels_move_apart_and_no_farther_than_they_must(heights: list[float]) -> None:
    placed = _apart(heights, 0.1)
    order = np.argsort(heights, kind="stable")
    gaps = np.diff(np.array(placed)[order]) if heights else np.array([])
    assert (gaps >= 0.1 - 1e-12).all()
    assert all(-1e-12 <= height <= 1 + 1e-12 for height in placed)
    if heights and (np.diff(np.sort(heights)) >= 0.1).all():
        assert placed == pytest.approx(heights)
