"""What lowered graphs compute, beside what torch computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from stoker.engines.xla.dtypes import from_torch, jax_dtype
from stoker.engines.xla.interpret import to_jax

# Small programs that run once: most of the time would go into optimising them.
QUICK: dict[str, Any] = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def run(graph: fx.GraphModule, *trees: Any, seed: int = 0) -> list[Any]:
    """A graph's outputs, computed by XLA: NumPy arrays, or whatever else the graph returns."""
    leaves = [leaf for leaf in pytree.tree_leaves(trees) if isinstance(leaf, Tensor)]
    with jax.enable_x64(True):
        arrays = [jnp.asarray(from_torch(leaf)) for leaf in leaves]
        key = jax.random.key(seed)
        program = jax.jit(to_jax(graph)).lower(*arrays, key=key).compile(QUICK)
        return [None if output is None else np.asarray(output) for output in program(*arrays, key=key)]


TOLERANCES = {
    torch.float64: (1e-7, 1e-9),
    torch.float32: (1e-4, 1e-5),
    torch.bfloat16: (2e-2, 2e-2),
}
"""By the dtype of a result: relative, and absolute."""


def assert_same(
    outputs: Sequence[Any],
    expected: Sequence[Tensor | None],
    tolerances: Mapping[torch.dtype, tuple[float, float]] = TOLERANCES,
) -> None:
    """The same shapes and dtypes, and values that are as near as stated; NaN where torch has NaN."""
    assert len(outputs) == len(expected)
    for place, (output, tensor) in enumerate(zip(outputs, expected, strict=True)):
        if tensor is None:
            assert output is None
            continue
        assert output.shape == tuple(tensor.shape), f"output {place}: {output.shape}, not {tuple(tensor.shape)}"
        assert output.dtype == jax_dtype(tensor.dtype), f"output {place}: {output.dtype}, not {tensor.dtype}"
        theirs = from_torch(tensor)
        if tensor.dtype.is_floating_point:
            ours, theirs = output.astype("float64"), theirs.astype("float64")
            rtol, atol = tolerances[tensor.dtype]
            if tensor.dtype is torch.bfloat16:
                # A sum whose terms cancel has their error, and some of torch's kernels for processors without AVX-512
                # are a unit of 8 bits of the largest number off (measured beside float32: 1.03 of them).
                atol = max(atol, 2**-8 * float(np.abs(theirs[np.isfinite(theirs)]).max(initial=0.0)))
            np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=atol, err_msg=f"output {place}")
        else:
            np.testing.assert_array_equal(output, theirs, err_msg=f"output {place}")
