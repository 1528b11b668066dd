"""The model's part of a run: what is written is read back to the bit, and nothing that is stored is trusted."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

from stoker.data.columns import Columns
from stoker.data.encoder import ImageEncoder, TableEncoder
from stoker.data.schema import infer_schema
from stoker.errors import RunError
from stoker.models.assembly import Assembly
from stoker.models.inputs import ImageSpec, TableSpec
from stoker.models.registry import model_config
from stoker.runs.artifact import Recipe, build_assembly, load_artifact, save_weights

MANY = [f"street {number % 15}" for number in range(60)]
FRAME = pl.DataFrame(
    {
        "size": [float(number) for number in range(60)],
        "rooms": [None if number % 7 == 0 else number % 5 + 0.5 for number in range(60)],
        "kind": ["flat", "house", "loft"] * 20,
        "street": MANY,
        "class": ["a", "b", "b"] * 20,
        "price": [1000.0 * number + 7 for number in range(60)],
    }
).with_columns(size=pl.col("size") + 0.5)


def of_table(target: str) -> tuple[Recipe, Assembly]:
    """An untrained model of :data:`FRAME`, and its recipe."""
    schema = infer_schema(FRAME, target, ignore=[{"price": "class", "class": "price"}[target]])
    assert schema.target is not None
    columns = Columns.fit(FRAME, schema)
    encoder = TableEncoder.fit(columns.read(FRAME), columns)
    config = model_config({"name": "mlp", "hidden": [4]})
    recipe = Recipe(
        kind="table",
        task=schema.target.task,
        target=target,
        classes=schema.target.classes,
        table_schema=schema.to_dict(),
        columns=columns.to_dict(),
        encoder=encoder.to_config(),
        spec=TableSpec(n_numeric=encoder.n_numeric, cardinalities=encoder.cardinalities),
        model=config.model_dump(mode="json"),
        rescaled=target == "price",
    )
    return recipe, build_assembly(encoder, config, recipe.spec, recipe.outputs, recipe.rescaled)


def of_images() -> tuple[Recipe, Assembly]:
    images = torch.randint(0, 256, (20, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    encoder = ImageEncoder.fit(images)
    config = model_config({"name": "cnn", "channels": [2], "hidden": []})
    recipe = Recipe(
        kind="images",
        task="binary",
        target="class",
        classes=("cat", "dog"),
        table_schema=None,
        columns=None,
        encoder=encoder.to_config(),
        spec=ImageSpec(channels=1, height=8, width=8),
        model=config.model_dump(mode="json"),
        rescaled=False,
    )
    return recipe, build_assembly(encoder, config, recipe.spec, recipe.outputs, recipe.rescaled)


def stored(recipe: Recipe, model: Assembly, folder: Path) -> tuple[dict[str, Any], Path]:
    save_weights(model, folder / "model.safetensors")
    return recipe.model_dump(mode="json"), folder / "model.safetensors"


@pytest.fixture
def classes(tmp_path: Path) -> tuple[dict[str, Any], Path]:
    """The recipe and weights of a model of two classes."""
    return stored(*of_table("class"), tmp_path)


@pytest.mark.parametrize("target", ["price", "class"])
def test_a_model_of_a_table_is_read_back_to_the_bit(target: str, tmp_path: Path) -> None:
    recipe, model = of_table(target)
    if target == "price":
        model.head.output.mean.fill_(12.0)  # type: ignore[operator]
    artifact = load_artifact(*stored(recipe, model, tmp_path))
    assert artifact.recipe == recipe
    assert artifact.columns is not None
    assert artifact.schema is not None
    raw = artifact.columns.read(FRAME)
    with torch.no_grad():
        assert torch.equal(artifact.model(**raw), model.eval()(**raw))
    assert not any(module.training for module in artifact.model.modules())
    assert all(parameter.requires_grad for parameter in artifact.model.parameters())
    assert {name: tensor.device.type for name, tensor in artifact.model.state_dict().items()} == dict.fromkeys(
        model.state_dict(), "cpu"
    )


def test_a_model_of_images_is_read_back_to_the_bit(tmp_path: Path) -> None:
    recipe, model = of_images()
    artifact = load_artifact(*stored(recipe, model, tmp_path))
    images = torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(artifact.model(images=images), model(images=images))
    assert (artifact.schema, artifact.columns) == (None, None)


def test_loading_draws_no_random_numbers(classes: tuple[dict[str, Any], Path]) -> None:
    state = torch.random.get_rng_state()
    load_artifact(*classes)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_weights_on_any_layout_are_stored_plainly(tmp_path: Path) -> None:
    recipe, model = of_images()
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    _, path = stored(recipe, model, tmp_path)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in load_file(path).items())


Change = Callable[[dict[str, Any]], object]


def put(path: str, value: Any) -> Change:
    """Put a value in the place of what a recipe has at ``a.b.c``."""

    def change(recipe: dict[str, Any]) -> None:
        *parts, last = path.split(".")
        inner: Any = recipe
        for part in parts:
            inner = inner[part]
        inner[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda recipe: recipe.pop("kind"), r"recipe\.kind: must be there, got none"),
        (lambda recipe: recipe.pop("model"), r"recipe\.model: must be there, got none"),
        (put("extra", 3), r"recipe: must be one of the known names, got 'extra'"),
        (put("kind", "sound"), r"recipe\.kind: must be one of the known names, got 'sound'"),
        (put("kind", "images"), r"encoder: must have a number of channels"),
        (put("task", "regression"), r"recipe\.classes: must be those of the task"),
        (put("task", "multiclass"), r"recipe\.table_schema: must have the recipe's target, task and classes"),
        (put("classes", []), r"recipe\.classes: must be those of the task"),
        (put("classes", ["a", "a"]), r"recipe\.classes: must differ from each other"),
        (put("classes", ["b", "a"]), r"recipe\.table_schema: must have the recipe's target, task and classes"),
        (put("classes", [1, 2]), r"recipe\.classes.*: must be text, got 1"),
        (put("classes", "ab"), r"recipe\.classes: must be a list, got 'ab'"),
        (put("target", "price"), r"recipe\.table_schema: must have the recipe's target, task and classes"),
        (put("rescaled", True), r"recipe\.rescaled: is for regression"),
        (put("class_weights", [1.0]), r"recipe\.class_weights: must be one for each class"),
        (put("table_schema", None), r"recipe: a table has a schema with a target, columns and a spec"),
        (put("table_schema", {}), r"schema: .*columns.*"),
        (put("table_schema.target", None), r"recipe: a table has a schema with a target, columns and a spec"),
        (put("columns", None), r"recipe: a table has a schema with a target, columns and a spec"),
        (put("columns.numeric", []), r"recipe\.encoder: must take what the columns give"),
        (
            put("columns.categorical", [{"name": "x", "vocabulary": []}]),
            r"recipe\.columns: must be features of the schema",
        ),
        (put("encoder", {}), r"encoder: .*numeric.*"),
        (put("encoder.numeric", 10**12), r"encoder: must have a structure that fits together"),
        (put("encoder.cardinalities", [3]), r"recipe\.encoder: must take what the columns give"),
        (put("spec.n_numeric", -5), r"recipe\.spec: must be what the encoder gives"),
        (put("spec.cardinalities", [-3]), r"recipe\.spec: must be what the encoder gives"),
        (
            put("spec", {"kind": "images", "channels": 1, "height": 8, "width": 8}),
            r"recipe: a table has a schema with a target, columns and a spec",
        ),
        (put("model", {"name": "cnn"}), r"model: must be one for table, got 'cnn'"),
        (put("model", {"name": "nothing"}), r"model: must be one of the known names, got 'nothing'"),
        (put("model", {"name": "mlp", "hidden": ["x"]}), r"model\.hidden.*: must be a valid integer"),
        (
            put("model", {"name": "mlp", "hidden": [10**30]}),
            r"(recipe\.model: no such network can be built|model\.hidden)",
        ),
        (put("model", {"name": "mlp", "hidden": [10**11]}), r"must be \[100000000000"),
    ],
)
def test_a_recipe_that_was_changed_by_hand(change: Change, match: str, classes: tuple[dict[str, Any], Path]) -> None:
    recipe, weights = copy.deepcopy(classes[0]), classes[1]
    change(recipe)
    with pytest.raises(RunError, match=match) as caught:
        load_artifact(recipe, weights)
    assert str(caught.value).startswith(str(weights.parent))
    assert "Copy the run again." in str(caught.value) or "different runs" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (put("task", "regression"), r"recipe\.classes: must be those of the task"),
        (put("encoder", {"channels": 3}), r"recipe\.spec: must be the images that the encoder gives"),
        (put("spec.height", 0), r"recipe\.spec: must be the images that the encoder gives"),
        (put("spec", {"kind": "table", "n_numeric": 3}), r"recipe\.spec: must be the images that the encoder gives"),
        (
            put(
                "columns", {"numeric": [{"name": "x", "reads": "number", "parts": [], "origin": 0}], "categorical": []}
            ),
            r"images have no columns",
        ),
        (put("spec.width", 10**12), r"(no such network can be built|must be \[)"),
    ],
)
def test_a_recipe_of_images_that_was_changed_by_hand(change: Change, match: str, tmp_path: Path) -> None:
    recipe, weights = stored(*of_images(), tmp_path)
    change(recipe)
    with pytest.raises(RunError, match=match):
        load_artifact(recipe, weights)


@pytest.mark.parametrize("recipe", [None, [], "recipe", 3])
def test_a_recipe_that_is_none(recipe: object, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"config\.json must hold the model's recipe, got "):
        load_artifact(recipe, tmp_path / "model.safetensors")


class Trap:
    """Would make a file if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("how", ["pickle", "torch.save"])
