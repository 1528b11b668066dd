"""What is in no program, or would be otherwise in one, is done eagerly; what looks like it but can be done is done."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_compiled import trained, weights
from tiny import X, Y, assert_near
from torch import Tensor, nn

from stoker.engines.capture import in_half_precision
from stoker.engines.decompositions import trace
from stoker.engines.fidelity import CommonNoise
from stoker.engines.held import SMALL
from stoker.training.callbacks import Callback
from stoker.training.trainer import Trainer

ENGINES = ("compiled", "eager")


class Written(nn.Module):
    """A model of one layer, with something done to its outputs."""

    def __init__(self, then: Callable[[Any, Tensor], Tensor], dropout: float = 0.0) -> None:
        super().__init__()
        self.layer, self.dropout = nn.Linear(4, 1), nn.Dropout(dropout)
        self.n, self.seen = 0, list[Any]()
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("steps", torch.tensor(0))
        self.then = then

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self, self.dropout(self.layer(x)))


def buffers_replaced(model: Any, found: Tensor) -> Tensor:
    model.mean = 0.9 * model.mean + 0.1 * found.detach().mean(0)
    model.steps = model.steps + 1
    return found - model.mean  # type: ignore[no-any-return]


def counted(model: Any, found: Tensor) -> Tensor:
    model.n += 1
    return found * min(1.0, model.n / 20)  # type: ignore[no-any-return]


def kept(model: Any, found: Tensor) -> Tensor:
    model.seen.append(found.detach().mean())
    return found


def of_python(_: Any, found: Tensor) -> Tensor:
    return found if random.random() < 0.5 else found.detach() + 0 * found


def of_numpy(_: Any, found: Tensor) -> Tensor:
    return found * float(np.random.rand())


def seeded(_: Any, found: Tensor) -> Tensor:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return found + torch.randn(128).mean() + 0.1 * torch.randn_like(found)


def reads_past(holder: list[nn.Module]) -> Callable[[Tensor, Tensor], Tensor]:
    weight = holder[0].layer.weight  # type: ignore[union-attr]
    return lambda outputs, targets: F.mse_loss(outputs, targets) + 0.02 * weight.square().sum()  # type: ignore[operator]


def slowly(model: Any, found: Tensor) -> Tensor:
    model.slow = 0.99 * model.__dict__.get("slow", torch.zeros(1)) + 0.01 * found.detach().mean(0)
    return found - model.slow  # type: ignore[no-any-return]


REFUSED = {
    "a tensor that is no buffer": (slowly, r"a step changes Written\.slow$"),
    "a counter": (counted, r"a step changes Written\.n$"),
    "a list": (kept, r"a step changes Written\.seen$"),
    "Python's numbers": (of_python, r"a step draws from Python's or NumPy's random numbers$"),
    "NumPy's numbers": (of_numpy, r"a step draws from Python's or NumPy's random numbers$"),
    "a seed": (seeded, r"a step seeds the noise that it draws$"),
}


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_in_no_graph_is_done_eagerly(name: str, dropout: float) -> None:
    then, reason = REFUSED[name]
    models = []
    for engine in ENGINES:
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)
        model = Written(then, dropout)
        trainer = trained(model, "sgd", engine=engine)
        if engine == "compiled":
            assert re.match(f"eager: {reason}", trainer.engine_reason)
            assert [type(one) for one in model.seen] == [Tensor] * len(model.seen)
        models.append(model)
    assert models[0].n == models[1].n
    assert len(models[0].seen) == len(models[1].seen)
    if not dropout:  # whoever tries to make a program draws its noise's seed first
        assert all(torch.equal(one, other) for one, other in zip(weights(models[0]), weights(models[1]), strict=True))


def test_an_autocast_around_the_training_is_told() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert trained(nn.Linear(4, 1)).engine_reason == "eager: an autocast around the training"


def test_weights_read_past_the_model_are_told() -> None:
    torch.manual_seed(0)
    model = Written(lambda _, found: found, 0.3)
    trainer = Trainer(model, reads_past([model]), "sgd", lr=0.01, engine="compiled", device="cpu", metrics=())
    trainer.fit((X, Y), epochs=1, batch_size=16, progress="none", check=False)
    assert trainer.engine_reason == "eager: the step reads layer.weight past the model"


class Scaled(nn.Module):
    """A criterion that has a buffer of the model's, which the model may write to."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.register_buffer("scale", model.mean)

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.mse_loss(outputs, targets) + self.scale.square().sum()  # type: ignore[operator]


def moving(model: Any, found: Tensor) -> Tensor:
    model.mean.mul_(0.9).add_(found.detach().mean(0))
    return found


