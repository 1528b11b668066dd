"""Matrix products, in the precision that torch is set to (``torch.set_float32_matmul_precision``): full by default."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import torch
from jax import Array, lax

from stoker.engines.turning import is_better_turned
from stoker.engines.xla.dtypes import Number, cast, torch_dtype
from stoker.engines.xla.table import lowering

__all__ = ["precision"]

LONG, SMALL = 512, 2**16
"""Terms of a sum, and size of a product, from and up to which the copy was measured to be worth it."""


def precision() -> lax.Precision:
    """How exactly float32 numbers are multiplied where the hardware has faster, rougher ways."""
    exactness = {"highest": lax.Precision.HIGHEST, "high": lax.Precision.HIGH, "medium": lax.Precision.DEFAULT}
    return exactness[torch.get_float32_matmul_precision()]


@lowering("mm.default", "bmm.default")
def _mm(a: Array, b: Array) -> Array:
    """The product. A weight's gradient ``gᵀ x`` sums over all rows; on CPUs that is faster with a copy of ``gᵀ``.

    But for a weight that is kept turned: its gradient is ``xᵀ g``, which is faster still.
    """
    rows, columns, terms = a.shape[-2], b.shape[-1], a.shape[-1]
    long = a.ndim == 2 and terms >= LONG and rows * columns <= SMALL
    if long and not is_better_turned(rows, columns) and jax.default_backend() == "cpu":
        a = lax.optimization_barrier(a)  # type: ignore[no-untyped-call]  # else XLA works on the transposed one
    return jnp.matmul(a, b, precision=precision())


@lowering("addmm.default", "addmv.default")
def _addmm(start: Array, a: Array, b: Array, *, beta: Number = 1, alpha: Number = 1) -> Array:
    """``beta · start + alpha · a b``; what ``beta = 0`` multiplies is not looked at, be it NaN."""
    product = _mm(a, b)
    if alpha != 1:
        product = product * cast(alpha, torch_dtype(product))
    if beta == 0:
        return product
    return (start if beta == 1 else start * cast(beta, torch_dtype(start))) + product


@lowering("addbmm.default")
def _addbmm(start: Array, a: Array, b: Array, *, beta: Number = 1, alpha: Number = 1) -> Array:
    """``beta · start + alpha · Σ_i a_i b_i``."""
    rows, columns = a.shape[1], b.shape[2]
    flat_a = jnp.swapaxes(a, 0, 1).reshape(rows, a.shape[0] * a.shape[2])
    return _addmm(start, flat_a, b.reshape(b.shape[0] * b.shape[1], columns), beta=beta, alpha=alpha)


@lowering("_trilinear.default")
def _trilinear(
    a: Array,
    b: Array,
    c: Array,
    expand1: Sequence[int],
    expand2: Sequence[int],
    expand3: Sequence[int],
    sumdim: Sequence[int],
    unroll_dim: int = 1,
) -> Array:
    """The product of three tensors, each with new dimensions at the given places, summed over some."""
    del unroll_dim
    dims = a.ndim + len(expand1)
    letters = "abcdefghijklmnopqrstuvwxyz"[:dims]
    terms = ["".join(letter for i, letter in enumerate(letters) if i not in new) for new in (expand1, expand2, expand3)]
    result = "".join(letter for i, letter in enumerate(letters) if i not in sumdim)
    return jnp.einsum(f"{','.join(terms)}->{result}", a, b, c, precision=precision())


@lowering("_cdist_forward.default")
def _cdist(a: Array, b: Array, p: Number, compute_mode: int | None) -> Array:
    """The p-norms of all differences between rows of ``a`` and rows of ``b``."""
    del compute_mode
    apart = jnp.abs(a[..., :, None, :] - b[..., None, :, :])
    if p == 0:
        return jnp.sum(apart != 0, -1).astype(a.dtype)
    if p == float("inf"):
        return jnp.max(apart, -1, initial=0)
    return jnp.power(jnp.sum(jnp.power(apart, p), -1), 1 / p)


@lowering("_cdist_backward.default")
def _cdist_backward(grad: Array, a: Array, b: Array, p: Number, distances: Array) -> Array:
    """The gradient of ``a``: 0 where rows are equal."""
    apart = a[..., :, None, :] - b[..., None, :, :]
    distances = distances[..., None]
    there = distances != 0
    safe = jnp.where(there, distances, 1)
    if p == 0:
        share = jnp.zeros_like(apart)
    elif p == float("inf"):
        share = jnp.sign(apart) * (jnp.abs(apart) == distances)
    else:
        share = jnp.sign(apart) * jnp.power(jnp.abs(apart) / safe, p - 1)
    of_rows = jnp.sum(jnp.where(there, share * grad[..., None], 0), -2)
    new = of_rows.ndim - a.ndim  # the batch dimensions of b may have been more, or longer
    of_rows = jnp.sum(of_rows, tuple(range(new)))
    stretched = tuple(i for i in range(a.ndim - 2) if a.shape[i] == 1 != of_rows.shape[i])
    return jnp.sum(of_rows, stretched, keepdims=True)