def test_weights_that_are_a_pickle_are_not_unpickled(
    how: str, classes: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    recipe, weights = classes
    trap = Trap(tmp_path / "sprung")
    if how == "pickle":
        weights.write_bytes(pickle.dumps({"head.x": trap}))
    else:
        torch.save({"head.x": trap}, weights)
    with pytest.raises(RunError, match=r"model\.safetensors: must be a safetensors file \(.*\)\. Copy the run again\."):
        load_artifact(recipe, weights)
    assert not trap.path.exists()


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_weights_that_are_truncated(kept: int, classes: tuple[dict[str, Any], Path]) -> None:
    recipe, weights = classes
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(RunError, match=r"model\.safetensors: must be a safetensors file"):
        load_artifact(recipe, weights)


def test_weights_that_are_not_there(classes: tuple[dict[str, Any], Path]) -> None:
    recipe, weights = classes
    elsewhere = weights.rename(weights.with_name("moved"))
    match = r"model\.safetensors: is missing from the run\. Copy the run again, whole\."
    with pytest.raises(RunError, match=match):
        load_artifact(recipe, weights)
    weights.mkdir()
    with pytest.raises(RunError, match=match):
        load_artifact(recipe, weights)
    weights.rmdir()
    weights.symlink_to(weights.with_name("nowhere"))
    with pytest.raises(RunError, match=match):
        load_artifact(recipe, weights)
    weights.unlink()
    weights.symlink_to(elsewhere)
    load_artifact(recipe, weights)  # as caches of the Hugging Face Hub have it


def test_weights_that_may_not_be_read(classes: tuple[dict[str, Any], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", forbid)
    with pytest.raises(RunError, match=r"model\.safetensors: must be readable, got Permission denied\."):
        load_artifact(*classes)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda state: state.pop("encoder.mean"), r"encoder\.mean must be \[2\] torch\.float64, got none\."),
        (lambda state: state.update(more=torch.zeros(1)), r"more is not the model's, got \[1\] torch\.float32\."),
        (
            lambda state: state.update({"head.network.layers.0.bias": torch.zeros(5)}),
            r"head\.network\.layers\.0\.bias must be \[4\] torch\.float32, got \[5\] torch\.float32\.",
        ),
        (
            lambda state: state.update({"encoder.mean": torch.zeros(2)}),
            r"encoder\.mean must be \[2\] torch\.float64, got \[2\] torch\.float32\.",
        ),
    ],
)
def test_weights_of_another_run(change: Change, match: str, classes: tuple[dict[str, Any], Path]) -> None:
    recipe, weights = classes
    state = load_file(weights)
    change(state)
    save_file(state, weights)
    with pytest.raises(RunError, match=match + r" The weights and config\.json are of different runs\."):
        load_artifact(recipe, weights)
