"""Adam and AdamW."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from stoker.engines.updates.protocol import Counts, Group, Signature, Update, columns
from stoker.engines.updates.terms import decay, decay_scalars, moving_average, moving_square

__all__ = ["AdamUpdate"]


class AdamUpdate(Update):
    """The update of ``torch.optim.Adam`` and ``AdamW``.

    With learning rate η and the t-th gradient g, after :func:`.terms.decay`::

        m ← m + (1−β₁)(g − m)
        v ← β₂v + (1−β₂)g²
        u ← v,  or AMSGrad's  u ← max(u, v)
        θ ← θ − η/(1−β₁ᵗ) · m / (√u/√(1−β₂ᵗ) + ε)

    Source: Kingma & Ba, "Adam", ICLR 2015 (arXiv:1412.6980), Algorithm 1; Reddi et al., "On the convergence of Adam and
    beyond", ICLR 2018 (arXiv:1904.09237), Algorithm 2.
    """

    flags = ("amsgrad", "decoupled_weight_decay", "maximize")

    def slots(self, group: Group) -> tuple[str, ...]:
        largest = ("max_exp_avg_sq",) if "amsgrad" in self.signature(group) else ()
        return ("exp_avg", "exp_avg_sq", *largest)

    def scalars(self, group: Group, counts: Counts, lrs: Sequence[float]) -> tuple[dict[str, np.ndarray], Counts]:
        beta1, beta2 = map(float, group["betas"])
        steps = [counts["step"] + i for i in range(1, len(lrs) + 1)]
        values = columns(
            len(lrs),
            {
                **decay_scalars(group, lrs, self.signature(group)),
                "weight1": 1 - beta1,
                "keep2": beta2,
                "weight2": 1 - beta2,
                "correction2": [(1 - beta2**step) ** 0.5 for step in steps],
                "eps": float(group["eps"]),
                "descent": [-(lr / (1 - beta1**step)) for lr, step in zip(lrs, steps, strict=True)],
            },
        )
        return values, {"step": counts["step"] + len(lrs)}

    def apply(
        self,
        parameter: Tensor,
        gradient: Tensor,
        slots: Mapping[str, Tensor],
        scalars: Mapping[str, Tensor],
        signature: Signature,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        parameter, gradient = decay(parameter, gradient, scalars, signature)
        mean = moving_average(slots["exp_avg"], gradient, scalars["weight1"])
        square = moving_square(slots["exp_avg_sq"], gradient, scalars["keep2"], scalars["weight2"])
        after = {"exp_avg": mean, "exp_avg_sq": square}
        if "amsgrad" in signature:
            square = after["max_exp_avg_sq"] = torch.maximum(slots["max_exp_avg_sq"], square)
        scale = square.sqrt() / scalars["correction2"] + scalars["eps"]
        return torch.addcdiv(parameter, mean * scalars["descent"], scale), after
