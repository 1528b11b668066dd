"""How much sooner a step is sure to be done as a program, as far as can be told before there is one.

A small network's eager step is mostly the calling of operators, which a program does without: what remains are the
products of matrices, whose time is measured. Where they are no more than a part of what a step is seen to take, and
nothing in the model is known to be slower in a program, the program need not be measured first.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache

import torch
from torch import nn

from stoker.data.trees import leaves
from stoker.engines.plan import Plan
from stoker.engines.step import Step

__all__ = ["product_rate", "slowness", "surely_saved"]

SHARE = 0.6  # beyond so much of a step, the products may be as much slower in a program as the calls are saved
TRIES = 3
LEAST = 1e-3  # seconds of products that are measured
CALLS = 50  # of an operator, in each try at how fast they are made
CALL = 1.1e-6  # seconds of one where thresholds hold as they stand; see docs/performance.md, "By the processor"
MOST = 1 << 24  # multiplications and additions of a product that is measured: a few milliseconds on a slow core


def surely_saved(
    step: Step, plan: Plan, pace: float, rate: Callable[[torch.Tensor, int], float] | None = None
) -> float:
    """Seconds that an update is sure to take less as a program; 0 where that cannot be told.

    Args:
        step: The step.
        plan: Any epoch over the data.
        pace: Seconds of one of its updates, eagerly.
        rate: Tells how many multiplications and additions a second are made with a weight and so many rows;
            :func:`product_rate` if ``None``.
    """
    if any(isinstance(module, (nn.modules.conv._ConvNd, nn.RNNBase)) for module in step.model.modules()):
        return 0.0
    looked_up = {id(m.weight) for m in step.model.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag))}
    weights = [w for w in step.model.parameters() if w.ndim > 1 and id(w) not in looked_up]
    if not weights:
        return pace
    # 2 for each weight and row, forward, for the weights' own gradient, and for their inputs' but where these are data
    widths = {leaf.shape[1:].numel() for leaf in leaves(plan.source.inputs)}
    given = next((weight for weight in weights if weight.shape[1:].numel() in widths), None)
    operations = 2 * plan.rows * sum((2 if weight is given else 3) * weight.numel() for weight in weights)
    largest = max(weights, key=torch.Tensor.numel)
    products = operations / (rate or product_rate)(largest, plan.rows)
    return pace - products if products <= SHARE * pace else 0.0


@torch.no_grad()
def product_rate(weight: torch.Tensor, rows: int) -> float:
    """Multiplications and additions a second of rows times a weight, the best of a few tries.

    Args:
        weight: ``[out, in]``; of more dimensions, all but the first count as one.
        rows: Their number.
    """
    matrix = weight.detach().flatten(1)
    matrix = matrix[: max(1, MOST // (2 * matrix.shape[1])), : MOST // 2]
    rows = max(1, min(rows, MOST // (2 * matrix.numel())))
    inputs = torch.ones(rows, matrix.shape[1], dtype=matrix.dtype)
    best = 0.0
    for _ in range(TRIES):
        began, made = time.perf_counter(), 0
        while (taken := time.perf_counter() - began) < LEAST / TRIES or not made:
            torch.mm(inputs, matrix.T)
            made += 1
        best = max(best, made * 2 * rows * matrix.numel() / taken)
    return best


@cache
@torch.no_grad()
def slowness() -> float:
    """How many times longer an operator's call takes than on the machine where thresholds hold as they stand.

    What those thresholds weigh against each other, an eager step's calls and the making of a program, is code full of
    branches either way, and grows together from one processor to another. The best of a few tries, measured once in a
    process: less than a millisecond.
    """
    number, best = torch.ones(8, device="cpu"), float("inf")
    for _ in range(TRIES + 2):
        began = time.perf_counter()
        for _ in range(CALLS):
            torch.add(number, number)
        best = min(best, (time.perf_counter() - began) / CALLS)
    return best / CALL
