"""The compiled engine: when it steps back, that it notices what differs, and that the user's objects hold the state."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import DATA, X, Y, assert_near, mlp, some
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from stoker.engines import takeover
from stoker.engines.registry import choose_engine
from stoker.engines.xla.table import LOWERINGS
from stoker.training.callbacks import Callback
from stoker.training.history import Row
from stoker.training.trainer import Trainer


def trained(model: nn.Module, optimizer: Any = "adam", data: Any = DATA, **settings: Any) -> Trainer:
    fitting = {"epochs": settings.pop("epochs", 2), "batch_size": settings.pop("batch_size", 16), "check": False}
    settings = {"engine": "compiled", "lr": 0.01, "device": "cpu", "metrics": (), **settings}
    if isinstance(optimizer, torch.optim.Optimizer):
        del settings["lr"]
    trainer = Trainer(model, "mse", optimizer, **settings)
    trainer.fit(data, progress="none", **fitting)
    return trainer


def weights(model: nn.Module) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in model.state_dict().values()]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_it_is_the_eager_engine_to_within_rounding(optimizer: str) -> None:
    mine, theirs = mlp(), mlp()
    trainer = trained(mine, optimizer, epochs=6)
    trained(theirs, optimizer, epochs=6, engine="eager")
    assert trainer.engine_reason == "compiled: as asked"
    assert_near(mine, theirs)


def test_two_runs_are_the_same_to_the_bit_however_they_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    def fit() -> list[Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.4), nn.Linear(8, 1))
        assert trained(model, batch_size=8, schedule="cosine").engine.reason is None
        return weights(model)

    whole = fit()
    monkeypatch.setattr(takeover, "FIRST_SEGMENT", 3)
    monkeypatch.setattr(takeover, "SEGMENT_SECONDS", 0.0)
    cut = fit()
    assert all(torch.equal(one, other) for one, other in zip(whole, cut, strict=True))


class Sequences(nn.Module):
    """A recurrent layer, and a class from what it says at the last step."""

    def __init__(self, kind: Any, **form: Any) -> None:
        super().__init__()
        self.recurrent = kind(5, 12, batch_first=True, **form)
        self.last = nn.Linear(24 if form.get("bidirectional") else 12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.recurrent(x)[0][:, -1])  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("kind", "form", "rate"),
    [
        (nn.LSTM, {}, 0.3),
        (nn.GRU, {}, 0.3),
        (nn.RNN, {}, 0.1),  # faster, and rounding errors grow from step to step
        (nn.LSTM, {"num_layers": 2, "bidirectional": True}, 1.0),
    ],
)
def test_recurrent_layers_train_as_eagerly(kind: Any, form: dict[str, Any], rate: float) -> None:
    x = some(80, 9, 5)
    labels = x[:, -1].mean(1).mul(2).clamp(-1, 1).round().long() + 1
    found = []
    for engine in ("compiled", "eager"):
        torch.manual_seed(0)
        model = Sequences(kind, **form)
        trainer = Trainer(model, "cross-entropy", "sgd", lr=rate, engine=engine, device="cpu", metrics=())
        history = trainer.fit((x, labels), epochs=10, batch_size=16, progress="none", check=False)  # 50 steps
        assert trainer.engine_reason == f"{engine}: as asked"
        found.append((model, history.column("train_loss")))
    (mine, losses), (theirs, expected) = found
    assert losses == pytest.approx(expected, rel=1e-4)
    assert losses[-1] < 0.95 * losses[0]
    assert_near(mine, theirs)


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if x.sum() > 0 else -self.layer(x)  # type: ignore[no-any-return]


class Counts(nn.Module):
    """Does something else at each call, which a trace of one call cannot show."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.layer(x) * self.calls  # type: ignore[no-any-return]


