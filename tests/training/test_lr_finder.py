from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fitting import QUIET, X, Y, net, same, some, trainer_of, weights
from torch import Tensor, nn
from torch.optim import LBFGS, SGD, Adam, AdamW, Optimizer
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from stoker.data.resident import epoch_order
from stoker.errors import ConfigError, DataError, NonFiniteLossError, TrainingError
from stoker.training.lr_finder import growing_rates, smoothed_changes, suggested
from stoker.training.schedules import build_schedule
from stoker.training.trainer import Trainer

LEARNABLE = X, X.sum(dim=1, keepdim=True)


def linear(seed: int = 0) -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Linear(3, 1)


class TestCurve:
    def test_the_losses_are_those_of_a_loop_written_by_hand(self) -> None:
        model, twin, first = linear(), linear(), linear()
        curve = trainer_of(model, "mse", "sgd", lr=0.5, momentum=0.9, clip_norm=0.3).find_lr(
            (X, Y), start=1e-4, end=1.0, steps=20, batch_size=32
        )
        optimizer = SGD(twin.parameters(), lr=0.5, momentum=0.9)
        losses, before = [], []
        rates = np.geomspace(1e-4, 1.0, 20)
        batches = [chosen for epoch in range(7) for chosen in torch.split(epoch_order(70, 0, epoch), 32)]
        for rate, chosen in zip(rates, batches, strict=False):  # 3 batches an epoch
            optimizer.param_groups[0]["lr"] = float(rate)
            before.append(F.mse_loss(first(X[chosen]), Y[chosen]).item())
            optimizer.zero_grad()
            loss = F.mse_loss(twin(X[chosen]), Y[chosen])
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(twin.parameters(), 0.3)
            optimizer.step()
            losses.append(loss.item())
        assert curve.lrs == pytest.approx(rates)
        assert curve.losses == pytest.approx(losses, rel=1e-6)
        assert curve.before == pytest.approx(before, rel=1e-6)
        assert curve.suggestion == curve.lrs[int(np.argmin(curve.smoothed))] / 10

    def test_accumulated_batches_are_one_step(self) -> None:
        many = trainer_of(linear(), "mse", "sgd", accumulate=2).find_lr((X[:64], Y[:64]), batch_size=16)
        one = trainer_of(linear(), "mse", "sgd").find_lr((X[:64], Y[:64]), batch_size=32)
        assert many.losses[:30] == pytest.approx(one.losses[:30], rel=1e-4)
        assert many.before == pytest.approx(one.before, rel=1e-5)

    def test_with_rates_too_small_to_matter_every_levelled_loss_is_alike(self) -> None:
        # dropout as well: both losses of a batch are taken with the same noise
        curve = trainer_of(nn.Sequential(linear(), nn.Dropout(0.5), nn.Linear(1, 1)), "mse", "sgd").find_lr(
            (X, Y), start=1e-9, end=1.0, steps=100, batch_size=8
        )
        still = np.array(curve.levelled[:20])
        assert np.ptp(np.array(curve.losses[:20])) > 0.1
        assert np.ptp(still) < 1e-5
        assert still[0] == pytest.approx(np.mean(curve.before))
        assert curve.smoothed[:20] == pytest.approx(still.tolist(), rel=1e-5)

    def test_groups_keep_their_ratios(self) -> None:
        model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
        optimizer = SGD([{"params": model[0].parameters(), "lr": 0.1}, {"params": model[1].parameters(), "lr": 0.4}])
        seen: list[tuple[float, float]] = []
        optimizer.register_step_pre_hook(
            lambda made, *_: seen.append((made.param_groups[0]["lr"], made.param_groups[1]["lr"]))
        )
        curve = trainer_of(model, "mse", optimizer).find_lr((X, Y), end=0.01, start=1e-4, steps=30)
        assert [first for first, _ in seen] == pytest.approx(list(curve.lrs))
        assert [second for _, second in seen] == pytest.approx([4 * rate for rate in curve.lrs])
        assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.4]

    def test_it_stops_where_the_loss_diverges(self) -> None:
        curve = trainer_of(linear(), "mse", "sgd").find_lr((X, Y), end=1e6)
        assert len(curve.lrs) < 100
        assert curve.lrs[-1] < 1e5
        assert curve.smoothed[-1] > 4 * min(curve.smoothed)
        assert all(math.isfinite(loss) for loss in (*curve.losses, *curve.smoothed))

    def test_it_stops_before_a_loss_that_is_not_finite(self) -> None:
        class Breaks(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.seen = 0

            def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
                self.seen += torch.is_grad_enabled()
                return F.mse_loss(outputs, targets) * (math.nan if self.seen > 60 else 1.0)

        curve = trainer_of(linear(), Breaks(), "sgd", task="regression").find_lr((X, Y), end=0.5)
        assert len(curve.losses) == 60

    def test_the_noise_is_seeded(self) -> None:
        def losses(seed: int) -> tuple[float, ...]:
            return trainer_of(net(), "mse", "adam", seed=seed).find_lr((X, Y), batch_size=None).losses

        assert losses(1) == losses(1)
        assert losses(1) != losses(2)

    def test_it_suggests_a_rate_at_which_the_network_learns(self) -> None:
        curve = trainer_of(linear(), "mse", "sgd").find_lr(LEARNABLE, batch_size=16)
        trainer = trainer_of(linear(), "mse", "sgd", lr=curve.suggestion)
        history = trainer.fit(LEARNABLE, epochs=10, batch_size=16, **QUIET)
        assert history[-1]["train_loss"] < 0.02 * history[0]["train_loss"]

    def test_batches_of_a_loader(self) -> None:
        loader = DataLoader(TensorDataset(X, Y), batch_size=32, shuffle=True)
        assert len(trainer_of(linear(), "mse", "sgd").find_lr(loader).lrs) > 50

    def test_it_tells_how_far_it_is(self) -> None:
        told: list[int] = []
        curve = trainer_of(linear(), "mse", "sgd").find_lr((X, Y), watch=told.append)
        assert told == list(range(1, len(curve.lrs) + 1))

    def test_bfloat16_counts(self) -> None:
        exact = trainer_of(net(), "mse", "sgd").find_lr((X, Y))
        rough = trainer_of(net(), "mse", "sgd", precision="bf16").find_lr((X, Y))
        assert rough.losses[0] != exact.losses[0]
        assert rough.losses[0] == pytest.approx(exact.losses[0], rel=0.05)
        assert rough.before[0] == rough.losses[0]


def trained(optimizer: Any) -> Trainer:
    """A Trainer amid a training: optimizer, running statistics, modes and gradients all hold something."""
    model = net()
    trainer = trainer_of(model, "mse", optimizer(model))
    trainer.fit(LEARNABLE, epochs=2, **QUIET)
    model[1].eval()
    F.mse_loss(model(X), Y).backward()  # type: ignore[no-untyped-call]
    return trainer


def deep(value: Any) -> Any:
    """The bits of everything in a nested state."""
    if isinstance(value, Tensor):
        return value.dtype, value.device, value.stride(), value.detach().clone().numpy().tobytes()
    if isinstance(value, dict):
        return {name: deep(part) for name, part in value.items()}
    return [deep(part) for part in value] if isinstance(value, (list, tuple)) else value


def everything(trainer: Trainer) -> Any:
    model, optimizer = trainer.model, trainer.optimizer
    return (
        deep(model.state_dict()),
        deep([parameter.grad for parameter in model.parameters()]),
        [module.training for module in model.modules()],
        deep(optimizer.state_dict()),
        torch.get_rng_state().numpy().tobytes(),
        (trainer.state.epoch, trainer.state.step),
    )


OPTIMIZERS: dict[str, Callable[[nn.Module], Optimizer]] = {
    "momentum": lambda model: SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True),
    "adamw": lambda model: AdamW(model.parameters(), lr=0.01, amsgrad=True),
    "adam with a tensor as rate": lambda model: Adam(model.parameters(), lr=torch.tensor(0.01)),
    "l-bfgs": lambda model: LBFGS(model.parameters(), lr=0.01, max_iter=3),
    "not yet used": lambda model: Adam(model.parameters(), lr=0.01),
}


