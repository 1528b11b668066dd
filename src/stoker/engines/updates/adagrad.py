"""Adagrad."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from stoker.engines.updates.protocol import Counts, Group, Signature, Update, columns
from stoker.engines.updates.terms import decay, decay_scalars

__all__ = ["AdagradUpdate"]


class AdagradUpdate(Update):
    """The update of ``torch.optim.Adagrad``.

    With learning rate η, its decay κ, weight decay λ and the t-th gradient g::

        g ← g + λθ
        s ← s + g²
        θ ← θ − η/(1 + (t−1)κ) · g/(√s + ε)

    Source: Duchi, Hazan & Singer, "Adaptive subgradient methods for online learning and stochastic optimization", JMLR
    12 (2011), section 1.1, the diagonal form.
    """

    def slots(self, group: Group) -> tuple[str, ...]:  # noqa: ARG002
        return ("sum",)

    def initial(self, name: str, parameter: Tensor) -> Tensor:  # noqa: ARG002
        # torch looks at the optimizer's default, never at the group's
        start = float(self.defaults["initial_accumulator_value"])
        return torch.full_like(parameter, start, memory_format=torch.preserve_format)

    def scalars(self, group: Group, counts: Counts, lrs: Sequence[float]) -> tuple[dict[str, np.ndarray], Counts]:
        lr_decay = float(group["lr_decay"])
        values = columns(
            len(lrs),
            {
                **decay_scalars(group, lrs, self.signature(group)),
                "eps": float(group["eps"]),
                "descent": [-(lr / (1 + (counts["step"] + i) * lr_decay)) for i, lr in enumerate(lrs)],
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
        total = torch.addcmul(slots["sum"], gradient, gradient)
        scale = total.sqrt() + scalars["eps"]
        return torch.addcdiv(parameter, gradient * scalars["descent"], scale), {"sum": total}
