"""K trainings that meet end as K single ones: weights, optimizer state, metrics and history."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from tiny import some
from torch import Tensor, nn

from stoker.engines.registry import choose_engine
from stoker.engines.reuse import PROGRAMS
from stoker.engines.together import OWN_CODE, OWN_SHAPE, Lane, abreast
from stoker.engines.xla.vectorised import Vectorised
from stoker.errors import NonFiniteLossError
from stoker.training.callbacks import Callback
from stoker.training.history import History, Row
from stoker.training.trainer import Trainer

ROWS, BATCH = 150, 16  # nine whole updates, and a smaller one
X, LABELS = some(ROWS, 4), torch.arange(ROWS) % 3
TARGETS = X[:, :1].sin() + 0.5 * X[:, 1:2]
VALID, VALID_LABELS = some(40, 4, seed=2), torch.arange(40) % 3
VALID_TARGETS = VALID[:, :1].sin() + 0.5 * VALID[:, 1:2]
REGRESSION = (X, TARGETS), (VALID, VALID_TARGETS)
CLASSIFICATION = (X, LABELS), (VALID, VALID_LABELS)


@pytest.fixture(autouse=True)
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, int]]]:
    """The size of each vectorised segment, and how many trainings were in it; no program is kept from other tests."""
    PROGRAMS.clear()
    segments: list[tuple[int, int]] = []
    call = Vectorised.__call__

    def noted(self: Vectorised, scans: Any, start: int, stop: int) -> list[list[float]]:
        segments.append((self.size, len(scans)))
        return call(self, scans, start, stop)

    monkeypatch.setattr(Vectorised, "__call__", noted)
    yield segments
    PROGRAMS.clear()


def network(place: int, *layers: str, width: int = 8, out: int = 1) -> nn.Sequential:
    torch.manual_seed(place)
    kinds: dict[str, Callable[[], nn.Module]] = {
        "norm": lambda: nn.BatchNorm1d(width),
        "dropout": lambda: nn.Dropout(0.1 + 0.1 * place),
        "gelu": nn.GELU,
    }
    return nn.Sequential(nn.Linear(4, width), nn.Tanh(), *(kinds[one]() for one in layers), nn.Linear(width, out))


class Order:
    """A training with numbers of its own, by its place."""

    def __init__(self, make: Callable[[int], nn.Module], data: Any = REGRESSION, **settings: Any) -> None:
        self.make, (self.train, self.valid), self.settings = make, data, settings

    def __call__(self, place: int, lane: Lane | None, callbacks: Sequence[Callback] = ()) -> tuple[Trainer, History]:
        settings = {"optimizer": "sgd", "epochs": 4, "criterion": "mse", "batch_size": BATCH, **self.settings}
        fit = {name: settings.pop(name) for name in ("epochs", "batch_size")}
        trainer = Trainer(
            self.make(place),
            **{
                "lr": 0.01 * (place + 1),
                "weight_decay": 0.001 * place,
                "seed": place,
                "device": "cpu",
                "engine": choose_engine("compiled", lane=lane),
                **settings,
            },
        )
        history = trainer.fit(self.train, self.valid, progress="none", check=False, callbacks=callbacks, **fit)
        return trainer, history


Result = tuple[Trainer, History]


def together(orders: Sequence[Order], **given: Any) -> tuple[list[Result], list[Lane]]:
    results: dict[int, Result] = {}
    lanes = [Lane() for _ in orders]
    works: list[Any] = [partial(order, place, **given) for place, order in enumerate(orders)]
    abreast(lanes, works, results.__setitem__)
    return [results[place] for place in range(len(orders))], lanes


def tensors(trainer: Trainer) -> list[Tensor]:
    slots = [value for state in trainer.optimizer.state.values() for value in state.values() if value is not None]
    return [*trainer.model.state_dict().values(), *slots]


def assert_same(one: Result, other: Result, rtol: float = 1e-5) -> None:
    (mine, my_history), (theirs, their_history) = one, other
    for a, b in zip(tensors(mine), tensors(theirs), strict=True):
        largest = float(b.abs().max()) if b.numel() and b.is_floating_point() else 0.0
        torch.testing.assert_close(a, b, rtol=rtol, atol=rtol * largest)
    assert my_history.stopped == their_history.stopped
    assert my_history.best_epoch == their_history.best_epoch
    assert len(my_history) == len(their_history)
    for row, their_row in zip(my_history, their_history, strict=True):
        assert row == pytest.approx(their_row, rel=rtol)


def dense(place: int) -> nn.Module:
    return network(place)


ORDERS: dict[str, Order] = {
    "sgd": Order(dense),
    "adam": Order(dense, optimizer="adam"),
    "dropout": Order(lambda place: network(place, "dropout")),
    "dropout and adamw": Order(lambda place: network(place, "dropout"), optimizer="adamw"),
    "batch norm": Order(lambda place: network(place, "norm", "dropout"), momentum=0.9),
    "classes": Order(lambda place: network(place, "norm", out=3), CLASSIFICATION, criterion="cross-entropy"),
    "a schedule": Order(dense, schedule="one-cycle"),
    "an average": Order(dense, optimizer="adam", ema=0.9),
    "clipping and accumulation": Order(dense, clip_norm=0.5, accumulate=2),
}


@pytest.mark.parametrize("what", ORDERS)
def test_three_are_three_single_ones(what: str, made: list[tuple[int, int]]) -> None:
    order = ORDERS[what]
    results, lanes = together([order] * 3)
    assert set(made) == {(3, 3)}
    assert [lane.size for lane in lanes] == [3] * 3
    for place, result in enumerate(results):
        assert_same(result, order(place, None))
    first, second = results[0][1].column("train_loss"), results[1][1].column("train_loss")
    assert not np.allclose(first, second, rtol=1e-3), "they must differ, or nothing is shown"


def momentum_through_zero(optimizer: Any) -> Any:
    """It is 0 to the bit in the 15th, the 18th or the 21st update."""
    total = 40 + round(optimizer.param_groups[0]["lr"] * 1000)
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total, base_momentum=0.0, max_momentum=0.9)


def test_each_may_come_to_another_update_than_the_programs() -> None:
    order = Order(dense, momentum=0.9, schedule=momentum_through_zero, schedule_interval="step")
    results, _ = together([order] * 3)
    for place, result in enumerate(results):
        assert_same(result, order(place, None))
        assert result[0].state.schedule is not None
        assert result[0].state.schedule.scheduler.last_epoch == 40


def test_a_label_out_of_range_is_an_error_to_each() -> None:
    labels = LABELS.clone()
    labels[130] = 3
    data = (X, labels), (VALID, VALID_LABELS)
    order = Order(lambda place: network(place, out=3), data, criterion="cross-entropy")
    with pytest.raises(IndexError, match="Target 3 is out of bounds"):
        together([order] * 2)


def images(place: int) -> nn.Module:
    torch.manual_seed(place)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 3)
    )


def attention(place: int) -> nn.Module:
    torch.manual_seed(place)
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.1, batch_first=True)
    return nn.Sequential(layer, nn.Flatten(), nn.Linear(12, 3))


PICTURES, SEQUENCES = some(ROWS, 1, 4, 4), some(ROWS, 3, 4)


@pytest.mark.slow
@pytest.mark.parametrize(("make", "inputs"), [(images, PICTURES), (attention, SEQUENCES)])
def test_other_layers(make: Callable[[int], nn.Module], inputs: Tensor, made: list[tuple[int, int]]) -> None:
    data = (inputs, LABELS), (inputs[:40], LABELS[:40])
    order = Order(make, data, criterion="cross-entropy", epochs=2)
    results, _ = together([order] * 2)
    assert set(made) == {(2, 2)}
    for place, result in enumerate(results):
        assert_same(result, order(place, None))


@pytest.mark.parametrize("size", [1, 2, 5])
def test_any_number(size: int, made: list[tuple[int, int]]) -> None:
    order = Order(lambda place: network(place, "dropout"), optimizer="adam", epochs=2)
    results, lanes = together([order] * size)
    assert set(made) == ({(size, size)} if size > 1 else set())
    assert [lane.alone for lane in lanes] == [OWN_SHAPE if size == 1 else None] * size
    for place, result in enumerate(results):
        assert_same(result, order(place, None))


def test_in_double_precision_the_difference_is_rounding() -> None:
    double = (X.double(), TARGETS.double()), (VALID.double(), VALID_TARGETS.double())
    order = Order(lambda place: network(place, "gelu", "dropout").double(), double, optimizer="adam", epochs=20)
    results, _ = together([order] * 3)
    for place, result in enumerate(results):
        assert_same(result, order(place, None), rtol=1e-11)


def test_twice_the_same_to_the_bit() -> None:
    order = Order(lambda place: network(place, "norm", "dropout"), optimizer="adam")
    (one, _), (two, _) = together([order] * 3), together([order] * 3)
    for mine, theirs in zip(one, two, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(tensors(mine[0]), tensors(theirs[0]), strict=True))
        assert mine[1].rows == theirs[1].rows


class StopAt(Callback):
    """Ends the training of the second network."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_epoch_end(self, row: Row, is_best: bool) -> bool:  # noqa: ARG002
        return row["epoch"] == 2 and torch.initial_seed() != 0 and row["lr"] == pytest.approx(0.01 * (self.seed + 1))


