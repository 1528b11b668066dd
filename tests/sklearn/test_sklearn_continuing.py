"""Going on: partial_fit, warm_start, pickles and copies; and the same seed gives the same bits."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import polars as pl
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.exceptions import NotFittedError

from stoker import StokerClassifier, StokerRegressor
from stoker.errors import ConfigError, DataError, NonFiniteLossError, SplitError

X, y = load_iris(return_X_y=True)
names = np.array(["setosa", "versicolor", "virginica"])[y]
X_diabetes, y_diabetes = load_diabetes(return_X_y=True)
QUICK: dict[str, Any] = {"epochs": 3, "hidden": (8,), "dropout": 0.1, "random_state": 0}


def same(one: Any, other: Any, rows: Any = X) -> bool:
    methods = [method for method in ("predict", "predict_proba") if hasattr(one, method)]
    pairs = [(getattr(one, method)(rows), getattr(other, method)(rows)) for method in methods]
    return all(np.array_equal(*parts) for found in pairs for parts in zip(*found, strict=True))


ESTIMATORS = [
    pytest.param(StokerClassifier(**QUICK), names, id="classifier"),
    pytest.param(StokerRegressor(**QUICK), X[:, 0], id="regressor"),
    pytest.param(StokerClassifier(**QUICK), np.column_stack([names, y == 1]), id="two outputs"),
]


@pytest.mark.parametrize(("estimator", "target"), ESTIMATORS)
class TestTheSameBits:
    def test_from_the_same_seed(self, estimator: Any, target: Any) -> None:
        first = clone(estimator).fit(X, target)
        assert same_weights(first, clone(estimator).fit(X, target))
        assert not same_weights(first, clone(estimator).set_params(random_state=1).fit(X, target))
        again = clone(estimator).set_params(random_state=np.random.RandomState(0)).fit(X, target)
        assert same_weights(first, again)

    def test_without_a_seed_each_is_another(self, estimator: Any, target: Any) -> None:
        free = clone(estimator).set_params(random_state=None)
        assert not same_weights(clone(free).fit(X, target), clone(free).fit(X, target))

    def test_nothing_ambient_is_read_or_changed(self, estimator: Any, target: Any) -> None:
        before = torch.get_rng_state()
        first = clone(estimator).fit(X, target)
        first.predict(X)
        assert torch.equal(before, torch.get_rng_state())
        torch.manual_seed(5)
        assert same_weights(first, clone(estimator).fit(X, target))

    def test_warm_start_goes_on_where_it_stood(self, estimator: Any, target: Any) -> None:
        at_once = clone(estimator).set_params(epochs=5).fit(X, target)
        warm = clone(estimator).set_params(warm_start=True).fit(X, target)
        warm.set_params(epochs=2).fit(X, target)
        assert same_weights(at_once, warm)
        assert warm.loss_curve_ == at_once.loss_curve_
        assert warm.n_iter_ == len(warm.history_) == 5
        assert warm.history_.column("epoch") == [1, 2, 3, 4, 5]

    def test_partial_fit_is_one_epoch(self, estimator: Any, target: Any) -> None:
        at_once = clone(estimator).fit(X, target)
        partial = clone(estimator)
        classes = {"classes": at_once.classes_} if hasattr(at_once, "classes_") else {}
        for _ in range(3):
            assert partial.partial_fit(X, target, **classes) is partial
        assert same_weights(at_once, partial)
        assert partial.n_iter_ == 3

    def test_a_pickle_predicts_and_goes_on_as_it_would_have(self, estimator: Any, target: Any, tmp_path: Path) -> None:
        fitted = clone(estimator).set_params(warm_start=True).fit(X, target)
        stored = pickle.dumps(fitted)
        joblib.dump(fitted, tmp_path / "model.joblib")
        copies = [pickle.loads(stored), joblib.load(tmp_path / "model.joblib"), copy.deepcopy(fitted)]
        for other in copies:
            assert same(fitted, other)
        fitted.fit(X, target)
        for other in copies:
            assert same_weights(fitted, other.fit(X, target))

    def test_a_clone_is_not_fitted_and_has_the_same_parameters(self, estimator: Any, target: Any) -> None:
        fitted = clone(estimator).fit(X, target)
        fresh = clone(fitted)
        assert not hasattr(fresh, "model_")
        assert fresh.get_params() == fitted.get_params()
        assert same_weights(fitted, fresh.fit(X, target))


def same_weights(one: Any, other: Any) -> bool:
    state, others = one.model_.state_dict(), other.model_.state_dict()
    return state.keys() == others.keys() and all(torch.equal(state[name], others[name]) for name in state)


def test_continuing_keeps_the_encoder_and_the_moments() -> None:
    regressor: Any = StokerRegressor(warm_start=True, **QUICK).fit(X, X[:, 0])
    mean = regressor.model_.encoder.mean.clone()
    moments = regressor._moments[1][0]["exp_avg"].clone()
    regressor.fit(X + 10, X[:, 0])
    assert torch.equal(regressor.model_.encoder.mean, mean)
    assert not torch.equal(regressor._moments[1][0]["exp_avg"], moments)
    assert float(regressor._moments[1][0]["step"]) == 2 * 3 * 5


def test_warm_start_takes_new_settings_of_training() -> None:
    classifier = StokerClassifier(warm_start=True, **QUICK).fit(X, y)
    classifier.set_params(lr=1e-5, optimizer="sgd", epochs=1).fit(X, y)
    assert classifier.history_.column("lr") == pytest.approx([1e-3] * 3 + [1e-5])


def test_optimizers_whose_step_is_a_search_go_on_as_well() -> None:
    settings: dict[str, Any] = {**QUICK, "optimizer": "lbfgs", "lr": 0.1, "batch_size": None, "dropout": 0.0}
    at_once = StokerClassifier(**{**settings, "epochs": 4}).fit(X, y)
    warm = StokerClassifier(warm_start=True, **{**settings, "epochs": 2}).fit(X, y)
    warm = pickle.loads(pickle.dumps(warm)).fit(X, y)
    assert same_weights(at_once, warm)


def test_partial_fit_learns_from_a_stream() -> None:
    rng = np.random.default_rng(0)
    classifier = StokerClassifier(hidden=(16,), lr=0.01, random_state=0)
    for start in range(60):
        rows = rng.integers(0, 150, 30)
        classes = np.unique(names) if start == 0 else None
        classifier.partial_fit(X[rows], names[rows], classes=classes)
    assert classifier.score(X, names) > 0.9


def test_partial_fit_knows_classes_that_come_later() -> None:
    classifier = StokerClassifier(**QUICK)
    classifier.partial_fit(X[:100], names[:100], classes=["virginica", "versicolor", "setosa"])
    assert classifier.classes_.tolist() == ["setosa", "versicolor", "virginica"]
    assert classifier.predict_proba(X).shape == (150, 3)
    classifier.partial_fit(X[100:], names[100:])


def test_what_cannot_be_gone_on_with() -> None:
    with pytest.raises(ConfigError, match="classes: must be passed on the first call to partial_fit"):
        StokerClassifier(**QUICK).partial_fit(X, y)
    with pytest.raises(ConfigError, match="classes: must name the classes of each output"):
        StokerClassifier(**QUICK).partial_fit(X, y, classes=[])
    with pytest.raises(ConfigError, match="class_weight: must be known beforehand for partial_fit, got balanced"):
        StokerClassifier(class_weight="balanced", **QUICK).partial_fit(X, y, classes=[0, 1, 2])
    classifier = StokerClassifier(warm_start=True, **QUICK).partial_fit(X, y, classes=[0, 1, 2])
    with pytest.raises(ConfigError, match="classes: must be the same in every call"):
        classifier.partial_fit(X, y, classes=[0, 1, 2, 3])
    with pytest.raises(DataError, match=r"y, row 7: must be one of the classes, got '9'. The classes: '0', '1', '2'"):
        classifier.partial_fit(X, np.where(np.arange(150) == 7, 9, y))
    with pytest.raises(DataError, match=r"y: must have shape \[n\], as at first, got \[150, 2\]. Set warm_start"):
        classifier.fit(X, np.column_stack([y, y]))
    with pytest.raises(ValueError, match="X has 3 features, but StokerClassifier is expecting 4"):
        classifier.fit(X[:, :3], y)
    regressor = StokerRegressor(**QUICK).partial_fit(X, X[:, :2])
    with pytest.raises(DataError, match=r"y: must have shape \[n, 2\], as at first, got \[150, 3\]"):
        regressor.partial_fit(X, X[:, :3])


def test_patience_keeps_the_best_epoch_and_holds_rows_back() -> None:
    settings: dict[str, Any] = {"epochs": 200, "patience": 3, "hidden": (64,), "lr": 0.01, "random_state": 0}
    regressor = StokerRegressor(validation_fraction=0.2, **settings).fit(X_diabetes, y_diabetes)
    assert regressor.history_.stopped == "patience"
    assert regressor.n_iter_ < 200
    losses = regressor.history_.column("valid_loss")
    assert regressor.history_.best_epoch == 1 + int(np.argmin(losses)) == regressor.n_iter_ - 3
    # features are scaled by the rows that are trained on alone
    encoder: Any = regressor.model_.encoder
    assert float(encoder.mean[0]) != pytest.approx(X_diabetes[:, 0].mean(), abs=1e-9)
    with pytest.raises(SplitError, match="split: must leave rows to train on"):
        StokerRegressor(validation_fraction=442, **settings).fit(X_diabetes, y_diabetes)


def test_patience_with_a_class_that_is_there_once() -> None:
    rare = np.where(np.arange(150) == 3, 9, y)
    StokerClassifier(**{**QUICK, "patience": 1}).fit(X, rare)


def test_a_loss_that_becomes_nan_is_an_error_and_what_was_not_trained_is_not_fitted() -> None:
    regressor = StokerRegressor(lr=1e30, optimizer="sgd", **QUICK)
    with pytest.raises(NonFiniteLossError, match="must be finite"):
        regressor.fit(X, X[:, 0])
    with pytest.raises(NotFittedError):
        regressor.predict(X)
    with pytest.raises(ConfigError, match="AdamW refused its settings"):
        StokerRegressor(lr=-1.0, **QUICK).fit(X, X[:, 0])
    # what was trained before stays so
    warm = StokerRegressor(warm_start=True, **QUICK).fit(X, X[:, 0])
    before = warm.predict(X)
    with pytest.raises(NonFiniteLossError):
        warm.set_params(lr=1e30, optimizer="sgd").fit(X, X[:, 0])
    assert np.array_equal(warm.predict(X), before)


def test_an_interruption_is_told_and_what_is_trained_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    import signal

    interrupting = torch.nn.Sequential(torch.nn.Linear(4, 3))
    calls = iter(range(100))
    interrupting.register_forward_hook(lambda *_: signal.raise_signal(signal.SIGINT) if next(calls) == 12 else None)
    classifier = StokerClassifier(interrupting, epochs=50, random_state=0)
    with pytest.warns(UserWarning, match=r"interrupted by user after \d of 50 epochs; what is trained is kept"):
        classifier.fit(X, y)
    assert classifier.history_.stopped == "interrupted"
    assert classifier.predict(X).shape == (150,)


def test_a_frame_survives_a_pickle() -> None:
    frame = pl.DataFrame({"a": X[:, 0], "kind": names})
    regressor = StokerRegressor(**QUICK).fit(frame, X[:, 1])
    assert same(regressor, pickle.loads(pickle.dumps(regressor)), frame)


def test_verbose_shows_progress_and_the_default_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    StokerClassifier(**QUICK).fit(X, y)
    quiet = capsys.readouterr()
    assert quiet.out + quiet.err == ""
    StokerClassifier(verbose=True, **QUICK).fit(X, y)
    loud = capsys.readouterr()
    assert "3" in loud.out + loud.err
