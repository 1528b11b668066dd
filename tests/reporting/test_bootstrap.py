"""Intervals: what is weighted equals what is resampled, and the percentiles are those of other libraries."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from stoker.data.dataset import Task
from stoker.errors import ConfigError, DataError
from stoker.metrics.metric_set import MetricSet
from stoker.reporting.bootstrap import bootstrap, interval, resampled

NAMES: dict[Task, list[str]] = {
    "regression": ["mse", "rmse", "mae", "r2"],
    "binary": ["accuracy", "f1", "auroc", "log_loss"],
    "multiclass": ["accuracy", "top3_accuracy", "f1", "auroc", "log_loss"],
}


def rows(task: Task, n: int, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs and targets that have something to do with each other, with ties among the scores."""
    torch.manual_seed(3)
    if task == "regression":
        target = torch.randn(n, 1, dtype=torch.float64) * 3 + 100
        return target + torch.randn(n, 1, dtype=torch.float64), target
    width = 2 if task == "binary" else classes
    target = torch.randint(0, width, (n,))
    logits = torch.randn(n, width, dtype=torch.float64) + 1.2 * torch.nn.functional.one_hot(target, width)
    return (logits * 4).round() / 4, target


@pytest.mark.parametrize("n", [4, 60])
@pytest.mark.parametrize("task", ["regression", "binary", "multiclass"])
def test_a_metric_of_a_sample_is_the_metric_of_its_rows(task: Task, n: int) -> None:
    outputs, target = rows(task, n)
    names, samples = NAMES[task], 25
    if n == 4:
        names = [name for name in names if name != "top3_accuracy"]
    found = bootstrap(names, outputs.numpy(), target.numpy(), task, samples=samples, seed=7)
    counts = np.concatenate(list(resampled(n, samples, 7)))
    assert counts.sum(axis=1).tolist() == [n] * samples
    for sample in range(samples):
        drawn = torch.from_numpy(np.repeat(np.arange(n), counts[sample].astype(int)))
        metrics = MetricSet(names, task, 0 if task == "regression" else outputs.shape[1])
        metrics.update(outputs[drawn], target[drawn])
        for name, value in metrics.compute().items():
            assert found[name][sample] == pytest.approx(value, rel=1e-9, abs=1e-12, nan_ok=True), name


def test_the_interval_of_a_mean_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    errors = rng.exponential(1.0, 200)
    found = interval(bootstrap(["mae"], errors[:, None], np.zeros((200, 1)), "regression", samples=4000)["mae"])
    theirs = stats.bootstrap(
        (errors,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert found is not None
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.02)
    assert (found.samples, found.level) == (4000, 0.95)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng, held = np.random.default_rng(0), 0
    for trial in range(200):
        hits = rng.random(150) < 0.8
        logits = np.stack([np.zeros(150), np.where(hits, 1.0, -1.0)], axis=1)
        samples = bootstrap(["accuracy"], logits, np.ones(150, int), "binary", samples=300, seed=trial)["accuracy"]
        found = interval(samples)
        assert found is not None
        held += found.low <= 0.8 <= found.high
    assert 180 <= held <= 198  # of 200; 95 % would be 190


def test_the_same_seed_gives_the_same_samples_and_another_others() -> None:
    outputs, target = rows("regression", 50)
    first, again, other = (
        bootstrap(["rmse"], outputs, target, "regression", samples=100, seed=seed)["rmse"] for seed in (1, 1, 2)
    )
    assert (first == again).all()
    assert (first != other).any()


def test_what_is_not_defined_has_no_interval() -> None:
    logits = np.array([[0.0, 1.0]] * 20)
    found = bootstrap(["auroc", "accuracy"], logits, np.ones(20, int), "binary", samples=100)
    assert interval(found["auroc"]) is None  # one class only
    assert interval(found["accuracy"]) is not None
    constant = bootstrap(["r2", "mae"], np.zeros((9, 1)), np.full((9, 1), 0.1), "regression", samples=100)
    assert interval(constant["r2"]) is None
    assert bootstrap(["mae"], np.array([[np.nan]]), np.zeros((1, 1)), "regression") == {}
    assert bootstrap(["log_loss"], np.array([[np.nan, 0]]), np.zeros(1, int), "binary") == {}


def test_many_rows_and_classes_get_fewer_samples_of_an_auroc() -> None:
    outputs, target = rows("multiclass", 2000, classes=150)
    assert len(bootstrap(["auroc"], outputs, target, "multiclass", samples=1000)["auroc"]) == 666
    assert len(bootstrap(["accuracy"], outputs, target, "multiclass", samples=1000)["accuracy"]) == 1000


def test_names_that_are_not_metrics_are_left_out() -> None:
    assert list(bootstrap(["loss", "mae"], np.zeros((3, 1)), np.ones((3, 1)), "regression", samples=9)) == ["mae"]


def test_bad_arguments() -> None:
    with pytest.raises(ConfigError, match="samples: must be at least 1, got 0"):
        bootstrap(["mae"], np.zeros((3, 1)), np.ones((3, 1)), "regression", samples=0)
    with pytest.raises(DataError, match="needs as many outputs as targets, and at least one, got 3, 2"):
        bootstrap(["mae"], np.zeros((3, 1)), np.ones((2, 1)), "regression")
    with pytest.raises(DataError, match="at least one, got 0, 0"):
        bootstrap(["mae"], np.zeros((0, 1)), np.ones((0, 1)), "regression")
