"""Calibration beside scikit-learn's, and temperatures beside what they undo."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss

from stoker.errors import DataError
from stoker.reporting.calibration import calibration, fit_temperature, probabilities


def drawn(n: int, classes: int, sharper: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Targets drawn from a softmax, and its logits made sharper than they should be."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (n, classes))
    target = np.array([rng.choice(classes, p=row) for row in probabilities(logits)])
    return logits * sharper, target


@pytest.mark.parametrize("n", [30, 2000])
def test_the_curve_of_two_classes_is_that_of_scikit_learn(n: int) -> None:
    logits, target = drawn(n, 2, 1.4)
    found = calibration(logits, target)
    share, mean = calibration_curve(target, probabilities(logits)[:, 1], n_bins=15, strategy="uniform")
    assert found.share == pytest.approx(share)
    assert found.mean == pytest.approx(mean)
    assert found.count.sum() == n


def test_the_curve_of_several_classes_is_of_the_confidence() -> None:
    logits, target = drawn(3000, 4, 1.5)
    table = probabilities(logits)
    share, mean = calibration_curve(table.argmax(1) == target, table.max(1), n_bins=15, strategy="uniform")
    found = calibration(logits, target)
    assert found.share == pytest.approx(share)
    assert found.mean == pytest.approx(mean)
    assert found.error == pytest.approx((found.count * abs(share - mean)).sum() / 3000)
    assert found.error > 0.05  # it is too sure of itself
    assert calibration(*drawn(3000, 4, 1.0)).error < 0.03


def test_the_error_by_hand() -> None:
    p = np.array([0.1, 0.1, 0.9, 0.9])  # two bins: 0.1 comes true half the time, 0.9 always
    logits = np.stack([np.log(1 - p), np.log(p)], axis=1)
    assert calibration(logits, np.array([0, 1, 1, 1])).error == pytest.approx(0.5 * 0.4 + 0.5 * 0.1)


@pytest.mark.parametrize(("classes", "sharper"), [(2, 2.5), (5, 3.0), (3, 0.5)])
def test_a_temperature_undoes_what_sharpened(classes: int, sharper: float) -> None:
    logits, target = drawn(6000, classes, sharper)
    temperature = fit_temperature(logits, target)
    assert temperature == pytest.approx(sharper, rel=0.08)

    def loss(t: float) -> float:
        return float(log_loss(target, probabilities(logits, t), labels=list(range(classes))))

    assert all(loss(temperature) < loss(temperature * factor) for factor in (0.5, 0.98, 1.02, 2))
    assert calibration(logits, target, temperature=temperature).error < calibration(logits, target).error
    assert (probabilities(logits, temperature).argmax(1) == logits.argmax(1)).all()


def test_if_every_row_is_right_it_stops_at_the_coldest() -> None:
    assert fit_temperature(np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([1, 0])) == pytest.approx(0.05, rel=0.01)


def test_large_logits_do_not_overflow() -> None:
    table = probabilities(np.array([[1e5, -1e5], [-1e308, 1e308]]))
    assert table.tolist() == [[1, 0], [0, 1]]


def test_rows_without_finite_outputs_are_refused() -> None:
    for call in (calibration, fit_temperature):
        with pytest.raises(DataError, match="needs rows with finite outputs, got NaN or infinity"):
            call(np.array([[np.nan, 0.0]]), np.array([0]))
        with pytest.raises(DataError, match="needs rows with finite outputs, got none"):
            call(np.zeros((0, 2)), np.zeros(0, int))
