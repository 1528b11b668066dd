"""What every engine owes an update: accumulated batches, averaged weights, groups, schedules, listeners.

As in ``test_engines.py``, each test says what made the updates.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from loops import (
    ALL_STEPS,
    BATCH,
    ROWS,
    SEED,
    STEPS,
    TOLERANCE,
    assert_same_state,
    built,
    carried_out,
    mlp,
    prepare,
    rows,
)
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from stoker.data.resident import epoch_order
from stoker.engines.registry import ENGINES
from stoker.training.callbacks import Callback, StepProgress
from stoker.training.trainer import Trainer

ema: Any = get_ema_multi_avg_fn
engines = pytest.mark.parametrize("engine", sorted(ENGINES))
X, Y = rows(4), rows(1, seed=1)


@pytest.fixture(autouse=True)
def prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(monkeypatch)


def trained(engine: str, model: nn.Module, optimizer: Any = "adam", **settings: Any) -> Trainer:
    fitting: dict[str, Any] = {"batch_size": BATCH, "progress": "none", "epochs": 2}
    fitting |= {name: settings.pop(name) for name in ("callbacks", "batch_size") if name in settings}
    settings = {"lr": 0.01, "engine": engine, "device": "cpu", "seed": SEED, "metrics": (), **settings}
    trainer = Trainer(model, "mse", optimizer, **settings)
    trainer.fit((X, Y), **fitting)
    return trainer


def chosen(epoch: int, size: int) -> list[Tensor]:
    return list(torch.split(epoch_order(ROWS, SEED, epoch), size))


class TestAccumulation:
    @engines
    @pytest.mark.parametrize(("size", "accumulate"), [(8, 2), (4, 7), (8, 4), (16, 3), (7, 100)])
    def test_it_is_one_large_batch(self, engine: str, size: int, accumulate: int) -> None:
        # 150 rows: neither the last batch nor the last window is whole
        updates = ROWS // (size * accumulate)
        few = None if updates >= 4 else "an epoch has fewer than four whole updates"
        parts, whole = built(mlp), built(mlp)
        trainer = trained(engine, parts, "sgd", batch_size=size, accumulate=accumulate, clip_norm=0.5)
        carried_out(trainer, eager=few, updates=updates)
        other = trained(engine, whole, "sgd", batch_size=size * accumulate, clip_norm=0.5)
        carried_out(other, eager=few, updates=updates)
        for mine, theirs in zip(parts.parameters(), whole.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)
        assert trainer.state.step == 2 * -(-ROWS // (size * accumulate))

    @engines
    def test_the_epochs_loss_is_that_of_the_large_batches(self, engine: str) -> None:
        histories = []
        for size, a in ((8, 2), (16, 1)):
            settings: dict[str, Any] = {"engine": engine, "device": "cpu", "seed": SEED, "metrics": (), "accumulate": a}
            trainer = Trainer(built(mlp), "mse", "sgd", **settings)
            histories.append(trainer.fit((X, Y), epochs=2, batch_size=size, progress="none"))
            carried_out(trainer)
        assert histories[0].column("train_loss") == pytest.approx(histories[1].column("train_loss"), rel=1e-6)
        assert histories[0].column("step") == histories[1].column("step") == [STEPS, 2 * STEPS]

    @engines
    def test_schedules_count_updates(self, engine: str) -> None:
        trainer = trained(engine, built(mlp), "sgd", batch_size=8, accumulate=2, schedule="linear")
        carried_out(trainer)
        assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-12)

    def test_an_optimizer_that_evaluates_the_step_itself(self) -> None:
        found = []
        for size, accumulate in ((8, 2), (16, 1)):
            model = built(mlp).double()  # its line search amplifies the last bits of a float32
            trainer = Trainer(model, "mse", "lbfgs", lr=0.1, device="cpu", seed=SEED, metrics=(), accumulate=accumulate)
            trainer.fit((X.double(), Y.double()), epochs=1, batch_size=size, progress="none")
            found.append(model)
        for mine, theirs in zip(found[0].parameters(), found[1].parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-9)


class TestAverage:
    @engines
    @pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
    def test_is_torchs(self, engine: str, decay: float) -> None:
        def make() -> nn.Module:
            return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))

        mine, by_hand = built(make), built(make)
        carried_out(trained(engine, mine, "sgd", ema=decay, lr=0.1))
        optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.1)
        average = AveragedModel(by_hand, multi_avg_fn=ema(decay))
        for epoch in range(2):
            for index in chosen(epoch, BATCH):
                optimizer.zero_grad()
                nn.functional.mse_loss(by_hand(X[index]), Y[index]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                average.update_parameters(by_hand)
        for name, parameter in average.module.named_parameters():
            torch.testing.assert_close(mine.get_parameter(name), parameter, rtol=1e-6, atol=1e-7)
        for name, buffer in by_hand.named_buffers():  # which are not averaged
            torch.testing.assert_close(mine.get_buffer(name), buffer)

    @engines
    def test_training_goes_on_with_its_own_weights_and_validation_measures_the_averaged(self, engine: str) -> None:
        plain, averaged = built(mlp), built(mlp)
        valid = rows(4, seed=3), rows(1, seed=4)
        settings: dict[str, Any] = {"engine": engine, "device": "cpu", "seed": SEED, "metrics": (), "lr": 0.05}
        fitting: dict[str, Any] = {"epochs": 3, "batch_size": BATCH, "progress": "none"}
        trainer = Trainer(plain, "mse", "sgd", **settings)
        one = trainer.fit((X, Y), valid, **fitting)
        carried_out(trainer, epochs=3)
        trainer = Trainer(averaged, "mse", "sgd", ema=0.9, **settings)
        other = trainer.fit((X, Y), valid, **fitting)
        carried_out(trainer, epochs=3)
        assert one.column("train_loss") == pytest.approx(other.column("train_loss"), rel=TOLERANCE[engine], abs=0)
        assert one.column("valid_loss") != other.column("valid_loss")
        assert trainer.evaluate(valid)["loss"] == other[-1]["valid_loss"]

    @engines
    def test_the_best_epochs_average_is_restored(self, engine: str) -> None:
        model = built(mlp)
        trainer = Trainer(model, "mse", "sgd", lr=0.4, ema=0.8, engine=engine, device="cpu", seed=SEED, metrics=())
        valid = rows(4, seed=3), rows(1, seed=4)
        history = trainer.fit((X, Y), valid, epochs=6, batch_size=BATCH, patience=6, progress="none")
        carried_out(trainer, epochs=6)
        assert history.best_epoch < 6
        assert trainer.evaluate(valid)["loss"] == min(history.column("valid_loss"))


class TestGroups:
    @engines
    def test_have_their_own_rates(self, engine: str) -> None:
        mine, by_hand = built(mlp), built(mlp)
        groups = {"0": {"lr": 0.001}, "*.bias": {"weight_decay": 0.5, "momentum": 0.0}}
        trainer = trained(engine, mine, "sgd", momentum=0.9, groups=groups)
        carried_out(trainer)
        first, last = by_hand[0], by_hand[2]  # type: ignore[index]
        by_group: list[dict[str, Any]] = [
            {"params": [last.weight]},
            {"params": list(first.parameters()), "lr": 0.001},
            {"params": [last.bias], "weight_decay": 0.5, "momentum": 0.0},
        ]
        expected = torch.optim.SGD(by_group, lr=0.01, momentum=0.9)
        for epoch in range(2):
            for index in chosen(epoch, BATCH):
                expected.zero_grad()
                nn.functional.mse_loss(by_hand(X[index]), Y[index]).backward()  # type: ignore[no-untyped-call]
                expected.step()
        assert_same_state(engine, mine, by_hand)
        assert [group["lr"] for group in trainer.optimizer.param_groups] == [0.01, 0.001, 0.01]

    @engines
    def test_schedules_keep_their_ratio(self, engine: str) -> None:
        trainer = trained(engine, built(mlp), "sgd", groups={"0": {"lr": 0.001}}, schedule="exponential")
        carried_out(trainer)
        rates = [group["lr"] for group in trainer.optimizer.param_groups]
        assert rates == pytest.approx([0.01 * 0.95**2, 0.001 * 0.95**2])

    @engines
    def test_shared_weights_and_frozen_ones(self, engine: str) -> None:
        class Tied(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.first = nn.Linear(4, 4)
                self.second = nn.Linear(4, 4)
                self.second.weight = self.first.weight
                self.frozen = nn.Linear(4, 4).requires_grad_(False)
                self.out = nn.Linear(4, 1)

            def forward(self, x: Tensor) -> Tensor:
                return self.out(self.frozen(self.second(self.first(x).tanh()).tanh()))  # type: ignore[no-any-return]

        model = built(Tied)
        before = copy.deepcopy(model.state_dict())
        carried_out(trained(engine, model, groups={"first": {"lr": 0.1}}))
        assert model.get_parameter("second.weight") is model.get_parameter("first.weight")
        changed = {name for name, tensor in model.state_dict().items() if not torch.equal(before[name], tensor)}
        assert changed == {"first.weight", "first.bias", "second.weight", "second.bias", "out.weight", "out.bias"}


class TestSchedules:
    @engines
    def test_a_users_scheduler_by_step(self, engine: str) -> None:
        mine, by_hand = built(mlp), built(mlp)
        make: Any = lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, ALL_STEPS)  # noqa: E731
        carried_out(trained(engine, mine, "sgd", schedule=make, schedule_interval="step"))
        optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.01)
        scheduler = make(optimizer)
        for epoch in range(2):
            for index in chosen(epoch, BATCH):
                optimizer.zero_grad()
                nn.functional.mse_loss(by_hand(X[index]), Y[index]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                scheduler.step()
        for one, other in zip(mine.parameters(), by_hand.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=TOLERANCE[engine] or 0.0, atol=TOLERANCE[engine] or 0.0)

    @engines
    def test_a_named_curve_by_epoch(self, engine: str) -> None:
        trainer = Trainer(
            built(mlp),
            "mse",
            "sgd",
            lr=0.1,
            engine=engine,
            device="cpu",
            schedule="linear",
            schedule_interval="epoch",
            metrics=(),
        )
        history = trainer.fit((X, Y), epochs=4, batch_size=BATCH, progress="none")
        carried_out(trainer, epochs=4)
        assert history.column("lr") == pytest.approx([0.1, 0.075, 0.05, 0.025])


class TestListeners:
    @engines
    def test_hear_of_every_update(self, engine: str) -> None:
        class Ear(Callback):
            def __init__(self) -> None:
                self.steps: list[StepProgress] = []
                self.epochs: list[int] = []

            def on_epoch_start(self, epoch: int) -> None:
                self.epochs.append(epoch)

            def on_step_end(self, step: StepProgress) -> None:
                self.steps.append(step)

        deaf, heard, ear = built(mlp), built(mlp), Ear()
        trainer = trained(engine, deaf, "sgd", schedule="linear")
        carried_out(trainer)
        losses = trainer.fit((X, Y), epochs=1, batch_size=BATCH, progress="none")
        carried_out(trainer, epochs=1, going_on=True)
        trainer = trained(engine, heard, "sgd", schedule="linear", callbacks=[ear])
        carried_out(trainer, eager="a callback listens to each step")
        again = trainer.fit((X, Y), epochs=1, batch_size=BATCH, progress="none")
        carried_out(trainer, epochs=1)
        assert_same_state(engine, heard, deaf)
        assert again.column("train_loss") == pytest.approx(losses.column("train_loss"), rel=TOLERANCE[engine])
        assert [step.step for step in ear.steps] == list(range(1, ALL_STEPS + 1))
        assert [step.epoch for step in ear.steps] == [1] * STEPS + [2] * STEPS
        rates = [0.01 * left / ALL_STEPS for left in reversed(range(ALL_STEPS))]
        assert [step.lr for step in ear.steps] == pytest.approx(rates)
        assert ear.epochs == [1, 2]
        assert all(step.loss.ndim == 0 and not step.loss.requires_grad for step in ear.steps)

    @engines
    def test_may_end_the_training_at_a_step(self, engine: str) -> None:
        class Enough(Callback):
            def on_step_end(self, step: StepProgress) -> bool:
                return step.step == 13

        trainer = Trainer(built(mlp), "mse", "sgd", engine=engine, device="cpu", metrics=())
        history = trainer.fit((X, Y), epochs=9, batch_size=BATCH, progress="none", callbacks=[Enough()])
        carried_out(trainer, eager="a callback listens to each step")
        assert (history.stopped, history.column("step")) == ("callback", [STEPS, 13])
