"""The engine that is done first: short jobs stay eager, long ones are handed over, and both come to the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import DATA, assert_near, mlp
from torch import Tensor, nn

from stoker.data.resident import ResidentBatches
from stoker.engines import auto
from stoker.engines.auto import AutoEngine
from stoker.engines.beside import _Process
from stoker.engines.outlook import product_rate, slowness, surely_saved
from stoker.engines.plan import Plan
from stoker.engines.rates import known_code
from stoker.engines.reuse import PROGRAMS
from stoker.training.callbacks import Callback, StepProgress
from stoker.training.history import Row
from stoker.training.trainer import Trainer


class Patient(Callback):
    """Waits after an epoch until the program that is being made is there."""

    def __init__(self, engine: AutoEngine, after: int = 3) -> None:
        self.engine, self.after = engine, after
        self.names: list[str] = []

    def on_epoch_end(self, row: Row, improved: bool) -> None:  # noqa: ARG002
        self.names.append(self.engine.name)
        until = time.monotonic() + 120
        while row["epoch"] >= self.after and self.engine._build is not None and time.monotonic() < until:
            made = self.engine._build.made()
            if made is not None:
                # Nothing here depends on how busy the machine is.
                self.engine._build, self.engine._made = None, replace(made, pace=1e-6)
            time.sleep(0.01)


@pytest.fixture
def eager_to_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any job is long enough, and none is sure to pay."""
    monkeypatch.setattr(auto, "AT_ONCE", 1e9)
    PROGRAMS.clear()
    for name in ("BUILD_SECONDS", "COLD_SECONDS", "WARM_SECONDS", "READY"):
        monkeypatch.setattr(auto, name, 0.0)


def trained(model: nn.Module, *, epochs: int = 8, **settings: Any) -> tuple[Trainer, Patient]:
    fitting = {"epochs": epochs, "batch_size": 16, "check": False, "progress": "none"}
    trainer = Trainer(model, "mse", settings.pop("optimizer", "adam"), device="cpu", metrics=(), lr=0.01, **settings)
    engine: Any = trainer.engine
    patient = Patient(engine) if isinstance(engine, AutoEngine) else None
    trainer.fit(DATA, callbacks=[patient] if patient else [], **fitting)  # type: ignore[arg-type]
    return trainer, patient  # type: ignore[return-value]


def test_a_short_job_stays_eager_and_imports_no_jax() -> None:
    code = """
import sys, torch
from torch import nn
from stoker import Trainer
trainer = Trainer(nn.Linear(4, 1), "mse", "sgd", device="cpu")
trainer.fit((torch.zeros(64, 4), torch.zeros(64, 1)), epochs=3, batch_size=4, progress="none")
print("jax" in sys.modules, trainer.engine_reason)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.startswith("False eager: ")
    assert found.endswith(" of steps are too few to compile for\n")


@pytest.mark.usefixtures("eager_to_build")
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_long_job_is_handed_over(optimizer: str) -> None:
    mine, theirs = mlp(), mlp()
    trainer, patient = trained(mine, optimizer=optimizer, schedule="cosine", ema=0.9, clip_norm=1.0)
    trained(theirs, optimizer=optimizer, schedule="cosine", ema=0.9, clip_norm=1.0, engine="eager")
    assert patient.names[0] == "eager"
    assert patient.names[-1] == "compiled"
    assert trainer.engine_reason.startswith("compiled: from epoch ")
    assert trainer.engine.reason is None
    assert_near(mine, theirs)


FORKED = """
import sys, torch
sys.path.insert(0, "tests/engines")
from tiny import DATA, assert_near, mlp
from test_auto import Patient
from stoker.engines import auto
from stoker.engines.beside import _Process
from stoker import Trainer
auto.BUILD_SECONDS = auto.COLD_SECONDS = auto.WARM_SECONDS = auto.READY = 0.0
auto.AT_ONCE = 1e9
assert "jax" not in sys.modules
events = []
take_over = auto.AutoEngine._taken_over

def listening(*given):  # from when this process needs JAX: with it, there would be no fork
    import jax
    jax.monitoring.register_event_listener(lambda event, **_: events.append(event))
    return take_over(*given)

auto.AutoEngine._taken_over = listening
models = []
for engine in ("eager", "auto"):
    models.append(mlp())
    trainer = Trainer(models[-1], "mse", "adam", lr=0.01, device="cpu", metrics=(), engine=engine)
    callbacks = [] if engine == "eager" else [Patient(trainer.engine)]
    seen = []
    if callbacks:
        begin = auto.begin
        auto.begin = lambda *given, **named: seen.append(begin(*given, **named)) or seen[-1]
    trainer.fit(DATA, epochs=8, batch_size=16, check=False, progress="none", callbacks=callbacks)
