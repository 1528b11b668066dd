"""Which optimizers have a pure update."""

from __future__ import annotations

import torch
from torch.optim import SGD, Adagrad, Adam, Adamax, AdamW, NAdam, Optimizer, RAdam, RMSprop
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from stoker.engines.updates.adagrad import AdagradUpdate
from stoker.engines.updates.adam import AdamUpdate
from stoker.engines.updates.adamax import AdamaxUpdate
from stoker.engines.updates.nadam import NAdamUpdate
from stoker.engines.updates.protocol import UnsupportedOptimizerError, Update
from stoker.engines.updates.radam import RAdamUpdate
from stoker.engines.updates.rmsprop import RMSpropUpdate
from stoker.engines.updates.sgd import SGDUpdate

__all__ = ["UPDATES", "update_for"]

UPDATES: dict[type[Optimizer], type[Update]] = {
    SGD: SGDUpdate,
    Adam: AdamUpdate,
    AdamW: AdamUpdate,
    RMSprop: RMSpropUpdate,
    Adagrad: AdagradUpdate,
    NAdam: NAdamUpdate,
    RAdam: RAdamUpdate,
    Adamax: AdamaxUpdate,
}


def update_for(optimizer: Optimizer) -> Update:
    """The pure update that does what an optimizer's ``step`` does.

    ``foreach`` and ``fused`` are ways to carry out the same update, and make no difference here.

    Raises:
        UnsupportedOptimizerError: There is none: another class (a subclass may have a ``step`` of its own), a ``step``
            that was replaced or that hooks are attached to, a step to be captured or differentiated through, parameters
            of another dtype than float32 and float64.
    """
    kind = type(optimizer)
    if kind not in UPDATES:
        raise UnsupportedOptimizerError(f"the optimizer {kind.__name__}, which has no pure update")
    step = vars(optimizer).get("step", kind.step)
    if hasattr(step, "_wrapped_by_lr_sched"):  # torch's schedulers note that it was called, which changes no number
        step = step.__wrapped__
    if step is not kind.step:
        raise UnsupportedOptimizerError("an optimizer whose step method was replaced")
    if (
        optimizer._optimizer_step_pre_hooks
        or optimizer._optimizer_step_post_hooks
        or _global_optimizer_pre_hooks
        or _global_optimizer_post_hooks
    ):
        raise UnsupportedOptimizerError("a hook on the optimizer's step")
    for group in optimizer.param_groups:
        for flag in ("differentiable", "capturable"):
            if group.get(flag):
                raise UnsupportedOptimizerError(f"an optimizer that is {flag}")
        for parameter in group["params"]:
            if parameter.dtype not in (torch.float32, torch.float64):
                raise UnsupportedOptimizerError(f"an optimizer of {parameter.dtype} parameters")
    return UPDATES[kind](optimizer.defaults)
