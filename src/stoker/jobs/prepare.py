"""From a source and its settings to all that training needs: splits as tensors, the fitted encoder, the built model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import polars as pl
import torch
from torch import Tensor, nn

from stoker.data.columns import Columns
from stoker.data.dataset import DataSet, ImageSet, Provenance, Table, Task
from stoker.data.encoder import ImageEncoder, TableEncoder
from stoker.data.schema import Schema, infer_schema
from stoker.data.target import encode_target
from stoker.errors import ConfigError, EncodingError, OutOfMemoryError, SchemaError
from stoker.jobs.config import FitConfig
from stoker.jobs.splitting import Parts, counted, in_source, split_images, split_table
from stoker.models.assembly import Assembly, Rescale
from stoker.models.inputs import FitsInputs, ImageSpec, InputSpec, TableSpec
from stoker.models.own import OwnModel, OwnModelConfig, filled_in
from stoker.models.registry import ModelConfig, model_config
from stoker.models.wide_deep import WideDeepConfig, check_columns
from stoker.randomness import derive_seed
from stoker.runs.artifact import Recipe, build_assembly
from stoker.training.criteria import OnScaledTarget, balanced_weights, build_criterion
from stoker.training.memory import naming_batch_size
from stoker.training.objective import Loss, ObjectiveSpec

__all__ = ["Prepared", "encoded_inputs", "job_criterion", "prepare", "trained_part"]

Notify = Callable[[str], None]
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Prepared:
    """All that training needs.

    Attributes:
        recipe: How the model is built.
        model: From raw tensors to predictions or logits; its weights freshly drawn from ``(seed, "init")``.
        config: The settings, with what was left open filled in.
        provenance: Where the data came from.
        splits: ``(inputs, targets)`` by name, inputs as the trained part takes them (:func:`trained_part`).
        duplicates: Rows that stand in several splits.
        held_out: Which split pictures and the model card are about: ``"test"``, or the best there is.
    """

    recipe: Recipe
    model: Assembly
    config: FitConfig
    provenance: Provenance
    splits: dict[str, tuple[Tensors, Tensor]]
    duplicates: dict[str, int]

    @property
    def held_out(self) -> str:
        return next(name for name in ("test", "valid", "train") if name in self.splits)


def prepare(
    source: DataSet,
    config: FitConfig,
    *,
    valid: DataSet | None = None,
    test: DataSet | None = None,
    own: OwnModel | None = None,
    notify: Notify,
) -> Prepared:
    """Get everything ready.

    Args:
        source: What to train on.
        config: The settings.
        valid: This split from a source of its own.
        test: Likewise.
        own: What the user named, if the config is of a model of the user's own.
        notify: Told what the user should know: columns left out, rows left out, duplicates.

    Raises:
        DataError: The data cannot be used as they are.
        ConfigError: A setting does not fit the data.
    """
    kind: type[InputSpec] = TableSpec if isinstance(source, Table) else ImageSpec
    network = model_config(config.model, kind)
    config = config.model_copy(update={"model": network.model_dump(mode="json")})
    if isinstance(source, Table):
        config = _with_categories(config, own)
        return _prepare_table(source, config, network, valid, test, own, notify)
    return _prepare_images(source, config, network, valid, test, own, notify)


def _with_categories(config: FitConfig, own: OwnModel | None) -> FitConfig:
    """A model of the user's own gets categories as codes if it asks for codes, and else among its one tensor."""
    if own is None or config.data.categories != "auto":
        return config
    form = "embedding" if own.takes_codes else "one-hot"
    return config.model_copy(update={"data": config.data.model_copy(update={"categories": form})})


def _with_arguments(
    config: FitConfig, network: ModelConfig, own: OwnModel | None, spec: InputSpec, n_outputs: int
) -> tuple[FitConfig, ModelConfig]:
    """Fill in the arguments of a model of the user's own that follow from the data."""
    if own is None or not isinstance(network, OwnModelConfig):
        return config, network
    network = filled_in(network, own, spec, n_outputs)
    return config.model_copy(update={"model": network.model_dump(mode="json")}), network


