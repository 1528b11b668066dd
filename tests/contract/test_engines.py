"""The suite that every engine passes: losses and weights equal those of a loop written by hand in plain PyTorch.

Each test says what made the steps: most of them a program, after the first few; or the eager engine, and why.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from loops import (
    ALL_STEPS,
    BATCH,
    EPOCHS,
    OWN_NOISE,
    ROWS,
    SEED,
    STEPS,
    TOLERANCE,
    assert_same_state,
    built,
    carried_out,
    labels,
    loop,
    mlp,
    prepare,
    rows,
)
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler

from stoker.engines import eager, takeover
from stoker.engines.registry import ENGINES
from stoker.engines.updates.registry import UPDATES
from stoker.training.callbacks import Callback, EpochProgress
from stoker.training.criteria import MeanCrossEntropy
from stoker.training.objective import Loss
from stoker.training.optimizers import build_optimizer, optimizer_names
from stoker.training.trainer import Trainer

engines = pytest.mark.parametrize("engine", sorted(ENGINES))


@pytest.fixture(autouse=True)
def prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(monkeypatch)


def check(
    engine: str,
    make: Callable[[], nn.Module],
    inputs: Any,
    targets: Any,
    criterion: Any,
    optimizer: str = "adam",
    *,
    eager: str | None = None,
    by_hand_criterion: Any = None,
    **settings: Any,
) -> Trainer:
    """Train with Stoker and by hand, and compare each epoch's loss and all weights and buffers in the end.

    ``eager`` is a pattern of why no program can make the steps: then they must be the loop's to the bit.
    """
    with torch.random.fork_rng():
        model = built(make)
        start = copy.deepcopy(model.state_dict())
        by_hand = built(make)
        trainer = Trainer(model, criterion, optimizer, engine=engine, device="cpu", seed=SEED, metrics=(), **settings)
        history = trainer.fit((inputs, targets), epochs=EPOCHS, batch_size=BATCH, progress="none")
        defaults = trainer.optimizer.defaults
        same: dict[str, Any] = {
            name: defaults[name] for name in ("lr", "fused", "momentum", "weight_decay") if defaults.get(name)
        }
        kind: Any = optimizer_names()[optimizer]
        hand_made = kind([p for p in by_hand.parameters() if p.requires_grad], **same)
        criterion = by_hand_criterion or criterion
        losses, _ = loop(by_hand, criterion, hand_made, inputs, targets, clip_norm=settings.get("clip_norm"))
    carried_out(trainer, eager=eager)
    near = engine if eager is None else "eager"
    assert history.column("train_loss") == pytest.approx(losses, rel=TOLERANCE[near], abs=0)
    assert_same_state(near, model, by_hand)
    assert any(not torch.equal(start[name], tensor) for name, tensor in model.state_dict().items())  # it was trained
    assert [row["step"] for row in history] == [STEPS, 2 * STEPS]
    return trainer


SPECIAL = {"lbfgs", "muon", "sparseadam"}
IN_PROGRAMS = {"adagrad", "adam", "adamax", "adamw", "nadam", "radam", "rmsprop", "sgd"}


def no_pure_update(name: str) -> str:
    return rf"the optimizer {optimizer_names()[name].__name__}, which has no pure update"


@engines
@pytest.mark.parametrize("name", sorted(set(optimizer_names()) - SPECIAL))
def test_every_optimizer_by_name(engine: str, name: str) -> None:
    eager = None if name in IN_PROGRAMS else no_pure_update(name)
    check(engine, mlp, rows(4), rows(1, seed=1), nn.MSELoss(), name, lr=0.01, eager=eager)


def test_programs_make_the_updates_of_these_optimizers() -> None:
    assert {kind.__name__.lower() for kind in UPDATES} == IN_PROGRAMS


@engines
def test_sgd_with_momentum_and_weight_decay(engine: str) -> None:
    check(engine, mlp, rows(4), rows(1, seed=1), nn.MSELoss(), "sgd", lr=0.05, momentum=0.9, weight_decay=0.01)


@engines
def test_muon_on_matrices(engine: str) -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 8, bias=False), nn.Tanh(), nn.Linear(8, 2, bias=False))

    check(engine, make, rows(4), rows(2, seed=1), nn.MSELoss(), "muon", lr=0.01, eager=no_pure_update("muon"))


class Bag(nn.Module):
    """An embedding with sparse gradients, summed over the words of a row."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(12, 1, sparse=True)

    def forward(self, words: Tensor) -> Tensor:
        found: Tensor = self.embedding(words)
        return found.sum(dim=1)


