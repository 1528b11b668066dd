"""One run as it is served: requests to raw tensors, outputs to answers, and what it tells about itself."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from stoker._version import __version__
from stoker.data.columns import CategoricalColumn, NumericColumn
from stoker.data.encoder import TableEncoder
from stoker.data.schema import Column
from stoker.jobs.predictions import Predictions
from stoker.jobs.run import Run
from stoker.models.inputs import ImageSpec
from stoker.serving.backends import Backend
from stoker.serving.images import ImageReader
from stoker.serving.problems import Problem
from stoker.serving.rows import RowReader

__all__ = ["MAX_IMAGES", "MAX_ROWS", "ServedModel", "answer_size", "finite", "plain_values"]

MAX_ROWS, MAX_IMAGES = 10_000, 256
_MOST_CATEGORIES = 1000  # of a column, told in /info


class ServedModel:
    """A run and its backend.

    Args:
        run: The run.
        backend: What computes.
        max_rows: The most rows or images of one request; by default :data:`MAX_ROWS` or :data:`MAX_IMAGES`.

    Attributes:
        name: The model's: the name of its run's directory.
        kind: ``table`` or ``images``.
        reader: Of rows or of images.
    """

    def __init__(self, run: Run, backend: Backend, max_rows: int | None = None) -> None:
        self.run = run
        self.backend = backend
        self.name = run.path.resolve().name
        self.kind = run.artifact.recipe.kind
        self.reader: RowReader | ImageReader
        spec = run.artifact.recipe.spec
        if isinstance(spec, ImageSpec):
            self.reader = ImageReader((spec.channels, spec.height, spec.width), max_rows or MAX_IMAGES)
        else:
            assert run.artifact.columns is not None  # tables have them
            self.reader = RowReader(run.artifact.columns, max_rows or MAX_ROWS)

    @property
    def at_once(self) -> int:
        """The most rows that the event loop may compute itself, if it is soon done; what is a user's own may hang."""
        return 0 if self.run.is_own else self.run.block_rows

    def check_wanted(self, proba: bool, top_k: int | None) -> None:
        """Make sure that probabilities and the best classes are asked of a model that has them.

        Raises:
            Problem: They are not.
        """
        if self.run.task == "regression" and (proba or top_k is not None):
            name = "proba" if proba else "top_k"
            text = f"{name}: is for classification, got a regression. Leave it out."
            raise Problem(422, "invalid-parameter", text, value=name)
        classes = len(self.run.classes)
        if top_k is not None and not 1 <= top_k <= classes:
            text = f"top_k: must be from 1 to the number of classes, {classes}, got {top_k}."
            raise Problem(422, "invalid-parameter", text, value=top_k)

    def predictions(self, outputs: Tensor, names: tuple[str, ...] = ()) -> Predictions:
        """What ``stoker predict`` makes of the same outputs."""
        return Predictions(self.run.task, self.run.classes, outputs, names)

    def answer(self, found: Predictions, *, proba: bool, top_k: int | None) -> dict[str, Any]:
        """Predictions as JSON has them.

        Args:
            found: The predictions.
            proba: Add the probability of each class.
            top_k: Add the most probable classes, so many of them.

        Returns:
            ``{"model": name, "predictions": [{"prediction": …, "probabilities": {…}, "top": […]}, …]}``; ``null`` for
            what is not a number.
        """
        rows: list[dict[str, Any]] = [{"prediction": value} for value in plain_values(found)]
        if found.names:
            rows = [{"image": name, **row} for name, row in zip(found.names, rows, strict=True)]
        if proba:
            for row, values in zip(rows, found.probabilities.tolist(), strict=True):
                row["probabilities"] = {name: finite(p) for name, p in zip(found.classes, values, strict=True)}
        if top_k is not None:
            best, indices = found.probabilities.topk(top_k, dim=1)
            for row, values, places in zip(rows, best.tolist(), indices.tolist(), strict=True):
                row["top"] = [
                    {"class": found.classes[place], "probability": finite(p)}
                    for p, place in zip(values, places, strict=True)
                ]
        return {"model": self.name, "predictions": rows}

    def info(self) -> dict[str, Any]:
        """What it is: what goes in, what comes out, how good it was, with what it was made."""
        recipe, record = self.run.artifact.recipe, self.run.record
        told: dict[str, Any] = {
            "name": self.name,
            "kind": self.kind,
            "task": recipe.task,
            "target": recipe.target or None,
            "classes": list(recipe.classes),
            "backend": self.backend.name,
            "architecture": recipe.model.get("name"),
            "parameters": record.training.parameters,
            "max_rows": self.reader.max_rows,
            "metrics": {
                split: {name: finite(value) for name, value in values.items()}
                for split, values in self.run.metrics.items()
            },
            "trained_with": dict(record.versions),
            "served_with": {"stoker": __version__},
        }
        if isinstance(self.reader, ImageReader):
            told["image"] = dict(zip(("channels", "height", "width"), self.reader.shape, strict=True))
        else:
            told["columns"] = self.columns()
        return told

    def columns(self) -> list[dict[str, Any]]:
        """Each column that the model takes, in the table's order: what it is, an example, what training saw of it.

        Numbers have a ``range``, the lowest and the highest of the training rows; but not in runs made before it was
        kept. What is ``usual`` is two standard deviations from their mean, which may lie outside of it.
        """
        artifact = self.run.artifact
        assert artifact.schema is not None  # only tables are asked
        assert artifact.columns is not None
        assert isinstance(artifact.model.encoder, TableEncoder)
        places = {column.name: place for place, column in reversed(list(enumerate(artifact.schema.columns)))}
        schema = {column.name: column for column in artifact.schema.columns}
        sources = artifact.columns.numeric_sources
        means, stds = artifact.model.encoder.mean.tolist(), artifact.model.encoder.std.tolist()
        told = []
        for at, number in enumerate(artifact.columns.numeric):
            first = sources.index(at)
            told.append(_number(number, schema[number.name], means[first], stds[first]))
        told += [_category(category, schema[category.name]) for category in artifact.columns.categorical]
        return sorted(told, key=lambda column: places[column["name"]])

    def example(self) -> list[dict[str, Any]]:
        """A row that can be predicted, made from what was seen first in training; empty for images."""
        if isinstance(self.reader, ImageReader):
            return []
        return [{column["name"]: column["example"] for column in self.columns()}]


