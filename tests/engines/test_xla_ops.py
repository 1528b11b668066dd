"""Each lowering, forward and backward, against PyTorch on PyTorch's own samples for its operators.

A sample's results and gradients are traced, functionalised, lowered and run as the engine does with a training step;
values, shapes and dtypes are compared with eager torch's.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lowered import TOLERANCES, assert_same, run
from samples import samples, together
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from stoker.engines.decompositions import trace
from stoker.engines.recurrent import operators  # noqa: F401  (defines torch.ops.stoker)
from stoker.engines.xla.interpret import LOWERINGS
from stoker.engines.xla.table import RANDOM

FLOATING = """
__rpow__ _batch_norm_with_update acos acosh add addbmm addmm addmv amax aminmax any argmax argmin argsort asin asinh
atan atan2 atanh bmm bucketize cartesian_prod cat cdist ceil clamp copysign cummax cummin cumprod cumsum
diagonal_copy diagonal_scatter div_floor_rounding div_no_rounding_mode div_trunc_rounding erf erfc erfinv exp expm1
floor fmax fmin fmod gather hsplit hypot index_add index_copy index_select isfinite lgamma linalg_vector_norm log
log10 log1p log2 log_softmax logaddexp2 logical_not logical_xor matmul max_pool2d_with_indices_backward
max_reduction_no_dim max_reduction_with_dim maximum mean median min_reduction_no_dim min_reduction_with_dim msort
mul nanquantile ne nn_functional_adaptive_max_pool1d nn_functional_adaptive_max_pool2d
nn_functional_adaptive_max_pool3d nn_functional_avg_pool2d nn_functional_avg_pool3d nn_functional_batch_norm
nn_functional_bilinear nn_functional_conv1d nn_functional_conv2d nn_functional_conv3d nn_functional_conv_transpose1d
nn_functional_conv_transpose2d nn_functional_cross_entropy nn_functional_elu nn_functional_embedding
nn_functional_gelu nn_functional_group_norm nn_functional_hardshrink nn_functional_hardsigmoid
nn_functional_huber_loss nn_functional_interpolate_area nn_functional_interpolate_bicubic
nn_functional_interpolate_linear nn_functional_interpolate_nearest-exact nn_functional_interpolate_trilinear
nn_functional_kl_div nn_functional_layer_norm nn_functional_leaky_relu nn_functional_logsigmoid
nn_functional_max_pool2d nn_functional_max_pool3d nn_functional_mish nn_functional_nll_loss
nn_functional_pad_circular nn_functional_pad_constant nn_functional_pad_replicate nn_functional_relu6
nn_functional_selu nn_functional_softmin nn_functional_softshrink nn_functional_upsample_bilinear
nn_functional_upsample_nearest norm_inf pow prod reciprocal remainder repeat roll round round_decimals_3
round_decimals_neg_3 scatter scatter_add scatter_reduce_amax scatter_reduce_mean scatter_reduce_prod
scatter_reduce_sum signbit sin sinh slice_scatter softmax sort stack std std_mean_unbiased sub sum tan topk trunc
unbind_copy unfold_copy unsafe_split var vstack where
"""

INTEGER = """
add addmm all amax any argmax bitwise_and bitwise_or bitwise_xor cat ceil clamp copysign cummax cumprod cumsum
div_floor_rounding div_no_rounding_mode div_trunc_rounding fmax full_like gather index_add index_select log
logical_and max_reduction_with_dim median mm mul nn_functional_avg_pool2d nn_functional_conv2d
nn_functional_max_pool2d nn_functional_pad_constant pow prod remainder rsub scatter scatter_add scatter_reduce_amax
scatter_reduce_amin scatter_reduce_mean scatter_reduce_prod scatter_reduce_sum sgn signbit sort sum unfold where
"""

BOOLEAN = """
add all amax any bitwise_and bitwise_not cat clamp_max div_no_rounding_mode eq gather index_add logical_or
masked_fill max_reduction_with_dim maximum mul scatter scatter_add scatter_reduce_amax scatter_reduce_amin
scatter_reduce_prod scatter_reduce_sum signbit sum true_divide where
"""

HALF = """
add cumsum div_floor_rounding log_softmax matmul mean nn_functional_batch_norm nn_functional_conv2d
nn_functional_gelu nn_functional_layer_norm softmax
"""

DOUBLE = """
cdist logaddexp logcumsumexp nn_functional_batch_norm nn_functional_interpolate_bicubic nn_functional_layer_norm std
var_mean
"""

MOST = int(os.environ.get("SAMPLES", "4"))  # of an operator: 20 say, for a thorough run
CASES = [
    *((name, torch.float32) for name in FLOATING.split()),
    *((name, torch.int64) for name in INTEGER.split()),
    *((name, torch.bool) for name in BOOLEAN.split()),
    *((name, torch.bfloat16) for name in HALF.split()),
    *((name, torch.float64) for name in DOUBLE.split()),
]
# Some samples have a single element to normalise: the true gradient is 0, torch's is rounding × 1 / sqrt(eps) = 316.
SINGLE_NORMS = {"nn_functional_layer_norm", "native_layer_norm"}
ROUGHER = {**TOLERANCES, torch.float32: (1e-4, 1e-4)}

EXERCISED: set[str] = set()
"""Operators that some test here has compared with torch's."""


