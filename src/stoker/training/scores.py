"""Losses and metrics of a split, accumulated batch by batch and computed once."""

from __future__ import annotations

from typing import Any

import torch

from stoker.engines.replicas import Replicas
from stoker.engines.step import one_number
from stoker.metrics.metric_set import MetricSet
from stoker.metrics.registry import Direction
from stoker.training.measures import monitor_direction, to_preds, what_to_measure
from stoker.training.objective import Objective

__all__ = ["Scores", "score_direction"]


class Scores:
    """What a model's outputs on a split are worth.

    Args:
        objective: Its evaluated parts give the losses, each a mean over samples, and say which metrics there are.
        device: Where the outputs are.
        replicas: Those that each see a share of the split; their sums and counts are put together.
        spare: Metrics of an earlier split, which are used again, and then lie here again: making them anew takes longer
            than measuring a few thousand rows.
    """

    def __init__(
        self,
        objective: Objective,
        device: torch.device,
        replicas: Replicas | None = None,
        spare: dict[Any, MetricSet] | None = None,
    ) -> None:
        self.objective = objective
        self.device = device
        self.replicas = replicas
        self.spare: dict[Any, MetricSet] = {} if spare is None else spare
        self.rows = 0
        self._losses = [0.0] * len(objective.evaluated)
        self._metrics: list[MetricSet | None] | None = None
        self._used: dict[Any, MetricSet] = {}

    def update(self, outputs: Any, targets: Any, rows: int) -> None:
        """Add a batch.

        Args:
            outputs: What the model returned.
            targets: What it should have.
            rows: The batch's samples.

        Raises:
            InputTypeError: A criterion returns something else than one number.
            DataError: Outputs and targets do not fit together.
        """
        outputs = self.objective.as_evaluated(outputs)
        for place, loss in enumerate(self.objective.evaluation_losses(outputs, targets)):
            self._losses[place] += float(one_number(loss)) * rows
        selected = [part.select(outputs, targets) for part in self.objective.evaluated]
        if self._metrics is None:
            self._metrics = [self._chosen(place, output, target) for place, (output, target, _) in enumerate(selected)]
        for part, chosen, (output, target, _) in zip(self.objective.evaluated, self._metrics, selected, strict=True):
            if chosen is not None:
                chosen.update(*to_preds(output, target, part.task))
        self.rows += rows

    def _chosen(self, place: int, output: Any, target: Any) -> MetricSet | None:
        part, shared = self.objective.evaluated[place], self.replicas is not None
        measured = what_to_measure(part.loss.metrics, part.task, output, target)
        if measured is None:
            return None
        names, task, classes = measured
        key = place, task, classes, shared
        # Taken out while it is in use: a metric of the user's own may evaluate something else meanwhile.
        if key in self.spare:
            self._used[key] = self.spare.pop(key)
        else:
            self._used[key] = MetricSet(names, task, classes, self.device, shared)
        return self._used[key]

    def compute(self) -> dict[str, float]:
        """``{"loss": …, metric: …}``; of several evaluated outputs, ``<output>_loss`` and ``<output>_<metric>`` too.

        There must have been a batch. This ends it: the metrics are given away.
        """
        objective, sums = self.objective, [*self._losses, float(self.rows)]
        if self.replicas is not None:
            sums = self.replicas.sum_of(sums)
        losses = [total / sums[-1] for total in sums[:-1]]
        found = {"loss": objective.weigh(losses)}
        if len(losses) > 1:
            found |= {
                objective.label(part, "loss"): loss for part, loss in zip(objective.evaluated, losses, strict=True)
            }
        for part, chosen in zip(objective.evaluated, self._metrics or (), strict=True):
            if chosen is not None:
                found |= {objective.label(part, name): value for name, value in chosen.compute().items()}
        for key, used in self._used.items():
            if used.own:  # the user's, of which a fresh copy is taken for each split, whatever they hold
                continue
            used.reset()  # some keep all rows
            self.spare[key] = used
        return found


def score_direction(name: str, objective: Objective) -> Direction:
    """Whether one of the names that :meth:`Scores.compute` gives is better small or large: ``"min"`` or ``"max"``.

    Raises:
        UnknownNameError: No metric is called that.
        ConfigError: It is the user's own, and does not say.
    """
    for part in objective.evaluated:
        label = objective.label(part, "")
        if name != "loss" and name.startswith(label):
            return monitor_direction(name.removeprefix(label), part.loss.metrics)
    return monitor_direction(name, "auto")
