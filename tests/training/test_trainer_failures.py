"""What a Trainer does when something goes wrong, and what callbacks hear of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fitting import QUIET, VALID, AtEpoch, Recorder, X, Y, net, same, some, trainer_of, weights
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from stoker.engines import eager
from stoker.errors import NonFiniteLossError
from stoker.training.callbacks import Callback, EpochProgress, FitPlan
from stoker.training.history import History, Row


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Weights are the same whichever tests ran before."""
    torch.manual_seed(0)


def poisoned(step: int, bad: float) -> tuple[Tensor, Tensor]:
    """Rows in batches of 10, of which that of the given step holds a value that is not finite."""
    x = X.clone()
    x[10 * (step - 1), 0] = bad
    return x, Y


class BadFrom(nn.Module):
    """A criterion that is not finite from the so-many-th training step on."""

    def __init__(self, step: int, bad: float = math.nan) -> None:
        super().__init__()
        self.step, self.bad, self.seen = step, bad, 0

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        loss = F.mse_loss(outputs, targets)
        if torch.is_grad_enabled():
            self.seen += 1
            if self.seen >= self.step:
                return loss * self.bad
        return loss


class TestNonFinite:
    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_in_the_first_epoch(self, bad: float) -> None:
        model = nn.Linear(3, 1)
        before = weights(model)
        text = (
            rf"epoch 1, step 4: the loss must be finite, got {bad}\. The model was given back the weights it began "
            r"with\. Try a lower learning rate or clip_norm=1\.0, or look for extreme values\."
        )
        with pytest.raises(NonFiniteLossError, match=text) as caught:
            trainer_of(model).fit(poisoned(4, bad), epochs=3, batch_size=10, shuffle=False, **QUIET)
        assert same(weights(model), before)
        history = caught.value.history
        assert history is not None
        assert (len(history), history.stopped, history.best_epoch) == (0, "non-finite", 0)

    def test_later_gives_back_the_last_epochs_weights(self) -> None:
        model, two = net(), net()
        with pytest.raises(
            NonFiniteLossError, match=r"epoch 3, step 2: .*given back the weights of epoch 2\."
        ) as caught:
            trainer_of(model, BadFrom(2 * 7 + 2)).fit((X, Y), epochs=5, batch_size=10, **QUIET)
        trainer_of(two).fit((X, Y), epochs=2, batch_size=10, **QUIET)
        assert same(weights(model), weights(two))
        assert caught.value.history is not None
        assert caught.value.history.column("epoch") == [1, 2]

    def test_later_gives_back_the_best_weights_by_the_validation(self) -> None:
        # Epoch 1 trains, then the learning rate has the wrong sign: epoch 2 is worse, epoch 3 is not finite.
        model, one = net(), net()
        trainer = trainer_of(model, BadFrom(2 * 7 + 2), "sgd", lr=0.01)
        spoil = AtEpoch(1, lambda: trainer.optimizer.param_groups[0].update(lr=-0.05))
        with pytest.raises(NonFiniteLossError, match=r"epoch 3, step 2: .*the weights of epoch 1\.") as caught:
            trainer.fit((X, Y), VALID, epochs=5, batch_size=10, callbacks=[spoil], **QUIET)
        trainer_of(one, optimizer="sgd", lr=0.01).fit((X, Y), epochs=1, batch_size=10, **QUIET)
        assert same(weights(model), weights(one))
        assert caught.value.history is not None
        assert caught.value.history.best_epoch == 1
        assert len(caught.value.history) == 2

    @pytest.mark.parametrize("with_valid", [False, True])
    def test_an_update_that_breaks_the_weights_at_the_end_of_an_epoch(self, with_valid: bool) -> None:
        # Loss and gradient are finite, the last update of epoch 2 is not: its weights must not be taken for good ones.
        model = nn.Linear(3, 1)
        trainer = trainer_of(model, optimizer="sgd", lr=0.01)
        noted: list[list[Tensor]] = []
        note = AtEpoch(1, lambda: noted.append(weights(model)))
        spoil = AtEpoch(1, lambda: trainer.optimizer.param_groups[0].update(lr=math.inf))
        text = (
            r"epoch 2, step 1: the weights must be finite after the update, got NaN or infinity in weight\. .*epoch 1\."
        )
        with pytest.raises(NonFiniteLossError, match=text) as caught:
            trainer.fit(
                (X, Y), VALID if with_valid else None, epochs=5, batch_size=None, callbacks=[note, spoil], **QUIET
            )
        assert same(weights(model), noted[0])
        assert caught.value.history is not None
        assert len(caught.value.history) == 1

    def test_divergence_ends_with_finite_weights(self) -> None:
        model = nn.Linear(3, 1)
        with pytest.raises(NonFiniteLossError):
            trainer_of(model, optimizer="sgd", lr=1e6).fit((X, Y), epochs=50, batch_size=None, **QUIET)
        assert all(bool(tensor.isfinite().all()) for tensor in weights(model))

    @pytest.mark.parametrize("optimizer", ["adam", "sgd", "lbfgs"])
    def test_training_can_go_on_after_it(self, optimizer: str) -> None:
        settings: dict[str, Any] = {"momentum": 0.9} if optimizer == "sgd" else {}
        model = nn.Linear(3, 1)
        criterion = BadFrom(10)
        trainer = trainer_of(model, criterion, optimizer, lr=0.01, **settings)
        with pytest.raises(NonFiniteLossError):
            trainer.fit((X, Y), epochs=20, batch_size=10, **QUIET)
        criterion.step = 10**9
        history = trainer.fit((X, Y), epochs=5, batch_size=10, **QUIET)
        assert history.column("train_loss")[-1] <= history.column("train_loss")[0] < 10
        assert history[0]["epoch"] >= 2

    def test_masks_and_frozen_infinities_are_no_fault(self) -> None:
        model = nn.Linear(3, 1)
        model.register_buffer("mask", torch.full((2,), -math.inf))
        assert trainer_of(model).fit((X, Y), epochs=2, **QUIET).stopped == "finished"

    def test_a_validation_loss_may_be_nan(self) -> None:
        x, y = VALID[0].clone(), VALID[1]
        x[0] = math.nan
        history = trainer_of(net(), metrics=()).fit((X, Y), (x, y), epochs=3, **QUIET)
        assert all(math.isnan(value) for value in history.column("valid_loss"))


