"""Whole jobs of Wide & Deep networks: trained, kept, read again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small import learning, quick_fit, write_table
from torch import nn

import stoker
from stoker.errors import ConfigError, RunError, UnknownNameError
from stoker.jobs.config import build_config
from stoker.jobs.prepare import job_criterion, prepare, trained_part
from stoker.models.wide_deep import TableWideAndDeep

PATHS: dict[str, Any] = {
    "model": "wide-deep",
    "wide": ("size", "street", "kind", "lift"),
    "deep": ("street", "rooms", "size", "seen"),
}


def network(run: stoker.Run) -> TableWideAndDeep:
    found = run.artifact.model.head.network
    assert isinstance(found, TableWideAndDeep)
    return found


@pytest.mark.parametrize("target", ["price", "sold", "grade"])
@pytest.mark.parametrize("aux_weight", [0.0, 0.3])
def test_a_run_predicts_the_same_once_it_is_read_again(target: str, aux_weight: float, tmp_path: Path) -> None:
    rows = write_table(learning(target, 300), tmp_path / "homes.csv")
    run = quick_fit(rows, tmp_path / "run", target=target, aux_weight=aux_weight, epochs=12, lr=0.02, **PATHS)
    test = run.metrics["test"]
    assert test["r2"] > 0.5 if target == "price" else test["accuracy"] > {"sold": 0.75, "grade": 0.55}[target]
    again = stoker.load(run.path)
    assert torch.equal(again.predict(rows).outputs, run.predict(rows).outputs)
    assert again.evaluate() == run.metrics["test"]
    assert (network(again).paths.aux_output is not None) == bool(aux_weight)
    assert again.history.rows[-1]["train_loss"] < again.history.rows[0]["train_loss"]


def test_the_paths_have_the_columns_that_were_named(tmp_path: Path) -> None:
    told: list[str] = []
    settings = PATHS | {"wide": ("size", "street"), "deep": ("rooms", "seen")}
    run = quick_fit(learning("price"), tmp_path / "run", target="price", notify=told.append, **settings)
    left = "is left out: it is named neither for the wide path nor for the deep one"
    assert [text for text in told if left in text] == [f"column 'lift' {left}", f"column 'kind' {left}"]
    # size has gaps, and so a flag beside it; street is embedded; seen is made into parts.
    columns = run.artifact.recipe.spec.numeric_columns  # type: ignore[union-attr]
    assert network(run).wide.spec.n_numeric == columns.count("size") == 2
    assert network(run).deep.spec.n_numeric == columns.count("rooms") + columns.count("seen")
    assert len(network(run).code_weights) == 1
    assert len(network(run).input.embeddings) == 0


def test_the_auxiliary_loss_is_in_training_alone() -> None:
    table = stoker.load_data(learning("price"))
    assert isinstance(table, stoker.Table)
    for share in (0.0, 0.2):
        config = build_config(short={"target": "price", "model": "wide-deep", "aux_weight": share, "hidden": (8,)})
        ready = prepare(table, config, notify=lambda _: None)
        inputs, targets = ready.splits["train"]
        model = trained_part(ready.model, "table")
        outputs = model(**inputs)
        std = targets.double().std()
        squared = {
            name: ((output.double() - targets) / std).square().mean().item()
            for name, output in (outputs.items() if share else [("main", outputs)])
        }
        by_hand = squared["main"] if not share else 0.8 * squared["main"] + 0.2 * squared["aux"]
        criterion = job_criterion(config, ready.recipe, ready.model)
        trainer = stoker.Trainer(model, criterion, "sgd", lr=1e-9, device="cpu", metrics=())
        history = trainer.fit((inputs, targets), epochs=1, batch_size=None, progress="none")
        assert history[0]["train_loss"] == pytest.approx(by_hand, rel=1e-5)
        assert trainer.evaluate((inputs, targets))["loss"] == pytest.approx(squared["main"], rel=1e-5)


def test_the_same_seed_gives_the_same_bits_with_an_auxiliary_output(tmp_path: Path) -> None:
    one, other = (
        quick_fit(learning("sold"), tmp_path / name, target="sold", aux_weight=0.2, dropout=0.1, **PATHS)
        for name in ("one", "other")
    )
    assert (one.path / "model.safetensors").read_bytes() == (other.path / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"wide": ("sise",)}, r"model\.wide: must be one of the known names, got 'sise'\. Did you mean 'size'\?"),
        ({"deep": ("price",)}, r"model\.deep: must name columns to learn from, got 'price', the target\."),
        (
            {"deep": ("kind",), "ignore": ("kind",)},
            r"model\.deep: must name columns that are used, got 'kind', left out",
        ),
        ({"wide": ()}, r"model\.wide: must be 'all' or a list of one column name or more"),
        ({"aux_weight": 1}, r"model\.aux_weight: must be less than 1, got 1"),
        ({"model": "linear", "wide": ("size",)}, r"got 'wide'\. Known: name\. 'wide' is a setting of wide-deep\."),
        ({"model": None, "wide": ("size",)}, r"got 'wide'\. .* 'wide' is a setting of wide-deep\."),
        ({"model": "mlp", "aux_weight": 0.2}, r"got 'aux_weight'\. .* 'aux_weight' is a setting of wide-deep\."),
    ],
)
def test_settings_that_do_not_fit_are_told(settings: dict[str, Any], text: str, tmp_path: Path) -> None:
    hidden = None if settings.get("model") == "linear" else (8,)
    with pytest.raises(ConfigError, match=text):
        quick_fit(
            learning("price"),
            tmp_path / "run",
            **({"target": "price", "model": "wide-deep", "hidden": hidden} | settings),
        )
    assert not (tmp_path / "run").exists()


def test_images_have_no_columns() -> None:
    with pytest.raises(ConfigError, match=r"model: must be one for images, got 'wide-deep'\. Use one of mlp, cnn\."):
        stoker.fit("digits", model="wide-deep", progress="none")


def test_a_recipe_whose_columns_were_changed_by_hand(tmp_path: Path) -> None:
    run = quick_fit(learning("price"), tmp_path / "run", target="price", **PATHS)
    config = run.path / "config.json"
    text = config.read_text()
    spec = text[text.index('"numeric_columns"') :]
    config.write_text(text.replace(spec, spec.replace('"size"', '"rooms"', 1)))
    with pytest.raises(RunError, match=r"recipe\.spec: must name the columns that the features are made from"):
        _ = stoker.load(run.path).model


def test_unknown_column_is_of_the_kind_that_lists_names(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError) as caught:
        quick_fit(learning("price"), tmp_path / "run", target="price", model="wide-deep", wide=("x",))
    assert caught.value.valid == ["size", "rooms", "lift", "seen", "kind", "street"]


def test_named_inputs_from_python() -> None:
    g = torch.Generator().manual_seed(0)
    X = torch.randn(200, 8, generator=g)
    y = X[:, :1] + X[:, 3:4].sin()
    torch.manual_seed(0)
    model = stoker.WideAndDeep(5, 6, hidden=(16,), auxiliary=True)
    parts = {"main": stoker.Loss("mse", weight=0.8), "aux": stoker.Loss(nn.MSELoss(), weight=0.2, train_only=True)}
    trainer = stoker.Trainer(model, parts, "adam", lr=0.01, device="cpu")
    data = {"X_wide": X[:, :5], "X_deep": X[:, 2:]}
    history = trainer.fit((data, y), (data, y), epochs=10, progress="none")
    assert history[-1]["valid_loss"] < 0.5 * history[0]["valid_loss"]
    assert trainer.predict(data).shape == (200, 1)
