"""Terms that several updates have: weight decay, and moving averages of gradients and of their squares.

Each is the sequence of torch operations of ``torch.optim``'s loop over parameters (``foreach=False, fused=False``),
with 0-d tensors in the place of Python numbers. ``addcmul(a, b, s)`` is ``a.add(b, alpha=s)`` then: both multiply and
add with a single rounding where the processor can.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from stoker.engines.updates.protocol import Group, Signature

__all__ = ["decay", "decay_scalars", "moving_average", "moving_square"]

DECOUPLED = "decoupled_weight_decay"


def decay_scalars(group: Group, lrs: Sequence[float], signature: Signature) -> dict[str, float | list[float]]:
    """The scalars of :func:`decay`."""
    weight_decay = float(group["weight_decay"])
    if DECOUPLED in signature:
        return {"shrink": [1 - lr * weight_decay for lr in lrs]}
    return {"weight_decay": weight_decay}


def decay(
    parameter: Tensor, gradient: Tensor, scalars: Mapping[str, Tensor], signature: Signature
) -> tuple[Tensor, Tensor]:
    """The gradient of what is minimised, and weight decay.

    Coupled, the gradient of ``λ/2·‖θ‖²`` is added: ``g ← g + λθ``. Decoupled, the parameter shrinks on its own:
    ``θ ← (1 − ηλ)θ`` (Loshchilov & Hutter, "Decoupled weight decay regularization", 2019, arXiv:1711.05101, Algorithm
    2).
    Without weight decay, ``λ = 0``, both leave finite numbers as they are, so that it is no case of its own.

    Returns:
        Parameter and gradient, for the rest of the update.
    """
    if "maximize" in signature:
        gradient = -gradient
    if DECOUPLED in signature:
        return parameter * scalars["shrink"], gradient
    return parameter, torch.addcmul(gradient, parameter, scalars["weight_decay"])


def moving_average(average: Tensor, value: Tensor, weight: Tensor) -> Tensor:
    """``m ← m + w(x − m)``, with ``w = 1 − β``; ``w = 1`` gives ``x`` exactly."""
    return torch.lerp(average, value, weight)


def moving_square(average: Tensor, value: Tensor, keep: Tensor, weight: Tensor) -> Tensor:
    """``v ← βv + (1 − β)x²``, with ``keep = β`` and ``weight = 1 − β``, subtracted in double precision."""
    return torch.addcmul(average * keep, value * weight, value)
