from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from stoker.data.batches import ResidentBatches
from stoker.engines import eager
from stoker.errors import ConfigError, DataError, InputTypeError, NonFiniteLossError, UnknownNameError
from stoker.training.callbacks import Callback, EpochProgress, FitPlan
from stoker.training.history import History, Row
from stoker.training.objective import MeanCrossEntropy, OnScaledTarget
from stoker.training.trainer import Trainer

QUIET: dict[str, Any] = {"progress": "none"}


def some(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X, Y = some(70, 3), some(70, 1, seed=1)
VALID = some(40, 3, seed=2), some(40, 1, seed=3)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Weights are the same whichever tests ran before."""
    torch.manual_seed(0)


def net(seed: int = 0) -> nn.Sequential:
    """With noise and running statistics, so that whatever touches either shows in the weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))


def trainer_of(model: nn.Module, criterion: Any = "mse", optimizer: Any = "adam", **settings: Any) -> Trainer:
    return Trainer(model, criterion, optimizer, device="cpu", **settings)


def weights(model: nn.Module) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in model.state_dict().values()]


def same(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


class Recorder(Callback):
    """Notes what it is told, in order."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.plan: FitPlan | None = None
        self.progress: list[EpochProgress] = []
        self.rows: list[tuple[Row, bool]] = []
        self.history: History | None = None

    def on_fit_start(self, plan: FitPlan) -> None:
        self.events.append("start")
        self.plan = plan

    def on_progress(self, progress: EpochProgress) -> None:
        self.events.append("progress")
        self.progress.append(progress)

    def on_epoch_end(self, row: Row, is_best: bool) -> bool | None:
        self.events.append("epoch")
        self.rows.append((row, is_best))
        return None

    def on_fit_end(self, history: History) -> None:
        self.events.append("end")
        self.history = history


class AtEpoch(Callback):
    """Does something at the end of an epoch."""

    def __init__(self, epoch: int, act: Callable[[], Any]) -> None:
        self.epoch, self.act = epoch, act

    def on_epoch_end(self, row: Row, _is_best: bool) -> bool | None:
        if row["epoch"] == self.epoch:
            return bool(self.act())
        return None


class TestHistory:
    def test_a_row_an_epoch(self) -> None:
        trainer = trainer_of(net(), lr=0.01)
        history = trainer.fit((X, Y), VALID, epochs=3, batch_size=32, **QUIET)
        names = ["epoch", "step", "lr", "train_loss", "valid_loss", "valid_mse", "valid_rmse", "valid_mae", "valid_r2"]
        assert list(history[0]) == names
        assert history.column("epoch") == [1, 2, 3]
        assert history.column("step") == [3, 6, 9]
        assert history.column("lr") == [0.01] * 3
        assert all(row["valid_rmse"] == math.sqrt(row["valid_mse"]) for row in history)
        assert history.stopped == "finished"
        assert history.monitor == "valid_loss"
        assert history.best["valid_loss"] == min(history.column("valid_loss"))
        assert 0 < history.seconds < 60

    def test_its_last_row_is_what_evaluate_says(self) -> None:
        trainer = trainer_of(net())
        row = trainer.fit((X, Y), VALID, epochs=2, **QUIET)[-1]
        assert {f"valid_{name}": value for name, value in trainer.evaluate(VALID).items()}.items() <= row.items()

    def test_without_a_validation_split(self) -> None:
        history = trainer_of(net()).fit((X, Y), epochs=2, **QUIET)
        assert list(history[0]) == ["epoch", "step", "lr", "train_loss"]
        assert history.monitor is None
        assert history.best_epoch == 2


class TestNothingElseChangesTheWeights:
    """What one adds to look at a training must not change a bit of it."""

    def trained(self, valid: Any = None, global_seed: int = 0, **settings: Any) -> list[Tensor]:
        model = net()
        torch.manual_seed(global_seed)
        fit = {name: settings.pop(name) for name in ("callbacks", "progress") if name in settings}
        trainer_of(model, seed=7, **settings).fit((X, Y), valid, epochs=4, batch_size=16, **QUIET | fit)
        return weights(model)

    def test_neither_the_global_seed(self) -> None:
        assert same(self.trained(), self.trained(global_seed=1))

    def test_nor_a_validation_split_or_metrics(self) -> None:
        alone = self.trained()
        assert same(self.trained(VALID), alone)
        assert same(self.trained(VALID, metrics=["mae"]), alone)
        assert same(self.trained(VALID, metrics=()), alone)
        assert same(self.trained(DataLoader(TensorDataset(*VALID), shuffle=True)), alone)

    def test_nor_progress(self, capsys: pytest.CaptureFixture[str]) -> None:
        alone = self.trained()
        assert same(self.trained(progress="plain"), alone)
        assert "epoch" in capsys.readouterr().err

    def test_nor_callbacks_that_draw_random_numbers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Drawing(Callback):
            def on_fit_start(self, _plan: FitPlan) -> None:
                torch.rand(3)

            def on_progress(self, _progress: EpochProgress) -> None:
                torch.rand(3)

            def on_epoch_end(self, _row: Row, _is_best: bool) -> bool | None:
                torch.manual_seed(5)
                return None

        alone = self.trained()
        monkeypatch.setattr(eager, "SEGMENT_STEPS", 2)
        assert same(self.trained(callbacks=[Drawing()]), alone)

    def test_but_the_seed_does(self) -> None:
        one, other = net(), net()
        trainer_of(one, seed=1).fit((X, Y), epochs=1, **QUIET)
        trainer_of(other, seed=2).fit((X, Y), epochs=1, **QUIET)
        assert not same(weights(one), weights(other))


class TestNoise:
    def seen(self, epochs: int, seed: int = 0, begin: int = 0) -> list[Tensor]:
        """The dropout of each epoch's only batch, as a pattern of zeros."""
        seen: list[Tensor] = []
        model = nn.Sequential(nn.Dropout(0.5), nn.Linear(20, 1))
        model[0].register_forward_hook(lambda _m, _i, out: seen.append(out.detach() == 0))
        trainer = trainer_of(model, seed=seed)
        trainer.state.epoch = begin
        trainer.fit((torch.ones(10, 20), Y[:10]), epochs=epochs, batch_size=None, **QUIET)
        return seen

    def test_is_a_function_of_seed_and_epoch(self) -> None:
        first = self.seen(3)
        assert same(self.seen(3), first)
        assert same(self.seen(1, begin=2), first[2:])  # however the epoch was come to
        assert not torch.equal(first[0], first[1])
        assert not torch.equal(self.seen(1, seed=1)[0], first[0])

    def test_the_global_generator_is_as_it_was(self) -> None:
        before = torch.get_rng_state()
        trainer_of(net()).fit((X, Y), VALID, epochs=2, **QUIET)
        assert torch.equal(torch.get_rng_state(), before)


class TestFitAgain:
    @pytest.mark.parametrize("optimizer", ["adam", "sgd"])
    def test_goes_on(self, optimizer: str) -> None:
        settings: dict[str, Any] = {"momentum": 0.9} if optimizer == "sgd" else {}
        twice, once = net(), net()
        trainer = trainer_of(twice, optimizer=optimizer, **settings)
        first = trainer.fit((X, Y), VALID, epochs=2, batch_size=16, **QUIET)
        second = trainer.fit((X, Y), VALID, epochs=3, batch_size=16, **QUIET)
        straight = trainer_of(once, optimizer=optimizer, **settings).fit(
            (X, Y), VALID, epochs=5, batch_size=16, **QUIET
        )
        assert same(weights(twice), weights(once))
        assert [*first, *second] == list(straight)
        assert second.column("epoch") == [3, 4, 5]
        assert second.best_epoch in (3, 4, 5)

    def test_is_planned_with_the_epochs_before(self) -> None:
        trainer, recorder = trainer_of(net()), Recorder()
        trainer.fit((X, Y), epochs=2, **QUIET)
        trainer.fit((X, Y), epochs=3, callbacks=[recorder], **QUIET)
        assert recorder.plan is not None
        assert (recorder.plan.first_epoch, recorder.plan.epochs) == (3, 5)

    @pytest.mark.parametrize("schedule", ["cosine", "one-cycle"])
    def test_begins_its_curve_again(self, schedule: str) -> None:
        trainer = trainer_of(net(), schedule=schedule, lr=0.01)
        first = trainer.fit((X, Y), epochs=3, **QUIET).column("lr")
        assert trainer.fit((X, Y), epochs=3, **QUIET).column("lr") == pytest.approx(first)


class TestBestWeights:
    def fitted(self, **settings: Any) -> tuple[Trainer, History, dict[int, list[Tensor]]]:
        """Overfits, so that an early epoch is the best; notes every epoch's weights."""
        model = nn.Sequential(nn.Linear(3, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 1))
        trainer = trainer_of(model, lr=0.03)
        noted: dict[int, list[Tensor]] = {}

        class Noting(Callback):
            def on_epoch_end(self, row: Row, _is_best: bool) -> bool | None:
                noted[int(row["epoch"])] = weights(model)
                return None

        history = trainer.fit((X, Y), VALID, callbacks=[Noting()], **QUIET | {"epochs": 40} | settings)
        return trainer, history, noted

    def test_patience_stops_and_restores_exactly_the_best_epochs(self) -> None:
        trainer, history, noted = self.fitted(patience=4)
        best = history.best_epoch
        assert history.stopped == "patience"
        assert len(history) == best + 4 < 40
        assert history.column("valid_loss")[best - 1] == min(history.column("valid_loss"))
        assert same(weights(trainer.model), noted[best])
        assert not same(noted[best], noted[len(history)])
        assert trainer.evaluate(VALID)["loss"] == history.best["valid_loss"]

    def test_without_patience_the_last_stay(self) -> None:
        trainer, history, noted = self.fitted(epochs=12)
        assert history.best_epoch < 12
        assert same(weights(trainer.model), noted[12])

    def test_may_be_restored_without_patience(self) -> None:
        trainer, history, noted = self.fitted(epochs=12, restore_best=True)
        assert len(history) == 12
        assert same(weights(trainer.model), noted[history.best_epoch])

    def test_need_not_be_restored_with_patience(self) -> None:
        trainer, history, noted = self.fitted(patience=4, restore_best=False)
        assert history.stopped == "patience"
        assert same(weights(trainer.model), noted[len(history)])

    def test_by_another_metric_which_is_better_large(self) -> None:
        trainer, history, noted = self.fitted(patience=3, monitor="valid_r2")
        values = history.column("valid_r2")
        assert values[history.best_epoch - 1] == max(values)
        assert same(weights(trainer.model), noted[history.best_epoch])

    def test_min_delta(self) -> None:
        _, history, _ = self.fitted(patience=3, min_delta=1e9)
        assert (history.best_epoch, len(history)) == (1, 4)

    def test_optimizer_goes_on_with_the_restored_ones(self) -> None:
        trainer, _, _ = self.fitted(patience=4)
        before = weights(trainer.model)
        trainer.fit((X, Y), epochs=1, **QUIET)
        assert not same(weights(trainer.model), before)

    def test_is_told_to_callbacks(self) -> None:
        recorder = Recorder()
        trainer_of(net()).fit((X, Y), VALID, epochs=5, callbacks=[recorder], **QUIET)
        losses = [row["valid_loss"] for row, _ in recorder.rows]
        assert [best for _, best in recorder.rows] == [
            value < min(losses[:i], default=math.inf) for i, value in enumerate(losses)
        ]


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
        assert history.stopped == "finished"

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


class TestModes:
    def test_a_model_in_evaluation_mode_is_trained_and_put_back(self) -> None:
        model = net().eval()
        seen: list[bool] = []
        model[2].register_forward_hook(lambda module, *_: seen.append(module.training))
        trainer_of(model).fit((X, Y), VALID, epochs=2, batch_size=None, **QUIET)
        assert seen == [True, False] * 2
        assert not any(module.training for module in model.modules())

    def test_layers_that_were_frozen_in_evaluation_mode_stay_frozen(self) -> None:
        model = net()
        norm = model[1]
        assert isinstance(norm, nn.BatchNorm1d)
        norm.eval()
        trainer_of(model).fit((X, Y), VALID, epochs=2, **QUIET)
        assert norm.num_batches_tracked is not None
        assert int(norm.num_batches_tracked) == 0
        assert norm.running_mean is not None
        assert not norm.running_mean.any()
        assert model.training
        assert not norm.training


class TestData:
    def test_a_loader_a_data_set_and_tensors_come_to_the_same(self) -> None:
        found = []
        for data in (
            (X, Y),
            (X.numpy(), Y.numpy()),
            TensorDataset(X, Y),
            ResidentBatches(X, Y),
            DataLoader(TensorDataset(X, Y), batch_size=32),
        ):
            model = nn.Linear(3, 1)
            model.load_state_dict({"weight": torch.ones(1, 3), "bias": torch.zeros(1)})
            trainer_of(model).fit(data, epochs=3, shuffle=False, **QUIET)
            found.append(weights(model))
        assert all(same(each, found[0]) for each in found)

    def test_a_shuffling_loader_has_the_same_order_each_time(self) -> None:
        found = []
        for global_seed in (1, 2):
            model = net()
            torch.manual_seed(global_seed)
            trainer_of(model).fit(DataLoader(TensorDataset(X, Y), batch_size=8, shuffle=True), epochs=3, **QUIET)
            found.append(weights(model))
        assert same(*found)

    def test_data_that_yield_nothing(self) -> None:
        loader = DataLoader(TensorDataset(X, Y), batch_size=100, drop_last=True)
        text = r"fit: the data must yield at least one batch, got none\. A DataLoader must be re-iterable\."
        with pytest.raises(DataError, match=text):
            trainer_of(net()).fit(loader, **QUIET)

    def test_the_users_data_are_left_alone(self) -> None:
        model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 1))
        x = X.clone()
        trainer_of(model).fit((x, Y), (x, Y), epochs=2, shuffle=False, **QUIET)
        assert torch.equal(x, X)

    def test_an_iterable_without_a_length_with_a_schedule_over_all_steps(self) -> None:
        class Stream(IterableDataset[Any]):
            def __iter__(self) -> Iterator[Any]:
                return zip(X, Y, strict=True)

        with pytest.raises(ConfigError, match="schedule: cosine must know how many steps an epoch has"):
            trainer_of(nn.Linear(3, 1), schedule="cosine").fit(Stream(), **QUIET)
        history = trainer_of(nn.Linear(3, 1), schedule="exponential").fit(Stream(), epochs=2, **QUIET)
        assert history.column("step") == [3, 6]


