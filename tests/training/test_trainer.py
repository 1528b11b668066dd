from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fitting import QUIET, VALID, Recorder, X, Y, net, same, some, trainer_of, weights
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from stoker.engines import eager
from stoker.training.callbacks import Callback, EpochProgress, FitPlan
from stoker.training.criteria import MeanCrossEntropy, OnScaledTarget
from stoker.training.history import History, Row
from stoker.training.trainer import Trainer


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Weights are the same whichever tests ran before."""
    torch.manual_seed(0)


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
        trainer.fit((torch.ones(10, 20), Y[:10]), epochs=epochs, batch_size=None, check=False, **QUIET)
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


class TestModes:
    def test_a_model_in_evaluation_mode_is_trained_and_put_back(self) -> None:
        model = net().eval()
        seen: list[bool] = []
        model[2].register_forward_hook(lambda module, *_: seen.append(module.training))
        trainer_of(model).fit((X, Y), VALID, epochs=2, batch_size=None, check=False, **QUIET)
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
        assert isinstance(trainer_of(net(), "mae").objective.parts[0].criterion, nn.L1Loss)
        trainer = trainer_of(nn.Linear(3, 2), "cross-entropy")
        assert isinstance(trainer.objective.parts[0].criterion, MeanCrossEntropy)
        assert trainer.objective.task == "multiclass"

    def test_a_criterion_is_moved_with_the_model(self) -> None:
        criterion = OnScaledTarget(nn.MSELoss(), torch.zeros(1), torch.ones(1))
        trainer = Trainer(nn.Linear(3, 1), criterion, device="meta")
        assert trainer.objective.parts[0].criterion is criterion
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


def test_the_engine_and_why() -> None:
    assert trainer_of(net()).engine_reason == "eager: nothing is known yet"
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