@engines
@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")  # of torch's own Adagrad
@pytest.mark.parametrize("name", ["sparseadam", "sgd", "adagrad"])
def test_sparse_gradients(engine: str, name: str) -> None:
    words = torch.randint(0, 12, (ROWS, 3), generator=torch.Generator().manual_seed(2))
    eager = no_pure_update(name) if name == "sparseadam" else "sparse gradients of embedding"
    check(engine, Bag, words, rows(1, seed=1), nn.MSELoss(), name, lr=0.1, eager=eager)


@engines
def test_lbfgs_which_calls_the_step_several_times(engine: str) -> None:
    model, by_hand = built(mlp), built(mlp)
    x, y = rows(4), rows(1, seed=1)
    trainer = Trainer(model, nn.MSELoss(), "lbfgs", lr=0.5, engine=engine, device="cpu", metrics=())
    history = trainer.fit((x, y), epochs=3, batch_size=None, shuffle=False, progress="none")

    optimizer = torch.optim.LBFGS(by_hand.parameters(), lr=0.5)
    losses: list[float] = []
    for _ in range(3):
        seen = []

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = F.mse_loss(by_hand(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            seen.append(float(loss.detach()))  # noqa: B023  # called within this turn alone
            return loss

        optimizer.step(closure)  # type: ignore[no-untyped-call]
        assert len(seen) > 1
        losses.append(seen[0])  # the loss before the update
    carried_out(trainer, eager="an epoch has fewer than four whole updates")
    assert history.column("train_loss") == losses
    assert losses[2] < losses[1] < losses[0]
    assert_same_state("eager", model, by_hand)


@engines
@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_fused_updates_are_near_torchs_default_ones(engine: str, name: str) -> None:
    model, by_hand = built(mlp), built(mlp)
    x, y = rows(4), rows(1, seed=1)
    trainer = Trainer(model, nn.MSELoss(), name, lr=0.01, engine=engine, device="cpu", seed=SEED, metrics=())
    assert trainer.optimizer.defaults["fused"]
    trainer.fit((x, y), epochs=EPOCHS, batch_size=BATCH, progress="none")
    carried_out(trainer)
    kind: Any = optimizer_names()[name]
    loop(by_hand, nn.MSELoss(), kind(by_hand.parameters(), lr=0.01), x, y)
    for mine, theirs in zip(model.parameters(), by_hand.parameters(), strict=True):
        # the same formula, its operations rounded in another order: some last bits of float32, over twenty steps
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


class Sequence(nn.Module):
    """The last output of an LSTM with dropout between its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 5, num_layers=2, dropout=0.3, batch_first=True)
        self.last = nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.lstm(x)[0][:, -1])
        return out


class Attention(nn.Module):
    """One block of self-attention."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, dropout=0.2, batch_first=True)
        self.last = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.attention(x, x, x)[0].mean(dim=1))
        return out


LAYERS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "linear": (lambda: nn.Linear(4, 1), rows(4)),
    "batch norm": (lambda: nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 1)), rows(4)),
    "layer norm": (lambda: nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 1)), rows(4)),
    "dropout": (lambda: nn.Sequential(nn.Linear(4, 32), nn.Dropout(0.5), nn.Linear(32, 1)), rows(4)),
    "embedding": (
        lambda: nn.Sequential(nn.Embedding(9, 5), nn.Flatten(), nn.Linear(10, 1)),
        torch.randint(0, 9, (ROWS, 2), generator=torch.Generator().manual_seed(2)),
    ),
    "lstm": (Sequence, rows(6, 3)),
    "attention": (Attention, rows(6, 4)),
}


@engines
@pytest.mark.parametrize("layer", LAYERS)
def test_layers(engine: str, layer: str) -> None:
    make, inputs = LAYERS[layer]
    if engine in OWN_NOISE:
        make = without_noise(make)
    # Adam would make full steps of rounding errors where a gradient is zero, as that of a bias before batch norm
    check(engine, make, inputs, rows(1, seed=1), nn.MSELoss(), "adam" if engine == "eager" else "sgd", lr=0.01)


