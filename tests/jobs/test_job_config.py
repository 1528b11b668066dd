"""All settings of a job: from files, short names and assignments, and what is said about those that are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stoker.errors import ConfigError, SourceFormatError, SourceNotFoundError, UnknownNameError
from stoker.jobs.config import DataConfig, FitConfig, TrainingConfig, build_config, setting_names
from stoker.settings import parse_settings


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "job.toml"
    path.write_text(text)
    return path


def test_later_ones_count_over_earlier_ones(tmp_path: Path) -> None:
    file = toml(
        tmp_path,
        """
        [data]
        target = "price"
        valid_size = 100
        [model]
        name = "mlp"
        hidden = [50, 40]
        [training]
        epochs = 7
        lr = 0.5
        batch_size = 64
        precision = 32
        """,
    )
    config = build_config(file, {"lr": 0.2, "seed": 3, "epochs": None}, ["training.lr=0.1", "model.hidden=[9]"])
    assert (config.data.target, config.data.valid_size, config.data.test_size) == ("price", 100, 0.2)
    assert (config.training.epochs, config.training.batch_size, config.training.seed) == (7, 64, 3)
    assert config.training.lr == 0.1
    assert config.training.precision == "32"
    assert config.model == {"name": "mlp", "hidden": [9]}


def test_defaults_are_settings_too() -> None:
    assert build_config() == FitConfig()


def test_all_settings_survive_being_kept(tmp_path: Path) -> None:
    short: dict[str, Any] = {
        "target": "y",
        "numeric": ("a", "b"),
        "class_weights": (1.0, 2.5),
        "optimizer_settings": {"betas": [0.9, 0.99]},
        "hidden": [3, 4],
        "metrics": ("accuracy",),
        "valid_size": 7,
    }
    config = build_config(short=short)
    assert parse_settings(FitConfig, config.model_dump(mode="json")) == config


def test_every_setting_has_a_short_name_and_none_has_two_meanings() -> None:
    names = setting_names()
    assert names["lr"] == ("training", "lr")
    assert names["model"] == ("model", "name")
    assert names["model_args"] == ("model", "args")
    fields = [
        *DataConfig.model_fields,
        *TrainingConfig.model_fields,
        "hidden",
        "activation",
        "dropout",
        "norm",
        "numeric_embedding",
        "channels",
        "wide",
        "deep",
        "aux_weight",
        "model",
        "model_args",
        "preset",
    ]
    assert sorted(fields) == sorted(names), "a name in two groups would be here once"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("[trainin]\nlr = 1", r"^settings: must be one of the known names, got 'trainin'\. Did you mean 'training'\?"),
        ("[training]\nlrr = 1", r"^training: must be one of the known names, got 'lrr'\. Did you mean 'lr'\?"),
        ("[data]\ntargt = 'y'", r"^data: must be one of the known names, got 'targt'\. Did you mean 'target'\?"),
        ("[model]\nname = 'mlp'\nhiden = [1]", r"^model: must be one of the known names, got 'hiden'\. .* 'hidden'\?"),
        ("[model]\nname = 'mpl'", r"^model: must be one of the known names, got 'mpl'\. Did you mean 'mlp'\?"),
        (
            "[data]\ntask = 'regresion'",
            r"^data\.task: must be one of the known names, got 'regresion'\. .* 'regression'\?",
        ),
        (
            "[data]\ncategories = 'onehot'",
            r"^data\.categories: must be one of the known names, got 'onehot'\. .* 'one-hot'",
        ),
        ("training = 3", r"^training: must be settings by name, got 3\."),
        ("model = 'mlp'", r"^model: must be settings by name, got 'mlp'\."),
        ("[training]\nepochs = 0", r"^training\.epochs: must be greater than or equal to 1, got 0\."),
        ("[training]\nepochs = 1.5", r"^training\.epochs: must be a valid integer, .* got 1\.5\."),
        ("[training]\nlr = 'fast'", r"^training\.lr: must be a number above 0, or auto, got 'fast'\."),
        ("[training]\nlr = nan", r"^training\.lr: must be a number above 0, or auto, got nan\."),
        ("[training]\nlr = -1", r"^training\.lr: must be a number above 0, or auto, got -1\."),
        ("[training]\nlabel_smoothing = 1.0", r"^training\.label_smoothing: must be less than 1, got 1\.0\."),
        ("[training]\nmonitor = 3", r"^training\.monitor: must be text, got 3\."),
        ("[training]\nclass_weights = 'even'", r"^training\.class_weights: must be one of the known names, got 'even'"),
        (
            "[training]\nclass_weights = [1, -1]",
            r"^training\.class_weights.*: must be greater than or equal to 0, got -1",
        ),
        ("[training]\nprecision = 16", r"^training\.precision: must be one of the known names, got 16\. "),
        (
            "[data]\nvalid_size = 1.5",
            r"^data\.valid_size: must be a fraction from 0 up to, not including, 1, or a whole",
        ),
        ("[data]\nvalid_size = -3", r"^data\.valid_size: must be a fraction .* got -3\."),
        ("[data]\ntest_size = true", r"^data\.test_size: must be a fraction .* got True\."),
        ("[data]\nnumeric = 3", r"^data\.numeric: must be a list, got 3\."),
        ("[data]\nclip = 0", r"^data\.clip: must be greater than 0, got 0\."),
        ("[data]\ngroup = 'a'\ntime = 'b'", r"^data\.group: cannot be combined with data\.time, got 'a'\."),
    ],
)
def test_wrong_settings_in_a_file(text: str, match: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=match):
        build_config(toml(tmp_path, text))


def test_wrong_short_names() -> None:
    with pytest.raises(
        UnknownNameError, match=r"^settings: must be one of the known names, got 'epoch'\. .* 'epochs'\?"
    ):
        build_config(short={"epoch": 3})
    with pytest.raises(ConfigError, match=r"^model\.hidden: must be a list, got 50\."):
        build_config(short={"model": "mlp", "hidden": 50})


@pytest.mark.parametrize(
    ("assignment", "match"),
    [
        ("training.lrr=1", r"^training: must be one of the known names, got 'lrr'\. Did you mean 'lr'\?"),
        ("lr=1", r"^settings: must be one of the known names, got 'lr'\. Known: preset, data, model, training\."),
        ("training.lr", r"^--set: must be name=value, got 'training\.lr'\. Such as --set training\.lr=0\.1\."),
        ("data.target.x=1", r"^data\.target: must be text, got \{'x': 1\}\."),
        ("training.epochs=many", r"^training\.epochs: must be a valid integer"),
    ],
)
def test_wrong_assignments(assignment: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        build_config(assignments=[assignment])


def test_settings_that_could_not_be_kept_are_refused_before_training() -> None:
    match = (
        r"^training\.optimizer_settings\.betas: must be a number, text, true or false, or a list of these, "
        r"got <object .*>\. For other objects there is stoker\.Trainer\."
    )
    with pytest.raises(ConfigError, match=match):
        build_config(short={"optimizer_settings": {"betas": object()}})


def test_files_that_are_not_there_or_not_toml(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match=r"^--config: no such file, got .*none\.toml\."):
        build_config(tmp_path / "none.toml")
    with pytest.raises(SourceNotFoundError, match=r"^--config: "):
        build_config(tmp_path)
    with pytest.raises(SourceFormatError, match=r"job\.toml: must be TOML: .* line 2"):
        build_config(toml(tmp_path, "[training]\nlr = = 3"))
