"""The suite that every engine passes: losses and weights equal those of a loop written by hand in plain PyTorch."""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler

from stoker.data.batches import ResidentBatches, call_model, epoch_order, tree_map
from stoker.engines import eager
from stoker.engines.step import EpochOutcome, Step
from stoker.errors import InputTypeError
from stoker.randomness import derive_seed
from stoker.training.objective import MeanCrossEntropy
from stoker.training.optimizers import build_optimizer, optimizer_names
from stoker.training.trainer import ENGINES, Trainer

SEED = 5
ROWS, BATCH, EPOCHS = 70, 16, 2  # 70 = 4 × 16 + 6: the last batch is smaller

# How far weights and losses may be from the loop's. The eager engine does the same arithmetic in the same order, so on
# the CPU it must not be off by a single bit.
TOLERANCE = {"eager": 0.0}

engines = pytest.mark.parametrize("engine", sorted(ENGINES))


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Weights are the same whichever tests ran before."""
    torch.manual_seed(0)


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(ROWS, *shape, generator=torch.Generator().manual_seed(seed))


def labels(classes: int) -> Tensor:
    return torch.randint(0, classes, (ROWS,), generator=torch.Generator().manual_seed(1))


def built(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make()


def loop(
    model: nn.Module,
    criterion: Callable[[Any, Any], Tensor],
    optimizer: Optimizer,
    inputs: Any,
    targets: Any,
    *,
    clip_norm: float | None = None,
    by_step: Any = None,
    by_epoch: Any = None,
) -> tuple[list[float], list[float]]:
    """The hand-written loop: each epoch's loss, as a mean over samples, and its learning rate when it ended."""
    losses, rates = [], []
    for epoch in range(EPOCHS):
        model.train()
        torch.manual_seed(derive_seed(SEED, "noise", epoch))
        total = 0.0
        for chosen in torch.split(epoch_order(ROWS, SEED, epoch), BATCH):
            x = tree_map(lambda leaf: leaf[chosen], inputs)  # noqa: B023  # used at once
            y = tree_map(lambda leaf: leaf[chosen], targets)  # noqa: B023
            optimizer.zero_grad()
            loss = criterion(call_model(model, x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            if clip_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
            optimizer.step()
            if by_step is not None:
                by_step.step()
            total += loss.item() * len(chosen)
        losses.append(total / ROWS)
        rates.append(float(optimizer.param_groups[0]["lr"]))
        if by_epoch is not None:
            by_epoch.step()
    return losses, rates


def assert_same_state(engine: str, model: nn.Module, expected: nn.Module) -> None:
    for (name, mine), theirs in zip(model.state_dict().items(), expected.state_dict().values(), strict=True):
        near = torch.isclose(mine, theirs, rtol=TOLERANCE[engine], atol=TOLERANCE[engine])
        assert bool(near.all()), f"{name} is {mine}, by hand it is {theirs}"


def check(
    engine: str,
    make: Callable[[], nn.Module],
    inputs: Any,
    targets: Any,
    criterion: Any,
    optimizer: str = "adam",
    **settings: Any,
) -> Trainer:
    """Train with Stoker and by hand, and compare each epoch's loss and all weights and buffers in the end."""
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
        losses, _ = loop(by_hand, criterion, hand_made, inputs, targets, clip_norm=settings.get("clip_norm"))
    assert history.column("train_loss") == pytest.approx(losses, rel=TOLERANCE[engine], abs=0)
    assert_same_state(engine, model, by_hand)
    assert any(not torch.equal(start[name], tensor) for name, tensor in model.state_dict().items())  # it was trained
    assert [row["step"] for row in history] == [5, 10]
    return trainer


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))


SPECIAL = {"lbfgs", "muon", "sparseadam"}


@engines
@pytest.mark.parametrize("name", sorted(set(optimizer_names()) - SPECIAL))
def test_every_optimizer_by_name(engine: str, name: str) -> None:
    check(engine, mlp, rows(4), rows(1, seed=1), nn.MSELoss(), name, lr=0.01)


@engines
def test_sgd_with_momentum_and_weight_decay(engine: str) -> None:
    check(engine, mlp, rows(4), rows(1, seed=1), nn.MSELoss(), "sgd", lr=0.05, momentum=0.9, weight_decay=0.01)


