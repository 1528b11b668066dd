"""A captured step as text: one line an operator, with the shapes and dtypes of what it gives."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from stoker.engines.calls import Phase
from stoker.engines.capture import Captured, State

__all__ = ["averages_of", "given_to_gradients", "given_to_update", "graph_text"]


def given_to_gradients(state: State, inputs: Any, targets: Any) -> list[str]:
    """What the placeholders of a graph of gradients stand for, in order: ``layers.0.weight``, ``inputs.image``."""
    return [
        *(*state.parameters, *state.buffers, *state.constants),
        *(f"{name}.p" for name in state.rates),
        *_leaf_names("inputs", inputs),
        *_leaf_names("targets", targets),
    ]


def given_to_update(state: State, captured: Captured, clips: bool) -> list[str]:
    """The same for a graph of the update: ``0.weight.grad.T`` (of one that is turned), ``0.bias.exp_avg``, ``lr``."""
    scalars, turned = captured.scalars, captured.turned
    slots_of_each = (slots for cohort in state.cohorts for slots in cohort.slots)
    slots = [f"{name}.{slot}" for name, slots in zip(state.parameters, slots_of_each, strict=True) for slot in slots]
    numbers = [
        name if len(scalars) == 1 else f"cohort{number}.{name}"
        for number, of_cohort in enumerate(scalars)
        for name in of_cohort
    ]
    return [
        *_turned(state.parameters, turned.parameters),
        *_turned([f"{name}.grad" for name in state.parameters], turned.parameters),
        *_turned(slots, turned.slots),
        *numbers,
        *(["clip_norm"] if clips else []),
        *([*averages_of(state, captured), "weight"] if state.averages else []),
    ]


def averages_of(state: State, captured: Captured) -> list[str]:
    """What the averages of the parameters are called; nothing where there are none."""
    names = [f"{name}.average" for name in state.parameters] if state.averages else []
    return _turned(names, captured.turned.parameters if names else ())


def _turned(names: Iterable[str], flags: Sequence[bool]) -> list[str]:
    return [f"{name}.T" if flag else name for name, flag in zip(names, flags, strict=True)]


def graph_text(
    graph: fx.GraphModule, given: Sequence[str], parts: Mapping[fx.Node, Phase], results: Sequence[str]
) -> str:
    """A graph to read, a line a node: ``%mm: f32[32, 50] = aten.mm.default(%a, %b)``.

    Args:
        graph: As :func:`stoker.engines.decompositions.trace` makes it.
        given: What its placeholders stand for.
        parts: The part of the step that each operator belongs to; where one begins a comment says so.
        results: What its outputs are.
    """
    inputs = [node for node in graph.graph.nodes if node.op == "placeholder"]
    names = _unique(graph, dict(zip(inputs, given, strict=True)))
    return "\n".join(_lines(graph, names, parts, results))


def _lines(
    graph: fx.GraphModule, names: Mapping[fx.Node, str], parts: Mapping[fx.Node, Phase], results: Sequence[str]
) -> Iterator[str]:
    part: Phase | None = None
    yield "# given"
    for node in graph.graph.nodes:
        if node in parts and parts[node] != part:
            part = parts[node]
            yield f"# {part}"
        if node.op == "output":
            yield "# results"
            for result, output in zip(results, pytree.tree_leaves(node.args[0]), strict=True):
                yield f"{result} = {_argument(output, names)}"
            continue
        left = f"%{names[node]}: {_form(node.meta.get('val'))}"
        yield left if node.op == "placeholder" else f"{left} = {_call(node, names)}"


def _call(node: fx.Node, names: Mapping[fx.Node, str]) -> str:
    if node.op == "get_attr":
        return "a constant"
    positional = [_argument(value, names) for value in node.args]
    if getattr(node.target, "__name__", "") == "getitem":
        return f"{positional[0]}[{positional[1]}]"
    named = [f"{name}={_argument(value, names)}" for name, value in node.kwargs.items()]
    return f"{node.target}({', '.join(positional + named)})"


def _argument(value: Any, names: Mapping[fx.Node, str]) -> str:
    if isinstance(value, fx.Node):
        return f"%{names[value]}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_argument(one, names) for one in value)}]"
    return str(value)


def _form(value: Any) -> str:
    """``f32[32, 50]``; of several results ``(f32[32, 50], i64[32])``."""
    if isinstance(value, Tensor):
        return f"{_short(value.dtype)}[{', '.join(map(str, value.shape))}]"
    if isinstance(value, (list, tuple)):
        return f"({', '.join(map(_form, value))})"
    return type(value).__name__


def _short(dtype: torch.dtype) -> str:
    """``f32`` for ``torch.float32``, ``bf16``, ``i64``, ``bool``."""
    return re.sub(r"^(bf|f|u|)(?:loat|int)(?=\d)", lambda found: found[1] or "i", str(dtype).removeprefix("torch."))


def _unique(graph: fx.GraphModule, given: Mapping[fx.Node, str]) -> dict[fx.Node, str]:
    """Each node's name; one that would stand twice gets an underscore."""
    names: dict[fx.Node, str] = {}
    taken: set[str] = set()
    for node in graph.graph.nodes:
        name = given.get(node, node.name)
        while name in taken:
            name += "_"
        taken.add(name)
        names[node] = name
    return names


def _leaf_names(name: str, tree: Any) -> list[str]:
    """``inputs``; of a dict or a tuple ``inputs.image``, ``inputs.0``."""
    paths = [pytree.keystr(path) for path, _ in pytree.tree_flatten_with_path(tree)[0]]
    return [name + re.sub(r"\['?(.*?)'?\]", r".\1", path) for path in paths]
