"""Each option of an optimizer through whole engines, beside the loop written by hand; the formulas alone are tested in
``tests/engines/test_updates.py``.

In double precision: where an optimizer divides by the size of a gradient, it makes full steps of what is rounding in
single precision.
"""

from __future__ import annotations

import pytest
from loops import BATCH, EPOCHS, SEED, built, carried_out, loop, prepare, rows
from torch import nn

from optimizer_options import KINDS
from stoker.training.trainer import Trainer

NEAR = 1e-10  # rounding of 1e-16 in each of twenty steps, and what they make of it
MAXIMIZED = ("sgd-nesterov", "adam-amsgrad", "rmsprop-both", "nadam-decoupled")
QUICK = {
    *(("compiled", kind, False) for kind in ("sgd-dampening", "adam-decoupled", "adagrad-decay", "radam", "adamax")),
    *(("compiled", kind, True) for kind in MAXIMIZED),
    ("auto", "adam-amsgrad", False),
}
CASES = [
    *(("compiled", kind, False) for kind in sorted(KINDS)),
    *(("compiled", kind, True) for kind in MAXIMIZED),
    *(("auto", kind, False) for kind in ("sgd-dampening", "adam-amsgrad", "rmsprop-both")),
]
assert set(CASES) >= QUICK


@pytest.fixture(autouse=True)
def prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(monkeypatch)


def smallest() -> nn.Module:
    return nn.Linear(4, 1).double()


@pytest.mark.parametrize(
    ("engine", "kind", "maximize"),
    [pytest.param(*case, marks=[] if case in QUICK else pytest.mark.long) for case in CASES],
)
def test_options_of_optimizers(engine: str, kind: str, maximize: bool) -> None:
    build, options = KINDS[kind]
    settings = {**options, "lr": 0.01, "weight_decay": 0.1, "maximize": maximize}
    x, y = rows(4).double(), rows(1, seed=1).double()
    model, by_hand = built(smallest), built(smallest)
    optimizer = build(model.parameters(), **settings)
    trainer = Trainer(model, "mse", optimizer, engine=engine, device="cpu", seed=SEED, metrics=())
    history = trainer.fit((x, y), epochs=EPOCHS, batch_size=BATCH, progress="none")
    carried_out(trainer)
    expected = build(by_hand.parameters(), **settings)
    losses, _ = loop(by_hand, nn.MSELoss(), expected, x, y)
    assert history.column("train_loss") == pytest.approx(losses, rel=NEAR, abs=0)
    state = zip(model.parameters(), by_hand.parameters(), strict=True)
    for mine, theirs in state:
        assert mine.detach().numpy() == pytest.approx(theirs.detach().numpy(), rel=NEAR, abs=NEAR)
        held, slots = optimizer.state[mine], expected.state[theirs]
        assert held.keys() == slots.keys()
        for name, slot in slots.items():
            if slot is not None:
                assert held[name].numpy() == pytest.approx(slot.numpy(), rel=NEAR, abs=NEAR), name