class TestNothingIsChanged:
    @pytest.mark.parametrize("name", OPTIMIZERS)
    def test_bit_for_bit(self, name: str) -> None:
        trainer = trained(OPTIMIZERS[name])
        if name == "not yet used":
            trainer.optimizer.state.clear()
        before = everything(trainer)
        tensors = [id(tensor) for tensor in (*trainer.model.parameters(), *trainer.model.buffers())]
        places = [tensor.data_ptr() for tensor in (*trainer.model.parameters(), *trainer.model.buffers())]
        with suppress(TrainingError):  # L-BFGS stands still on small batches, which is told
            trainer.find_lr(LEARNABLE, steps=30)
        assert everything(trainer) == before
        assert [id(tensor) for tensor in (*trainer.model.parameters(), *trainer.model.buffers())] == tensors
        assert [tensor.data_ptr() for tensor in (*trainer.model.parameters(), *trainer.model.buffers())] == places

    @pytest.mark.parametrize("settings", [{"schedule": "cosine"}, {"ema": 0.9}, {"accumulate": 3}], ids=str)
    def test_a_training_goes_on_as_if_nothing_had_been(self, settings: dict[str, Any]) -> None:
        plain, looked = trainer_of(net(), **settings), trainer_of(net(), **settings)
        for trainer in (plain, looked):
            trainer.fit((X, Y), epochs=2, batch_size=10, **QUIET)
            if trainer is looked:
                trainer.find_lr((X, Y), batch_size=10)
            trainer.fit((X, Y), epochs=2, batch_size=10, **QUIET)
        assert same(weights(plain.model), weights(looked.model))

    def test_a_running_schedule_does_not_move(self) -> None:
        optimizer = SGD((model := net()).parameters(), lr=0.3)
        schedule = build_schedule("one-cycle", optimizer, total_steps=50)
        assert schedule is not None
        before = schedule.scheduler.state_dict(), deep(optimizer.state_dict())
        trainer_of(model, "mse", optimizer).find_lr((X, Y))
        assert (schedule.scheduler.state_dict(), deep(optimizer.state_dict())) == before

    @pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
    def test_nor_where_it_is_ended_early(self, error: type[BaseException]) -> None:
        trainer = trained(OPTIMIZERS["adamw"])
        before = everything(trainer)

        def fail(steps: int) -> None:
            if steps == 7:
                raise error

        with pytest.raises(error):
            trainer.find_lr((X, Y), watch=fail)
        assert everything(trainer) == before

    def test_nor_parameters_outside_of_the_model(self) -> None:
        model, own = linear(), nn.Parameter(torch.ones(()))
        optimizer = SGD([*model.parameters(), own], lr=0.1)
        trainer_of(model, lambda outputs, targets: own**2 * F.mse_loss(outputs, targets), optimizer).find_lr((X, Y))
        assert own.item() == 1
        assert own.grad is None

    def test_lazy_modules_are_made_first(self) -> None:
        model = nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.Linear(4, 1))
        assert trainer_of(model, "mse", "sgd").find_lr((X, Y)).suggestion > 0


