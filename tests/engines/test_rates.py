"""Dropout rates are inputs of a program, in whosever model, unless its code looks at one; and nothing else changes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny import DATA, assert_near, some
from torch import Tensor, nn

from stoker.engines import takeover
from stoker.engines.decompositions import trace
from stoker.engines.fidelity import CommonNoise
from stoker.engines.rates import LAYERS, Rate, RateLookedAtError, are_constant, as_inputs, rated
from stoker.engines.xla.program import Program
from stoker.training.callbacks import Callback
from stoker.training.history import Row
from stoker.training.trainer import Trainer


class Own(nn.Module):
    """A user's own, of which what stands between the two linear layers is ``dropped``."""

    drop: Any

    def __init__(self, p: float = 0.5, layer: type[nn.Module] = nn.Dropout) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.drop, self.two = nn.Linear(4, 64), layer(p), nn.Linear(64, 1)
        self.seen: Any = None

    def dropped(self, x: Tensor) -> Any:
        return self.drop(x)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.two(self.dropped(torch.tanh(self.one(x))))
        return found


class Functional(Own):
    def dropped(self, x: Tensor) -> Any:
        return F.dropout(x, self.drop.p, self.training)


class Branches(Own):
    def dropped(self, x: Tensor) -> Any:
        return self.drop(x) if self.drop.p > 0.3 else x * 0.5


class Goes(Own):
    """On, whatever a look at the rate comes to."""

    def dropped(self, x: Tensor) -> Any:
        try:
            factor = float(self.drop.p)
        except Exception:
            factor = 0.0
        return self.drop(x) * (1 + factor)


class Kinds(Own):
    def dropped(self, x: Tensor) -> Any:
        return self.drop(x) if isinstance(self.drop.p, float) else x


class Looks(Own):
    def dropped(self, x: Tensor) -> Any:
        return self.drop(x) * {0.5: 1.0}.get(self.drop.p, 2.0)


class Computes(Own):
    def dropped(self, x: Tensor) -> Any:
        return self.drop(x) * (1 - self.drop.p)


class Calls(Own):
    def dropped(self, x: Tensor) -> Any:
        return torch.dropout(x, self.drop.p, self.training)


class Falls(Own):
    def dropped(self, x: Tensor) -> Any:
        self.drop.p *= 0.99
        return self.drop(x)


class Writes(Own):
    def dropped(self, x: Tensor) -> Any:
        self.drop.p = 1e-12
        return self.drop(x)


class Keeps(Own):
    def dropped(self, x: Tensor) -> Any:
        self.seen = self.drop.p
        return self.drop(x)


class Switches(Own):
    """A layer in training mode that a forward pass sets to evaluation and back."""

    def dropped(self, x: Tensor) -> Any:
        self.drop.eval()
        x = self.drop(x)
        self.drop.train()
        return x


class SetsRate(Callback):
    """Another rate for each epoch."""

    def __init__(self, layer: Any, rates: list[float]) -> None:
        self.layer, self.rates = layer, rates

    def on_epoch_end(self, row: Row, improved: bool) -> None:  # noqa: ARG002
        if int(row["epoch"]) < len(self.rates):
            self.layer.p = self.rates[int(row["epoch"])]


def trained(model: Any, rates: list[float], **settings: Any) -> tuple[Trainer, list[float]]:
    """Train with these rates in the epochs that follow one another; the losses."""
    settings = {"engine": "compiled", "lr": 0.0, "device": "cpu", "metrics": (), "seed": 2, **settings}
    trainer = Trainer(model, "mse", "sgd", **settings)
    model.drop.p = rates[0]
    fitting: dict[str, Any] = {"epochs": len(rates), "batch_size": 16, "progress": "none", "check": False}
    history = trainer.fit(DATA, callbacks=[SetsRate(model.drop, rates)], **fitting)
    return trainer, history.column("train_loss")


@pytest.mark.parametrize("kind", [Own, Functional])
def test_another_rate_takes_no_other_program(kind: type[Own], made: list[Program]) -> None:
    rates = [0.5, 0.25, 1e-12, 0.9]
    model = kind()
    trainer, losses = trained(model, rates)
    assert trainer.engine.reason is None
    assert len(made) == 1
    assert model.drop.p == 0.9
    assert not are_constant(model)
    with torch.no_grad():
        wanted = float((model.eval()(DATA[0]) - DATA[1]).square().mean())
    assert losses[2] == pytest.approx(wanted, rel=1e-4)
    assert losses[3] > 1.5 * losses[2]  # by the variance of what is dropped