def _prepare_table(
    source: Table,
    config: FitConfig,
    network: ModelConfig,
    valid: DataSet | None,
    test: DataSet | None,
    own: OwnModel | None,
    notify: Notify,
) -> Prepared:
    schema = table_schema(source, config)
    assert schema.target is not None  # table_schema made sure
    target = schema.target
    for column in schema.columns:
        if column.kind == "ignored" and column.name not in config.data.ignore:
            grouping = column.name == config.data.group
            reason = "rows are grouped by it, so that no value is in two splits" if grouping else column.reason
            notify(f"column {column.name!r} is left out: {reason}")
    parts = split_table(source, schema, config.data, config.training.seed, valid=valid, test=test, notify=notify)
    columns = Columns.fit(parts.train, schema)
    used = set(columns.names)
    for column in schema.features:
        if column.name not in used:
            notify(f"column {column.name!r} is left out: it has one value in all rows to train on")
    if isinstance(network, WideDeepConfig):
        for name in check_columns(network, schema, columns.names):
            notify(f"column {name!r} is left out: it is named neither for the wide path nor for the deep one")
    frames, duplicates = dict(parts.items()), parts.duplicates
    del parts
    targets = {name: encode_target(frame[target.name], target) for name, frame in frames.items()}
    raw = columns.read(frames.pop("train"))
    encoder = TableEncoder.fit(raw, columns, categories=config.data.categories, clip=config.data.clip)
    # Nothing in a table's encoder is trained, so that each row is encoded once, and not once an epoch; one split after
    # the other, so that the raw tensors of one alone are in memory.
    encoded = {"train": encoder.encode(raw)}
    del raw
    given = {"valid": valid, "test": test}
    for name in list(frames):
        encoded[name] = encoder.encode(_read(columns, frames.pop(name), name, given[name]))
    numeric_columns, categorical_columns = encoder.columns_of_features(columns)
    spec = TableSpec(
        n_numeric=encoder.n_numeric,
        cardinalities=encoder.cardinalities,
        n_flags=encoder.n_numeric - encoder.config.numeric,
        numeric_columns=numeric_columns,
        categorical_columns=categorical_columns,
    )
    config, network = _with_arguments(config, network, own, spec, len(target.classes) or 1)
    rescaled = target.task == "regression" and config.data.scale_target
    recipe = Recipe(
        kind="table",
        task=target.task,
        target=target.name,
        classes=target.classes,
        table_schema=schema.to_dict(),
        columns=columns.to_dict(),
        encoder=encoder.to_config(),
        spec=spec,
        model=config.model,
        rescaled=rescaled,
        class_weights=_class_weights(config, targets["train"], target.classes),
    )
    model = _build(recipe, network, encoder, config, targets["train"], own)
    if isinstance(model.head.network, FitsInputs):
        model.head.network.fit_inputs(**encoded["train"])
    splits = {name: (inputs, targets[name]) for name, inputs in encoded.items()}
    return Prepared(recipe, model, config, source.provenance, splits, duplicates)


def _read(columns: Columns, part: pl.DataFrame, name: str, source: DataSet | None) -> Tensors:
    """Read a split; an error says where its value stands if the split has a source of its own."""
    try:
        return columns.read(part)
    except EncodingError as error:
        if source is None:
            raise
        raise in_source(error, f"the {name} source", len(source) - part.height) from None


def _prepare_images(
    source: ImageSet,
    config: FitConfig,
    network: ModelConfig,
    valid: DataSet | None,
    test: DataSet | None,
    own: OwnModel | None,
    notify: Notify,
) -> Prepared:
    _refuse_table_settings(config)
    sources = {
        "": source,
        " of its test split": source.test,
        " of the valid source": valid,
        " of the test source": test,
    }
    for where, images in sources.items():
        if isinstance(images, ImageSet) and images.skipped:
            listed = ", ".join(image for image, _ in images.skipped)
            notify(f"{counted(len(images.skipped), 'unreadable image')}{where} left out: {listed}")
    parts: Parts[ImageSet] = split_images(
        source, config.data, config.training.seed, valid=valid, test=test, notify=notify
    )
    encoder = ImageEncoder.fit(parts.train.images)
    _, channels, height, width = parts.train.images.shape
    task: Task = "binary" if len(source.classes) == 2 else "multiclass"
    splits = {name: ({"images": part.images}, _labels(part)) for name, part in parts.items()}
    spec = ImageSpec(channels=channels, height=height, width=width)
    config, network = _with_arguments(config, network, own, spec, len(source.classes))
    recipe = Recipe(
        kind="images",
        task=task,
        target="class",
        classes=source.classes,
        table_schema=None,
        columns=None,
        encoder=encoder.to_config(),
        spec=spec,
        model=config.model,
        rescaled=False,
        class_weights=_class_weights(config, splits["train"][1], source.classes),
    )
    model = _build(recipe, network, encoder, config, splits["train"][1], own)
    return Prepared(recipe, model, config, source.provenance, splits, parts.duplicates)


