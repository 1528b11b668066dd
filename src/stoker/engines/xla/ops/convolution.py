"""Convolutions of 1 to 3 dimensions, transposed, grouped, dilated, and their gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from stoker.engines.xla.ops.matrix import precision
from stoker.engines.xla.table import lowering

__all__ = ["Sizes", "each"]

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
    stride, padding, dilation = (each(sizes, dims) for sizes in (stride, padding, dilation))
    if transposed:
        # the gradient of a convolution: the input spread out by the stride, under the kernel turned round
        weight = jnp.flip(_swapped(weight, groups), tuple(range(2, x.ndim)))
        spans = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        extra = each(output_padding, dims)
        sides = [(span - p, span - p + more) for span, p, more in zip(spans, padding, extra, strict=True)]
        spread, stride = stride, [1] * dims
    else:
        sides, spread = [(p, p) for p in padding], [1] * dims
    form = lax.conv_dimension_numbers(x.shape, weight.shape, None)
    out = _channels_last(
        x,
        weight,
        window_strides=stride,
        padding=sides,
        lhs_dilation=spread,
        rhs_dilation=dilation,
        dimension_numbers=form,
        feature_group_count=groups,
        precision=precision(),
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
        _gradient(lambda x: convolve(x, weight), x, grad) if of_x else None,
        _gradient(lambda weight: convolve(x, weight), weight, grad) if of_weight else None,
        jnp.sum(grad, (0, *range(2, grad.ndim))) if of_bias else None,
    )


def _channels_last(x: Array, weight: Array, *, dimension_numbers: Any, **settings: Any) -> Array:
    """``lax.conv_general_dilated`` on operands laid out as ``[n, *places, channels]`` and ``[*kernel, in, out]``.

    XLA has a fast convolution on CPUs for this form alone, and brings others into it only outside of loops (JAX 0.10).
    """
    lhs, rhs, out = dimension_numbers
    places = "DHW"[-len(lhs[2:]) :] if lhs[2:] else ""
    moved = lax.conv_general_dilated(
        jnp.transpose(x, (lhs[0], *lhs[2:], lhs[1])),
        jnp.transpose(weight, (*rhs[2:], rhs[1], rhs[0])),
        dimension_numbers=(f"N{places}C", f"{places}IO", f"N{places}C"),
        **settings,
    )
    return jnp.transpose(moved, [int(i) for i in np.argsort((out[0], *out[2:], out[1]))])


def _gradient(convolve: Callable[[Array], Array], example: Array, grad: Array) -> Array:
    """The transpose of a linear function, with the convolutions in it in the form that is fast."""
    closed = jax.make_jaxpr(lambda grad: jax.linear_transpose(convolve, example)(grad)[0])(grad)
    values: dict[Any, Any] = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
    values[closed.jaxpr.invars[0]] = grad

    def value(of: Any) -> Any:
        return of.val if hasattr(of, "val") else values[of]

    for equation in closed.jaxpr.eqns:
        given = [value(of) for of in equation.invars]
        if equation.primitive.name == "conv_general_dilated":
            results = [_channels_last(*given, **equation.params)]
        else:
            found = equation.primitive.bind(*given, **equation.params)
            results = found if equation.primitive.multiple_results else [found]
        values.update(zip(equation.outvars, results, strict=True))
    result: Array = value(closed.jaxpr.outvars[0])
    return result


def each(sizes: Sizes, dims: int) -> list[int]:
    """One number for each dimension; a single one holds for all."""
    return list(sizes) * dims if len(sizes) == 1 else list(sizes)


def _swapped(weight: Array, groups: int) -> Array:
    """``[in, out / groups, *kernel]`` to ``[out, in / groups, *kernel]``."""
    ins, outs, *kernel = weight.shape
    grouped = weight.reshape(groups, ins // groups, outs, *kernel)
    return jnp.swapaxes(grouped, 1, 2).reshape(groups * outs, ins // groups, *kernel)
