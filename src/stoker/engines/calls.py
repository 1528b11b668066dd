"""A captured graph, carried out operator by operator: which are called, where in a step, for how long."""

from __future__ import annotations

import operator
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["REPEATS", "Call", "Phase", "carried_out", "is_call", "phases"]

Phase = Literal["forward", "backward", "update"]
REPEATS = 5  # calls that are timed, of which the median counts


@dataclass(frozen=True)
class Call:
    """One operator called in a step.

    Attributes:
        operator: Its full name, such as ``"aten.mm.default"``.
        phase: The part of the step.
        seconds: The median time that PyTorch takes to carry it out alone.
        flops: Of matrix products and convolutions, 2 for each multiplication with its addition, by their formula
            (:mod:`torch.utils.flop_counter`); 0 for the others.
    """

    operator: str
    phase: Phase
    seconds: float
    flops: int


def is_call(node: fx.Node) -> bool:
    """Whether a node is an operator's call, and no input, constant, output or pick from several results."""
    return node.op in ("call_function", "call_method", "call_module") and node.target is not operator.getitem


def phases(gradients: fx.GraphModule) -> dict[fx.Node, Phase]:
    """Of a graph of gradients, which operators the forward pass calls, and which the backward pass.

    Operators stand in the order in which they were traced. The loss, the graph's first output, was there before
    differentiation began, so that up to it is the forward pass, and the rest follows from it.
    """
    nodes = list(gradients.graph.nodes)
    loss = pytree.tree_leaves(nodes[-1].args[0])[0]
    end = nodes.index(loss) if isinstance(loss, fx.Node) else -1
    return {node: "forward" if place <= end else "backward" for place, node in enumerate(nodes) if is_call(node)}


def carried_out(
    graph: fx.GraphModule, values: Sequence[Any], parts: dict[fx.Node, Phase], device: torch.device
) -> tuple[list[Call], list[Any]]:
    """Carry out a graph, each of its operators several times.

    Args:
        graph: A functional graph: none of its operators changes a tensor.
        values: Of its placeholders, in order.
        parts: The part of the step that each operator belongs to.
        device: Where it happens.

    Returns:
        The calls, in order; and the graph's outputs, flat.
    """
    interpreter = _Timing(graph, parts, device)
    with torch.no_grad():
        outputs = interpreter.run(*(value.detach() if isinstance(value, Tensor) else value for value in values))
    return interpreter.calls, pytree.tree_leaves(outputs)


class _Timing(fx.Interpreter):
    def __init__(self, graph: fx.GraphModule, parts: dict[fx.Node, Phase], device: torch.device) -> None:
        super().__init__(graph)
        self.calls: list[Call] = []
        self._parts, self._device = parts, device

    def run_node(self, n: fx.Node) -> Any:
        if n not in self._parts:
            return super().run_node(n)
        with FlopCounterMode(display=False) as counter:  # this first call is not timed
            value = super().run_node(n)
        times = []
        for _ in range(REPEATS):
            self._wait()
            began = time.perf_counter()
            super().run_node(n)
            self._wait()
            times.append(time.perf_counter() - began)
        self.calls.append(Call(str(n.target), self._parts[n], median(times), counter.get_total_flops()))
        return value

    def _wait(self) -> None:
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)