def answer_size(found: Predictions) -> int:
    """How many bytes predictions take as JSON, or so."""
    return len(found.outputs) * 40 * (1 + len(found.classes))


def plain_values(found: Predictions) -> list[Any]:
    """The predictions; ``None`` where the network's outputs are not numbers, and so name no class."""
    return [
        None if nan else finite(value)
        for value, nan in zip(found.values, found.outputs.isnan().any(dim=1).tolist(), strict=True)
    ]


def finite(value: Any) -> Any:
    """The value, or ``None`` for a number that JSON has not."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _about(column: NumericColumn | CategoricalColumn, seen: Column, kind: str) -> dict[str, Any]:
    return {"name": column.name, "kind": kind, "missing_in_training": seen.missing > 0}


def _number(column: NumericColumn, seen: Column, mean: float, std: float) -> dict[str, Any]:
    kind = {"number": "numeric", "clock": "time", "datetime": "datetime"}.get(column.reads, "boolean")
    told = _about(column, seen, kind)
    if kind == "boolean":
        return told | {"example": seen.example.strip().lower() in ("true", "t", "yes", "y", "1", "1.0", "on")}
    if kind != "numeric":
        return told | {"example": seen.example or None}
    whole = seen.dtype.startswith(("Int", "UInt"))
    example = _as_number(seen.example, whole)
    told |= {"whole": whole, "usual": [_rounded(mean + times * std, std, whole) for times in (-2, 2)]}
    if column.low is None or column.high is None:
        return told | {"example": example}
    if example is None or not column.low <= example <= column.high:  # a row that was held back has it
        example = _plain(column.low, whole)
    return told | {"range": [_plain(column.low, whole), _plain(column.high, whole)], "example": example}


def _category(column: CategoricalColumn, seen: Column) -> dict[str, Any]:
    names = column.vocabulary
    example = seen.example if seen.example in names or not names else names[0]
    told = _about(column, seen, "categorical") | {"example": example or None}
    told["categories"] = list(names[:_MOST_CATEGORIES])
    if len(names) > _MOST_CATEGORIES:
        told["more_categories"] = len(names) - _MOST_CATEGORIES
    return told


def _as_number(text: str, whole: bool) -> float | int | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return _plain(number, whole) if math.isfinite(number) else None


def _plain(number: float, whole: bool) -> float | int:
    return int(number) if whole else number


def _rounded(value: float, std: float, whole: bool) -> float | int:
    """With as many digits as the spread lets matter: two of the standard deviation."""
    digits = 0 if whole else 1 - math.floor(math.log10(std)) if std > 0 else 3
    rounded = round(value, digits)
    return int(rounded) if digits <= 0 else rounded
