"""The numbers that a program draws, without a program: JAX's own functions of a key, carried out by NumPy.

What JAX makes of ``jax.random`` is some dozens of simple operations; XLA takes as long to compile them as a third of a
small program. So they are traced, and what stands in the trace is done by NumPy. Where something stands in it that is
not known here, or where the user has JAX draw by another generator, it is compiled after all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import torch
from jax.extend.core import ClosedJaxpr, Literal
from jax.extend.random import threefry_prng_impl as threefry
from torch import Tensor
from torch.utils import _pytree as pytree

from stoker.engines.xla import ops  # noqa: F401  (fills the table)
from stoker.engines.xla.device import CPU, on
from stoker.engines.xla.dtypes import from_torch
from stoker.engines.xla.table import LOWERINGS

__all__ = ["drawn"]

USUAL = "threefry2x32"
ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA


def drawn(name: str, args: Sequence[Any], kwargs: Mapping[str, Any], seed: int, folds: Sequence[int]) -> Any:
    """What a random operator's lowering gives for a key.

    Args:
        name: The operator, one of :data:`stoker.engines.xla.table.RANDOM`.
        args: Its arguments, tensors of any device among them.
        kwargs: Likewise, without those that say where a tensor lies.
        seed: Of the key.
        folds: What is folded into the key, one after the other.

    Returns:
        A tensor on the CPU, or several: the same numbers as a program's, but for the last bits of logarithms and the
        like.
    """
    leaves, form = pytree.tree_flatten((list(args), dict(kwargs)))
    places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    arrays = [from_torch(leaves[place]) for place in places]

    def function(seed: Any, folds: Any, *arrays: Any) -> Any:
        key = jax.random.key(seed)
        for fold in folds:
            key = jax.random.fold_in(key, fold)
        values = dict(zip(places, arrays, strict=True))
        mine, named = pytree.tree_unflatten([values.get(place, leaf) for place, leaf in enumerate(leaves)], form)
        return LOWERINGS[name](*mine, **named, key=key)

    settings: Any = jax.config
    given = np.int32(seed), [np.int32(fold) for fold in folds], *arrays
    with on(CPU), np.errstate(all="ignore"):
        traced = jax.make_jaxpr(function)(*given)
        if settings.jax_default_prng_impl == USUAL and _is_known(traced.jaxpr):
            found = _evaluated(traced, jax.tree.leaves(given))
        else:
            found = jax.tree.leaves(jax.jit(function)(*given))
    tensors = [_tensor(np.asarray(one)) for one in found]
    return tensors[0] if len(tensors) == 1 else tuple(tensors)


def _tensor(array: np.ndarray[Any, Any]) -> Tensor:
    array = np.array(array)  # contiguous, and to be written to
    if array.dtype == jax.numpy.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _evaluated(traced: ClosedJaxpr, inputs: Sequence[Any]) -> list[Any]:
    """The outputs of a trace. A key is what it consists of: two numbers, as the last dimension."""
    jaxpr = traced.jaxpr
    values: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*traced.consts, *inputs], strict=True))

    def value(atom: Any) -> Any:
        if isinstance(atom, Literal):
            kind: Any = atom.aval
            return np.asarray(atom.val, kind.dtype)
        return values[atom]

    for line in jaxpr.eqns:
        given = [value(atom) for atom in line.invars]
        name, settings = line.primitive.name, line.params
        found: Any
        if name in _CALLS:
            found = _evaluated(settings["jaxpr"], given)
        elif name in _OF_KEYS:
            found = _evaluated(jax.make_jaxpr(_OF_KEYS[name](settings))(*given), given)
        else:
            found = _NUMPYS[name](*given, **settings)
        values.update(zip(line.outvars, found if isinstance(found, (list, tuple)) else [found], strict=True))
    return [value(atom) for atom in jaxpr.outvars]


def _is_known(jaxpr: Any) -> bool:
    """Whether NumPy can carry out a trace."""
    known = _NUMPYS.keys() | _OF_KEYS.keys()
    return all(
        _is_known(line.params["jaxpr"].jaxpr) if line.primitive.name in _CALLS else line.primitive.name in known
        for line in jaxpr.eqns
    )


_CALLS = {"jit", "pjit"}
_OF_KEYS: dict[str, Callable[[Mapping[str, Any]], Callable[..., Any]]] = {
    "random_seed": lambda _: threefry.seed,
    "random_fold_in": lambda _: threefry.fold_in,
    "random_split": lambda its: lambda key: threefry.split(key, its["shape"]),
    "random_bits": lambda its: lambda key: threefry.random_bits(key, its["bit_width"], its["shape"]),
}


def _threefry2x32(key1: Any, key2: Any, x1: Any, x2: Any) -> tuple[Any, Any]:
    """Twenty rounds of adding, turning and mixing.

    Source: Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """
    keys = key1, key2, key1 ^ key2 ^ np.uint32(PARITY)
    one, two = np.array(x1 + key1), np.array(x2 + key2)
    for turn in range(5):
        for rotation in ROTATIONS[turn % 2]:
            one += two
            two = (two << np.uint32(rotation)) | (two >> np.uint32(32 - rotation))
            two ^= one
        one += keys[(turn + 1) % 3]
        two += keys[(turn + 2) % 3] + np.uint32(turn + 1)
    return one, two


def _counts(*, shape: Sequence[int]) -> tuple[Any, Any]:
    """Each element's place, as the upper and the lower half of its bits."""
    places = np.arange(np.prod(shape, dtype=np.int64), dtype=np.uint64).reshape(shape)
    return (places >> np.uint64(32)).astype(np.uint32), places.astype(np.uint32)