def compare(graph: fx.GraphModule, tensors: list[Tensor], expected: list[Any], tolerances: Any = TOLERANCES) -> None:
    assert_same(run(graph, tensors), expected, tolerances)
    EXERCISED.update(str(node.target) for node in graph.graph.nodes if node.op == "call_function")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's own, of what its samples call
@pytest.mark.parametrize(("name", "dtype"), CASES, ids=[f"{name}-{str(dtype)[6:]}" for name, dtype in CASES])
def test_results_and_gradients_equal_torchs(name: str, dtype: torch.dtype) -> None:
    function, tensors = together(samples(name, dtype, MOST))
    expected = function(*(tensor.clone() for tensor in tensors))
    compare(trace(function, *tensors), tensors, expected, ROUGHER if name in SINGLE_NORMS else TOLERANCES)


FLOATS_ONLY = [case for case in CASES if case[1] == torch.float32]
GROUPS = [FLOATS_ONLY[place : place + 10] for place in range(0, len(FLOATS_ONLY), 10)]  # each a program, to be quick


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("group", GROUPS, ids=lambda group: f"{group[0][0]}-{str(group[0][1])[6:]} and on")
def test_one_sample_of_each(group: list[tuple[str, torch.dtype]], request: pytest.FixtureRequest) -> None:
    """The quick suite's part of it, and that of the newest torch."""
    names = {getattr(item, "originalname", None) for item in request.session.items}
    if test_results_and_gradients_equal_torchs.__name__ in names:
        pytest.skip("more samples of each operator are compared besides")
    chosen = [(name, dtype, sample) for name, dtype in group for sample in samples(name, dtype, 1)]
    function, tensors = together([sample for *_, sample in chosen])
    expected = function(*(tensor.clone() for tensor in tensors))
    outputs = run(trace(function, *tensors), *tensors)
    assert len(outputs) == len(expected)
    for name, dtype, sample in chosen:
        count = len(sample(*sample.tensors))
        try:
            assert_same(outputs[:count], expected[:count], ROUGHER if name in SINGLE_NORMS else TOLERANCES)
        except AssertionError as error:
            raise AssertionError(f"{name} of {dtype}") from error
        outputs, expected = outputs[count:], expected[count:]
    assert not outputs