@pytest.mark.parametrize(
    ("then", "reason"),
    [(lambda _, found: found, "compiled: as asked"), (moving, "eager: the step reads mean past the model")],
)
def test_a_buffer_read_past_the_model_must_stay_as_it_is(then: Any, reason: str) -> None:
    model = Written(then)
    trainer = Trainer(model, Scaled(model), "sgd", lr=0.01, engine="compiled", device="cpu", metrics=())
    trainer.fit((X, Y), epochs=1, batch_size=16, progress="none", check=False)
    assert trainer.engine_reason == reason


def test_tensors_of_the_same_memory_are_told() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1))
    model[1].weight.data = model[0].weight.data
    assert trained(model).engine_reason == "eager: 0.weight and 1.weight share memory"
    model[1].weight = model[0].weight  # the same parameter under two names is no such case
    assert trained(model).engine.reason is None


def test_buffers_that_are_replaced_move() -> None:
    models: list[Any] = []
    for engine in ENGINES:
        torch.manual_seed(0)
        model = Written(buffers_replaced)
        assert trained(model, "sgd", engine=engine, epochs=4).engine.reason is None
        models.append(model)
    assert models[0].steps.item() == models[1].steps.item() == 4 * -(-len(X) // 16)
    torch.testing.assert_close(models[0].mean, models[1].mean, rtol=1e-3, atol=1e-6)
    assert_near(*models)


class Penalised(nn.Module):
    """A criterion that looks at the model itself."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.models = [model]  # not as a part

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        norms = [parameter.square().sum() for parameter in self.models[0].parameters()]
        return F.mse_loss(outputs, targets) + 0.5 * torch.stack(norms).sum()


def test_a_criterion_may_read_the_models_weights() -> None:
    models = []
    for engine in ENGINES:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        settings: dict[str, Any] = {"engine": engine, "device": "cpu", "metrics": ()}
        trainer = Trainer(model, Penalised(model), "sgd", lr=0.01, **settings)
        trainer.fit((X, Y), epochs=3, batch_size=16, progress="none", check=False)
        assert trainer.engine.reason is None
        models.append(model)
    assert_near(*models)


class Attention(nn.Module):
    """Causal, by a mask of true and false."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.to_all, self.last, self.dropout = nn.Linear(1, 12), nn.Linear(4, 1), nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.ones(4, 4, dtype=torch.bool).tril()
        q, k, v = self.to_all(x[..., None])[:, None].chunk(3, -1)
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.last(self.dropout(found))[:, 0, 1]  # type: ignore[no-any-return]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_mask_of_true_and_false_masks(dropout: float) -> None:
    x = X.clone()
    torch.manual_seed(0)
    model = Attention(dropout)
    assert trained(model, "adam", data=(x, Y)).engine.reason is None

    def masked(rows: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(rows, rows, rows, attn_mask=torch.eye(3, 4, dtype=torch.bool)[:, :3])

    rows = torch.randn(1, 1, 3, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(trace(masked, rows)(rows), masked(rows))


CHANGES: dict[str, tuple[Callable[[Any], None], Callable[[Any], None]]] = {
    "a dict's entry": (lambda m: setattr(m, "held", {"t": 1.0}), lambda m: m.held.update(t=0.1)),
    "a namespace's": (lambda m: setattr(m, "held", SimpleNamespace(t=1.0)), lambda m: setattr(m.held, "t", 0.1)),
    "an array's element": (lambda m: setattr(m, "held", {"t": np.ones(1)}), lambda m: m.held["t"].fill(0.1)),
    "NumPy's number": (lambda m: setattr(m, "held", {"t": np.float32(1)}), lambda m: m.held.update(t=np.float32(0.1))),
    "a nested list": (lambda m: setattr(m, "held", {"t": [[1.0]]}), lambda m: m.held["t"][0].__setitem__(0, 0.1)),
    "a tensor, unversioned": (
        lambda m: setattr(m, "held", {"t": torch.ones(())}),
        lambda m: m.held["t"].data.fill_(0.1) and None,
    ),
}


def by_temperature(model: Any, found: Tensor) -> Tensor:
    held = model.held
    t = held["t"] if isinstance(held, dict) else held.t
    t = t[0][0] if isinstance(t, list) else t
    return found * (torch.from_numpy(t).float() if isinstance(t, np.ndarray) else t)


class Annealed(Callback):
    def __init__(self, change: Callable[[], None]) -> None:
        self.change = change

    def on_epoch_end(self, row: Any, is_best: bool) -> None:  # noqa: ARG002
        if row["epoch"] == 2:
            self.change()


@pytest.mark.parametrize("name", CHANGES)
def test_what_a_module_holds_may_change_between_epochs(name: str) -> None:
    begin, change = CHANGES[name]
    models = []
    for engine in ENGINES:
        torch.manual_seed(0)
        model = Written(by_temperature)
        begin(model)
        trainer = Trainer(model, "mse", "sgd", lr=0.01, engine=engine, device="cpu", metrics=())
        callbacks = [Annealed(lambda model=model: change(model))]  # type: ignore[misc]
        trainer.fit((X, Y), epochs=4, batch_size=16, progress="none", check=False, callbacks=callbacks)
        assert trainer.engine.reason is None
        models.append(model)
    assert_near(*models)


class Strange:
    __slots__ = ()

    def __repr__(self) -> str:
        raise ValueError("no")


@pytest.mark.parametrize(
    "held",
    [
        torch.zeros(3, dtype=torch.complex64).conj(),
        torch.eye(3).to_sparse(),
        torch.zeros(0),
        Strange(),
        {"itself": None},
        np.array([object()]),
        range(3),
    ],
    ids=["complex", "sparse", "empty", "no text", "cycle", "objects", "range"],
)
def test_whatever_a_module_holds_is_no_obstacle(held: Any) -> None:
    if isinstance(held, dict):
        held["itself"] = held
    model = Written(lambda _, found: found)
    model.held = held
    assert trained(model, "sgd").engine.reason is None
    with torch.inference_mode():
        model.held = torch.zeros(SMALL + 1)
    assert trained(model, "sgd").engine.reason is None


def test_code_that_is_replaced_is_seen() -> None:
    class Mine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)  # type: ignore[no-any-return]

    def other(self: Any, x: Tensor) -> Tensor:
        return 2 * self.layer(x)  # type: ignore[no-any-return]

    models, first = [], Mine.forward
    for engine in ENGINES:
        torch.manual_seed(0)
        Mine.forward = first  # type: ignore[method-assign]
        model = Mine()
        trainer = Trainer(model, "mse", "sgd", lr=0.01, engine=engine, device="cpu", metrics=())
        trainer.fit((X, Y), epochs=2, batch_size=16, progress="none", check=False)
        Mine.forward = other  # type: ignore[method-assign]
        trainer.fit((X, Y), epochs=2, batch_size=16, progress="none", check=False)
        models.append(model)
    assert_near(*models)


class Smoothed(nn.Module):
    """A criterion that assigns to a buffer of its own."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(()))

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        loss = F.mse_loss(outputs, targets)
        self.scale = 0.9 * self.scale + 0.1 * loss.detach()
        return loss / self.scale


def test_a_criterions_buffers_survive_a_trace() -> None:
    found = []
    for engine in ENGINES:
        torch.manual_seed(0)
        criterion = Smoothed()
        trainer = Trainer(nn.Linear(4, 1), criterion, "sgd", lr=0.01, engine=engine, device="cpu", metrics=())
        trainer.fit((X, Y), epochs=2, batch_size=16, progress="none", check=False)
        found.append((float(criterion.scale), trainer.engine_reason))
    assert found[0][0] == found[1][0]
    assert found[0][1].startswith("eager: ")


def test_autocast_of_the_users_own_is_known_by_the_graph() -> None:
    def forward(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return (x @ x.T).float()

    assert in_half_precision(trace(forward, X[:4]))
    assert not in_half_precision(trace(lambda x: x @ x.T, X[:4]))


DRAWS: dict[str, Callable[[Tensor], Tensor]] = {
    "dropout": lambda x: F.dropout(x, 0.3),
    "feature dropout": lambda x: F.dropout1d(x[None], 0.3)[0],
    "alpha dropout": lambda x: F.alpha_dropout(x, 0.3, training=True),
    "rrelu": lambda x: F.rrelu(x, training=True),
    "gumbel": lambda x: F.gumbel_softmax(x),
    "rand": lambda x: x + torch.rand(x.shape),
    "randn": lambda x: x + torch.randn_like(x),
    "uniform": lambda x: x + torch.empty_like(x).uniform_(-1, 2),
    "normal": lambda x: x + torch.empty_like(x).normal_(1, 3),
    "normal around": lambda x: torch.normal(x, 0.5),
    "bernoulli": lambda x: x * torch.bernoulli(torch.full_like(x, 0.3)),
    "bernoulli in place": lambda x: x * torch.empty_like(x).bernoulli_(0.3),
    "exponential": lambda x: x + torch.empty_like(x).exponential_(2.0),
    "randint": lambda x: x + torch.randint(2, 9, x.shape),
    "randperm": lambda x: x[torch.randperm(len(x))],
}


@pytest.mark.parametrize("name", DRAWS)
def test_noise_is_the_same_in_a_step_and_in_its_graph(name: str) -> None:
    graph = trace(DRAWS[name], X)
    with CommonNoise():  # type: ignore[no-untyped-call]
        torch.testing.assert_close(graph(X), DRAWS[name](X))
        torch.testing.assert_close(DRAWS[name](X), DRAWS[name](X), rtol=0, atol=0)
    assert not torch.equal(DRAWS[name](X), DRAWS[name](X))