class Overwrites(nn.Module):
    """Can be captured, but writes a row of numbers where a mask says so, which no lowering does."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.last = nn.Linear(4, 3), nn.Linear(3, 1)
        self.other = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.layer(x).clone()
        hidden[x[:, 0] > 0] = self.other
        return self.last(hidden)  # type: ignore[no-any-return]


def hooked() -> nn.Module:
    model = mlp()
    model[1].register_forward_hook(lambda *_: None)
    return model


REASONS: list[tuple[Any, dict[str, Any], str]] = [
    (hooked, {}, r"eager: a hook on 1"),
    (Branches, {}, r"eager: the step cannot be traced \("),
    (Overwrites, {}, r"eager: aten\.index_put: must write one number"),
    (Counts, {"optimizer": "sgd"}, r"eager: a step changes Counts\.calls$"),
    (mlp, {"optimizer": "lbfgs"}, r"eager: the optimizer LBFGS, which has no pure update"),
    (mlp, {"data": DataLoader(TensorDataset(X, Y), batch_size=16)}, r"eager: the data are not resident tensors"),
    (mlp, {"batch_size": None}, r"eager: an epoch has fewer than four whole updates"),
]


@pytest.mark.parametrize(("make", "settings", "reason"), REASONS)
def test_where_it_steps_back_the_eager_engine_does_the_same(make: Any, settings: dict[str, Any], reason: str) -> None:
    models = []
    for engine in ("compiled", "eager"):
        torch.manual_seed(0)
        model = make()
        trainer = trained(model, engine=engine, **settings)
        if engine == "compiled":
            assert re.match(reason, trainer.engine_reason)
        models.append(model)
    assert all(torch.equal(one, other) for one, other in zip(weights(models[0]), weights(models[1]), strict=True))


@pytest.mark.parametrize(
    ("operator", "reason"),
    [
        ("aten.addmm.default", "the compiled step's loss is .*, not "),
        ("aten.mm.default", r"the compiled step moves 0\.weight"),
    ],
)
@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_a_program_that_computes_something_else_is_found_out(
    operator: str, reason: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = LOWERINGS[operator]
    monkeypatch.setitem(LOWERINGS, operator, lambda *args, **kwargs: right(*args, **kwargs) * 1.3)
    mine, theirs = mlp(), mlp()
    trainer = trained(mine, "sgd", precision=precision, lr=1e-4)
    trained(theirs, "sgd", engine="eager", precision=precision, lr=1e-4)
    assert re.match(f"eager: {reason}", trainer.engine_reason)
    assert all(torch.equal(one, other) for one, other in zip(weights(mine), weights(theirs), strict=True))


def test_the_users_optimizer_holds_its_state_and_goes_on_with_it() -> None:
    mine, theirs = mlp(), mlp()
    mixed = torch.optim.Adam(mine.parameters(), lr=0.01)
    plain = torch.optim.Adam(theirs.parameters(), lr=0.01)
    for engine in ("eager", "compiled", "eager", "compiled"):
        assert trained(mine, mixed, epochs=2, engine=engine).engine.reason is None
        trained(theirs, plain, epochs=2, engine="eager")
    assert_near(mine, theirs)
    found, expected = mixed.state_dict(), plain.state_dict()
    assert found["param_groups"] == expected["param_groups"]
    for index, state in expected["state"].items():
        assert list(found["state"][index]) == list(state)
        for name, tensor in state.items():
            assert found["state"][index][name].dtype == tensor.dtype
            torch.testing.assert_close(found["state"][index][name], tensor, rtol=1e-3, atol=1e-7)


def test_a_change_between_epochs_is_seen() -> None:
    """Weights set by hand, another mode of a module, frozen layers: each epoch begins from the user's own objects."""
    models: list[nn.Module] = []
    for engine in ("compiled", "eager"):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), last := nn.Linear(8, 1))
        trainer = Trainer(model, "mse", "sgd", lr=0.01, engine=engine, device="cpu", metrics=())
        trainer.fit(DATA, epochs=2, progress="none", check=False)
        with torch.no_grad():
            last.weight.fill_(0.5)
        model[1].eval()
        trainer.fit(DATA, epochs=2, progress="none", check=False)
        model[0].requires_grad_(False)
        trainer.fit(DATA, epochs=2, progress="none", check=False)
        assert trainer.engine.reason is None
        models.append(model)
    assert_near(*models)


