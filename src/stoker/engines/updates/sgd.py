"""Stochastic gradient descent, with momentum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stoker.engines.updates.protocol import Counts, Group, Signature, Update, columns
from stoker.engines.updates.terms import decay, decay_scalars

__all__ = ["SGDUpdate"]


class SGDUpdate(Update):
    """The update of ``torch.optim.SGD``.

    With learning rate η, momentum μ, dampening τ, weight decay λ::

        g ← g + λθ
        b ← g            in the first update
        b ← μb + (1−τ)g  in the others
        g ← g + μb       Nesterov's, or  g ← b
        θ ← θ − ηg

    The first update differs through scalars alone: there ``μ`` of the second line is 0 and ``1−τ`` is 1.

    Source: Polyak, "Some methods of speeding up the convergence of iteration methods", USSR Comput. Math. Math. Phys. 4
    (1964); Sutskever et al., "On the importance of initialization and momentum in deep learning", ICML 2013, with η
    outside the buffer, as torch has it.
    """

    flags = ("maximize", "momentum", "nesterov")
    counters = ()

    def slots(self, group: Group) -> tuple[str, ...]:
        return ("momentum_buffer",) if "momentum" in self.signature(group) else ()

    def counts(self, state: Mapping[str, Any]) -> Counts:
        # torch counts no updates here; that there has been one shows in the buffer
        return {"step": 0.0 if state.get("momentum_buffer") is None else 1.0}

    def scalars(self, group: Group, counts: Counts, lrs: Sequence[float]) -> tuple[dict[str, np.ndarray], Counts]:
        signature = self.signature(group)
        values: dict[str, Any] = {"descent": -np.asarray(lrs, dtype=np.float64), **decay_scalars(group, lrs, signature)}
        if "momentum" in signature:
            momentum, fresh = float(group["momentum"]), 1 - float(group["dampening"])
            first = [counts["step"] + i == 0 for i in range(len(lrs))]
            values["keep"] = [0.0 if it else momentum for it in first]
            values["fresh"] = [1.0 if it else fresh for it in first]
            if "nesterov" in signature:
                values["momentum"] = momentum
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
        after = {}
        if "momentum" in signature:
            buffer = torch.addcmul(slots["momentum_buffer"] * scalars["keep"], gradient, scalars["fresh"])
            after["momentum_buffer"] = buffer
            gradient = torch.addcmul(gradient, buffer, scalars["momentum"]) if "nesterov" in signature else buffer
        return torch.addcmul(parameter, gradient, scalars["descent"]), after
