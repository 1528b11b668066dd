from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchmetrics.regression import ExplainedVariance, LogCoshError

from stoker.errors import ConfigError, InputTypeError, UnknownNameError
from stoker.metrics.metric_set import MetricSet
from stoker.training.measures import check_metrics, monitor_direction, to_preds, what_to_measure

CPU = torch.device("cpu")
ROWS = 12


def some(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def labels(*shape: int, classes: int = 2) -> Tensor:
    return torch.randint(0, classes, shape, generator=torch.Generator().manual_seed(1))


def chosen(metrics: Any, task: Any, outputs: Any, targets: Any) -> tuple[str, ...] | None:
    found = what_to_measure(metrics, task, outputs, targets)
    return None if found is None else MetricSet(*found).names


CLASSES = ("accuracy", "f1", "auroc", "log_loss")
REGRESSION = ("mse", "rmse", "mae", "r2")


@pytest.mark.parametrize(
    ("task", "outputs", "targets", "names"),
    [
        ("regression", some(ROWS, 1), some(ROWS, 1), REGRESSION),
        ("regression", some(ROWS), some(ROWS), REGRESSION),
        ("binary", some(ROWS, 1), labels(ROWS, 1).float(), CLASSES),
        ("binary", some(ROWS), labels(ROWS).float(), CLASSES),
        ("binary", some(ROWS, 2), labels(ROWS), CLASSES),
        ("multiclass", some(ROWS, 2), labels(ROWS), CLASSES),
        ("multiclass", some(ROWS, 3), labels(ROWS, classes=3), CLASSES),
        (
            "multiclass",
            some(ROWS, 5),
            labels(ROWS, classes=5),
            ("accuracy", "top3_accuracy", "f1", "auroc", "log_loss"),
        ),
    ],
)
def test_auto_is_the_tasks(task: Any, outputs: Tensor, targets: Tensor, names: tuple[str, ...]) -> None:
    assert chosen("auto", task, outputs, targets) == names


@pytest.mark.parametrize(
    ("task", "outputs", "targets"),
    [
        (None, some(ROWS, 1), some(ROWS, 1)),
        ("regression", {"a": some(ROWS)}, some(ROWS)),
        ("regression", some(ROWS, 3, 8, 8), some(ROWS, 3, 8, 8)),  # images to images
        ("regression", some(ROWS, 1).to(torch.complex64), some(ROWS, 1)),
        ("binary", some(ROWS, 5), labels(ROWS, 5).float()),  # several labels a row
        ("binary", some(ROWS, 2), labels(ROWS, 2).float()),
        ("multiclass", some(ROWS, 3, 8, 8), labels(ROWS, 8, 8)),  # a class per pixel
        ("multiclass", some(ROWS, 3), some(ROWS, 3).softmax(dim=1)),  # probabilities as targets
        ("multiclass", some(ROWS, 3), (labels(ROWS), labels(ROWS))),
    ],
)
def test_auto_is_nothing_where_the_tasks_metrics_are_not_defined(task: Any, outputs: Any, targets: Any) -> None:
    assert chosen("auto", task, outputs, targets) is None


def test_named() -> None:
    assert chosen(["mae"], "regression", some(ROWS, 1), some(ROWS, 1)) == ("mae",)
    assert chosen((), "regression", some(ROWS, 1), some(ROWS, 1)) is None


def test_ones_own() -> None:
    mine = {"worst": lambda p, t: (p - t).abs().max(), "log cosh": LogCoshError(), "error": "mae"}
    assert chosen(mine, "regression", some(ROWS, 1), some(ROWS, 1)) == ("worst", "log cosh", "error")


def test_metrics_that_were_asked_for_must_be_possible() -> None:
    with pytest.raises(
        InputTypeError, match=r"metrics: need one tensor of outputs and one of targets, got outputs dic"
    ):
        chosen(["mae"], "regression", {"a": some(ROWS)}, some(ROWS))
    with pytest.raises(ConfigError, match=r"n_classes: must be 2 for the task binary, got 5"):
        chosen(["accuracy"], "binary", some(ROWS, 5), labels(ROWS, 5).float())


@pytest.mark.parametrize(
    ("metrics", "task", "kind", "text"),
    [
        (
            "mae",
            "regression",
            InputTypeError,
            r"metrics: must be \"auto\", names or a mapping, got 'mae'\. Write \[\"mae",
        ),
        (
            ["mea"],
            "regression",
            UnknownNameError,
            r"metric: must be one of the known names, got 'mea'\. Did you mean 'm",
        ),
        (
            ["accuracy"],
            "regression",
            ConfigError,
            r"metric 'accuracy': serves binary and multiclass, got the task regre",
        ),
        ({"error": "mea"}, "regression", UnknownNameError, r"metric: must be one of the known names, got 'mea'"),
        (
            ["mae"],
            None,
            ConfigError,
            r"metrics: need the task, got none\. Say task=\"regression\", \"binary\" or \"mult",
        ),
    ],
)
def test_what_is_refused_beforehand(metrics: Any, task: Any, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        check_metrics(metrics, task)


@pytest.mark.parametrize("metrics", ["auto", (), ["mae", "r2"], {"mine": nn.L1Loss(), "r": "r2"}])
def test_what_is_not(metrics: Any) -> None:
    check_metrics(metrics, "regression")


@pytest.mark.parametrize(
    ("name", "metrics", "direction"),
    [
        ("loss", "auto", "min"),
        ("rmse", "auto", "min"),
        ("accuracy", ["accuracy"], "max"),
        ("top5_accuracy", "auto", "max"),
        ("explained", {"explained": ExplainedVariance()}, "max"),
        ("cosh", {"cosh": LogCoshError()}, "min"),
        ("r", {"r": "r2"}, "max"),
    ],
)
def test_direction_of_what_is_monitored(name: str, metrics: Any, direction: str) -> None:
    assert monitor_direction(name, metrics) == direction


def test_a_function_does_not_say_its_direction() -> None:
    text = (
        r"monitor: must be a metric that says whether larger is better, got valid_mine\. Make it a torchmetrics\.Metric"
    )
    with pytest.raises(ConfigError, match=text):
        monitor_direction("mine", {"mine": nn.functional.l1_loss})


def test_an_unknown_one() -> None:
    with pytest.raises(
        UnknownNameError, match=r"metric: must be one of the known names, got 'rmes'\. Did you mean 'rm"
    ):
        monitor_direction("rmes", "auto")


LABELS_OF_3 = labels(20, classes=3)


class TestToPreds:
    @pytest.mark.parametrize("shape", [(20,), (20, 1)])
    def test_one_logit_becomes_two_of_the_same_probability(self, shape: tuple[int, ...]) -> None:
        logits = some(20).reshape(shape)
        preds, target = to_preds(logits, (LABELS_OF_3 > 1).float().reshape(shape), "binary")
        torch.testing.assert_close(preds.softmax(dim=1)[:, 1], logits.reshape(-1).sigmoid())
        assert target.dtype == torch.int64
        assert torch.equal(target, (LABELS_OF_3 > 1).long())

    @pytest.mark.parametrize(("outputs", "task"), [(some(20, 2), "binary"), (some(20, 1), "regression")])
    def test_others_stay(self, outputs: Tensor, task: Any) -> None:
        preds, target = to_preds(outputs, LABELS_OF_3, task)
        assert preds is outputs
        assert target is LABELS_OF_3

    def test_several_outputs_are_refused(self) -> None:
        text = r"metrics: need one tensor of outputs and one of targets, got outputs dict, targets Tensor\. Pass metr"
        with pytest.raises(InputTypeError, match=text):
            to_preds({"a": some(20, 3)}, LABELS_OF_3, "multiclass")