aten = torch.ops.aten
FLOATS, WHOLES = torch.linspace(-2.3, 2.9, 12).reshape(3, 4), torch.arange(12).reshape(3, 4) - 5
PLACES = torch.tensor([[2, 0, 1, 1]])
CALLS: dict[str, tuple[Callable[..., Any], list[Tensor]]] = {
    "alias.default": (aten.alias, [FLOATS]),
    "alias_copy.default": (aten.alias_copy, [FLOATS]),
    "bitwise_and.Scalar": (lambda x: aten.bitwise_and.Scalar(x, 6), [WHOLES]),
    "bitwise_and.Scalar_Tensor": (lambda x: aten.bitwise_and.Scalar_Tensor(6, x), [WHOLES]),
    "bitwise_or.Scalar": (lambda x: aten.bitwise_or.Scalar(x, 6), [WHOLES]),
    "bitwise_or.Scalar_Tensor": (lambda x: aten.bitwise_or.Scalar_Tensor(6, x), [WHOLES]),
    "bitwise_xor.Scalar": (lambda x: aten.bitwise_xor.Scalar(x, 6), [WHOLES]),
    "bitwise_xor.Scalar_Tensor": (lambda x: aten.bitwise_xor.Scalar_Tensor(6, x), [WHOLES]),
    "copysign.Scalar": (lambda x: aten.copysign.Scalar(x, -0.0), [FLOATS]),
    "diagonal_copy.default": (lambda x: aten.diagonal_copy(x, -1), [FLOATS]),
    "digamma.default": (aten.digamma, [torch.cat([FLOATS.reshape(-1), torch.tensor([0.0, -0.0, -1.0, 3.0])])]),
    "div.Scalar_mode": (lambda x: aten.div.Scalar_mode(x, 0.7, rounding_mode="floor"), [FLOATS]),
    "div.Scalar_mode, whole": (lambda x: aten.div.Scalar_mode(x, -3, rounding_mode="floor"), [WHOLES]),
    "div.Scalar_mode, whole, to zero": (lambda x: aten.div.Scalar_mode(x, -3, rounding_mode="trunc"), [WHOLES]),
    "empty.memory_format": (lambda: aten.empty([2, 3], dtype=torch.int32) * 0, []),
    "empty_permuted.default": (lambda: aten.empty_permuted([2, 3], [1, 0], dtype=torch.int32) * 0, []),
    "empty_strided.default": (lambda: aten.empty_strided([2, 3], [1, 2], dtype=torch.int32) * 0, []),
    "expand_copy.default": (lambda x: aten.expand_copy(x, [2, -1, 4]), [FLOATS]),
    "lift_fresh_copy.default": (aten.lift_fresh_copy, [FLOATS]),
    "linalg_vector_norm.default": (lambda x: aten.linalg_vector_norm(x, 3, [1], True), [FLOATS]),
    "new_empty_strided.default": (lambda x: aten.new_empty_strided(x, [2, 3], [1, 2]) * 0, [WHOLES]),
    "pow.Scalar, negative": (lambda x: aten.pow.Scalar(-1, x), [WHOLES]),
    "prims.copy_strided.default": (lambda x: torch.ops.prims.copy_strided(x, [1, 3]), [FLOATS]),
    "remainder.Scalar": (lambda x: aten.remainder.Scalar(x, -0.7), [FLOATS]),
    "remainder.Scalar_Tensor": (lambda x: aten.remainder.Scalar_Tensor(7, x), [FLOATS]),
    "replication_pad3d_backward.default": (
        lambda grad, x: aten.replication_pad3d_backward(grad, x, [1, 2, 0, 0, -1, 1]),
        [torch.arange(42.0).reshape(1, 2, 3, 7), torch.ones(1, 2, 3, 4)],
    ),
    "scatter.reduce": (lambda x, i, y: aten.scatter.reduce(x, 0, i, y, reduce="add"), [FLOATS, PLACES, FLOATS + 9]),
    "scatter.reduce, product": (
        lambda x, i, y: aten.scatter.reduce(x, 1, i, y, reduce="multiply"),
        [FLOATS, PLACES, FLOATS + 9],
    ),
    "scatter.value_reduce": (lambda x, i: aten.scatter.value_reduce(x, 0, i, 2.5, reduce="multiply"), [FLOATS, PLACES]),
    "select.int": (lambda x: aten.select(x, 1, -1), [FLOATS]),
    "select_copy.int": (lambda x: aten.select_copy(x, 0, 1), [FLOATS]),
    "slice.Tensor": (lambda x: aten.slice(x, 1, 1, 9, 2), [FLOATS]),
    "slice_copy.Tensor": (lambda x: aten.slice_copy(x, 0, -2, None, 1), [FLOATS]),
    "split_with_sizes_copy.default": (lambda x: aten.split_with_sizes_copy(x, [1, 3], 1), [FLOATS]),
    "squeeze_copy.dims": (lambda x: aten.squeeze_copy(x, [0, 1]), [PLACES]),
    "unfold_copy.default": (lambda x: aten.unfold_copy(x, 1, 2, 1), [FLOATS]),
    "unsqueeze_copy.default": (lambda x: aten.unsqueeze_copy(x, -1), [FLOATS]),
    "view.default": (lambda x: aten.view(x, [2, -1]), [FLOATS]),
    "where.self, of numbers": (lambda x: aten.where(x > 0, 1, 2.5), [FLOATS]),
    "mm.default, of a long sum": (
        aten.mm,
        [torch.linspace(0.2, 1, 2400).reshape(4, 600), torch.linspace(2, 1, 1800).reshape(600, 3)],
    ),
}


