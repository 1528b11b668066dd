"""Random operators: torch's distributions, from a key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lowered import run
from scipy import stats
from torch import Tensor

from stoker.engines.decompositions import trace
from stoker.errors import LoweringError

N = 4000
DRAWS: dict[str, tuple[Callable[[Tensor], Tensor], Any]] = {
    "rand": (lambda _: torch.rand(N), stats.uniform()),
    "rand_like": (torch.rand_like, stats.uniform()),
    "uniform": (lambda _: torch.empty(N).uniform_(-1, 3), stats.uniform(-1, 4)),
    "randn": (lambda _: torch.randn(N), stats.norm()),
    "randn_like": (torch.randn_like, stats.norm()),
    "normal": (lambda _: torch.empty(N).normal_(2, 0.5), stats.norm(2, 0.5)),
    "normal of tensors": (lambda x: torch.normal(x + 1, x + 2), stats.norm(1, 2)),
    "normal of means": (lambda x: torch.normal(x + 1, 0.5), stats.norm(1, 0.5)),
    "normal of deviations": (lambda x: torch.normal(1.0, x + 0.5), stats.norm(1, 0.5)),
    "exponential": (lambda _: torch.empty(N).exponential_(2), stats.expon(scale=0.5)),
    "rrelu": (lambda x: -F.rrelu(x - 1, 0.25, 0.5, training=True), stats.uniform(0.25, 0.25)),
}
COUNTS: dict[str, tuple[Callable[[Tensor], Tensor], dict[float, float]]] = {
    "bernoulli": (lambda _: torch.empty(N).bernoulli_(0.2), {0: 0.8, 1: 0.2}),
    "bernoulli of a tensor": (lambda x: torch.bernoulli(x + 0.2), {0: 0.8, 1: 0.2}),
    "dropout": (lambda x: F.dropout(x + 1, 0.75), {0: 0.75, 4: 0.25}),
    "randint": (lambda _: torch.randint(3, (N,)).float(), {0: 1 / 3, 1: 1 / 3, 2: 1 / 3}),
    "randint from": (lambda _: torch.randint(4, 6, (N,)).float(), {4: 0.5, 5: 0.5}),
}


def drawn(function: Callable[[Tensor], Tensor], seed: int = 0) -> Any:
    (values,) = run(trace(function, torch.zeros(N)), torch.zeros(N), seed=seed)
    return values


@pytest.mark.parametrize("name", DRAWS)
def test_numbers_follow_the_distribution(name: str) -> None:
    function, distribution = DRAWS[name]
    values = drawn(function)
    assert values.dtype == np.float32
    assert stats.kstest(values, distribution.cdf).pvalue > 0.001


@pytest.mark.parametrize("name", COUNTS)
def test_counts_follow_the_distribution(name: str) -> None:
    function, expected = COUNTS[name]
    values = drawn(function)
    found = [int((values == value).sum()) for value in expected]
    assert sum(found) == N
    assert stats.chisquare(found, [share * N for share in expected.values()]).pvalue > 0.001


def test_a_permutation_has_each_number_once() -> None:
    order = drawn(lambda _: torch.randperm(N))
    assert order.dtype == np.int64
    assert order.tolist() != list(range(N))
    assert sorted(order.tolist()) == list(range(N))


def test_same_key_same_numbers_and_no_two_operators_alike() -> None:
    twice: Callable[[Tensor], Tensor] = lambda x: torch.stack([torch.rand_like(x), torch.rand_like(x)])  # noqa: E731
    first, again, other = drawn(twice), drawn(twice), drawn(twice, seed=1)
    np.testing.assert_array_equal(first, again)
    assert (first[0] == first[1]).mean() < 0.01, "two operators of a graph draw different numbers"
    assert (first == other).mean() < 0.01, "another key, other numbers"


def test_the_gradient_passes_where_dropout_kept() -> None:
    def function(x: Tensor) -> tuple[Tensor, Tensor]:
        leaf = x.detach().requires_grad_()
        out = F.dropout(leaf, 0.5)
        (gradient,) = torch.autograd.grad(out.sum(), leaf)
        return out.detach(), gradient

    out, gradient = run(trace(function, torch.ones(N)), torch.ones(N))
    np.testing.assert_array_equal(out, gradient)
    assert set(out.tolist()) == {0.0, 2.0}


def test_without_a_key_it_says_what_draws() -> None:
    from stoker.engines.xla.interpret import to_jax

    program = to_jax(trace(lambda x: torch.rand_like(x), torch.zeros(2)))
    with pytest.raises(LoweringError, match=r"key: must be given, because aten\.rand.* draws random numbers, got None"):
        program(np.zeros(2, np.float32))