@engines
def test_muon_on_matrices(engine: str) -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 8, bias=False), nn.Tanh(), nn.Linear(8, 2, bias=False))

    check(engine, make, rows(4), rows(2, seed=1), nn.MSELoss(), "muon", lr=0.01)


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
    trainer = check(engine, Bag, words, rows(1, seed=1), nn.MSELoss(), name, lr=0.1)
    assert not trainer.optimizer.defaults.get("fused")  # the fused updates refuse sparse gradients


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
    assert history.column("train_loss") == losses
    assert losses[2] < losses[1] < losses[0]
    assert_same_state(engine, model, by_hand)


@engines
@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "adagrad"])
def test_fused_updates_are_near_torchs_default_ones(engine: str, name: str) -> None:
    model, by_hand = built(mlp), built(mlp)
    x, y = rows(4), rows(1, seed=1)
    trainer = Trainer(model, nn.MSELoss(), name, lr=0.01, engine=engine, device="cpu", seed=SEED, metrics=())
    assert trainer.optimizer.defaults["fused"]
    trainer.fit((x, y), epochs=EPOCHS, batch_size=BATCH, progress="none")
    kind: Any = optimizer_names()[name]
    loop(by_hand, nn.MSELoss(), kind(by_hand.parameters(), lr=0.01), x, y)
    for mine, theirs in zip(model.parameters(), by_hand.parameters(), strict=True):
        # the same formula, its operations rounded in another order: some last bits of float32, over ten steps
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
    check(engine, make, inputs, rows(1, seed=1), nn.MSELoss(), lr=0.01)


def conv() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)
    )


@engines
def test_convolutions(engine: str) -> None:
    check(engine, conv, rows(2, 6, 6), labels(3), nn.CrossEntropyLoss(), lr=0.01, channels_last=False)


@engines
def test_convolutions_laid_out_channels_last_are_near(engine: str) -> None:
    model, by_hand = built(conv), built(conv)
    trainer = Trainer(model, nn.CrossEntropyLoss(), "sgd", lr=0.1, engine=engine, device="cpu", seed=SEED, metrics=())
    assert trainer.channels_last
    trainer.fit((rows(2, 6, 6), labels(3)), epochs=EPOCHS, batch_size=BATCH, progress="none")
    loop(
        by_hand,
        nn.CrossEntropyLoss(),
        build_optimizer("sgd", by_hand, lr=0.1),
        rows(2, 6, 6),
        labels(3),
    )
    for mine, theirs in zip(model.parameters(), by_hand.parameters(), strict=True):
        # a convolution sums in another order in the other layout: some last bits of float32, over ten steps
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


def in_a_list(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().mean(dim=0)  # of shape [1], which backward() takes as well


weight = torch.tensor([1.0, 3.0, 0.5])
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
}


@engines
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_objectives(engine: str, objective: str) -> None:
    make, targets, criterion = OBJECTIVES[objective]
    check(engine, make, rows(4), targets, criterion, lr=0.01)


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
    return lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=10)


SCHEDULES: dict[str, tuple[Any, dict[str, Any], Callable[[Optimizer], Any], bool]] = {
    "cosine": ("cosine", {}, lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=10), True),
    "linear": ("linear", {"floor": 0.1}, lambda o: lr_scheduler.LinearLR(o, 1.0, 0.1, total_iters=10), True),
    "one-cycle": (
        "one-cycle",
        {},
        lambda o: lr_scheduler.OneCycleLR(o, 0.05, total_steps=11, cycle_momentum=False),
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
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.05, momentum=0.9, fused=True)
    moved = {"by_step" if by_step else "by_epoch": make_scheduler(optimizer)}
    losses, rates = loop(by_hand, nn.MSELoss(), optimizer, x, y, **moved)
    # torch computes its cosine and its line from one rate to the next, ours are closed formulas: some last bits apart
    assert history.column("lr") == pytest.approx(rates, rel=1e-12, abs=1e-15)
    assert history.column("train_loss") == pytest.approx(losses, rel=1e-6)
    for mine, theirs in zip(model.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-7)