def test_who_leaves_changes_no_bit_of_the_others(made: list[tuple[int, int]]) -> None:
    order = Order(lambda place: network(place, "dropout"), optimizer="adam", epochs=5)
    whole, _ = together([order] * 3)
    made.clear()
    cut, _ = together([order] * 3, callbacks=[StopAt(1)])
    assert {size for size, _ in made} == {3}
    assert {count for _, count in made} == {2, 3}
    assert len(cut[1][1]) == 2
    assert cut[1][1].stopped == "callback"
    for place in (0, 2):
        assert all(torch.equal(a, b) for a, b in zip(tensors(cut[place][0]), tensors(whole[place][0]), strict=True))


def test_one_whose_loss_is_not_finite_fails_by_itself(made: list[tuple[int, int]]) -> None:
    rates = [0.01, 5.0, 0.02]  # the second one's error grows a hundredfold at each step
    orders = [Order(dense, lr=rate, epochs=3) for rate in rates]

    def work(lane: Lane | None, place: int) -> Any:
        try:
            return orders[place](place, lane)
        except NonFiniteLossError as error:
            return error

    results: dict[int, Any] = {}
    works: list[Any] = [partial(work, place=place) for place in range(3)]
    abreast([Lane() for _ in works], works, results.__setitem__)
    assert made[0] == (3, 3)
    assert made[-1] == (3, 2)
    assert str(results[1]) == str(work(None, 1))
    assert "the loss must be finite" in str(results[1])
    for place in (0, 2):
        assert_same(results[place], work(None, place))