class Again(Callback):
    """After the first epoch the weights are the first ones again, and the rate is another."""

    def __init__(self, model: Any, rate: float) -> None:
        self.model, self.rate = model, rate
        self.weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def on_epoch_end(self, row: Row, improved: bool) -> None:  # noqa: ARG002
        if row["epoch"] == 1:
            self.model.load_state_dict(self.weights)
            self.model.drop.p = self.rate


def test_it_comes_to_what_a_training_of_that_rate_comes_to(made: list[Program]) -> None:
    models = []
    for before in (0.5, 0.25):
        models.append(Own(before))
        trainer = Trainer(models[-1], "mse", "sgd", lr=0.05, engine="compiled", device="cpu", metrics=(), seed=2)
        callbacks = [Again(models[-1], 0.25)]
        trainer.fit(DATA, epochs=3, batch_size=16, progress="none", check=False, callbacks=callbacks)
        assert trainer.engine.reason is None
    assert len(made) == 2
    assert_near(*models)


@pytest.mark.parametrize("kind", [Branches, Goes, Kinds, Looks, Computes, Calls])
def test_of_code_that_looks_it_is_a_constant(kind: type[Own], made: list[Program]) -> None:
    model = kind()
    trainer, losses = trained(model, [0.5, 0.5, 1e-12])
    assert trainer.engine.reason is None
    assert are_constant(model)
    assert len(made) == 2
    assert model.drop.p == 1e-12
    with torch.no_grad():  # by torch, of which nothing is dropped now
        wanted = float((model.train()(DATA[0]) - DATA[1]).square().mean())
    assert losses[2] == pytest.approx(wanted, rel=1e-4)
    assert losses[0] == pytest.approx(losses[1], rel=0.2)
    assert losses[2] != pytest.approx(losses[1], rel=1e-3)


def test_a_rate_that_a_step_writes_keeps_it_eager() -> None:
    trainer, _ = trained(Falls(), [0.5, 0.5])
    assert trainer.engine.reason == "a step changes Dropout.p"


def test_a_rate_that_each_step_writes_alike_is_that() -> None:
    model = Writes()
    trainer, losses = trained(model, [0.5, 0.5])
    assert trainer.engine.reason is None
    assert are_constant(model)
    with torch.no_grad():
        wanted = float((model(DATA[0]) - DATA[1]).square().mean())
    assert losses == pytest.approx([wanted, wanted], rel=1e-4)


def test_a_rate_that_a_step_keeps_is_the_number() -> None:
    model = Keeps()
    trained(model, [0.5, 0.25])
    assert are_constant(model)
    assert type(model.seen) is float


def test_a_layer_that_a_forward_pass_switches_off_drops_nothing() -> None:
    model = Switches()
    trainer, losses = trained(model, [0.5, 0.9])
    assert trainer.engine.reason is None
    with torch.no_grad():
        wanted = float((model(DATA[0]) - DATA[1]).square().mean())
    assert losses == pytest.approx([wanted, wanted], rel=1e-4)


@pytest.mark.parametrize(("rate", "factor"), [(0.0, 1.0), (1.0, 0.0)])
def test_all_or_nothing_is_another_program(rate: float, factor: float, made: list[Program]) -> None:
    model = Own()
    trainer, losses = trained(model, [0.5, rate, 0.25])
    assert trainer.engine.reason is None
    assert len(made) == 3
    with torch.no_grad():
        wanted = float((model.two(factor * torch.tanh(model.one(DATA[0]))) - DATA[1]).square().mean())
    assert losses[1] == pytest.approx(wanted, rel=1e-4)


class Still(Own):
    """Its dropout stays in evaluation mode."""

    def train(self, mode: bool = True) -> Still:
        super().train(mode)
        self.drop.eval()
        return self


def test_a_layer_in_evaluation_mode_drops_nothing() -> None:
    model = Still()
    assert not list(rated(model.train()))
    trainer, losses = trained(model, [0.5, 0.9])
    assert trainer.engine.reason is None
    with torch.no_grad():
        wanted = float((model(DATA[0]) - DATA[1]).square().mean())
    assert losses == pytest.approx([wanted, wanted], rel=1e-4)


