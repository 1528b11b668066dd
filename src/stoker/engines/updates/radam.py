"""RAdam: Adam with a rectified variance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from stoker.engines.updates.protocol import Counts, Group, Signature, Update, columns
from stoker.engines.updates.terms import decay, decay_scalars, moving_average, moving_square

__all__ = ["RAdamUpdate", "rectification"]


def rectification(beta2: float, step: float) -> float | None:
    """By how much the adaptive step is shortened in an update, the first being 1.

    ``r = √((ρ−4)(ρ−2)ρ∞ / ((ρ∞−4)(ρ∞−2)ρ))``, with ``ρ∞ = 2/(1−β₂) − 1`` and ``ρ = ρ∞ − 2tβ₂ᵗ/(1−β₂ᵗ)``, the length of
    the moving average so far.

    Returns:
        ``r``; ``None`` as long as ``ρ ≤ 5``, when the average is too short to have a variance.
    """
    limit = 2 / (1 - beta2) - 1
    length = limit - 2 * step * (beta2**step) / (1 - beta2**step)
    if length <= 5.0:
        return None
    ratio = (length - 4) * (length - 2) * limit / ((limit - 4) * (limit - 2) * length)
    return float(ratio**0.5)


class RAdamUpdate(Update):
    """The update of ``torch.optim.RAdam``.

    With learning rate η and the t-th gradient g, after :func:`.terms.decay`::

        m ← m + (1−β₁)(g − m)
        v ← β₂v + (1−β₂)g²
        θ ← θ − η · m/(1−β₁ᵗ) · √(1−β₂ᵗ)/(√v + ε) · r   where the variance is rectified, see rectification()
        θ ← θ − η · m/(1−β₁ᵗ)                           in the few updates before

    Source: Liu et al., "On the variance of the adaptive learning rate and beyond", ICLR 2020 (arXiv:1908.03265),
    Algorithm 2; where to begin, 5, and the place of ε are torch's.
    """

    flags = ("decoupled_weight_decay", "maximize")

    def slots(self, group: Group) -> tuple[str, ...]:  # noqa: ARG002
        return ("exp_avg", "exp_avg_sq")

    def scalars(self, group: Group, counts: Counts, lrs: Sequence[float]) -> tuple[dict[str, np.ndarray], Counts]:
        beta1, beta2 = map(float, group["betas"])
        steps = [counts["step"] + i for i in range(1, len(lrs) + 1)]
        rectified = [rectification(beta2, step) for step in steps]
        values = columns(
            len(lrs),
            {
                **decay_scalars(group, lrs, self.signature(group)),
                "weight1": 1 - beta1,
                "keep2": beta2,
                "weight2": 1 - beta2,
                "correction1": [1 - beta1**step for step in steps],
                "correction2": [(1 - beta2**step) ** 0.5 for step in steps],
                "eps": float(group["eps"]),
                "lr": lrs,
                "adaptive": [0.0 if factor is None else 1.0 for factor in rectified],
                "rectification": [1.0 if factor is None else factor for factor in rectified],
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
        scale = (square.sqrt() + scalars["eps"]).reciprocal() * scalars["correction2"]
        scale = torch.where(scalars["adaptive"] > 0, scale, torch.ones_like(scale))  # not a product: 0 × ∞ with ε = 0
        change = mean / scalars["correction1"] * scalars["lr"] * scale * scalars["rectification"]
        return parameter - change, {"exp_avg": mean, "exp_avg_sq": square}