class Tempered(nn.Module):
    """Holds a number and a plain tensor, which a trace takes as constants."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.temperature, self.shift = 1.0, torch.zeros(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) / self.temperature + self.shift  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "change",
    [
        lambda model, _: setattr(model, "temperature", 3.0),
        lambda model, _: model.shift.fill_(2.0),
        lambda model, _: setattr(model, "shift", torch.ones(3)),
        lambda _, criterion: setattr(criterion, "label_smoothing", 0.3),
        lambda _, criterion: criterion.weight.copy_(torch.tensor([5.0, 1.0, 0.1])),
    ],
)
def test_a_change_of_what_modules_hold_is_seen(change: Any) -> None:
    labels = torch.arange(150) % 3
    models: list[nn.Module] = []
    for engine in ("compiled", "eager"):
        torch.manual_seed(0)
        model, criterion = Tempered(), nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0]))
        trainer = Trainer(model, criterion, "sgd", lr=0.1, engine=engine, device="cpu", metrics=())
        trainer.fit((X, labels), epochs=2, batch_size=16, progress="none", check=False)
        change(model, criterion)
        trainer.fit((X, labels), epochs=2, batch_size=16, progress="none", check=False)
        assert trainer.engine.reason is None
        models.append(model)
    assert_near(*models)


def test_what_is_another_in_each_epoch_is_not_compiled_forever() -> None:
    class Annealed(Callback):
        def __init__(self, model: Tempered) -> None:
            self.model = model

        def on_epoch_start(self, epoch: int) -> None:
            self.model.temperature = 1.0 + epoch

    models: list[nn.Module] = []
    for engine in ("compiled", "eager"):
        torch.manual_seed(0)
        model = Tempered()
        trainer = Trainer(model, "cross-entropy", "sgd", lr=0.1, engine=engine, device="cpu", metrics=())
        callbacks = [Annealed(model)]
        data = X, torch.arange(150) % 3
        trainer.fit(data, epochs=6, batch_size=16, progress="none", check=False, callbacks=callbacks)
        models.append(model)
        if engine == "compiled":
            text = "eager: what the model or the criterion holds changes from epoch to epoch"
            assert trainer.engine_reason == text
    assert_near(*models)


def test_averages_begin_anew_with_each_training() -> None:
    models: list[nn.Module] = []
    for engine in ("compiled", "eager"):
        model = mlp()
        trainer = Trainer(model, "mse", "sgd", lr=0.05, ema=0.9, engine=engine, device="cpu", metrics=())
        for _ in range(2):
            trainer.fit(DATA, epochs=2, batch_size=16, progress="none", check=False)
        assert trainer.engine.reason is None
        models.append(model)
    assert_near(*models)


@pytest.mark.parametrize("place", ["a file", "nowhere"])
def test_a_cache_that_cannot_be_written_is_none(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    code = "from test_compiled import mlp, trained\nassert trained(mlp()).engine.reason is None"
    cache = {"a file": str(tmp_path / "file"), "nowhere": "/proc/nowhere"}[place]
    environment = {**os.environ, "STOKER_CACHE": cache}
    command = [sys.executable, "-W", "error:Error:UserWarning", "-c", code]
    subprocess.run(command, check=True, env=environment, cwd=Path(__file__).parent)


def test_the_data_stay_on_the_cpu_whatever_is_jaxs_default() -> None:
    code = """
