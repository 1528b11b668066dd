"""What modules, criteria and classes hold besides parameters and parts, by value: a trace sees it as constants."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache, partial
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, NoneType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["code_of", "held_by", "held_values", "mark", "notes"]

Look = Callable[[Tensor], Hashable]
PLAIN = (bool, int, float, complex, str, bytes, NoneType)
DEEPEST = 6  # things within things; beyond, by their kind alone
LONGEST = 1000  # elements of a list up to which each is looked at
MOST = 5000  # things within one, likewise
LARGE = 1 << 20  # bytes of an array up to which it is known by its values
SMALL = 4096  # elements of a tensor up to which it is known by its values, which can change without its version
TORCHS = frozenset(vars(nn.Module())) - {"training"}


def mark(tensor: Tensor, *, portable: bool = False) -> Hashable:
    """What tells that a tensor has been written to or replaced.

    Args:
        tensor: Any.
        portable: Without where it lies in memory.
    """
    if tensor.grad_fn is not None:
        return "noted"  # what a forward pass has computed and noted down is no constant of the next
    if tensor.device.type == "cpu" and tensor.layout is torch.strided and tensor.numel() <= SMALL:
        with suppress(RuntimeError, TypeError):  # a dtype that has no bytes to be looked at
            flat = tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
            return tuple(tensor.shape), str(tensor.dtype), _digest(flat.view(torch.uint8).numpy().tobytes())
    if portable:
        return tuple(tensor.shape)
    where = tensor.data_ptr() if tensor.layout is torch.strided else id(tensor)
    return where, 0 if tensor.is_inference() else tensor._version


def notes(tensor: Tensor) -> Hashable:
    """All tensors alike: whatever a forward pass notes down."""
    del tensor
    return "tensor"


def held_values(module: nn.Module, look: Look, *, portable: bool = False) -> Iterator[tuple[str, Hashable]]:
    """Each of a module's own attributes by value; its parameters, buffers and parts are left out.

    Args:
        module: The module.
        look: What tensors among them are told by.
        portable: Whether another process must be able to compare it.
    """
    seen = {id(module)}
    for name, value in vars(module).items():
        if name not in TORCHS:
            yield name, _described(value, look, portable, seen, 0)


def held_by(thing: object, look: Look, *, portable: bool = False) -> Hashable:
    """Anything by value, such as a criterion that is an object; registered parts of modules are left out."""
    return _described(thing, look, portable, set(), 0)


def code_of(kind: type) -> Hashable:
    """The code and the plain attributes of a class and of those it derives from, but for torch's and Stoker's own."""
    return tuple(
        (one.__qualname__, tuple(_written(vars(one))))
        for one in kind.__mro__
        if not f"{one.__module__}.".startswith(("torch.", "stoker.", "builtins."))
    )


def _written(attributes: Mapping[str, Any]) -> Iterator[tuple[str, Hashable]]:
    for name, value in attributes.items():
        if isinstance(value, (staticmethod, classmethod)):
            value = value.__func__
        if isinstance(value, property):
            value = value.fget
        if isinstance(value, FunctionType):
            yield name, _code(value.__code__)
        elif not name.startswith("__") and isinstance(value, (*PLAIN, list, tuple, dict, np.generic, np.ndarray)):
            yield name, held_by(value, mark)


@lru_cache(maxsize=1024)  # an epoch of a small network is shorter than a look at all code would be
def _code(code: CodeType) -> Hashable:
    constants = tuple(_code(one) if isinstance(one, CodeType) else repr(one) for one in code.co_consts)
    return code.co_code, code.co_names, constants


def _described(value: Any, look: Look, portable: bool, seen: set[int], depth: int) -> Hashable:
    if isinstance(value, PLAIN):
        return type(value).__name__, repr(value)  # as text, in which NaN is NaN and True is not 1
    if isinstance(value, Tensor):
        return look(value)
    if isinstance(value, np.generic):
        return str(value.dtype), value.tobytes()
    if isinstance(value, np.ndarray) and value.dtype != object:
        where = 0 if portable else value.ctypes.data
        return value.shape, str(value.dtype), where if value.nbytes > LARGE else _digest(value.tobytes())
    if isinstance(value, (torch.dtype, torch.device, torch.memory_format, torch.layout)):
        return str(value)
    if isinstance(value, (FunctionType, BuiltinFunctionType, MethodType)):
        return f"{value.__module__}.{value.__qualname__}" if portable else value
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    if id(value) in seen or depth == DEEPEST or len(seen) > MOST:
        return type(value).__qualname__
    seen.add(id(value))
    within = partial(_described, look=look, portable=portable, seen=seen, depth=depth + 1)
    kind = type(value).__qualname__
    if isinstance(value, nn.Module):
        return kind, tuple((name, within(one)) for name, one in vars(value).items() if name not in TORCHS)
    if isinstance(value, (dict, list, tuple, deque, set, frozenset)):  # others may compute what they hold
        if len(value) > LONGEST:
            return kind, len(value)
        if isinstance(value, dict):
            return kind, tuple((within(name), within(one)) for name, one in value.items())
        found = [within(one) for one in value]
        return kind, tuple(sorted(map(repr, found)) if isinstance(value, (set, frozenset)) else found)
    if isinstance(value, partial):
        return kind, within(value.func), within(value.args), within(value.keywords)
    if hasattr(value, "__dict__"):
        return kind, tuple((name, within(one)) for name, one in vars(value).items())
    text = ""
    with suppress(Exception):  # whatever somebody's own raises
        text = repr(value)
    return text if 0 < len(text) <= LONGEST and " at 0x" not in text else kind  # a range, a date


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
