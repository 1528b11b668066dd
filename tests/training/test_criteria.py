from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn

from stoker.errors import ConfigError, UnknownNameError
from stoker.training.criteria import (
    CRITERIA,
    MeanCrossEntropy,
    OnScaledTarget,
    balanced_weights,
    build_criterion,
    task_of,
)


def some(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


LOGITS = some(20, 3)
LABELS = torch.randint(0, 3, (20,), generator=torch.Generator().manual_seed(1))


class TestMeanCrossEntropy:
    @pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
    def test_without_weights_it_is_torchs(self, smoothing: float) -> None:
        expected = nn.CrossEntropyLoss(label_smoothing=smoothing)(LOGITS, LABELS)
        assert torch.equal(MeanCrossEntropy(label_smoothing=smoothing)(LOGITS, LABELS), expected)

    def test_equal_weights_of_one_change_nothing(self) -> None:
        expected = nn.CrossEntropyLoss(label_smoothing=0.1)(LOGITS, LABELS)
        torch.testing.assert_close(MeanCrossEntropy([1, 1, 1], 0.1)(LOGITS, LABELS), expected)

    def test_with_weights_by_hand(self) -> None:
        # two rows, two classes, logits 0 and log 3: probabilities 1/4 and 3/4
        logits = torch.tensor([[0.0, math.log(3)], [math.log(3), 0.0]])
        labels = torch.tensor([0, 0])
        expected = (5 * -math.log(1 / 4) + 5 * -math.log(3 / 4)) / 2
        assert float(MeanCrossEntropy([5, 2])(logits, labels)) == pytest.approx(expected, rel=1e-6)  # float32
        # torch divides by the weights instead, 5 + 5
        assert float(nn.CrossEntropyLoss(torch.tensor([5.0, 2.0]))(logits, labels)) == pytest.approx(expected / 5)

    def test_with_weights_and_smoothing_by_hand(self) -> None:
        logits, labels = torch.tensor([[0.0, math.log(3)]]), torch.tensor([1])
        smooth = 0.9 * -math.log(3 / 4) + 0.1 * -math.log(1 / 4)  # of 0.2, half goes to each class
        assert float(MeanCrossEntropy([5, 2], 0.2)(logits, labels)) == pytest.approx(2 * smooth, rel=1e-6)

    def test_the_epochs_loss_does_not_depend_on_the_batches(self) -> None:
        criterion = MeanCrossEntropy([1, 5, 0.2])
        whole = float(criterion(LOGITS, LABELS))
        parts = zip(torch.split(LOGITS, 7), torch.split(LABELS, 7), strict=True)
        assert sum(float(criterion(x, y)) * len(y) for x, y in parts) / 20 == pytest.approx(whole, rel=1e-6)

    def test_weights_are_a_buffer(self) -> None:
        assert list(MeanCrossEntropy([1, 2]).state_dict()) == ["weight"]
        assert list(MeanCrossEntropy().state_dict()) == []

    @pytest.mark.parametrize("weight", [[-1, 1], [0, 0], [float("nan"), 1]])
    def test_weights_out_of_range(self, weight: list[float]) -> None:
        with pytest.raises(ConfigError, match=r"class_weights: must not be negative, nor all zero, got \["):
            MeanCrossEntropy(weight)

    @pytest.mark.parametrize("smoothing", [-0.1, 1.0, float("nan")])
    def test_smoothing_out_of_range(self, smoothing: float) -> None:
        with pytest.raises(ConfigError, match=r"label_smoothing: must be from 0 up to, not including, 1, got"):
            MeanCrossEntropy(label_smoothing=smoothing)


class TestOnScaledTarget:
    def test_is_the_criterion_of_standardised_values(self) -> None:
        mean, std = torch.tensor([100.0, -3.0]), torch.tensor([10.0, 0.5])
        outputs, targets = some(6, 2) * std + mean, some(6, 2, seed=1) * std + mean
        criterion = OnScaledTarget(nn.HuberLoss(), mean, std)
        expected = nn.HuberLoss()(some(6, 2), some(6, 2, seed=1))
        torch.testing.assert_close(criterion(outputs, targets), expected, rtol=1e-4, atol=0)  # cancellation near 100

    def test_mse_is_in_units_of_the_variance(self) -> None:
        criterion = OnScaledTarget(nn.MSELoss(), torch.tensor([5.0]), torch.tensor([4.0]))
        assert float(criterion(torch.tensor([[9.0]]), torch.tensor([[1.0]]))) == 8**2 / 4**2


@pytest.mark.parametrize("weights", [[3, 5, 2], [1, 1, 98], [50, 50]])
def test_balanced_weights_are_scikit_learns(weights: list[int]) -> None:
    labels = torch.repeat_interleave(torch.arange(len(weights)), torch.tensor(weights))
    expected = compute_class_weight("balanced", classes=np.arange(len(weights)), y=labels.numpy())
    assert balanced_weights(labels, len(weights)) == pytest.approx(list(expected), rel=1e-15)


def test_a_class_without_rows_weighs_nothing() -> None:
    assert balanced_weights(torch.tensor([0, 0, 2, 2]), 4) == [0.5, 0.0, 0.5, 0.0]


class TestByName:
    @pytest.mark.parametrize(
        ("name", "task", "kind"),
        [
            ("auto", "regression", nn.MSELoss),
            ("auto", "binary", MeanCrossEntropy),
            ("auto", "multiclass", MeanCrossEntropy),
            ("mse", "regression", nn.MSELoss),
            ("mae", "regression", nn.L1Loss),
            ("huber", "regression", nn.HuberLoss),
            ("cross-entropy", "multiclass", MeanCrossEntropy),
        ],
    )
    def test_known(self, name: str, task: Any, kind: type[nn.Module]) -> None:
        criterion = build_criterion(name, task)
        assert type(criterion) is kind
        assert task_of(criterion) == ("multiclass" if task == "binary" else task)

    def test_settings_reach_the_criterion(self) -> None:
        criterion = build_criterion("auto", "binary", class_weights=[1, 4], label_smoothing=0.1)
        assert isinstance(criterion, MeanCrossEntropy)
        assert criterion.weight is not None
        assert criterion.weight.tolist() == [1, 4]
        assert criterion.label_smoothing == 0.1

    def test_unknown(self) -> None:
        with pytest.raises(
            UnknownNameError, match=r"loss: must be one of the known names, got 'mes'\. Did you mean 'ms"
        ):
            build_criterion("mes", "regression")

    def test_of_another_task(self) -> None:
        text = r"loss: must be one for multiclass, got 'mse'\. For multiclass: cross-entropy\."
        with pytest.raises(ConfigError, match=text):
            build_criterion("mse", "multiclass")
        with pytest.raises(ConfigError, match=r"For regression: mse, mae, huber\."):
            build_criterion("cross-entropy", "regression")

    @pytest.mark.parametrize("settings", [{"class_weights": [1, 2]}, {"label_smoothing": 0.1}])
    def test_classification_settings_in_a_regression(self, settings: dict[str, Any]) -> None:
        with pytest.raises(ConfigError, match=rf"{next(iter(settings))}: is for classification, got task regression\."):
            build_criterion("auto", "regression", **settings)

    def test_every_name_builds(self) -> None:
        assert all(isinstance(build_criterion(name, tasks[0]), nn.Module) for name, (_, tasks) in CRITERIA.items())


@pytest.mark.parametrize(
    ("criterion", "task"),
    [
        (nn.MSELoss(), "regression"),
        (nn.SmoothL1Loss(), "regression"),
        (OnScaledTarget(nn.L1Loss(), torch.zeros(1), torch.ones(1)), "regression"),
        (nn.CrossEntropyLoss(), "multiclass"),
        (nn.NLLLoss(), "multiclass"),
        (nn.BCEWithLogitsLoss(), "binary"),
        (nn.PoissonNLLLoss(), None),
        (lambda outputs, targets: outputs - targets, None),
    ],
)
def test_task_of(criterion: Any, task: str | None) -> None:
    assert task_of(criterion) == task
