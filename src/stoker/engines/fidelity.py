"""Whether a trace is the step: what a graph of tensors cannot hold, and what it comes to beside the step itself.

A trace follows one call of the user's code. What that code does besides computing with tensors it was given (counting
calls, drawing from Python's generators, reading weights past the model) is in no graph, and a program without it would
train something else without a word. So the code is watched while it is traced; and of a step that draws noise, which
no program draws as torch does, the graph is compared with the step under numbers that both have in common.
"""

from __future__ import annotations

import math
import operator
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import TorchDispatchMode

from stoker.engines.held import LONGEST, held_values, notes

__all__ = ["Changes", "CommonNoise", "far", "foreign", "repeated_noise", "undone"]

FEWEST = 64  # numbers that are not drawn alike twice by chance, even if they are zeros and ones


@dataclass(frozen=True)
class Changes:
    """What code did to the modules it ran in.

    Attributes:
        said: What of it a graph does not have, in words; ``None`` if there is nothing.
        replaced: Tensors, by the attributes that hold others now.
    """

    said: str | None
    replaced: dict[str, Tensor]


@contextmanager
def undone(modules: Sequence[nn.Module]) -> Iterator[Callable[[], Changes]]:
    """Within this block modules may be changed: afterwards they hold what they held before.

    Yields:
        A function that says what has been changed so far.
    """
    kept = [(module, dict(vars(module)), list(_containers(vars(module).values()))) for module in modules]
    before = _noted(modules)
    pythons, numpys = random.getstate(), _numpys_state()

    def changed() -> Changes:
        said = None
        if random.getstate() != pythons or any(map(operator.ne, _numpys_state(), numpys)):
            said = "a step draws from Python's or NumPy's random numbers"
        for (place, name), value in _noted(modules).items():
            if before.get((place, name)) != value:
                said = said or f"a step changes {type(modules[place]).__name__}.{name}"
        replaced = {
            f"{type(module).__name__}.{name}": value
            for module, attributes, _ in kept
            for name, value in attributes.items()
            if isinstance(value, Tensor) and vars(module).get(name) is not value
        }
        return Changes(said, replaced)

    try:
        yield changed
    finally:
        for module, attributes, containers in kept:
            vars(module).clear()
            vars(module).update(attributes)
            for container, contents in containers:
                container.clear()
                container.extend(contents) if isinstance(container, list) else container.update(contents)
        random.setstate(pythons)
        np.random.set_state(("MT19937", np.frombuffer(numpys[0], np.uint32), *numpys[1:]))


def _noted(modules: Sequence[nn.Module]) -> dict[tuple[int, str], Any]:
    """What modules hold besides tensors."""
    return {(place, name): value for place, module in enumerate(modules) for name, value in held_values(module, notes)}


def _containers(values: Iterable[Any], seen: set[int] | None = None) -> Iterator[tuple[Any, Any]]:
    """The lists, dicts and sets among a module's attributes, torch's own included, with copies of what they hold."""
    seen = set() if seen is None else seen  # one may hold itself
    for value in values:
        if type(value) in (list, dict, set) and id(value) not in seen:
            seen.add(id(value))
            yield value, value.copy()
            if len(value) <= LONGEST:
                yield from _containers(value.values() if isinstance(value, dict) else value, seen)


def _numpys_state() -> tuple[bytes, int, int, float]:
    state: Any = np.random.get_state()
    return np.asarray(state[1]).tobytes(), int(state[2]), int(state[3]), float(state[4])


def foreign(graph: fx.GraphModule, tensors: Mapping[str, Tensor]) -> str | None:
    """The name of a tensor that a graph has as a constant though it is to change; ``None`` if there is none.

    Args:
        graph: What was traced.
        tensors: Those that change.
    """
    places = {tensor.untyped_storage().data_ptr(): name for name, tensor in tensors.items() if tensor.numel()}
    for node in graph.graph.nodes:
        value = getattr(graph, str(node.target), None) if node.op == "get_attr" else None
        if isinstance(value, Tensor) and value.untyped_storage().data_ptr() in places:
            return places[value.untyped_storage().data_ptr()]
    return None


class CommonNoise(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Has operators that draw give the same numbers whenever they are asked for as many.

    Whichever operators a decomposition turns others into, what comes of them is the same: all begin with
    ``u_i = frac((i + 1) φ)``, and an element is kept with probability ``p`` where ``u < p``.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        if name in _COMMON:
            return _COMMON[name](func, *args, **kwargs)
        return func(*args, **kwargs)


def _even(shape: Sequence[int]) -> Tensor:
    places = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64).reshape(tuple(shape))
    found: Tensor = (places * ((math.sqrt(5) - 1) / 2)).frac()
    return found


def _normal(shape: Sequence[int]) -> Tensor:
    found: Tensor = torch.special.ndtri(_even(shape).clamp(1e-9, 1 - 1e-9))
    return found


