from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy, MulticlassCohenKappa
from torchmetrics.regression import MeanAbsolutePercentageError, MeanSquaredError, PearsonCorrCoef

from stoker.errors import ConfigError, InputTypeError, UnknownNameError
from stoker.metrics.metric_set import MetricSet


@pytest.fixture
def rows() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(3)
    target = torch.rand(101, 1, generator=g) + 1
    return target + 0.2 * torch.randn(101, 1, generator=g), target


@pytest.fixture
def labelled() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(4)
    target = torch.randint(0, 4, (101,), generator=g)
    return nn.functional.one_hot(target, 4) + torch.randn(101, 4, generator=g), target


def feed(metrics: MetricSet, rows: tuple[Tensor, Tensor], batch: int = 10) -> dict[str, float]:
    for p, t in zip(torch.split(rows[0], batch), torch.split(rows[1], batch), strict=True):
        metrics.update(p, t)
    return metrics.compute()


def test_own_metrics_beside_named_ones_in_the_order_given(rows: tuple[Tensor, Tensor]) -> None:
    metrics = MetricSet(
        {
            "zeta": lambda p, t: (p - t).abs().max(),
            "rmse": "rmse",
            "a percentage": MeanAbsolutePercentageError(),
            "huber": nn.HuberLoss(),
            "error": "mae",
        },
        "regression",
    )
    values = feed(metrics, rows)
    p, t = rows
    assert list(values) == ["zeta", "rmse", "a percentage", "huber", "error"]
    assert values["zeta"] == float((p - t).abs().max())
    assert values["a percentage"] == pytest.approx(sk.mean_absolute_percentage_error(t, p), rel=1e-5)  # float32
    assert values["huber"] == float(nn.HuberLoss()(p, t))
    assert values["error"] == pytest.approx(sk.mean_absolute_error(t, p), rel=1e-6)


def test_a_function_gets_all_rows_at_once(rows: tuple[Tensor, Tensor]) -> None:
    calls: list[tuple[torch.Size, torch.dtype]] = []

    def median_error(p: Tensor, t: Tensor) -> float:
        calls.append((p.shape, p.dtype))
        return sk.median_absolute_error(t, p)  # type: ignore[no-any-return]

    value = feed(MetricSet({"median": median_error}, "regression"), rows)["median"]
    assert calls == [(torch.Size([101, 1]), torch.float32)]
    assert value == sk.median_absolute_error(rows[1], rows[0])


@pytest.mark.parametrize("shape", [(1,), (1, 1), (1, 3), (5,), (5, 1)])
def test_a_function_sees_the_shape_that_was_given(shape: tuple[int, ...]) -> None:
    seen: list[Any] = []

    def record(p: Tensor, t: Tensor) -> float:
        seen.append((p.shape, t.shape))
        return 0.0

    metrics = MetricSet({"mine": record}, "regression")
    feed(metrics, (torch.zeros(shape), torch.zeros(shape)), batch=2)
    assert seen == [(shape, shape)]


def test_a_function_shares_its_rows_with_auroc(labelled: tuple[Tensor, Tensor]) -> None:
    metrics = MetricSet(
        {"auroc": "auroc", "balanced": lambda p, t: sk.balanced_accuracy_score(t, p.argmax(1))}, "multiclass", 4
    )
    values = feed(metrics, labelled)
    proba = labelled[0].double().softmax(1)
    assert values["auroc"] == pytest.approx(sk.roc_auc_score(labelled[1], proba, multi_class="ovr"), rel=1e-12)
    assert values["balanced"] == sk.balanced_accuracy_score(labelled[1], labelled[0].argmax(1))


def test_a_metric_object_of_several_kinds_of_state(
    labelled: tuple[Tensor, Tensor], rows: tuple[Tensor, Tensor]
) -> None:
    values = feed(MetricSet({"kappa": MulticlassCohenKappa(4)}, "multiclass", 4), labelled)
    assert values["kappa"] == pytest.approx(sk.cohen_kappa_score(labelled[1], labelled[0].argmax(1)), rel=1e-6)
    flat = rows[0][:, 0], rows[1][:, 0]
    r = feed(MetricSet({"r": PearsonCorrCoef()}, "regression"), flat)["r"]
    assert r == pytest.approx(np.corrcoef(flat[0], flat[1])[0, 1], rel=1e-5)  # it merges batches in float32


def test_a_metric_object_is_copied_so_that_two_sets_do_not_mix(rows: tuple[Tensor, Tensor]) -> None:
    mine = MeanSquaredError()
    mine.update(torch.tensor([100.0]), torch.tensor([0.0]))
    first, second = MetricSet({"mine": mine}, "regression"), MetricSet({"mine": mine}, "regression")
    feed(first, rows)
    value = feed(second, rows)["mine"]
    assert value == pytest.approx(sk.mean_squared_error(rows[1], rows[0]), rel=1e-6)
    assert float(mine.compute()) == 10_000.0


