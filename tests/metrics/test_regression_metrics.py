from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge
from sklearn.model_selection import train_test_split
from torch import Tensor

from stoker.errors import DataError, InputTypeError
from stoker.metrics.metric_set import MetricSet

NAMES = ("mse", "rmse", "mae", "r2")


def measure(preds: Tensor, target: Tensor, batch: int = 32, names: tuple[str, ...] = NAMES) -> dict[str, float]:
    metrics = MetricSet(names, "regression")
    for p, t in zip(torch.split(preds, batch), torch.split(target, batch), strict=True):
        metrics.update(p, t)
    return metrics.compute()


@pytest.fixture(scope="module")
def diabetes() -> tuple[Tensor, Tensor]:
    X, y = load_diabetes(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=42)
    preds = Ridge(alpha=0.1).fit(X_train, y_train).predict(X_test)
    return torch.from_numpy(preds), torch.from_numpy(y_test)


def test_equals_scikit_learn_on_diabetes(diabetes: tuple[Tensor, Tensor]) -> None:
    preds, target = diabetes
    values = measure(preds, target)
    assert tuple(values) == NAMES
    # both sum some 100 numbers in float64, in another order
    assert values["mse"] == pytest.approx(sk.mean_squared_error(target, preds), rel=1e-13)
    assert values["rmse"] == pytest.approx(sk.root_mean_squared_error(target, preds), rel=1e-13)
    assert values["mae"] == pytest.approx(sk.mean_absolute_error(target, preds), rel=1e-13)
    assert values["r2"] == pytest.approx(sk.r2_score(target, preds), rel=1e-13)


def test_hand_worked() -> None:
    # errors 0.5, 0, 1.5, 1 and target [3, 5, 2.5, 7] of mean 4.375
    values = measure(torch.tensor([2.5, 5.0, 4.0, 8.0]), torch.tensor([3.0, 5.0, 2.5, 7.0]), batch=3)
    assert values["mse"] == 0.875
    assert values["rmse"] == math.sqrt(0.875)
    assert values["mae"] == 0.75
    assert values["r2"] == pytest.approx(1 - 3.5 / 12.6875, rel=1e-15)


@pytest.mark.parametrize("batch", [1, 7, 32, 1000])
def test_rmse_is_the_root_of_the_mse_to_the_last_bit(diabetes: tuple[Tensor, Tensor], batch: int) -> None:
    values = measure(*diabetes, batch=batch)
    assert values["rmse"] == math.sqrt(values["mse"])


def test_rmse_alone_is_the_same_as_beside_the_mse(diabetes: tuple[Tensor, Tensor]) -> None:
    assert measure(*diabetes, names=("rmse",))["rmse"] == measure(*diabetes)["rmse"]


def test_rmse_is_not_the_mean_of_batch_rmses() -> None:
    # Two batches with errors of 0 and of 2: the roots of their MSEs average to 1, the MSE is 2.
    preds, target = torch.tensor([0.0, 0.0, 2.0, 2.0]), torch.zeros(4)
    values = measure(preds, target, batch=2)
    mean_of_batches = np.mean([measure(preds[i : i + 2], target[i : i + 2])["rmse"] for i in (0, 2)])
    assert mean_of_batches == 1.0
    assert values["rmse"] == math.sqrt(2.0)


def test_a_smaller_last_batch_counts_by_its_rows() -> None:
    values = measure(torch.tensor([1.0, 1.0, 1.0, 3.0]), torch.zeros(4), batch=3)
    assert values["mse"] == 3.0  # (1 + 1 + 1 + 9) / 4, not the mean of 1 and 9


