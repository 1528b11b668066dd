"""Networks of several seeds that predict together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stoker.data.dataset import Task
from stoker.data.trees import call_model
from stoker.errors import ConfigError, RunNotFoundError
from stoker.jobs.predictions import Predictions
from stoker.jobs.run import Run
from stoker.runs.files import refuse_link_out

__all__ = ["Averaged", "Ensemble"]


def average(outputs: Sequence[Tensor], task: Task) -> Tensor:
    r"""Predictions ``[n, 1]``: their mean. Logits ``[n, classes]``: :math:`\log \frac1m \sum_i \mathrm{softmax}(z_i)`.

    A softmax of the latter gives the mean of the members' probabilities.
    """
    if task == "regression":
        return torch.stack(list(outputs)).mean(dim=0)
    stacked = torch.stack([output.log_softmax(dim=1) for output in outputs])
    mean: Tensor = stacked.logsumexp(dim=0) - torch.log(torch.tensor(float(len(outputs)), dtype=stacked.dtype))
    return mean


class Averaged(nn.Module):
    """A network whose outputs are the average of its members'.

    Args:
        members: Networks that take the same inputs.
        task: What they were trained for.
    """

    def __init__(self, members: Sequence[nn.Module], task: Task) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.task = task

    def forward(self, **inputs: Tensor) -> Tensor:
        """What each member takes → ``[n, n_outputs]``."""
        return average([call_model(member, inputs) for member in self.members], self.task)


class Ensemble:
    """The runs of several seeds, kept in one directory.

    Args:
        path: The directory; each run is one inside it.

    Attributes:
        path: Likewise.
        runs: The runs.

    Raises:
        RunNotFoundError: There is no run in it.
        RunError: One is damaged, or a link out of the directory.
        ConfigError: They are of different tasks.
    """

    def __init__(self, path: str | Path, **settings: Any) -> None:
        self.path = Path(path)
        folders = sorted(folder.parent for folder in self.path.glob("*/config.json"))
        if not folders:
            raise RunNotFoundError("ensemble", "must be a directory with runs in it", str(path))
        for folder in folders:
            refuse_link_out(folder, self.path)
        self.runs = [Run(folder, **settings) for folder in folders]
        tasks = {(run.task, run.classes) for run in self.runs}
        if len(tasks) > 1:
            raise ConfigError("ensemble", "must be of runs for one task", str(len(tasks)))

    def predict(self, source: Any) -> Predictions:
        """The average of what the runs predict; see :meth:`stoker.Run.predict`.

        Args:
            source: Anything that ``fit`` takes.

        Raises:
            EncodingError: A column is missing or a value does not fit it.
            DataError: The source cannot be used.
        """
        each = [run.predict(source) for run in self.runs]
        return replace(each[0], outputs=average([one.outputs for one in each], each[0].task))
