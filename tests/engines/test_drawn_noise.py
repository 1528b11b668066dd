"""The numbers that a program draws, made without one."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
import torch

from stoker.engines.xla.device import CPU, on
from stoker.engines.xla.dtypes import from_torch
from stoker.engines.xla.noise import drawn
from stoker.engines.xla.table import LOWERINGS, RANDOM

X = torch.linspace(0.05, 0.95, 15).reshape(3, 5)
SAMPLES: dict[str, list[tuple[Any, ...]]] = {
    "bernoulli.p": [(X, 0.3), (X, X)],
    "rand.default": [([3, 5],), ([],), ([0, 2],)],
    "rand_like.default": [(X,)],
    "randn.default": [([3, 5],)],
    "randn_like.default": [(X,)],
    "uniform.default": [(X, -2.0, 3.0)],
    "normal_functional.default": [(X, 1.0, 2.0)],
    "normal.Tensor_Tensor": [(X, X + 1)],
    "normal.Tensor_float": [(X, 2.0)],
    "normal.float_Tensor": [(1.0, X)],
    "rrelu_with_noise_functional.default": [(X - 0.5, X, 0.1, 0.4, True)],
    "exponential.default": [(X, 2.0)],
    "randint.low": [(-3, 9, [3, 5])],
    "randint.default": [(7, [3, 5])],
    "randperm.default": [(9,)],
}
SEED, FOLDS = 2**31 - 5, (1000, 3)


def by_jax(name: str, args: Any, impl: str | None = None) -> list[Any]:
    """Compiled, as within a program."""

    def run(seed: Any) -> Any:
        key = jax.random.key(seed, impl=impl)
        for fold in FOLDS:
            key = jax.random.fold_in(key, fold)
        arrays = [from_torch(one) if isinstance(one, torch.Tensor) else one for one in args]
        return LOWERINGS[name](*arrays, key=key)

    with on(CPU):
        return jax.tree.leaves(jax.jit(run)(np.int32(SEED)))


def cast(args: tuple[Any, ...], dtype: torch.dtype) -> tuple[Any, ...]:
    return tuple(one.to(dtype) if isinstance(one, torch.Tensor) else one for one in args)


OTHERS = ("bernoulli.p", "rand_like.default", "randn_like.default")
CASES = [(name, torch.float32) for name in SAMPLES] + [
    (name, dtype) for name in OTHERS for dtype in (torch.float64, torch.bfloat16)
]


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_they_are_jaxs(name: str, dtype: torch.dtype) -> None:
    for sample in SAMPLES[name]:
        args = cast(sample, dtype)
        found, wanted = drawn(f"aten.{name}", args, {}, SEED, FOLDS), by_jax(f"aten.{name}", args)
        for mine, theirs in zip(found if isinstance(found, tuple) else [found], wanted, strict=True):
            assert mine.shape == theirs.shape
            assert from_torch(mine).dtype == theirs.dtype
            tolerance = {torch.float32: 2e-5, torch.float64: 1e-12, torch.bfloat16: 2e-2}.get(mine.dtype, 0.0)
            exact = name.startswith(("rand_like", "rand.", "randint", "randperm", "bernoulli"))
            ours, its = from_torch(mine).astype(float), np.asarray(theirs).astype(float)
            np.testing.assert_allclose(ours, its, rtol=0 if exact else tolerance, atol=0 if exact else tolerance / 4)


def test_there_is_a_sample_of_each() -> None:
    assert {f"aten.{name}" for name in SAMPLES} == RANDOM


def test_another_generator_is_asked_itself() -> None:
    with jax.default_prng_impl("rbg"):
        found = drawn("aten.rand_like.default", (X,), {}, SEED, FOLDS)
    (wanted,) = by_jax("aten.rand_like.default", (X,), "rbg")
    np.testing.assert_array_equal(found.numpy(), wanted)