import jax
jax.config.update("jax_default_device", jax.devices("cpu")[1])
from test_compiled import mlp, trained
assert trained(mlp()).engine.reason is None
"""
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, cwd=Path(__file__).parent)


def test_another_number_of_rows_and_another_kind_of_update_are_seen() -> None:
    models: list[nn.Module] = []
    for engine in ("compiled", "eager"):
        model = mlp()
        trainer = Trainer(model, "mse", "sgd", lr=0.01, engine=engine, device="cpu", metrics=())
        trainer.fit(DATA, epochs=2, batch_size=16, progress="none", check=False)
        trainer.fit((X[:133], Y[:133]), epochs=2, batch_size=16, progress="none", check=False)  # 5 are left, not 6
        trainer.optimizer.param_groups[0]["momentum"] = 0.9
        trainer.fit((X[:133], Y[:133]), epochs=2, batch_size=16, progress="none", check=False)
        trainer.optimizer.state.clear()
        trainer.fit((X[:133], Y[:133]), epochs=2, batch_size=16, progress="none", check=False)
        assert trainer.engine.reason is None
        models.append(model)
    assert_near(*models)


def test_parameters_without_gradient_stay_as_they_are() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(4, 1), nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)  # type: ignore[no-any-return]

    model = Idle()
    before = model.unused.weight.detach().clone()
    assert trained(model, "adamw", weight_decay=0.5).engine.reason is None
    assert torch.equal(model.unused.weight, before)


def test_clipping_groups_and_schedules_are_the_eager_engines() -> None:
    models = []
    for engine in ("compiled", "eager"):
        model = mlp()
        settings: dict[str, Any] = {"clip_norm": 0.1, "schedule": "one-cycle", "groups": {"0": {"lr": 0.001}}}
        assert trained(model, "adamw", engine=engine, epochs=3, **settings).engine.reason is None
        models.append(model)
    assert_near(*models)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize(
    "settings", [{"accumulate": 2}, {"accumulate": 2, "ema": 0.8, "clip_norm": 0.1, "schedule": "cosine"}, {"ema": 0.9}]
)
def test_accumulation_and_averages_are_the_eager_engines(optimizer: str, settings: dict[str, Any]) -> None:
    models = []
    for engine in ("compiled", "eager"):
        torch.manual_seed(0)
        model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        assert trained(model, optimizer, engine=engine, epochs=4, **settings).engine.reason is None
        models.append(model)
    assert_near(*models)


@pytest.mark.parametrize("engine", ["compiled", "auto"])
def test_a_module_that_another_has_written_is_trained(engine: str) -> None:
    traced: Any = torch.fx.symbolic_trace(mlp())
    assert_near(trained(traced, engine=engine).model, trained(mlp(), engine="eager").model)


@pytest.mark.parametrize("swap", [nn.Sigmoid(), torch.sigmoid])
def test_another_part_in_the_middle_of_training_is_another_step(swap: Any) -> None:
    class Held(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last, self.act = nn.Linear(4, 8), nn.Linear(8, 1), torch.tanh

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.act(self.first(x)))  # type: ignore[no-any-return]

    class Swaps(Callback):
        def on_epoch_end(self, row: Row, is_best: bool) -> None:  # noqa: ARG002
            if row["epoch"] == 2:
                if isinstance(swap, nn.Module):
                    model[1] = swap
                else:
                    model.act = swap

    found = []
    for engine in ("compiled", "eager"):
        torch.manual_seed(0)
        model: Any = mlp() if isinstance(swap, nn.Module) else Held()
        trainer = Trainer(model, "mse", "sgd", lr=0.1, engine=engine, device="cpu", metrics=())
        trainer.fit(DATA, epochs=5, batch_size=16, progress="none", check=False, callbacks=[Swaps()])
        assert trainer.engine.reason is None
        found.append(model)
    assert_near(*found)


def test_a_buffer_of_another_shape_is_another_step() -> None:
    class Holds(nn.Linear):
        seen: Tensor

        def __init__(self) -> None:
            super().__init__(4, 1)
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + self.seen.sum()

    class Grows(Callback):
        def on_epoch_end(self, row: Row, is_best: bool) -> None:  # noqa: ARG002
            if row["epoch"] == 2:
                model.seen = torch.ones(2)

    torch.manual_seed(0)
    model = Holds()
    trainer = Trainer(model, "mse", "sgd", lr=0.1, engine="compiled", device="cpu", metrics=())
    history = trainer.fit(DATA, epochs=4, batch_size=16, progress="none", check=False, callbacks=[Grows()])
    assert trainer.engine.reason is None
    assert len(history) == 4


def test_a_hook_on_all_modules_keeps_it_eager() -> None:
    hook = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        assert trained(mlp()).engine_reason == "eager: a hook on all modules"
    finally:
        hook.remove()


def test_moments_that_lie_otherwise_than_their_weights_are_no_obstacle() -> None:
    data = some(80, 1, 6, 6), some(80, 1, seed=1)
    models = []
    for engine in ("compiled", "eager"):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(64, 1))
        trainer = Trainer(model, "mse", "adam", lr=1e-3, engine="eager", device="cpu", metrics=())
        trainer.fit(data, epochs=1, batch_size=16, progress="none", check=False)
        (moments,) = (trainer.optimizer.state[p] for p in model.parameters() if p.ndim == 4)
        for name in ("exp_avg", "exp_avg_sq"):  # [4, 1, 3, 3], whose second stride is anything
            moments[name] = moments[name].contiguous().as_strided((4, 1, 3, 3), (9, 5, 3, 1))
        trainer.engine = choose_engine(engine)
        trainer.fit(data, epochs=2, batch_size=16, progress="none", check=False)
        assert trainer.engine_reason == f"{engine}: as asked"
        models.append(model)
    assert_near(*models)


def test_dropout_of_a_rate_that_is_an_input_keeps_the_mean() -> None:
    model: Any = nn.Sequential(nn.Dropout(0.75), nn.Linear(64, 1, bias=False))
    nn.init.ones_(model[1].weight)
    trainer = Trainer(model, "mse", "sgd", lr=0.0, engine="compiled", device="cpu", metrics=(), seed=2)
    data = torch.ones(4096, 64), torch.full((4096, 1), 64.0)
    history = trainer.fit(data, epochs=1, batch_size=64, progress="none", check=False)
    assert trainer.engine.reason is None
    # each of 64 terms is 4 with probability 1/4, so that their sum has variance 64 · 3
    assert history.column("train_loss")[0] == pytest.approx(64 * 3, rel=0.1)


def test_bf16_is_near_the_eager_engines() -> None:
    models = []
    for engine in ("compiled", "eager"):
        model = mlp()
        assert trained(model, "sgd", engine=engine, epochs=4, precision="bf16").engine.reason is None
        models.append(model)
    for mine, theirs in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, theirs, rtol=0.02, atol=0.004)  # a bfloat16 has 8 bits


def test_bf16_is_no_wider_than_units_at_their_kink_need() -> None:
    """Of 300 units some are on the other side of zero in their last bit: single gradients then differ by any ratio."""
    generator = torch.Generator().manual_seed(0)
    data = torch.rand(256, 100, generator=generator), torch.randint(0, 5, (256,), generator=generator)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(100, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 5))
    trainer = Trainer(model, "cross-entropy", "sgd", lr=0.1, engine="compiled", precision="bf16", device="cpu")
    trainer.fit(data, epochs=1, progress="none", check=False)
    assert trainer.engine_reason == "compiled: as asked"


def test_what_was_compiled_is_found_by_another_process(tmp_path: Path) -> None:
    code = """