def _filled(distribution: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """An operator ``f(x, …)`` whose result is like ``x``, which one that ends in ``_`` is written to."""

    def common(func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        kwargs = {name: value for name, value in kwargs.items() if name in {"p", "mean", "std", "lambd"}}
        found = distribution(x.shape, *args, **kwargs).to(x.dtype)
        return x.copy_(found) if func._schema.name.endswith("_") else found

    return common


def _made(distribution: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """An operator whose first argument is a size, or a tensor of that size."""

    def common(func: Any, first: Any, *_: Any, dtype: torch.dtype | None = None, **__: Any) -> Tensor:
        del func
        shape, like = (first.shape, first.dtype) if isinstance(first, Tensor) else (first, torch.get_default_dtype())
        found: Tensor = distribution(shape).to(dtype or like)
        return found

    return common


def _around(func: Any, mean: Any, std: Any = 1.0, *_: Any, **__: Any) -> Tensor:
    del func
    mean, std = torch.as_tensor(mean), torch.as_tensor(std)
    found: Tensor = _normal((mean + std).shape) * std + mean
    return found.to(torch.result_type(mean, std))


def _whole(func: Any, *args: Any, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
    del func
    low, high, size = args if len(args) == 3 else (0, *args)
    found: Tensor = (low + _even(size) * (high - low)).floor().to(dtype or torch.int64)
    return found


def _rrelu(
    func: Any, x: Tensor, noise: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, *_: Any
) -> Any:
    slope = lower + _even(x.shape) * (upper - lower) if training else (lower + upper) / 2
    factor = torch.where(x <= 0, slope, 1.0).to(x.dtype)
    if func._schema.name.endswith("functional"):
        return x * factor, factor
    noise.copy_(factor)
    return x.mul_(factor) if func._schema.name.endswith("_") else x * factor


def _bernoulli(shape: Sequence[int], p: Any = 0.5) -> Tensor:
    found: Tensor = (_even(shape) < p).double()
    return found


def _own_bernoulli(func: Any, x: Tensor, p: Any = None, **_: Any) -> Tensor:
    """``bernoulli(x)`` takes its probabilities from ``x``, all others from ``p``."""
    if p is None:
        p = 0.5 if func._schema.name.endswith("_") else x
    return _filled(_bernoulli)(func, x, p)


def _exponential(shape: Sequence[int], lambd: float = 1.0) -> Tensor:
    return -torch.log1p(-_even(shape)) / lambd


_UNIFORM = _filled(lambda shape, low=0.0, high=1.0: low + _even(shape) * (high - low))
_NORMAL = _filled(lambda shape, mean=0.0, std=1.0: mean + _normal(shape) * std)
_COMMON: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("rand", "rand_like"), _made(_even)),
    **dict.fromkeys(("randn", "randn_like"), _made(_normal)),
    **dict.fromkeys(("uniform", "uniform_"), _UNIFORM),
    **dict.fromkeys(("normal_", "normal_functional"), _NORMAL),
    "normal": _around,
    **dict.fromkeys(("bernoulli", "bernoulli_"), _own_bernoulli),
    **dict.fromkeys(("exponential", "exponential_"), _filled(_exponential)),
    "randint": _whole,
    "randperm": lambda _, n, *__, dtype=None, **___: _even([n]).argsort().to(dtype or torch.int64),
    **dict.fromkeys(("rrelu_with_noise", "rrelu_with_noise_", "rrelu_with_noise_functional"), _rrelu),
}


class _Drawn(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes what operators draw."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numbers: list[Tensor] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if func._schema.name.removeprefix("aten::") in _COMMON and isinstance(found, Tensor):
            self.numbers.append(found.detach().clone())
        return found


def repeated_noise(forward: Callable[[], object]) -> bool:
    """Whether a forward pass draws the same numbers each time, because it seeds a generator itself.

    Args:
        forward: Called twice.
    """
    drawn = []
    for _ in range(2):
        with _Drawn() as noted:
            forward()
        drawn.append(noted.numbers)
    return any(
        one.numel() >= FEWEST and len(one.unique()) > 1 and one.shape == other.shape and torch.equal(one, other)
        for one, other in zip(*drawn, strict=False)
    )


def far(mine: Tensor, theirs: Tensor, *, half: bool, scale: float = 0.0) -> bool:
    """Whether two tensors differ by more than rounding, as a whole: single elements may lie at an activation's kink.

    Args:
        mine: A tensor.
        theirs: Another of its shape; if it has whole numbers, ``mine`` must have the same.
        half: Whether they were computed in half precision.
        scale: A norm of what rounding errors are part of, as the largest gradient's is beside one that cancels out.
    """
    if not theirs.is_floating_point():
        return not torch.equal(mine, theirs)
    if not bool(torch.isfinite(theirs).all()):
        return False  # the step itself goes wrong, which is told elsewhere
    allowed = (0.1 if half else 1e-2) * float(theirs.norm()) + (1e-2 if half else 1e-5) * max(scale, 1e-6)
    return float((mine.to(theirs.dtype) - theirs).norm()) > allowed
