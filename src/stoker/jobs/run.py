"""A run that is there: what was trained, how good it is, and its model ready to evaluate and predict."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from stoker.data.dataset import DataSet, ImageSet, Table, Task
from stoker.data.schema import Schema
from stoker.data.sources import load as load_source
from stoker.data.target import drop_missing_target, encode_target
from stoker.errors import ConfigError, DataError, RunError, RunNotFoundError, SourceNotFoundError
from stoker.jobs.config import FitConfig
from stoker.jobs.prepare import encoded_inputs, job_criterion, table_schema, trained_part
from stoker.jobs.splitting import split_images, split_table
from stoker.runs.artifact import Artifact, load_artifact
from stoker.runs.files import read_json
from stoker.settings import parse_settings
from stoker.training.history import History
from stoker.training.trainer import Trainer

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Predictions", "Run", "load"]

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
            return [float(value) for value in self.outputs[:, 0]]
        return [self.classes[index] for index in self.outputs.argmax(dim=1).tolist()]

    @property
    def probabilities(self) -> Tensor:
        """``softmax(logits)``, ``[n, classes]``.

        Raises:
            ConfigError: It is a regression.
        """
        if self.task == "regression":
            raise ConfigError("--proba", "is for classification", "a regression", "Leave it out.")
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


class Run:
    """One training's directory, read.

    Args:
        path: The directory.
        device: Where to evaluate and predict.

    Attributes:
        path: The directory; it may have been moved.
        config: The settings it was trained with, as resolved.
        record: All of ``config.json``.
        metrics: Split to metric to value, as measured at the end of training.

    Raises:
        RunNotFoundError: There is no such directory, or it is not a run's.
        RunError: It is damaged.
    """

    def __init__(self, path: str | Path, *, device: str = "auto") -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise RunNotFoundError("run", "no such directory", str(path), "stoker fit says where its run is.")
        if not (self.path / "config.json").exists():
            fix = "A run has config.json, model.safetensors and metrics.json."
            raise RunNotFoundError("run", "must be a directory that stoker fit made", str(path), fix)
        self.record = read_json(self.path / "config.json")
        if self.record.get("format") != 1:
            got = repr(self.record.get("format"))
            raise RunError(str(self.path), "must be of format 1", got, "It was written by another version of Stoker.")
        self.config = _section(self.path, self.record, "settings", FitConfig)
        self.metrics: dict[str, dict[str, float]] = {
            split: {name: math.nan if value is None else float(value) for name, value in values.items()}
            for split, values in read_json(self.path / "metrics.json").items()
        }
        self._device = device

    @cached_property
    def artifact(self) -> Artifact:
        """The model with its recipe."""
        return load_artifact(self.record.get("recipe"), self.path / "model.safetensors")

    @property
    def model(self) -> torch.nn.Module:
        """From raw tensors to predictions (regression) or logits."""
        return self.artifact.model

    @property
    def task(self) -> Task:
        """What it was trained for."""
        return self.artifact.recipe.task

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names in the order of the outputs; empty for regression."""
        return self.artifact.recipe.classes

    @property
    def schema(self) -> Schema | None:
        """The table's columns; ``None`` for images."""
        return self.artifact.schema

    @property
    def notices(self) -> list[str]:
        """What the user was told while it was made."""
        return [str(notice) for notice in self.record.get("notices", [])]

    @property
    def stopped(self) -> str:
        """Why training ended: ``finished``, ``patience``, ``interrupted`` or ``non-finite``."""
        return str(self._training.get("stopped", ""))

    @property
    def figures(self) -> list[Path]:
        """Its pictures."""
        return sorted((self.path / "figures").glob("*.png"))

    @cached_property
    def history(self) -> History:
        """A row per epoch."""
        path = self.path / "history.csv"
        try:
            text = path.read_text(encoding="utf-8")
            rows = [
                {name: float(value) for name, value in row.items() if value}
                for row in csv.DictReader(io.StringIO(text))
            ]
        except (OSError, ValueError, AttributeError, TypeError):
            raise RunError(str(path), "must be the CSV that stoker fit wrote", "", "Copy the run again.") from None
        training = self._training
        return History(
            rows,
            training.get("monitor"),
            int(training.get("best_epoch", 0)),
            training.get("stopped", "finished"),
            float(training.get("seconds", 0.0)),
        )

    def predict(self, source: Any) -> Predictions:
        """Predict rows or images.

        Args:
            source: Anything that ``fit`` takes; a target column is not needed, further columns are passed over.

        Raises:
            EncodingError: A column is missing or a value does not fit it; names column, row and value.
            DataError: The source cannot be used.
        """
        dataset = self._load(source)
        outputs = self._trainer().predict(self._inputs(dataset))
        recipe = self.artifact.recipe
        names = dataset.names if isinstance(dataset, ImageSet) else ()
        return Predictions(recipe.task, recipe.classes, outputs, names)

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
        dataset = self._load(source) if source is not None else self._own_split()
        recipe = self.artifact.recipe
        if isinstance(dataset, Table):
            schema = self.artifact.schema
            assert schema is not None
            assert schema.target is not None  # tables have both
            if schema.target.name not in dataset.frame.columns:
                fix = "Use stoker predict for rows without it."
                raise DataError(dataset.provenance.origin, f"must have the target {schema.target.name!r}", "", fix)
            frame, dropped = drop_missing_target(dataset.frame, schema.target.name)
            if dropped:
                tell(f"{dropped:,} rows have no {schema.target.name!r} and are left out")
            dataset = Table(frame, dataset.provenance)
            targets = encode_target(frame[schema.target.name], schema.target)
        else:
            targets = _image_targets(dataset, recipe.classes)
        return self._trainer().evaluate((self._inputs(dataset), targets))

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
        dataset = load_source(source, skip_bad=self.config.data.skip_bad, image_shape=shape)
        if isinstance(dataset, Table) != (recipe.kind == "table"):
            kind = "table" if isinstance(dataset, Table) else "images"
            raise DataError(dataset.provenance.origin, f"this run's model takes {recipe.kind}", kind)
        return dataset

    def _inputs(self, dataset: DataSet) -> Tensors:
        if isinstance(dataset, ImageSet):
            return {"images": dataset.images}
        columns = self.artifact.columns
        assert columns is not None  # tables have them
        return encoded_inputs(self.artifact.model, columns.read(dataset.frame))

    def _own_split(self) -> DataSet:
        """The test split, or the validation split, made again from the source."""
        sources = self.record.get("sources", {})
        loaded = {}
        for name, origin in sources.items():
            try:
                loaded[name] = self._load(origin["origin"])
            except SourceNotFoundError:
                fix = "Say which source to evaluate on: stoker evaluate RUN SOURCE."
                raise SourceNotFoundError(
                    "evaluate", f"the run's {name} source is not there any more", origin["origin"], fix
                ) from None
            if loaded[name].provenance.fingerprint != origin["fingerprint"]:
                fix = "Say which source to evaluate on: stoker evaluate RUN SOURCE."
                raise DataError(
                    "evaluate", f"the run's {name} source must be as it was in training", "other contents", fix
                )
        train = loaded.pop("train")
        seed = self.config.training.seed
        if isinstance(train, Table):
            schema = table_schema(train, self.config)
            parts = split_table(train, schema, self.config.data, seed, **loaded, notify=_silent)
            frame = parts.test if parts.test is not None else parts.valid
            dataset: DataSet | None = None if frame is None else Table(frame, train.provenance)
        else:
            images = split_images(train, self.config.data, seed, **loaded, notify=_silent)
            dataset = images.test or images.valid
        if dataset is None:
            raise DataError(
                "evaluate", "the run must have held back rows", "none", "Say a source: stoker evaluate RUN SOURCE."
            )
        return dataset

    @property
    def _training(self) -> dict[str, Any]:
        training = self.record.get("training")
        return training if isinstance(training, dict) else {}

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"


def load(path: str | Path, *, device: str = "auto") -> Run:
    """Read a run; see :class:`Run`."""
    return Run(path, device=device)


def _silent(_: str) -> None:
    """Tell nobody."""


def _section(path: Path, record: dict[str, Any], name: str, kind: type[FitConfig]) -> FitConfig:
    section = record.get(name)
    if not isinstance(section, dict):
        raise RunError(str(path), f"config.json must have {name!r}", type(section).__name__, "Copy the run again.")
    try:
        return parse_settings(kind, section, name)
    except ConfigError as error:
        raise RunError(str(path), f"config.json is damaged ({error})", "", "Copy the run again.") from None


def _image_targets(images: ImageSet, classes: tuple[str, ...]) -> Tensor:
    if images.labels is None:
        fix = "Put the images of each class into a folder of its own, or use stoker predict."
        raise DataError(images.provenance.origin, "images to evaluate on must have labels", "none", fix)
    unknown = sorted(set(images.classes) - set(classes))
    if unknown:
        fix = f"The run knows {', '.join(classes)}."
        raise DataError(images.provenance.origin, "must have no other classes than the run", ", ".join(unknown), fix)
    return torch.tensor([classes.index(name) for name in images.classes])[images.labels]