def test_reset_forgets_own_metrics_too(rows: tuple[Tensor, Tensor]) -> None:
    metrics = MetricSet({"mine": MeanSquaredError(), "function": lambda p, t: (p - t).square().mean()}, "regression")
    metrics.update(torch.zeros(5), torch.ones(5))
    assert metrics.compute() == {"mine": 1.0, "function": 1.0}
    metrics.reset()
    assert metrics.rows == 0
    assert feed(metrics, rows)["function"] == pytest.approx(sk.mean_squared_error(rows[1], rows[0]), rel=1e-6)


def test_directions() -> None:
    metrics = MetricSet(
        {"mse": MeanSquaredError(), "best": "r2", "mine": lambda _p, _t: 0.0, "mae": "mae"}, "regression"
    )
    assert metrics.directions == {"mse": "min", "best": "max", "mine": None, "mae": "min"}
    assert MetricSet({"mine": MulticlassAccuracy(3)}, "multiclass", 3).directions == {"mine": "max"}


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (lambda p, t: p - t, r"metric 'mine': must turn preds and target .* got ValueError: a tensor of shape \[5\]"),
        (lambda _p, _t: None, r"metric 'mine': .* got TypeError"),
        (lambda _p: 0.0, r"metric 'mine': .* got TypeError: .*positional argument"),
        (lambda _p, _t: 1 / 0, r"metric 'mine': .* got ZeroDivisionError"),
    ],
)
def test_a_function_that_fails_is_named(metric: Any, message: str) -> None:
    metrics = MetricSet({"mine": metric}, "regression")
    metrics.update(torch.zeros(5), torch.zeros(5))
    with pytest.raises(ConfigError, match=message):
        metrics.compute()


def test_a_metric_object_that_fails_is_named() -> None:
    metrics = MetricSet({"mine": MulticlassAccuracy(7)}, "multiclass", 3)
    with pytest.raises(
        ConfigError, match=r"metric 'mine': must turn logits \[n, 3\] and an int64 target \[n\] into one number"
    ):
        metrics.update(torch.zeros(5, 3), torch.zeros(5).long())


def test_an_object_with_several_values_is_an_error() -> None:
    metrics = MetricSet({"mine": MulticlassAccuracy(3, average=None)}, "multiclass", 3)
    metrics.update(torch.zeros(5, 3), torch.zeros(5).long())
    with pytest.raises(ConfigError, match=r"'mine': .* got ValueError: a tensor of shape \[3\]"):
        metrics.compute()


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ("mse", r"metrics: must be a sequence of names or a mapping, got str 'mse'\. Write \[\"mse\"\]"),
        (3, r"must be a sequence of names or a mapping, got int 3"),
        ([MeanSquaredError()], r'must be names, got MeanSquaredError\. Name your own in a mapping: {"mine": metric}'),
        (
            {"mine": MeanSquaredError},
            r"metric 'mine': .* got the class MeanSquaredError\. Give an object of that class",
        ),
        ({"mine": 3}, r"metric 'mine': must be a name, .* got int 3"),
    ],
)
def test_things_that_are_no_metrics(metrics: Any, message: str) -> None:
    with pytest.raises(InputTypeError, match=message):
        MetricSet(metrics, "regression")


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (["mse", "mae", "mse"], r"metrics: must each be named once, got 'mse'"),
        ({"loss": "mse"}, r"must have names that are texts other than 'loss', got 'loss'"),
        ({"": "mse"}, r"must have names that are texts other than 'loss', got ''"),
        (["accuracy"], r"'accuracy': serves binary and multiclass, got the task regression"),
    ],
)
def test_settings_that_do_not_fit(metrics: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MetricSet(metrics, "regression")


def test_unknown_names_are_unknown_in_a_mapping_too() -> None:
    with pytest.raises(UnknownNameError, match=r"got 'rsme'\. Did you mean 'rmse'"):
        MetricSet({"mine": "rsme"}, "regression")


def test_no_metrics_at_all() -> None:
    metrics = MetricSet([], "regression")
    metrics.update(torch.zeros(5), torch.zeros(5))
    assert metrics.compute() == {}


def test_a_nan_reaches_own_metrics_as_it_is() -> None:
    metrics = MetricSet({"finite": lambda p, _t: p.isfinite().double().mean(), "mse": "mse"}, "regression")
    metrics.update(torch.tensor([math.nan, 1.0]), torch.zeros(2))
    values = metrics.compute()
    assert values["finite"] == 0.5
    assert math.isnan(values["mse"])
