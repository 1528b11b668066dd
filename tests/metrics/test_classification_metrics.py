from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from stoker.data.dataset import Task
from stoker.errors import ConfigError, DataError
from stoker.metrics.metric_set import MetricSet

BINARY = ("accuracy", "f1", "auroc", "log_loss")
MULTICLASS = ("accuracy", "top3_accuracy", "f1", "auroc", "log_loss", "top5_accuracy")


def measure(
    preds: Tensor, target: Tensor, names: tuple[str, ...] = MULTICLASS, task: Task = "multiclass", batch: int = 50
) -> dict[str, float]:
    metrics = MetricSet(names, task, preds.shape[1])
    for p, t in zip(torch.split(preds, batch), torch.split(target, batch), strict=True):
        metrics.update(p, t)
    return metrics.compute()


def logits_of(load: Callable[..., Any]) -> tuple[Tensor, Tensor]:
    """The logits of a small logistic regression on rows that it has not seen; it sees few, so that it errs."""
    X, y = load(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, train_size=0.1, random_state=42, stratify=y)
    scaler = StandardScaler().fit(X_train)
    model = LogisticRegression(C=0.05).fit(scaler.transform(X_train), y_train)
    scores = model.decision_function(scaler.transform(X_test))
    if scores.ndim == 1:
        scores = np.stack([-scores / 2, scores / 2], axis=1)
    return torch.from_numpy(scores), torch.from_numpy(y_test)


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    return logits_of(load_digits)


@pytest.fixture(scope="module")
def cancer() -> tuple[Tensor, Tensor]:
    return logits_of(load_breast_cancer)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_equals_scikit_learn_on_digits(digits: tuple[Tensor, Tensor], dtype: torch.dtype) -> None:
    logits, target = digits[0].to(dtype), digits[1]
    values = measure(logits, target)
    assert tuple(values) == MULTICLASS
    proba = logits.double().softmax(dim=1).numpy()
    predicted = logits.argmax(dim=1).numpy()
    assert 0.8 < values["accuracy"] < 0.99
    assert values["accuracy"] == sk.accuracy_score(target, predicted)
    assert values["f1"] == pytest.approx(sk.f1_score(target, predicted, average="macro"), rel=1e-14)
    assert values["auroc"] == pytest.approx(sk.roc_auc_score(target, proba, multi_class="ovr"), rel=1e-12)
    assert values["log_loss"] == pytest.approx(sk.log_loss(target, proba), rel=1e-9)
    if dtype != torch.bfloat16:  # with 8 bits of mantissa there are ties, in which the two choose differently
        assert values["top3_accuracy"] == sk.top_k_accuracy_score(target, proba, k=3)
        assert values["top5_accuracy"] == sk.top_k_accuracy_score(target, proba, k=5)


def test_equals_scikit_learn_on_breast_cancer(cancer: tuple[Tensor, Tensor]) -> None:
    logits, target = cancer
    values = measure(logits, target, BINARY, "binary")
    proba = logits.softmax(dim=1).numpy()
    predicted = logits.argmax(dim=1).numpy()
    assert 0.8 < values["accuracy"] < 0.99
    assert values["accuracy"] == sk.accuracy_score(target, predicted)
    assert values["f1"] == sk.f1_score(target, predicted)
    assert values["auroc"] == pytest.approx(sk.roc_auc_score(target, proba[:, 1]), rel=1e-13)
    assert values["log_loss"] == pytest.approx(sk.log_loss(target, proba), rel=1e-9)


def test_binary_metrics_are_of_class_1(cancer: tuple[Tensor, Tensor]) -> None:
    logits, target = cancer
    values = measure(logits, target, BINARY, "binary")
    swapped = measure(logits.flip(1), 1 - target, BINARY, "binary")
    assert swapped["f1"] == sk.f1_score(target, logits.argmax(dim=1), pos_label=0)
    assert swapped["f1"] != values["f1"]
    assert swapped["auroc"] == values["auroc"]  # it is the same of either class


def test_hand_worked() -> None:
    #              right           wrong, 2nd      right            wrong, 3rd
    logits = torch.tensor([[2.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 1.0, 2.0], [1.0, 2.0, 0.0]])
    target = torch.tensor([0, 0, 2, 2])
    values = measure(logits, target, ("accuracy", "top2_accuracy", "f1", "log_loss"), batch=3)
    assert values["accuracy"] == 0.5
    assert values["top2_accuracy"] == 0.75
    # classes 0 and 2: precision 1, recall 1/2, F1 2/3; class 1: predicted twice, never right, F1 0
    assert values["f1"] == pytest.approx(4 / 9, rel=1e-15)
    normaliser = math.log(math.exp(0) + math.exp(1) + math.exp(2))
    assert values["log_loss"] == pytest.approx(normaliser - (2 + 1 + 2 + 0) / 4, rel=1e-14)


