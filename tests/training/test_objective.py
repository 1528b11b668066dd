"""The objective against sums written out by hand."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stoker.errors import ConfigError, DataError, InputTypeError, StokerError, UnknownNameError
from stoker.training.criteria import MeanCrossEntropy, OnScaledTarget
from stoker.training.objective import Loss, Objective, build_objective

CPU = torch.device("cpu")


def some(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def of(spec: Any, **settings: Any) -> Objective:
    return build_objective(spec, device=CPU, **settings)


MAIN, AUX, Y = some(20, 1), some(20, 1, seed=1), some(20, 1, seed=2)
LOGITS, LABELS = some(20, 3), torch.randint(0, 3, (20,), generator=torch.Generator().manual_seed(1))
Named = namedtuple("Named", ["main", "aux"])


class TestSingle:
    def test_a_criterion_is_called_as_it_is(self) -> None:
        assert torch.equal(of(nn.MSELoss())(MAIN, Y), F.mse_loss(MAIN, Y))
        assert torch.equal(of("cross-entropy")(LOGITS, LABELS), F.cross_entropy(LOGITS, LABELS))

    def test_a_function_gets_whatever_there_is(self) -> None:
        def criterion(outputs: Any, targets: Any) -> Tensor:
            return outputs["a"].sum() * targets[0].sum()  # type: ignore[no-any-return]

        assert torch.equal(of(criterion)({"a": MAIN}, (Y, Y)), MAIN.sum() * Y.sum())

    def test_an_entry_of_the_targets(self) -> None:
        assert torch.equal(of(Loss("mse", target="y"))(MAIN, {"y": Y, "id": LABELS}), F.mse_loss(MAIN, Y))
        assert torch.equal(of(Loss("mse", target=1))(MAIN, (LABELS, Y)), F.mse_loss(MAIN, Y))

    @pytest.mark.parametrize(
        "criterion",
        [
            nn.MSELoss(),
            nn.L1Loss(),
            nn.SmoothL1Loss(),
            nn.HuberLoss(),
            nn.BCEWithLogitsLoss(),
            OnScaledTarget(nn.MSELoss(), torch.zeros(1), torch.ones(1)),
        ],
    )
    def test_rows_are_not_compared_with_all_others(self, criterion: nn.Module) -> None:
        outputs, targets = some(20, 1), some(20, seed=1).sigmoid()
        text = (
            r"targets: must have the shape of the model's outputs, \[20, 1\], got \[20\]\. Reshape one of the two, su"
        )
        with pytest.raises(DataError, match=text):
            of(criterion)(outputs, targets)
        assert torch.equal(of(criterion)(outputs, targets[:, None]), criterion(outputs, targets[:, None]))


class TestSeveral:
    SPEC = {"main": Loss(nn.MSELoss(), weight=0.8), "aux": Loss(nn.MSELoss(), weight=0.2)}  # noqa: RUF012

    @pytest.mark.parametrize("outputs", [{"main": MAIN, "aux": AUX}, Named(MAIN, AUX)])
    def test_one_target_for_both_by_hand(self, outputs: Any) -> None:
        expected = 0.8 * F.mse_loss(MAIN, Y) + 0.2 * F.mse_loss(AUX, Y)
        torch.testing.assert_close(of(self.SPEC)(outputs, Y), expected)

    def test_by_place(self) -> None:
        spec = {0: Loss("mse", weight=0.8), 1: Loss("mse", weight=0.2)}
        expected = 0.8 * F.mse_loss(MAIN, Y) + 0.2 * F.mse_loss(AUX, 2 * Y)
        torch.testing.assert_close(of(spec)((MAIN, AUX), (Y, 2 * Y)), expected)

    def test_different_tasks_and_targets(self) -> None:
        objective = of({"price": nn.L1Loss(), "kind": Loss("cross-entropy", target="label")})
        outputs, targets = {"price": MAIN, "kind": LOGITS}, {"price": Y, "label": LABELS}
        torch.testing.assert_close(objective(outputs, targets), F.l1_loss(MAIN, Y) + F.cross_entropy(LOGITS, LABELS))
        assert [part.task for part in objective.parts] == ["regression", "multiclass"]
        assert objective.task is None
        assert objective.target_names == {"label"}

    def test_an_auxiliary_output_is_ignored_in_evaluation(self) -> None:
        objective = of({"main": Loss("mse", weight=0.8), "aux": Loss("mse", weight=0.2, train_only=True)})
        both = objective.evaluation_losses({"main": MAIN, "aux": AUX}, Y)
        alone = objective.evaluation_losses(MAIN, Y)
        assert [float(loss) for loss in both] == [float(loss) for loss in alone] == [float(F.mse_loss(MAIN, Y))]
        assert objective.weigh([3.0]) == 3.0
        assert objective.task == "regression"

    def test_in_evaluation_weights_count_as_in_training(self) -> None:
        objective = of(self.SPEC)
        losses = [float(loss) for loss in objective.evaluation_losses({"main": MAIN, "aux": AUX}, Y)]
        assert objective.weigh(losses) == pytest.approx(float(objective({"main": MAIN, "aux": AUX}, Y)))

    def test_gradients_are_the_weighted_sums(self) -> None:
        main, aux = MAIN.clone().requires_grad_(), AUX.clone().requires_grad_()
        of(self.SPEC)({"main": main, "aux": aux}, Y).backward()  # type: ignore[no-untyped-call]
        torch.testing.assert_close(main.grad, 0.8 * 2 * (MAIN - Y) / 20)
        torch.testing.assert_close(aux.grad, 0.2 * 2 * (AUX - Y) / 20)


class TestSampleWeights:
    WEIGHTS = torch.linspace(0, 2, 20)

    @pytest.mark.parametrize(
        ("criterion", "outputs", "target", "each"),
        [
            (nn.MSELoss(), MAIN, Y, ((MAIN - Y) ** 2)[:, 0]),
            (nn.CrossEntropyLoss(), LOGITS, LABELS, -LOGITS.log_softmax(1)[range(20), LABELS]),
            (
                MeanCrossEntropy([1, 2, 3]),
                LOGITS,
                LABELS,
                -LOGITS.log_softmax(1)[range(20), LABELS] * torch.tensor([1.0, 2.0, 3.0])[LABELS],
            ),
            (OnScaledTarget(nn.MSELoss(), torch.ones(1), 2 * torch.ones(1)), MAIN, Y, ((MAIN - Y) ** 2)[:, 0] / 4),
        ],
    )
    def test_by_hand(self, criterion: nn.Module, outputs: Tensor, target: Tensor, each: Tensor) -> None:
        objective = of(Loss(criterion, target="y", sample_weight="w"))
        found = objective(outputs, {"y": target, "w": self.WEIGHTS})
        torch.testing.assert_close(found, (each * self.WEIGHTS).sum() / 20)
        torch.testing.assert_close(criterion(outputs, target), each.mean())  # the criterion itself is as it was

    def test_a_weight_of_two_is_the_sample_twice(self) -> None:
        weights = torch.ones(20).index_fill(0, torch.tensor([3]), 2.0) * 20 / 21
        twice = torch.cat([MAIN, MAIN[3:4]]), torch.cat([Y, Y[3:4]])
        objective = of(Loss("mse", target="y", sample_weight="w"))
        torch.testing.assert_close(objective(MAIN, {"y": Y, "w": weights}), F.mse_loss(*twice))

    def test_their_number_is_that_of_the_samples(self) -> None:
        objective = of(Loss("mse", target="y", sample_weight="w"))
        text = r"sample_weight: must be one for each sample's loss, got losses of shape \[20, 1\] and weights of s"
        with pytest.raises(DataError, match=text):
            objective(MAIN, {"y": Y, "w": torch.ones(3)})

    def test_a_function_cannot_be_weighed(self) -> None:
        text = r'sample_weight: needs a criterion with a reduction, so that it can be "none", got mse_loss\. Use one of'
        with pytest.raises(InputTypeError, match=text):
            of(Loss(F.mse_loss, target="y", sample_weight="w"))


ERRORS: list[tuple[Any, Any, Any, type[StokerError], str]] = [
    (
        {"mian": "mse"},
        {"main": MAIN, "aux": AUX},
        Y,
        UnknownNameError,
        r"outputs: must be one of the known names, got 'mian'\. Did you mean 'main'\? Known: main, aux\.",
    ),
    (
        {"main": "mse"},
        MAIN,
        Y,
        DataError,
        r"outputs: must be a dict that has 'main', got one tensor of shape \[20, 1\]\. Say which output and which tar",
    ),
    ({2: "mse"}, (MAIN, AUX), Y, DataError, r"outputs: must have a place 2, from 0, got 2 of them\."),
    ({0: "mse"}, MAIN, Y, DataError, r"outputs: must be a tuple that has a place 0, got one tensor of shape"),
    (
        {"main": "mse", "kind": "cross-entropy"},
        {"main": MAIN, "kind": LOGITS},
        {"main": Y, "kin": LABELS},
        UnknownNameError,
        r"targets, for the target of output 'kind': must be one of the known names, got 'kind'\. Did you mean 'kin'\?",
    ),
    (
        {"main": Loss("mse", target="y")},
        {"main": MAIN},
        Y,
        DataError,
        r"targets, for the target of output 'main': must be a dict that has 'y', got one tensor of shape \[20, 1\]\.",
    ),
    (
        {"main": "mse"},
        {"main": MAIN},
        Y[:, 0],
        DataError,
        r"targets of output 'main': must have the shape of the model's outputs, \[20, 1\], got \[20\]\.",
    ),
]


@pytest.mark.parametrize(("spec", "outputs", "targets", "error", "text"), ERRORS)
def test_what_does_not_fit_together(spec: Any, outputs: Any, targets: Any, error: type[StokerError], text: str) -> None:
    with pytest.raises(error, match=text):
        of(spec)(outputs, targets)


REFUSED: list[tuple[Any, dict[str, Any], type[StokerError], str]] = [
    ({}, {}, ConfigError, r"objective: must have at least one loss that counts, got none\."),
    (
        {"a": Loss("mse", weight=0)},
        {},
        ConfigError,
        r"objective: must have at least one loss that counts, got weights that are all zero\.",
    ),
    ({"a": Loss("mse", train_only=True)}, {}, ConfigError, r"at least one loss that counts, got all train_only\."),
    ({None: "mse"}, {}, InputTypeError, r"objective: outputs are named by text or place, got None\. Such as \{'main'"),
    ({"a": "mze"}, {}, UnknownNameError, r"loss: must be one of the known names, got 'mze'\. Did you mean 'mse'\?"),
    ({"a": 3}, {}, InputTypeError, r"criterion: must be a module, a function or a name, got int\. Pass an instance\."),
    (
        {"a": "mse", "b": "mse"},
        {"metrics": ["rmse"]},
        ConfigError,
        r"metrics and task: belong to one output of 2, got one for all\. Say Loss\(…, task=…, metrics=\[…\]\) for each",
    ),
    (Loss("mse", metrics=["acuracy"]), {}, UnknownNameError, r"metric: .* got 'acuracy'\. Did you mean 'accuracy'\?"),
]


@pytest.mark.parametrize(("spec", "settings", "error", "text"), REFUSED)
def test_what_is_no_objective(spec: Any, settings: dict[str, Any], error: type[StokerError], text: str) -> None:
    with pytest.raises(error, match=text):
        of(spec, **settings)


@pytest.mark.parametrize("weight", [-0.5, float("nan"), float("inf")])
def test_a_weight_is_a_number_from_0_on(weight: float) -> None:
    with pytest.raises(
        ConfigError, match=r"objective: a loss's weight must be a number from 0 on, got .*\. Leave it at"
    ):
        Loss("mse", weight=weight)
