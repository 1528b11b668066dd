"""Operators that move values without computing: views, joins, cuts, padding."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from stoker.engines.xla.dtypes import Number, cast, cast_to, promoted, torch_dtype
from stoker.engines.xla.table import lowering

__all__: list[str] = []


@lowering("view.default", "view_copy.default")
def _view(x: Array, size: Sequence[int]) -> Array:
    size = tuple(size)
    if -1 in size:  # spelt out, because JAX cannot infer a dimension of an empty array
        known = math.prod(n for n in size if n != -1)
        size = tuple(x.size // known if n == -1 else n for n in size)
    return x.reshape(size)


@lowering("copy_strided.default", library="prims")
def _copy_strided(x: Array, stride: Sequence[int]) -> Array:
    """The same numbers; how they lie in memory is XLA's affair."""
    del stride
    return x


@lowering("permute.default", "permute_copy.default")
def _permute(x: Array, dims: Sequence[int]) -> Array:
    return jnp.transpose(x, tuple(dims))


@lowering("unsqueeze.default", "unsqueeze_copy.default")
def _unsqueeze(x: Array, dim: int) -> Array:
    return jnp.expand_dims(x, dim)


@lowering("squeeze.dims", "squeeze_copy.dims")
def _squeeze(x: Array, dim: Sequence[int]) -> Array:
    """Without those of the dimensions that are 1."""
    if x.ndim == 0:
        return x
    return jnp.squeeze(x, tuple({d % x.ndim for d in dim if x.shape[d] == 1}))


@lowering("expand.default", "expand_copy.default")
def _expand(x: Array, size: Sequence[int], *, implicit: bool = False) -> Array:
    del implicit
    new = len(size) - x.ndim
    return jnp.broadcast_to(x, tuple(x.shape[i - new] if n == -1 else n for i, n in enumerate(size)))


@lowering("repeat.default")
def _repeat(x: Array, repeats: Sequence[int]) -> Array:
    return jnp.tile(x, tuple(repeats))


@lowering("flip.default")
def _flip(x: Array, dims: Sequence[int]) -> Array:
    return jnp.flip(x, tuple(dims)) if x.ndim else x


@lowering("cat.default")
def _cat(tensors: Sequence[Array], dim: int = 0) -> Array:
    tensors = promoted(*tensors)
    real = [tensor for tensor in tensors if tensor.shape != (0,)]  # which torch joins with anything
    return jnp.concatenate(real, dim) if real else tensors[0]


@lowering("split_with_sizes.default", "split_with_sizes_copy.default")
def _split_with_sizes(x: Array, split_sizes: Sequence[int], dim: int = 0) -> list[Array]:
    ends = np.cumsum(split_sizes).tolist()
    axis = dim % x.ndim
    return [lax.slice_in_dim(x, end - n, end, axis=axis) for n, end in zip(split_sizes, ends, strict=True)]


@lowering("unbind_copy.int")
def _unbind(x: Array, dim: int = 0) -> list[Array]:
    return [_select(x, dim, place) for place in range(x.shape[dim])]


@lowering("select.int", "select_copy.int")
def _select(x: Array, dim: int, index: int) -> Array:
    return lax.index_in_dim(x, index, dim % x.ndim, keepdims=False)


@lowering("slice.Tensor", "slice_copy.Tensor")
def _slice(x: Array, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Array:
    axis = dim % x.ndim
    first, last, step = slice(start, end, step).indices(x.shape[axis])
    return lax.slice_in_dim(x, first, max(first, last), step, axis)


@lowering("slice_scatter.default")
def _slice_scatter(
    x: Array, src: Array, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Array:
    """``x`` with ``src`` in the place of a slice."""
    axis = dim % x.ndim
    src = cast(src, torch_dtype(x))
    first, last, step = slice(start, end, step).indices(x.shape[axis])
    if last <= first:
        return x
    if step == 1:
        starts = [first if i == axis else 0 for i in range(x.ndim)]
        return lax.dynamic_update_slice(x, src, starts)
    written: Array = x.at[(*[slice(None)] * axis, slice(first, last, step))].set(src)
    return written


@lowering("diagonal.default", "diagonal_copy.default")
def _diagonal(x: Array, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Array:
    return jnp.diagonal(x, offset, dim1, dim2)  # type: ignore[no-any-return]


@lowering("diagonal_scatter.default")
def _diagonal_scatter(x: Array, src: Array, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Array:
    """``x`` with ``src`` in the place of a diagonal."""
    last = jnp.moveaxis(x, (dim1, dim2), (-2, -1))
    places = np.arange(src.shape[-1])
    rows, columns = places + max(-offset, 0), places + max(offset, 0)
    return jnp.moveaxis(last.at[..., rows, columns].set(cast(src, torch_dtype(x))), (-2, -1), (dim1, dim2))


@lowering("unfold.default", "unfold_copy.default")
def _unfold(x: Array, dimension: int, size: int, step: int) -> Array:
    """Windows along a dimension; what is within them becomes the last dimension."""
    if x.ndim == 0:
        return jnp.broadcast_to(x, (size,))
    axis = dimension % x.ndim
    starts = np.arange(0, x.shape[axis] - size + 1, step)
    windows = jnp.take(x, starts[:, None] + np.arange(size), axis)
    return jnp.moveaxis(windows, axis + 1, -1)


@lowering("constant_pad_nd.default")
def _constant_pad(x: Array, pad: Sequence[int], value: Number = 0) -> Array:
    """Padding before and after each dimension, from the last one on; a negative number cuts off."""
    sides = [(before, after, 0) for before, after in zip(pad[::2], pad[1::2], strict=True)]
    config = [(0, 0, 0)] * (x.ndim - len(sides)) + sides[::-1]
    return lax.pad(x, cast_to(value, x.dtype), config)


def _edge_pad_backward(grad: Array, x: Array, padding: Sequence[int]) -> Array:
    """Of a padding that repeats the edge: what was padded adds to the edge, or is 0 where it was cut off."""
    for i, (before, after) in enumerate(zip(padding[::2], padding[1::2], strict=True)):
        axis = x.ndim - 1 - i
        came_from = np.clip(np.arange(-before, x.shape[axis] + after), 0, x.shape[axis] - 1)
        moved = jnp.moveaxis(grad, axis, 0)
        total = jnp.zeros((x.shape[axis], *moved.shape[1:]), grad.dtype).at[came_from].add(moved)
        grad = jnp.moveaxis(total, 0, axis)
    return grad


for _n in (1, 2, 3):
    lowering(f"replication_pad{_n}d_backward.default")(_edge_pad_backward)