assert [type(one) for one in seen] == [_Process], seen
assert_near(*models)
print(callbacks[0].names[0], callbacks[0].names[-1], trainer.engine_reason)
print(*(events.count(f"/jax/compilation_cache/cache_{what}") for what in ("hits", "misses")))
"""


def test_the_program_of_a_forked_process_takes_over() -> None:
    found = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("eager compiled compiled: from epoch ")


@pytest.mark.parametrize(("optimizer", "bad"), [("sgd", False), ("adam", False), ("adam", True)])
def test_what_is_sure_to_pay_is_compiled_at_once(monkeypatch: pytest.MonkeyPatch, optimizer: str, bad: bool) -> None:
    from stoker.engines import takeover  # not above: it brings JAX, and then nothing is made in a fork

    monkeypatch.setattr(auto, "AT_ONCE", 0.0)
    monkeypatch.setattr(auto, "UNKNOWN", 0.0)
    monkeypatch.setattr(auto, "READY", 0.0)
    monkeypatch.setattr(takeover, "measured_pace", lambda *_: 1e-9)  # on a busy machine it may be anything
    PROGRAMS.clear()
    mine, theirs = (Drifts(4, 1), Drifts(4, 1)) if bad else (mlp(), mlp())
    trainer, patient = trained(mine, optimizer=optimizer, ema=0.9, epochs=12)
    if bad:
        assert set(patient.names) == {"eager"}
        assert "the compiled step" in trainer.engine_reason
        return
    assert patient.names[2:] == ["compiled"] * 10  # the first epoch does not count, the second is looked at
    trained(theirs, optimizer=optimizer, ema=0.9, epochs=12, engine="eager")
    assert_near(mine, theirs)


def test_what_is_sure_to_pay() -> None:
    class Own(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)

    def saved(model: nn.Module, rows: int, pace: float, *features: int) -> float:
        step: Any = SimpleNamespace(model=model)
        data = ResidentBatches(torch.zeros(4 * rows, *features), torch.zeros(4 * rows, 1), batch_size=rows)
        return surely_saved(step, Plan(data, 0, 1), pace, lambda weight, rows: 1e11)  # noqa: ARG005

    small, large = nn.Linear(8, 50), nn.Linear(784, 300)
    assert saved(nn.ReLU(), 32, 300e-6) == 300e-6
    assert saved(small, 32, 300e-6) == pytest.approx(300e-6 - 6 * 32 * 400 / 1e11)
    assert saved(small, 32, 1e-6) == 0.0
    assert saved(large, 32, 900e-6) == pytest.approx(900e-6 - 6 * 32 * 784 * 300 / 1e11)
    assert saved(large, 32, 700e-6) == 0.0
    # nobody asks for the gradients of data, whichever way they are laid out
    assert saved(large, 32, 700e-6, 1, 28, 28) == pytest.approx(700e-6 - 4 * 32 * 784 * 300 / 1e11)
    twice = nn.Sequential(nn.Linear(100, 100), nn.Linear(100, 100))
    assert saved(twice, 32, 300e-6, 100) == pytest.approx(300e-6 - (4 + 6) * 32 * 100 * 100 / 1e11)
    assert saved(nn.Embedding(1_000_000, 1), 32, 300e-6) == 300e-6  # looked up, not multiplied
    assert saved(nn.Sequential(nn.Flatten(), nn.LSTM(8, 8)), 32, 1.0) == 0.0
    assert saved(nn.Conv1d(1, 1, 3), 32, 1.0) == 0.0
    assert known_code(nn.Sequential(small, nn.ReLU()))
    assert not known_code(nn.Sequential(Own(2, 2)))


@pytest.mark.parametrize("shape", [(10, 8), (300, 784), (1, 1), (1, 1 << 25), (1 << 25, 1), (16, 3, 3, 3)])
def test_the_rate_of_products_is_measured_in_milliseconds(shape: tuple[int, ...]) -> None:
    began = time.monotonic()
    found = product_rate(torch.zeros(()).expand(shape), 1 << 20)
    assert 1e5 < found < 1e14
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("times", [1e-3, 1e9])
def test_what_is_weighed_grows_with_the_time_of_a_call(monkeypatch: pytest.MonkeyPatch, times: float) -> None:
    for name in ("AT_ONCE", "UNKNOWN", "COLD_SECONDS", "WARM_SECONDS", "READY"):
        monkeypatch.setattr(auto, name, 1e-3)
    monkeypatch.setattr(auto, "BUILD_SECONDS", 1e9)
    monkeypatch.setattr(auto, "surely_saved", lambda *_: 1.0)
    monkeypatch.setattr(auto, "slowness", lambda: times)
    trainer, _ = trained(mlp(), epochs=12)
    assert ("too few to compile for" in str(trainer.engine_reason)) == (times > 1)


def test_the_time_of_a_call_is_that_of_this_machine() -> None:
    assert 0.05 < slowness() < 500
    assert slowness() == slowness()  # measured once: a choice does not waver within a training


CALLS = [0]


class Drifts(nn.Linear):
    """Does something else at each call, by a variable that no module holds."""

    def forward(self, x: Tensor) -> Tensor:
        CALLS[0] += 1
        return super().forward(x) * (1 + CALLS[0] % 7)


@pytest.mark.usefixtures("eager_to_build")
def test_a_program_that_differs_does_not_take_over() -> None:
    trainer, patient = trained(Drifts(4, 1), optimizer="sgd", epochs=12)
    assert set(patient.names) == {"eager"}
    assert "the compiled step's loss is " in trainer.engine_reason


@pytest.mark.usefixtures("eager_to_build")
def test_what_cannot_be_compiled_is_told() -> None:
    class Branches(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) if x.sum() > 0 else -super().forward(x)

    trainer, _ = trained(Branches(4, 1))
    assert trainer.engine_reason.startswith("eager: the step cannot be traced (")


@pytest.mark.usefixtures("eager_to_build")
def test_a_process_that_dies_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(*given: Any, at_once: bool) -> _Process:
        assert not at_once
        build = _Process(*given)
        assert build._process.pid is not None
        os.kill(build._process.pid, signal.SIGKILL)
        return build

    monkeypatch.setattr(auto, "begin", begin)
    trainer, _ = trained(mlp())
    assert trainer.engine_reason == "eager: compiling ended with exit code -9"


@pytest.mark.usefixtures("eager_to_build")
def test_a_slower_program_does_not_take_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "READY", 1e9)
    trainer, patient = trained(mlp())
    assert set(patient.names) == {"eager"}
    assert trainer.engine_reason.startswith("eager: a step takes ")


@pytest.mark.usefixtures("eager_to_build")
def test_who_listens_to_each_step_keeps_it_eager() -> None:
    class Ear(Callback):
        def on_step_end(self, step: StepProgress) -> None:
            pass

    trainer = Trainer(mlp(), "mse", "sgd", device="cpu", metrics=())
    trainer.fit(DATA, epochs=3, batch_size=16, check=False, progress="none", callbacks=[Ear()])
    assert trainer.engine_reason == "eager: a callback listens to each step"


SLOW_TO_BUILD = """
import os, sys, time
sys.path.insert(0, "tests/engines")
from tiny import DATA, mlp
from stoker.engines import auto
from stoker import Callback, Trainer
auto.BUILD_SECONDS, auto.AT_ONCE = 0.0, 1e9
trainer = Trainer(mlp(), "mse", "adam", device="cpu", metrics=())