class Nothing(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(())


class Once(IterableDataset[Any]):
    """Rows that come once, and never again."""

    def __init__(self) -> None:
        self.rows = iter(zip(X, Y, strict=True))

    def __iter__(self) -> Iterator[Any]:
        return self.rows


class TestBadInput:
    @pytest.mark.parametrize(
        ("settings", "text"),
        [
            ({"start": 0}, r"find_lr: start must be above 0 and end above start, got 0 and 10\.0\."),
            ({"start": 1, "end": 1}, r"start must be above 0 and end above start, got 1 and 1\."),
            ({"end": math.inf}, r"start must be above 0 and end above start, got 1e-07 and inf\."),
            ({"start": math.nan}, r"start must be above 0 and end above start, got nan and"),
            ({"steps": 9}, r"find_lr: steps must be a whole number from 10 on, got 9\."),
            ({"steps": 20.0}, r"steps must be a whole number from 10 on, got 20\.0\."),
            ({"steps": True}, r"steps must be a whole number from 10 on, got True\."),
        ],
    )
    def test_settings(self, settings: dict[str, Any], text: str) -> None:
        with pytest.raises(ConfigError, match=text):
            trainer_of(linear()).find_lr((X, Y), **settings)

    def test_an_optimizer_without_a_rate(self) -> None:
        text = r"find_lr: the optimizer's first parameter group must have a learning rate above 0, got 0 in SGD"
        model = linear()
        with pytest.raises(ConfigError, match=text):
            trainer_of(model, "mse", SGD(model.parameters(), lr=0.0)).find_lr((X, Y))

    @pytest.mark.parametrize("data", [Nothing, Once])
    def test_data_without_batches(self, data: type[IterableDataset[Any]]) -> None:
        with pytest.raises(DataError, match=r"find_lr: the data must yield batches, and again in each epoch, got none"):
            trainer_of(linear()).find_lr(data())

    def test_a_first_loss_that_is_not_finite(self) -> None:
        x = X.clone()
        x[:, 0] = math.inf
        text = r"find_lr: the loss of the first batch must be finite, got (nan|inf)\. Look for extreme values"
        with pytest.raises(NonFiniteLossError, match=text):
            trainer_of(linear()).find_lr((x, Y))

    @pytest.mark.parametrize(("start", "end"), [(1e-12, 1e-10), (1e4, 1e6)], ids=["rates too low", "rates too high"])
    def test_no_slope(self, start: float, end: float) -> None:
        text = (
            r"find_lr: the loss must fall somewhere between the rates tried, got [\d.e+]+ before, [\d.e+]+ at the "
            r"lowest\. Tried: 1\.0e[-+]\d+ to \d\.\de[-+]\d+\. Try others, or look whether the model learns at all\."
        )
        with pytest.raises(TrainingError, match=text):
            trainer_of(linear(), "mse", "sgd").find_lr((X, Y), start=start, end=end)

    def test_a_loss_that_does_not_depend_on_the_weights(self) -> None:
        def criterion(outputs: Tensor, targets: Tensor) -> Tensor:
            return 0 * outputs.sum() + targets.square().mean()

        with pytest.raises(TrainingError, match="the loss must fall somewhere between the rates tried"):
            trainer_of(linear(), criterion, "sgd").find_lr((X, some(70, 1, seed=9)), batch_size=8)


def test_rates_grow_by_the_same_factor() -> None:
    rates = growing_rates(1e-3, 10, 41)
    assert rates == pytest.approx(np.geomspace(1e-3, 10, 41))
    assert rates[10] == pytest.approx(1e-2)


def test_smoothing() -> None:
    # as Adam's first moment with its correction: 1·, (0.9·0.1·1 + 0.1·3)/(1 − 0.81), …
    assert smoothed_changes([2.0, 5.0], [1.0, 2.0], 0.9) == pytest.approx([1.0, (0.9 * 0.1 * 1 + 0.1 * 3) / 0.19])
    assert smoothed_changes([4.0] * 50, [1.0] * 50, 0.9) == pytest.approx([3.0] * 50)
    assert smoothed_changes([4.0, 1.0], [0.0, 0.0], 0.0) == pytest.approx([4.0, 1.0])


@pytest.mark.parametrize(
    ("smoothed", "rate"),
    [
        ([1.0, 0.9, 0.4, 2.0], 0.03),
        ([0.5, 0.6, 1.0, 2.0], 0.001),
        ([1.0, 0.9, 0.8, 0.7], 0.1),
        ([1.0, 1.0, 1.0, 1.0], None),
        ([1.0, 0.9995, 2.0, 3.0], None),
        ([1.5, 2.0, 3.0, 4.0], None),
    ],
)
def test_the_suggestion_is_a_tenth_of_the_rate_of_the_lowest_loss(smoothed: list[float], rate: float | None) -> None:
    found = suggested([0.01, 0.1, 0.3, 1.0], np.array(smoothed), 1.0)
    assert found == (None if rate is None else pytest.approx(rate))