def test_auroc_hand_worked_with_a_tie() -> None:
    # scores 1, 2 | 0, 2, -1: of six pairs, class 1 wins 1>0, 1>-1, 2>0, 2>-1 and ties 2=2
    difference = torch.tensor([1.0, 2.0, 0.0, 2.0, -1.0])
    logits = torch.stack([torch.zeros(5), difference], dim=1)
    values = measure(logits, torch.tensor([1, 1, 0, 0, 0]), ("auroc",), "binary", batch=2)
    assert values["auroc"] == 4.5 / 6


def test_auroc_does_not_depend_on_where_a_batch_has_its_logits() -> None:
    # the first batch looks like probabilities, the second does not
    logits = torch.tensor([[0.0, 0.2], [0.0, 0.9], [0.0, -3.0], [0.0, 0.5]])
    target = torch.tensor([1, 0, 0, 1])
    assert measure(logits, target, ("auroc",), "binary", batch=2)["auroc"] == 0.5


def test_auroc_tells_apart_what_the_probabilities_no_longer_do() -> None:
    logits = torch.tensor([[0.0, 40.0], [0.0, 50.0], [0.0, 60.0], [0.0, 70.0]])
    assert (logits.double().softmax(1)[:, 1] == 1).all()
    assert measure(logits, torch.tensor([0, 0, 1, 1]), ("auroc",), "binary")["auroc"] == 1.0


def test_auroc_is_the_mean_over_the_classes_that_occur(digits: tuple[Tensor, Tensor]) -> None:
    logits, target = digits
    kept = (target != 3) & (target != 7)
    logits, target = logits[kept], target[kept]
    proba = logits.softmax(dim=1).numpy()
    each = [sk.roc_auc_score(target == c, proba[:, c]) for c in range(10) if c not in (3, 7)]
    assert measure(logits, target)["auroc"] == pytest.approx(np.mean(each), rel=1e-12)


def test_f1_is_the_mean_over_the_classes_that_occur_or_are_predicted(digits: tuple[Tensor, Tensor]) -> None:
    logits, target = digits[0].clone(), digits[1]
    logits[:, 3] = -1e9  # never predicted
    kept = (target != 3) & (target != 7)  # 3 does not occur either; 7 is predicted now and then
    predicted = logits.argmax(dim=1)[kept]
    assert (predicted == 7).any()
    expected = sk.f1_score(target[kept], predicted, average="macro")
    assert measure(logits[kept], target[kept])["f1"] == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_alone_has_no_auroc(label: int) -> None:
    logits, target = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0]]), torch.full((3,), label)
    assert math.isnan(measure(logits, target, BINARY, "binary")["auroc"])
    wide = torch.cat([logits, torch.zeros(3, 1)], dim=1)
    assert math.isnan(measure(wide, target, ("auroc",))["auroc"])


def test_f1_without_a_positive_anywhere_is_undefined_and_without_a_hit_zero() -> None:
    logits = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert math.isnan(measure(logits, torch.tensor([0, 0]), ("f1",), "binary")["f1"])
    assert measure(logits, torch.tensor([0, 1]), ("f1",), "binary")["f1"] == 0.0


@pytest.mark.parametrize("bad", [0, 1, 2, 3])
def test_one_nan_makes_all_nan_and_reset_forgets_it(digits: tuple[Tensor, Tensor], bad: int) -> None:
    logits, target = digits[0].clone(), digits[1]
    expected = measure(logits, target)
    metrics = MetricSet(MULTICLASS, "multiclass", 10)
    broken = logits.clone()
    broken[5, bad] = math.nan
    metrics.update(broken, target)
    metrics.update(logits, target)
    values = metrics.compute()
    assert list(values) == list(MULTICLASS)
    assert all(math.isnan(value) for value in values.values())
    metrics.reset()
    metrics.update(logits, target)
    assert metrics.compute() == pytest.approx(expected, rel=1e-13)


def test_nan_in_a_binary_prediction_makes_all_nan() -> None:
    logits = torch.tensor([[1.0, 0.0], [math.nan, 1.0], [0.0, 2.0]])
    assert all(math.isnan(v) for v in measure(logits, torch.tensor([0, 1, 1]), BINARY, "binary").values())


def test_a_class_ruled_out_by_minus_infinity() -> None:
    logits = torch.tensor([[2.0, 1.0, -math.inf], [0.0, 1.0, -math.inf]])
    names = ("accuracy", "top2_accuracy", "auroc", "log_loss")
    values = measure(logits, torch.tensor([0, 1]), names)
    assert values == {
        "accuracy": 1.0,
        "top2_accuracy": 1.0,
        "auroc": 1.0,
        "log_loss": pytest.approx(math.log1p(1 / math.e)),
    }
    assert measure(logits, torch.tensor([0, 2]), names)["log_loss"] == math.inf


