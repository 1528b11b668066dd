"""How functions become graphs: what is decomposed, and how often a step is traced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch._C import DispatchKey
from torch._decomp import core_aten_decompositions

from stoker.engines import decompositions
from stoker.engines.decompositions import WHOLE, decomposition_table, trace


def test_what_torch_calls_core_is_decomposed_or_decomposes_by_itself() -> None:
    mine = decomposition_table()
    left = [one for one in core_aten_decompositions() if one not in mine and one.overloadpacket not in WHOLE]
    assert len(left) > 400  # or there is nothing to be gained by leaving them out
    kernels = torch._C._dispatch_has_kernel_for_dispatch_key
    assert all(kernels(one.name(), DispatchKey.CompositeImplicitAutograd) for one in left)
    # of those with a kernel of their own besides, this one is written in terms of others nevertheless
    assert {str(one) for one in left if kernels(one.name(), DispatchKey.CPU)} <= {"aten.native_channel_shuffle.default"}
    graph = trace(nn.ChannelShuffle(2), torch.zeros(1, 4, 2, 2))
    assert not any("shuffle" in str(node.target) for node in graph.graph.nodes)


@pytest.mark.parametrize(
    ("function", "passes"),
    [
        (lambda x: (x.t() @ x).relu().view(-1)[1:], 1),
        (lambda x: x.exp().add_(1).t(), 2),  # written in place
        (nn.BatchNorm1d(3, affine=False, track_running_stats=False), 1),
        (lambda x: F.batch_norm(x, torch.zeros(3), torch.ones(3), training=True), 2),  # a running mean is
    ],
)
def test_what_writes_nothing_in_place_is_traced_once(
    function: Callable[[Tensor], Tensor], passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, traced = list[Any](), decompositions._traced

    def counted(*given: Any) -> fx.GraphModule:
        seen.append(given)
        return traced(*given)

    monkeypatch.setattr(decompositions, "_traced", counted)
    x = torch.linspace(-1, 2, 12).reshape(4, 3)
    graph = trace(function, x)
    assert len(seen) == passes
    assert not decompositions._writes(graph)
    assert torch.allclose(graph(x), function(x))
