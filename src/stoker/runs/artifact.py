"""The part of a run that is the model: its weights in safetensors, and in JSON all that is needed to build it again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from stoker.data.columns import Columns
from stoker.data.dataset import Task
from stoker.data.encoder import ImageEncoder, TableEncoder
from stoker.data.schema import Schema
from stoker.errors import RunError, StokerError
from stoker.models.assembly import Assembly, Head, Rescale
from stoker.models.inputs import ImageSpec, InputSpec, TableSpec
from stoker.models.own import OwnModel, OwnModelConfig
from stoker.models.registry import ModelConfig, build_model, model_config
from stoker.runs.files import refuse_link_out, write_atomic
from stoker.settings import Settings, parse_settings
from stoker.tensors import BadTensorsError, read_tensors

__all__ = ["Artifact", "Recipe", "build_assembly", "load_artifact", "save_weights"]

Kind: TypeAlias = Literal["table", "images"]


class Recipe(Settings):
    """How a model is built and what its inputs and outputs are; with the weights, the whole model.

    Attributes:
        kind: What goes in.
        task: What comes out.
        target: The target's name; empty for images.
        classes: Their names in the order of the outputs; empty for regression.
        table_schema: Of a table; see :class:`stoker.data.schema.Schema`.
        columns: Of a table; see :class:`stoker.data.columns.Columns`.
        encoder: Its config.
        spec: What goes into the network.
        model: The network's config.
        rescaled: Whether the outputs are turned back into the target's unit.
        class_weights: The criterion's, resolved.
    """

    kind: Kind
    task: Task
    target: str
    classes: tuple[str, ...]
    table_schema: dict[str, Any] | None
    columns: dict[str, Any] | None
    encoder: dict[str, Any]
    spec: TableSpec | ImageSpec
    model: dict[str, Any]
    rescaled: bool
    class_weights: tuple[float, ...] | None = None

    @property
    def outputs(self) -> int:
        """How many numbers the network gives for a row."""
        return 1 if self.task == "regression" else len(self.classes)


@dataclass(frozen=True)
class Artifact:
    """A model, and what is needed to feed it and to read its outputs.

    Attributes:
        recipe: How it is built.
        model: From raw tensors to predictions or logits.
        schema, columns: Of a table; ``None`` for images.
    """

    recipe: Recipe
    model: Assembly
    schema: Schema | None
    columns: Columns | None


def build_assembly(
    encoder: nn.Module,
    config: ModelConfig,
    spec: InputSpec,
    n_outputs: int,
    rescaled: bool,
    own: OwnModel | None = None,
) -> Assembly:
    """Put encoder, network and output together; the network's weights are drawn from torch's global generator."""
    output = Rescale(torch.zeros(n_outputs), torch.ones(n_outputs)) if rescaled else nn.Identity()
    return Assembly(encoder, Head(build_model(config, spec, n_outputs, own), output))


def save_weights(model: nn.Module, path: Path) -> None:
    """Write a module's state dict as safetensors, atomically; what has several names in it is written once.

    Raises:
        DiskFullError: There is no room; nothing is left behind.
    """
    repeated = _repeated(model)
    state: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in model.state_dict().items():
        if name in repeated:
            continue
        plain = tensor.detach().cpu().contiguous()
        storage = plain.untyped_storage().data_ptr()
        # safetensors takes no two tensors that look at one memory, as parts of a larger one do
        state[name] = plain.clone() if storage in storages else plain
        storages.add(storage)
    write_atomic(path, lambda temporary: save_file(state, temporary, metadata={"format": "pt"}))


def _repeated(model: nn.Module) -> dict[str, str]:
    """Each name in the state dict whose tensor stands there before by another name, as shared weights do; and that."""
    first: dict[int, str] = {}
    named = model.state_dict(keep_vars=True)
    return {name: before for name, tensor in named.items() if (before := first.setdefault(id(tensor), name)) != name}


def load_artifact(recipe: object, weights: Path, own: OwnModel | None = None) -> Artifact:
    """Build a model from its recipe and give it its weights; nothing that is stored is run.

    Args:
        recipe: What ``Recipe.model_dump`` made, as read from JSON.
        weights: The safetensors file.
        own: What the user named, for a run with a model of the user's own.

    Raises:
        RunError: The recipe or the weights are damaged, or do not belong together.
        ConfigError: The run's model is the user's own, and was not named or cannot be built.
    """
    where = str(weights.parent)
    if not isinstance(recipe, dict):
        raise RunError(where, "config.json must hold the model's recipe", type(recipe).__name__, "Copy the run again.")
    try:
        parsed = parse_settings(Recipe, recipe, "recipe")
        schema = None if parsed.table_schema is None else Schema.from_dict(parsed.table_schema)
        columns = None if parsed.columns is None else Columns.from_dict(parsed.columns)
        kind: Any = TableEncoder if parsed.kind == "table" else ImageEncoder
        encoder = kind.from_config(parsed.encoder)
        wrong = next((rule for rule, kept in _promises(parsed, schema, columns, encoder) if not kept), None)
        if wrong is not None:
            raise RunError(where, f"config.json is damaged ({wrong})", "", "Copy the run again.")
        config = model_config(parsed.model)
        parts = (encoder, config, parsed.spec, parsed.outputs, parsed.rescaled)
        if not isinstance(config, OwnModelConfig):
            with torch.device("meta"):  # no memory and no random numbers for weights that are replaced at once
                model = build_assembly(*parts)
    except RunError:
        raise
    except StokerError as error:
        raise RunError(where, f"config.json is damaged ({error})", "", "Copy the run again.") from None
    except (RuntimeError, TypeError, ValueError):  # sizes that torch does not take
        raise RunError(
            where, "config.json is damaged (recipe.model: no such network can be built)", "", "Copy the run again."
        ) from None
    if isinstance(config, OwnModelConfig):  # its constructor may compute values, which is not possible without memory
        with torch.random.fork_rng(devices=[]):
            model = build_assembly(*parts, own)
    _load_weights(model, weights, config)
    return Artifact(parsed, model.eval(), schema, columns)


def _promises(
    recipe: Recipe, schema: Schema | None, columns: Columns | None, encoder: TableEncoder | ImageEncoder
) -> Iterator[tuple[str, bool]]:
    """What the parts of a recipe owe each other, and whether they keep it; later ones may rely on those before."""
    classes = recipe.classes
    fitting = {"regression": len(classes) == 0, "binary": len(classes) == 2, "multiclass": len(classes) >= 2}
    yield "recipe.classes: must be those of the task", fitting[recipe.task]
    yield "recipe.classes: must differ from each other", len(set(classes)) == len(classes)
    weights = recipe.class_weights
    yield "recipe.class_weights: must be one for each class", weights is None or len(weights) == len(classes) > 0
    yield "recipe.rescaled: is for regression", recipe.task == "regression" or not recipe.rescaled
    if isinstance(encoder, ImageEncoder):
        yield "recipe: images have no columns", schema is None and columns is None
        yield "recipe.task: images have classes", recipe.task != "regression"
        spec = recipe.spec
        yield (
            "recipe.spec: must be the images that the encoder gives",
            isinstance(spec, ImageSpec) and spec.channels == encoder.channels and min(spec.height, spec.width) > 0,
        )
        return
    if schema is None or columns is None or schema.target is None or not isinstance(recipe.spec, TableSpec):
        yield "recipe: a table has a schema with a target, columns and a spec", False
        return
    target = schema.target
    yield (
        "recipe.table_schema: must have the recipe's target, task and classes",
        (target.name, target.task, target.classes) == (recipe.target, recipe.task, classes),
    )
    yield (
        "recipe.columns: must be features of the schema",
        set(columns.names) <= {column.name for column in schema.features},
    )
    yield (
        "recipe.encoder: must take what the columns give",
        encoder.config.numeric == len(columns.numeric_names)
        and encoder.config.categorical == len(columns.categorical)
        and encoder.cardinalities == tuple(columns.cardinalities[place] for place in encoder.config.embedded),
    )
    yield (
        "recipe.spec: must be what the encoder gives",
        recipe.spec.n_numeric == encoder.n_numeric and recipe.spec.cardinalities == encoder.cardinalities,
    )
    yield (
        "recipe.spec: must name the columns that the features are made from",
        (recipe.spec.numeric_columns, recipe.spec.categorical_columns)
        in (((), ()), encoder.columns_of_features(columns)),
    )


def _load_weights(model: nn.Module, path: Path, config: ModelConfig) -> None:
    if not path.is_file():
        raise RunError(str(path), "is missing from the run", "", "Copy the run again, whole.")
    refuse_link_out(path, path.parent)
    try:
        _, state = read_tensors(path)
    except PermissionError:
        raise RunError(str(path), "must be readable", "Permission denied", "Look at its permissions.") from None
    except (BadTensorsError, OSError) as error:
        raise RunError(str(path), f"must be a safetensors file ({error})", "", "Copy the run again.") from None
    own = isinstance(config, OwnModelConfig)
    wanted = model.state_dict()
    state |= {name: state[first] for name, first in _repeated(model).items() if first in state}
    for name in sorted(wanted.keys() | state.keys()):
        have, want = state.get(name), wanted.get(name)
        if have is None or want is None or have.shape != want.shape or have.dtype != want.dtype:
            got = "none" if have is None else f"{list(have.shape)} {have.dtype}"
            rule = (
                f"{name} must be {list(want.shape)} {want.dtype}" if want is not None else f"{name} is not the model's"
            )
            fix = "The weights and config.json are of different runs."
            if own:
                fix = f"Perhaps {config.name} is not what it was in training. If it is: {fix}"
            raise RunError(str(path), rule, got, fix)
    # Copied in place, what the user's constructor shares stays shared.
    model.load_state_dict(state, assign=not own)
