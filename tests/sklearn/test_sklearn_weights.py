"""Weights of samples and of classes, against rows that are there twice and against scikit-learn."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes, load_iris, make_classification
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.utils.class_weight import compute_sample_weight

from stoker import StokerClassifier, StokerRegressor
from stoker.errors import ConfigError, DataError, InputTypeError, UnknownNameError

X_iris, y_iris = load_iris(return_X_y=True)
X_diabetes, y_diabetes = load_diabetes(return_X_y=True)
QUICK: dict[str, Any] = {"epochs": 3, "hidden": (8,), "random_state": 0}
EXACT: dict[str, Any] = {"precision": "64", "batch_size": None, "epochs": 20, "lr": 0.01, "random_state": 0}
LBFGS = partial(torch.optim.LBFGS, line_search_fn="strong_wolfe", tolerance_grad=1e-12, tolerance_change=0.0)


@pytest.fixture
def counts() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 4, 150)


@pytest.mark.parametrize("scale", [1.0, 1e-3, 50.0])
def test_a_weight_of_two_is_the_sample_twice(counts: np.ndarray[Any, Any], scale: float) -> None:
    X, y = X_iris.repeat(counts, axis=0), y_iris.repeat(counts)
    twice = StokerClassifier(**EXACT).fit(X, y)
    weighted = StokerClassifier(**EXACT).fit(X_iris, y_iris, sample_weight=scale * counts)
    assert weighted.predict_proba(X_iris) == pytest.approx(twice.predict_proba(X_iris), abs=1e-9)
    assert weighted.loss_curve_ == pytest.approx(twice.loss_curve_, rel=1e-9)
    numbers = StokerRegressor(**EXACT).fit(X, X[:, 0] * 100 + y)
    weighed = StokerRegressor(**EXACT).fit(X_iris, X_iris[:, 0] * 100 + y_iris, sample_weight=scale * counts)
    assert weighed.predict(X_iris) == pytest.approx(numbers.predict(X_iris), rel=1e-9)


def test_in_32_bits_it_is_so_but_for_rounding(counts: np.ndarray[Any, Any]) -> None:
    settings = {**EXACT, "precision": "32"}
    twice = StokerClassifier(**settings).fit(X_iris.repeat(counts, axis=0), y_iris.repeat(counts))
    weighted = StokerClassifier(**settings).fit(X_iris, y_iris, sample_weight=counts)
    assert weighted.predict_proba(X_iris) == pytest.approx(twice.predict_proba(X_iris), abs=1e-5)


def test_a_weight_of_zero_is_no_sample_to_the_last_bit(counts: np.ndarray[Any, Any]) -> None:
    """In batches too, and for all that is learnt from the data."""
    there = counts > 0
    X = np.where(there[:, None], X_iris, 1e6)
    removed = StokerClassifier(**QUICK).fit(X_iris[there], y_iris[there], sample_weight=np.ones(there.sum()))
    weighted = StokerClassifier(**QUICK).fit(X, y_iris, sample_weight=there)
    assert np.array_equal(weighted.predict_proba(X_iris), removed.predict_proba(X_iris))


def test_equal_weights_are_none(counts: np.ndarray[Any, Any]) -> None:
    none = StokerRegressor(**QUICK).fit(X_diabetes, y_diabetes)
    equal = StokerRegressor(**QUICK).fit(X_diabetes, y_diabetes, sample_weight=7.0)
    assert equal.predict(X_diabetes) == pytest.approx(none.predict(X_diabetes), rel=1e-5)


def test_a_linear_model_is_weighted_least_squares() -> None:
    weights = np.random.default_rng(0).uniform(0, 3, len(y_diabetes))
    settings: dict[str, Any] = {**EXACT, "optimizer": LBFGS, "lr": None, "epochs": 30}
    truth = LinearRegression().fit(X_diabetes, y_diabetes, sample_weight=weights).predict(X_diabetes)
    found = StokerRegressor("linear", **settings).fit(X_diabetes, y_diabetes, sample_weight=weights)
    assert found.predict(X_diabetes) == pytest.approx(truth, rel=1e-6)  # the encoder rounds to 32 bits
    unweighted = LinearRegression().fit(X_diabetes, y_diabetes).predict(X_diabetes)
    assert np.abs(unweighted - truth).max() > 5


@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 5.0, 1: 0.5}, {1: 3.0}])
def test_a_linear_model_is_weighted_logistic_regression(class_weight: Any) -> None:
    X, y = make_classification(300, 5, n_redundant=0, flip_y=0.2, weights=[0.8], random_state=0)
    weights = np.random.default_rng(0).uniform(0, 3, 300)
    truth = LogisticRegression(C=np.inf, class_weight=class_weight, tol=1e-10, solver="newton-cholesky")
    settings: dict[str, Any] = {**EXACT, "optimizer": LBFGS, "lr": None, "epochs": 10, "class_weight": class_weight}
    found = StokerClassifier("linear", **settings).fit(X, y, sample_weight=weights)
    wanted = truth.fit(X, y, sample_weight=weights).predict_proba(X)
    assert found.predict_proba(X) == pytest.approx(wanted, abs=1e-6)  # the encoder rounds to 32 bits


def test_balanced_is_scikit_learns() -> None:
    y = np.where(np.arange(150) % 10 == 0, "rare", "usual")
    balanced = StokerClassifier(class_weight="balanced", **QUICK).fit(X_iris, y)
    as_weights = compute_sample_weight("balanced", y)
    by_class = {label: float(as_weights[y == label][0]) for label in ("rare", "usual")}
    as_dict = StokerClassifier(class_weight=by_class, **QUICK).fit(X_iris, y)
    assert balanced.predict_proba(X_iris) == pytest.approx(as_dict.predict_proba(X_iris), abs=1e-6)
    plain = StokerClassifier(**QUICK).fit(X_iris, y)
    assert balanced.loss_curve_ != pytest.approx(plain.loss_curve_, rel=0.05)


def test_validation_rows_are_weighed_too() -> None:
    weights = np.where(y_iris == 0, 10.0, 0.1)
    classifier = StokerClassifier(patience=2, validation_fraction=0.3, **QUICK).fit(X_iris, y_iris, weights)
    assert len(classifier.history_.column("valid_loss")) == classifier.n_iter_ == 3
    plain = StokerClassifier(patience=2, validation_fraction=0.3, **QUICK).fit(X_iris, y_iris)
    assert classifier.history_[-1]["valid_loss"] != pytest.approx(plain.history_[-1]["valid_loss"], rel=0.05)


def test_what_is_refused() -> None:
    classifier = StokerClassifier(**QUICK)
    with pytest.raises(DataError, match=r"sample_weight: must have one weight for each of 150 samples, got \[149\]"):
        classifier.fit(X_iris, y_iris, np.ones(149))
    with pytest.raises(DataError, match=r"sample_weight, row 3: must not be negative, got -1.0. Use 0 to leave"):
        classifier.fit(X_iris, y_iris, np.where(np.arange(150) == 3, -1.0, 1.0))
    with pytest.raises(DataError, match="sample_weight: must not be zero for all samples"):
        classifier.fit(X_iris, y_iris, np.zeros(150))
    with pytest.raises(ValueError, match="Input sample_weight contains NaN"):
        classifier.fit(X_iris, y_iris, np.full(150, np.nan))
    with pytest.raises(UnknownNameError, match=r"class_weight: must be one of the known names, got .*Known: 0, 1, 2"):
        StokerClassifier(class_weight={3: 1.0}, **QUICK).fit(X_iris, y_iris)
    with pytest.raises(ConfigError, match=r'class_weight: must be "balanced", a dict .* got 3.0. Such as'):
        StokerClassifier(class_weight=3.0, **QUICK).fit(X_iris, y_iris)
    with pytest.raises(ConfigError, match="class_weight: must not be negative, nor all zero"):
        StokerClassifier(class_weight={0: -1.0}, **QUICK).fit(X_iris, y_iris)
    with pytest.raises(ConfigError, match="class_weight: must not be zero for all samples"):
        StokerClassifier(class_weight={0: 0.0}, **QUICK).fit(X_iris, y_iris, y_iris == 0)
    with pytest.raises(InputTypeError, match="sample_weight: needs a criterion with a reduction"):
        StokerRegressor(loss=lambda outputs, targets: (outputs - targets).abs().mean(), **QUICK).fit(
            X_iris, y_iris, np.ones(150)
        )
