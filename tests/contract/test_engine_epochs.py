"""What every engine owes besides the weights: the epoch's loss, its segments, what is not finite, hooks."""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest
import torch
from loops import BATCH, EPOCHS, SEED, assert_same_state, built, loop, mlp, rows
from torch import Tensor, nn
from torch.optim import Optimizer

from stoker.data.resident import ResidentBatches
from stoker.engines import eager
from stoker.engines.registry import ENGINES
from stoker.engines.step import EpochOutcome, Step
from stoker.errors import InputTypeError
from stoker.training.trainer import Trainer

engines = pytest.mark.parametrize("engine", sorted(ENGINES))


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Weights are the same whichever tests ran before."""
    torch.manual_seed(0)


@engines
def test_an_epochs_loss_is_the_mean_over_samples_not_over_batches(engine: str) -> None:
    # Two batches, of 4 rows and of 1. The weights stay as they are (lr 0), so the losses can be had in the head:
    # w = 1, targets 0: the first four rows are 1 and cost 1 each, the last is 3 and costs 9.
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    x = torch.tensor([[1.0], [1.0], [1.0], [1.0], [3.0]])
    trainer = Trainer(model, nn.MSELoss(), "sgd", lr=0.0, engine=engine, device="cpu", metrics=())
    history = trainer.fit((x, torch.zeros(5, 1)), epochs=1, batch_size=4, shuffle=False, progress="none")
    assert history[0]["train_loss"] == (4 * 1 + 1 * 9) / 5  # 2.6; the mean over batches would be 5
    assert trainer.evaluate((x, torch.zeros(5, 1)))["loss"] == pytest.approx(2.6, rel=1e-6)  # a float32's mean


@engines
def test_the_ragged_last_batch_is_trained_on(engine: str) -> None:
    # The last row alone has a second feature, so its weight moves only if that batch of one is trained on.
    model = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(model.weight)
    x = torch.tensor([[1.0, 0.0]] * 4 + [[0.0, 1.0]])
    trainer = Trainer(model, nn.MSELoss(), "sgd", lr=0.5, engine=engine, device="cpu", metrics=())
    trainer.fit((x, torch.ones(5, 1)), epochs=1, batch_size=2, shuffle=False, progress="none")
    assert model.weight.tolist()[0][1] == 1.0  # 0 + 0.5 · 2 · (1 - 0)


@engines
@pytest.mark.parametrize(("seconds", "steps"), [(0.0, 1), (1e9, 3), (1e9, 10**6)])
def test_the_outcome_does_not_depend_on_where_an_epoch_is_cut(
    engine: str, seconds: float, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit() -> tuple[list[float], nn.Module]:
        # in double precision, where sums depend on their order; those of a few float32 are exact
        model = built(lambda: nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 1))).double()
        trainer = Trainer(model, nn.MSELoss(), "adam", lr=0.01, engine=engine, device="cpu", metrics=())
        data = rows(4).double(), rows(1, seed=1).double()
        history = trainer.fit(data, epochs=3, batch_size=2, progress="none")
        return history.column("train_loss"), model

    losses, model = fit()
    monkeypatch.setattr(eager, "SEGMENT_SECONDS", seconds)
    monkeypatch.setattr(eager, "SEGMENT_STEPS", steps)
    cut_losses, cut_model = fit()
    assert cut_losses == losses  # to the last bit
    assert_same_state("eager", cut_model, model)


def step_of(model: nn.Module) -> Step:
    return Step(model, nn.MSELoss(), torch.optim.SGD(model.parameters(), lr=0.1))


@engines
def test_watch_sees_the_epoch_grow_and_may_end_it(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eager, "SEGMENT_SECONDS", 1e9)
    monkeypatch.setattr(eager, "SEGMENT_STEPS", 2)
    seen: list[tuple[int, int]] = []

    def watch(outcome: EpochOutcome) -> bool:
        seen.append((outcome.steps, outcome.samples))
        return len(seen) < 2

    batches = ResidentBatches(rows(4), rows(1, seed=1), batch_size=BATCH)
    outcome = ENGINES[engine]().train_epoch(step_of(built(mlp)), batches.epoch(0), watch)
    assert seen == [(2, 32), (4, 64)]
    assert (outcome.steps, outcome.samples, outcome.complete, outcome.bad_step) == (4, 64, False, None)


@engines
def test_an_epoch_without_batches_makes_no_step(engine: str) -> None:
    outcome = ENGINES[engine]().train_epoch(step_of(built(mlp)), iter(()), lambda _: True)
    assert (outcome.steps, outcome.samples, outcome.complete) == (0, 0, True)
    assert outcome.loss != outcome.loss  # NaN


@engines
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("steps", [1, 2, 1000])
def test_the_first_loss_that_is_not_finite_is_named(
    engine: str, bad: float, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eager, "SEGMENT_STEPS", steps)
    x = rows(4)
    x[3 * BATCH] = bad  # in the fourth batch
    batches = ResidentBatches(x, rows(1, seed=1), batch_size=BATCH)
    outcome = ENGINES[engine]().train_epoch(step_of(built(lambda: nn.Linear(4, 1))), batches.epoch(0), lambda _: True)
    assert outcome.bad_step == 3
    assert not outcome.complete
    assert str(outcome.bad_loss) == str(bad)


@engines
def test_hooks_that_run_before_an_update_see_its_own_gradients(engine: str) -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    seen: list[float] = []
    trainer = Trainer(model, lambda out, y: (out * y).mean(), "sgd", lr=0.1, engine=engine, device="cpu", metrics=())

    def before(*_: Any) -> None:
        assert model.weight.grad is not None
        seen.append(float(model.weight.grad))

    trainer.optimizer.register_step_pre_hook(before)
    x = torch.tensor([[1.0], [2.0], [3.0]])  # the gradient of w·x·1 is x
    trainer.fit((x, torch.ones(3, 1)), epochs=1, batch_size=1, shuffle=False, progress="none")
    assert seen == [1.0, 2.0, 3.0]


class NoClosure(Optimizer):
    """An optimizer of the user's, whose step takes nothing."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.1})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for parameter in self.param_groups[0]["params"]:
            parameter -= 0.1 * parameter.grad