class TestCallbacks:
    def test_are_told_what_happens_in_order(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(eager, "SEGMENT_SECONDS", 1e9)
        monkeypatch.setattr(eager, "SEGMENT_STEPS", 2)
        recorder = Recorder()
        history = trainer_of(net(), lr=0.01).fit((X, Y), VALID, epochs=2, batch_size=32, callbacks=[recorder], **QUIET)
        assert recorder.events == ["start", "progress", "epoch", "progress", "epoch", "end"]
        assert recorder.plan == FitPlan(
            epochs=2,
            first_epoch=1,
            steps_per_epoch=3,
            rows=70,
            parameters=3 * 8 + 8 + 16 + 8 + 1,
            device="cpu",
            engine="eager",
            monitor="valid_loss",
        )
        assert [(seen.epoch, seen.steps, seen.lr) for seen in recorder.progress] == [(1, 2, 0.01), (2, 2, 0.01)]
        assert [row for row, _ in recorder.rows] == list(history)
        assert recorder.history is history
        assert history.stopped == "finished"

    def test_may_ask_to_stop(self) -> None:
        history = trainer_of(net()).fit((X, Y), epochs=9, callbacks=[AtEpoch(3, lambda: True), Recorder()], **QUIET)
        assert len(history) == 3
        assert history.stopped == "callback"

    def test_all_hear_of_the_epoch_at_which_one_asked_to_stop(self) -> None:
        recorder = Recorder()
        trainer_of(net()).fit((X, Y), epochs=9, callbacks=[AtEpoch(1, lambda: True), recorder], **QUIET)
        assert len(recorder.rows) == 1

    def test_a_stop_restores_the_best_weights_too(self) -> None:
        model = net()
        trainer = trainer_of(model, optimizer="sgd", lr=0.01)
        noted: list[list[Tensor]] = []
        first = AtEpoch(1, lambda: noted.append(weights(model)))
        worse = AtEpoch(1, lambda: trainer.optimizer.param_groups[0].update(lr=20.0))
        stop = AtEpoch(2, lambda: True)
        trainer.fit((X, Y), VALID, epochs=9, patience=5, callbacks=[first, worse, stop], **QUIET)
        assert same(weights(model), noted[0])

    def test_hear_of_the_end_when_the_data_fail(self) -> None:
        class Failing(IterableDataset[Any]):
            def __iter__(self) -> Iterator[Any]:
                yield X[0], Y[0]
                raise ZeroDivisionError

        recorder = Recorder()
        with pytest.raises(ZeroDivisionError):
            trainer_of(nn.Linear(3, 1), lambda out, _: out.mean()).fit(
                Failing(), callbacks=[recorder], batch_size=1, **QUIET
            )
        assert recorder.events[-1] == "end"

    def test_hear_of_the_end_even_if_another_one_fails(self) -> None:
        class Failing(Callback):
            def on_fit_end(self, _history: History) -> None:
                raise ZeroDivisionError

        before, after = Recorder(), Recorder()
        with pytest.raises(ZeroDivisionError):
            trainer_of(net()).fit((X, Y), epochs=1, callbacks=[before, Failing(), after], **QUIET)
        assert before.events[-1] == after.events[-1] == "end"


class Fails(Callback):
    """Raises at the given event."""

    def __init__(self, event: str, error: BaseException) -> None:
        self.event, self.error = event, error
        self.heard: str = ""

    def fail(self, event: str) -> None:
        if event == self.event:
            raise self.error

    def on_fit_start(self, _plan: FitPlan) -> None:
        self.fail("start")

    def on_progress(self, _progress: EpochProgress) -> None:
        self.fail("progress")

    def on_epoch_end(self, _row: Row, _is_best: bool) -> bool | None:
        self.fail("epoch")
        return None

    def on_fit_end(self, history: History) -> None:
        self.heard = history.stopped


class TestWhenSomethingFails:
    @pytest.mark.parametrize("event", ["start", "progress", "epoch"])
    @pytest.mark.parametrize("error", [ZeroDivisionError(), KeyboardInterrupt(), RuntimeError("of a callback")])
    def test_all_that_was_set_for_the_while_is_as_before(
        self, event: str, error: BaseException, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import signal

        monkeypatch.setattr(eager, "SEGMENT_STEPS", 1)
        model = net()
        model[1].eval()
        modes = [module.training for module in model.modules()]
        generator, handler = torch.get_rng_state(), signal.getsignal(signal.SIGINT)
        callback = Fails(event, error)
        with pytest.raises(type(error)) as caught:
            trainer_of(model, deterministic=True).fit((X, Y), VALID, epochs=2, callbacks=[callback], **QUIET)
        assert caught.value is error
        assert [module.training for module in model.modules()] == modes
        assert torch.equal(torch.get_rng_state(), generator)
        assert signal.getsignal(signal.SIGINT) is handler
        assert not torch.are_deterministic_algorithms_enabled()
        assert callback.heard == ("interrupted" if isinstance(error, KeyboardInterrupt) else "running")

    def test_a_failing_evaluation_too(self) -> None:
        model = net()
        generator = torch.get_rng_state()
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            trainer_of(model).fit((X, Y), (some(9, 5), some(9, 1)), epochs=1, **QUIET)
        assert all(module.training for module in model.modules())
        assert torch.equal(torch.get_rng_state(), generator)
