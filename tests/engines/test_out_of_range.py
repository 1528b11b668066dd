"""Indices out of range, integers divided by zero: the compiled engine raises what torch raises, and makes no update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny import X, Y, assert_near, some
from torch import Tensor, nn

from stoker.engines import takeover
from stoker.errors import NonFiniteLossError
from stoker.training.trainer import Trainer

IDS = torch.randint(0, 10, (150,), generator=torch.Generator().manual_seed(0))


class Reads(nn.Module):
    """Reads rows of a table in one way or another."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.table, self.last = how, nn.Embedding(10, 4), nn.Linear(4, 1)
        self.noise = nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.table.weight
        if self.how == "embedding":
            found = self.table(x)
        elif self.how == "index":
            found = rows[x]
        elif self.how == "index_select":
            found = rows.index_select(0, x)
        elif self.how == "gather":
            found = rows.gather(0, x[:, None].expand(-1, 4))
        elif self.how == "one_hot":
            found = F.one_hot(x, 10).float() @ rows
        elif self.how == "scatter":
            found = torch.zeros(len(x), 10).scatter(1, x[:, None], 1.0) @ rows
        else:  # what is not in range is not used, and yet an error
            found = torch.where((x < 10)[:, None], self.table(x), torch.zeros(()))
        return self.last(found)  # type: ignore[no-any-return]


def trained(engine: str, model: nn.Module, data: Any, criterion: Any = "mse", epochs: int = 2, **settings: Any) -> Any:
    settings = {"lr": 0.05, "engine": engine, "device": "cpu", "metrics": (), **settings}
    trainer = Trainer(model, criterion, "adam", **settings)
    fitting: dict[str, Any] = {"batch_size": 16, "progress": "none", "check": False, "shuffle": False}
    return trainer, trainer.fit(data, epochs=epochs, **fitting)


def outcome(engine: str, make: Any, *data: Any, **settings: Any) -> tuple[str, nn.Module]:
    torch.manual_seed(0)
    model = make()
    with pytest.raises((IndexError, RuntimeError)) as raised:
        trained(engine, model, data, **settings)
    return f"{type(raised.value).__name__}: {raised.value}".splitlines()[0], model


