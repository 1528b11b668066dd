"""Recurrent layers as operators of our own: against torch's layers, and as few nodes however long the sequences."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from stoker.engines.decompositions import trace
from stoker.engines.recurrent import layers, operators
from stoker.engines.recurrent.gradients import GRU, LSTM, RNN
from stoker.engines.xla.interpret import draws_numbers

STEPS, BATCH, WIDTH, UNITS = 5, 3, 4, 6
KINDS: dict[str, tuple[Callable[..., nn.RNNBase], Callable[..., Any]]] = {
    "lstm": (nn.LSTM, layers.lstm),
    "gru": (nn.GRU, layers.gru),
    "rnn": (nn.RNN, layers.rnn_tanh),
    "rnn of rectifiers": (lambda *args, **kwargs: nn.RNN(*args, nonlinearity="relu", **kwargs), layers.rnn_relu),
}
kinds = pytest.mark.parametrize("kind", KINDS)
FORMS = list(itertools.product([1, 2], [False, True], [False, True], [False, True], [False, True]))


def leaves(results: Any) -> list[Tensor]:
    output, last = results
    return [output, *last] if isinstance(last, tuple) else [output, last]


def differentiated(results: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
    """The results, and the gradients of a sum of them in which each number has a weight of its own."""
    total = sum((r * torch.linspace(-1, 2, r.numel(), dtype=r.dtype).view(r.shape).cos()).sum() for r in results)
    assert isinstance(total, Tensor)
    return [*(r.detach() for r in results), *torch.autograd.grad(total, inputs)]


@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize(("depth", "both", "bias", "batch_first", "given"), FORMS)
@kinds
def test_outputs_states_and_gradients_are_torchs(
    kind: str, depth: int, both: bool, bias: bool, batch_first: bool, given: bool, dtype: torch.dtype, near: float
) -> None:
    torch.manual_seed(0)
    make, ours = KINDS[kind]
    form = {"bias": bias, "batch_first": batch_first, "bidirectional": both}
    layer = make(WIDTH, UNITS, depth, dtype=dtype, **form)
    x = torch.randn(*((BATCH, STEPS) if batch_first else (STEPS, BATCH)), WIDTH, dtype=dtype, requires_grad=True)
    shape = (depth * (2 if both else 1), BATCH, UNITS)
    n = 2 if kind == "lstm" else 1
    states = [(torch.randn if given else torch.zeros)(shape, dtype=dtype).requires_grad_() for _ in range(n)]
    state = tuple(states) if kind == "lstm" else states[0]
    inputs = [x, *states, *layer.parameters()]
    expected = differentiated(leaves(layer(x, state if given else None)), inputs if given else [x, *inputs[1 + n :]])
    output, *last = ours(x, state, layer._flat_weights, bias, depth, 0.0, True, both, batch_first)
    found = differentiated([output, *last], inputs if given else [x, *inputs[1 + n :]])
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=near, atol=near)


def some(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("which", ["lstm", "gru", "rnn", "rnn of rectifiers"])
def test_gradients_are_those_of_finite_differences(which: str, reverse: bool) -> None:
    torch.manual_seed(1)
    h, c = some(2, 3), some(2, 3)
    calls: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]] = {
        "lstm": (lambda *given: LSTM.of(*given, reverse)[:2], (some(4, 2, 12), h, c, some(12, 3))),
        "gru": (lambda *given: GRU.of(*given, reverse)[0], (some(4, 2, 9), h, some(9, 3), some(3))),
        "rnn": (lambda *given: RNN.of(*given, False, reverse), (some(4, 2, 3), h, some(3, 3))),
        "rnn of rectifiers": (lambda *given: RNN.of(*given, True, reverse), (some(4, 2, 3), h, some(3, 3))),
    }
    call, inputs = calls[which]
    assert torch.autograd.gradcheck(call, inputs)


def test_operators_are_what_they_say() -> None:
    """Their schema holds, and they give tensors of the announced shapes, dtypes and strides."""
    every, each = [torch.randn(4, 2, 3) for _ in range(8)], torch.randn(2, 3)
    calls: list[tuple[Any, tuple[Any, ...]]] = [
        (operators.lstm_forward, (torch.randn(4, 2, 12), each, each, torch.randn(12, 3), True)),
        (operators.lstm_backward, (every[0], each, *every[1:7], torch.randn(12, 3), True)),
        (operators.gru_forward, (torch.randn(4, 2, 9), each, torch.randn(9, 3), torch.randn(3), True)),
        (operators.gru_backward, (*every[:6], torch.randn(9, 3), True)),
        (operators.rnn_forward, (every[0], each, torch.randn(3, 3), False, True)),
        (operators.rnn_backward, (every[0], every[1], torch.randn(3, 3), True, True)),
    ]
    for operator, given in calls:
        torch.library.opcheck(operator, given, test_utils=("test_schema", "test_faketensor"))


def step_of(layer: nn.Module) -> Callable[[dict[str, Tensor], Tensor], Any]:
    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        output: Tensor = torch.func.functional_call(layer, parameters, (x,))[0]
        return output.square().mean()

    return torch.func.grad_and_value(loss)


def graph_of(layer: nn.Module, length: int) -> fx.GraphModule:
    parameters = {name: parameter.detach() for name, parameter in layer.named_parameters()}
    return trace(step_of(layer), parameters, torch.randn(length, BATCH, WIDTH))


def ours_in(graph: fx.GraphModule) -> Counter[str]:
    targets = (str(node.target) for node in graph.graph.nodes if node.op == "call_function")
    return Counter(target for target in targets if target.startswith("stoker."))


@pytest.mark.parametrize(("depth", "both"), [(1, False), (2, True)])
@kinds
def test_a_longer_sequence_has_no_more_nodes(kind: str, depth: int, both: bool) -> None:
    layer = KINDS[kind][0](WIDTH, UNITS, depth, bidirectional=both)
    short, long = graph_of(layer, 2), graph_of(layer, 100)
    assert len(short.graph.nodes) == len(long.graph.nodes)
    name = kind.partition(" ")[0]
    loops = depth * (2 if both else 1)
    assert ours_in(long) == {f"stoker.{name}_forward.default": loops, f"stoker.{name}_backward.default": loops}


@kinds
def test_dropout_between_layers_is_drawn_by_the_engine(kind: str) -> None:
    make, _ = KINDS[kind]
    assert draws_numbers(graph_of(make(WIDTH, UNITS, 2, dropout=0.4), 3))
    assert not draws_numbers(graph_of(make(WIDTH, UNITS, 2, dropout=0.4).eval(), 3))
    assert not draws_numbers(graph_of(make(WIDTH, UNITS, 1), 3))


def test_a_gradient_of_gradients_is_refused() -> None:
    """Nested :func:`torch.func.grad` would otherwise take the second one for zero."""
    gru = nn.GRU(WIDTH, UNITS)
    parameters = {name: parameter.detach() for name, parameter in gru.named_parameters()}

    def penalty(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        found, _ = step_of(gru)(parameters, x)
        total = sum(gradient.square().sum() for gradient in found.values())
        assert isinstance(total, Tensor)
        return total

    with pytest.raises(NotImplementedError, match=r"the gradient of a recurrent layer cannot be differentiated again"):
        trace(torch.func.grad(penalty), parameters, torch.randn(3, BATCH, WIDTH))


@kinds
def test_packed_sequences_are_left_to_torch(kind: str) -> None:
    torch.manual_seed(0)
    make, ours = KINDS[kind]
    layer = make(WIDTH, UNITS)
    packed = pack_sequence([torch.randn(4, WIDTH), torch.randn(2, WIDTH)])
    state = torch.zeros(1, 2, UNITS)
    given = (state, state) if kind == "lstm" else state
    output, *_ = ours(packed.data, packed.batch_sizes, given, layer._flat_weights, True, 1, 0.0, True, False)
    assert torch.equal(output, layer(packed)[0].data)
    with pytest.raises(Exception, match=r"."):  # torch looks into the sizes, which a trace does not have
        trace(lambda data: layer(PackedSequence(data, packed.batch_sizes))[0].data, packed.data)


@kinds
def test_autocast_and_projected_states_are_written_out(kind: str) -> None:
    torch.manual_seed(0)
    layer = KINDS[kind][0](WIDTH, UNITS)
    x = torch.randn(STEPS, BATCH, WIDTH)

    def function(x: Tensor) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
            return layer(x)[0].float()

    try:
        expected = function(x)
    except RuntimeError as error:  # oneDNN's, on processors without AVX-512
        pytest.skip(f"torch has no such layer in bfloat16 on this processor: {error}")
    graph = trace(function, x)
    assert not ours_in(graph)
    torch.testing.assert_close(graph(x), expected, rtol=0.05, atol=0.02)
    assert not ours_in(graph_of(nn.LSTM(WIDTH, UNITS, proj_size=2), 3))