class TestSchedules:
    def test_a_plateau_of_a_metric_that_is_better_large(self) -> None:
        # The accuracy cannot change: the learning rate is nothing. After 2 epochs without a gain it falls, and again.
        labels = (X[:, 0] > 0).long()
        trainer = trainer_of(
            nn.Linear(3, 2),
            "cross-entropy",
            "sgd",
            lr=1e-6,
            schedule="plateau",
            schedule_settings={"patience": 1},
        )
        history = trainer.fit((X, labels), (X, labels), epochs=6, monitor="valid_accuracy", **QUIET)
        assert len(set(history.column("valid_accuracy"))) == 1
        assert history.column("lr") == pytest.approx([1e-6, 1e-6, 1e-6, 1e-7, 1e-7, 1e-8])

    def test_a_plateau_without_a_validation_split_is_seen_in_the_training_loss(self) -> None:
        trainer = trainer_of(
            nn.Linear(3, 1), optimizer="sgd", lr=0.0001, schedule="plateau", schedule_settings={"threshold": 0.5}
        )
        assert trainer.fit((X, Y), epochs=9, **QUIET).column("lr")[-1] == pytest.approx(0.00001)

    def test_a_function_is_called_with_the_optimizer_once_a_fit(self) -> None:
        calls: list[Any] = []

        def make(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
            calls.append(optimizer)
            return torch.optim.lr_scheduler.LambdaLR(optimizer, [lambda _: 1.0, lambda epoch: 0.5**epoch])

        model = net()
        optimizer = torch.optim.SGD([{"params": model[0].parameters()}, {"params": model[3].parameters()}], lr=0.1)
        trainer = trainer_of(model, optimizer=optimizer, schedule=make)
        assert calls == []
        trainer.fit((X, Y), epochs=3, **QUIET)
        assert calls == [optimizer]
        assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.1 * 0.5**3]


