from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from stoker.data.dataset import ImageSet, Table
from stoker.data.sources.objects import from_object, labels_from
from stoker.errors import DataError, InputTypeError, SchemaError

X = np.array([[1.0, 2.0], [3.0, np.nan], [5.0, 6.0]])
IMAGES = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)


def table(source: Any, target: str | None = None) -> Table:
    data = from_object(source, target=target)
    assert isinstance(data, Table)
    return data


def images(source: Any) -> ImageSet:
    data = from_object(source)
    assert isinstance(data, ImageSet)
    return data


@pytest.mark.parametrize("source", [X, torch.from_numpy(X), X.astype(np.float32), np.asfortranarray(X)])
def test_arrays_get_numbered_columns(source: Any) -> None:
    data = table(source)
    assert data.frame.to_dict(as_series=False) == {"x0": [1, 3, 5], "x1": [2, None, 6]}
    assert (data.target, data.task, data.test) == (None, None, None)
    assert data.provenance.rows == len(data) == 3
    assert data.provenance.name == "data"


def test_structured_arrays_and_dicts() -> None:
    records = np.array([(1, "x", 0.5), (2, "y", np.nan)], dtype=[("a", "i4"), ("b", "U1"), ("c", "f8")])
    expected = {"a": [1, 2], "b": ["x", "y"], "c": [0.5, None]}
    assert table(records).frame.to_dict(as_series=False) == expected
    assert table(records.view(np.recarray)).frame.to_dict(as_series=False) == expected
    columns = {"a": torch.tensor([1, 2]), "b": ["x", "y"], "c": np.array([0.5, np.nan])}
    assert table(columns).frame.to_dict(as_series=False) == expected


def test_pairs_of_arrays() -> None:
    data = table((X, [0, 1, 0]))
    assert data.frame.columns == ["x0", "x1", "y"]
    assert data.target == "y"
    assert data.provenance.origin == "(numpy.ndarray, list)"
    assert table((torch.from_numpy(X), torch.tensor([[0], [1], [0]]))).frame["y"].to_list() == [0, 1, 0]
    assert table((X, np.array(["a", "b", "a"])), target="kind").target == "kind"


def test_pairs_with_names_of_their_own() -> None:
    features = pl.DataFrame({"a": [1, 2], "b": [3, 4]})
    assert table((features, pl.Series("price", [1.0, 2.0]))).frame.columns == ["a", "b", "price"]
    assert table((features, pl.DataFrame({"price": [1.0, 2.0]}))).target == "price"
    assert table((features, pl.Series("price", [1.0, 2.0])), target="cost").target == "cost"
    assert table(({"a": [1, 2]}, (3, 4))).frame.to_dict(as_series=False) == {"a": [1, 2], "y": [3, 4]}
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1, 2, 3], "price": [1.0, 2.0, 3.0]}, index=[7, 8, 9])
    data = table((frame[["a"]], frame["price"]))
    assert data.frame.to_dict(as_series=False) == {"a": [1, 2, 3], "price": [1.0, 2.0, 3.0]}
    assert data.provenance.origin == "(pandas.DataFrame, pandas.Series)"


def test_images() -> None:
    data = images(IMAGES)
    assert data.images.shape == (3, 1, 4, 5)
    assert data.images.dtype == torch.uint8
    assert data.labels is None
    assert data.classes == data.names == ()
    np.testing.assert_array_equal(data.images[:, 0].numpy(), IMAGES)
    assert images(torch.zeros(2, 3, 8, 9, dtype=torch.uint8)).images.shape == (2, 3, 8, 9)


def test_images_that_may_not_be_written_to() -> None:
    frozen = IMAGES.copy()
    frozen.flags.writeable = False
    assert images(frozen).images.shape == (3, 1, 4, 5)  # PyTorch warns of such memory, and warnings are errors here
    assert images(IMAGES[:, ::-1]).images[0, 0, 0, 0] == 15


