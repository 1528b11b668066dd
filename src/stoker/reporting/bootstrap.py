"""How sure a metric is: the spread of its value over samples of the rows, drawn with replacement.

A sample is held as counts, how often each row was drawn, and a metric of the sample is the metric with these counts as
weights. So nothing is sorted or compared again for each sample, and a thousand of them take a moment.

Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13, the percentile interval.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stoker.errors import ConfigError, DataError
from stoker.randomness import derive_seed

if TYPE_CHECKING:
    from stoker.data.dataset import Task

__all__ = ["LEVEL", "RESAMPLES", "Interval", "bootstrap", "interval", "resampled"]

RESAMPLES = 1000
LEVEL = 0.95
_CELLS = 1 << 18  # of counts at once: 2 MB, which stay in the cache
_WORK = 2e8  # rows x classes x samples that are sorted through for an AUROC; beyond, samples are fewer
_FEWEST = 200  # below that, the 2.5 % on either side would be five samples

Counts: TypeAlias = NDArray[np.float64]
Weighted: TypeAlias = Callable[[Counts], NDArray[np.float64]]


@dataclass(frozen=True)
class Interval:
    """A percentile bootstrap interval.

    Attributes:
        low, high: Its ends.
        samples: How many samples it is made of; those in which the metric is not defined do not count.
        level: How much of them lies within.
    """

    low: float
    high: float
    samples: int
    level: float = LEVEL


def resampled(rows: int, samples: int, seed: int) -> Iterator[Counts]:
    """How often each row is drawn, sample by sample; the same for the same arguments.

    Args:
        rows: How many rows there are; each sample has as many.
        samples: How many samples.
        seed: Of the draws.

    Yields:
        float64 arrays ``[some, rows]``, ``samples`` rows of them in all.
    """
    rng = np.random.default_rng(derive_seed(seed, "bootstrap", rows))
    block = max(1, min(samples, _CELLS // max(1, rows)))
    for start in range(0, samples, block):
        size = min(block, samples - start)
        drawn = rng.integers(0, rows, (size, rows)) + rows * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * rows).reshape(size, rows).astype(np.float64)


def bootstrap(
    names: list[str], outputs: Any, target: Any, task: Task, *, samples: int = RESAMPLES, seed: int = 0
) -> dict[str, NDArray[np.float64]]:
    """The metrics of samples of the rows.

    Args:
        names: As in :data:`stoker.metrics.registry.METRICS`. Names that are not among them, such as ``loss``, are left
            out of the result.
        outputs: Regression: predictions ``[n, 1]``. Classification: logits ``[n, n_classes]``.
        target: Regression: ``[n, 1]``. Classification: class indices ``[n]``.
        task: The task.
        samples: How many; fewer, but no fewer than 200, where rows and classes are so many that it would take minutes.
        seed: Of the draws. Two models measured on the same rows get the same samples, so that their differences may be
            compared sample by sample.

    Returns:
        By name the metric in each sample, NaN where it is not defined, such as the AUROC of a single class.

    Raises:
        ConfigError: ``samples`` is less than 1.
        DataError: There are no rows, or as many outputs as targets there are not.
    """
    if samples < 1:
        raise ConfigError("samples", "must be at least 1", samples)
    preds, true = np.asarray(outputs, np.float64), np.asarray(target)
    if len(preds) != len(true) or not len(true):
        raise DataError("bootstrap", "needs as many outputs as targets, and at least one", f"{len(preds)}, {len(true)}")
    rows, width = len(true), (1 if task == "regression" else preds.shape[1])
    if "auroc" in names:
        samples = int(np.clip(_WORK // (rows * width), min(_FEWEST, samples), samples))
    weighted = _regression(names, preds, true) if task == "regression" else _classification(names, preds, true, task)
    parts: dict[str, list[NDArray[np.float64]]] = {name: [] for name in weighted}
    for counts in resampled(rows, samples, seed) if weighted else ():
        for name, metric in weighted.items():
            parts[name].append(metric(counts))
    return {name: np.concatenate(values) for name, values in parts.items()}


def interval(values: NDArray[np.float64], level: float = LEVEL) -> Interval | None:
    """The middle of some samples' metrics: from the quantile ``(1 - level) / 2`` to ``(1 + level) / 2``.

    Returns:
        The interval; ``None`` if the metric is defined in fewer than half of the samples, for what those say would be
        of other data.
    """
    defined = values[np.isfinite(values)]
    if 2 * len(defined) < len(values) or not len(defined):
        return None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), len(defined), level)


def _regression(names: list[str], preds: NDArray[Any], target: NDArray[Any]) -> dict[str, Weighted]:
    true = target.reshape(len(target)).astype(np.float64)
    error = true - preds.reshape(len(true))
    if not np.isfinite(error).all():
        return {}
    squares, far = error**2, true - true.mean()

    def mse(counts: Counts) -> NDArray[np.float64]:
        return np.asarray(counts @ squares / len(true))

    def r2(counts: Counts) -> NDArray[np.float64]:
        middle = counts @ far / len(true)
        spread = counts @ far**2 - len(true) * middle**2
        # the mean of equal numbers is off by some last bits, and their spread then not 0
        spread[spread <= 1e-12 * max(1e-300, float(far @ far))] = np.nan
        return np.asarray(1 - counts @ squares / spread)

    known: dict[str, Weighted] = {
        "mse": mse,
        "rmse": lambda counts: np.sqrt(mse(counts)),
        "mae": lambda counts: counts @ np.abs(error) / len(true),
        "r2": r2,
    }
    return {name: known[name] for name in names if name in known}


def _classification(names: list[str], logits: NDArray[Any], target: NDArray[Any], task: Task) -> dict[str, Weighted]:
    if np.isnan(logits).any():
        return {}
    true = target.astype(np.int64)
    chosen: dict[str, Weighted] = {}
    for name in names:
        if name == "accuracy":
            chosen[name] = _mean((logits.argmax(axis=1) == true).astype(np.float64))
        elif match := re.fullmatch(r"top(\d+)_accuracy", name):
            above = (logits > logits[np.arange(len(true)), true][:, None]).sum(axis=1)
            chosen[name] = _mean((above < int(match[1])).astype(np.float64))
        elif name == "log_loss":
            chosen[name] = _mean(_log_normaliser(logits) - logits[np.arange(len(true)), true])
        elif name == "f1":
            chosen[name] = _f1(logits.argmax(axis=1), true, logits.shape[1], binary=task == "binary")
        elif name == "auroc":
            chosen[name] = _auroc(logits, true)
    return chosen


def _log_normaliser(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    largest = logits.max(axis=1, keepdims=True)
    return np.asarray(np.log(np.exp(logits - largest).sum(axis=1)) + largest[:, 0])


def _mean(values: NDArray[np.float64]) -> Weighted:
    return lambda counts: counts @ values / len(values)


def _f1(predicted: NDArray[np.int64], true: NDArray[np.int64], n_classes: int, *, binary: bool) -> Weighted:
    """As :func:`stoker.metrics.scores.binary_f1` and ``macro_f1`` have it."""
    from scipy.sparse import csr_matrix

    def indicator(classes: NDArray[np.int64], rows: NDArray[np.int64]) -> Any:
        return csr_matrix((np.ones(len(rows)), (classes, rows)), shape=(n_classes, len(true)))

    everyone = np.arange(len(true))
    hit = np.flatnonzero(predicted == true)
    right = indicator(true[hit], hit)
    either = indicator(true, everyone) + indicator(predicted, everyone)

    def f1(counts: Counts) -> NDArray[np.float64]:
        with np.errstate(invalid="ignore", divide="ignore"):
            by_class = 2 * (right @ counts.T) / (either @ counts.T)  # 0/0 where a class neither occurs nor is predicted
        if binary:
            return np.asarray(by_class[1])
        return np.asarray(np.nansum(by_class, axis=0) / np.isfinite(by_class).sum(axis=0))

    return f1


def _auroc(logits: NDArray[np.float64], true: NDArray[np.int64]) -> Weighted:
    """As :func:`stoker.metrics.scores.auroc`: of class 1 of two, else the mean over the classes that occur."""
    if logits.shape[1] == 2:
        area = _separation(logits[:, 1] - logits[:, 0], true == 1)
        return lambda counts: area(counts.astype(np.float32))
    scores = logits - _log_normaliser(logits)[:, None]
    areas = [_separation(scores[:, index], true == index) for index in np.unique(true)]

    def auroc(counts: Counts) -> NDArray[np.float64]:
        small = counts.astype(np.float32)
        total, occurring = np.zeros(len(counts)), np.zeros(len(counts))
        for area in areas:
            values = area(small)
            occurring += np.isfinite(values)
            total += np.nan_to_num(values)
        return np.asarray(np.divide(total, occurring, out=np.full(len(counts), np.nan), where=occurring > 0))

    return auroc


def _separation(
    scores: NDArray[np.float64], positive: NDArray[np.bool_]
) -> Callable[[NDArray[np.float32]], NDArray[np.float64]]:
    """The chance that a positive row scores above a negative one, ties counting half.

    float32 holds sums of counts exactly up to 2²⁴ rows, and half as much memory is gone through.
    """
    above, negatives = np.flatnonzero(positive), np.flatnonzero(~positive)
    below = negatives[np.argsort(scores[negatives], kind="stable")]
    won, won_or_tied = (np.searchsorted(scores[below], scores[above], side) for side in ("left", "right"))

    def separation(counts: NDArray[np.float32]) -> NDArray[np.float64]:
        passed = np.zeros((len(counts), len(below) + 1), np.float32)  # how many negative rows are below
        np.cumsum(counts[:, below], axis=1, out=passed[:, 1:])
        weight = counts[:, above].astype(np.float64)
        wins = (weight * (passed[:, won] + passed[:, won_or_tied])).sum(axis=1) / 2
        pairs = weight.sum(axis=1) * passed[:, -1]
        return np.asarray(np.divide(wins, pairs, out=np.full(len(counts), np.nan), where=pairs > 0))

    return separation
