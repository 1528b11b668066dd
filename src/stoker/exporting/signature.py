"""What an exported model takes and gives: raw tensors by name in, predictions in words of the task out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from stoker.data.columns import MISSING, UNKNOWN, Columns
from stoker.data.encoder import TableEncoder
from stoker.models.inputs import ImageSpec
from stoker.runs.artifact import Artifact

__all__ = [
    "ClassAnswer",
    "NumberAnswer",
    "Served",
    "Signature",
    "answers",
    "input_entries",
    "output_entries",
    "served",
    "signature",
]


@dataclass(frozen=True)
class Signature:
    """The names of what goes in and comes out, in order.

    Attributes:
        inputs: ``numeric`` (float64 ``[n, features]``) and ``categorical`` (int64 ``[n, columns]``) of a table, without
            the one that the table has none of; ``images`` (uint8 ``[n, channels, height, width]``).
        outputs: ``prediction`` (float32 ``[n]``) of a regression; ``probabilities`` (float32 ``[n, classes]``) and
            ``class`` (int64 ``[n]``, a place in the list of classes) of a classification.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class NumberAnswer(nn.Module):
    """The one output of a regression, as float32, without its dimension of size 1."""

    def forward(self, outputs: Tensor) -> Tensor:
        """``[n, 1]`` → ``[n]``."""
        return outputs[:, 0].to(torch.float32)


class ClassAnswer(nn.Module):
    r"""Logits to probabilities, :math:`\mathrm{softmax}(z)`, and the most probable class."""

    def forward(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """``[n, classes]`` → ``[n, classes]``, ``[n]``."""
        return outputs.softmax(dim=1).to(torch.float32), outputs.argmax(dim=1)


class Served(nn.Module):
    """A run's whole model behind a signature.

    A subclass for each set of inputs, since exporters take the names of what goes in from ``forward`` itself.

    Args:
        model: From raw tensors to predictions or logits.
        answer: What they become.
    """

    def __init__(self, model: nn.Module, answer: NumberAnswer | ClassAnswer) -> None:
        super().__init__()
        self.model = model
        self.answer = answer


class _Table(Served):
    def forward(self, numeric: Tensor, categorical: Tensor) -> Any:
        return self.answer(self.model(numeric=numeric, categorical=categorical))


class _Numbers(Served):
    def forward(self, numeric: Tensor) -> Any:
        return self.answer(self.model(numeric=numeric))


class _Codes(Served):
    def forward(self, categorical: Tensor) -> Any:
        return self.answer(self.model(categorical=categorical))


class _Images(Served):
    def forward(self, images: Tensor) -> Any:
        return self.answer(self.model(images=images))


_KINDS: dict[tuple[str, ...], type[Served]] = {
    ("numeric", "categorical"): _Table,
    ("numeric",): _Numbers,
    ("categorical",): _Codes,
    ("images",): _Images,
}


def signature(artifact: Artifact) -> Signature:
    """What the model of a run takes and gives."""
    encoder = artifact.model.encoder
    inputs: tuple[str, ...] = ("images",)
    if isinstance(encoder, TableEncoder):
        there = {"numeric": encoder.config.numeric, "categorical": encoder.config.categorical}
        inputs = tuple(name for name, width in there.items() if width)
    outputs = ("prediction",) if artifact.recipe.task == "regression" else ("probabilities", "class")
    return Signature(inputs, outputs)


def served(artifact: Artifact) -> Served:
    """The model of a run behind its signature, on the CPU and in evaluation mode; the weights are the run's own."""
    answer = NumberAnswer() if artifact.recipe.task == "regression" else ClassAnswer()
    module = _KINDS[signature(artifact).inputs](artifact.model.to("cpu"), answer)
    return module.eval()


def answers(module: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """What a model gives for rows, one tensor for each output."""
    with torch.inference_mode():
        given = module(*inputs.values())
    return given if isinstance(given, tuple) else (given,)


def input_entries(artifact: Artifact) -> list[dict[str, Any]]:
    """What goes in, for the contract beside the file: names, types, shapes, and what each column is made from."""
    if artifact.columns is None:
        spec = artifact.recipe.spec
        assert isinstance(spec, ImageSpec)  # what has no columns is images
        shape = ["batch", spec.channels, spec.height, spec.width]
        return [{"name": "images", "dtype": "uint8", "shape": shape, "values": "as in the files, 0 to 255"}]
    columns = {"numeric": _numbers(artifact.columns), "categorical": _categories(artifact.columns)}
    types = {"numeric": "float64", "categorical": "int64"}
    return [
        {"name": name, "dtype": types[name], "shape": ["batch", len(columns[name])], "columns": columns[name]}
        for name in signature(artifact).inputs
    ]


def _numbers(columns: Columns) -> list[dict[str, Any]]:
    """An entry for each numeric feature, in order."""
    entries: list[dict[str, Any]] = []
    for column in columns.numeric:
        for part in column.parts or (None,):
            entry: dict[str, Any] = {"column": column.name, "reads": column.reads, "missing": "NaN"}
            if part is not None:
                entry |= {"part": part} | ({"days_since_1970_of_day_0": column.origin} if part == "days" else {})
            entries.append(entry)
    return entries


def _categories(columns: Columns) -> list[dict[str, Any]]:
    """An entry for each column of codes, in order: the code of a category is its place plus ``first_code``."""
    return [
        {
            "column": column.name,
            "unknown": UNKNOWN,
            "missing": MISSING,
            "first_code": MISSING + 1,
            "categories": list(column.vocabulary),
        }
        for column in columns.categorical
    ]


def output_entries(artifact: Artifact) -> list[dict[str, Any]]:
    """What comes out, for the contract beside the file."""
    recipe = artifact.recipe
    if recipe.task == "regression":
        return [{"name": "prediction", "dtype": "float32", "shape": ["batch"], "of": recipe.target}]
    return [
        {"name": "probabilities", "dtype": "float32", "shape": ["batch", len(recipe.classes)]},
        {"name": "class", "dtype": "int64", "shape": ["batch"], "of": recipe.target, "is": "a place in classes"},
    ]
