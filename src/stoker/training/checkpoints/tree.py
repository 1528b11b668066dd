"""Nested values, tensors among them, as JSON and named tensors: what optimizers and schedules remember, without pickle.

Plain numbers, texts, ``None`` and lists are JSON's own. All else is an object of one entry, which says what it is::

    {"tensor": "optimizer/3"}            {"tensor": "optimizer/4", "order": [0, 2, 3, 1]}
    {"tuple": [0.9, 0.999]}              {"dict": [["lr", 0.1], [3, null]]}
    {"counter": [[2, 1]]}                {"float": "inf"}
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from stoker.errors import CheckpointError

__all__ = ["pack", "unpack"]

DEEPEST = 60  # levels; what training remembers has fewer than ten


def pack(value: Any, tensors: dict[str, Tensor], name: str = "") -> Any:
    """Take a value apart.

    Args:
        value: ``None``, truth values, numbers, texts, tensors, and lists, tuples and dicts of these.
        tensors: Gets each tensor by its place in the value, contiguous and on the CPU.
        name: Of the value.

    Returns:
        What JSON can hold.

    Raises:
        CheckpointError: There is something else in it.
    """
    if name.count("/") > DEEPEST:
        raise _unkept(name, f"more than {DEEPEST} levels")
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": repr(float(value))}
    if isinstance(value, Tensor):
        return _packed_tensor(value, tensors, name)
    if isinstance(value, Mapping):
        if not all(isinstance(key, (str, int, float)) for key in value):
            raise _unkept(name, "keys that are neither texts nor numbers")
        entries = [[pack(key, {}), pack(entry, tensors, f"{name}/{key}")] for key, entry in value.items()]
        return {"counter" if isinstance(value, Counter) else "dict": entries}
    if isinstance(value, (list, tuple)):
        parts = [pack(part, tensors, f"{name}/{place}") for place, part in enumerate(value)]
        return parts if isinstance(value, list) else {"tuple": parts}
    raise _unkept(name, type(value).__name__)


def _packed_tensor(tensor: Tensor, tensors: dict[str, Tensor], name: str) -> dict[str, Any]:
    if tensor.layout is not torch.strided or tensor.is_quantized:
        raise _unkept(name, f"a tensor of layout {tensor.layout}")
    plain = tensor.detach().cpu()
    while name in tensors:  # the keys "1" and 1 look the same
        name += "'"
    strides = plain.stride()
    order = sorted(range(plain.ndim), key=lambda axis: -strides[axis])
    # Such as a convolution's weights with the channels innermost: kernels add up in another order where it is another.
    # An axis of one element may have any stride, which torch hands on, and tells layouts by.
    if strides != torch.empty(plain.shape, device="meta").stride() and plain.permute(order).is_contiguous():
        tensors[name] = plain.permute(order).contiguous()
        return {"tensor": name, "order": order, "strides": list(strides)}
    tensors[name] = plain.contiguous()
    return {"tensor": name}


def unpack(packed: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Put a value together again, to the same types and bits.

    Args:
        packed: What :func:`pack` returned, as read from JSON; nothing about it is taken for granted.
        tensors: The named tensors.

    Raises:
        CheckpointError: It is of another form.
    """
    return _unpacked(packed, tensors, 0)


def _unpacked(packed: Any, tensors: Mapping[str, Tensor], level: int) -> Any:
    if level > DEEPEST + 1:
        raise _malformed(f"more than {DEEPEST} levels")
    if packed is None or isinstance(packed, (bool, str, int)):
        return packed
    if isinstance(packed, float):
        if not math.isfinite(packed):
            raise _malformed("a bare NaN or infinity")
        return packed
    if isinstance(packed, list):
        return [_unpacked(part, tensors, level + 1) for part in packed]
    if isinstance(packed, dict) and packed:
        kind, content = next(iter(packed.items()))
        if set(packed) == {"tensor", "order", "strides"}:
            return _laid_out(_named(packed["tensor"], tensors), packed["order"], packed["strides"])
        if len(packed) == 1 and kind in _KINDS:
            return _KINDS[kind](content, tensors, level)
    raise _malformed(f"{str(packed)[:60]!r}")


def _named(name: Any, tensors: Mapping[str, Tensor]) -> Tensor:
    if not isinstance(name, str) or name not in tensors:
        raise _malformed(f"a tensor {str(name)[:60]!r} that is not there")
    return tensors[name]


def _laid_out(tensor: Tensor, order: Any, strides: Any) -> Tensor:
    whole = all(isinstance(numbers, list) and all(type(one) is int for one in numbers) for numbers in (order, strides))
    if not whole or sorted(order) != list(range(tensor.ndim)):
        raise _malformed(f"the axes {str(order)[:60]}")
    turned = tensor.permute(sorted(range(tensor.ndim), key=lambda axis: order[axis]))
    fits = len(strides) == turned.ndim and all(
        mine == theirs or (size == 1 and 0 <= mine < 2**40)  # where there is one element, nothing is reached by it
        for mine, theirs, size in zip(strides, turned.stride(), turned.shape, strict=True)
    )
    if not fits:
        raise _malformed(f"the strides {str(strides)[:60]}")
    return turned.as_strided(turned.shape, strides)


def _float(content: Any, _tensors: Mapping[str, Tensor], _level: int) -> float:
    if content not in ("inf", "-inf", "nan"):
        raise _malformed(f"the number {str(content)[:60]!r}")
    return float(content)


def _tuple(content: Any, tensors: Mapping[str, Tensor], level: int) -> tuple[Any, ...]:
    if not isinstance(content, list):
        raise _malformed(f"a tuple of {type(content).__name__}")
    return tuple(_unpacked(part, tensors, level + 1) for part in content)


def _dict(content: Any, tensors: Mapping[str, Tensor], level: int) -> dict[Any, Any]:
    pairs = isinstance(content, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in content)
    if not pairs:
        raise _malformed("a dict without pairs of keys and values")
    entries = [(_unpacked(key, {}, level + 1), _unpacked(entry, tensors, level + 1)) for key, entry in content]
    if not all(isinstance(key, (str, int, float)) for key, _ in entries):
        raise _malformed("a dict with keys that are neither texts nor numbers")
    return dict(entries)


_KINDS: dict[str, Callable[[Any, Mapping[str, Tensor], int], Any]] = {
    "tensor": lambda content, tensors, _: _named(content, tensors),
    "float": _float,
    "tuple": _tuple,
    "dict": _dict,
    "counter": lambda content, tensors, level: Counter(_dict(content, tensors, level)),
}


def _unkept(name: str, got: str) -> CheckpointError:
    fix = "Train without checkpoints, or keep it as a tensor, a number or a text."
    return CheckpointError(
        f"checkpoint, {name or 'value'}", "can hold numbers, texts, tensors, lists and dicts", got, fix
    )


def _malformed(got: str) -> CheckpointError:
    return CheckpointError("checkpoint", "must hold what Stoker writes", got, "The file is damaged.")
