"""The objective: what turns a model's outputs and the targets into the one number to minimise.

It is made of parts, one for each output that has a loss; most objectives have a single part, of all there is.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from stoker.data.dataset import Task
from stoker.errors import ConfigError, DataError, InputTypeError, UnknownNameError
from stoker.training.criteria import Criterion, build_criterion, compares_elements, task_of, unreduced
from stoker.training.measures import Metrics, check_metrics

__all__ = ["Loss", "Objective", "ObjectiveSpec", "Part", "build_objective"]

Key: TypeAlias = str | int


@dataclass(frozen=True)
class Loss:
    """What one output is compared with, how, and how much it counts.

    Attributes:
        criterion: ``(output, target)`` to a mean over the batch's samples; or the name of one
            (:data:`stoker.training.criteria.CRITERIA`).
        weight: The objective is ``Σ weight · loss`` over the parts.
        target: Which entry of the targets; by default the targets themselves if they are one tensor, else the entry
            with the output's own name or place.
        sample_weight: Which entry of the targets weighs the samples: the loss is ``(1/n) Σ w_i · loss_i``. Let the
            weights of the training data have a mean of 1, so that the learning rate keeps its meaning.
        train_only: An auxiliary output, which regularises in training and is ignored in evaluation; the model may
            then leave it out.
        task: Which task the metrics are for; known from the criterion in most cases.
        metrics: As for :class:`stoker.training.trainer.Trainer`.

    Raises:
        ConfigError: The weight is negative or not finite.
    """

    criterion: Criterion | str
    weight: float = 1.0
    target: Key | None = None
    sample_weight: Key | None = None
    train_only: bool = False
    task: Task | None = None
    metrics: Metrics = "auto"

    def __post_init__(self) -> None:
        if not 0 <= self.weight < float("inf"):
            raise ConfigError("objective", "a loss's weight must be a number from 0 on", self.weight, "Leave it at 1.")


ObjectiveSpec: TypeAlias = Criterion | str | Loss | Mapping[Any, "Criterion | str | Loss"]
"""A criterion, its name, a :class:`Loss`, or a mapping from an output's name or place to any of these."""


@dataclass(frozen=True, eq=False)
class Part:
    """One output's share of the objective.

    Attributes:
        name: The output's name in a dict, its place in a tuple, or ``None`` for whatever the model returns.
        loss: As the user said it.
        criterion: Ready to be called, on the device.
        task: What the output is for, if that is known.
    """

    name: Key | None
    loss: Loss
    criterion: Criterion
    task: Task | None

    def select(self, outputs: Any, targets: Any) -> tuple[Any, Any, Any]:
        """This part's output, its target, and the samples' weights (``None`` without).

        Raises:
            UnknownNameError: The model returned no such output, or the targets have no such entry.
            DataError: The outputs or targets are not of a kind that has names or places.
        """
        output = outputs if self.name is None else _entry(outputs, self.name, "outputs")
        key = self.loss.target
        if key is None and self.name is not None and not isinstance(targets, Tensor):
            key = self.name
        target = targets if key is None else _entry(targets, key, self._looking_for("target"))
        weights = self.loss.sample_weight
        return output, target, None if weights is None else _entry(targets, weights, self._looking_for("weights"))

    def _looking_for(self, what: str) -> str:
        return "targets" if self.name is None else f"targets, for the {what} of output {self.name!r}"

    def compute(self, outputs: Any, targets: Any) -> Tensor:
        """The loss, without its weight, as the criterion gives it."""
        output, target, weights = self.select(outputs, targets)
        if (
            compares_elements(self.criterion)
            and isinstance(output, Tensor)
            and isinstance(target, Tensor)
            and output.shape != target.shape
        ):
            # Of outputs [n, 1] and targets [n] torch would compare each row with all others, and only warn.
            raise DataError(
                "targets" if self.name is None else f"targets of output {self.name!r}",
                f"must have the shape of the model's outputs, {list(output.shape)}",
                list(target.shape),
                "Reshape one of the two, such as y[:, None].",
            )
        if weights is None:
            return self.criterion(output, target)
        losses = unreduced(self.criterion)(output, target)
        if losses.ndim == 0 or len(losses) != len(weights):
            got = f"losses of shape {list(losses.shape)} and weights of shape {list(weights.shape)}"
            raise DataError("sample_weight", "must be one for each sample's loss", got)
        return (losses.flatten(1).mean(dim=1) if losses.ndim > 1 else losses).mul(weights.reshape(-1)).mean()


