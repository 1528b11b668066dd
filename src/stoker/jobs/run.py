"""A run that is there: what was trained, how good it is, and its model ready to evaluate and predict."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stoker.data.dataset import DataSet, ImageSet, Task
from stoker.data.schema import Schema
from stoker.errors import ConfigError, RunError, RunNotFoundError
from stoker.jobs.blocks import ReadyModel, block_rows, predict_in_blocks
from stoker.jobs.config import FitConfig
from stoker.jobs.predictions import Predictions
from stoker.jobs.prepare import job_criterion, trained_part
from stoker.jobs.run_data import OwnSplit, RunData, silent
from stoker.models.importing import Factory
from stoker.models.own import OwnNetwork, named_anew
from stoker.runs.artifact import Artifact, load_artifact
from stoker.runs.files import JOB, read_text
from stoker.runs.record import read_metrics, read_record
from stoker.settings import parse_settings
from stoker.training.history import History
from stoker.training.trainer import Trainer

__all__ = ["Run", "load"]

Notify = Callable[[str], None]
Tensors = dict[str, Tensor]


class Run:
    """One training's directory, read.

    Args:
        path: The directory.
        device: Where to evaluate and predict.
        model: For a run with a model of your own: the model, named once more as ``"package.module:Class"``, or the
            class itself. Nothing is imported because the run says so.

    Attributes:
        path: The directory; it may have been moved.
        config: The settings it was trained with, as resolved.
        record: All of ``config.json``.
        metrics: Split to metric to value, as measured at the end of training.

    Raises:
        RunNotFoundError: There is no such directory, or it is not a run's.
        RunError: It is damaged.
        ConfigError: ``model`` is not the run's, or the run's model is one of Stoker's own.
    """

    def __init__(self, path: str | Path, *, device: str = "auto", model: str | Factory | None = None) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise RunNotFoundError("run", "no such directory", str(path), "stoker fit says where its run is.")
        try:
            complete = (self.path / "config.json").exists()
        except PermissionError:
            raise RunError(
                str(self.path), "must be readable", "Permission denied", "Look at its permissions."
            ) from None
        if not complete and (self.path / JOB).exists():
            fix = f"Train it to its end: stoker resume {shlex.quote(str(path))}"
            raise RunError(str(path), "the run must be finished, and its training has not ended", "", f"{fix}.")
        if not complete:
            fix = "A run has config.json, model.safetensors and metrics.json."
            raise RunNotFoundError("run", "must be a directory that stoker fit made", str(path), fix)
        self.record = read_record(self.path / "config.json")
        try:
            self.config = parse_settings(FitConfig, self.record.settings, "settings")
        except ConfigError as error:
            rule = f"config.json is damaged ({error})"
            raise RunError(str(self.path), rule, "", "Copy the run again.") from None
        self.metrics = read_metrics(self.path / "metrics.json")
        self._device = device
        self._own = named_anew(str(self.config.model.get("name", "")), model)

    @cached_property
    def artifact(self) -> Artifact:
        """The model with its recipe.

        Raises:
            RunError: It is damaged.
            ConfigError: It is a model of your own, which was not named, or cannot be imported or built.
        """
        own = None if self._own is None else self._own()
        return load_artifact(self.record.recipe, self.path / "model.safetensors", own)

    @property
    def model(self) -> torch.nn.Module:
        """From raw tensors to predictions (regression) or logits.

        Raises:
            RunError: It is damaged.
            ConfigError: It is a model of your own, which was not named, or cannot be imported or built.
        """
        return self.artifact.model

    @property
    def task(self) -> Task:
        """What it was trained for.

        Raises:
            RunError: It is damaged.
            ConfigError: It is a model of your own, which was not named, or cannot be imported or built.
        """
        return self.artifact.recipe.task

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names in the order of the outputs; empty for regression.

        Raises:
            RunError: It is damaged.
            ConfigError: It is a model of your own, which was not named, or cannot be imported or built.
        """
        return self.artifact.recipe.classes

    @property
    def schema(self) -> Schema | None:
        """The table's columns; ``None`` for images.

        Raises:
            RunError: It is damaged.
            ConfigError: It is a model of your own, which was not named, or cannot be imported or built.
        """
        return self.artifact.schema

    @property
    def notices(self) -> list[str]:
        """What the user was told while it was made."""
        return list(self.record.notices)

    @property
    def stopped(self) -> str:
        """Why training ended: ``finished``, ``patience``, ``interrupted`` or ``non-finite``."""
        return self.record.training.stopped

    @property
    def figures(self) -> list[Path]:
        """Its pictures."""
        return sorted((self.path / "figures").glob("*.png"))

    @cached_property
    def history(self) -> History:
        """A row per epoch.

        Raises:
            RunError: ``history.csv`` is missing or damaged.
        """
        path = self.path / "history.csv"
        text = read_text(path)
        try:
            rows = [
                {name: float(value) for name, value in row.items() if value}
                for row in csv.DictReader(io.StringIO(text), strict=True)
            ]
        except (ValueError, TypeError, csv.Error):
            raise RunError(str(path), "must be the CSV that stoker fit wrote", "", "Copy the run again.") from None
        training = self.record.training
        if len(rows) != training.epochs:
            rule = f"must have {training.epochs} rows, as config.json says"
            raise RunError(str(path), rule, len(rows), "Copy the run again, whole.")
        return History(
            rows, training.monitor, training.best_epoch, training.stopped, training.seconds, training.engine_reason
        )

    def predict(self, source: Any) -> Predictions:
        """Predict rows or images.

        Args:
            source: Anything that ``fit`` takes; a target column is not needed, further columns are passed over.

        Raises:
            EncodingError: A column is missing or a value does not fit it; names column, row and value.
            DataError: The source cannot be used.
        """
        dataset = self._data.load(source)
        outputs = self.outputs(self._data.inputs(dataset))
        names = dataset.names if isinstance(dataset, ImageSet) else ()
        return Predictions(self.task, self.classes, outputs, names)

    def outputs(self, inputs: Tensors) -> Tensor:
        """What the model gives for inputs that are read already; what :meth:`predict` and the server stand on.

        A row's numbers do not depend on the rows beside it, to the last bit (:mod:`stoker.jobs.blocks`).

        Args:
            inputs: ``n`` rows, as :func:`stoker.jobs.prepare.encoded_inputs` gives them.

        Returns:
            ``[n, 1]`` in the target's unit, or logits ``[n, classes]``, on the CPU.

        Raises:
            InputTypeError: A model of your own gives something else than a tensor with a row for each.
            OutOfMemoryError: A block does not fit.
        """
        outputs: Tensor = predict_in_blocks(self._predictor, inputs, self.block_rows)
        return outputs

    def ready(self) -> Callable[[Tensors], Tensor]:
        """:meth:`outputs` for who asks again and again: the same bits, sooner, and the model stays in evaluation mode.

        A model of your own may do as it likes when it is called, so that it is called as ever.
        """
        if self.is_own or self._predictor.autocast is not None:
            return self.outputs
        return ReadyModel(self._predictor, self.block_rows)

    @property
    def is_own(self) -> bool:
        """Whether the network is the user's own, and none of Stoker's."""
        return isinstance(self.artifact.model.head.network, OwnNetwork)

    @property
    def block_rows(self) -> int:
        """How many rows the model is given at a time to predict."""
        return block_rows(self.artifact.recipe.kind, self._predictor.device)

    @cached_property
    def _predictor(self) -> Trainer:
        return self._trainer()

    def evaluate(self, source: Any = None, *, notify: Notify | None = None) -> dict[str, float]:
        """Measure the model.

        Args:
            source: Rows or images with their targets; by default the run's own test split (the validation split, if
                there is no test split), read again from the source it was made from.
            notify: Told of rows left out.

        Returns:
            ``{"loss": …, metric: …}``.

        Raises:
            SourceNotFoundError: The run's own source is not there any more.
            DataError: The source cannot be used, or is not what it was.
            EncodingError: A value or a class does not fit; names column, row and value.
        """
        tell = notify or silent
        dataset = self._own_split() if source is None else self._data.load_held_out(source, tell)
        return self._trainer().evaluate(self._data.labelled(dataset, tell))

    def splits(self) -> dict[str, OwnSplit]:
        """The rows or images of each split, read again from the sources that they were made from.

        Raises:
            SourceNotFoundError: A source is not there any more.
            DataError: A source cannot be used, or is not what it was.
        """
        return self._data.splits()

    def labelled_outputs(self, dataset: DataSet) -> tuple[Tensors, Tensor, Tensor]:
        """What the model says about rows or images that have their targets.

        Args:
            dataset: Such as one of :meth:`splits`; rows without a target are left out.

        Returns:
            Inputs as the trained part takes them; outputs, ``[n, 1]`` in the target's unit or logits ``[n, classes]``;
            targets, ``[n, 1]`` or class indices ``[n]``.

        Raises:
            DataError: There are no targets.
            EncodingError: A value or a class does not fit; names column, row and value.
        """
        inputs, targets = self._data.labelled(dataset, silent)
        return inputs, self.outputs_of(inputs), targets

    def outputs_of(self, inputs: Tensors) -> Tensor:
        """As :meth:`outputs`, but sooner: in batches as large as they may be, on which the last bits depend.

        Raises:
            InputTypeError: A model of your own gives something else than a tensor with a row for each.
            OutOfMemoryError: A batch does not fit.
        """
        outputs: Tensor = self._trainer().predict(inputs)
        return outputs

    @cached_property
    def _data(self) -> RunData:
        return RunData(self.path, self.config, self.record, self.artifact)

    def _own_split(self) -> DataSet:
        return self._data.held_out()

    def _trainer(self) -> Trainer:
        training = self.config.training
        recipe = self.artifact.recipe
        model = self.artifact.model
        return Trainer(
            trained_part(model, recipe.kind),
            job_criterion(self.config, recipe, model),
            metrics=training.metrics,
            task=recipe.task,
            device=self._device,
            precision=training.precision,
            deterministic=training.deterministic,
        )

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"


def load(path: str | Path, *, device: str = "auto", model: str | Factory | None = None) -> Run:
    """Read a run. Nothing that is stored in it is executed.

    Args:
        path: The directory.
        device: Where to evaluate and predict.
        model: For a run with a model of your own; see :class:`stoker.Run`.

    Returns:
        The run; its weights are read when they are first needed.

    Raises:
        RunNotFoundError: There is no such directory, or it is not a run's.
        RunError: It is damaged.
        ConfigError: ``model`` is not the run's, or the run's model is one of Stoker's own.
    """
    return Run(path, device=device, model=model)