def test_two_shapes_and_one_of_its_own(made: list[tuple[int, int]]) -> None:
    shapes = [8, 12, 8, 12, 5]
    orders = [Order(partial(network, width=width)) for width in shapes]
    results, lanes = together(orders)
    assert set(made) == {(2, 2)}
    assert [lane.alone for lane in lanes] == [None] * 4 + [OWN_SHAPE]
    for place, (order, result) in enumerate(zip(orders, results, strict=True)):
        assert_same(result, order(place, None))


def test_other_data_are_not_shared(made: list[tuple[int, int]]) -> None:
    other = (X * 2, TARGETS), (VALID * 2, VALID_TARGETS)
    orders = [Order(dense), Order(dense, other), Order(dense), Order(dense, other)]
    results, _ = together(orders)
    assert set(made) == {(2, 2)}
    for place, (order, result) in enumerate(zip(orders, results, strict=True)):
        assert_same(result, order(place, None))


def test_copies_of_the_same_data_are_shared(made: list[tuple[int, int]]) -> None:
    orders = [Order(dense, ((X.clone(), TARGETS.clone()), REGRESSION[1])) for _ in range(3)]
    results, _ = together(orders)
    assert set(made) == {(3, 3)}
    for place, (order, result) in enumerate(zip(orders, results, strict=True)):
        assert_same(result, order(place, None))