class Watch(Callback):
    def on_epoch_end(self, row, improved):
        build = trainer.engine._build
        if build is not None:
            print(build._process.pid, flush=True)
            {then}

trainer.fit(DATA, epochs={epochs}, batch_size=16, check=False, progress="none", callbacks=[Watch()])
"""


def gone(pid: int) -> bool:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":  # nobody has looked at its exit code yet
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
@pytest.mark.parametrize(("then", "epochs", "code"), [("os.kill(os.getpid(), 9)", 50, -9), ("pass", 4, 0)])
def test_no_process_is_left_by_a_training_that_is_killed_or_over(then: str, epochs: int, code: int) -> None:
    script = SLOW_TO_BUILD.format(then=then, epochs=epochs)
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert found.returncode == code, found.stderr
    assert gone(int(found.stdout.split()[0]))


def test_a_hand_over_compiles_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "STOKER_CACHE": str(tmp_path)}
    found = subprocess.run([sys.executable, "-c", FORKED], env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert len(list((tmp_path / "xla").glob("*-threads/*-cache"))) == 1  # the forked process's
    hits, misses = map(int, found.stdout.splitlines()[-1].split())
    assert hits >= 1  # which this one has found
    assert misses == 0


def test_deterministic_choices_follow_from_the_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, _ = trained(mlp(), deterministic=True)
    assert trainer.engine_reason == "eager: chosen by the job's shape"
    monkeypatch.setattr(auto, "CERTAIN_UPDATES", 50)
    models = [mlp(), mlp()]
    for model in models:
        trainer, _ = trained(model, deterministic=True)
        assert trainer.engine_reason == "compiled: chosen by the job's shape"
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))