class TestObjectives:
    def test_lbfgs_solves_least_squares(self) -> None:
        model = nn.Linear(3, 1)
        trainer = trainer_of(model, optimizer="lbfgs", lr=1.0)
        history = trainer.fit((X, Y), epochs=4, batch_size=None, **QUIET)
        ones = torch.cat([X, torch.ones(70, 1)], dim=1).double()
        solution = torch.linalg.lstsq(ones, Y.double()).solution[:, 0].float()
        losses = history.column("train_loss")
        assert losses[0] > losses[1] >= losses[-1] - 1e-6  # by then it is as low as float32 tells
        torch.testing.assert_close(model.weight[0], solution[:3], rtol=1e-3, atol=1e-4)  # float32's loss is flat there

    def test_lbfgs_with_clipping_schedule_and_autocast(self) -> None:
        trainer = trainer_of(
            nn.Linear(3, 1), optimizer="lbfgs", lr=0.1, clip_norm=10.0, schedule="linear", precision="bf16"
        )
        history = trainer.fit((X, Y), epochs=4, batch_size=35, **QUIET)
        assert history.column("step") == [2, 4, 6, 8]  # a step is a step, however often it evaluates
        assert history.column("lr") == pytest.approx([0.075, 0.05, 0.025, 0.0])
        assert history[-1]["train_loss"] < history[0]["train_loss"]

    def test_named(self) -> None:
        assert isinstance(trainer_of(net(), "mae").criterion, nn.L1Loss)
        trainer = trainer_of(nn.Linear(3, 2), "cross-entropy")
        assert isinstance(trainer.criterion, MeanCrossEntropy)
        assert trainer.task == "multiclass"

    def test_a_criterion_is_moved_with_the_model(self) -> None:
        criterion = OnScaledTarget(nn.MSELoss(), torch.zeros(1), torch.ones(1))
        trainer = Trainer(nn.Linear(3, 1), criterion, device="meta")
        assert trainer.criterion is criterion
        assert criterion.mean.device.type == "meta"

    def test_several_labels_a_row_train_and_validate(self) -> None:
        labels = (some(70, 4) > 0).float()
        history = trainer_of(nn.Linear(3, 4), nn.BCEWithLogitsLoss()).fit((X, labels), (X, labels), epochs=2, **QUIET)
        assert list(history[0])[4:] == ["valid_loss"]

    def test_a_class_per_pixel_trains_and_validates(self) -> None:
        images, classes = some(8, 1, 4, 4), torch.randint(0, 3, (8, 4, 4))
        trainer = trainer_of(nn.Conv2d(1, 3, 3, padding=1), nn.CrossEntropyLoss())
        assert list(trainer.fit((images, classes), (images, classes), epochs=1, **QUIET)[0])[4:] == ["valid_loss"]

    def test_ones_own_metrics(self) -> None:
        trainer = trainer_of(net(), metrics={"worst": lambda p, t: (p - t).abs().max(), "error": "mae"})
        history = trainer.fit((X, Y), VALID, epochs=2, monitor="valid_error", patience=2, **QUIET)
        assert list(history[0])[4:] == ["valid_loss", "valid_worst", "valid_error"]