def test_a_rate_that_is_no_number_is_none_of_an_input() -> None:
    model: Any = Own()
    model.drop.p = torch.tensor(0.5)
    assert not list(rated(model.train()))


SHAPES: dict[type[nn.Module], list[tuple[int, ...]]] = {
    nn.Dropout: [(40, 6)],
    nn.Dropout1d: [(40, 6), (20, 3, 5)],
    nn.Dropout2d: [(20, 3, 4, 2), (20, 3, 5)],
    nn.Dropout3d: [(20, 3, 2, 2, 2), (20, 3, 2, 2)],
    nn.AlphaDropout: [(40, 6)],
    nn.FeatureAlphaDropout: [(20, 3, 5), (20, 3, 4, 2)],
}
CASES = [(layer, shape, inplace) for layer in LAYERS for shape in SHAPES[layer] for inplace in (False, True)]


@pytest.mark.filterwarnings("ignore:dropout2d")  # of three dimensions
@pytest.mark.parametrize(("layer", "shape", "inplace"), CASES)
def test_each_kind_is_torchs_for_every_rate(layer: Any, shape: tuple[int, ...], inplace: bool) -> None:
    module: Any = nn.Sequential(nn.Identity(), layer(0.5, inplace))
    x = some(*shape)

    def dropped(rate: Tensor, x: Tensor) -> Tensor:
        with as_inputs(module, {"1": rate}):
            found: Tensor = module(x.clone())
        return found

    graph = trace(dropped, torch.tensor(0.5, dtype=torch.float64), x)
    assert module[1].p == 0.5
    for rate in (0.5, 0.2, 0.8):
        module[1].p = rate
        with CommonNoise():  # type: ignore[no-untyped-call]
            wanted = module(x.clone())
            found = graph(torch.tensor(rate, dtype=torch.float64), x)
        assert 0.05 < float((wanted == x.new_tensor(0.0)).float().mean()) < 0.95 or "Alpha" in layer.__name__
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("layer", [nn.AlphaDropout, nn.Dropout1d])
def test_other_layers_rates_are_inputs_too(layer: Any, made: list[Program]) -> None:
    model = Own(0.5, layer)
    trainer, losses = trained(model, [0.5, 1e-12])
    assert trainer.engine.reason is None
    assert len(made) == 1
    with torch.no_grad():
        wanted = float((model.train()(DATA[0]) - DATA[1]).square().mean())
    assert losses[1] == pytest.approx(wanted, rel=1e-4)


def test_masks_have_the_mean_of_their_rate(made: list[Program]) -> None:
    model: Any = Own()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.one.bias.fill_(20.0)  # tanh is 1
        model.two.weight.fill_(1.0)
    data, rates = (torch.zeros(4096, 4), torch.full((4096, 1), 64.0)), [0.75, 0.2]
    trainer = Trainer(model, "mse", "sgd", lr=0.0, engine="compiled", device="cpu", metrics=(), seed=2)
    model.drop.p = rates[0]
    callbacks = [SetsRate(model.drop, rates)]
    history = trainer.fit(data, epochs=2, batch_size=64, progress="none", check=False, callbacks=callbacks)
    assert trainer.engine.reason is None
    assert len(made) == 1
    # a sum of 64 terms that are 1 / (1 − p) with probability 1 − p has variance 64 · p / (1 − p)
    assert history.column("train_loss") == pytest.approx([64 * p / (1 - p) for p in rates], rel=0.1)


def test_what_can_be_done_with_a_rate_raises_and_is_noted() -> None:
    for look in (
        *(lambda p: p > 0, lambda p: p == 0.5, lambda p: 1 - p, lambda p: -p, bool, float, int, round, hash, repr, str),
        *(lambda p: f"{p:.1f}", lambda p: isinstance(p, float), lambda p: p.hex(), lambda p: torch.ones(2) * p),
        *(lambda p: torch.full((2,), p), lambda p: torch.dropout(torch.ones(2), p, True), lambda p: p in {0.5: 1}),
    ):
        rate = Rate(torch.tensor(0.5))
        with pytest.raises((RateLookedAtError, TypeError)):
            look(rate)
        assert object.__getattribute__(rate, "looked"), look