def recurrence(name: str, shapes: list[tuple[int, ...]], *settings: bool) -> tuple[Callable[..., Any], list[Tensor]]:
    """A call of one of our own operators, on tensors with numbers of either sign."""
    tensors = [
        torch.linspace(-1.9, 1.7, torch.Size(shape).numel()).mul(7.3 + i).sin().reshape(shape)
        for i, shape in enumerate(shapes)
    ]
    return lambda *given: getattr(torch.ops.stoker, name)(*given, *settings), tensors


T, B, H = 4, 3, 5
each, every, of_input = (B, H), (T, B, H), {gates: (T, B, gates * H) for gates in (1, 3, 4)}
for reverse in (False, True):
    way = "backwards" if reverse else "forwards"
    CALLS |= {
        f"stoker.lstm_forward.default, {way}": recurrence(
            "lstm_forward", [of_input[4], each, each, (4 * H, H)], reverse
        ),
        f"stoker.lstm_backward.default, {way}": recurrence(
            "lstm_backward", [every, each, every, every, every, every, every, every, (4 * H, H)], reverse
        ),
        f"stoker.gru_forward.default, {way}": recurrence("gru_forward", [of_input[3], each, (3 * H, H), (H,)], reverse),
        f"stoker.gru_backward.default, {way}": recurrence(
            "gru_backward", [every, every, every, every, every, every, (3 * H, H)], reverse
        ),
    }
    for relu in (False, True):
        kind = "relu" if relu else "tanh"
        CALLS |= {
            f"stoker.rnn_forward.default, {kind}, {way}": recurrence(
                "rnn_forward", [every, each, (H, H)], relu, reverse
            ),
            f"stoker.rnn_backward.default, {kind}, {way}": recurrence(
                "rnn_backward", [every, every, (H, H)], relu, reverse
            ),
        }
for name, (call, tensors) in list(CALLS.items()):
    if name.startswith("stoker."):
        CALLS[f"{name}, in double precision"] = call, [tensor.double() for tensor in tensors]


@pytest.mark.parametrize("name", CALLS)
def test_calls_that_no_sample_makes(name: str) -> None:
    call, tensors = CALLS[name]
    graph = make_fx(call, tracing_mode="fake")(*tensors)
    expected = call(*tensors)
    expected = [expected] if isinstance(expected, Tensor) else list(expected)
    compare(graph, tensors, expected)
    assert name.partition(",")[0] in {str(node.target).removeprefix("aten.") for node in graph.graph.nodes}


def test_every_lowering_was_compared(request: pytest.FixtureRequest) -> None:
    ran = [item for item in request.session.items if item.path == Path(__file__)]
    if len(ran) < len(CASES) + len(GROUPS) + len(CALLS) + 1:
        pytest.skip("only some of the tests in this file were asked for")
    left = LOWERINGS.keys() - RANDOM - EXERCISED
    assert not left, ", ".join(sorted(left))
