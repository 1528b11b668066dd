from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import SGD, Optimizer, lr_scheduler

from stoker.errors import ConfigError, InputTypeError, UnknownNameError
from stoker.training.schedules import SCHEDULES, build_schedule, check_schedule, cosine, linear


def sgd(lr: float = 1.0) -> SGD:
    return SGD([torch.zeros(1, requires_grad=True)], lr=lr)


def rates(spec: Any, steps: int, lr: float = 1.0, optimizer: Optimizer | None = None, **settings: Any) -> list[float]:
    """The learning rate of each update."""
    optimizer = optimizer or sgd(lr)
    schedule = build_schedule(spec, optimizer, total_steps=steps, settings=settings)
    assert schedule is not None
    used = []
    for _ in range(steps):
        used.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        schedule.scheduler.step()
    return used


def test_curves() -> None:
    assert [cosine(0), cosine(0.5), cosine(1)] == pytest.approx([1, 0.5, 0])
    assert [cosine(0, floor=0.2), cosine(0.5, floor=0.2), cosine(1, floor=0.2)] == pytest.approx([1, 0.6, 0.2])
    assert [linear(0), linear(0.25), linear(1)] == [1, 0.75, 0]
    assert linear(1, floor=0.5) == 0.5


class TestByStep:
    def test_cosine(self) -> None:
        expected = [0.3 * (1 + math.cos(math.pi * k / 8)) / 2 for k in range(8)]
        assert rates("cosine", 8, lr=0.3) == pytest.approx(expected)

    def test_linear_with_a_floor(self) -> None:
        assert rates("linear", 4, floor=0.2) == pytest.approx([1.0, 0.8, 0.6, 0.4])

    def test_warmup_is_a_fraction_of_all_steps(self) -> None:
        # two of ten steps rise, and none of them has a rate of 0; the others fall from 1
        assert rates("linear", 10, warmup=0.2) == pytest.approx([0.5, 1.0, *(1 - k / 8 for k in range(8))])

    def test_one_cycle_rises_from_a_25th_and_falls_to_nothing(self) -> None:
        used = rates("one-cycle", 100, lr=0.5)
        assert used[0] == pytest.approx(0.5 / 25)
        assert max(used) == pytest.approx(0.5, rel=1e-2)
        assert used.index(max(used)) in (29, 30)
        assert used[-1] < 0.001

    @pytest.mark.parametrize("name", ["cosine", "linear", "one-cycle"])
    def test_a_second_one_begins_where_the_first_began(self, name: str) -> None:
        optimizer = sgd(0.5)
        first = rates(name, 7, optimizer=optimizer)
        assert rates(name, 7, optimizer=optimizer) == first

    @pytest.mark.parametrize("name", ["cosine", "linear", "one-cycle"])
    def test_the_number_of_steps_must_be_known(self, name: str) -> None:
        text = rf"schedule: {name} must know how many steps an epoch has, got data without a length\. Give them a __len"
        with pytest.raises(ConfigError, match=text):
            build_schedule(name, sgd(), total_steps=None)

    @pytest.mark.parametrize("name", ["exponential", "step", "plateau"])
    def test_or_need_not_be(self, name: str) -> None:
        assert build_schedule(name, sgd(), total_steps=None) is not None


class TestPlateau:
    @pytest.mark.parametrize(
        ("direction", "values", "expected"),
        [
            ("min", [1.0, 0.9, 0.9, 0.9, 0.9], [1, 1, 1, 0.1, 0.1]),
            ("max", [0.8, 0.9, 0.9, 0.9, 0.9], [1, 1, 1, 0.1, 0.1]),
            ("max", [0.5, 0.6, 0.7, 0.8, 0.9], [1, 1, 1, 1, 1]),
            ("min", [0.5, 0.6, 0.7, 0.8, 0.9], [1, 1, 0.1, 0.1, 0.01]),
        ],
    )
    def test_is_seen_in_the_direction_of_the_metric(
        self, direction: Any, values: list[float], expected: list[float]
    ) -> None:
        optimizer = sgd()
        schedule = build_schedule("plateau", optimizer, total_steps=10, settings={"patience": 1}, direction=direction)
        assert schedule is not None
        seen = []
        for value in values:
            schedule.after_epoch(value)
            seen.append(optimizer.param_groups[0]["lr"])
        assert seen == pytest.approx(expected)

    def test_of_the_users_own_is_told_the_value_as_it_is(self) -> None:
        optimizer = sgd()
        schedule = build_schedule(
            lambda o: lr_scheduler.ReduceLROnPlateau(o, mode="max", patience=0), optimizer, total_steps=10
        )
        assert schedule is not None
        for accuracy in (0.5, 0.6, 0.7):
            schedule.after_epoch(accuracy)
        assert optimizer.param_groups[0]["lr"] == 1.0
        schedule.after_epoch(0.6)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("make", "interval"),
    [
        (lambda o: lr_scheduler.StepLR(o, 2), "epoch"),
        (lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=10), "step"),
        (lambda o: lr_scheduler.CyclicLR(o, 0.1, 1.0, cycle_momentum=False), "step"),
        (lr_scheduler.ReduceLROnPlateau, "plateau"),
    ],
)
def test_torchs_own_move_when_torch_says_they_should(make: Callable[[Optimizer], Any], interval: str) -> None:
    schedule = build_schedule(make, sgd(), total_steps=10)
    assert schedule is not None
    assert schedule.interval == interval