def test_the_callbacks_rate_within_an_epoch_is_seen(monkeypatch: pytest.MonkeyPatch, made: list[Program]) -> None:
    monkeypatch.setattr(takeover, "FIRST_SEGMENT", 1)
    monkeypatch.setattr(takeover, "SEGMENT_SECONDS", 0.0)

    class Half(Callback):
        def on_progress(self, progress: Any) -> None:
            if progress.epoch == 2 and progress.steps == 4:
                model.drop.p = 1e-12

    model = Own()
    trainer = Trainer(model, "mse", "sgd", lr=0.0, engine="compiled", device="cpu", metrics=(), seed=2)
    fitting: dict[str, Any] = {"epochs": 3, "batch_size": 16, "progress": "none", "check": False}
    losses = trainer.fit(DATA, callbacks=[Half()], **fitting).column("train_loss")
    assert trainer.engine.reason is None
    assert len(made) == 1
    with torch.no_grad():
        wanted = float((model.train()(DATA[0]) - DATA[1]).square().mean())
    assert losses[2] == pytest.approx(wanted, rel=1e-4)
    assert losses[1] != pytest.approx(wanted, rel=1e-3)


class StoppedError(Exception):
    """The training is over, as if it had been killed."""


class Ends(Callback):
    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_progress(self, progress: Any) -> None:
        if progress.epoch == self.epoch and progress.steps >= 4:
            raise StoppedError


@pytest.mark.parametrize("kind", [Own, Computes])
def test_it_goes_on_from_a_checkpoint_to_the_same_bits(
    kind: type[Own], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(takeover, "FIRST_SEGMENT", 1)
    monkeypatch.setattr(takeover, "SEGMENT_SECONDS", 0.0)

    def fitted(*callbacks: Callback, **fitting: Any) -> tuple[Own, list[float]]:
        model = kind()
        trainer = Trainer(model, "mse", "sgd", lr=0.01, engine="compiled", device="cpu", metrics=(), seed=2)
        given = {"epochs": 4, "batch_size": 16, "progress": "none", "check": False, "callbacks": callbacks, **fitting}
        losses = trainer.fit(DATA, **given).column("train_loss")
        assert trainer.engine.reason is None
        assert are_constant(model) == (kind is Computes)
        return model, losses

    whole, losses = fitted()
    with pytest.raises(StoppedError):
        fitted(Ends(3), checkpoint=tmp_path, checkpoint_every="1epoch")
    again, found = fitted(checkpoint=tmp_path, resume=True)
    assert found == losses
    assert all(torch.equal(*pair) for pair in zip(whole.parameters(), again.parameters(), strict=True))


FORKED = """
import sys, torch
sys.path.insert(0, "tests/engines")
from tiny import DATA
from test_auto import Patient
from stoker import Trainer
from stoker.engines import auto
from stoker.engines.rates import are_constant
auto.BUILD_SECONDS = auto.COLD_SECONDS = auto.WARM_SECONDS = auto.READY = 0.0
auto.AT_ONCE = 1e9
class Own(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.drop, self.two = torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1)
    def forward(self, x):
        return self.two(self.drop(self.one(x))) * ((1 - self.drop.p) if LOOKS else 1)
builds = []
begin = auto.begin
auto.begin = lambda *given, **named: builds.append(begin(*given, **named)) or builds[-1]
class Sets(Patient):
    def on_epoch_end(self, row, improved):
        super().on_epoch_end(row, improved)
        if row["epoch"] == 6:
            model.drop.p = 1e-12
model = Own()
trainer = Trainer(model, "mse", "sgd", lr=0.0, device="cpu", metrics=(), engine="auto")
patient = Sets(trainer.engine)
losses = trainer.fit(DATA, epochs=9, batch_size=16, check=False, progress="none", callbacks=[patient])
losses = losses.column("train_loss")
with torch.no_grad():
    wanted = float((model.train()(DATA[0]) - DATA[1]).square().mean())
assert type(builds[0]).__name__ == "_Process"
assert "compiled" in patient.names[:6], patient.names
assert abs(losses[-1] / wanted - 1) < 1e-4, (losses, wanted)
assert abs(losses[4] / wanted - 1) > 1e-3, (losses, wanted)
print(len(builds), are_constant(model))
"""


@pytest.mark.parametrize(("looks", "said"), [(False, "1 False"), (True, "2 True")])
def test_a_forked_process_tells_whether_code_looks(looks: bool, said: str) -> None:
    code = FORKED.replace("LOOKS", str(looks))
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == said
