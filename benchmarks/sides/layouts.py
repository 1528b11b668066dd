"""Images as [row, column, channel], and the layers that follow them."""

from __future__ import annotations

import numpy as np

from benchmarks.jobs import Array, Weights, dense_layers


def channels_innermost(inputs: tuple[Array, ...]) -> tuple[Array, ...]:
    return (np.ascontiguousarray(inputs[0].transpose(0, 2, 3, 1)), *inputs[1:])


def rows_innermost(weights: Weights, shape: tuple[int, ...], depth: int) -> list[tuple[Array, Array]]:
    """The dense layers after convolutions, the first of them over pixels in the order [row, column, channel]."""
    (first, bias), *others = dense_layers(weights)
    side = [size // 2**depth for size in shape[1:]]
    turned = first.reshape(-1, *side, first.shape[1]).transpose(1, 2, 0, 3).reshape(first.shape)
    return [(np.ascontiguousarray(turned), bias), *others]
