"""A trainer whose steps a program made can be copied and pickled; the copy goes on as the original does."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from tiny import DATA, assert_near, mlp

from stoker.engines import auto, beside
from stoker.training.trainer import Trainer


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda trainer: pickle.loads(pickle.dumps(trainer))])
@pytest.mark.parametrize(("engine", "deterministic"), [("compiled", False), ("auto", False), ("auto", True)])
def test_a_copy_goes_on_as_the_original(
    copied: Callable[[Trainer], Trainer], engine: str, deterministic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("BUILD_SECONDS", "COLD_SECONDS", "WARM_SECONDS", "WARM_BUILD", "AT_ONCE", "KEPT", "READY"):
        monkeypatch.setattr(auto, name, 0.0)
    for module in (auto, beside):
        monkeypatch.setattr(module, "forks", lambda: False)
    monkeypatch.setattr(auto, "surely_saved", lambda *_: 1.0)
    monkeypatch.setattr(auto, "CERTAIN_UPDATES", 1)
    monkeypatch.setattr("stoker.engines.eager.SEGMENT_SECONDS", 0.0)
    fitting: dict[str, Any] = {"batch_size": 16, "progress": "none", "check": False}
    settings: dict[str, Any] = {"engine": engine, "deterministic": deterministic, "device": "cpu", "metrics": ()}
    trainer = Trainer(mlp(), "mse", "adam", lr=0.01, **settings)
    trainer.fit(DATA, epochs=20, **fitting)
    assert trainer.engine.name == "compiled"
    other = copied(trainer)
    assert other.engine_reason == trainer.engine_reason
    for each in (trainer, other):
        each.fit(DATA, epochs=3, **fitting)
    assert_near(other.model, trainer.model)
    assert other.engine is not trainer.engine
