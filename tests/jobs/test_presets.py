"""Presets: settings below all others; and jobs with the models that they choose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from small import learning, quick_fit, write_images, write_table

import stoker
from stoker.data.encoder import TableEncoder
from stoker.errors import ConfigError, UnknownNameError
from stoker.jobs.config import FitConfig, build_config
from stoker.jobs.presets import PRESETS, with_preset
from stoker.models.inputs import TableInput

BINS = "head.network.input.numbers"


def toml(folder: Path, text: str) -> Path:
    file = folder / "job.toml"
    file.write_text(text)
    return file


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_made_of_settings(name: str) -> None:
    config = build_config(short={"preset": name})
    assert config.preset == name
    for setting, value in PRESETS[name]["training"].items():
        assert getattr(config.training, setting) == value
    assert config.model == PRESETS[name]["model"]


def test_without_a_preset_nothing_changes() -> None:
    assert build_config() == FitConfig()
    assert with_preset({"training": {"lr": 1}}) == {"training": {"lr": 1}}


def test_file_over_preset_short_names_over_the_file_assignments_over_all(tmp_path: Path) -> None:
    best = PRESETS["best"]["training"]
    file = toml(tmp_path, 'preset = "best"\n[training]\nepochs = 7\nbatch_size = 8\nlr = 0.5\n')
    config = build_config(file, {"batch_size": 9, "lr": 0.25}, ["training.lr=0.125"])
    assert (config.training.epochs, config.training.batch_size, config.training.lr) == (7, 9, 0.125)
    assert config.training.weight_decay == best["weight_decay"]
    assert build_config(file, {"preset": "best"}).preset == "best"
    assert build_config(assignments=["preset=best"]).training.lr == best["lr"]


def test_what_a_preset_says_of_its_own_choice_goes_with_it() -> None:
    best = PRESETS["best"]
    other = build_config(short={"preset": "best", "model": "linear", "optimizer": "sgd"})
    assert other.model == {"name": "linear"}
    assert (other.training.optimizer, other.training.lr, other.training.weight_decay) == ("sgd", None, None)
    assert other.training.batch_size == best["training"]["batch_size"]
    same = build_config(short={"preset": "best", "model": best["model"]["name"], "hidden": (9,)})
    assert same.model == {**best["model"], "hidden": (9,)}


def test_early_stopping_needs_rows_to_validate_on(tmp_path: Path) -> None:
    run = quick_fit(learning("price"), tmp_path / "run", target="price", preset="best", valid_size=0, batch_size=32)
    assert run.history.stopped == "finished"


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ("bset", UnknownNameError, r"^preset: must be one of the known names, got 'bset'\. Did you mean 'best'\?"),
        (3, ConfigError, r"^preset: must be a name, got 3\. Known: best\."),
    ],
)
def test_unknown_presets(given: object, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        build_config(short={"preset": given})


def test_images_have_no_preset(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "animals", each=6)
    with pytest.raises(ConfigError, match=r"^preset: is for tables, got 'best' for images\. Leave it out\."):
        stoker.fit(folder, out=tmp_path / "run", preset="best", progress="none")
    assert not (tmp_path / "run").exists()


def test_the_run_says_the_preset_and_all_that_it_set(tmp_path: Path) -> None:
    run = quick_fit(learning("price"), tmp_path / "run", target="price", preset="best")
    assert run.config.preset == "best"
    settings = run.record.settings
    assert settings["preset"] == "best"
    assert settings["training"]["lr"] == PRESETS["best"]["training"]["lr"]
    assert settings["training"]["epochs"] == 2, "as quick_fit has it"
    assert {name: settings["model"][name] for name in PRESETS["best"]["model"] if name != "hidden"} == {
        name: value for name, value in PRESETS["best"]["model"].items() if name != "hidden"
    }
    assert "- preset: best\n" in (run.path / "README.md").read_text()


@pytest.mark.parametrize("target", ["price", "sold", "grade"])
@pytest.mark.parametrize(
    "settings",
    [
        {"preset": "best"},
        {"numeric_embedding": "periodic", "norm": "batch"},
        {"model": "resnet", "hidden": None, "numeric_embedding": "piecewise-linear"},
        {"model": "resnet", "hidden": 16, "norm": "layer"},
    ],
    ids=["best", "periodic", "resnet of bins", "resnet"],
)
def test_a_run_is_read_back_to_the_bit(target: str, settings: dict[str, Any], tmp_path: Path) -> None:
    data, new = write_table(learning(target), tmp_path / "homes.csv"), learning(target, 60, seed=5).drop(target)
    run = quick_fit(data, tmp_path / "run", target=target, **settings)
    outputs = run.predict(new).outputs
    assert bool(outputs.isfinite().all())
    again = stoker.load(run.path.rename(tmp_path / "moved"))
    assert torch.equal(again.predict(new).outputs, outputs)
    assert again.evaluate() == pytest.approx(run.metrics["test"])


def test_bins_are_those_of_the_training_rows_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def table(rows: int, scale: float) -> pl.DataFrame:
        x = rng.normal(size=(rows, 2)) * scale
        return pl.DataFrame({"a": x[:, 0], "b": x[:, 1].round(), "y": x.sum(axis=1)})

    train = table(120, 1.0)
    near, far = table(40, 1.0), table(40, 50.0)
    settings: dict[str, Any] = {"target": "y", "numeric_embedding": "piecewise-linear", "epochs": 1}
    bins = []
    for name, held in {"near": near, "far": far}.items():
        run = quick_fit(train, tmp_path / name, valid=held, test=held, **settings)
        state = load_file(run.path / "model.safetensors")
        bins.append({key: tensor for key, tensor in state.items() if key.startswith(BINS)})
        a = torch.from_numpy(train["a"].to_numpy().copy())
        standardised = ((a - a.mean()) / a.std()).float()
        start, length, high = (bins[-1][f"{BINS}.{part}"][0] for part in ("start", "length", "high"))
        assert start[0] == standardised.min()
        assert (start + length)[high > 0].max().item() == pytest.approx(standardised.max().item())
        assert int((high > 0).sum()) == 120 // 16
    fixed = [key for key in bins[0] if key.rpartition(".")[2] in {"start", "length", "low", "high"}]
    assert len(fixed) == 4
    assert all(torch.equal(bins[0][key], bins[1][key]) for key in fixed)


def test_flags_are_not_embedded(tmp_path: Path) -> None:
    run = quick_fit(learning("price"), tmp_path / "run", target="price", preset="best")
    spec, encoder = run.model.get_submodule("head.network.input"), run.model.encoder
    assert isinstance(spec, TableInput)
    assert isinstance(encoder, TableEncoder)
    flags = [name for name in encoder.feature_names if "=" in name or "is missing" in name]
    assert flags == list(encoder.feature_names[spec.n_measured :])
    assert len(flags) >= 4