@pytest.mark.parametrize(
    ("labels", "classes", "indices"),
    [
        ([7, 3, 7], ("3", "7"), [1, 0, 1]),
        (torch.tensor([10, 9, 10]), ("9", "10"), [1, 0, 1]),
        (["dog", "cat", "dog"], ("cat", "dog"), [1, 0, 1]),
        (np.array([[True], [False], [True]]), ("False", "True"), [1, 0, 1]),
        (pl.Series("^k*$", ["b", "a", "b"], dtype=pl.Enum(["b", "a"])), ("b", "a"), [0, 1, 0]),
    ],
)
def test_images_with_labels(labels: Any, classes: tuple[str, ...], indices: list[int]) -> None:
    data = images((IMAGES, labels))
    assert data.classes == classes
    assert data.labels is not None
    assert data.labels.dtype == torch.int64
    assert data.labels.tolist() == indices


def test_labels_that_are_none() -> None:
    with pytest.raises(DataError, match=r"y, row 1: each image must have a label, got none\. Give it one"):
        labels_from(pl.Series([1, None]), "y")
    with pytest.raises(
        DataError, match=r"y: labels of images must be integers or text, got the dtype Float64\. .*Trainer"
    ):
        labels_from(pl.Series([1.5, 2.5]), "y")


@pytest.mark.parametrize(
    ("source", "error", "text"),
    [
        ((X, [1, 2]), DataError, r"\(X, y\): X and y must have as many rows, got 3 and 2\. Check where rows were lost"),
        ((IMAGES, [1, 2]), DataError, r"\(X, y\): X and y must have as many rows, got 3 and 2"),
        ((X, X), DataError, r"column 'y': must be one-dimensional, got the shape \(3, 2\)"),
        ((X, pl.DataFrame({"a": [1], "b": [1]})), DataError, r"\(X, y\): y must be one column, got 2\. Choose one"),
        ((X, X, X), InputTypeError, r"source: a tuple must be \(X, y\), got 3 parts\. Taken are: a path"),
        (({"y": [1]}, [1]), SchemaError, r"\(X, y\): y must not be called as a column of X is, got 'y'\. Name y other"),
        ({"a": [1, 2], "b": [1]}, DataError, r"columns must have as many rows, got 2 in 'a', 1 in 'b'"),
        ({1: [1], "1": [2]}, SchemaError, r"dict of columns: column names must be unique, got '1' as columns 1 and 2"),
        ({}, DataError, r"dict: must have rows and columns, got the shape \(0, 0\)"),
        (np.zeros((0, 3)), DataError, r"numpy\.ndarray: must have rows and columns, got the shape \(0, 3\)"),
        (np.zeros(3), DataError, r"array: must be \[n, features\].*, got the shape \(3,\)\. .*reshape\(-1, 1\)"),
        (
            np.zeros((2, 3, 4)),
            InputTypeError,
            r"images: must be uint8, got float64 of the shape.*stoker\.Trainer on tens",
        ),
        (np.zeros((0, 3, 4), np.uint8), DataError, r"images: must not be empty, got the shape \(0, 3, 4\)"),
        (
            np.zeros((2, 8, 8, 3), np.uint8),
            DataError,
            r"must be \[n, channels, height, width\].*x\.transpose\(0, 3, 1, 2\)",
        ),
        (
            7,
            InputTypeError,
            r"source: an object must be of a kind that holds data, got int\. Taken are: a path, a named",
        ),
        ([[1, 2]], InputTypeError, r"got list\. Taken are"),
        (None, InputTypeError, r"got NoneType"),
    ],
)
def test_what_cannot_be_taken(source: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        from_object(source)


def test_sparse_matrices_are_told_what_to_do() -> None:
    from scipy import sparse

    with pytest.raises(InputTypeError, match=r"got scipy\.csr_matrix\. Call \.toarray\(\) on it\."):
        from_object(sparse.csr_matrix(np.eye(2)))


def test_fingerprints_follow_the_values() -> None:
    same = {table(X).provenance.fingerprint, table(torch.from_numpy(X)).provenance.fingerprint}
    assert len(same) == 1
    assert table(X + 1).provenance.fingerprint not in same
    labelled = images((IMAGES, [0, 1, 0])).provenance.fingerprint
    assert labelled != images((IMAGES, [0, 1, 1])).provenance.fingerprint
    assert labelled != images(IMAGES).provenance.fingerprint
