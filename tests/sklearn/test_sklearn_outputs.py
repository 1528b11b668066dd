"""Several targets at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.datasets import load_iris, make_multilabel_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import cross_val_score
from sklearn.utils.class_weight import compute_sample_weight

from stoker import StokerClassifier, StokerRegressor
from stoker.errors import ConfigError, DataError
from stoker.sklearn.labels import Labels
from stoker.sklearn.weights import class_weights

X, y = load_iris(return_X_y=True)
names = np.array(["setosa", "versicolor", "virginica"])[y]
both = pd.DataFrame({"name": names, "large": np.where(X[:, 0] > 5.8, "yes", "no")})
EXACT: dict[str, Any] = {"precision": "64", "batch_size": None, "optimizer": "lbfgs", "epochs": 10, "random_state": 0}


def test_several_numbers_against_least_squares() -> None:
    Y = np.column_stack([X @ [1, 2, 3, 4], 1e4 * X[:, 0] ** 2 - 1e5, -1e-3 * X[:, 2] * X[:, 1]])
    found = StokerRegressor("linear", **EXACT).fit(X, Y).predict(X)
    truth = LinearRegression().fit(X, Y).predict(X)
    assert found.shape == (150, 3)
    assert (found - truth) / Y.std(axis=0) == pytest.approx(np.zeros((150, 3)), abs=1e-4)


def test_several_labels_are_several_heads() -> None:
    """One network, of which the linear one has nothing in common: it learns each label as if it were alone."""
    together = StokerClassifier("linear", **EXACT).fit(X, both)
    assert [classes.tolist() for classes in together.classes_] == [["setosa", "versicolor", "virginica"], ["no", "yes"]]
    found = together.predict(X)
    assert found.shape == (150, 2)
    assert (found == both.to_numpy()).mean(axis=0) == pytest.approx([1, 1], abs=0.03)
    proba = together.predict_proba(X)
    assert [part.shape for part in proba] == [(150, 3), (150, 2)]
    for place, part in enumerate(proba):
        assert part.sum(axis=1) == pytest.approx(1, abs=1e-12)
        assert np.array_equal(together.classes_[place][part.argmax(axis=1)], found[:, place])
        assert np.exp(together.predict_log_proba(X)[place]) == pytest.approx(part, abs=1e-12)


def test_the_loss_is_the_sum_over_labels() -> None:
    classifier = StokerClassifier("linear", optimizer="sgd", lr=1e-12, epochs=1, random_state=0).fit(X, both)
    proba = classifier.predict_proba(X)
    by_hand = sum(
        -np.log(part[np.arange(150), np.searchsorted(classes, both.iloc[:, place])]).mean()
        for place, (part, classes) in enumerate(zip(proba, classifier.classes_, strict=True))
    )
    assert classifier.loss_curve_[0] == pytest.approx(by_hand, rel=1e-5)


def test_labels_of_several_types_and_frames() -> None:
    mixed = pd.DataFrame({"name": names, "code": y + 5})
    classifier = StokerClassifier(hidden=(16,), epochs=20, lr=0.02, random_state=0).fit(X, mixed)
    assert classifier.classes_[1].tolist() == [5, 6, 7]
    assert (classifier.predict(X) == mixed.to_numpy()).mean() > 0.9
    assert classifier.predict(X)[0].tolist() == ["setosa", 5]
    again = StokerClassifier(hidden=(16,), epochs=20, lr=0.02, random_state=0).fit(X, pl.from_pandas(both))
    assert again.predict(X).dtype == object


def test_multilabel_indicators_as_a_forest_takes_them() -> None:
    A, B = make_multilabel_classification(400, n_classes=4, random_state=0)
    classifier = StokerClassifier(hidden=(32,), lr=0.01, epochs=20, random_state=0).fit(A[:300], B[:300])
    forest = RandomForestClassifier(random_state=0).fit(A[:300], B[:300])
    ours, theirs = (f1_score(B[300:], one.predict(A[300:]), average="macro") for one in (classifier, forest))
    assert ours > theirs - 0.05
    assert [part.shape for part in classifier.predict_proba(A)] == [part.shape for part in forest.predict_proba(A)]
    right = (classifier.predict(A[300:]) == B[300:]).all(axis=1)
    assert classifier.score(A[300:], B[300:]) == pytest.approx(right.mean())
    assert cross_val_score(classifier, A, B, cv=2, scoring="f1_macro").min() > 0.5


def test_weights_count_in_every_output() -> None:
    counts = np.random.default_rng(0).integers(0, 3, 150)
    settings: dict[str, Any] = {"precision": "64", "batch_size": None, "epochs": 10, "random_state": 0}
    twice = StokerClassifier(**settings).fit(X.repeat(counts, axis=0), both.to_numpy().repeat(counts, axis=0))
    weighted = StokerClassifier(**settings).fit(X, both, sample_weight=counts)
    for one, other in zip(weighted.predict_proba(X), twice.predict_proba(X), strict=True):
        assert one == pytest.approx(other, abs=1e-9)


BY_CLASS = [{"setosa": 3.0, "versicolor": 0.5, "virginica": 1.0}, {"no": 1.0, "yes": 2.0}]


@pytest.mark.parametrize("given", ["balanced", BY_CLASS])
def test_class_weights_multiply_over_outputs_as_in_scikit_learn(given: Any) -> None:
    labels = Labels.fit(both.to_numpy())
    found = class_weights(given, labels, labels.encode(both.to_numpy()), None)
    assert found == pytest.approx(compute_sample_weight(given, both.to_numpy()))
    settings: dict[str, Any] = {"epochs": 3, "random_state": 0}
    weighted = StokerClassifier(class_weight=given, **settings).fit(X, both)
    assert weighted.loss_curve_ != StokerClassifier(**settings).fit(X, both).loss_curve_
    if given != "balanced":
        with pytest.raises(ConfigError, match="class_weight: must be 2 dicts, one for each output, got 1"):
            StokerClassifier(class_weight=given[:1], **settings).fit(X, both)


def test_several_outputs_stop_early_by_all_of_them() -> None:
    classifier = StokerClassifier(patience=2, epochs=40, lr=0.05, random_state=0).fit(X, both)
    assert classifier.history_.monitor == "valid_loss"
    assert classifier.history_.stopped in {"patience", "finished"}


def test_what_is_refused() -> None:
    classifier = StokerClassifier(epochs=1, warm_start=True).fit(X, both)
    with pytest.raises(DataError, match=r"y: must have shape \[n, 2\], as at first, got \[150\]"):
        classifier.fit(X, names)
    with pytest.raises(DataError, match=r"y: must have shape \[n, 2\], as at first, got \[150, 3\]"):
        classifier.fit(X, np.column_stack([names, names, names]))
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        StokerClassifier(epochs=1).fit(X, X[:, :2])
    with pytest.raises(DataError, match=r"y: labels must be of one type, got several. Convert them to text"):
        StokerClassifier(epochs=1).fit(X, np.array(["a", 1, 2] * 50, dtype=object))
