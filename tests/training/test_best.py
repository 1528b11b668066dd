from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stoker.errors import ConfigError
from stoker.training.best import BestWeights, Snapshot, non_finite_parameter


def scramble(model: nn.Module) -> None:
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.add_(1)


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in (*model.named_parameters(), *model.named_buffers())}


def assert_state(model: nn.Module, expected: dict[str, Tensor]) -> None:
    now = state(model)
    assert list(now) == list(expected)
    assert all(torch.equal(now[name], expected[name]) for name in expected)


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    return model


def transposed() -> nn.Module:
    model = nn.Linear(3, 4)
    model.weight = nn.Parameter(torch.randn(3, 4).t())
    return model


def with_buffers() -> nn.Module:
    model = nn.BatchNorm1d(3)
    model.register_buffer("not_saved", torch.randn(2), persistent=False)
    model.register_buffer("expanded", torch.randn(1).expand(4))
    return model


def half_frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[0].requires_grad_(False)
    return model


MODELS: dict[str, Any] = {
    "linear": lambda: nn.Linear(3, 2),
    "tied": tied,
    "transposed": transposed,
    "channels last": lambda: nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last),  # type: ignore[call-overload]
    "buffers": with_buffers,
    "half frozen": half_frozen,
    "parametrised": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)),
    "complex": lambda: nn.Linear(3, 2, dtype=torch.complex64),
}


class TestSnapshot:
    @pytest.mark.parametrize("kind", MODELS)
    def test_gives_back_what_was_taken(self, kind: str) -> None:
        model = MODELS[kind]()
        identities = [id(parameter) for parameter in model.parameters()]
        strides = [parameter.stride() for parameter in model.parameters()]
        snapshot = Snapshot(model)
        first = state(model)
        for parameter in model.parameters():
            parameter.data.mul_(2)
        snapshot.restore()
        assert_state(model, first)
        for parameter in model.parameters():
            parameter.data.mul_(3)
        second = state(model)
        snapshot.take()  # into the same memory
        for parameter in model.parameters():
            parameter.data.zero_()
        snapshot.restore()
        assert_state(model, second)
        assert [id(parameter) for parameter in model.parameters()] == identities
        assert [parameter.stride() for parameter in model.parameters()] == strides

    def test_shares_no_memory_with_the_model(self) -> None:
        model = nn.Linear(3, 2)
        snapshot = Snapshot(model)
        first = state(model)
        snapshot.restore()
        scramble(model)
        snapshot.restore()
        scramble(model)  # would change the snapshot, if restoring had handed out its memory
        snapshot.restore()
        assert_state(model, first)

    def test_includes_running_statistics_and_buffers_that_are_not_saved(self) -> None:
        model = with_buffers()
        snapshot, first = Snapshot(model), state(model)
        model.get_buffer("running_mean").fill_(7)
        model.get_buffer("num_batches_tracked").fill_(9)
        model.get_buffer("not_saved").fill_(7)
        snapshot.restore()
        assert_state(model, first)

    def test_a_buffer_that_came_into_being_stays(self) -> None:
        model = nn.Linear(3, 2)
        snapshot, first = Snapshot(model), state(model)
        model.register_buffer("cache", torch.ones(2))
        scramble(model)
        snapshot.restore()
        assert torch.equal(model.weight, first["weight"])
        assert model.get_buffer("cache").tolist() == [2, 2]

    def test_a_buffer_that_grew_shrinks_again(self) -> None:
        model = nn.Linear(3, 2)
        model.register_buffer("seen", torch.zeros(2))
        snapshot = Snapshot(model)
        model.seen = torch.ones(5)
        snapshot.restore()
        assert model.get_buffer("seen").tolist() == [0, 0]

    def test_passes_over_state_that_is_no_tensor(self) -> None:
        class Odd(nn.Linear):
            def get_extra_state(self) -> Any:
                return {"anything": 1}

            def set_extra_state(self, state: Any) -> None:
                raise AssertionError(state)

        model = Odd(3, 2)
        snapshot, first = Snapshot(model), state(model)
        scramble(model)
        snapshot.restore()
        assert_state(model, first)

    def test_keeps_gradients_and_graphs_out(self) -> None:
        model = nn.Linear(3, 2)
        snapshot = Snapshot(model)
        model(torch.ones(1, 3)).sum().backward()
        snapshot.take()
        snapshot.restore()
        assert model.weight.requires_grad
        assert model.weight.grad_fn is None
        assert model.weight.grad is not None

    def test_optimizers_go_on_with_the_restored_parameters(self) -> None:
        model = nn.Linear(1, 1, bias=False)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        snapshot, before = Snapshot(model), copy.deepcopy(model.weight.detach())
        scramble(model)
        snapshot.restore()
        model(torch.ones(1, 1)).sum().backward()
        optimizer.step()
        assert torch.equal(model.weight, before - 1)


