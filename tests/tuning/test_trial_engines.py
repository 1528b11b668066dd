"""Which engine trials have, and that they share their program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import stoker
from stoker.engines import auto
from stoker.engines.step import Engine
from stoker.engines.xla.program import Program
from stoker.tuning.objectives import FitObjective
from stoker.tuning.space import Categorical, Float, Space


@pytest.mark.parametrize(("trials", "engine"), [(2, "eager"), (4, "compiled")])
def test_the_whole_studys_length_counts(
    trials: int, engine: str, made: list[Program], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(auto, "CERTAIN_UPDATES", 3 * 3 * 6)  # iris has 6 updates of 16 rows, and there are 3 epochs
    engines: list[Engine] = []
    choose = FitObjective._engine

    def noted(self: FitObjective, *given: Any) -> Engine:
        engines.append(choose(self, *given))
        return engines[-1]

    monkeypatch.setattr(FitObjective, "_engine", noted)
    space = Space({"lr": Float(1e-3, 1e-1, log=True), "dropout": Categorical([0.1, 0.3])})
    stoker.tune(
        "iris", space, trials=trials, epochs=3, batch_size=16, refit=False, out=tmp_path / "study", progress="none"
    )
    assert [one.name for one in engines] == [engine] * trials
    assert len(made) == (1 if engine == "compiled" else 0)  # rates and dropout are inputs
