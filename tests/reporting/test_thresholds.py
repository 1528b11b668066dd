"""ROC and precision-recall curves, and the most wrong rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import auc, average_precision_score, roc_auc_score

from stoker.metrics.scores import auroc
from stoker.reporting.thresholds import precision_recall, roc
from stoker.reporting.worst import most_wrong


def test_areas_are_those_of_scikit_learn_and_of_the_metric() -> None:
    rng = np.random.default_rng(0)
    positive = rng.random(3000) < 0.3
    scores = rng.normal(positive * 1.0, 1.0)
    curve, other = roc(scores, positive), precision_recall(scores, positive)
    assert curve is not None
    assert other is not None
    assert curve.area == pytest.approx(roc_auc_score(positive, scores))
    logits = torch.from_numpy(np.stack([-scores / 2, scores / 2], axis=1))
    assert curve.area == pytest.approx(auroc(logits, torch.from_numpy(positive).long()))
    assert other.area == pytest.approx(average_precision_score(positive, scores))
    assert other.base == pytest.approx(positive.mean())
    for one in (curve, other):
        assert len(one.x) <= 200
        assert (np.diff(one.x) >= 0).all()
    # thinned, it is still the curve
    assert auc(curve.x, curve.y) == pytest.approx(curve.area, abs=2e-3)
    assert (curve.x[0], curve.y[0], curve.x[-1], curve.y[-1]) == (0, 0, 1, 1)
    assert (other.x[0], other.x[-1]) == (0, 1)


def test_one_class_has_no_curve() -> None:
    for make in (roc, precision_recall):
        assert make(np.arange(3.0), np.ones(3, bool)) is None
        assert make(np.array([1.0, np.nan]), np.array([True, False])) is None


def test_the_most_wrong_numbers() -> None:
    preds, target = np.array([[1.0], [5.0], [np.nan], [0.0]]), np.array([[1.5], [1.0], [0.0], [-4.0]])
    assert most_wrong(preds, target, regression=True).tolist() == [2, 1, 3, 0]
    assert most_wrong(preds, target, regression=True, most=2).tolist() == [2, 1]


def test_the_most_wrong_classes_are_those_held_most_improbable() -> None:
    logits = np.array([[2.0, 0.0], [0.0, 1.0], [9.0, 0.0], [0.0, 9000.0], [0.0, 8000.0]])
    target = np.array([0, 0, 1, 0, 0])
    # the first is right; of the last two both probabilities of the true class are 0
    assert most_wrong(logits, target, regression=False).tolist() == [3, 4, 2, 1]
    assert most_wrong(logits[:1], target[:1], regression=False).tolist() == []