@pytest.mark.parametrize("segment", [1, 4, 32])
@pytest.mark.parametrize(
    ("how", "index"),
    [
        *[(how, 10) for how in ("embedding", "index", "index_select", "gather", "one_hot", "scatter", "masked")],
        *[(how, -1) for how in ("embedding", "index_select", "gather", "one_hot", "scatter")],
        ("index", -11),
    ],
)
def test_it_is_the_error_that_torch_raises(how: str, index: int, segment: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(takeover, "FIRST_SEGMENT", segment)
    monkeypatch.setattr(takeover, "SEGMENT_SECONDS", 0.0)
    ids = IDS.clone()
    ids[130] = index  # of the ninth update, long after the first were compared
    mine, model = outcome("compiled", lambda: Reads(how), ids, Y)
    theirs, expected = outcome("eager", lambda: Reads(how), ids, Y)
    assert mine == theirs
    assert_near(model, expected)


@pytest.mark.parametrize("label", [3, -1])
@pytest.mark.parametrize("settings", [{}, {"schedule": "one-cycle", "ema": 0.9, "clip_norm": 1.0}])
def test_labels_out_of_range_too(label: int, settings: dict[str, Any]) -> None:
    labels = torch.arange(150) % 3
    labels[130] = label
    found = [
        outcome(engine, lambda: nn.Linear(4, 3), X, labels, criterion=nn.CrossEntropyLoss(), **settings)
        for engine in ("compiled", "eager")
    ]
    assert found[0][0] == found[1][0]
    assert_near(found[0][1], found[1][1])


def test_negative_indices_that_count_from_the_end_are_in_range() -> None:
    models, histories = [], []
    for engine in ("compiled", "eager"):
        torch.manual_seed(0)
        models.append(Reads("index"))
        trainer, history = trained(engine, models[-1], (IDS - 10, Y))
        assert trainer.engine_reason == f"{engine}: as asked"
        histories.append(history.column("train_loss"))
    assert_near(*models)
    assert histories[0] == pytest.approx(histories[1], rel=1e-4)


def test_labels_that_are_ignored_are_in_range() -> None:
    labels = torch.arange(150) % 3
    labels[130] = -100
    models: list[nn.Module] = []
    for engine in ("compiled", "eager"):
        torch.manual_seed(0)
        models.append(nn.Linear(4, 3))
        trained(engine, models[-1], (X, labels), nn.CrossEntropyLoss())
    assert_near(*models)


DIVISIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tensor // tensor": lambda x: (x + 7) // x,
    "number // tensor": lambda x: 100 // x,
    "tensor // number": lambda x: x // 2 // x.min(),
    "trunc": lambda x: torch.div(x + 7, x.int(), rounding_mode="trunc"),
    "tensor % tensor": lambda x: (x + 7) % x,
    "number % tensor": lambda x: 100 % x,
    "fmod": lambda x: torch.fmod(x + 7, x),
    "masked": lambda x: torch.where(x == 0, 1, 100 // x),  # what is not used, and yet an error
}


class Divides(nn.Module):
    """Computes with whole numbers before its layer."""

    def __init__(self, how: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.how, self.last = how, nn.Linear(1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.how(x)[:, None].float() / 100)  # type: ignore[no-any-return]


@pytest.mark.parametrize("how", DIVISIONS)
def test_integers_that_are_divided_by_zero(how: str) -> None:
    divisors = IDS + 1
    divisors[130] = 0
    mine, model = outcome("compiled", lambda: Divides(DIVISIONS[how]), divisors, Y)
    theirs, expected = outcome("eager", lambda: Divides(DIVISIONS[how]), divisors, Y)
    assert mine == theirs == "RuntimeError: ZeroDivisionError"
    assert_near(model, expected)


@pytest.mark.parametrize(
    "how",
    [
        lambda x: torch.where(x == 0, 1.0, 100 / x),
        lambda x: torch.where(x == 0, 1.0, 100.0 // x),
        lambda x: torch.where(x == 0, 1.0, torch.fmod(100.5 + x, x)),
        lambda x: (x + 7) // 3 + (x + 7) % 4,
    ],
    ids=["true division", "floating //", "floating fmod", "by other numbers"],
)
def test_what_torch_divides_without_an_error_is_none(how: Callable[[Tensor], Tensor]) -> None:
    divisors, models = IDS.clone(), []
    assert 0 in divisors
    for engine in ("compiled", "eager"):
        torch.manual_seed(0)
        models.append(Divides(how))
        trainer, _ = trained(engine, models[-1], (divisors, Y))
        assert trainer.engine_reason == f"{engine}: as asked"
    assert_near(*models)


@pytest.mark.parametrize("schedule", [None, "one-cycle"])
def test_a_loss_that_is_not_finite_is_told_as_eagerly(schedule: str | None) -> None:
    x, told = X.clone(), []
    x[130] = float("inf")
    for engine in ("compiled", "eager"):
        torch.manual_seed(0)
        with pytest.raises(NonFiniteLossError) as raised:
            trained(engine, nn.Linear(4, 1), (x, Y), schedule=schedule)
        told.append(str(raised.value))
    assert told[0] == told[1]
    assert "epoch 1, step 9" in told[0]


class Risky(nn.Module):
    """Not finite where chance has it so, which differs between engines."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.noise = nn.Linear(4, 1), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        kept = self.noise(torch.ones(512)).sum()  # 512 ± 23
        return self.layer(x) + torch.where((kept - 512).abs() > 2 * 22.6, float("nan"), 0.0)  # type: ignore[no-any-return]


def test_where_eager_steps_go_well_the_rest_of_the_epoch_is_made_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[bool] = []

    def run(*arguments: Any) -> bool:
        made.append(run_epoch(*arguments))
        return made[-1]

    run_epoch = takeover.run_epoch
    monkeypatch.setattr("stoker.engines.compiled.run_epoch", run)
    for seed in range(60):
        torch.manual_seed(0)
        try:
            settings: dict[str, Any] = {"seed": seed, "schedule": "linear", "ema": 0.9}
            trainer, history = trained("compiled", Risky(), (X, some(150, 1)), epochs=1, **settings)
        except NonFiniteLossError:
            continue
        if not all(made):
            break
    else:
        pytest.fail("the program's loss was always finite, or the eager one never")
    assert history.column("step") == [10]
    assert history.column("lr") == [0.0]  # the schedule was moved once for each update
    assert trainer.state.schedule.scheduler.last_epoch == 10
    assert trainer.state.average.updates == 10
