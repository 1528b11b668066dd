"""Where JAX is not installed everything trains, eagerly, and says so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import DATA, mlp

import stoker
from stoker.engines.registry import choose_engine
from stoker.engines.standing import Standing
from stoker.errors import CheckpointError
from stoker.training.trainer import Trainer

REASON = "JAX is not installed"


@pytest.fixture
def no_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jax", None)  # what import makes of a module that is not there


@pytest.mark.usefixtures("no_jax")
@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("engine", ["auto", "compiled"])
def test_a_training_is_eager_and_says_why(engine: str, deterministic: bool) -> None:
    models = []
    for asked in (engine, "eager"):
        models.append(mlp())
        settings: dict[str, Any] = {"engine": asked, "deterministic": deterministic, "device": "cpu", "metrics": ()}
        trainer = Trainer(models[-1], "mse", "adam", lr=0.01, **settings)
        trainer.fit(DATA, epochs=3, batch_size=16, progress="none")
        expected = REASON if asked != "eager" else "as asked"
        assert trainer.engine_reason == f"eager: {expected}"
        assert trainer.engine.reason == (None if asked == "eager" else REASON)
    assert all(torch.equal(*pair) for pair in zip(*(model.parameters() for model in models), strict=True))


@pytest.mark.usefixtures("no_jax")
@pytest.mark.parametrize("engine", ["auto", "compiled"])
def test_what_a_program_has_begun_cannot_go_on(engine: str) -> None:
    chosen = choose_engine(engine)
    chosen.resume(Standing(engine))  # eager steps can
    text = r"engine: must be the one that the training began with, got a program's steps\. Train where JAX is installed"
    with pytest.raises(CheckpointError, match=text):
        chosen.resume(Standing(engine, program=True))


def test_a_jax_that_is_there_and_broken_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
    monkeypatch.setitem(sys.modules, "stoker.engines.compiled", None)
    reason = choose_engine("compiled").reason
    assert reason is not None
    assert reason.startswith("JAX cannot be imported (import of stoker.engines.compiled halted")


# No finder finds it, as where it is not there.
SCRIPT = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        hidden = name.partition(".")[0] in ("jax", "jaxlib")
        return None if hidden else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = map(Without, sys.meta_path)

import stoker
for name in stoker.__all__:
    getattr(stoker, name)
for engine in ("auto", "compiled"):
    run = stoker.fit("iris", out=f"run-{engine}", epochs=2, engine=engine, device="cpu", progress="none")
    print(run.record.training.engine, "|", run.record.training.engine_reason)
print(stoker.explain("iris", batch_size=16).reason)
assert not any(name.partition(".")[0] in ("jax", "jaxlib") for name in sys.modules)
"""


@pytest.mark.slow
def test_a_whole_job_in_a_process_that_cannot_import_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT]
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=120)
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines() == [f"eager | eager: {REASON}"] * 2 + [REASON]
    record = stoker.load(tmp_path / "run-compiled").record
    assert record.settings["training"]["engine"] == "compiled"  # what was asked for
    assert (record.training.engine, record.training.engine_reason) == ("eager", f"eager: {REASON}")