def table_schema(source: Table, config: FitConfig) -> Schema:
    """What the columns of a table are, the target among them.

    Raises:
        SchemaError: No target is named, or it cannot be used.
    """
    data = config.data
    target = data.target or source.target
    if target is None:
        columns = ", ".join(source.frame.columns[-5:])
        fix = f"Say --target NAME (target=...); the last columns are {columns}."
        raise SchemaError(source.provenance.origin, "a table needs the column to predict", "no target", fix)

    declared = {*data.numeric, *data.categorical, *data.datetime, *data.ignore}
    # What never occurs in two splits teaches nothing that holds for new rows; who wants it all the same declares it.
    grouping = (data.group,) if data.group in source.frame.columns and data.group not in declared else ()

    def schema(task: Task | None) -> Schema:
        return infer_schema(
            source.frame,
            target,
            task=task,
            numeric=data.numeric,
            categorical=data.categorical,
            datetime=data.datetime,
            ignore=(*data.ignore, *grouping),
        )

    guess = schema(data.task)
    guessed = guess.target.task if guess.target is not None else None
    if data.task is None and target == source.target and source.task not in (None, guessed):
        return schema(source.task)  # the source knows better
    return guess


def trained_part(model: Assembly, kind: str) -> nn.Module:
    """The part that is trained and called once the inputs are as :func:`encoded_inputs` gives them.

    Images are encoded within each batch, since as bytes they take a quarter of the memory.
    """
    return model.head if kind == "table" else model


def encoded_inputs(model: Assembly, raw: Tensors) -> Tensors:
    """Raw tensors as the trained part takes them."""
    if "images" in raw:
        return raw
    assert isinstance(model.encoder, TableEncoder)
    return model.encoder.encode(raw)


def job_criterion(config: FitConfig, recipe: Recipe, model: Assembly) -> ObjectiveSpec:
    """The criterion that a job trains with and is evaluated by.

    Of a model with an auxiliary output there are two, of the one target; evaluated by is the main output's alone.
    """
    criterion = build_criterion(
        config.training.loss,
        recipe.task,
        class_weights=recipe.class_weights,
        label_smoothing=config.training.label_smoothing,
    )
    output = model.head.output
    if isinstance(output, Rescale):
        criterion = OnScaledTarget(criterion, output.mean, output.std)
    share = recipe.model.get("aux_weight", 0.0)
    if not share:
        return criterion
    return {"main": Loss(criterion, weight=1 - share), "aux": Loss(criterion, weight=share, train_only=True)}


def _build(
    recipe: Recipe,
    network: ModelConfig,
    encoder: nn.Module,
    config: FitConfig,
    train_targets: Tensor,
    own: OwnModel | None,
) -> Assembly:
    with torch.random.fork_rng(devices=[]), _naming_size(config):
        torch.manual_seed(derive_seed(config.training.seed, "init"))
        model = build_assembly(encoder, network, recipe.spec, recipe.outputs, recipe.rescaled, own)
    if isinstance(model.head.output, Rescale):
        exact = train_targets.double()
        std = exact.std(dim=0) if len(exact) > 1 else torch.zeros(exact.shape[1:], dtype=torch.float64)
        model.head.output.mean.copy_(exact.mean(dim=0))
        model.head.output.std.copy_(torch.where(std > 0, std, torch.ones_like(std)))
    return model


@contextmanager
def _naming_size(config: FitConfig) -> Iterator[None]:
    """Turn a model for which there is no memory into an error that says so."""
    try:
        with naming_batch_size("model", config.training.batch_size):
            yield
    except (OutOfMemoryError, RuntimeError, TypeError) as error:
        if not isinstance(error, OutOfMemoryError) and "overflow" not in str(error).lower():  # a size beyond 64 bits
            raise
        settings = ", ".join(f"{name} {value}" for name, value in config.model.items())
        raise OutOfMemoryError("model", "its weights must fit into memory", settings, "Make it smaller.") from error


def _labels(images: ImageSet) -> Tensor:
    assert images.labels is not None  # splitting made sure
    return images.labels


def _class_weights(config: FitConfig, targets: Tensor, classes: tuple[str, ...]) -> tuple[float, ...] | None:
    wanted = config.training.class_weights
    if wanted is None:
        return None
    if not classes:
        raise ConfigError("training.class_weights", "are for classification", "task regression", "Leave them out.")
    if wanted == "balanced":
        return tuple(balanced_weights(targets, len(classes)))
    if len(wanted) != len(classes):
        fix = f"The classes, in this order: {', '.join(classes)}."
        raise ConfigError("training.class_weights", f"must be {len(classes)} numbers, one per class", len(wanted), fix)
    return tuple(float(weight) for weight in wanted)


def _refuse_table_settings(config: FitConfig) -> None:
    """Settings that mean nothing for images are a mistake, not something to pass over."""
    if config.preset is not None:
        raise ConfigError("preset", "is for tables", f"{config.preset!r} for images", "Leave it out.")
    for_both = {"valid", "test", "valid_size", "test_size", "skip_bad"}
    for name, field in type(config.data).model_fields.items():
        if name not in for_both and getattr(config.data, name) != field.default:
            raise ConfigError(f"data.{name}", "is for tables", "images", "Leave it out.")