class Objective:
    """``Σ weight · loss`` over its parts; made by :func:`build_objective`.

    Args:
        parts: At least one.

    Attributes:
        parts: All of them, which training minimises together.
        evaluated: Those that count in evaluation.
        target_names: The entries of a dict that are targets; what else a data set's dict holds are inputs.
    """

    def __init__(self, parts: tuple[Part, ...]) -> None:
        self.parts = parts
        self.evaluated = tuple(part for part in parts if not part.loss.train_only)
        named = [key for part in parts for key in (part.loss.target, part.loss.sample_weight)]
        self.target_names = frozenset(key for key in named if isinstance(key, str))

    @property
    def task(self) -> Task | None:
        """What the one evaluated output is for; ``None`` where there are several, or it is not known."""
        return self.evaluated[0].task if len(self.evaluated) == 1 else None

    @property
    def kind(self) -> Hashable | None:
        """What it computes, as far as that does not depend on what criteria hold; ``None`` with functions of others."""
        functions = [part.criterion for part in self.parts if not isinstance(part.criterion, nn.Module)]
        if not all(str(getattr(each, "__module__", "")).startswith(("torch.", "stoker.")) for each in functions):
            return None
        return tuple(
            (
                part.name,
                part.loss.target,
                part.loss.sample_weight,
                part.loss.weight,
                type(part.criterion) if isinstance(part.criterion, nn.Module) else part.criterion,
            )
            for part in self.parts
        )

    def __call__(self, outputs: Any, targets: Any) -> Tensor:
        """The training loss of a batch.

        Raises:
            UnknownNameError: An output or a target is not there.
            DataError: Outputs and targets do not fit together.
        """
        parts = [_weighted(part.compute(outputs, targets), part.loss.weight) for part in self.parts]
        return parts[0] if len(parts) == 1 else torch.stack([part.reshape(()) for part in parts]).sum()

    def evaluation_losses(self, outputs: Any, targets: Any) -> list[Tensor]:
        """The loss of each evaluated part, without weights, in order.

        Where a single part is evaluated, the model may return its output alone instead of a dict or tuple of all.
        """
        outputs = self.as_evaluated(outputs)
        return [part.compute(outputs, targets) for part in self.evaluated]

    def as_evaluated(self, outputs: Any) -> Any:
        """The outputs as the evaluated parts select from them: one tensor becomes the one part's output."""
        name = self.evaluated[0].name
        return (
            {name: outputs}
            if len(self.evaluated) == 1 and name is not None and isinstance(outputs, Tensor)
            else outputs
        )

    def weigh(self, losses: list[float]) -> float:
        """The objective in evaluation: ``Σ weight · loss``; of a single part its loss, since weights compare parts."""
        if len(losses) == 1 and self.evaluated[0].name is not None:
            return losses[0]
        return sum(part.loss.weight * loss for part, loss in zip(self.evaluated, losses, strict=True))

    def label(self, part: Part, name: str) -> str:
        """What a part's metric is called: with the output's name before it where several are evaluated."""
        return name if len(self.evaluated) == 1 else f"{part.name}_{name}"


