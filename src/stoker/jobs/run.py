"""A run that is there: what was trained, how good it is, and its model ready to evaluate and predict."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stoker.data.dataset import DataSet, ImageSet, Table, Task
from stoker.data.schema import Schema
from stoker.data.sources import load as load_source
from stoker.data.target import drop_missing_target, encode_target
from stoker.errors import ConfigError, DataError, EncodingError, RunError, RunNotFoundError, SourceNotFoundError
from stoker.jobs.blocks import ReadyModel, block_rows, predict_in_blocks
from stoker.jobs.config import FitConfig, split_seed
from stoker.jobs.prepare import encoded_inputs, job_criterion, trained_part
from stoker.jobs.splitting import counted, in_source, split_images, split_table
from stoker.models.importing import Factory
from stoker.models.own import OwnNetwork, named_anew
from stoker.runs.artifact import Artifact, load_artifact
from stoker.runs.files import JOB, read_text
from stoker.runs.record import read_metrics, read_record
from stoker.settings import parse_settings
from stoker.training.history import History
from stoker.training.trainer import Trainer

if TYPE_CHECKING:
    import polars as pl

__all__ = ["OwnSplit", "Predictions", "Run", "load"]

Notify = Callable[[str], None]
Tensors = dict[str, Tensor]


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


@dataclass(frozen=True)
class OwnSplit:
    """A split of a run, made again.

    Attributes:
        data: Its rows or images.
        rows: Which rows or images of its source they are, from 0: int64 ``[n]``.
    """

    data: DataSet
    rows: NDArray[np.int64]


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
        return History(rows, training.monitor, training.best_epoch, training.stopped, training.seconds)

    def predict(self, source: Any) -> Predictions:
        """Predict rows or images.

        Args:
            source: Anything that ``fit`` takes; a target column is not needed, further columns are passed over.

        Raises:
            EncodingError: A column is missing or a value does not fit it; names column, row and value.
            DataError: The source cannot be used.
        """
        dataset = self._load(source)
        outputs = self.outputs(self._inputs(dataset))
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
        tell = notify or _silent
        dataset = self._given(source, tell) if source is not None else self._own_split()
        return self._trainer().evaluate(self._measurable(dataset, tell))

    def splits(self) -> dict[str, OwnSplit]:
        """The rows or images of each split, read again from the sources that they were made from.

        Raises:
            SourceNotFoundError: A source is not there any more.
            DataError: A source cannot be used, or is not what it was.
        """
        train = self._unchanged("train")
        given = {name: self._unchanged(name) for name in ("valid", "test") if name in self.record.sources}
        seed = split_seed(self.config)
        if isinstance(train, Table):
            assert self.artifact.schema is not None  # tables have one
            parts = split_table(train, self.artifact.schema, self.config.data, seed, **given, notify=_silent)
            return {name: OwnSplit(Table(frame, train.provenance), parts.rows[name]) for name, frame in parts.items()}
        images = split_images(train, self.config.data, seed, **given, notify=_silent)
        return {name: OwnSplit(part, images.rows[name]) for name, part in images.items()}

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
        inputs, targets = self._measurable(dataset, _silent)
        return inputs, self.outputs_of(inputs), targets

    def outputs_of(self, inputs: Tensors) -> Tensor:
        """As :meth:`outputs`, but sooner: in batches as large as they may be, on which the last bits depend.

        Raises:
            InputTypeError: A model of your own gives something else than a tensor with a row for each.
            OutOfMemoryError: A batch does not fit.
        """
        outputs: Tensor = self._trainer().predict(inputs)
        return outputs

    def _measurable(self, dataset: DataSet, tell: Notify) -> tuple[Tensors, Tensor]:
        """Inputs as the trained part takes them, and targets."""
        recipe = self.artifact.recipe
        if isinstance(dataset, ImageSet):
            return self._inputs(dataset), _image_targets(dataset, recipe.classes)
        schema = self.artifact.schema
        assert schema is not None  # tables have one
        assert schema.target is not None  # and it has a target
        target, origin = schema.target, dataset.provenance.origin
        if target.name not in dataset.frame.columns:
            fix = "Use stoker predict for rows without it."
            raise DataError(origin, f"must have the target {target.name!r}", "none", fix)
        frame, dropped = drop_missing_target(dataset.frame, target.name)
        if dropped:
            tell(f"{counted(dropped, 'row')} without {target.name!r} left out")
        if frame.is_empty():
            raise DataError(origin, f"must have rows with a {target.name!r}", "none", "Check the source.")
        try:
            return self._inputs(Table(frame, dataset.provenance)), encode_target(frame[target.name], target)
        except EncodingError as error:
            raise in_source(error, origin, dropped) from None

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

    def _load(self, source: Any) -> DataSet:
        recipe = self.artifact.recipe
        shape = None if recipe.kind == "table" else (recipe.spec.channels, recipe.spec.height, recipe.spec.width)  # type: ignore[union-attr]
        target = recipe.target if isinstance(source, tuple) and recipe.kind == "table" else None
        dataset = load_source(source, target=target, skip_bad=self.config.data.skip_bad, image_shape=shape)
        if isinstance(dataset, Table) != (recipe.kind == "table"):
            wanted, got = ("a table", "images") if recipe.kind == "table" else ("images", "a table")
            raise DataError(dataset.provenance.origin, f"must be {wanted}, as this run's model takes", got)
        return dataset

    def _given(self, source: Any, tell: Notify) -> DataSet:
        """What to measure on: of a source that holds a test split of its own, that."""
        dataset = self._load(source)
        if isinstance(dataset, ImageSet):
            if dataset.test is None:
                return dataset
            tell(f"measured on the test split that the source itself has, {len(dataset.test):,} images")
            return dataset.test
        if dataset.test is None:
            return dataset
        tell(f"measured on the test split that the source itself has, {counted(dataset.test.height, 'row')}")
        return Table(dataset.test, dataset.provenance)

    def _inputs(self, dataset: DataSet) -> Tensors:
        if isinstance(dataset, ImageSet):
            return {"images": dataset.images}
        columns = self.artifact.columns
        assert columns is not None  # tables have them
        return encoded_inputs(self.artifact.model, columns.read(dataset.frame))

    def _own_split(self) -> DataSet:
        """The test split, or the validation split, made again from the source."""
        if "test" in self.record.sources:
            return self._unchanged("test")
        splits = self.splits()
        held_out = splits.get("test", splits.get("valid"))
        if held_out is None:
            raise DataError(
                "evaluate", "the run must have held back rows", "none", "Say a source: stoker evaluate RUN SOURCE."
            )
        return held_out.data

    def _unchanged(self, split: str) -> DataSet:
        """The source that a split came from, if it is what it was."""
        fix = "Say which source to evaluate on: stoker evaluate RUN SOURCE."
        if split not in self.record.sources:
            raise RunError(str(self.path), f"config.json must say the {split} source", "none", fix)
        known = self.record.sources[split]
        try:
            dataset = self._load(known.origin)
        except SourceNotFoundError:
            rule = f"the run's {split} source must be where it was, seen from here"
            raise SourceNotFoundError("evaluate", rule, known.origin, fix) from None
        if dataset.provenance.fingerprint != known.fingerprint:
            rule = f"the run's {split} source must be as it was in training"
            raise DataError("evaluate", rule, f"other contents in {known.origin}", fix)
        return dataset

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


def _silent(_: str) -> None:
    """Tell nobody."""


def _image_targets(images: ImageSet, classes: tuple[str, ...]) -> Tensor:
    if images.labels is None:
        fix = "Put the images of each class into a folder of its own, or use stoker predict."
        raise DataError(images.provenance.origin, "images to evaluate on must have labels", "none", fix)
    unknown = sorted(set(images.classes) - set(classes))
    if unknown:
        fix = f"The run knows {', '.join(classes)}."
        raise DataError(images.provenance.origin, "must have no other classes than the run", ", ".join(unknown), fix)
    return torch.tensor([classes.index(name) for name in images.classes])[images.labels]
