"""The lowerings, in rooms by kind. Importing this package fills :data:`stoker.engines.xla.table.LOWERINGS`."""

from stoker.engines.xla.ops import (
    activations,
    convolution,
    creation,
    elementwise,
    indexing,
    matrix,
    normalisation,
    pooling,
    random,
    recurrent,
    reductions,
    resampling,
    shapes,
    sorting,
)

__all__ = [
    "activations",
    "convolution",
    "creation",
    "elementwise",
    "indexing",
    "matrix",
    "normalisation",
    "pooling",
    "random",
    "recurrent",
    "reductions",
    "resampling",
    "shapes",
    "sorting",
]
