"""Sides that train on one batch of all rows must come to the same outputs: no order of batches tells them apart."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import log_loss, mean_squared_error

from benchmarks.jobs import JOBS, Data, Job, first_weights, load, mean_loss, save
from benchmarks.measure import Spec, measure
from benchmarks.sides import SIDES, Trained

ROWS = 24


def small(job: Job) -> Data:
    draw = np.random.default_rng(0)
    targets = (
        draw.normal(size=(ROWS, 1)).astype(np.float32)
        if job.task == "regression"
        else np.arange(ROWS, dtype=np.int64) % 10
    )
    shapes = {"california": (8,), "fashion": (1, 28, 28), "cnn": (1, 28, 28), "lstm": (28, 28), "flights": (7,)}
    inputs = draw.normal(size=(ROWS, *shapes[job.name])).astype(np.float32)
    codes = np.stack([np.arange(ROWS) % count for count in (3, 5, 7)], 1)
    return Data((inputs, codes) if job.kind == "embedding" else (inputs,), targets)


def trained(side: str, job: Job, *, epochs: int = 3, batch_size: int = ROWS) -> tuple[Trained, int]:
    marks: list[None] = []
    chosen = SIDES[side]
    result = chosen.trainer()(job, small(job), epochs, batch_size, lambda: marks.append(None), **chosen.settings)
    return result, len(marks)


KERAS = f"keras-{os.environ.get('KERAS_BACKEND', 'jax')}"  # of a process, Keras has one
PAIRS = [
    (side, job)
    for side in ("stoker-eager", "loop", "jax", "scikit-learn", "skorch", "lightning", KERAS)
    for job in JOBS.values()
    if job.kind in SIDES[side].kinds and (side, job.kind) != (KERAS, "lstm")  # one bias where torch's has two
] + [("stoker-compiled", JOBS["california"]), ("stoker-auto", JOBS["california"])]


@pytest.mark.parametrize(("side", "job"), PAIRS, ids=lambda value: value.name if isinstance(value, Job) else value)
def test_each_side_makes_the_updates_of_the_loop_by_hand(side: str, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SIDES[side].environment.items():
        monkeypatch.setenv(name, value)
    if side in ("skorch", "lightning", KERAS):
        pytest.importorskip(side.partition("-")[0])
    inputs = small(job).inputs
    theirs, marks = trained(side, job)
    ours, _ = trained("resident", job)
    outputs, expected = theirs.outputs(inputs), ours.outputs(inputs)
    if side == "scikit-learn":
        outputs, expected = outputs.reshape(expected.shape), expected - _log_sum(expected)
    assert marks == 3
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=2e-5)


def _log_sum(logits: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> object:
    return 0.0 if logits.shape[1] == 1 else np.log(np.exp(logits).sum(1, keepdims=True))


@pytest.mark.parametrize("side", ["stoker-eager", "stoker-compiled", "loop", "resident", "jax", "scikit-learn"])
def test_the_smaller_last_batch_is_trained_on(side: str) -> None:
    job = JOBS["california"]
    inputs = small(job).inputs
    outputs = trained(side, job, epochs=1, batch_size=16)[0].outputs(inputs).reshape(-1)
    whole = trained(side, job, epochs=1)[0].outputs(inputs).reshape(-1)
    first = trained(side, job, epochs=2)[0].outputs(inputs).reshape(-1)
    # two steps from batches of 16 and 8 come to about what two steps of all rows do, and not what one does
    assert np.abs(outputs - first).mean() < np.abs(outputs - whole).mean()


def test_first_weights_are_those_of_torchs_rule_and_the_same_each_time() -> None:
    job = JOBS["california"]
    weights = first_weights(job, small(job))
    assert {name: array.shape for name, array in weights.items()} == {
        "layers.0.weight": (50, 8),
        "layers.0.bias": (50,),
        "layers.1.weight": (40, 50),
        "layers.1.bias": (40,),
        "layers.2.weight": (1, 40),
        "layers.2.bias": (1,),
    }
    assert 0.3 < np.abs(weights["layers.0.weight"]).max() <= 1 / np.sqrt(8)
    again = first_weights(job, small(job))
    assert all((again[name] == array).all() for name, array in weights.items())


def test_losses_are_those_of_scikit_learn() -> None:
    draw = np.random.default_rng(0)
    outputs, targets = draw.normal(size=(ROWS, 1)), draw.normal(size=(ROWS, 1))
    expected = mean_squared_error(targets, outputs)
    assert mean_loss(JOBS["california"], outputs, targets) == pytest.approx(expected)
    assert mean_loss(JOBS["california"], outputs.ravel(), targets) == pytest.approx(expected)
    logits, labels = draw.normal(size=(ROWS, 10)), np.arange(ROWS) % 10
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert mean_loss(JOBS["fashion"], logits, labels) == pytest.approx(log_loss(labels, shares))


def test_data_come_back_as_they_were_written(tmp_path: Path) -> None:
    data = small(JOBS["flights"])
    save(data, tmp_path)
    back = load(tmp_path, rows=5)
    assert len(back) == 5
    assert all((a == b[:5]).all() and a.dtype == b.dtype for a, b in zip(back.inputs, data.inputs, strict=True))


def test_a_measurement_in_a_process_of_its_own(tmp_path: Path) -> None:
    save(small(JOBS["california"]), tmp_path / "california")
    result = measure(Spec("california", "loop", 16, 1, 4), tmp_path, timeout=120)
    assert len(result["epochs_s"]) == 4
    assert sum(result["epochs_s"]) <= result["total_s"]
    assert (result["steps"], result["side"], result["epochs"]) == (2, "loop", 4)
    assert json.loads(json.dumps(result)) == result
    job = JOBS["california"]
    here = trained("loop", job, epochs=4, batch_size=16)[0].outputs(small(job).inputs)
    assert result["loss"] == pytest.approx(mean_loss(job, here, small(job).targets), rel=1e-4)


def test_a_side_that_fails_or_takes_too_long_says_so(tmp_path: Path) -> None:
    failed = measure(Spec("california", "resident", 16, 1, 1), tmp_path, timeout=120)
    assert failed["failed"].startswith("FileNotFoundError: ")
    assert measure(Spec("california", "resident", 16, 1, 1), tmp_path, timeout=0.01)["failed"] == "not done after 0 s"


@pytest.mark.skipif(importlib.util.find_spec("lightning") is not None, reason="Lightning is installed here")
def test_a_side_whose_package_is_not_there_is_skipped(tmp_path: Path) -> None:
    skipped = measure(Spec("california", "lightning", 16, 1, 1), tmp_path, timeout=120)
    assert skipped["skipped"] == "ModuleNotFoundError: No module named 'lightning'"


def test_auto_is_measured_as_users_have_it_without_jax_at_first() -> None:
    code = """
import sys
from benchmarks.sides import SIDES
SIDES["stoker-auto"].trainer()
assert "jax" not in sys.modules
SIDES["stoker-compiled"].trainer()
assert "jax" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