class TestDeterministic:
    def test_the_setting_is_on_while_training_and_off_afterwards(self) -> None:
        seen: list[bool] = []

        def criterion(outputs: Tensor, targets: Tensor) -> Tensor:
            seen.append(torch.are_deterministic_algorithms_enabled())
            return F.mse_loss(outputs, targets)

        trainer = trainer_of(net(), criterion, deterministic=True)
        trainer.fit((X, Y), VALID, epochs=1, **QUIET)
        trainer.evaluate(VALID)
        assert set(seen) == {True}
        assert not torch.are_deterministic_algorithms_enabled()


SETTINGS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"model": nn.Linear}, InputTypeError, r"model: must be a torch\.nn\.Module, got type\. Pass an instance of it\."),
    ({"model": nn.LazyLinear(1)}, ConfigError, r"model: must know its sizes, got lazy parameters\. Call it once on a "),
    (
        {"criterion": nn.MSELoss},
        InputTypeError,
        r"criterion: must be a module, .*, got the class MSELoss\. Pass an inst",
    ),
    ({"criterion": 3}, InputTypeError, r"criterion: must be a module, a function or a name, got int\."),
    ({"criterion": "msee"}, UnknownNameError, r"loss: must be one of the known names, got 'msee'\. Did you mean 'mse'"),
    ({"optimizer": "addam"}, UnknownNameError, r"optimizer: must be one of the known names, got 'addam'"),
    ({"schedule": "cosin"}, UnknownNameError, r"schedule: must be one of the known names, got 'cosin'"),
    ({"clip_norm": 0}, ConfigError, r"clip_norm: must be above 0, got 0\. Leave it out not to clip\."),
    ({"clip_norm": math.nan}, ConfigError, r"clip_norm: must be above 0, got nan\."),
    ({"device": "gpu"}, UnknownNameError, r"device: must be one of the known names, got 'gpu'"),
    ({"precision": "16"}, UnknownNameError, r"precision: must be one of the known names, got '16'"),
    (
        {"engine": "egaer"},
        UnknownNameError,
        r"engine: must be one of the known names, got 'egaer'\. Did you mean 'eager",
    ),
    ({"metrics": ["mea"]}, UnknownNameError, r"metric: must be one of the known names, got 'mea'"),
    ({"metrics": ["mae"], "criterion": F.mse_loss}, ConfigError, r"metrics: need the task, got none"),
]


