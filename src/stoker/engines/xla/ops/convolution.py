"""Convolutions of 1 to 3 dimensions, transposed, grouped, dilated, and their gradients."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array, lax

from stoker.engines.xla.ops.matrix import precision
from stoker.engines.xla.table import lowering

__all__: list[str] = []

Sizes = Sequence[int]


@lowering("convolution.default")
def _convolution(
    x: Array,
    weight: Array,
    bias: Array | None,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    transposed: bool,
    output_padding: Sizes,
    groups: int,
) -> Array:
    """``[n, channels, *places]`` with ``[out, channels / groups, *kernel]`` (transposed: in and out swapped)."""
    dims = x.ndim - 2
    stride, padding, dilation = (_each(sizes, dims) for sizes in (stride, padding, dilation))
    if transposed:
        # the gradient of a convolution: the input spread out by the stride, under the kernel turned round
        weight = jnp.flip(_swapped(weight, groups), tuple(range(2, x.ndim)))
        spans = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        extra = _each(output_padding, dims)
        sides = [(span - p, span - p + more) for span, p, more in zip(spans, padding, extra, strict=True)]
        spread, stride = stride, [1] * dims
    else:
        sides, spread = [(p, p) for p in padding], [1] * dims
    out = lax.conv_general_dilated(
        x, weight, stride, sides, spread, dilation, feature_group_count=groups, precision=precision()
    )
    return out if bias is None else out + bias.reshape(-1, *[1] * dims)


@lowering("convolution_backward.default")
def _convolution_backward(
    grad: Array,
    x: Array,
    weight: Array,
    bias_sizes: Sizes | None,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    transposed: bool,
    output_padding: Sizes,
    groups: int,
    output_mask: Sequence[bool],
) -> tuple[Array | None, Array | None, Array | None]:
    """The gradients of input, weight and bias: each as far as ``output_mask`` asks for it."""
    del bias_sizes

    def convolve(x: Array, weight: Array) -> Array:
        return _convolution(x, weight, None, stride, padding, dilation, transposed, output_padding, groups)

    of_x, of_weight, of_bias = output_mask
    return (
        jax.linear_transpose(lambda x: convolve(x, weight), x)(grad)[0] if of_x else None,
        jax.linear_transpose(lambda weight: convolve(x, weight), weight)(grad)[0] if of_weight else None,
        jnp.sum(grad, (0, *range(2, grad.ndim))) if of_bias else None,
    )


def _each(sizes: Sizes, dims: int) -> list[int]:
    """One number for each dimension; a single one holds for all."""
    return list(sizes) * dims if len(sizes) == 1 else list(sizes)


def _swapped(weight: Array, groups: int) -> Array:
    """``[in, out / groups, *kernel]`` to ``[out, in / groups, *kernel]``."""
    ins, outs, *kernel = weight.shape
    grouped = weight.reshape(groups, ins // groups, outs, *kernel)
    return jnp.swapaxes(grouped, 1, 2).reshape(groups * outs, ins // groups, *kernel)