def test_trainings_of_different_lengths() -> None:
    orders = [Order(dense, epochs=epochs) for epochs in (1, 4, 2)]
    results, _ = together(orders)
    for place, (order, result) in enumerate(zip(orders, results, strict=True)):
        assert_same(result, order(place, None))


class Own(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 1.5


@pytest.mark.parametrize(
    ("order", "engine", "reason"),
    [
        (Order(lambda _: Own(4, 1)), "compiled", OWN_CODE),
        (Order(dense), "eager", "the engine is eager"),
        (Order(dense, batch_size=64), "compiled", "an epoch has fewer than four whole updates"),
    ],
)
def test_what_cannot_be_batched_is_trained_singly_and_says_why(
    order: Order, engine: str, reason: str, made: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = choose_engine
    monkeypatch.setitem(globals(), "choose_engine", lambda _, lane: chosen(engine, lane=lane))
    (results, lanes), single = together([order] * 2), order(1, None)
    assert made == []
    assert [lane.alone for lane in lanes] == [reason] * 2
    assert_same(results[1], single, rtol=1e-6)


def test_where_no_program_for_several_can_be_made_they_go_on_singly(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise ValueError("no such thing\nat all")

    monkeypatch.setattr(Vectorised, "__init__", refuse)
    results, lanes = together([Order(dense)] * 2)
    wanted = "of several no program can be made: the program cannot be made (ValueError: no such thing)"
    assert [lane.alone for lane in lanes] == [wanted] * 2
    assert_same(results[1], Order(dense)(1, None))


def test_torchs_settings_are_each_trainings_own() -> None:
    seen: list[tuple[bool, int]] = []

    class Look(Callback):
        def on_epoch_end(self, row: Row, is_best: bool) -> None:  # noqa: ARG002
            seen.append((torch.are_deterministic_algorithms_enabled(), torch.initial_seed()))

    orders = [Order(dense, deterministic=True, epochs=2), Order(dense, epochs=3)]
    before = torch.get_rng_state()
    together(orders, callbacks=[Look()])
    assert [strict for strict, _ in seen] == [True, False, True, False, False]
    assert len({seed for _, seed in seen}) == 5
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.equal(torch.get_rng_state(), before)


def test_an_error_of_one_is_raised_when_the_others_have_ended() -> None:
    ended: list[int] = []

    def work(lane: Lane, place: int) -> Result:
        if place == 0:
            raise SystemExit(143)
        return Order(dense)(place, lane)

    works: list[Any] = [partial(work, place=place) for place in range(3)]
    with pytest.raises(SystemExit):
        abreast([Lane() for _ in works], works, lambda place, _: ended.append(place))
    assert ended == [1, 2]


def test_who_cannot_be_told_leaves_no_thread_behind() -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("no room")

    orders = [Order(dense, epochs=epochs) for epochs in (1, 5, 5)]
    works: list[Any] = [partial(order, place) for place, order in enumerate(orders)]
    with pytest.raises(RuntimeError, match="no room"):
        abreast([Lane() for _ in works], works, refuse)
    for thread in threading.enumerate():
        if thread.name == "stoker-lane":
            thread.join(5)
            assert not thread.is_alive()


def test_losses_are_finite_numbers() -> None:
    results, _ = together([ORDERS["dropout"]] * 2)
    assert all(math.isfinite(loss) for _, history in results for loss in history.column("train_loss"))