def test_float32_is_accumulated_in_float64() -> None:
    # in float32 the sum stops growing at 2**24
    preds, target = torch.ones(3 * 2**24 // 2), torch.zeros(3 * 2**24 // 2)
    assert measure(preds, target, batch=2**22, names=("mse", "mae")) == {"mse": 1.0, "mae": 1.0}


@pytest.mark.parametrize("shape", [(11,), (11, 1), (11, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_shapes_and_dtypes(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(0)
    preds = torch.randn(shape, generator=g).to(dtype)
    target = torch.randn(shape, generator=g).to(dtype)
    values = measure(preds, target, batch=4)
    p, t = preds.double().numpy(), target.double().numpy()
    assert values["mse"] == pytest.approx(sk.mean_squared_error(t, p), rel=1e-13)
    assert values["mae"] == pytest.approx(sk.mean_absolute_error(t, p), rel=1e-13)
    assert values["r2"] == pytest.approx(sk.r2_score(t, p), rel=1e-12)  # the mean over outputs, as there
    assert values["rmse"] == math.sqrt(values["mse"])


def test_integer_targets_and_strided_predictions() -> None:
    preds = torch.arange(24, dtype=torch.float64).reshape(3, 8).T
    target = torch.arange(24).reshape(8, 3)
    assert measure(preds, target, batch=3)["mse"] == pytest.approx(sk.mean_squared_error(target, preds), rel=1e-14)


@pytest.mark.parametrize(("scale", "offset"), [(1e-6, 0.0), (1e-3, 1.0), (1.0, 1e6), (10.0, 2000.0), (1e8, 0.0)])
def test_r2_of_small_and_far_targets(scale: float, offset: float) -> None:
    g = torch.Generator().manual_seed(1)
    z = torch.randn(200, generator=g, dtype=torch.float64)
    target = offset + scale * z
    preds = target + 0.1 * scale * torch.randn(200, generator=g, dtype=torch.float64)
    # rounding in the target itself, relative to its spread, is what limits both
    tolerance = max(1e-13, 1e-15 * offset / scale)
    assert measure(preds, target, batch=1)["r2"] == pytest.approx(sk.r2_score(target, preds), rel=tolerance)
    assert measure(preds, target, batch=200)["r2"] == pytest.approx(sk.r2_score(target, preds), rel=tolerance)


@pytest.mark.parametrize("batch", [1, 3, 10])
@pytest.mark.parametrize("value", [0.0, 0.1, -3e9, 1e-30])
def test_r2_of_a_constant_target_is_undefined(value: float, batch: int) -> None:
    target = torch.full((10,), value, dtype=torch.float64)
    values = measure(target + torch.arange(10), target, batch=batch)
    assert math.isnan(values["r2"])
    assert values["mse"] == pytest.approx(28.5, rel=1e-5)  # the squares of 0 to 9; -3e9 leaves fewer digits


def test_r2_of_one_row_is_undefined() -> None:
    values = measure(torch.tensor([1.0]), torch.tensor([2.0]))
    assert math.isnan(values.pop("r2"))
    assert values == {"mse": 1.0, "rmse": 1.0, "mae": 1.0}


def test_one_nan_makes_all_nan_and_reset_forgets_it() -> None:
    metrics = MetricSet(NAMES, "regression")
    metrics.update(torch.tensor([1.0, math.nan, 2.0]), torch.tensor([1.0, 2.0, 3.0]))
    metrics.update(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0]))
    assert all(math.isnan(value) for value in metrics.compute().values())
    metrics.reset()
    metrics.update(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0]))
    assert metrics.compute() == {"mse": 0.5, "rmse": math.sqrt(0.5), "mae": 0.5, "r2": 0.5}


def test_an_infinite_prediction_gives_infinite_errors() -> None:
    values = measure(torch.tensor([1.0, math.inf, 2.0]), torch.tensor([1.0, 2.0, 3.0]))
    assert values == {"mse": math.inf, "rmse": math.inf, "mae": math.inf, "r2": -math.inf}


@pytest.mark.parametrize(
    ("preds", "target", "message"),
    [
        (torch.zeros(4), torch.zeros(4, 1), r"preds: must have the target's shape \[4, 1\], got \[4\]\. Reshape"),
        (torch.zeros(4, 1), torch.zeros(4), r"must have the target's shape \[4\], got \[4, 1\]"),
        (torch.zeros(4), torch.zeros(3), r"must have the target's shape \[3\], got \[4\]"),
        (torch.zeros(4, 2), torch.zeros(4, 1), r"must have the target's shape \[4, 1\], got \[4, 2\]"),
        (torch.zeros(2, 2, 2), torch.zeros(2, 2, 2), r"must be of shape \[n\] or \[n, outputs\], got \[2, 2, 2\]"),
        (torch.zeros(()), torch.zeros(()), r"must be of shape \[n\] or \[n, outputs\], got \[\]"),
        (torch.zeros(4, 0), torch.zeros(4, 0), r"must be of shape \[n\] or \[n, outputs\], got \[4, 0\]"),
        (torch.zeros(4, dtype=torch.complex64), torch.zeros(4), r"must be real, got torch.complex64"),
    ],
)
def test_shapes_that_do_not_fit(preds: Tensor, target: Tensor, message: str) -> None:
    metrics = MetricSet(NAMES, "regression")
    with pytest.raises(DataError, match=message):
        metrics.update(preds, target)
    assert metrics.rows == 0


def test_a_batch_of_another_width_is_an_error() -> None:
    metrics = MetricSet(NAMES, "regression")
    metrics.update(torch.zeros(4, 2), torch.zeros(4, 2))
    with pytest.raises(DataError, match=r"shaped as in the batches before, which make \[4, 2\], got \[4, 3\]"):
        metrics.update(torch.zeros(4, 3), torch.zeros(4, 3))


def test_arrays_are_not_tensors() -> None:
    with pytest.raises(InputTypeError, match="target: must be a tensor, got ndarray"):
        MetricSet(NAMES, "regression").update(torch.zeros(4), np.zeros(4))  # type: ignore[arg-type]


def test_no_rows_is_an_error() -> None:
    metrics = MetricSet(NAMES, "regression")
    with pytest.raises(DataError, match=r"metrics: need at least one row, got none\. The split is empty"):
        metrics.compute()
    metrics.update(torch.zeros(0, 1), torch.zeros(0, 1))
    with pytest.raises(DataError, match="need at least one row"):
        metrics.compute()


def test_an_empty_batch_changes_nothing() -> None:
    metrics = MetricSet(NAMES, "regression")
    preds, target = torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0])
    metrics.update(preds, target)
    before = metrics.compute()
    metrics.update(preds[:0], target[:0])
    assert metrics.compute() == before
    assert metrics.rows == 2
