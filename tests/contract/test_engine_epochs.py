"""What every engine owes besides the weights: the epoch's loss, its segments, what is not finite, hooks.

As in ``test_engines.py``, each test says what made the updates.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from loops import (
    BATCH,
    EAGER_FIRST,
    EPOCHS,
    ROWS,
    SEED,
    SEGMENTS,
    WHOLE,
    assert_same_state,
    built,
    carried_out,
    loop,
    mlp,
    prepare,
    rows,
)
from torch import Tensor, nn
from torch.optim import Optimizer

from stoker.data.resident import ResidentBatches
from stoker.engines import eager, takeover
from stoker.engines.registry import ENGINES
from stoker.engines.step import Epoch, EpochOutcome, Step
from stoker.errors import InputTypeError
from stoker.training.trainer import Trainer

engines = pytest.mark.parametrize("engine", sorted(ENGINES))


@pytest.fixture(autouse=True)
def prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(monkeypatch)


@engines
def test_an_epochs_loss_is_the_mean_over_samples_not_over_batches(engine: str) -> None:
    # Five batches of 4 rows and one of 1. The weights stay as they are (lr 0), so the losses can be had in the head:
    # w = 1, targets 0: the first twenty rows are 1 and cost 1 each, the last is 3 and costs 9.
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    x = torch.tensor([[1.0]] * 20 + [[3.0]])
    trainer = Trainer(model, nn.MSELoss(), "sgd", lr=0.0, engine=engine, device="cpu", metrics=())
    history = trainer.fit((x, torch.zeros(21, 1)), epochs=2, batch_size=4, shuffle=False, progress="none")
    carried_out(trainer, epochs=2, updates=5)
    mean = (20 * 1 + 1 * 9) / 21  # 1.38; the mean over batches would be 2.33
    assert history.column("train_loss") == [mean, mean]
    assert trainer.evaluate((x, torch.zeros(21, 1)))["loss"] == pytest.approx(mean, rel=1e-6)  # a float32's mean


@engines
def test_the_ragged_last_batch_is_trained_on(engine: str) -> None:
    # The last row alone has a second feature, so its weight moves only if that batch of one is trained on.
    model = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(model.weight)
    x = torch.tensor([[1.0, 0.0]] * 10 + [[0.0, 1.0]])
    trainer = Trainer(model, nn.MSELoss(), "sgd", lr=0.5, engine=engine, device="cpu", metrics=())
    trainer.fit((x, torch.ones(11, 1)), epochs=1, batch_size=2, shuffle=False, progress="none")
    carried_out(trainer, epochs=1, updates=5)
    assert model.weight.tolist()[0][1] == 1.0  # 0 + 0.5 · 2 · (1 - 0)


def noisy() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 1))


def normalised() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1))


def convolutional() -> nn.Module:
    layers = [nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4, 1))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "mlp with dropout": (noisy, rows(4)),
    "batch norm with dropout": (normalised, rows(4)),
    "cnn": (convolutional, rows(2, 6, 6)),
}


def cut(patch: pytest.MonkeyPatch, first: int, seconds: float) -> None:
    """Cut epochs after so many steps; programs' after so many at first, then after as many as ``seconds`` allow."""
    patch.setattr(eager, "SEGMENT_SECONDS", seconds)
    patch.setattr(eager, "SEGMENT_STEPS", first)
    patch.setattr(takeover, "FIRST_SEGMENT", first)
    patch.setattr(takeover, "SEGMENT_SECONDS", seconds)