@engines
def test_an_epochs_loss_is_the_mean_over_samples_not_over_batches(engine: str) -> None:
    # Two batches, of 4 rows and of 1. The weights stay as they are (lr 0), so the losses can be had in the head:
    # w = 1, targets 0: the first four rows are 1 and cost 1 each, the last is 3 and costs 9.
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    x = torch.tensor([[1.0], [1.0], [1.0], [1.0], [3.0]])
    trainer = Trainer(model, nn.MSELoss(), "sgd", lr=0.0, engine=engine, device="cpu", metrics=())
    history = trainer.fit((x, torch.zeros(5, 1)), epochs=1, batch_size=4, shuffle=False, progress="none")
    assert history[0]["train_loss"] == (4 * 1 + 1 * 9) / 5  # 2.6; the mean over batches would be 5
    assert trainer.evaluate((x, torch.zeros(5, 1)))["loss"] == pytest.approx(2.6, rel=1e-6)  # a float32's mean


@engines
def test_the_ragged_last_batch_is_trained_on(engine: str) -> None:
    # The last row alone has a second feature, so its weight moves only if that batch of one is trained on.
    model = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(model.weight)
    x = torch.tensor([[1.0, 0.0]] * 4 + [[0.0, 1.0]])
    trainer = Trainer(model, nn.MSELoss(), "sgd", lr=0.5, engine=engine, device="cpu", metrics=())
    trainer.fit((x, torch.ones(5, 1)), epochs=1, batch_size=2, shuffle=False, progress="none")
    assert model.weight.tolist()[0][1] == 1.0  # 0 + 0.5 · 2 · (1 - 0)


@engines
@pytest.mark.parametrize(("seconds", "steps"), [(0.0, 1), (1e9, 3), (1e9, 10**6)])
def test_the_outcome_does_not_depend_on_where_an_epoch_is_cut(
    engine: str, seconds: float, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit() -> tuple[list[float], nn.Module]:
        model = built(lambda: nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 1)))
        trainer = Trainer(model, nn.MSELoss(), "adam", lr=0.01, engine=engine, device="cpu", metrics=())
        history = trainer.fit((rows(4), rows(1, seed=1)), epochs=3, batch_size=2, progress="none")
        return history.column("train_loss"), model

    losses, model = fit()
    monkeypatch.setattr(eager, "SEGMENT_SECONDS", seconds)
    monkeypatch.setattr(eager, "SEGMENT_STEPS", steps)
    cut_losses, cut_model = fit()
    assert cut_losses == losses  # to the last bit
    assert_same_state("eager", cut_model, model)


def step_of(model: nn.Module) -> Step:
    return Step(model, nn.MSELoss(), torch.optim.SGD(model.parameters(), lr=0.1))


@engines
def test_watch_sees_the_epoch_grow_and_may_end_it(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eager, "SEGMENT_SECONDS", 1e9)
    monkeypatch.setattr(eager, "SEGMENT_STEPS", 2)
    seen: list[tuple[int, int]] = []

    def watch(outcome: EpochOutcome) -> bool:
        seen.append((outcome.steps, outcome.samples))
        return len(seen) < 2

    batches = ResidentBatches(rows(4), rows(1, seed=1), batch_size=BATCH)
    outcome = ENGINES[engine]().train_epoch(step_of(built(mlp)), batches.epoch(0), watch)
    assert seen == [(2, 32), (4, 64)]
    assert (outcome.steps, outcome.samples, outcome.complete, outcome.bad_step) == (4, 64, False, None)


@engines
def test_an_epoch_without_batches_makes_no_step(engine: str) -> None:
    outcome = ENGINES[engine]().train_epoch(step_of(built(mlp)), iter(()), lambda _: True)
    assert (outcome.steps, outcome.samples, outcome.complete) == (0, 0, True)
    assert outcome.loss != outcome.loss  # NaN


@engines
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("steps", [1, 2, 1000])
def test_the_first_loss_that_is_not_finite_is_named(
    engine: str, bad: float, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eager, "SEGMENT_STEPS", steps)
    x = rows(4)
    x[3 * BATCH] = bad  # in the fourth batch
    batches = ResidentBatches(x, rows(1, seed=1), batch_size=BATCH)
    outcome = ENGINES[engine]().train_epoch(step_of(built(lambda: nn.Linear(4, 1))), batches.epoch(0), lambda _: True)
    assert outcome.bad_step == 3
    assert not outcome.complete
    assert str(outcome.bad_loss) == str(bad)