@pytest.mark.parametrize("spec", [None, "constant"])
def test_a_constant_rate_has_no_schedule(spec: str | None) -> None:
    assert build_schedule(spec, sgd(), total_steps=10) is None


def test_a_scheduler_of_another_optimizer() -> None:
    shared = lr_scheduler.StepLR(sgd(), 2)
    text = (
        r"schedule: the function must make a scheduler of the optimizer it is given, got one of another optimizer\. W"
    )
    with pytest.raises(ConfigError, match=text):
        build_schedule(lambda _: shared, sgd(), total_steps=10)


def test_a_function_that_makes_something_else() -> None:
    with pytest.raises(InputTypeError, match=r"schedule: the function must return a torch scheduler, got int\."):
        build_schedule(lambda _: 3, sgd(), total_steps=10)  # type: ignore[arg-type,return-value]


WRONG: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    ("cosin", {}, UnknownNameError, r"schedule: must be one of the known names, got 'cosin'\. Did you mean 'cosine'\?"),
    (
        "cosine",
        {"warm": 0.1},
        ConfigError,
        r"schedule: cosine has no such setting, got 'warm'\. Did you mean 'warmup'\?",
    ),
    ("cosine", {"warmup": 1}, ConfigError, r"cosine's warmup must be a number from 0 up to, not including, 1, got 1\."),
    ("cosine", {"warmup": "a"}, ConfigError, r"cosine's warmup must be a number from 0 up to, not including, 1, got a"),
    ("linear", {"floor": -1}, ConfigError, r"linear's floor must be a number from 0 up to, not including, 1, got -1\."),
    ("step", {"step_size": 0}, ConfigError, r"step's step_size must be a whole number of epochs from 1 on, got 0\."),
    ("exponential", {"gamma": -1}, ConfigError, r"exponential's gamma must be above 0, got -1\."),
    ("plateau", {"factor": 2}, ConfigError, r"plateau refused its settings: Factor should be < 1\.0"),
    ("plateau", {"mode": "max"}, ConfigError, r"plateau has no such setting, got 'mode'\."),
    ("one-cycle", {"pct_start": 2}, ConfigError, r"one-cycle refused its settings: .*pct_start"),
    ("constant", {"warmup": 0.1}, ConfigError, r"schedule: a constant schedule has no settings, got warmup\."),
    (None, {"warmup": 0.1}, ConfigError, r"schedule: a constant schedule has no settings, got warmup\."),
]


@pytest.mark.parametrize(("spec", "settings", "kind", "text"), WRONG)
def test_what_is_refused(spec: Any, settings: dict[str, Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        build_schedule(spec, sgd(), total_steps=10, settings=settings)
    with pytest.raises(kind, match=text):  # also before there is anything to train
        check_schedule(spec, settings)


class TestBefore:
    def test_a_scheduler_instead_of_a_function(self) -> None:
        text = r"schedule: must be a name or a function from the optimizer to a scheduler, got StepLR\. Such as lambda"
        with pytest.raises(InputTypeError, match=text):
            check_schedule(lr_scheduler.StepLR(sgd(), 1))  # type: ignore[arg-type]

    def test_settings_beside_a_function(self) -> None:
        with pytest.raises(ConfigError, match=r"schedule: a function takes no settings, got gamma\. Set them within"):
            check_schedule(lambda o: lr_scheduler.StepLR(o, 1), {"gamma": 1})

    def test_a_function_is_not_called(self) -> None:
        check_schedule(lambda _: pytest.fail("called"))

    def test_every_name_is_right_by_default(self) -> None:
        for name in SCHEDULES:
            check_schedule(name)


def test_a_cycle_of_too_few_steps_for_its_shape_is_refused_in_words() -> None:
    # torch divides by the number of rising steps, here 0
    with pytest.raises(ConfigError, match=r"schedule: one-cycle refused its settings: float division by zero"):
        build_schedule("one-cycle", sgd(), total_steps=9, settings={"pct_start": 0.1})