@engines
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("first", [1, 3])
def test_the_outcome_does_not_depend_on_where_an_epoch_is_cut(
    engine: str, network: str, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, x = NETWORKS[network]

    def fit() -> tuple[list[float], nn.Module, int]:
        # in double precision, where sums depend on their order; those of a few float32 are exact
        model = built(make).double()
        trainer = Trainer(model, nn.MSELoss(), "adam", lr=0.01, engine=engine, device="cpu", seed=SEED, metrics=())
        data = x.double(), rows(1, seed=1).double()
        history = trainer.fit(data, epochs=3, batch_size=8, progress="none")
        return history.column("train_loss"), model, carried_out(trainer, epochs=3, updates=ROWS // 8)

    cut(monkeypatch, 10**6, 1e9)
    losses, model, segments = fit()
    cut(monkeypatch, first, 0.0)
    cut_losses, cut_model, cut_segments = fit()
    assert cut_losses == losses  # to the last bit
    assert_same_state("eager", cut_model, model)
    if engine != "eager":
        # ``auto`` knows how long an update takes before the first of them counts
        made = 3 * (ROWS // 8) - EAGER_FIRST[engine]
        assert (segments, cut_segments) == (3, made - (first - 1 if engine == "compiled" else 0))


def step_of(model: nn.Module) -> Step:
    return Step(model, nn.MSELoss(), torch.optim.SGD(model.parameters(), lr=0.1))


def first_epoch(x: Tensor, batch_size: int = BATCH) -> Epoch:
    batches = ResidentBatches(x, rows(1, seed=1), batch_size=batch_size)
    return Epoch(batches, 0, batches.epoch(0))


# The steps after which each engine looks: the first ones of a program are made without, and auto looks at the clock.
LOOKS = {"eager": [2, 4, 6], "compiled": [5, 6], "auto": [1, 2, 4, 5, 6]}


@engines
def test_watch_sees_the_epoch_grow_and_may_end_it(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cut(monkeypatch, 2, 0.0)
    monkeypatch.setattr(eager, "SEGMENT_SECONDS", 1e9)
    seen: list[tuple[int, int]] = []

    def watch(outcome: EpochOutcome) -> bool:
        seen.append((outcome.steps, outcome.samples))
        return outcome.steps < 6

    carrying_out = ENGINES[engine]()
    outcome = carrying_out.train_epoch(step_of(built(mlp)), first_epoch(rows(4)), watch)
    assert carrying_out.reason is None
    assert seen == [(steps, steps * BATCH) for steps in LOOKS[engine]]
    assert (outcome.steps, outcome.samples, outcome.complete, outcome.bad_step) == (6, 96, False, None)


@engines
def test_batches_one_by_one_are_trained_on_eagerly(engine: str) -> None:
    carrying_out, step = ENGINES[engine](), step_of(built(mlp))
    batches = ResidentBatches(rows(4), rows(1, seed=1), batch_size=BATCH)
    outcome = carrying_out.train_epoch(step, batches.epoch(0), lambda _: True)
    assert carrying_out.reason == (None if engine == "eager" else "the data are not resident tensors")
    assert (outcome.steps, outcome.samples, outcome.complete) == (WHOLE + 1, ROWS, True)
    outcome = carrying_out.train_epoch(step, iter(()), lambda _: True)
    assert (outcome.steps, outcome.samples, outcome.complete) == (0, 0, True)
    assert outcome.loss != outcome.loss  # NaN


@engines
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("steps", [1, 2, 1000])
@pytest.mark.parametrize("place", [1, 3, 6])  # before a program, at its beginning, and in the midst of its updates
def test_the_first_loss_that_is_not_finite_is_named(
    engine: str, bad: float, steps: int, place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut(monkeypatch, steps, 0.1)
    x = rows(4)
    x[place * BATCH, 0] = bad
    carrying_out = ENGINES[engine]()
    outcome = carrying_out.train_epoch(step_of(built(lambda: nn.Linear(4, 1))), first_epoch(x), lambda _: True)
    assert outcome.bad_step == place
    assert not outcome.complete
    assert str(outcome.bad_loss) == str(bad)
    if place == 6:
        assert carrying_out.reason is None
        assert sum(SEGMENTS) >= (0 if engine == "eager" else 7 - EAGER_FIRST[engine])


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
    x = torch.arange(1.0, 7.0)[:, None]  # the gradient of w·x·1 is x
    trainer.fit((x, torch.ones(6, 1)), epochs=1, batch_size=1, shuffle=False, progress="none")
    carried_out(trainer, eager="a hook on the optimizer's step")
    assert seen == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


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
    carried_out(trainer, eager="the optimizer NoClosure, which has no pure update")
    loop(by_hand, nn.MSELoss(), NoClosure(by_hand.parameters()), rows(4), rows(1, seed=1))
    assert_same_state("eager", model, by_hand)


@engines
def test_trains_within_no_grad_too(engine: str) -> None:
    models = []
    for grad in (True, False):
        models.append(built(lambda: nn.Linear(4, 1)))
        trainer = Trainer(models[-1], nn.MSELoss(), engine=engine, device="cpu", metrics=())
        with torch.set_grad_enabled(grad):
            trainer.fit((rows(4), rows(1, seed=1)), epochs=EPOCHS, batch_size=BATCH, progress="none")
        carried_out(trainer)
    assert_same_state("eager", *models)  # to the bit, whichever engine


@engines
@pytest.mark.parametrize(
    ("criterion", "got"),
    [(nn.MSELoss(reduction="none"), r"a tensor of shape \[\d+, 1\]"), (lambda *_: 0.5, "float")],
)
def test_an_objective_must_return_one_number(engine: str, criterion: Any, got: str) -> None:
    trainer = Trainer(nn.Linear(4, 1), criterion, "sgd", engine=engine, device="cpu", metrics=())
    text = rf"criterion: must return one number, the mean over the batch's samples, got {got}\. Take its mean\(\)\."
    with pytest.raises(InputTypeError, match=text):
        trainer.fit((rows(4), rows(1, seed=1)), epochs=1, batch_size=BATCH, progress="none", check=False)
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
        history = trainer.fit((rows(4), rows(1, seed=1)), epochs=3, batch_size=BATCH, progress="none")
        carried_out(trainer, epochs=3)
        return history.column("train_loss"), model

    exact, _ = fit("32")
    assert set(seen) == {torch.float32}
    seen.clear()
    near, model = fit("bf16")
    assert set(seen) == {torch.bfloat16}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert near == pytest.approx(exact, rel=0.02)  # bfloat16 has 8 bits of mantissa, an ulp of 0.8 %
    assert near != exact


# A second passes between any two looks at the clock. A program's first segment is of 32 updates, which then seem to
# take a second; the next is of as many as are to take 0.2 s, and so on, down to one. auto has measured 0.05 s before.
SECONDS = {
    "eager": list(range(1, ROWS + 1)),
    "compiled": [35, 41, *range(42, ROWS)],
    "auto": [1, 2, 4, 8, *range(9, ROWS)],
}


@engines
def test_progress_follows_the_clock(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr(takeover, "measured_pace", lambda *_: 0.05)
    seen: list[int] = []

    def watch(outcome: EpochOutcome) -> bool:
        seen.append(outcome.steps)
        return True

    carrying_out = ENGINES[engine]()
    outcome = carrying_out.train_epoch(step_of(built(mlp)), first_epoch(rows(4), batch_size=1), watch)
    assert carrying_out.reason is None
    assert outcome.complete
    assert seen == SECONDS[engine]
