"""RMSprop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stoker.engines.updates.protocol import Counts, Group, Signature, Update, columns
from stoker.engines.updates.terms import decay, decay_scalars, moving_average, moving_square

__all__ = ["RMSpropUpdate"]


class RMSpropUpdate(Update):
    """The update of ``torch.optim.RMSprop``.

    With learning rate η, smoothing α, momentum μ, weight decay λ::

        g ← g + λθ
        v ← αv + (1−α)g²
        a ← a + (1−α)(g − a);  s ← √(v − a²) + ε   centred
        s ← √v + ε                                 not
        b ← μb + g/s;  θ ← θ − ηb                  with momentum
        θ ← θ − η·g/s                              without

    Source: Tieleman & Hinton, "Lecture 6.5: rmsprop", Neural Networks for Machine Learning, 2012; centred: Graves,
    "Generating sequences with recurrent neural networks", 2013 (arXiv:1308.0850), equations 38–41, with torch's ε.
    """

    flags = ("centered", "maximize", "momentum")

    def slots(self, group: Group) -> tuple[str, ...]:
        signature = self.signature(group)
        momentum = ("momentum_buffer",) if "momentum" in signature else ()
        return ("square_avg", *momentum, *(("grad_avg",) if "centered" in signature else ()))

    def scalars(self, group: Group, counts: Counts, lrs: Sequence[float]) -> tuple[dict[str, np.ndarray], Counts]:
        signature = self.signature(group)
        values: dict[str, Any] = {
            **decay_scalars(group, lrs, signature),
            "keep": float(group["alpha"]),
            "weight": 1 - float(group["alpha"]),
            "eps": float(group["eps"]),
            "descent": [-lr for lr in lrs],
        }
        if "momentum" in signature:
            values["momentum"] = float(group["momentum"])
        return columns(len(lrs), values), {"step": counts["step"] + len(lrs)}

    def apply(
        self,
        parameter: Tensor,
        gradient: Tensor,
        slots: Mapping[str, Tensor],
        scalars: Mapping[str, Tensor],
        signature: Signature,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        parameter, gradient = decay(parameter, gradient, scalars, signature)
        variance = moving_square(slots["square_avg"], gradient, scalars["keep"], scalars["weight"])
        after = {"square_avg": variance}
        if "centered" in signature:
            mean = after["grad_avg"] = moving_average(slots["grad_avg"], gradient, scalars["weight"])
            variance = torch.addcmul(variance, mean, mean, value=-1)
        scale = variance.sqrt() + scalars["eps"]
        if "momentum" in signature:
            buffer = torch.addcdiv(slots["momentum_buffer"] * scalars["momentum"], gradient, scale)
            after["momentum_buffer"] = buffer
            return torch.addcmul(parameter, buffer, scalars["descent"]), after
        return torch.addcdiv(parameter, gradient * scalars["descent"], scale), after