def _broadcast(x: Any, *, shape: Sequence[int], broadcast_dimensions: Sequence[int], **_: Any) -> Any:
    whole = [1] * len(shape)
    for dim, size in zip(broadcast_dimensions, np.shape(x), strict=True):
        whole[dim] = size
    return np.broadcast_to(np.reshape(x, whole), shape)


def _sliced(x: Any, *, start_indices: Any, limit_indices: Any, strides: Any) -> Any:
    steps = strides or [1] * len(start_indices)
    return x[tuple(map(slice, start_indices, limit_indices, steps))]


def _cut(x: Any, *, sizes: Any, axis: int) -> list[Any]:
    return list(np.split(x, np.cumsum(sizes)[:-1], axis))


def _numbered(*, dtype: Any, shape: Sequence[int], dimension: int, **_: Any) -> Any:
    return np.indices(shape)[dimension].astype(dtype)


def _erf_inv(x: Any, **_: Any) -> Any:
    wide = torch.erfinv(torch.from_numpy(np.array(x, np.promote_types(x.dtype, np.float32))))
    return wide.numpy().astype(x.dtype)


def _quotient(x: Any, y: Any) -> Any:
    return (x - np.fmod(x, y)) // y if np.issubdtype(x.dtype, np.integer) else x / y


def _sorted(*xs: Any, dimension: int, num_keys: int, **_: Any) -> list[Any]:
    places = np.lexsort(xs[:num_keys][::-1], dimension)
    return [np.take_along_axis(x, places, dimension) for x in xs]


def _by(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *given, **_: function(*given)


_NUMPYS: dict[str, Callable[..., Any]] = {
    "add": _by(np.add),
    "and": _by(np.bitwise_and),
    "bitcast_convert_type": lambda x, *, new_dtype: np.ascontiguousarray(x).view(new_dtype).reshape(np.shape(x)),
    "broadcast_in_dim": _broadcast,
    "concatenate": lambda *xs, dimension: np.concatenate(xs, dimension),
    "convert_element_type": lambda x, *, new_dtype, **_: np.asarray(x).astype(new_dtype),
    "div": _quotient,
    "erf_inv": _erf_inv,
    "gt": _by(np.greater),
    "iota": _numbered,
    "iota_2x32_shape": _counts,
    "le": _by(np.less_equal),
    "log1p": _by(np.log1p),
    "lt": _by(np.less),
    "max": _by(np.maximum),
    "min": _by(np.minimum),
    "mul": _by(np.multiply),
    "neg": _by(np.negative),
    "or": _by(np.bitwise_or),
    "rem": _by(np.fmod),
    "reshape": lambda x, *, new_sizes, **_: np.reshape(x, new_sizes),
    "select_n": lambda which, no, yes: np.where(which, yes, no),
    "shift_left": _by(np.left_shift),
    "shift_right_logical": _by(np.right_shift),
    "slice": _sliced,
    "sort": _sorted,
    "split": _cut,
    "squeeze": lambda x, *, dimensions: np.squeeze(x, tuple(dimensions)),
    "stack": lambda *xs, axis: np.stack(xs, axis),
    "sub": _by(np.subtract),
    "threefry2x32": _threefry2x32,
    "xor": _by(np.bitwise_xor),
}