@pytest.mark.parametrize(("settings", "kind", "text"), SETTINGS)
def test_settings_that_are_refused(settings: dict[str, Any], kind: type[Exception], text: str) -> None:
    given: dict[str, Any] = {"model": nn.Linear(3, 1), "criterion": "mse", "device": "cpu"} | settings
    with pytest.raises(kind, match=text):
        Trainer(**given)


FIT: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"epochs": 0}, ConfigError, r"epochs: must be a whole number from 1 on, got 0\."),
    ({"epochs": 2.5}, ConfigError, r"epochs: must be a whole number from 1 on, got 2\.5\."),
    ({"batch_size": 0}, ConfigError, r"batch_size: must be a whole number from 1 on, got 0\."),
    ({"patience": 3, "valid": None}, ConfigError, r"patience: needs a validation split to compare epochs by, got none"),
    ({"patience": 0}, ConfigError, r"patience: must be at least 1 epoch, got 0\."),
    ({"min_delta": -1}, ConfigError, r"min_delta: must not be negative, got -1\."),
    (
        {"monitor": "loss"},
        ConfigError,
        r"monitor: must begin with \"valid_\", got 'loss'\. Such as valid_loss or valid_",
    ),
    ({"monitor": "valid_rmes"}, UnknownNameError, r"metric: must be one of the known names, got 'rmes'\. Did you mean"),
    (
        {"monitor": "valid_f1"},
        UnknownNameError,
        r"monitor: must be one of the known names, got 'valid_f1'\. .*Known: va",
    ),
    ({"progress": "loud"}, UnknownNameError, r"progress: must be one of the known names, got 'loud'"),
    ({"train": (X, Y[:3])}, DataError, r"data: inputs and targets must have the same number of rows"),
    ({"train": "housing.csv"}, InputTypeError, r"data: must be \(inputs, targets\), .* go to stoker\.fit\."),
]