def build_objective(
    spec: ObjectiveSpec, *, device: torch.device, task: Task | None = None, metrics: Metrics = "auto"
) -> Objective:
    """Make an objective of what the user said.

    Args:
        spec: See :data:`ObjectiveSpec`.
        device: Where criteria with tensors of their own go.
        task: Instead of what the criterion tells; for a single output.
        metrics: For a single evaluated output, unless its :class:`Loss` says; ``()`` for none at all.

    Raises:
        UnknownNameError: No criterion has that name.
        ConfigError: There is no part, all weights are zero, every part is for training alone, or metrics are asked
            for without saying of which output.
        InputTypeError: A criterion cannot be called.
    """
    if not isinstance(spec, Mapping):
        return Objective((_part(None, spec, device, task, metrics),))
    losses = {key: value if isinstance(value, Loss) else Loss(value) for key, value in spec.items()}
    if strange := [key for key in losses if isinstance(key, bool) or not isinstance(key, (str, int))]:
        fix = "Such as {'main': nn.MSELoss(), 'aux': Loss(nn.MSELoss(), weight=0.2)}."
        raise InputTypeError("objective", "outputs are named by text or place", repr(strange[0]), fix)
    evaluated = [key for key, loss in losses.items() if not loss.train_only]
    if not evaluated or not any(loss.weight > 0 for loss in losses.values()):
        got = "none" if not losses else "all train_only" if not evaluated else "weights that are all zero"
        raise ConfigError("objective", "must have at least one loss that counts", got)
    if len(evaluated) > 1 and (task is not None or (metrics != "auto" and len(metrics))):
        fix = "Say Loss(…, task=…, metrics=[…]) for each output."
        raise ConfigError("metrics and task", f"belong to one output of {len(evaluated)}", "one for all", fix)
    parts = [
        _part(key, loss, device, task if [key] == evaluated else None, metrics if key in evaluated else ())
        for key, loss in losses.items()
    ]
    return Objective(tuple(parts))


def _part(
    name: Key | None, spec: Criterion | str | Loss, device: torch.device, task: Task | None, metrics: Metrics
) -> Part:
    loss = spec if isinstance(spec, Loss) else Loss(spec)
    criterion, task = loss.criterion, loss.task or task
    if isinstance(criterion, str):
        criterion = build_criterion(criterion, task or ("multiclass" if criterion == "cross-entropy" else "regression"))
    if isinstance(criterion, type) or not callable(criterion):
        got = f"the class {criterion.__name__}" if isinstance(criterion, type) else type(criterion).__name__
        raise InputTypeError("criterion", "must be a module, a function or a name", got, "Pass an instance.")
    if isinstance(criterion, nn.Module):
        criterion = criterion.to(device)
    if loss.sample_weight is not None:
        unreduced(criterion)  # tells what cannot be weighed before there is anything to train
    if loss.metrics == "auto" and metrics != "auto":
        loss = replace(loss, metrics=metrics)
    task = task or task_of(criterion)
    check_metrics(loss.metrics, task)
    return Part(name, loss, criterion, task)


def _weighted(loss: Tensor, weight: float) -> Tensor:
    return loss if weight == 1.0 else loss * weight


def _entry(tree: Any, key: Key, what: str) -> Any:
    """The entry of that name or place."""
    if isinstance(tree, Mapping) and key in tree:
        return tree[key]
    if isinstance(key, str):
        if isinstance(tree, Mapping):
            raise UnknownNameError(what, key, [str(name) for name in tree])
        if isinstance(tree, tuple) and hasattr(tree, "_fields"):
            if key in tree._fields:
                return getattr(tree, key)
            raise UnknownNameError(what, key, tree._fields)
        raise DataError(what, f"must be a dict that has {key!r}", _kind(tree), _FIX)
    if isinstance(tree, (tuple, list)):
        if -len(tree) <= key < len(tree):
            return tree[key]
        raise DataError(what, f"must have a place {key}, from 0", f"{len(tree)} of them", _FIX)
    raise DataError(what, f"must be a tuple that has a place {key}", _kind(tree), _FIX)


_FIX = "Say which output and which target each loss is of: {'main': Loss(nn.MSELoss(), target='y')}."


def _kind(tree: Any) -> str:
    if isinstance(tree, Tensor):
        return f"one tensor of shape {list(tree.shape)}"
    if isinstance(tree, Mapping):
        return f"a dict of {', '.join(map(str, tree))}"
    return f"a tuple of {len(tree)}" if isinstance(tree, (tuple, list)) else type(tree).__name__
