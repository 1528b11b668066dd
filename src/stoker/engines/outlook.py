"""Whether a step is sure to be faster as a program, as far as can be told before there is one.

A small network's eager step is mostly the calling of operators, which a program does without. Where the arithmetic is a
small part of the time that a step is seen to take, and nothing in the model is known to be slower in a program, no
measurement is needed.
"""

from __future__ import annotations

from torch import nn

from stoker.engines.plan import Plan
from stoker.engines.step import Step

__all__ = ["mostly_calls"]

RATE = 4e10  # multiplications and additions a second: half of what one core was measured to do in such products


def mostly_calls(step: Step, plan: Plan, pace: float) -> bool:
    """Whether arithmetic is less than half of what an eager step takes, and no layer is of a kind that may lose.

    Args:
        step: The step.
        plan: Any epoch over the data.
        pace: Seconds of one of its updates.
    """
    if any(isinstance(module, (nn.modules.conv._ConvNd, nn.RNNBase)) for module in step.model.modules()):
        return False
    # 2 for each weight and row, forward, for the inputs' gradient and for the weights' own
    operations = 6 * plan.rows * sum(weight.numel() for weight in step.model.parameters() if weight.ndim > 1)
    return pace > 2 * operations / RATE