@pytest.mark.parametrize(("settings", "kind", "text"), FIT)
def test_what_fit_refuses(settings: dict[str, Any], kind: type[Exception], text: str) -> None:
    given: dict[str, Any] = {"train": (X, Y), "valid": VALID, "epochs": 1} | QUIET | settings
    model = net()
    trainer = trainer_of(model)
    with pytest.raises(kind, match=text):
        trainer.fit(given.pop("train"), given.pop("valid"), **given)
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_engine_and_why() -> None:
    assert trainer_of(net()).engine.name == "eager"
    assert trainer_of(net()).engine_reason
    assert trainer_of(net(), engine="eager").engine_reason == "eager: as asked"


def test_numpys_whole_numbers_count() -> None:
    import numpy as np

    history = trainer_of(net()).fit((X, Y), epochs=np.int64(2), batch_size=np.int64(7), **QUIET)  # type: ignore[arg-type]
    assert history.column("step") == [10, 20]


def test_the_models_own_objects_stay() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    parameters = [id(parameter) for parameter in model.parameters()]
    trainer = trainer_of(model, optimizer=optimizer)
    trainer.fit((X, Y), VALID, epochs=3, patience=1, **QUIET)
    assert trainer.model is model
    assert trainer.optimizer is optimizer
    assert [id(parameter) for parameter in model.parameters()] == parameters
    copy.deepcopy(model)