def test_top_k_and_top_1_agree_with_what_they_should(digits: tuple[Tensor, Tensor]) -> None:
    values = measure(*digits, names=("accuracy", "top1_accuracy", "top9_accuracy", "top2_accuracy"))
    assert values["top1_accuracy"] == values["accuracy"]
    assert values["accuracy"] < values["top2_accuracy"] < values["top9_accuracy"] <= 1


def test_top_k_is_its_own_even_if_the_first_batch_is_all_right() -> None:
    # where counts are shared because they are equal after one batch, the top 3 would become the top 1 here
    metrics = MetricSet(("accuracy", "top3_accuracy"), "multiclass", 5)
    metrics.update(torch.eye(5), torch.arange(5))
    metrics.update(torch.eye(5)[[0, 0, 0]] + torch.tensor([0, 0.3, 0.2, 0.1, 0]), torch.tensor([1, 2, 3]))
    assert metrics.compute() == {"accuracy": 5 / 8, "top3_accuracy": 7 / 8}


@pytest.mark.parametrize("k", [3, 4])
def test_top_k_of_all_classes_says_nothing(k: int) -> None:
    with pytest.raises(
        ConfigError, match=rf"'top{k}_accuracy': must look at fewer classes .* got k = {k} with 3 classes"
    ):
        MetricSet((f"top{k}_accuracy",), "multiclass", 3)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.int64])
def test_integer_targets_of_any_width(digits: tuple[Tensor, Tensor], dtype: torch.dtype) -> None:
    logits, target = digits
    assert measure(logits, target.to(dtype)) == measure(logits, target)


def test_deterministic_algorithms_give_the_same(digits: tuple[Tensor, Tensor]) -> None:
    expected = measure(*digits)
    torch.use_deterministic_algorithms(True)
    try:
        assert measure(*digits) == expected
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    ("preds", "target", "message"),
    [
        (
            torch.zeros(4, 2),
            torch.zeros(4).long(),
            r"preds: must be logits of shape \[n, 3\], one for each class, got \[4, 2\]",
        ),
        (torch.zeros(4), torch.zeros(4).long(), r"must be logits of shape \[n, 3\], one for each class, got \[4\]"),
        (torch.zeros(4, 3, 2), torch.zeros(4).long(), r"one for each class, got \[4, 3, 2\]"),
        (torch.zeros(4, 3).long(), torch.zeros(4).long(), r"logits of a floating-point dtype, got torch.int64"),
        (
            torch.zeros(4, 3),
            torch.zeros(4, 1).long(),
            r"target: must be of shape \[4\], as preds have 4 rows, got \[4, 1\]",
        ),
        (torch.zeros(4, 3), torch.zeros(5).long(), r"must be of shape \[4\], as preds have 4 rows, got \[5\]"),
        (torch.zeros(4, 3), torch.zeros(4), r"class indices of an integer dtype, got torch.float32\. Use target.long"),
        (torch.zeros(4, 3), torch.tensor([0, 1, 2, 3]), r"target: must be class indices from 0 to 2, got 3"),
        (torch.zeros(4, 3), torch.tensor([0, 1, 2, -100]), r"target: must be class indices from 0 to 2, got -100"),
    ],
)
def test_inputs_that_do_not_fit(preds: Tensor, target: Tensor, message: str) -> None:
    metrics = MetricSet(("accuracy", "f1", "auroc", "log_loss"), "multiclass", 3)
    with pytest.raises(DataError, match=message):
        metrics.update(preds, target)
    assert metrics.rows == 0


@pytest.mark.parametrize(
    ("task", "n_classes", "rule"), [("binary", 3, "must be 2"), ("multiclass", 1, "must be at least 2")]
)
def test_a_number_of_classes_that_does_not_fit(task: Task, n_classes: int, rule: str) -> None:
    with pytest.raises(ConfigError, match=rf"n_classes: {rule} .*, got {n_classes}"):
        MetricSet(("accuracy",), task, n_classes)


def test_no_rows_is_an_error() -> None:
    with pytest.raises(DataError, match="need at least one row, got none"):
        MetricSet(BINARY, "binary", 2).compute()


def test_one_row() -> None:
    values = measure(
        torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([2]), ("accuracy", "top2_accuracy", "f1", "auroc", "log_loss")
    )
    assert math.isnan(values.pop("auroc"))
    expected = math.log(1 + math.exp(-1) + math.exp(-2))
    assert values == {"accuracy": 1.0, "top2_accuracy": 1.0, "f1": 1.0, "log_loss": pytest.approx(expected, rel=1e-14)}
