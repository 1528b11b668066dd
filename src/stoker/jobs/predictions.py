"""What a model says about some rows: numbers or classes, and how probable they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from stoker.data.dataset import Task
from stoker.errors import ConfigError

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Predictions"]


@dataclass(frozen=True)
class Predictions:
    """What a model says about some rows.

    Attributes:
        task: The task.
        classes: In the order of the columns of ``outputs``; empty for regression.
        outputs: ``[n, 1]`` in the target's unit, or logits ``[n, classes]``.
        names: Of the images; empty for tables.
    """

    task: Task
    classes: tuple[str, ...]
    outputs: Tensor
    names: tuple[str, ...] = ()

    @property
    def values(self) -> list[float] | list[str]:
        """A number for each row, or the name of its most probable class."""
        if self.task == "regression":
            numbers: list[float] = self.outputs[:, 0].tolist()
            return numbers
        return [self.classes[index] for index in self.outputs.argmax(dim=1).tolist()]

    @property
    def probabilities(self) -> Tensor:
        """``softmax(logits)``, ``[n, classes]``.

        Raises:
            ConfigError: It is a regression.
        """
        if self.task == "regression":
            raise ConfigError("probabilities", "are for classification", "a regression", "Leave them out.")
        return self.outputs.softmax(dim=1)

    def frame(self, *, proba: bool = False, top_k: int | None = None) -> pl.DataFrame:
        """The predictions as a table, a row for each row predicted.

        Args:
            proba: Add a column ``proba_<class>`` for each class.
            top_k: Add the ``top_k`` most probable classes and their probabilities: ``top1, top1_proba, top2, …``.

        Raises:
            ConfigError: It is a regression, or ``top_k`` is not from 1 to the number of classes.
        """
        import polars as pl

        data: dict[str, Any] = {"image": list(self.names)} if self.names else {}
        data["prediction"] = self.values
        for name, given in {"--proba": proba, "--top-k": top_k is not None}.items():
            if given and self.task == "regression":
                raise ConfigError(name, "is for classification", "a regression", "Leave it out.")
        if proba:
            table = self.probabilities.numpy()
            data |= {f"proba_{name}": table[:, index] for index, name in enumerate(self.classes)}
        if top_k is not None:
            probabilities = self.probabilities
            if not 1 <= top_k <= len(self.classes):
                raise ConfigError("--top-k", f"must be from 1 to the number of classes, {len(self.classes)}", top_k)
            best, indices = probabilities.topk(top_k, dim=1)
            for rank in range(top_k):
                data[f"top{rank + 1}"] = [self.classes[index] for index in indices[:, rank].tolist()]
                data[f"top{rank + 1}_proba"] = best[:, rank].numpy()
        return pl.DataFrame(data)
