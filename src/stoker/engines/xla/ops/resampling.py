"""Means and interpolations whose windows follow from the sizes: a fixed matrix along each dimension.

``y = A x`` along a dimension, and the gradient ``Aᵀ g``. The matrices are small next to the values, and constants.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from stoker.engines.xla.ops.matrix import precision
from stoker.engines.xla.table import lowering

__all__: list[str] = []

Matrix = np.ndarray[tuple[int, int], np.dtype[np.float64]]
Sizes = Sequence[int]


def _along(x: Array, matrices: Sequence[Matrix]) -> Array:
    """Each matrix ``[out, in]`` applied along one of the last dimensions."""
    for i, matrix in enumerate(matrices):
        axis = x.ndim - len(matrices) + i
        exact = jnp.asarray(matrix, x.dtype)
        x = jnp.moveaxis(jnp.tensordot(x, exact, ((axis,), (1,)), precision=precision()), -1, axis)
    return x


def _mean_matrix(size: int, outputs: int) -> Matrix:
    """Means over ``[⌊i · size / outputs⌋, ⌈(i + 1) · size / outputs⌉)``."""
    matrix = np.zeros((outputs, size))
    for i in range(outputs):
        first, last = i * size // outputs, -(-(i + 1) * size // outputs)
        matrix[i, first:last] = 1 / (last - first)
    return matrix


@lowering("_adaptive_avg_pool2d.default", "_adaptive_avg_pool3d.default")
def _adaptive_avg_pool(x: Array, output_size: Sizes) -> Array:
    sizes = x.shape[-len(output_size) :]
    return _along(x, [_mean_matrix(size, outputs) for size, outputs in zip(sizes, output_size, strict=True)])


@lowering("_adaptive_avg_pool2d_backward.default")
def _adaptive_avg_pool2d_backward(grad: Array, x: Array) -> Array:
    return _adaptive_backward(grad, x, 2)


@lowering("_adaptive_avg_pool3d_backward.default")
def _adaptive_avg_pool3d_backward(grad: Array, x: Array) -> Array:
    return _adaptive_backward(grad, x, 3)


def _adaptive_backward(grad: Array, x: Array, dims: int) -> Array:
    pairs = zip(x.shape[-dims:], grad.shape[-dims:], strict=True)
    return _along(grad, [_mean_matrix(size, outputs).T for size, outputs in pairs])


def _nearest_matrix(size: int, outputs: int, scale: float | None, offset: float) -> Matrix:
    """``⌊(i + offset) · scale⌋``, in single precision whatever the dtype, as torch reckons it."""
    step = np.float32(size / outputs if scale is None else 1 / scale)
    places = ((np.arange(outputs, dtype=np.float32) + np.float32(offset)) * step).astype(np.int64)
    matrix = np.zeros((outputs, size))
    matrix[np.arange(outputs), np.minimum(places, size - 1)] = 1
    return matrix


def _linear_matrix(size: int, outputs: int, scale: float | None, align_corners: bool, dtype: Any) -> Matrix:
    """Between the two nearest."""
    places = np.maximum(_places(size, outputs, scale, align_corners, dtype), 0)
    lower = np.minimum(places.astype(np.int64), size - 1)
    upper = np.minimum(lower + 1, size - 1)
    matrix = np.zeros((outputs, size))
    np.add.at(matrix, (np.arange(outputs), lower), 1 - (places - lower))
    np.add.at(matrix, (np.arange(outputs), upper), places - lower)
    return matrix


def _cubic_matrix(size: int, outputs: int, scale: float | None, align_corners: bool, dtype: Any) -> Matrix:
    """Between the four nearest, by Keys' kernel with ``a = -0.75``; beyond the edge the edge counts."""
    places = _places(size, outputs, scale, align_corners, dtype)
    lower = np.floor(places)
    matrix = np.zeros((outputs, size))
    for tap in (-1, 0, 1, 2):
        x = np.abs(places - lower - tap)
        inner = (1.25 * x - 2.25) * x * x + 1
        outer = -0.75 * (((x - 5) * x + 8) * x - 4)
        columns = np.clip(lower.astype(np.int64) + tap, 0, size - 1)
        np.add.at(matrix, (np.arange(outputs), columns), np.where(x <= 1, inner, outer))
    return matrix


def _places(size: int, outputs: int, scale: float | None, align_corners: bool, dtype: Any) -> np.ndarray[Any, Any]:
    """Where the outputs stand among the inputs: ``i (size - 1) / (outputs - 1)``, or ``(i + ½) · scale - ½``.

    In double precision for such values, else in single, as torch reckons it.
    """
    exact: Any = np.float64 if dtype == np.float64 else np.float32
    counted: np.ndarray[Any, Any] = np.arange(outputs, dtype=exact)
    if align_corners:
        step, shift = (size - 1) / (outputs - 1) if outputs > 1 else 0, 0.0
    else:
        step, shift = size / outputs if scale is None else 1 / scale, 0.5
    places: np.ndarray[Any, Any] = (counted + exact(shift)) * exact(step) - exact(shift)
    return places


def _nearest_backward(offset: float) -> Callable[..., Array]:
    def backward(grad: Array, output_size: Sizes, input_size: Sizes, *scales: float | None) -> Array:
        sizes = itertools.zip_longest(input_size[2:], output_size, scales)
        return _along(grad, [_nearest_matrix(size, outputs, scale, offset).T for size, outputs, scale in sizes])

    return backward


for _n in (1, 2, 3):
    lowering(f"upsample_nearest{_n}d_backward.default")(_nearest_backward(0.0))
    lowering(f"_upsample_nearest_exact{_n}d_backward.default")(_nearest_backward(0.5))


def _interpolation(matrix: Callable[[int, int, float | None, bool, Any], Matrix]) -> tuple[Callable[..., Array], ...]:
    """The lowerings of an interpolation and of its gradient."""

    def forward(x: Array, output_size: Sizes, align_corners: bool, *scales: float | None) -> Array:
        sizes = itertools.zip_longest(x.shape[2:], output_size, scales)
        return _along(x, [matrix(size, outputs, scale, align_corners, x.dtype) for size, outputs, scale in sizes])

    def backward(
        grad: Array, output_size: Sizes, input_size: Sizes, align_corners: bool, *scales: float | None
    ) -> Array:
        sizes = itertools.zip_longest(input_size[2:], output_size, scales)
        return _along(
            grad, [matrix(size, outputs, scale, align_corners, grad.dtype).T for size, outputs, scale in sizes]
        )

    return forward, backward


for _name, _matrix in {"bilinear2d": _linear_matrix, "trilinear3d": _linear_matrix, "bicubic2d": _cubic_matrix}.items():
    _forward, _backward = _interpolation(_matrix)
    lowering(f"upsample_{_name}.default")(_forward)
    lowering(f"upsample_{_name}_backward.default")(_backward)
lowering("upsample_linear1d_backward.default")(_interpolation(_linear_matrix)[1])
