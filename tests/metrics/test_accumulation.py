"""What holds of every metric: batching, resetting, random numbers, gradients and devices make no difference."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stoker.data.dataset import Task
from stoker.metrics.metric_set import MetricSet, accumulation_device
from stoker.metrics.states import TargetMoments, merge_moments

REGRESSION = ("mse", "rmse", "mae", "r2")
BINARY = ("accuracy", "f1", "auroc", "log_loss")
MULTICLASS = ("accuracy", "top3_accuracy", "f1", "auroc", "log_loss")


def split(rows: Tensor, cuts: list[int]) -> Iterator[Tensor]:
    bounds = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    return (rows[a:b] for a, b in pairwise(bounds))  # some of them empty


def measure(metrics: MetricSet, preds: Tensor, target: Tensor, cuts: list[int]) -> dict[str, float]:
    metrics.reset()
    for p, t in zip(split(preds, cuts), split(target, cuts), strict=True):
        metrics.update(p, t)
    return metrics.compute()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 200),
    cuts=st.lists(st.integers(0, 200), max_size=12),
    scale=st.floats(1e-8, 1e8),
    offset=st.floats(-100, 100),
)
def test_regression_does_not_depend_on_the_batches(
    seed: int, rows: int, cuts: list[int], scale: float, offset: float
) -> None:
    g = torch.Generator().manual_seed(seed)
    target = scale * (torch.randn(rows, generator=g, dtype=torch.float64) + offset)
    preds = target + scale * torch.randn(rows, generator=g, dtype=torch.float64)
    metrics = MetricSet(REGRESSION, "regression")
    whole = measure(metrics, preds, target, [])
    assert measure(metrics, preds, target, cuts) == pytest.approx(whole, rel=1e-12, nan_ok=True)
    assert measure(metrics, preds, target, list(range(rows))) == pytest.approx(whole, rel=1e-12, nan_ok=True)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 200),
    cuts=st.lists(st.integers(0, 200), max_size=12),
    n_classes=st.integers(2, 12),
    digits=st.integers(0, 4),
)
def test_classification_does_not_depend_on_the_batches(
    seed: int, rows: int, cuts: list[int], n_classes: int, digits: int
) -> None:
    g = torch.Generator().manual_seed(seed)
    preds = torch.randn(rows, n_classes, generator=g).round(decimals=digits)  # few digits: many ties
    target = torch.randint(0, n_classes, (rows,), generator=g)
    task: Task = "binary" if n_classes == 2 else "multiclass"
    names = MULTICLASS if n_classes > 3 else BINARY
    metrics = MetricSet(names, task, n_classes)
    whole = measure(metrics, preds, target, [])
    other = measure(metrics, preds, target, cuts)
    for name in names:
        if name != "log_loss":  # counts: equal to the last bit
            assert other[name] == whole[name] or np.isnan([other[name], whole[name]]).all()
    assert other["log_loss"] == pytest.approx(whole["log_loss"], rel=1e-12)


CASES: list[tuple[Task, int, tuple[str, ...]]] = [
    ("regression", 0, REGRESSION),
    ("binary", 2, BINARY),
    ("multiclass", 5, MULTICLASS),
]


def example(task: Task, n_classes: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    if task == "regression":
        return torch.randn(64, 1, generator=g), torch.randn(64, 1, generator=g)
    return torch.randn(64, n_classes, generator=g), torch.randint(0, n_classes, (64,), generator=g)


@pytest.mark.parametrize(("task", "n_classes", "names"), CASES)
def test_no_random_number_is_drawn(task: Task, n_classes: int, names: tuple[str, ...]) -> None:
    preds, target = example(task, n_classes)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # type: ignore[index]
    metrics = MetricSet(names, task, n_classes)
    metrics.update(preds, target)
    metrics.compute()
    metrics.reset()
    after = torch.get_rng_state(), np.random.get_state()[1], random.getstate()  # type: ignore[index]
    assert torch.equal(before[0], after[0])
    assert np.array_equal(before[1], after[1])
    assert before[2] == after[2]


@pytest.mark.parametrize(("task", "n_classes", "names"), CASES)
def test_computing_changes_nothing(task: Task, n_classes: int, names: tuple[str, ...]) -> None:
    preds, target = example(task, n_classes)
    straight = measure(MetricSet(names, task, n_classes), preds, target, [20])
    metrics = MetricSet(names, task, n_classes)
    metrics.update(preds[:20], target[:20])
    assert metrics.compute() == metrics.compute()
    metrics.update(preds[20:], target[20:])
    assert metrics.compute() == straight
    assert metrics.rows == 64


@pytest.mark.parametrize(("task", "n_classes", "names"), CASES)
def test_the_inputs_are_left_alone_and_may_be_overwritten(task: Task, n_classes: int, names: tuple[str, ...]) -> None:
    preds, target = example(task, n_classes)
    expected = measure(MetricSet(names, task, n_classes), preds, target, [])
    metrics = MetricSet(names, task, n_classes)
    p, t = preds.clone(), target.clone()
    metrics.update(p, t)
    assert torch.equal(p, preds)
    assert torch.equal(t, target)
    p.zero_()
    t.zero_()
    assert metrics.compute() == expected


@pytest.mark.parametrize(("task", "n_classes", "names"), CASES)
def test_gradients_and_inference_mode(task: Task, n_classes: int, names: tuple[str, ...]) -> None:
    preds, target = example(task, n_classes)
    expected = measure(MetricSet(names, task, n_classes), preds, target, [32])
    metrics = MetricSet(names, task, n_classes)
    with torch.inference_mode():
        metrics.update(preds.clone(), target.clone())
        metrics.compute()
        metrics.reset()
        metrics.update(preds[:32].clone(), target[:32].clone())
    metrics.update(preds[32:].clone().requires_grad_(), target[32:])
    assert metrics.compute() == expected
    assert torch.is_grad_enabled()


def test_where_there_is_no_float64_the_cpu_accumulates() -> None:
    assert accumulation_device("mps") == torch.device("cpu")
    assert accumulation_device("cuda:1") == torch.device("cuda:1")
    metrics = MetricSet(REGRESSION, "regression", device="mps")
    metrics.update(torch.zeros(3), torch.ones(3))
    assert metrics.compute()["mse"] == 1.0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("task", "n_classes", "names"), CASES)
def test_on_cuda(task: Task, n_classes: int, names: tuple[str, ...]) -> None:
    preds, target = example(task, n_classes)
    expected = measure(MetricSet(names, task, n_classes), preds, target, [32])
    metrics = MetricSet(names, task, n_classes, "cuda")
    values = measure(metrics, preds.cuda(), target.cuda(), [32])
    assert values == pytest.approx(expected, rel=1e-12)
    assert measure(metrics, preds, target, [32]) == pytest.approx(expected, rel=1e-12)  # moved there
    own = MetricSet({"mine": lambda p, _t: float(p.numpy().size)}, task, n_classes, "cuda")
    assert measure(own, preds.cuda(), target.cuda(), [32]) == {"mine": preds.numel()}


def test_moments_of_several_processes_merge() -> None:
    g = torch.Generator().manual_seed(5)
    target = torch.randn(50, 2, generator=g, dtype=torch.float64) * 3 + 1000
    preds = target + torch.randn(50, 2, generator=g, dtype=torch.float64)
    whole, first, second = TargetMoments(), TargetMoments(), TargetMoments()
    whole.update(preds, target)
    first.update(preds[:13], target[:13])
    second.update(preds[13:], target[13:])
    merged = merge_moments(torch.stack([first.moments, second.moments]))
    torch.testing.assert_close(merged, whole.moments, rtol=1e-12, atol=0)
    first.merge_state(second)
    torch.testing.assert_close(first.compute(), whole.compute(), rtol=1e-12, atol=0)
