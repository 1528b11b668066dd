"""torch's type promotion over JAX arrays, against torch.result_type."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from stoker.engines.xla.dtypes import cast, from_torch, jax_dtype, promoted_float, result_dtype, torch_dtype
from stoker.errors import LoweringError

DTYPES = [
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
]
OPERANDS: list[Any] = [
    *(torch.ones(2, dtype=dtype) for dtype in DTYPES),
    *(torch.ones((), dtype=dtype) for dtype in DTYPES),
    *(True, 2, 2.5),
]


def as_jax(operand: Any) -> Any:
    return jnp.asarray(from_torch(operand)) if isinstance(operand, torch.Tensor) else operand


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_keep_values_and_dtype(dtype: torch.dtype) -> None:
    tensor = torch.tensor([[0, 1, 1], [2, 3, 100]]).to(dtype).t()
    array = from_torch(tensor)
    assert array.dtype == jax_dtype(dtype)
    with jax.enable_x64(True):
        assert torch_dtype(jnp.asarray(array)) == dtype
    np.testing.assert_array_equal(array.astype("float64"), tensor.double().numpy())


def test_every_pair_promotes_as_in_torch() -> None:
    with jax.enable_x64(True):
        for a, b in itertools.product(OPERANDS, OPERANDS):
            assert result_dtype(as_jax(a), as_jax(b)) == torch.result_type(a, b), (a, b)


def test_division_is_floating() -> None:
    with jax.enable_x64(True):
        for a, b in itertools.product(OPERANDS[: len(DTYPES)], [*OPERANDS[: len(DTYPES)], 2]):
            assert torch_dtype(promoted_float(as_jax(a), as_jax(b))[0]) == (a / b).dtype, (a, b)


def test_casts_truncate_and_compare_with_zero() -> None:
    values = torch.tensor([-1.7, -0.2, 0.0, 0.9, 2.5])
    for dtype in (torch.int64, torch.bool, torch.float64):
        with jax.enable_x64(True):
            np.testing.assert_array_equal(cast(as_jax(values), dtype), values.to(dtype).numpy())


def test_complex_numbers_are_refused() -> None:
    rule = "dtype: must be a real number's, an integer's or bool, got torch.complex64"
    with pytest.raises(LoweringError, match=rule):
        jax_dtype(torch.complex64)