@pytest.mark.parametrize(
    "layer", [pytest.param(name, marks=pytest.mark.long if name in ("dropout", "lstm") else []) for name in LAYERS]
)
def test_layers_with_adam_in_double_precision(layer: str) -> None:
    make, inputs = LAYERS[layer]
    exact = without_noise(make)
    x = inputs.double() if inputs.is_floating_point() else inputs
    y = rows(1, seed=1).double()
    model, by_hand = built(exact).double(), built(exact).double()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    trainer = Trainer(model, "mse", optimizer, engine="compiled", device="cpu", seed=SEED, metrics=())
    history = trainer.fit((x, y), epochs=EPOCHS, batch_size=BATCH, progress="none")
    carried_out(trainer)
    losses, _ = loop(by_hand, nn.MSELoss(), torch.optim.Adam(by_hand.parameters(), lr=0.01), x, y)
    # A gradient that is zero is rounding of 1e-17 here, and Adam's eps of 1e-8 makes no step of it.
    assert history.column("train_loss") == pytest.approx(losses, rel=1e-8, abs=0)
    for (name, mine), theirs in zip(model.state_dict().items(), by_hand.state_dict().values(), strict=True):
        assert mine.numpy() == pytest.approx(theirs.numpy(), rel=1e-8, abs=1e-8), name


def without_noise(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    def made() -> nn.Module:
        model = make()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            elif isinstance(module, (nn.LSTM, nn.MultiheadAttention)):
                module.dropout = 0.0
        return model

    return made


@engines
@pytest.mark.parametrize("layer", ["dropout", "attention"])
def test_noise_is_fresh_in_each_step_and_the_seeds_own(
    engine: str, layer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, inputs = LAYERS[layer]
    monkeypatch.setattr(takeover, "FIRST_SEGMENT", 1)
    monkeypatch.setattr(takeover, "SEGMENT_SECONDS", 0.0)
    monkeypatch.setattr(eager, "SEGMENT_SECONDS", 0.0)

    def fit(seed: int, rate: float = 0.01) -> tuple[list[float], nn.Module]:
        model = built(make)
        trainer = Trainer(model, "mse", "sgd", lr=rate, engine=engine, device="cpu", seed=seed, metrics=())
        data = inputs[:1].repeat(40, *(1 for _ in inputs.shape[1:])), torch.zeros(40, 1)
        losses: list[float] = []

        class Ear(Callback):
            def on_progress(self, progress: EpochProgress) -> None:
                losses.append(progress.loss)  # the mean so far

        trainer.fit(data, epochs=2, batch_size=1, progress="none", callbacks=[Ear()])
        carried_out(trainer, epochs=2, updates=40)
        return losses, model

    losses, model = fit(seed=1)
    again, same = fit(seed=1)
    other, _ = fit(seed=2)
    assert losses == again
    assert_same_state("eager", model, same)
    assert losses != other
    # The same weights and the same row: only the noise differs from step to step, and with it the mean so far.
    still, _ = fit(seed=1, rate=0.0)
    assert len(set(still)) > 40


def conv() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)
    )


@engines
def test_convolutions(engine: str) -> None:
    optimizer = "adam" if engine == "eager" else "sgd"
    check(engine, conv, rows(2, 6, 6), labels(3), nn.CrossEntropyLoss(), optimizer, lr=0.01, channels_last=False)


@engines
def test_convolutions_laid_out_channels_last_are_near(engine: str) -> None:
    model, by_hand = built(conv), built(conv)
    trainer = Trainer(model, nn.CrossEntropyLoss(), "sgd", lr=0.1, engine=engine, device="cpu", seed=SEED, metrics=())
    assert trainer.channels_last
    trainer.fit((rows(2, 6, 6), labels(3)), epochs=EPOCHS, batch_size=BATCH, progress="none")
    carried_out(trainer)
    loop(
        by_hand,
        nn.CrossEntropyLoss(),
        build_optimizer("sgd", by_hand, lr=0.1),
        rows(2, 6, 6),
        labels(3),
    )
    for mine, theirs in zip(model.parameters(), by_hand.parameters(), strict=True):
        # a convolution sums in another order in the other layout: some last bits of float32, over twenty steps
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


