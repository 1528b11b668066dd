"""Dtypes and tensors between torch and JAX, and torch's type promotion over JAX arrays.

torch and JAX promote differently: to torch a 0-d tensor and a Python number yield to a tensor with dimensions of the
same or a higher category (bool < integer < floating), and ``int64 / int64`` is float32. This is torch's rule:
https://docs.pytorch.org/docs/stable/tensor_attributes.html#type-promotion-doc
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import torch
from jax import Array, lax

from stoker.errors import LoweringError

__all__ = [
    "cast",
    "cast_to",
    "from_torch",
    "jax_dtype",
    "promoted",
    "promoted_float",
    "result_dtype",
    "torch_dtype",
    "widened",
]

Number = bool | int | float

_JAX: dict[torch.dtype, np.dtype[Any]] = {
    torch.bool: np.dtype(bool),
    torch.uint8: np.dtype(np.uint8),
    torch.int8: np.dtype(np.int8),
    torch.int16: np.dtype(np.int16),
    torch.int32: np.dtype(np.int32),
    torch.int64: np.dtype(np.int64),
    torch.float16: np.dtype(np.float16),
    torch.bfloat16: jnp.dtype(jnp.bfloat16),
    torch.float32: np.dtype(np.float32),
    torch.float64: np.dtype(np.float64),
}
_TORCH = {dtype: ours for ours, dtype in _JAX.items()}


def jax_dtype(dtype: torch.dtype) -> np.dtype[Any]:
    """The same dtype for JAX.

    Raises:
        LoweringError: XLA's programs are not made for it: complex and quantised numbers.
    """
    if dtype not in _JAX:
        raise LoweringError("dtype", "must be a real number's, an integer's or bool", str(dtype))
    return _JAX[dtype]


def torch_dtype(value: Array | Number) -> torch.dtype:
    """The dtype of an array, or the one that torch gives a tensor made of a Python number."""
    if isinstance(value, bool):
        return torch.bool
    if isinstance(value, int):
        return torch.int64
    if isinstance(value, float):
        return torch.get_default_dtype()
    return _TORCH[np.dtype(value.dtype)]


def from_torch(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """A tensor's values on the host, of the same shape and dtype (bfloat16 as JAX's own)."""
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        bits: np.ndarray[Any, Any] = tensor.view(torch.int16).numpy()
        return bits.view(jax_dtype(torch.bfloat16))
    return tensor.numpy().astype(jax_dtype(tensor.dtype), copy=False)


def cast(value: Array | Number, dtype: torch.dtype) -> Array:
    """An array of a dtype; floating numbers become integers by truncation and bools by ``!= 0``, as in torch."""
    return cast_to(value, jax_dtype(dtype))


def cast_to(value: Array | Number, dtype: np.dtype[Any]) -> Array:
    """As :func:`cast`, to a dtype of JAX's."""
    if isinstance(value, Number):
        with np.errstate(over="ignore"):  # too large a number is infinite
            return jnp.asarray(np.asarray(value).astype(dtype))
    if np.dtype(value.dtype) == dtype:
        return value
    if dtype == np.dtype(bool):
        return value != 0
    return lax.convert_element_type(value, dtype)


def result_dtype(*values: Array | Number) -> torch.dtype:
    """The dtype that torch computes in, given these operands.

    Tensors with dimensions decide; 0-d tensors, and after them numbers, only where they are of a higher category.
    """
    dims: torch.dtype | None = None
    zeros: torch.dtype | None = None
    numbers: torch.dtype | None = None
    for value in values:
        dtype = torch_dtype(value)
        if isinstance(value, Number):
            numbers = _promoted(numbers, dtype)
        elif jnp.ndim(value):
            dims = _promoted(dims, dtype)
        else:
            zeros = _promoted(zeros, dtype)
    return _yielding(dims, _yielding(zeros, numbers)) or torch.get_default_dtype()


def promoted(*values: Array | Number) -> list[Array]:
    """The operands in the dtype that torch computes in, not yet broadcast."""
    dtype = result_dtype(*values)
    return [cast(value, dtype) for value in values]


def promoted_float(*values: Array | Number) -> list[Array]:
    """The same for operators whose result is always floating: integers become torch's default dtype."""
    dtype = result_dtype(*values)
    if not dtype.is_floating_point:
        dtype = torch.get_default_dtype()
    return [cast(value, dtype) for value in values]


def widened(x: Array) -> Array:
    """Half precision as float32, which torch accumulates it in; anything else as it is."""
    return cast(x, torch.float32) if torch_dtype(x) in (torch.float16, torch.bfloat16) else x


def _promoted(a: torch.dtype | None, b: torch.dtype) -> torch.dtype:
    return b if a is None else torch.promote_types(a, b)


def _yielding(strong: torch.dtype | None, weak: torch.dtype | None) -> torch.dtype | None:
    """The dtype of operands of which some decide, and others yield to them within a category."""
    if strong is None or weak is None:
        return strong or weak
    if _category(weak) > _category(strong):
        return weak
    return strong


def _category(dtype: torch.dtype) -> int:
    return 2 if dtype.is_floating_point else int(dtype != torch.bool)
