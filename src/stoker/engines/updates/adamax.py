"""Adamax: Adam with the infinity norm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from stoker.engines.updates.protocol import Counts, Group, Signature, Update, columns
from stoker.engines.updates.terms import decay, decay_scalars, moving_average

__all__ = ["AdamaxUpdate"]


class AdamaxUpdate(Update):
    """The update of ``torch.optim.Adamax``.

    With learning rate η, weight decay λ and the t-th gradient g::

        g ← g + λθ
        m ← m + (1−β₁)(g − m)
        u ← max(β₂u, |g| + ε)
        θ ← θ − η/(1−β₁ᵗ) · m/u

    Source: Kingma & Ba, "Adam", ICLR 2015 (arXiv:1412.6980), Algorithm 2; ε is torch's.
    """

    def slots(self, group: Group) -> tuple[str, ...]:  # noqa: ARG002
        return ("exp_avg", "exp_inf")

    def scalars(self, group: Group, counts: Counts, lrs: Sequence[float]) -> tuple[dict[str, np.ndarray], Counts]:
        beta1, beta2 = map(float, group["betas"])
        values = columns(
            len(lrs),
            {
                **decay_scalars(group, lrs, self.signature(group)),
                "weight1": 1 - beta1,
                "keep2": beta2,
                "eps": float(group["eps"]),
                "descent": [-(lr / (1 - beta1 ** (counts["step"] + i))) for i, lr in enumerate(lrs, start=1)],
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
        largest = torch.maximum(slots["exp_inf"] * scalars["keep2"], gradient.abs() + scalars["eps"])
        parameter = torch.addcdiv(parameter, mean * scalars["descent"], largest)
        return parameter, {"exp_avg": mean, "exp_inf": largest}