import jax
from test_compiled import mlp, trained
events = []
jax.monitoring.register_event_listener(lambda event, **_: events.append(event))
assert trained(mlp()).engine.reason is None
print(*(events.count(f"/jax/compilation_cache/cache_{what}") for what in ("hits", "misses")))
"""
    environment = {**os.environ, "STOKER_CACHE": str(tmp_path)}
    kept: list[set[Path]] = []
    counts: list[tuple[int, ...]] = []
    for _ in range(2):
        command = [sys.executable, "-c", code]
        where = Path(__file__).parent
        found = subprocess.run(command, check=True, env=environment, cwd=where, stdout=subprocess.PIPE, text=True)
        counts.append(tuple(map(int, found.stdout.split())))
        kept.append(set((tmp_path / "xla").glob("*-threads/*-cache")))
    (found_before, made_before), (found_again, made_again) = counts
    assert found_before == 0
    assert made_before >= 1
    assert kept[0]
    assert kept[1] == kept[0]
    # The files alone do not tell: what is compiled anew from the same program is written under the same name.
    assert found_again >= 1
    assert made_again == 0


def test_a_loss_that_is_not_finite_is_told_with_its_step() -> None:
    from stoker.errors import NonFiniteLossError

    with pytest.raises(NonFiniteLossError, match=r"epoch \d+, step \d+: the loss must be finite, got (inf|nan)\."):
        trained(mlp(), "sgd", lr=1e6, epochs=20)
