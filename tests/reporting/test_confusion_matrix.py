from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawing import Drawn
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix as sk_confusion_matrix

from stoker.errors import ConfigError, DataError
from stoker.reporting import lettering
from stoker.reporting.confusion import _colours, _percent, confusion_matrix, count_pairs

FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    return Drawn(monkeypatch)


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    X, y = load_digits(return_X_y=True)
    model = LogisticRegression(max_iter=3000).fit(X[:300] / 16, y[:300])
    return y[300:], model.predict(X[300:] / 16)


def simulated(n_classes: int, rows: int, seed: int = 0) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    target = rng.integers(0, n_classes, rows)
    return target, np.where(rng.random(rows) < 0.8, target, rng.integers(0, n_classes, rows))


def test_counts_equal_scikit_learn(digits: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]) -> None:
    pairs = count_pairs(*digits, 10)
    dense = np.zeros((10, 10), dtype=np.int64)
    dense[pairs.true, pairs.predicted] = pairs.count
    assert np.array_equal(dense, sk_confusion_matrix(*digits))
    assert pairs.right == int((digits[0] == digits[1]).sum())
    assert pairs.rows == len(digits[0])


def test_mistakes_by_frequency() -> None:
    pairs = count_pairs([0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 1, 1, 2, 0, 0, 0], 3)
    assert pairs.mistakes(2) == [(3, 2, 0), (2, 0, 1)]
    assert pairs.mistakes(10) == [(3, 2, 0), (2, 0, 1), (1, 1, 2)]


def test_each_cell_says_count_and_share(tmp_path: Path, drawn: Drawn) -> None:
    target, preds = [0] * 8 + [1] * 200, [0] * 6 + [1] * 2 + [1] * 199 + [0]
    confusion_matrix(target, preds, ["malignant", "benign"], tmp_path / "a.png", title="breast cancer")
    texts = drawn.texts()
    for expected in ("6", "75%", "2", "25%", "199", ">99%", "1", "<1%", "of 8", "of 200", "205 of 208 right: 98.6%"):
        assert expected in texts
    drawn.assert_legible()


@pytest.mark.parametrize(
    ("share", "decimals", "shown"),
    [
        (1.0, 1, "100.0%"),
        (0.99951, 1, ">99.9%"),
        (0.9994, 1, "99.9%"),
        (0.0, 0, "0%"),
        (0.005, 0, "<1%"),
        (0.996, 0, ">99%"),
        (0.5, 0, "50%"),
    ],
)
def test_percentages_never_round_to_all_or_nothing(share: float, decimals: int, shown: str) -> None:
    assert _percent(share, decimals) == shown


def test_digits_and_fashion_are_legible(
    tmp_path: Path, drawn: Drawn, digits: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
) -> None:
    confusion_matrix(*digits, list("0123456789"), tmp_path / "a.png", title="digits")
    drawn.assert_legible()
    confusion_matrix(*simulated(10, 100_000), FASHION, tmp_path / "b.png", title="fashion")
    drawn.assert_legible()
    names = drawn.figure.axes[0].get_xticklabels()
    assert [name.get_text() for name in names] == list(FASHION)
    assert {name.get_rotation() for name in names} == {90.0}


@pytest.mark.parametrize("n_classes", [2, 12, 13, 25, 26, 51, 1000])
def test_any_number_of_classes(tmp_path: Path, drawn: Drawn, n_classes: int) -> None:
    names = [f"species number {index}" for index in range(n_classes)]
    confusion_matrix(*simulated(n_classes, 5000), names, tmp_path / "a.png", title="many")
    texts, axes = drawn.texts(), drawn.figure.axes[0]
    assert ("Most frequent mistakes" in texts) == (n_classes > 25)
    assert [text for text in texts if text.startswith("of ")] == [] or n_classes <= 25
    assert len(axes.get_xticks()) == n_classes if n_classes <= 50 else len(axes.get_xticks()) <= 25
    width, height = drawn.figure.get_size_inches()
    assert width < 14
    assert height < 14
    drawn.assert_legible()