class TestNonFinite:
    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_names_the_first(self, bad: float) -> None:
        first, second = nn.Linear(3, 3), nn.Linear(3, 3)
        model = nn.Sequential(first, second)
        assert non_finite_parameter(model) is None
        second.weight.data[2, 1] = bad
        second.bias.data[0] = bad
        assert non_finite_parameter(model) == "1.weight"

    def test_only_trained_parameters_count(self) -> None:
        model = nn.Linear(3, 3)
        model.register_buffer("mask", torch.full((3,), -math.inf))
        model.bias.requires_grad_(False).fill_(-math.inf)
        assert non_finite_parameter(model) is None
        assert non_finite_parameter(nn.ReLU()) is None

    def test_very_large_is_not_infinite(self) -> None:
        model = nn.Linear(3, 3)
        model.weight.data.fill_(3e38)
        assert non_finite_parameter(model) is None


def rows(values: list[float], name: str = "valid_loss") -> list[dict[str, float]]:
    return [{"epoch": index, "train_loss": 0.0, name: value} for index, value in enumerate(values, start=1)]


class TestBestWeights:
    @pytest.mark.parametrize(
        ("direction", "values", "best"),
        [("min", [3, 2, 2, 4], 2), ("max", [3, 2, 4, 4], 3), ("min", [1], 1), ("min", [5, 4, 3], 3)],
    )
    def test_the_first_of_the_best(self, direction: Any, values: list[float], best: int) -> None:
        weights = BestWeights("valid_loss", direction)
        for row in rows(values):
            weights.improved(row)
        assert weights.epoch == best
        assert weights.value == values[best - 1]

    def test_patience_counts_epochs_without_an_improvement(self) -> None:
        weights = BestWeights("valid_loss", patience=2)
        seen = []
        for row in rows([3, 4, 2, 2.5, 2]):
            weights.improved(row)
            seen.append((weights.waited, weights.exhausted))
        assert seen == [(0, False), (1, False), (0, False), (1, False), (2, True)]

    def test_min_delta_must_be_exceeded(self) -> None:
        weights = BestWeights("valid_loss", min_delta=0.5)
        assert [weights.improved(row) for row in rows([3.0, 2.75, 2.5, 2.25])] == [True, False, False, True]

    def test_nan_is_better_than_nothing_and_worse_than_all_else(self) -> None:
        weights = BestWeights("valid_loss")
        found = [weights.improved(row) for row in rows([math.nan, math.nan, 5, math.nan, 4, math.inf])]
        assert found == [True, True, True, False, True, False]
        assert weights.epoch == 5

    @pytest.mark.parametrize("value", [math.inf, math.nan])
    def test_while_nothing_is_finite_the_latest_counts_and_patience_runs_out(self, value: float) -> None:
        weights = BestWeights("valid_loss", patience=3)
        assert [weights.improved(row) for row in rows([value, value])] == [True, True]
        assert (weights.epoch, weights.waited, weights.exhausted) == (2, 2, False)
        weights.improved(rows([value])[0])
        assert weights.exhausted

    def test_without_a_monitor_the_latest_is_the_best(self) -> None:
        weights = BestWeights(None)
        assert all(weights.improved({"epoch": epoch, "train_loss": 1.0}) for epoch in (1, 2, 3))
        assert weights.epoch == 3
        assert not weights.exhausted

    def test_monitored_value(self) -> None:
        row = {"epoch": 1, "train_loss": 2.0, "valid_accuracy": 0.9}
        assert BestWeights("valid_accuracy", "max").monitored(row) == 0.9
        assert BestWeights(None).monitored(row) == 2.0

    @pytest.mark.parametrize(
        ("monitor", "settings", "text"),
        [
            (
                "valid_loss",
                {"patience": 0},
                r"patience: must be at least 1 epoch, got 0\. Leave it out to train to the e",
            ),
            (
                None,
                {"patience": 3},
                r"patience: needs a validation split to compare epochs by, got none\. Pass valid= t",
            ),
            ("valid_loss", {"min_delta": -0.1}, r"min_delta: must not be negative, got -0\.1\."),
        ],
    )
    def test_what_is_refused(self, monitor: str | None, settings: dict[str, Any], text: str) -> None:
        with pytest.raises(ConfigError, match=text):
            BestWeights(monitor, **settings)
