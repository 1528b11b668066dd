"""From a function of tensors to a functional graph of core ATen operators, which is what lowerings work on."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx
from torch._decomp import get_decompositions
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode

from stoker.engines.rates import DROPOUTS
from stoker.engines.recurrent import layers

__all__ = ["decomposition_table", "trace"]

aten = torch.ops.aten

DECOMPOSED = [
    aten.native_batch_norm,
    aten.native_batch_norm_backward,
    aten._native_batch_norm_legit,
    aten._native_batch_norm_legit_functional,
    aten._batch_norm_with_update,
    aten._batch_norm_with_update_functional,
    aten.batch_norm_backward,
    aten.rrelu_with_noise_backward,
    aten.upsample_nearest1d,
    aten.upsample_nearest2d,
    aten.upsample_nearest3d,
    aten._upsample_nearest_exact1d,
    aten._upsample_nearest_exact2d,
    aten._upsample_nearest_exact3d,
]
"""Turned into arithmetic besides what torch counts as core: a compiler fuses it with what stands around it."""

WHOLE = [aten.embedding_dense_backward]
"""Left whole, because a compiler has something better than torch's arithmetic for it."""


@functools.cache
def decomposition_table() -> Mapping[Any, Callable[..., Any]]:
    """How operators are written in terms of others: torch's own core decompositions, and batch norm's.

    Of torch's, those are left out that a trace decomposes without being told, being written in terms of others in any
    case: 500 operators, which it takes a tenth of a second to look up.
    """
    core = getattr(torch._decomp, "_core_aten_decompositions_post_autograd", torch._decomp.core_aten_decompositions)
    table: dict[Any, Callable[..., Any]] = dict(core())
    table.update(get_decompositions(DECOMPOSED))
    for packet in WHOLE:
        for overload in packet.overloads():  # type: ignore[no-untyped-call]
            table.pop(getattr(packet, overload), None)
    return MappingProxyType(table)


def trace(function: Callable[..., Any], *examples: Any) -> fx.GraphModule:
    """The graph of what a function computes, for inputs of these shapes and dtypes.

    The function runs on tensors without values, as it would for any input: what depends on values cannot be traced.
    Where something is written in place, as in decomposing batch norm, it is traced a second time, which turns that into
    values.

    Args:
        function: Of trees of tensors to a tree of tensors; it may use :mod:`torch.func`, and write in place to what
            it has made itself.
        *examples: Its arguments.

    Returns:
        A graph in which nothing is written in place. Its placeholders are the leaves of the arguments, in order; its
        outputs the leaves of what the function returns. Tensors that the function closes over are its constants.
    """
    table = decomposition_table()
    with _Arithmetic():
        graph = _traced(function, table, examples)
    if _writes(graph):
        graph = _traced(torch.func.functionalize(graph, remove="mutations_and_views"), table, examples)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _traced(
    function: Callable[..., Any], table: Mapping[Any, Callable[..., Any]], examples: tuple[Any, ...]
) -> fx.GraphModule:
    return make_fx(function, decomposition_table=table, tracing_mode="fake", _allow_non_fake_inputs=True)(*examples)


def _writes(graph: fx.GraphModule) -> bool:
    """Whether something is written in place; without that, views are as good as copies."""
    targets = (node.target for node in graph.graph.nodes if node.op == "call_function")
    return any(isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable for target in targets)


class _Arithmetic(TorchFunctionMode):
    """Has plain operators compute what torch would give to a fused kernel, write out at length, or look at values for.

    torch's own switches for that (``torch.backends.mkldnn``, ``sdpa_kernel``) hold for the whole process, where an
    eager training may be going on in another thread; this one holds for the thread that traces. Modules that look for
    such a mode (``nn.TransformerEncoderLayer``) keep off their fast path for it, too.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _PLAIN.get(func, func)(*args, **(kwargs or {}))


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if attn_mask is not None and attn_mask.dtype == torch.bool:  # the arithmetic would add it, as ones and zeros
        nothing = torch.zeros((), dtype=query.dtype, device=query.device)
        attn_mask = nothing.masked_fill(~attn_mask, -torch.inf)
    given: dict[str, Any] = {"scale": scale, "enable_gqa": enable_gqa}
    found: tuple[Tensor, Tensor] = aten._scaled_dot_product_attention_math(
        query, key, value, attn_mask, dropout_p, is_causal, **given
    )
    return found[0]


def _multi_head_attention(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    # asked for its weights, torch computes them; what it calls is not seen from here
    given = inspect.signature(F.multi_head_attention_forward).bind(*args, **kwargs)
    wanted = given.arguments.get("need_weights", True)
    given.arguments["need_weights"] = True
    output, weights = F.multi_head_attention_forward(*given.args, **given.kwargs)
    return output, weights if wanted else None


def _pad(x: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    if mode != "circular":
        return F.pad(x, pad, mode, value)
    for i, (before, after) in enumerate(zip(pad[::2], pad[1::2], strict=True)):
        dim = x.ndim - 1 - i
        x = x.narrow(dim, max(-before, 0), x.shape[dim] + min(before, 0) + min(after, 0))  # negative numbers cut off
        before, after = max(before, 0), max(after, 0)
        x = torch.cat([x.narrow(dim, x.shape[dim] - before, before), x, x.narrow(dim, 0, after)], dim)
    return x


def _one_hot(x: Tensor, num_classes: int = -1) -> Tensor:
    if num_classes < 0:
        return F.one_hot(x)  # as many as the values say, which cannot be traced
    classes = torch.arange(num_classes, device=x.device)
    chosen = classes.index_select(0, x.flatten()).view(x.shape)  # x itself, but for the look at whether it is one
    return (chosen[..., None] == classes).long()


_PLAIN: dict[Callable[..., Any], Callable[..., Any]] = {
    **DROPOUTS,
    F.multi_head_attention_forward: _multi_head_attention,
    F.one_hot: _one_hot,
    F.pad: _pad,
    F.scaled_dot_product_attention: _attention,
    torch.gru: layers.gru,
    torch.lstm: layers.lstm,
    torch.rnn_relu: layers.rnn_relu,
    torch.rnn_tanh: layers.rnn_tanh,
}