def test_few_classes_get_room_for_their_names(tmp_path: Path, drawn: Drawn) -> None:
    confusion_matrix([0, 1, 2], [0, 1, 2], ["versicolor", "virginica", "setosa"], tmp_path / "a.png")
    assert {name.get_rotation() for name in drawn.figure.axes[0].get_xticklabels()} == {0.0}
    drawn.assert_legible()


def test_colours_are_shares_of_the_row() -> None:
    image = _colours(count_pairs([0, 0, 0, 0, 1], [0, 0, 0, 1, 1], 3))
    white, blue = np.ones(3), np.array([0, 0x72, 0xB2]) / 255
    assert np.allclose(image[1, 1], blue)
    assert np.allclose(image[1, 0], white)
    assert np.allclose(image[0, 0], 1 - np.sqrt(0.75) * (1 - blue))
    red, _, azure = image[0, 1]
    assert red > azure  # a mistake is of the warm colour
    assert np.allclose(image[2], 0.95)  # the class does not occur


def test_a_block_of_classes_shows_its_worst() -> None:
    target = np.arange(400).repeat(10)
    preds = target.copy()
    preds[5:10] = 399  # half of class 0
    image = _colours(count_pairs(target, preds, 400))
    assert image.shape == (200, 200, 3)
    blue = np.array([0, 0x72, 0xB2]) / 255
    assert np.allclose(image[0, 0], 1 - np.sqrt(0.5) * (1 - blue))
    assert np.allclose(image[7, 7], blue)
    assert (image[0, 199] < 1).any()
    assert np.allclose(image[0, 198], 1)


@pytest.mark.parametrize("font", ["whatever is installed", "none"])
def test_names_in_any_script(tmp_path: Path, drawn: Drawn, monkeypatch: pytest.MonkeyPatch, font: str) -> None:
    if font == "none":
        monkeypatch.setattr(lettering, "_other_fonts", list)
    lettering._fonts_for.cache_clear()
    try:
        names = ["猫", "собака", "ภาษาไทย", "$5^{2}$ \\frac{", "🐶", "two\nlines", "", "क्षेत्र"]
        confusion_matrix(*simulated(8, 300), names, tmp_path / "a.png", title="名前 🐱 $x$")
        shown = [label.get_text() for label in drawn.figure.axes[0].get_yticklabels()]
        assert shown[1] == "собака"
        assert shown[3] == "$5^{2}$ \\frac{"
        assert shown[5:7] == ["two lines", "#6"]
        if font == "none":
            assert shown[0] == "#0"
            assert shown[4] == "#4"
            assert "#: 4 names are in a script that no font here has" in drawn.texts()
        drawn.assert_legible()
    finally:
        lettering._fonts_for.cache_clear()


def test_tensors_lists_and_arrays_give_equal_bytes(tmp_path: Path) -> None:
    target, preds = simulated(5, 200)
    first = confusion_matrix(target, preds, list("abcde"), tmp_path / "a.png").read_bytes()
    tensors = torch.from_numpy(target), torch.from_numpy(preds).to(torch.int32)
    assert confusion_matrix(*tensors, list("abcde"), tmp_path / "b.png").read_bytes() == first
    assert confusion_matrix(target.tolist(), preds.tolist(), tuple("abcde"), tmp_path / "c.png").read_bytes() == first


@pytest.mark.parametrize(
    ("target", "preds", "message"),
    [
        ([], [], r"target: must have at least one row, got none\. The split is empty"),
        ([0, 1], [0], r"preds: must have as many rows as the target, 2, got 1"),
        ([[0], [1]], [0, 1], r"target: must be of shape \[n\], got \[2, 1\]"),
        ([0.0, 1.0], [0, 1], r"target: must be class indices of an integer dtype, got float64"),
        (["a", "b"], [0, 1], r"target: must be class indices of an integer dtype, got <U1"),
        ([0, 2], [0, 1], r"target: must be class indices from 0 to 1, got 2"),
        ([0, 1], [0, -1], r"preds: must be class indices from 0 to 1, got -1"),
    ],
)
def test_inputs_that_do_not_fit(tmp_path: Path, target: Any, preds: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        confusion_matrix(target, preds, ["a", "b"], tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_one_class_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"classes: must be at least two, got 1"):
        confusion_matrix([0], [0], ["a"], tmp_path / "a.png")
