"""The table of lowerings, what it says about operators that it lacks, and its page in the docs."""

from __future__ import annotations

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from operators_page import PAGE, page
from torch import Tensor

from stoker.engines.decompositions import decomposition_table, trace
from stoker.engines.xla.interpret import draws_numbers, to_jax, unlowered
from stoker.errors import LoweringError


def test_the_docs_list_every_operator() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "Run: python tests/engines/operators_page.py"


def test_an_operator_without_a_lowering_is_named() -> None:
    def function(x: Tensor) -> Tensor:
        sums: Tensor = torch.linalg.svdvals(x).sum() + torch.i0(x).sum()
        return sums

    graph = trace(function, torch.eye(3))
    assert unlowered(graph) == ["aten._linalg_svd.default", "aten.i0.default"]
    text = "graph: must consist of operators with a lowering to XLA, got aten._linalg_svd.default, aten.i0.default"
    with pytest.raises(LoweringError, match=text):
        to_jax(graph)


def test_a_graph_of_known_operators_lacks_none() -> None:
    assert unlowered(trace(lambda x: x.softmax(0), torch.zeros(3))) == []


def test_a_graph_with_dropout_draws_numbers() -> None:
    assert draws_numbers(trace(lambda x: torch.dropout(x, 0.5, True), torch.zeros(3)))
    assert not draws_numbers(trace(lambda x: torch.dropout(x, 0.5, False), torch.zeros(3)))


def test_selecting_by_a_mask_is_refused() -> None:
    graph = torch.fx.Graph()
    x, mask = graph.placeholder("x"), graph.placeholder("mask")
    graph.output(graph.call_function(torch.ops.aten.index.Tensor, (x, [mask])))
    program = to_jax(torch.fx.GraphModule(torch.nn.Module(), graph))
    with pytest.raises(LoweringError, match=r"aten\.index\.Tensor: must give a size known beforehand, got a mask"):
        program(np.zeros(3), jnp.zeros(3, bool))


def test_writing_several_numbers_by_a_mask_is_refused() -> None:
    def function(x: Tensor, mask: Tensor, values: Tensor) -> Tensor:
        return x.index_put((mask,), values)

    program = to_jax(trace(function, torch.zeros(3), torch.tensor([True, False, True]), torch.ones(2)))
    with pytest.raises(LoweringError, match=r"aten\.index_put: must write one number where a mask says so, got"):
        program(jnp.zeros(3), jnp.array([True, False, True]), jnp.ones(2))


def test_a_step_that_writes_into_its_inputs_is_refused() -> None:
    def function(x: Tensor) -> Tensor:
        return x.add_(1)

    assert unlowered(trace(function, torch.zeros(3))) == ["aten.copy_.default"]


def test_what_a_step_closes_over_is_constant() -> None:
    weight = torch.tensor([1.0, 2.0, 3.0]).bfloat16()
    program = to_jax(trace(lambda x: x * weight, torch.zeros(3)))
    (output,) = program(jnp.ones(3, jnp.float32))
    assert output.tolist() == [1, 2, 3]


def test_none_among_the_outputs_stays() -> None:
    program = to_jax(trace(lambda x: (x + 1, None), torch.zeros(3)))
    output, none = program(jnp.ones(3, jnp.float32))
    assert output.tolist() == [2, 2, 2]
    assert none is None


def test_64_bits_are_kept_and_jax_is_left_as_it_was() -> None:
    program = to_jax(trace(lambda x: x * 2, torch.zeros(3, dtype=torch.int64)))
    with jax.enable_x64(True):
        (output,) = jax.jit(program)(np.full(3, 2**40))
    assert output.dtype == np.int64
    assert output.tolist() == [2**41] * 3
    assert jnp.zeros(3, int).dtype == np.int32


def test_batch_norm_is_arithmetic_and_convolutions_stay_whole() -> None:
    table = decomposition_table()
    assert torch.ops.aten.native_batch_norm.default in table
    assert torch.ops.aten.convolution.default not in table
    assert torch.ops.aten.embedding_dense_backward.default not in table


def test_tracing_needs_no_jax() -> None:
    script = (
        "import sys, torch; from stoker.engines.decompositions import trace;"
        "trace(lambda x: x + 1, torch.zeros(2)); assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