@engines
def test_an_optimizer_whose_step_takes_no_closure(engine: str) -> None:
    model = built(lambda: nn.Linear(4, 1))
    by_hand = built(lambda: nn.Linear(4, 1))
    trainer = Trainer(model, nn.MSELoss(), NoClosure, engine=engine, device="cpu", seed=SEED, metrics=())
    trainer.fit((rows(4), rows(1, seed=1)), epochs=EPOCHS, batch_size=BATCH, progress="none")
    loop(by_hand, nn.MSELoss(), NoClosure(by_hand.parameters()), rows(4), rows(1, seed=1))
    assert_same_state(engine, model, by_hand)


@engines
def test_trains_within_no_grad_too(engine: str) -> None:
    model, again = built(lambda: nn.Linear(4, 1)), built(lambda: nn.Linear(4, 1))
    data = rows(4), rows(1, seed=1)
    Trainer(model, nn.MSELoss(), engine=engine, device="cpu", metrics=()).fit(data, epochs=1, progress="none")
    with torch.no_grad():
        Trainer(again, nn.MSELoss(), engine=engine, device="cpu", metrics=()).fit(data, epochs=1, progress="none")
    assert_same_state(engine, again, model)


@engines
@pytest.mark.parametrize(
    ("criterion", "got"),
    [(nn.MSELoss(reduction="none"), r"a tensor of shape \[70, 1\]"), (lambda *_: 0.5, "float")],
)
def test_an_objective_must_return_one_number(engine: str, criterion: Any, got: str) -> None:
    trainer = Trainer(nn.Linear(4, 1), criterion, "sgd", engine=engine, device="cpu", metrics=())
    text = rf"criterion: must return one number, the mean over the batch's samples, got {got}\. Take its mean\(\)\."
    with pytest.raises(InputTypeError, match=text):
        trainer.fit((rows(4), rows(1, seed=1)), epochs=1, batch_size=None, progress="none")
    with pytest.raises(InputTypeError, match=text):
        trainer.evaluate((rows(4), rows(1, seed=1)))


@engines
def test_bf16_computes_in_bfloat16_and_keeps_the_weights_in_float32(engine: str) -> None:
    seen: list[torch.dtype] = []

    class Spy(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            out = super().forward(x)
            seen.append(out.dtype)
            return out

    def fit(precision: str) -> tuple[list[float], nn.Module]:
        model = built(lambda: nn.Sequential(Spy(4, 8), nn.Tanh(), Spy(8, 1)))
        trainer = Trainer(
            model, nn.MSELoss(), "sgd", lr=0.05, engine=engine, device="cpu", precision=precision, metrics=()
        )
        return trainer.fit((rows(4), rows(1, seed=1)), epochs=3, batch_size=BATCH, progress="none").column(
            "train_loss"
        ), model

    exact, _ = fit("32")
    assert set(seen) == {torch.float32}
    seen.clear()
    near, model = fit("bf16")
    assert set(seen) == {torch.bfloat16}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert near == pytest.approx(exact, rel=0.02)  # bfloat16 has 8 bits of mantissa, an ulp of 0.8 %
    assert near != exact


@engines
def test_progress_is_about_ten_times_a_second(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()  # a second passes between any two looks at it
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))
    seen: list[int] = []

    def watch(outcome: EpochOutcome) -> bool:
        seen.append(outcome.steps)
        return True

    batches = ResidentBatches(rows(4), rows(1, seed=1), batch_size=BATCH)
    ENGINES[engine]().train_epoch(step_of(built(mlp)), batches.epoch(0), watch)
    assert seen == [1, 2, 3, 4, 5]