@engines
def test_hooks_that_run_before_an_update_see_its_own_gradients(engine: str) -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    seen: list[float] = []
    trainer = Trainer(model, lambda out, y: (out * y).mean(), "sgd", lr=0.1, engine=engine, device="cpu", metrics=())

    def before(*_: Any) -> None:
        assert model.weight.grad is not None
        seen.append(float(model.weight.grad))

    trainer.optimizer.register_step_pre_hook(before)
    x = torch.tensor([[1.0], [2.0], [3.0]])  # the gradient of w·x·1 is x
    trainer.fit((x, torch.ones(3, 1)), epochs=1, batch_size=1, shuffle=False, progress="none")
    assert seen == [1.0, 2.0, 3.0]


class NoClosure(Optimizer):
    """An optimizer of the user's, whose step takes nothing."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.1})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for parameter in self.param_groups[0]["params"]:
            parameter -= 0.1 * parameter.grad


@engines
def test_an_optimizer_whose_step_takes_no_closure(engine: str) -> None:
    model = built(lambda: nn.Linear(4, 1))
    by_hand = built(lambda: nn.Linear(4, 1))
    trainer = Trainer(model, nn.MSELoss(), NoClosure, engine=engine, device="cpu", seed=SEED, metrics=())
    trainer.fit((rows(4), rows(1, seed=1)), epochs=EPOCHS, batch_size=BATCH, progress="none")
    loop(by_hand, nn.MSELoss(), NoClosure(by_hand.parameters()), rows(4), rows(1, seed=1))
    assert_same_state(engine, model, by_hand)


@engines
def test_trains_within_no_grad_too(engine: str) -> None:
    model, again = built(lambda: nn.Linear(4, 1)), built(lambda: nn.Linear(4, 1))
    data = rows(4), rows(1, seed=1)
    Trainer(model, nn.MSELoss(), engine=engine, device="cpu", metrics=()).fit(data, epochs=1, progress="none")
    with torch.no_grad():
        Trainer(again, nn.MSELoss(), engine=engine, device="cpu", metrics=()).fit(data, epochs=1, progress="none")
    assert_same_state(engine, again, model)


@engines
@pytest.mark.parametrize(
    ("criterion", "got"),
    [(nn.MSELoss(reduction="none"), r"a tensor of shape \[70, 1\]"), (lambda *_: 0.5, "float")],
)
def test_an_objective_must_return_one_number(engine: str, criterion: Any, got: str) -> None:
    trainer = Trainer(nn.Linear(4, 1), criterion, "sgd", engine=engine, device="cpu", metrics=())
    text = rf"criterion: must return one number, the mean over the batch's samples, got {got}\. Take its mean\(\)\."
    with pytest.raises(InputTypeError, match=text):
        trainer.fit((rows(4), rows(1, seed=1)), epochs=1, batch_size=None, progress="none")
    with pytest.raises(InputTypeError, match=text):
        trainer.evaluate((rows(4), rows(1, seed=1)))


@engines
def test_bf16_computes_in_bfloat16_and_keeps_the_weights_in_float32(engine: str) -> None:
    seen: list[torch.dtype] = []

    class Spy(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            out = super().forward(x)
            seen.append(out.dtype)
            return out

    def fit(precision: str) -> tuple[list[float], nn.Module]:
        model = built(lambda: nn.Sequential(Spy(4, 8), nn.Tanh(), Spy(8, 1)))
        trainer = Trainer(
            model, nn.MSELoss(), "sgd", lr=0.05, engine=engine, device="cpu", precision=precision, metrics=()
        )
        return trainer.fit((rows(4), rows(1, seed=1)), epochs=3, batch_size=BATCH, progress="none").column(
            "train_loss"
        ), model

    exact, _ = fit("32")
    assert set(seen) == {torch.float32}
    seen.clear()
    near, model = fit("bf16")
    assert set(seen) == {torch.bfloat16}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert near == pytest.approx(exact, rel=0.02)  # bfloat16 has 8 bits of mantissa, an ulp of 0.8 %
    assert near != exact


@engines
def test_progress_is_about_ten_times_a_second(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()  # a second passes between any two looks at it
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))
    seen: list[int] = []

    def watch(outcome: EpochOutcome) -> bool:
        seen.append(outcome.steps)
        return True

    batches = ResidentBatches(rows(4), rows(1, seed=1), batch_size=BATCH)
    ENGINES[engine]().train_epoch(step_of(built(mlp)), batches.epoch(0), watch)
    assert seen == [1, 2, 3, 4, 5]
