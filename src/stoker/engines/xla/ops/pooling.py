"""Pooling over windows: maxima with their places, means, and their gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import Array, lax

from stoker.engines.xla.dtypes import cast, jax_dtype, torch_dtype
from stoker.engines.xla.ops.convolution import Sizes, each
from stoker.engines.xla.table import lowering

__all__: list[str] = []

Windows = np.ndarray[tuple[int, int], np.dtype[np.int64]]


@lowering("max_pool2d_with_indices.default", "max_pool3d_with_indices.default")
def _max_pool(
    x: Array, kernel_size: Sizes, stride: Sizes = (), padding: Sizes = (0,), dilation: Sizes = (1,), ceil: bool = False
) -> tuple[Array, Array]:
    """The highest value of each window, and its place among the flattened places of its channel."""
    dims = _dims(kernel_size, x)
    kernel, pads, spread = (each(sizes, dims) for sizes in (kernel_size, padding, dilation))
    steps = each(stride, dims) if stride else kernel
    windows = []
    for size, k, s, p, d in zip(x.shape[-dims:], kernel, steps, pads, spread, strict=True):
        starts = np.arange(_outputs(size, k, s, p, d, ceil)) * s - p
        windows.append(_within(starts[:, None] + np.arange(k) * d, size))
    return _highest(x, windows)


@lowering("adaptive_max_pool2d.default", "adaptive_max_pool3d.default")
def _adaptive_max_pool(x: Array, output_size: Sizes) -> tuple[Array, Array]:
    windows = []
    for size, outputs in zip(x.shape[-len(output_size) :], output_size, strict=True):
        starts = np.arange(outputs) * size // outputs
        ends = -(-(np.arange(outputs) + 1) * size // outputs)
        longest = int((ends - starts).max(initial=0))
        windows.append(np.minimum(starts[:, None] + np.arange(longest), ends[:, None] - 1))
    return _highest(x, windows)


def _highest(x: Array, windows: Sequence[Windows]) -> tuple[Array, Array]:
    """Maxima dimension by dimension, the last one first, keeping the place; the first of equals, the last of NaNs."""
    dims = len(windows)
    values, places = x, jnp.zeros(x.shape, jax_dtype(torch.int64))
    stride = 1
    for i in reversed(range(dims)):
        axis = x.ndim - dims + i
        own = lax.broadcasted_iota(jax_dtype(torch.int64), values.shape, axis)
        places = places + own * stride
        stride *= x.shape[axis]
        best, where = None, None
        for column in windows[i].T:
            value, place = (_taken(a, column, axis) for a in (values, places))
            if best is None or where is None:
                best, where = value, place
            else:
                higher = (value > best) | (value != value)
                best, where = jnp.where(higher, value, best), jnp.where(higher, place, where)
        assert best is not None
        assert where is not None
        values, places = best, where
    return values, places


def _taken(x: Array, places: np.ndarray[tuple[int], np.dtype[np.int64]], axis: int) -> Array:
    """Values at places that are known beforehand: a slice where they are evenly spaced."""
    steps = np.unique(np.diff(places))
    if len(places) and len(steps) <= 1 and (not len(steps) or steps[0] > 0):
        step = int(steps[0]) if len(steps) else 1
        return lax.slice_in_dim(x, int(places[0]), int(places[-1]) + 1, step, axis)
    return jnp.take(x, places, axis)


def _within(windows: Windows, size: int) -> Windows:
    """Places in the padding, replaced by the nearest of the same window that is not: it may count twice."""
    low = np.where(windows >= 0, windows, size).min(1, keepdims=True)
    high = np.where(windows < size, windows, -1).max(1, keepdims=True)
    return np.clip(windows, low, high)


@lowering("max_pool2d_with_indices_backward.default", "max_pool3d_with_indices_backward.default")
def _max_pool_backward(
    grad: Array,
    x: Array,
    kernel_size: Sizes,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    ceil_mode: bool,
    indices: Array,
) -> Array:
    del ceil_mode
    dims = _dims(kernel_size, x)
    kernel, outputs, sizes = each(kernel_size, dims), grad.shape[-dims:], x.shape[-dims:]
    covered = all(o * k == size for o, k, size in zip(outputs, kernel, sizes, strict=True))
    apart = not stride or each(stride, dims) == kernel
    if covered and apart and not any(padding) and all(each == 1 for each in dilation):
        return _within_windows(grad, x, indices, kernel)
    return _to_places(grad, x, indices, dims)  # the indices say it all


def _within_windows(grad: Array, x: Array, indices: Array, kernel: Sequence[int]) -> Array:
    """The same where each place is in one window: what it gets is its window's, if it was the highest."""
    dims = len(kernel)
    outer, sizes = x.shape[:-dims], x.shape[-dims:]

    def spread(a: Array) -> Array:
        """Each window's number at all of its places."""
        split = [n for size, k in zip(sizes, kernel, strict=True) for n in (size // k, k)]
        axes = [*range(len(outer)), *(len(outer) + 2 * i for i in range(dims))]
        return lax.broadcast_in_dim(a, (*outer, *split), axes).reshape(x.shape)

    own = jnp.arange(math.prod(sizes), dtype=indices.dtype).reshape(sizes)
    return jnp.where(spread(indices) == own, spread(grad), jnp.zeros((), grad.dtype))


@lowering("adaptive_max_pool2d_backward.default")
def _adaptive_max_pool2d_backward(grad: Array, x: Array, indices: Array) -> Array:
    return _to_places(grad, x, indices, 2)


@lowering("adaptive_max_pool3d_backward.default")
def _adaptive_max_pool3d_backward(grad: Array, x: Array, indices: Array) -> Array:
    return _to_places(grad, x, indices, 3)


def _to_places(grad: Array, x: Array, indices: Array, dims: int) -> Array:
    """Each number of ``grad`` added to the place of its channel that it came from."""
    channels = math.prod(x.shape[:-dims])
    flat = jnp.zeros((channels, math.prod(x.shape[-dims:])), grad.dtype)
    rows = jnp.arange(channels)[:, None]
    outputs = math.prod(grad.shape[-dims:])
    places = flat.at[rows, indices.reshape(channels, outputs)]
    return places.add(grad.reshape(channels, outputs), mode="promise_in_bounds").reshape(x.shape)


@lowering("avg_pool2d.default", "avg_pool3d.default")
def _avg_pool(
    x: Array,
    kernel_size: Sizes,
    stride: Sizes = (),
    padding: Sizes = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Array:
    """The sum of each window, divided by its size, its part within the (padded) input, or a given number."""
    dims = _dims(kernel_size, x)
    kernel, pads = each(kernel_size, dims), each(padding, dims)
    steps = each(stride, dims) if stride else kernel
    counts = np.ones([1] * dims)
    sides = []
    for i, (size, k, s, p) in enumerate(zip(x.shape[-dims:], kernel, steps, pads, strict=True)):
        outputs = _outputs(size, k, s, p, 1, ceil_mode)
        starts = np.arange(outputs) * s - p
        first, last = (-p, size + p) if count_include_pad else (0, size)
        length = np.minimum(starts + k, last) - np.maximum(starts, first)
        counts = counts * length.reshape([-1 if j == i else 1 for j in range(dims)])
        sides.append((p, max((outputs - 1) * s + k - size - p, 0)))
    outer = [1] * (x.ndim - dims)
    sums = lax.reduce_window(
        x, np.zeros((), x.dtype), lax.add, [*outer, *kernel], [*outer, *steps], [*[(0, 0)] * len(outer), *sides]
    )
    divisor = jnp.asarray(counts if divisor_override is None else divisor_override, x.dtype)
    return cast(sums / divisor, torch_dtype(x))


@lowering("avg_pool2d_backward.default", "avg_pool3d_backward.default")
def _avg_pool_backward(
    grad: Array,
    x: Array,
    kernel_size: Sizes,
    stride: Sizes,
    padding: Sizes,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Array:
    def pool(x: Array) -> Array:
        return _avg_pool(x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)

    return jax.linear_transpose(pool, x)(grad)[0]  # type: ignore[no-any-return]


def _dims(kernel_size: Sizes, x: Array) -> int:
    return len(kernel_size) if len(kernel_size) > 1 else min(x.ndim - 1, 2)


def _outputs(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil: bool) -> int:
    """How many windows there are: with ``ceil`` also one that sticks out at the end, if it starts within."""
    span = size + 2 * padding - dilation * (kernel - 1) - 1
    outputs = span // stride + 1
    if ceil and span % stride and outputs * stride < size + padding:
        outputs += 1
    return outputs
