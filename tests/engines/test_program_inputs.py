"""What a program is given: a state whose memory it takes over, and numbers that change without another program."""

from __future__ import annotations

from typing import Any

import jax
import pytest
import torch
from test_compiled import trained
from tiny import DATA, assert_near, mlp
from torch import nn

from stoker.engines import takeover
from stoker.engines.xla.program import Arguments, Program
from stoker.training.trainer import Trainer


def test_the_memory_of_the_state_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Arguments, set[int]]] = []
    call = Program.__call__

    def pointers(carry: Any) -> set[int]:
        return {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(carry) if isinstance(leaf, jax.Array)}

    reused: list[int] = []

    def noted(self: Program, arguments: Arguments) -> Any:
        before = pointers(arguments.carry)
        after = call(self, arguments)
        calls.append((arguments, before))
        reused.append(len(before & pointers(after[0])))
        return after

    monkeypatch.setattr(Program, "__call__", noted)
    monkeypatch.setattr(takeover, "FIRST_SEGMENT", 2)
    monkeypatch.setattr(takeover, "SEGMENT_SECONDS", 0.0)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.1), nn.Linear(8, 1))
    assert trained(model, "adam", epochs=3, ema=0.9).engine.reason is None
    state = [leaf for arguments, _ in calls for leaf in jax.tree.leaves(arguments.carry) if isinstance(leaf, jax.Array)]
    # six parameters, their two moments and averages, and three buffers, of every segment but each epoch's first
    assert len(state) > 10 * (6 * 4 + 3)
    assert all(leaf.is_deleted() for leaf in state)
    data = [leaf for arguments, _ in calls for leaf in (*arguments.inputs, *arguments.targets)]
    assert data
    assert not any(leaf.is_deleted() for leaf in data)
    assert sum(reused) > 0


SETTINGS: dict[str, tuple[str, dict[str, Any], list[float]]] = {
    "weight_decay": ("adam", {}, [0.0, 0.5, 0.01]),
    "decoupled weight_decay": ("adamw", {}, [0.01, 0.0, 0.5]),
    "sgd weight_decay": ("sgd", {}, [0.0, 0.5, 0.01]),
    "momentum": ("sgd", {"momentum": 0.9}, [0.9, 0.1, 0.5]),
    "lr": ("rmsprop", {}, [0.01, 0.001, 0.02]),
}


@pytest.mark.parametrize("what", SETTINGS)
def test_another_number_takes_no_other_program(what: str, made: list[Program]) -> None:
    optimizer, settings, values = SETTINGS[what]
    models, moved = [], []
    for engine in ("compiled", "eager"):
        model = mlp()
        trainer = Trainer(model, "mse", optimizer, lr=0.01, engine=engine, device="cpu", metrics=(), **settings)
        for value in values:
            trainer.optimizer.param_groups[0][what.rpartition(" ")[2]] = value
            trainer.fit(DATA, epochs=2, batch_size=16, progress="none", check=False)
            assert trainer.engine.reason is None
            moved.append(model.get_parameter("0.weight").detach().clone())
        models.append(model)
    assert len(made) == 1
    assert_near(*models)
    alike = mlp()
    trainer = Trainer(alike, "mse", optimizer, lr=0.01, engine="eager", device="cpu", metrics=(), **settings)
    trainer.optimizer.param_groups[0][what.rpartition(" ")[2]] = values[0]
    trainer.fit(DATA, epochs=2, batch_size=16, progress="none", check=False)
    torch.testing.assert_close(moved[0], alike.get_parameter("0.weight"), rtol=1e-4, atol=1e-6)
    for _ in values[1:]:
        trainer.fit(DATA, epochs=2, batch_size=16, progress="none", check=False)
    without = alike.get_parameter("0.weight")
    assert not torch.allclose(models[0].get_parameter("0.weight"), without, rtol=1e-3, atol=1e-5)  # the changes counted