class Two(nn.Module):
    """Takes two inputs, by position or by name."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 1), nn.Linear(3, 1)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        out: Tensor = self.first(left) - self.second(right)
        return out


@engines
@pytest.mark.parametrize(
    "inputs", [(rows(4), rows(3)), {"right": rows(3), "left": rows(4)}], ids=["by position", "by name"]
)
def test_several_inputs(engine: str, inputs: Any) -> None:
    check(engine, Two, inputs, rows(1, seed=1), nn.MSELoss(), lr=0.01)


class Heads(nn.Module):
    """Returns two outputs by name."""

    def __init__(self) -> None:
        super().__init__()
        self.price, self.kind = nn.Linear(4, 1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"price": self.price(x), "kind": self.kind(x)}


def both(outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> Tensor:
    return F.mse_loss(outputs["price"], targets["price"]) + 0.5 * F.cross_entropy(outputs["kind"], targets["kind"])


class InATuple(Heads):
    """Returns the same by place."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return self.price(x), self.kind(x)


def both_by_place(outputs: tuple[Tensor, Tensor], targets: tuple[Tensor, Tensor]) -> Tensor:
    return F.mse_loss(outputs[0], targets[0]) + 0.5 * F.cross_entropy(outputs[1], targets[1])


def in_a_list(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().mean(dim=0)  # of shape [1], which backward() takes as well


def weighed(criterion: Any) -> Callable[[Tensor, dict[str, Tensor]], Tensor]:
    """``(1/n) Σ w_i · loss_i``."""

    def loss(outputs: Tensor, targets: dict[str, Tensor]) -> Tensor:
        losses = criterion(outputs, targets["y"], reduction="none")
        return ((losses.flatten(1).mean(dim=1) if losses.ndim > 1 else losses) * targets["w"]).mean()  # type: ignore[no-any-return]

    return loss


weight = torch.tensor([1.0, 3.0, 0.5])
WEIGHTS = rows(seed=6).exp()
OBJECTIVES: dict[str, tuple[Callable[[], nn.Module], Any, Any]] = {
    "mse": (mlp, rows(1, seed=1), nn.MSELoss()),
    "mae": (mlp, rows(1, seed=1), nn.L1Loss()),
    "huber": (mlp, rows(1, seed=1), nn.HuberLoss()),
    "cross-entropy": (lambda: nn.Linear(4, 3), labels(3), nn.CrossEntropyLoss()),
    "torch's class weights": (lambda: nn.Linear(4, 3), labels(3), nn.CrossEntropyLoss(weight, label_smoothing=0.1)),
    "our class weights": (lambda: nn.Linear(4, 3), labels(3), MeanCrossEntropy([1, 3, 0.5], label_smoothing=0.1)),
    "one logit": (lambda: nn.Linear(4, 1), labels(2).float()[:, None], nn.BCEWithLogitsLoss()),
    "a function": (mlp, rows(1, seed=1), lambda outputs, targets: (outputs - targets).abs().pow(1.5).mean()),
    "one number in a list": (mlp, rows(1, seed=1), in_a_list),
    "several outputs": (Heads, {"price": rows(1, seed=1), "kind": labels(3)}, both),
    "outputs in a tuple": (InATuple, (rows(1, seed=1), labels(3)), both_by_place),
    "a criterion for each place": (
        InATuple,
        (rows(1, seed=1), labels(3)),
        {0: Loss("mse", target=0), 1: Loss("cross-entropy", target=1, weight=0.5)},
    ),
    "sample weights": (mlp, {"y": rows(1, seed=1), "w": WEIGHTS}, Loss("mse", target="y", sample_weight="w")),
    "sample weights of classes": (
        lambda: nn.Linear(4, 3),
        {"y": labels(3), "w": WEIGHTS},
        Loss("cross-entropy", target="y", sample_weight="w"),
    ),
}
BY_HAND = {
    "a criterion for each place": both_by_place,
    "sample weights": weighed(F.mse_loss),
    "sample weights of classes": weighed(F.cross_entropy),
}


@engines
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_objectives(engine: str, objective: str) -> None:
    make, targets, criterion = OBJECTIVES[objective]
    check(engine, make, rows(4), targets, criterion, by_hand_criterion=BY_HAND.get(objective), lr=0.01)


@engines
def test_clipping(engine: str) -> None:
    trainer = check(engine, mlp, rows(4), rows(1, seed=1) * 50, nn.MSELoss(), "sgd", lr=0.01, clip_norm=0.5)
    assert trainer.clip_norm == 0.5


@engines
def test_clipping_is_by_the_norm_of_what_is_trained(engine: str) -> None:
    # Gradients of what no optimizer zeroes pile up from step to step; they must not shrink the others'.
    model, by_hand = built(mlp), built(mlp)
    x, y = rows(4), rows(1, seed=1)
    optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1)  # type: ignore[index]
    trainer = Trainer(model, nn.MSELoss(), optimizer, clip_norm=0.1, engine=engine, device="cpu", seed=SEED, metrics=())
    trainer.fit((x, y), epochs=EPOCHS, batch_size=BATCH, progress="none")
    carried_out(trainer)
    by_hand[0].requires_grad_(False)  # type: ignore[index]
    loop(by_hand, nn.MSELoss(), torch.optim.SGD(by_hand[2].parameters(), lr=0.1), x, y, clip_norm=0.1)  # type: ignore[index]
    assert_same_state(engine, model, by_hand)


