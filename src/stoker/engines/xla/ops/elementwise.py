"""Operators that work element by element, with torch's broadcasting and type promotion."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import torch
from jax import Array, lax

from stoker.engines.xla.dtypes import Number, cast, promoted, promoted_float, result_dtype, torch_dtype
from stoker.engines.xla.table import Faults, faults, lowering

__all__: list[str] = []

Operand = Array | Number


def _floating(name: str, function: Callable[[Array], Array]) -> None:
    """A function of one argument, floating also for integers."""

    @lowering(f"{name}.default")
    def lowered(x: Array) -> Array:
        (x,) = promoted_float(x)
        return function(x)


for _name, _function in {
    "acos": jnp.arccos,
    "acosh": jnp.arccosh,
    "asin": jnp.arcsin,
    "asinh": jnp.arcsinh,
    "atan": jnp.arctan,
    "atanh": jnp.arctanh,
    "cos": jnp.cos,
    "cosh": jnp.cosh,
    "erf": lax.erf,
    "erfc": lax.erfc,
    "erfinv": lax.erf_inv,
    "exp": jnp.exp,
    "exp2": jnp.exp2,
    "expm1": jnp.expm1,
    "lgamma": lax.lgamma,
    "log": jnp.log,
    "log10": jnp.log10,
    "log1p": jnp.log1p,
    "log2": jnp.log2,
    "reciprocal": lambda x: 1 / x,
    "rsqrt": lax.rsqrt,
    "sigmoid": jax.nn.sigmoid,
    "sin": jnp.sin,
    "sinh": jnp.sinh,
    "sqrt": jnp.sqrt,
    "tan": jnp.tan,
    "tanh": jnp.tanh,
}.items():
    _floating(_name, _function)


@lowering("digamma.default")
def _digamma(x: Array) -> Array:
    """Infinite at 0, on the other side of it than 0 is signed to."""
    (x,) = promoted_float(x)
    return jnp.where(x == 0, jnp.copysign(jnp.inf, -x), jax.scipy.special.digamma(x))


def _rounding(name: str, function: Callable[[Array], Array]) -> None:
    """A function of one argument that leaves integers as they are."""

    @lowering(f"{name}.default")
    def lowered(x: Array) -> Array:
        return function(x) if torch_dtype(x).is_floating_point else x


for _name, _function in {"ceil": jnp.ceil, "floor": jnp.floor, "round": jnp.round, "trunc": jnp.trunc}.items():
    _rounding(_name, _function)


@lowering("round.decimals")
def _round_decimals(x: Array, *, decimals: int) -> Array:
    if not torch_dtype(x).is_floating_point:
        return x
    ten = 10.0 ** abs(decimals)  # scaled as torch scales, so that ties fall to the same side
    return jnp.round(x * ten) / ten if decimals >= 0 else jnp.round(x / ten) * ten


@lowering("abs.default")
def _abs(x: Array) -> Array:
    return jnp.abs(x)


@lowering("neg.default")
def _neg(x: Array) -> Array:
    return -x


@lowering("sign.default")
def _sign(x: Array) -> Array:
    # to torch the sign of NaN is 0
    return jnp.where(jnp.isnan(x), jnp.zeros_like(x), jnp.sign(x)) if torch_dtype(x).is_floating_point else _sign_of(x)


def _sign_of(x: Array) -> Array:
    return x if torch_dtype(x) == torch.bool else jnp.sign(x)


@lowering("signbit.default")
def _signbit(x: Array) -> Array:
    return jnp.signbit(x) if torch_dtype(x).is_floating_point else x < 0


@lowering("isnan.default")
def _isnan(x: Array) -> Array:
    return jnp.isnan(x)


@lowering("isinf.default")
def _isinf(x: Array) -> Array:
    return jnp.isinf(x)


@lowering("logical_not.default")
def _logical_not(x: Array) -> Array:
    return x == 0


@lowering("bitwise_not.default")
def _bitwise_not(x: Array) -> Array:
    return ~x


@lowering("add.Tensor", "add.Scalar")
def _add(a: Operand, b: Operand, alpha: Operand = 1) -> Array:
    a, b = promoted(a, b)
    return a + b if _is_one(alpha) else a + b * cast(alpha, torch_dtype(b))


@lowering("sub.Tensor", "sub.Scalar")
def _sub(a: Operand, b: Operand, alpha: Operand = 1) -> Array:
    a, b = promoted(a, b)
    return a - b if _is_one(alpha) else a - b * cast(alpha, torch_dtype(b))


def _is_one(alpha: Operand) -> bool:
    return isinstance(alpha, Number) and alpha == 1


@lowering("mul.Tensor", "mul.Scalar")
def _mul(a: Operand, b: Operand) -> Array:
    a, b = promoted(a, b)
    return a * b


@lowering("div.Tensor", "div.Scalar", "div.Tensor_mode", "div.Scalar_mode")
def _div(a: Operand, b: Operand, *, rounding_mode: str | None = None) -> Array:
    if rounding_mode is None:
        a, b = promoted_float(a, b)
        return a / b
    a, b = promoted(a, b)
    if torch_dtype(a).is_floating_point:
        return jnp.trunc(a / b) if rounding_mode == "trunc" else _floor_quotient(a, b)
    return lax.div(*jnp.broadcast_arrays(a, b)) if rounding_mode == "trunc" else jnp.floor_divide(a, b)


@faults("div.Tensor_mode", "div.Scalar_mode")
def _zero_divisors(a: Operand, b: Operand, *, rounding_mode: str | None = None) -> Faults:
    return [] if rounding_mode is None else _integer_zeros(a, b)


@faults("remainder.Tensor", "remainder.Scalar", "remainder.Scalar_Tensor", "fmod.Tensor", "fmod.Scalar")
def _integer_zeros(a: Operand, b: Operand) -> Faults:
    """Of integers, the divisors that are zero: of floating numbers they make infinities and NaN, and no error."""
    return [] if result_dtype(a, b).is_floating_point else [jnp.asarray(b) == 0]


def _floor_quotient(a: Array, b: Array) -> Array:
    """``floor(a / b)``, exact where ``a / b`` would round up to the next integer; as Python's ``//`` and torch's do."""
    a, b = jnp.broadcast_arrays(a, b)
    rest = lax.rem(a, b)
    quotient = (a - rest) / b
    quotient = jnp.where((rest != 0) & ((b < 0) != (rest < 0)), quotient - 1, quotient)
    floor = jnp.floor(quotient)
    floor = jnp.where(quotient - floor > 0.5, floor + 1, floor)
    floor = jnp.where(quotient == 0, jnp.copysign(jnp.zeros_like(a), a / b), floor)
    return jnp.where(b == 0, a / b, floor)


@lowering("remainder.Tensor", "remainder.Scalar", "remainder.Scalar_Tensor")
def _remainder(a: Operand, b: Operand) -> Array:
    """Of the sign of ``b``."""
    a, b = promoted(a, b)
    return jnp.remainder(a, b)


@lowering("fmod.Tensor", "fmod.Scalar")
def _fmod(a: Operand, b: Operand) -> Array:
    """Of the sign of ``a``."""
    a, b = promoted(a, b)
    return lax.rem(*jnp.broadcast_arrays(a, b))


@lowering("pow.Tensor_Tensor", "pow.Tensor_Scalar", "pow.Scalar")
def _pow(a: Operand, b: Operand) -> Array:
    if isinstance(b, int) and not isinstance(b, bool) and 0 <= b <= 4 and not isinstance(a, Number):
        if torch_dtype(a) == torch.bool:
            a = cast(a, torch.int64)
        return lax.integer_pow(a, b)  # multiplications, where the general power is a logarithm
    a, b = promoted(a, b)
    if torch_dtype(a).is_floating_point:
        return jnp.power(a, b)
    return _integer_pow(a, b)


def _integer_pow(a: Array, b: Array) -> Array:
    """Integers to integer powers; a negative power gives 0, except of 1 and -1."""
    if torch_dtype(a) == torch.bool:
        return a | ~b
    power = jnp.power(a, jnp.maximum(b, 0))
    of_minus_one = jnp.where(b % 2 == 0, 1, -1).astype(a.dtype)
    negative = jnp.where(a == 1, jnp.ones_like(a), jnp.where(a == -1, of_minus_one, jnp.zeros_like(a)))
    return jnp.where(b < 0, negative, power)


@lowering("maximum.default")
def _maximum(a: Array, b: Array) -> Array:
    a, b = promoted(a, b)
    return jnp.maximum(a, b)


@lowering("minimum.default")
def _minimum(a: Array, b: Array) -> Array:
    a, b = promoted(a, b)
    return jnp.minimum(a, b)


@lowering("fmax.default")
def _fmax(a: Array, b: Array) -> Array:
    a, b = promoted(a, b)
    return jnp.fmax(a, b)


@lowering("fmin.default")
def _fmin(a: Array, b: Array) -> Array:
    a, b = promoted(a, b)
    return jnp.fmin(a, b)


@lowering("atan2.default")
def _atan2(a: Array, b: Array) -> Array:
    a, b = promoted_float(a, b)
    return jnp.arctan2(a, b)


@lowering("hypot.default")
def _hypot(a: Array, b: Array) -> Array:
    a, b = promoted(a, b)
    return jnp.hypot(a, b)


@lowering("copysign.Tensor", "copysign.Scalar")
def _copysign(a: Array, b: Operand) -> Array:
    a, b = promoted_float(a, b)
    return jnp.copysign(a, b)


@lowering("clamp.default", "clamp.Tensor")
def _clamp(x: Array, low: Operand | None = None, high: Operand | None = None) -> Array:
    x, *bounds = promoted(x, *(bound for bound in (low, high) if bound is not None))
    if low is not None:
        x = jnp.maximum(x, bounds[0])
    return x if high is None else jnp.minimum(x, bounds[-1])


@lowering("where.self")
def _where(condition: Array, a: Operand, b: Operand) -> Array:
    a, b = promoted(a, b)
    return jnp.where(cast(condition, torch.bool), a, b)


def _comparison(name: str, function: Callable[[Array, Array], Array]) -> None:
    @lowering(f"{name}.Tensor", f"{name}.Scalar")
    def lowered(a: Operand, b: Operand) -> Array:
        return function(*promoted(a, b))


for _name, _compare in {
    "eq": jnp.equal,
    "ge": jnp.greater_equal,
    "gt": jnp.greater,
    "le": jnp.less_equal,
    "lt": jnp.less,
    "ne": jnp.not_equal,
}.items():
    _comparison(_name, _compare)


def _bitwise(name: str, function: Callable[[Array, Array], Array]) -> None:
    @lowering(f"{name}.Tensor", f"{name}.Scalar", f"{name}.Scalar_Tensor")
    def lowered(a: Operand, b: Operand) -> Array:
        return function(*promoted(a, b))


for _name, _compare in {
    "bitwise_and": jnp.bitwise_and,
    "bitwise_or": jnp.bitwise_or,
    "bitwise_xor": jnp.bitwise_xor,
}.items():
    _bitwise(_name, _compare)


def _logical(name: str, function: Callable[[Array, Array], Array]) -> None:
    @lowering(f"{name}.default")
    def lowered(a: Array, b: Array) -> Array:
        return function(a != 0, b != 0)


for _name, _compare in {
    "logical_and": jnp.logical_and,
    "logical_or": jnp.logical_or,
    "logical_xor": jnp.logical_xor,
}.items():
    _logical(_name, _compare)


@lowering("_to_copy.default")
def _to_copy(x: Array, *, dtype: torch.dtype | None = None) -> Array:
    return x if dtype is None else cast(x, dtype)


@lowering("copy.default")
def _copy(x: Array, source: Operand) -> Array:
    """``source`` in the shape and dtype of ``x``."""
    return jnp.broadcast_to(cast(source, torch_dtype(x)), x.shape)


@lowering("clone.default", "alias.default", "alias_copy.default", "lift_fresh_copy.default")
def _same(x: Array) -> Array:
    return x
