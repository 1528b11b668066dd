"""The check as the Trainer carries it out: before the first step, without a trace, and only if it is wanted."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from checking import C, Calls, X, Y, mlp
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from stoker.errors import CheckError, DataError, InputTypeError
from stoker.training.objective import Loss
from stoker.training.preflight.findings import CheckWarning
from stoker.training.trainer import Trainer

QUIET: dict[str, Any] = {"progress": "none", "epochs": 2}


def trainer_of(model: nn.Module, criterion: Any = "mse", **settings: Any) -> Trainer:
    return Trainer(model, criterion, "adam", device="cpu", **settings)


def net() -> nn.Module:
    torch.manual_seed(0)
    return mlp(8, nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(zip(X, Y, strict=True))


class Own:
    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter([(X[:60], Y[:60]), (X[60:], Y[60:]), (X[:30], Y[:30])])


SOURCES: dict[str, Callable[[], Any]] = {
    "tensors": lambda: (X, Y),
    "loader": lambda: DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True),
    "stream": lambda: DataLoader(Stream(), batch_size=16),
    "iterable": Own,
}


class TestFit:
    @pytest.mark.parametrize("source", SOURCES)
    @pytest.mark.parametrize("evaluation", [False, True])
    def test_comes_out_the_same_with_it_and_without(self, source: str, evaluation: bool) -> None:
        models, histories = [net(), net()], []
        for model, check in zip(models, (True, False), strict=True):
            model.train(not evaluation)
            torch.manual_seed(7)
            histories.append(trainer_of(model).fit(SOURCES[source](), check=check, **QUIET))
        assert same(*models)
        assert histories[0].rows == histories[1].rows

    def test_a_lazy_model_comes_out_the_same(self) -> None:
        torch.manual_seed(0)
        models: list[nn.Module] = [
            nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.LazyLinear(1)) for _ in "ab"
        ]
        for model, check in zip(models, (True, False), strict=True):
            trainer_of(model).fit((X, Y), check=check, **QUIET)
        assert same(*models)

    def test_errors_stop_it_before_anything_is_trained(self) -> None:
        model, before = mlp(3), mlp(3)
        trainer = trainer_of(model, "cross-entropy")
        with pytest.raises(
            CheckError, match=r"check: the first batch .*\n- targets: class indices must be from 0 to 2"
        ) as caught:
            trainer.fit((X, C + 1), **QUIET)
        assert [finding.severity for finding in caught.value.findings] == ["error"]
        assert same(model, before)
        assert trainer.state.step == 0
        assert not trainer.optimizer.state

    def test_warnings_point_to_where_it_was_called(self) -> None:
        trainer = trainer_of(mlp(3, nn.Softmax(dim=1)), "cross-entropy")
        with pytest.warns(CheckWarning, match=r"module '3' \(Softmax\): softmax comes before") as told:
            trainer.fit((X, C), **QUIET)
        assert [warning.filename for warning in told] == [__file__]
        assert trainer.state.step == 8

    def test_without_it_nothing_is_said(self) -> None:
        trainer = trainer_of(mlp(3, nn.Softmax(dim=1)), "cross-entropy")
        trainer.fit((X, C), check=False, **QUIET)
        assert trainer.state.step == 8

    def test_targets_that_would_broadcast_are_an_error_without_it_too(self) -> None:
        for check in (True, False):
            text = r"targets: must have the shape of the model's outputs, \[32, 1\], got \[32\]"
            with pytest.raises(DataError, match=text):
                trainer_of(mlp()).fit((X, Y[:, 0]), check=check, **QUIET)


class TestCheck:
    def test_returns_what_it_finds(self) -> None:
        trainer = trainer_of(mlp(3, nn.Softmax(dim=1)), "cross-entropy")
        assert [finding.severity for finding in trainer.check((X, C))] == ["warning"]
        assert trainer_of(mlp()).check((X, Y)) == []

    @pytest.mark.parametrize("source", SOURCES)
    def test_takes_what_fit_takes_and_leaves_random_numbers_alone(self, source: str) -> None:
        model = net()
        before, state = net(), torch.get_rng_state()
        assert trainer_of(model).check(SOURCES[source]()) == []
        assert same(model, before)
        assert torch.equal(torch.get_rng_state(), state)

    def test_arrays_and_several_outputs(self) -> None:
        model = Calls(lambda m, x: {"a": m.fc(x), "b": m.fc(x)})
        trainer = trainer_of(model, {"a": Loss("mse", target="y"), "b": Loss("mae", target="y")})
        assert trainer.check((X.double().numpy(), {"y": Y.numpy()})) == []

    def test_a_lazy_model_has_no_optimizer_yet(self) -> None:
        model = nn.Sequential(nn.LazyLinear(3), nn.Softmax(dim=1))
        found = trainer_of(model, "cross-entropy").check((X, C))
        assert [finding.where for finding in found] == ["module '1' (Softmax)"]
        assert isinstance(model[0].weight, nn.UninitializedParameter)

    def test_needs_a_batch(self) -> None:
        with pytest.raises(DataError, match="check: the data must yield at least one batch, got none"):
            trainer_of(mlp()).check(DataLoader(TensorDataset(X, Y), batch_size=200, drop_last=True))

    def test_bfloat16(self) -> None:
        assert trainer_of(net(), precision="bf16").check((X, Y)) == []


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.LazyLinear(1)

    def forward(self, one: Tensor, two: Tensor) -> Any:
        return self.fc(one + two)


@pytest.mark.parametrize(
    "act",
    [
        lambda trainer: trainer.fit((X, Y), check=False, **QUIET),
        lambda trainer: trainer.fit((X, Y), **QUIET),
        lambda trainer: trainer.check((X, Y)),
        lambda trainer: trainer.evaluate((X, Y)),
        lambda trainer: trainer.predict(X),
    ],
)
@pytest.mark.parametrize("lazy", [True, False])
def test_the_signature_is_always_looked_at(act: Callable[[Trainer], Any], lazy: bool) -> None:
    model = Two()
    if not lazy:
        model(X, X)
    text = "Two: the inputs must fit forward(one, two), got 1 by position: float32 ["
    with pytest.raises(InputTypeError, match=re.escape(text)):
        act(trainer_of(model))
