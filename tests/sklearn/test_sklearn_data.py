"""What goes in and comes out: arrays, data frames, labels of every kind, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy.sparse import csr_array
from sklearn.datasets import load_iris
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.preprocessing import StandardScaler

from stoker import StokerClassifier, StokerRegressor
from stoker.errors import DataError, InputTypeError, SchemaError

X_iris, y_iris = load_iris(return_X_y=True)
QUICK: dict[str, Any] = {"epochs": 3, "hidden": (8,), "random_state": 0}


def homes(rows: int = 400, seed: int = 0) -> pl.DataFrame:
    """Numbers with gaps, text with gaps, a category with gaps, dates and booleans; the price follows from them."""
    rng = np.random.default_rng(seed)
    size = rng.uniform(20, 200, rows)
    kind = rng.choice(["flat", "house", "loft"], rows)
    heat = rng.choice(["gas", "oil"], rows)
    lift = rng.choice([True, False], rows)
    price = size + 60 * (kind == "loft") + 30 * (heat == "gas") + rng.normal(0, 2, rows)
    gaps = rng.random((rows, 3)) < 0.05
    return pl.DataFrame(
        {
            "size": [None if gone else value for gone, value in zip(gaps[:, 0], size.tolist(), strict=True)],
            "kind": [None if gone else value for gone, value in zip(gaps[:, 1], kind.tolist(), strict=True)],
            "heat": pl.Series(
                [None if gone else value for gone, value in zip(gaps[:, 2], heat.tolist(), strict=True)],
                dtype=pl.Enum(["gas", "oil"]),
            ),
            "lift": lift,
            "seen": pl.datetime_range(pl.datetime(2024, 1, 1), pl.datetime(2026, 1, 1), interval="1d", eager=True).head(
                rows
            ),
            "price": price,
        }
    )


def as_pandas(frame: pl.DataFrame) -> pd.DataFrame:
    data = {name: frame[name].to_list() for name in frame.columns}
    return pd.DataFrame(data).assign(heat=pd.Categorical(frame["heat"].to_list()))


CONVERT: dict[str, Any] = {"polars": pl.DataFrame, "pandas": as_pandas, "pyarrow": pl.DataFrame.to_arrow}
KINDS = {"size": "numeric", "kind": "categorical", "heat": "categorical", "lift": "boolean", "seen": "datetime"}


@pytest.mark.parametrize("library", CONVERT)
@pytest.mark.parametrize("model", ["mlp", "linear"])
def test_data_frames_with_text_categories_dates_and_gaps(library: str, model: str) -> None:
    table, test = homes(), homes(200, seed=1)
    X, X_test = CONVERT[library](table.drop("price")), CONVERT[library](test.drop("price"))
    regressor = StokerRegressor(model, random_state=0, lr=0.01).fit(X, table["price"])
    assert regressor.score(X_test, test["price"]) > 0.85
    assert list(regressor.feature_names_in_) == list(KINDS)
    assert regressor.n_features_in_ == 5
    schema = regressor.schema_
    assert schema is not None
    assert {column.name: column.kind for column in schema.columns} == KINDS
    # the kinds of home that were not in training are answered too
    unknown = test.with_columns(kind=pl.lit("castle")).drop("price")
    assert np.isfinite(regressor.predict(CONVERT[library](unknown))).all()


def test_libraries_agree() -> None:
    table = homes(100)
    found = [
        StokerRegressor(**QUICK).fit(convert(table.drop("price")), table["price"]).predict(convert(table.drop("price")))
        for convert in CONVERT.values()
    ]
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


def test_a_frame_of_numbers_is_the_same_as_its_array() -> None:
    array = StokerClassifier(**QUICK).fit(X_iris, y_iris)
    for frame in (pl.DataFrame(X_iris), pd.DataFrame(X_iris, columns=list("abcd"))):
        classifier = StokerClassifier(**QUICK).fit(frame, y_iris)
        assert classifier.schema_ is None
        assert np.array_equal(classifier.predict_proba(frame), array.predict_proba(X_iris))


def test_a_number_stays_a_number_beside_text() -> None:
    """Whatever its name says: one text column more must not change what the others mean."""
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"zip": rng.integers(0, 5, 80), "n": np.arange(80), "kind": rng.choice(["a", "b"], 80)})
    classifier = StokerClassifier(**QUICK).fit(frame, rng.integers(0, 2, 80))
    schema = classifier.schema_
    assert schema is not None
    assert [column.kind for column in schema.columns] == ["numeric", "numeric", "categorical"]


def test_features_are_standardised_as_scikit_learn_does_it() -> None:
    X = X_iris.copy()
    X[::7, 1] = np.nan
    X = np.column_stack([X, np.full(150, 3.0), np.full(150, np.nan)])
    classifier = StokerClassifier(**QUICK).fit(X, y_iris)
    encoder: Any = classifier.model_.encoder
    scaler = StandardScaler().fit(X_iris)
    assert encoder.mean[[0, 2, 3]].numpy() == pytest.approx(scaler.mean_[[0, 2, 3]], rel=1e-12)
    assert encoder.std[[0, 2, 3]].numpy() == pytest.approx(scaler.scale_[[0, 2, 3]], rel=1e-12)
    assert float(encoder.mean[1]) == pytest.approx(np.nanmean(X[:, 1]), rel=1e-12)
    assert float(encoder.std[1]) == pytest.approx(np.nanstd(X[:, 1]), rel=1e-12)
    assert encoder.mean[4:].tolist() == [3.0, 0.0]
    assert encoder.std[4:].tolist() == [1.0, 1.0]
    assert "x1 is missing" in encoder.feature_names
    assert np.isfinite(classifier.predict_proba(X)).all()


def test_a_target_far_from_zero_needs_no_scaler() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 3)) * [1, 1e3, 1e-3] + [0, 1e5, 7]
    y = 5e6 + 2e4 * rng.normal(size=400) * 0.05 + 2e4 * (X[:, 0] + (X[:, 1] - 1e5) / 1e3)
    regressor = StokerRegressor(random_state=0, lr=0.01).fit(X[:300], y[:300])
    assert regressor.score(X[300:], y[300:]) > 0.95
    assert regressor.predict(X).dtype == np.float64


LABELS: dict[str, Any] = {
    "text": np.array(["setosa", "versicolor", "virginica"])[y_iris],
    "objects": np.array(["setosa", "versicolor", "virginica"], dtype=object)[y_iris],
    "list": [["b", "a", "c"][code] for code in y_iris],
    "integers": 10 * y_iris + 7,
    "negative": y_iris - 5,
    "booleans": y_iris == 1,
    "floats": y_iris.astype(float),
    "pandas": pd.Series(["setosa", "versicolor", "virginica"]).take(y_iris).reset_index(drop=True),
    "categorical": pd.Series(pd.Categorical(np.array(["x", "y", "z"])[y_iris])),
    "polars": pl.Series(["setosa", "versicolor", "virginica"]).gather(y_iris),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_every_kind(kind: str) -> None:
    y = LABELS[kind]
    values = np.asarray(y)
    classifier = StokerClassifier(hidden=(16,), epochs=30, lr=0.01, random_state=0).fit(X_iris, y)
    assert classifier.classes_.tolist() == sorted(set(values.tolist()))
    found = classifier.predict(X_iris)
    assert found.shape == (150,)
    assert found.dtype.kind == classifier.classes_.dtype.kind == (values.dtype.kind if kind != "list" else "U")
    assert (found == values).mean() > 0.9
    assert classifier.score(X_iris, y) == (found == values).mean()
    proba = classifier.predict_proba(X_iris)
    assert proba.shape == (150, len(classifier.classes_))
    assert proba.sum(axis=1) == pytest.approx(1, abs=1e-12)
    assert np.array_equal(classifier.classes_[proba.argmax(axis=1)], found)
    assert classifier.predict_log_proba(X_iris) == pytest.approx(np.log(proba), abs=1e-9)


def test_a_column_of_labels_is_taken_with_a_warning_and_one_of_numbers_as_it_is() -> None:
    with pytest.warns(DataConversionWarning, match="A column-vector y was passed"):
        classifier = StokerClassifier(**QUICK).fit(X_iris, y_iris[:, None])
    assert classifier.predict(X_iris).shape == (150,)
    regressor = StokerRegressor(**QUICK).fit(X_iris, y_iris[:, None])
    assert regressor.predict(X_iris).shape == (150, 1)
    assert np.array_equal(regressor.predict(X_iris)[:, 0], StokerRegressor(**QUICK).fit(X_iris, y_iris).predict(X_iris))


def test_columns_of_no_use_are_told() -> None:
    frame = homes(60).drop("price").with_columns(note=pl.Series([f"note {i}" for i in range(60)]), town=pl.lit("Ulm"))
    with pytest.warns(UserWarning, match=r"X: columns left out: 'note' \(identifier-like.*; 'town' \(constant"):
        StokerRegressor(**QUICK).fit(frame, np.arange(60.0))
    with pytest.raises(SchemaError, match="must have a feature that varies"):
        StokerRegressor(**QUICK).fit(frame.select("town"), np.arange(60.0))


def test_what_is_refused() -> None:
    table = homes(80)
    X = table.drop("price")
    regressor = StokerRegressor(**QUICK).fit(X, table["price"])
    with pytest.raises(InputTypeError, match=r"X: must be a data frame, as it was in fit, got numpy.ndarray. Make one"):
        regressor.predict(X_iris)
    with pytest.raises(ValueError, match="feature names should match those that were passed during fit"):
        regressor.predict(X.rename({"kind": "sort"}))
    with pytest.raises(ValueError, match="Feature names seen at fit time, yet now missing"):
        regressor.predict(X.drop("lift"))
    with pytest.raises(ValueError, match="X has 3 features, but StokerClassifier is expecting 4"):
        StokerClassifier(**QUICK).fit(X_iris, y_iris).predict(X_iris[:, :3])
    with pytest.raises(DataError, match=r"X: an array must hold numbers, got '\w+'. Text goes into a data frame"):
        StokerRegressor(**QUICK).fit(X.select("kind", "size").to_numpy(), table["price"])
    with pytest.raises(TypeError, match="Sparse data was passed"):
        StokerClassifier(**QUICK).fit(csr_array(X_iris), y_iris)
    with pytest.raises(ValueError, match="Input X contains infinity"):
        StokerClassifier(**QUICK).fit(np.where(X_iris > 5, np.inf, X_iris), y_iris)
    with pytest.raises(ValueError, match="Input y contains NaN"):
        StokerRegressor(**QUICK).fit(X_iris, np.where(y_iris > 1, np.nan, y_iris))
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        StokerClassifier(**QUICK).fit(X_iris, X_iris[:, 0])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        StokerClassifier(**QUICK).fit(X_iris, y_iris[:-1])
    with pytest.raises(NotFittedError, match="This StokerClassifier instance is not fitted yet"):
        StokerClassifier().predict(X_iris)
