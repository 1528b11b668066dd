"""What all formats are compared with: the model, the rows, and what it answers to them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stoker.errors import ExportError
from stoker.exporting.check import compare, wanted
from stoker.exporting.formats import Format, Subject
from stoker.exporting.formats.tensors import around_network, plain_state
from stoker.exporting.fresh import Answers, stored_tensors
from stoker.exporting.rows import check_rows, name_of_row
from stoker.exporting.signature import input_entries, output_entries, served, signature
from stoker.jobs.run import Run
from stoker.models.assembly import Rescale

__all__ = ["Trial", "spread"]

Notify = Callable[[str], None]


class Trial:
    """The model, the rows, and what it answers to them.

    Args:
        run: The run.
        tell: Told if there are no real rows.
        source: What the user named instead of the run's own source.

    Attributes:
        run: The run.
        artifact: The run's model, with its recipe.
        rows: What is compared on; see :func:`stoker.exporting.rows.check_rows`.
        real: The real rows, if there are any.
        wanted: What the model answers, by batch size.
        subject: What is written.

    Raises:
        StokerError: A source was named and cannot be used, or the run is damaged.
    """

    def __init__(self, run: Run, tell: Notify, source: Any) -> None:
        self.run = run
        self.artifact = run.artifact
        self.rows, self.real = check_rows(run, tell, source)
        module = served(self.artifact)
        self.wanted = wanted(module, self.rows)
        self.subject = Subject(self.artifact, module, signature(self.artifact), self.rows, "")

    @property
    def scale(self) -> float:
        """Of the numbers that come out; see :class:`stoker.exporting.check.Tolerance`."""
        output = self.artifact.model.head.output
        if isinstance(output, Rescale):
            return float(output.std.max())
        if self.artifact.recipe.task != "regression":
            return 1.0
        answered = torch.from_numpy(self.wanted[max(self.wanted)][0])
        real = self.real
        return spread(*((real.training_targets, real.targets) if real is not None else ()), answers=answered)

    def compare(self, one: Format, answers: Answers) -> float:
        """Compare a file's answers with the model's; see :func:`stoker.exporting.check.compare`."""
        return self._compared(f"--format {one.name}", answers, self.wanted, one)

    def compare_with_itself(self, one: Format, answers: Answers) -> None:
        """See that a file that rounds answers a row alike, whatever rows are beside it.

        Raises:
            ExportError: It does not.
        """
        whole = answers.by_size[max(answers.by_size)][: len(self.subject.signature.outputs)]
        self._compared("--quantize int8", answers, dict.fromkeys(answers.by_size, whole), one)

    def _compared(self, where: str, answers: Answers, want: dict[int, Any], one: Format) -> float:
        columns = self.artifact.columns
        names: dict[str, Sequence[str]] = {}
        if columns is not None:
            names = {"numeric": columns.numeric_names, "categorical": [column.name for column in columns.categorical]}
        return compare(
            where,
            answers.by_size,
            want,
            classes=self.artifact.recipe.classes,
            tolerance=one.tolerance,
            scale=self.scale,
            rows=self.rows,
            columns=names,
            name=lambda row: name_of_row(row, self.real),
        )

    def compare_tensors(self, one: Format, file: Path) -> None:
        """See that a file of weights holds the network's, bit for bit.

        Raises:
            ExportError: It does not.
        """
        where = f"--format {one.name}"
        stored, mine = stored_tensors(one.loader, file, where), plain_state(self.artifact)
        for name in sorted(stored.keys() | mine.keys()):
            if name not in stored or name not in mine or stored[name].tobytes() != _bytes(mine[name]):
                rule = "must hold the network's tensors bit for bit"
                raise ExportError(where, rule, f"another {name}", "Nothing was exported.")

    def contract(self, one: Format) -> dict[str, Any]:
        """What whoever uses the file needs to know of it."""
        recipe = self.artifact.recipe
        about: dict[str, Any] = {
            "contract": 1,
            "format": one.name,
            "task": recipe.task,
            "target": recipe.target,
            "classes": list(recipe.classes),
        }
        if one.program:
            outputs = output_entries(self.artifact)
            if one.name == "onnx" and recipe.classes:
                outputs.append({"name": "label", "dtype": "string", "shape": ["batch"], "of": recipe.target})
            about |= {"inputs": input_entries(self.artifact), "outputs": outputs}
        else:
            about |= {"columns": input_entries(self.artifact), **around_network(self.artifact)}
        return about


def spread(*targets: Tensor | None, answers: Tensor) -> float:
    """The standard deviation of the first targets that are known and vary; else of the answers, 1 at most."""
    for known in targets:
        if known is not None and 0 < (deviation := _deviation(known)) < math.inf:
            return deviation
    return min(1.0, _deviation(answers[answers.isfinite()]))


def _deviation(values: Tensor) -> float:
    return float(values.double().std(correction=0)) if values.numel() else 0.0


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
