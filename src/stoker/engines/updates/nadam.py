"""NAdam: Adam with Nesterov's momentum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stoker.engines.updates.protocol import Counts, Group, Signature, Update, columns
from stoker.engines.updates.terms import decay, decay_scalars, moving_average, moving_square

__all__ = ["NAdamUpdate"]


class NAdamUpdate(Update):
    """The update of ``torch.optim.NAdam``.

    With learning rate η, momentum decay ψ and the t-th gradient g, after :func:`.terms.decay`::

        μₜ = β₁(1 − ½·0.96^(tψ))
        m ← m + (1−β₁)(g − m)
        v ← β₂v + (1−β₂)g²
        θ ← θ − η · (g(1−μₜ)/(1−Πμ₁…μₜ) + mμₜ₊₁/(1−Πμ₁…μₜ₊₁)) / (√(v/(1−β₂ᵗ)) + ε)

    The product of the μ is counted as torch does: rounded, after each update, to the dtype that its state has it in.

    Source: Dozat, "Incorporating Nesterov momentum into Adam", ICLR workshop 2016.
    """

    flags = ("decoupled_weight_decay", "maximize")
    counters = ("step", "mu_product")

    def slots(self, group: Group) -> tuple[str, ...]:  # noqa: ARG002
        return ("exp_avg", "exp_avg_sq")

    def counts(self, state: Mapping[str, Any]) -> Counts:
        return {**super().counts(state), "mu_product": float(state["mu_product"]) if state else 1.0}

    def scalars(self, group: Group, counts: Counts, lrs: Sequence[float]) -> tuple[dict[str, np.ndarray], Counts]:
        beta1, beta2 = map(float, group["betas"])
        rounded = np.float64 if torch.get_default_dtype() == torch.float64 else np.float32
        product = rounded(counts["mu_product"])
        steps = [counts["step"] + i for i in range(1, len(lrs) + 1)]
        by_gradient, by_mean = [], []
        for lr, step in zip(lrs, steps, strict=True):
            mu, mu_next = (beta1 * (1 - 0.5 * 0.96 ** (t * float(group["momentum_decay"]))) for t in (step, step + 1))
            product = product * rounded(mu)
            by_gradient.append(-lr * (1 - mu) / (1 - float(product)))
            by_mean.append(-lr * mu_next / (1 - float(product) * mu_next))
        values = columns(
            len(lrs),
            {
                **decay_scalars(group, lrs, self.signature(group)),
                "weight1": 1 - beta1,
                "keep2": beta2,
                "weight2": 1 - beta2,
                "correction2": [1 - beta2**step for step in steps],
                "eps": float(group["eps"]),
                "by_gradient": by_gradient,
                "by_mean": by_mean,
            },
        )
        return values, {"step": counts["step"] + len(lrs), "mu_product": float(product)}

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
        scale = (square / scalars["correction2"]).sqrt() + scalars["eps"]
        parameter = torch.addcdiv(parameter, gradient * scalars["by_gradient"], scale)
        parameter = torch.addcdiv(parameter, mean * scalars["by_mean"], scale)
        return parameter, {"exp_avg": mean, "exp_avg_sq": square}
