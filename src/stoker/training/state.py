"""Where a training stands: counters, the schedule's position, the best epoch, the weights' average."""

from __future__ import annotations

from dataclasses import dataclass, field

from stoker.training.average import WeightAverage
from stoker.training.best import BestWeights
from stoker.training.schedules import Schedule

__all__ = ["TrainState"]


@dataclass
class TrainState:
    """All that the next step depends on, besides the model and the optimizer, which are the user's own objects.

    Random numbers need no place here: those of an epoch are seeded by ``(seed, epoch)``. Within an epoch their
    generators' states belong to it too; see :mod:`stoker.training.checkpoints.state`, which keeps all of it.

    Attributes:
        epoch: Epochs begun so far, over all calls to ``fit``.
        step: Updates made so far.
        schedule: The learning rate's position in the current call to ``fit``.
        best: The best epoch so far in the current call to ``fit``.
        average: The moving average of the weights in the current call to ``fit``; ``None`` without one.
    """

    epoch: int = 0
    step: int = 0
    schedule: Schedule | None = field(default=None, repr=False)
    best: BestWeights = field(default_factory=lambda: BestWeights(None))
    average: WeightAverage | None = field(default=None, repr=False)
