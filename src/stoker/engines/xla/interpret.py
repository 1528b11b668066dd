"""A captured graph as a JAX function: each node's operator looked up in the table of lowerings, and called."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import jax
import torch
from jax import Array
from torch import fx
from torch.utils import _pytree as pytree

from stoker.engines.capture import refusal_of
from stoker.engines.xla import ops  # noqa: F401  (fills the table)
from stoker.engines.xla.dtypes import from_torch, jax_dtype
from stoker.engines.xla.table import FAULTS, LOWERINGS, RANDOM
from stoker.errors import LoweringError

__all__ = ["LOWERINGS", "UNLOWERED", "draws_numbers", "refusal", "to_jax", "unlowered"]

IGNORED = {"device", "layout", "memory_format", "non_blocking", "pin_memory"}
"""Arguments that say where and how a tensor lies, which is XLA's business."""


UNLOWERED = "operators without a lowering to XLA: "
"""What there is to say of a step that has some, before their names."""


def unlowered(*graph_modules: fx.GraphModule) -> list[str]:
    """The operators of graphs that have no lowering: sorted, each once; empty if the graphs can be lowered."""
    nodes = [node for graph_module in graph_modules for node in graph_module.graph.nodes]
    called = (node.target for node in nodes if node.op == "call_function")
    names = {_name(target) for target in called if target is not operator.getitem}
    others = {f"{node.op} {node.target}" for node in nodes if node.op in ("call_method", "call_module")}
    return sorted((names - LOWERINGS.keys()) | others)


def draws_numbers(graph_module: fx.GraphModule) -> bool:
    """Whether a graph draws random numbers."""
    return any(node.op == "call_function" and _name(node.target) in RANDOM for node in graph_module.graph.nodes)


def to_jax(graph_module: fx.GraphModule, *, guarded: bool = False) -> Callable[..., list[Any]]:
    """The function that a graph computes, over JAX arrays.

    Args:
        graph_module: A functional graph of ATen operators with static shapes, as
            :func:`stoker.engines.decompositions.trace` makes it.
        guarded: Whether its first output, which is floating, is to be NaN where torch would raise an error for a
            value, such as an index out of range or an integer that is divided by zero.

    Returns:
        A pure function ``f(*arrays, key=None) -> outputs``: one array per placeholder, in order, and the graph's
        outputs as a flat list (``None`` where the graph returns it). A graph with random operators needs ``key``, a JAX
        random key; each operator draws with a key of its own, folded from it, so that the same key gives the same
        numbers. It keeps 64-bit dtypes, which takes ``jax.enable_x64(True)`` around the ``jax.jit`` and the call of
        what it is used in.

    Raises:
        LoweringError: An operator has no lowering, or one that does not do what is asked of it.
    """
    missing = unlowered(graph_module)
    if missing:
        raise LoweringError("graph", "must consist of operators with a lowering to XLA", ", ".join(missing))
    nodes = [node for node in graph_module.graph.nodes if node.op != "output"]
    (output,) = (node for node in graph_module.graph.nodes if node.op == "output")
    constants = {node: from_torch(_attribute(graph_module, node.target)) for node in nodes if node.op == "get_attr"}

    def function(*arrays: Array, key: Array | None = None) -> list[Any]:
        with jax.enable_x64(True):
            inputs = iter(arrays)
            values: dict[fx.Node, Any] = {}
            draws = 0
            faults: dict[tuple[int, ...], Array] = {}  # by shape: one pass looks at all indices of a batch
            for node in nodes:
                if node.op == "placeholder":
                    values[node] = next(inputs)
                elif node.op == "get_attr":
                    values[node] = jax.numpy.asarray(constants[node])
                else:
                    args, kwargs = _arguments(node, values)
                    if node.target is operator.getitem:
                        values[node] = args[0][args[1]]
                        continue
                    name = _name(node.target)
                    if name in RANDOM:
                        if key is None:
                            raise LoweringError("key", f"must be given, because {name} draws random numbers", "None")
                        kwargs["key"] = jax.random.fold_in(key, draws)
                        draws += 1
                    values[node] = LOWERINGS[name](*args, **kwargs)
                    for bad in FAULTS[name](*args, **kwargs) if guarded and name in FAULTS else ():
                        faults[bad.shape] = faults[bad.shape] | bad if bad.shape in faults else bad
            found = pytree.tree_leaves(fx.map_arg(output.args[0], values.__getitem__))
            for bad in faults.values():
                found[0] = jax.numpy.where(bad.any(), jax.numpy.nan, found[0]).astype(found[0].dtype)
            return found

    return function


def refusal(graph_module: fx.GraphModule) -> str | None:
    """What a lowering refuses of a graph whose operators all have one: one line, or ``None``.

    The program is traced without values; nothing is compiled.
    """
    function = to_jax(graph_module)
    examples = [node.meta.get("val") for node in graph_module.graph.nodes if node.op == "placeholder"]
    try:
        with jax.enable_x64(True):
            arrays = [
                jax.ShapeDtypeStruct(tuple(val.shape), jax_dtype(val.dtype))  # type: ignore[no-untyped-call]
                if isinstance(val, torch.Tensor)
                else val
                for val in examples
            ]
            jax.eval_shape(lambda *given: function(*given, key=jax.random.key(0)), *arrays)
    except Exception as error:  # a lowering's own, or what JAX makes of its arguments
        return refusal_of(error)
    return None


def _name(target: Any) -> str:
    return str(target)


def _arguments(node: fx.Node, values: dict[fx.Node, Any]) -> tuple[list[Any], dict[str, Any]]:
    kwargs = {name: value for name, value in node.kwargs.items() if name not in IGNORED}
    args, kwargs = fx.map_arg((list(node.args), kwargs), values.__getitem__)
    return list(args), dict(kwargs)


def _attribute(graph_module: fx.GraphModule, path: str) -> torch.Tensor:
    return operator.attrgetter(path)(graph_module)  # type: ignore[no-any-return]