@engines
def test_frozen_parameters_stay(engine: str) -> None:
    def make() -> nn.Module:
        model = mlp()
        model.get_submodule("0").requires_grad_(False)
        return model

    before = built(make).state_dict()
    trainer = check(engine, make, rows(4), rows(1, seed=1), nn.MSELoss(), lr=0.01)
    assert torch.equal(trainer.model.state_dict()["0.weight"], before["0.weight"])


@engines
def test_tied_weights_stay_tied(engine: str) -> None:
    def make() -> nn.Module:
        model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
        model[2].weight = model[0].weight
        return model

    model = check(engine, make, rows(4), rows(4, seed=1), nn.MSELoss(), lr=0.01).model
    assert model.get_submodule("0").weight is model.get_submodule("2").weight


def one_cycle(optimizer: Optimizer) -> lr_scheduler.LRScheduler:
    return lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=ALL_STEPS)


SCHEDULES: dict[str, tuple[Any, dict[str, Any], Callable[[Optimizer], Any], bool]] = {
    "cosine": ("cosine", {}, lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=ALL_STEPS), True),
    "linear": ("linear", {"floor": 0.1}, lambda o: lr_scheduler.LinearLR(o, 1.0, 0.1, total_iters=ALL_STEPS), True),
    "one-cycle": (
        "one-cycle",
        {},
        lambda o: lr_scheduler.OneCycleLR(o, 0.05, total_steps=ALL_STEPS + 1, cycle_momentum=False),
        True,
    ),
    "a function's one-cycle": (one_cycle, {}, one_cycle, True),
    "exponential": ("exponential", {"gamma": 0.5}, lambda o: lr_scheduler.ExponentialLR(o, 0.5), False),
    "step": ("step", {"step_size": 1}, lambda o: lr_scheduler.StepLR(o, 1, 0.1), False),
    "a function": (lambda o: lr_scheduler.ConstantLR(o, 0.25), {}, lambda o: lr_scheduler.ConstantLR(o, 0.25), False),
}


@engines
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_give_the_rates_of_torchs_own(engine: str, name: str) -> None:
    spec, settings, make_scheduler, by_step = SCHEDULES[name]
    x, y = rows(4), rows(1, seed=1)
    model, by_hand = built(mlp), built(mlp)
    trainer = Trainer(
        model,
        nn.MSELoss(),
        "sgd",
        lr=0.05,
        momentum=0.9,
        schedule=spec,
        schedule_settings=settings or None,
        engine=engine,
        device="cpu",
        seed=SEED,
        metrics=(),
    )
    history = trainer.fit((x, y), epochs=EPOCHS, batch_size=BATCH, progress="none")
    carried_out(trainer)
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.05, momentum=0.9)
    moved = {"by_step" if by_step else "by_epoch": make_scheduler(optimizer)}
    losses, rates = loop(by_hand, nn.MSELoss(), optimizer, x, y, **moved)
    # torch computes its cosine and its line from one rate to the next, ours are closed formulas: some last bits apart
    assert history.column("lr") == pytest.approx(rates, rel=1e-12, abs=1e-15)
    assert history.column("train_loss") == pytest.approx(losses, rel=1e-6)
    for mine, theirs in zip(model.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-7)
