"""All settings of one training job, as read from a file, the command line or Python, and as kept in its run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from stoker.data.dataset import Task
from stoker.errors import ConfigError, UnknownNameError
from stoker.jobs.presets import with_preset
from stoker.settings import Settings, merge, override, parse_settings, read_toml

__all__ = ["DataConfig", "FitConfig", "TrainingConfig", "build_config", "raw_settings", "setting_names", "split_seed"]

MODEL_SETTINGS = (
    "hidden",
    "activation",
    "dropout",
    "norm",
    "numeric_embedding",
    "channels",
    "wide",
    "deep",
    "aux_weight",
)
PositiveInt = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


def _size(value: object) -> object:
    if isinstance(value, float) and 0 <= value < 1:
        return value
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError("must be a fraction from 0 up to, not including, 1, or a whole number of rows")


Size = Annotated[int | float, BeforeValidator(_size)]


def _rate(value: object) -> object:
    if value == "auto" or (isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0):
        return value
    raise ValueError("must be a number above 0, or auto")


LearningRate = Annotated[float | Literal["auto"], BeforeValidator(_rate)]


class DataConfig(Settings):
    """What is learnt from what, and how it is split.

    Attributes:
        target: The column to predict; named data sets know theirs.
        task: Instead of the guess from the target.
        numeric, categorical, datetime, ignore: Columns whose kind is not to be guessed.
        valid, test: Sources of the splits, instead of rows held back from the training source.
        valid_size, test_size: Rows to hold back: a fraction of all, or a count.
        split_seed: Which rows fall into which split; by default ``training.seed``.
        train_on_valid: Train on the validation rows as well, once it is known what to train and for how long.
        group: Rows with the same value in this column fall into the same split.
        time: Validate on later rows than are trained on, and test on the latest, by this column.
        categories: Categories as one-hot columns or embeddings; ``auto`` embeds those with more than 10.
        clip: Standardised numbers are cut off at ± this many standard deviations.
        scale_target: Train a regression on the standardised target; predictions are in its own unit all the same.
        skip_bad: Leave out unreadable images instead of stopping.
    """

    target: str | None = None
    task: Task | None = None
    numeric: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    datetime: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    valid: str | None = None
    test: str | None = None
    valid_size: Size = 0.2
    test_size: Size = 0.2
    train_on_valid: bool = False
    split_seed: int | None = None
    group: str | None = None
    time: str | None = None
    categories: Literal["auto", "embedding", "one-hot"] = "auto"
    clip: Annotated[float, Field(gt=0)] | None = None
    scale_target: bool = True
    skip_bad: bool = False


class TrainingConfig(Settings):
    """How it is trained; see :class:`stoker.training.trainer.Trainer` for what each means.

    Attributes:
        lr: ``auto``: what :func:`stoker.training.lr_finder.find_lr` suggests, asked before training.
        loss: ``auto``: mean squared error for regression, cross-entropy for classes.
        class_weights: One per class in the classes' order, ``balanced``, or none.
        metrics: Names, or ``auto`` for the task's own.
    """

    epochs: PositiveInt = 20
    batch_size: PositiveInt = 32
    optimizer: str = "adamw"
    lr: LearningRate | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    optimizer_settings: dict[str, Any] = Field(default_factory=dict)
    schedule: str | None = None
    schedule_settings: dict[str, Any] = Field(default_factory=dict)
    loss: str = "auto"
    class_weights: Literal["balanced"] | tuple[Annotated[float, Field(ge=0)], ...] | None = None
    label_smoothing: Fraction = 0.0
    schedule_interval: Literal["step", "epoch"] | None = None
    groups: dict[str, dict[str, Any]] = Field(default_factory=dict)
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    accumulate: PositiveInt = 1
    ema: Fraction | None = None
    patience: PositiveInt | None = None
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    monitor: str = "valid_loss"
    metrics: Literal["auto"] | tuple[str, ...] = "auto"
    seed: int = 0
    device: str = "auto"
    precision: Literal["32", "bf16"] = "32"
    deterministic: bool = False
    engine: str = "auto"


class FitConfig(Settings):
    """Everything about a job but the source itself.

    Attributes:
        preset: The bundle of settings that the others were laid over (:data:`stoker.jobs.presets.PRESETS`); they are
            filled in already.
        data: What is learnt from what.
        model: The model's name and settings, such as ``{"name": "mlp", "hidden": [50, 40]}``, or for a model of the
            user's own ``{"name": "package.module:Class", "args": {"n_hidden": 50}}``; read by
            :func:`stoker.models.registry.model_config` once it is known what the data are.
        training: How.
    """

    preset: str | None = None
    data: DataConfig = DataConfig()
    model: dict[str, Any] = Field(default_factory=dict)
    training: TrainingConfig = TrainingConfig()


def split_seed(config: FitConfig) -> int:
    """The seed by which rows fall into splits."""
    return config.training.seed if config.data.split_seed is None else config.data.split_seed


def setting_names() -> dict[str, tuple[str, str]]:
    """The settings by their short names, as Python and the command line use them, and where each belongs.

    The group of a setting that belongs to none is empty.
    """
    short = {name: ("data", name) for name in DataConfig.model_fields}
    short |= {name: ("training", name) for name in TrainingConfig.model_fields}
    short |= {name: ("model", name) for name in MODEL_SETTINGS}
    return short | {"model": ("model", "name"), "model_args": ("model", "args"), "preset": ("", "preset")}


def build_config(
    file: str | Path | Mapping[str, Any] | None = None,
    short: Mapping[str, Any] | None = None,
    assignments: Sequence[str] = (),
) -> FitConfig:
    """Put the settings together: the defaults, over them the preset's, the file's, the short ones, the assignments.

    Args:
        file: A TOML file with the tables ``[data]``, ``[model]`` and ``[training]``; above them may stand
            ``preset = "best"``. Or what such a file holds.
        short: Short names (:func:`setting_names`) to values; ``None`` means not given.
        assignments: ``"training.lr=0.1"``, and so on.

    Raises:
        UnknownNameError: A name is not one of the settings; the nearest is suggested.
        ConfigError: A value is of the wrong kind or out of range.
        SourceNotFoundError: There is no such file.
        SourceFormatError: The file is not TOML.
    """
    raw = raw_settings(file, short, assignments)
    config = parse_settings(FitConfig, _with_precision_text(with_preset(raw)))
    for name in ("optimizer_settings", "schedule_settings", "groups"):
        _check_plain(f"training.{name}", getattr(config.training, name))
    from stoker.models.registry import model_config  # needs torch, which reading the settings' names does not

    if "name" in config.model:
        model_config(config.model)  # so that a misspelt setting is told before the data are read
    if config.data.group is not None and config.data.time is not None:
        raise ConfigError("data.group", "cannot be combined with data.time", repr(config.data.group), "Leave one out.")
    return config


def raw_settings(
    file: str | Path | Mapping[str, Any] | None = None,
    short: Mapping[str, Any] | None = None,
    assignments: Sequence[str] = (),
) -> dict[str, Any]:
    """The settings that were given, by group, without defaults and unread; see :func:`build_config`.

    Raises:
        UnknownNameError: A short name is not one of the settings.
        ConfigError: An assignment is of another form.
        SourceNotFoundError: There is no such file.
        SourceFormatError: The file is not TOML.
    """
    raw: dict[str, Any] = dict(file) if isinstance(file, Mapping) else {} if file is None else read_toml(Path(file))
    places = setting_names()
    for name, value in (short or {}).items():
        if name not in places:
            raise UnknownNameError("settings", name, places)
        if value is not None:
            group, key = places[name]
            raw = merge(raw, {group: {key: value}} if group else {key: value})
    return override(raw, assignments)


def _check_plain(where: str, settings: Mapping[str, Any]) -> None:
    """Make sure that settings can be kept in a run, now and not at the end of the training."""
    for name, value in settings.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError):
            fix = "For other objects there is stoker.Trainer."
            raise ConfigError(
                f"{where}.{name}", "must be a number, text, true or false, or a list of these", repr(value), fix
            ) from None


def _with_precision_text(raw: dict[str, Any]) -> dict[str, Any]:
    """``precision = 32`` is what anyone would write in TOML."""
    training = raw.get("training")
    if isinstance(training, Mapping) and training.get("precision") == 32:
        return merge(raw, {"training": {"precision": "32"}})
    return raw
