"""From a source and its settings to all that training needs: splits as tensors, the fitted encoder, the built model."""

from __future__ import annotations

import copy
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
from stoker.jobs.config import FitConfig, split_seed
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

__all__ = ["Encoded", "Prepared", "assemble", "encode", "encoded_inputs", "job_criterion", "prepare", "trained_part"]

Notify = Callable[[str], None]
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Encoded:
    """What training needs of the data, whatever network is trained on them.

    Attributes:
        task, target, classes: What is learnt.
        schema, columns: Of a table; ``None`` for images.
        encoder: Fitted on the training split.
        spec: What goes into a network.
        provenance, splits, duplicates: See :class:`Prepared`.
    """

    task: Task
    target: str
    classes: tuple[str, ...]
    schema: Schema | None
    columns: Columns | None
    encoder: TableEncoder | ImageEncoder
    spec: InputSpec
    provenance: Provenance
    splits: dict[str, tuple[Tensors, Tensor]]
    duplicates: dict[str, int]


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
    """

    recipe: Recipe
    model: Assembly
    config: FitConfig
    provenance: Provenance
    splits: dict[str, tuple[Tensors, Tensor]]
    duplicates: dict[str, int]


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
    model_config(config.model, _kind(source))  # whether it can be, before the data are gone through
    return assemble(encode(source, config, valid=valid, test=test, own=own, notify=notify), config, own, notify=notify)


def encode(
    source: DataSet,
    config: FitConfig,
    *,
    valid: DataSet | None = None,
    test: DataSet | None = None,
    own: OwnModel | None = None,
    notify: Notify,
) -> Encoded:
    """Split the data, and encode them. Of the settings, those in ``config.data`` count, and the seed.

    Args:
        source: What to train on.
        config: The settings.
        valid: This split from a source of its own.
        test: Likewise.
        own: What the user named, if the config is of a model of the user's own.
        notify: Told what the user should know.

    Raises:
        DataError: The data cannot be used as they are.
        ConfigError: A setting does not fit the data.
    """
    if isinstance(source, Table):
        return _encode_table(source, _with_categories(config, own), valid, test, notify)
    return _encode_images(source, config, valid, test, notify)


def assemble(data: Encoded, config: FitConfig, own: OwnModel | None = None, *, notify: Notify) -> Prepared:
    """Build the network for encoded data; what depends on the data alone is shared with others built for them.

    Args:
        data: As :func:`encode` gives them with the same ``config.data`` and seed.
        config: The settings.
        own: What the user named, if the config is of a model of the user's own.
        notify: Told what the user should know.

    Raises:
        ConfigError: A setting does not fit the data.
        OutOfMemoryError: The network does not fit into memory.
    """
    network = model_config(config.model, type(data.spec))
    config = config.model_copy(update={"model": network.model_dump(mode="json")})
    if isinstance(data.spec, TableSpec):
        config = _with_categories(config, own)
    if isinstance(network, WideDeepConfig) and data.schema is not None and data.columns is not None:
        for name in check_columns(network, data.schema, data.columns.names):
            notify(f"column {name!r} is left out: it is named neither for the wide path nor for the deep one")
    config, network = _with_arguments(config, network, own, data.spec, len(data.classes) or 1)
    inputs, targets = data.splits["train"]
    encoder = copy.deepcopy(data.encoder)  # so that no two models share a module
    recipe = Recipe(
        kind="table" if isinstance(data.spec, TableSpec) else "images",
        task=data.task,
        target=data.target,
        classes=data.classes,
        table_schema=None if data.schema is None else data.schema.to_dict(),
        columns=None if data.columns is None else data.columns.to_dict(),
        encoder=encoder.to_config(),
        spec=data.spec,
        model=config.model,
        rescaled=data.task == "regression" and config.data.scale_target,
        class_weights=_class_weights(config, targets, data.classes),
    )
    model = _build(recipe, network, encoder, config, targets, own)
    if isinstance(data.spec, TableSpec) and isinstance(model.head.network, FitsInputs):
        model.head.network.fit_inputs(**inputs)
    return Prepared(recipe, model, config, data.provenance, data.splits, data.duplicates)


def _kind(source: DataSet) -> type[InputSpec]:
    return TableSpec if isinstance(source, Table) else ImageSpec


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


def _encode_table(
    source: Table, config: FitConfig, valid: DataSet | None, test: DataSet | None, notify: Notify
) -> Encoded:
    schema = table_schema(source, config)
    assert schema.target is not None  # table_schema made sure
    target = schema.target
    for column in schema.columns:
        if column.kind == "ignored" and column.name not in config.data.ignore:
            grouping = column.name == config.data.group
            reason = "rows are grouped by it, so that no value is in two splits" if grouping else column.reason
            notify(f"column {column.name!r} is left out: {reason}")
    parts = split_table(source, schema, config.data, split_seed(config), valid=valid, test=test, notify=notify)
    columns = Columns.fit(parts.train, schema)
    used = set(columns.names)
    for column in schema.features:
        if column.name not in used:
            notify(f"column {column.name!r} is left out: it has one value in all rows to train on")
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
    return Encoded(
        task=target.task,
        target=target.name,
        classes=target.classes,
        schema=schema,
        columns=columns,
        encoder=encoder,
        spec=spec,
        provenance=source.provenance,
        splits={name: (inputs, targets[name]) for name, inputs in encoded.items()},
        duplicates=duplicates,
    )


def _read(columns: Columns, part: pl.DataFrame, name: str, source: DataSet | None) -> Tensors:
    """Read a split; an error says where its value stands if the split has a source of its own."""
    try:
        return columns.read(part)
    except EncodingError as error:
        if source is None:
            raise
        raise in_source(error, f"the {name} source", len(source) - part.height) from None


def _encode_images(
    source: ImageSet, config: FitConfig, valid: DataSet | None, test: DataSet | None, notify: Notify
) -> Encoded:
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
        source, config.data, split_seed(config), valid=valid, test=test, notify=notify
    )
    encoder = ImageEncoder.fit(parts.train.images)
    _, channels, height, width = parts.train.images.shape
    return Encoded(
        task="binary" if len(source.classes) == 2 else "multiclass",
        target="class",
        classes=source.classes,
        schema=None,
        columns=None,
        encoder=encoder,
        spec=ImageSpec(channels=channels, height=height, width=width),
        provenance=source.provenance,
        splits={name: ({"images": part.images}, _labels(part)) for name, part in parts.items()},
        duplicates=parts.duplicates,
    )


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
    for_both = {"valid", "test", "valid_size", "test_size", "train_on_valid", "split_seed", "skip_bad"}
    for name, field in type(config.data).model_fields.items():
        if name not in for_both and getattr(config.data, name) != field.default:
            raise ConfigError(f"data.{name}", "is for tables", "images", "Leave it out.")
