"""Every option reaches its setting, and says the truth about it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

import stoker
from stoker.cli.app import app
from stoker.data.sources.named import NAMED_SETS
from stoker.jobs.config import FitConfig, build_config, setting_names
from stoker.jobs.keeping import DEFAULT_EVERY
from stoker.jobs.loggers import LOGGERS
from stoker.models.layers import ACTIVATIONS, NORMS
from stoker.models.numeric import NumericSettings
from stoker.models.registry import MODELS
from stoker.training.criteria import CRITERIA
from stoker.training.optimizers import optimizer_names
from stoker.training.schedules import SCHEDULES

FLAGS: list[tuple[list[str], str, object]] = [
    (["--target", "price"], "data.target", "price"),
    (["--task", "regression"], "data.task", "regression"),
    (["--numeric", "a,b"], "data.numeric", ("a", "b")),
    (["--categorical", "a, b", "--categorical", "c"], "data.categorical", ("a", "b", "c")),
    (["--datetime", "a"], "data.datetime", ("a",)),
    (["--ignore", "a"], "data.ignore", ("a",)),
    (["--valid", "valid.csv"], "data.valid", "valid.csv"),
    (["--test", "test.csv"], "data.test", "test.csv"),
    (["--valid-size", "0.25"], "data.valid_size", 0.25),
    (["--valid-size", "500"], "data.valid_size", 500),
    (["--test-size", "0"], "data.test_size", 0),
    (["--group", "household"], "data.group", "household"),
    (["--time", "day"], "data.time", "day"),
    (["--skip-bad"], "data.skip_bad", True),
    (["--model", "mlp"], "model.name", "mlp"),
    (["--model-arg", "n_hidden=50"], "model.args", {"n_hidden": 50}),
    (["--model-arg", "a=[1, 2]", "--model-arg", "b=x y"], "model.args", {"a": [1, 2], "b": "x y"}),
    (["--hidden", "50,40"], "model.hidden", (50, 40)),
    (["--activation", "gelu"], "model.activation", "gelu"),
    (["--dropout", "0.1"], "model.dropout", 0.1),
    (["--norm", "batch"], "model.norm", "batch"),
    (["--numeric-embedding", "periodic"], "model.numeric_embedding", "periodic"),
    (["--wide", "a,b"], "model.wide", ("a", "b")),
    (["--wide", "all"], "model.wide", "all"),
    (["--deep", "b", "--deep", "c"], "model.deep", ("b", "c")),
    (["--deep", "all"], "model.deep", "all"),
    (["--aux-weight", "0.2"], "model.aux_weight", 0.2),
    (["--epochs", "7"], "training.epochs", 7),
    (["--batch-size", "16"], "training.batch_size", 16),
    (["--optimizer", "sgd"], "training.optimizer", "sgd"),
    (["--lr", "0.02"], "training.lr", 0.02),
    (["--lr", "auto"], "training.lr", "auto"),
    (["--momentum", "0.9"], "training.momentum", 0.9),
    (["--weight-decay", "1e-4"], "training.weight_decay", 1e-4),
    (["--schedule", "cosine"], "training.schedule", "cosine"),
    (["--loss", "huber"], "training.loss", "huber"),
    (["--class-weights", "balanced"], "training.class_weights", "balanced"),
    (["--class-weights", "1,2.5,3"], "training.class_weights", (1.0, 2.5, 3.0)),
    (["--label-smoothing", "0.1"], "training.label_smoothing", 0.1),
    (["--clip-norm", "1"], "training.clip_norm", 1.0),
    (["--accumulate", "4"], "training.accumulate", 4),
    (["--ema", "0.99"], "training.ema", 0.99),
    (["--patience", "3"], "training.patience", 3),
    (["--monitor", "valid_accuracy"], "training.monitor", "valid_accuracy"),
    (["--metrics", "accuracy,f1"], "training.metrics", ("accuracy", "f1")),
    (["--metrics", "auto"], "training.metrics", "auto"),
    (["--preset", "best"], "preset", "best"),
    (["--seed", "42"], "training.seed", 42),
    (["--device", "cpu"], "training.device", "cpu"),
    (["--precision", "bf16"], "training.precision", "bf16"),
    (["--engine", "compiled"], "training.engine", "compiled"),
    (["--deterministic"], "training.deterministic", True),
    (["--set", "training.min_delta=0.5"], "training.min_delta", 0.5),
    (["--set", "training.lr=1", "--set", "training.lr=2"], "training.lr", 2.0),
    (["--set", 'data.ignore=["a,b"]'], "data.ignore", ("a,b",)),
]
NOT_SETTINGS = {"source", "out", "config", "assignments", "log", "quiet", "help", "checkpoint_every", "keep"}


class Fit:
    """Stands in for ``stoker.fit``: remembers what it was called with, and ends the command there."""

    def __init__(self) -> None:
        self.source: str | None = None
        self.arguments: dict[str, Any] = {}

    def __call__(self, source: str, **arguments: Any) -> None:
        self.source, self.arguments = source, arguments
        raise typer.Exit

    @property
    def config(self) -> FitConfig:
        """The settings that ``stoker.fit`` would make of it."""
        short = {name: value for name, value in self.arguments.items() if name in setting_names()}
        return build_config(self.arguments["config"], short, self.arguments["assignments"])


@pytest.fixture
def fit(monkeypatch: pytest.MonkeyPatch) -> Fit:
    fake = Fit()
    monkeypatch.setitem(vars(stoker), "fit", fake)
    return fake


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["fit", "data.csv", *arguments])


def setting(config: FitConfig, dotted: str) -> object:
    group, _, name = dotted.rpartition(".")
    place = getattr(config, group) if group else config
    return place[name] if isinstance(place, dict) else getattr(place, name)


@pytest.mark.parametrize(
    ("flags", "dotted", "value"), FLAGS, ids=lambda part: " ".join(part) if isinstance(part, list) else ""
)
def test_flag_reaches_its_setting(fit: Fit, flags: list[str], dotted: str, value: object) -> None:
    result = run(*flags)
    assert result.exit_code == 0, result.output
    assert setting(fit.config, dotted) == value
    assert type(setting(fit.config, dotted)) is type(value)


def test_every_option_is_in_the_table() -> None:
    command = typer.main.get_command(app).commands["fit"]  # type: ignore[attr-defined]
    named = {parameter.opts[0] for parameter in command.params if parameter.name not in NOT_SETTINGS}
    assert named == {flags[0] for flags, _, _ in FLAGS} - {"--set"}


def test_what_is_not_given_is_left_to_the_defaults(fit: Fit) -> None:
    assert run().exit_code == 0
    assert fit.source == "data.csv"
    assert {name for name in setting_names() if fit.arguments.get(name) is not None} == set()
    assert fit.config == FitConfig()


def test_options_override_the_file_and_assignments_override_options(fit: Fit, tmp_path: Path) -> None:
    file = tmp_path / "fit.toml"
    file.write_text("[training]\nepochs = 3\nlr = 0.5\ndeterministic = true\nmomentum = 0.5\n")
    assert run("--config", str(file), "--epochs", "4", "--lr", "0.1", "--set", "training.lr=0.2").exit_code == 0
    training = fit.config.training
    assert (training.epochs, training.lr, training.deterministic, training.momentum) == (4, 0.2, True, 0.5)


def test_out_and_quiet(fit: Fit) -> None:
    assert run("--out", "there", "--quiet").exit_code == 0
    assert fit.arguments["out"] == Path("there")
    assert (fit.arguments["progress"], fit.arguments["notify"]) == ("none", None)
    assert run("-q").exit_code == 0
    assert fit.arguments["progress"] == "none"
    assert run().exit_code == 0
    assert fit.arguments["progress"] == "auto"


def test_checkpoints(fit: Fit) -> None:
    assert run("--checkpoint-every", "500steps", "--keep", "5").exit_code == 0
    assert (fit.arguments["checkpoint_every"], fit.arguments["keep"]) == ("500steps", 5)
    assert run().exit_code == 0
    assert (fit.arguments["checkpoint_every"], fit.arguments["keep"]) == (None, 3)


def test_log(fit: Fit) -> None:
    assert run("--log", "tensorboard,mlflow").exit_code == 0
    assert fit.arguments["log"] == ("tensorboard", "mlflow")
    assert run().exit_code == 0
    assert fit.arguments["log"] == ()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--lr", "fast"], "must be a number such as 0.01, or auto"),
        (["--hidden", "50,x"], "must be whole numbers with commas between"),
        (["--hidden", ""], "must be whole numbers with commas between"),
        (["--valid-size", "half"], "must be a fraction such as 0.2 or a number of rows"),
        (["--class-weights", "even"], "must be 'balanced' or one number a class"),
        (["--epochs", "2.5"], "Invalid value for '--epochs'"),
        (["--epoch", "3"], "--epochs"),
    ],
)
def test_what_cannot_be_parsed_is_a_usage_error(fit: Fit, flags: list[str], message: str) -> None:
    result = run(*flags)
    assert result.exit_code == 2
    assert message in words(result.stderr)
    assert fit.source is None


@pytest.mark.parametrize("argument", ["n_hidden", "=3", "a.b=3", "n hidden=3"])
def test_arguments_of_a_model_have_a_name_and_a_value(fit: Fit, argument: str) -> None:
    result = run("--model-arg", argument)
    assert result.exit_code == 1
    expected = f"error: --model-arg: must be name=value, got {argument!r}. Such as --model-arg n_hidden=50.\n"
    assert result.stderr == expected
    assert fit.source is None


def test_out_of_range_settings_are_errors_of_their_own() -> None:
    result = run("--epochs", "0")
    assert result.exit_code == 1
    assert re.fullmatch(r"error: training\.epochs: must be .* 1, got 0\.\n", result.stderr)


def test_unknown_command_is_answered_with_the_nearest() -> None:
    result = CliRunner().invoke(app, ["fti"])
    assert result.exit_code == 2
    assert "Did you mean 'fit'?" in words(result.stderr)


def words(text: str) -> str:
    """The text of a panel, without its frame and line breaks."""
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).split())


# What the help says.


def helps() -> dict[str, str]:
    command = typer.main.get_command(app).commands["fit"]  # type: ignore[attr-defined]
    return {parameter.opts[0]: parameter.help for parameter in command.params if parameter.name != "help"}


def test_defaults_in_the_help_are_the_defaults() -> None:
    places = {flags[0]: dotted for flags, dotted, _ in FLAGS if flags[0] != "--set"}
    told = {flag: match[1] for flag, text in helps().items() if (match := re.search(r" \((\S+)\)\.$", text))}
    assert len(told) >= 12
    assert (told.pop("--checkpoint-every"), told.pop("--keep")) == (DEFAULT_EVERY, "3")
    del told["--schedule"], told["--task"], told["--out"]  # None means constant, guessed, and a new name
    models = [MODELS[name].config() for name in ("mlp", "wide-deep")]
    for flag, default in told.items():
        group, name = places[flag].split(".")
        having = [getattr(model, name) for model in models if group == "model" and hasattr(model, name)]
        for truth in having or [setting(FitConfig(), places[flag])]:
            assert default == (f"{truth:g}" if isinstance(truth, float) else str(truth)), flag


@pytest.mark.parametrize(
    ("flag", "known", "whole"),
    [
        ("--model", {*MODELS, "package.module:Class"}, True),
        ("--log", set(LOGGERS), True),
        ("--schedule", {"constant", *SCHEDULES}, True),
        ("--loss", set(CRITERIA), True),
        ("--task", {"regression", "binary", "multiclass"}, True),
        ("--activation", set(ACTIVATIONS), False),
        ("--norm", {"none", *NORMS}, True),
        ("--numeric-embedding", set(NumericSettings.SIZES), True),
        ("--optimizer", set(optimizer_names()), False),
    ],
)
def test_names_in_the_help_are_the_known_ones(flag: str, known: set[str], whole: bool) -> None:
    text = re.split(r" \(|: ", helps()[flag])[0]  # the default follows, or what they are for
    named = set(re.split(r", | and | or ", text)) - {"others", "any other of torch's"}
    assert named == known if whole else named < known


def test_named_data_sets_in_the_help_are_the_known_ones() -> None:
    text = words(CliRunner().invoke(app, ["fit", "--help"]).stdout)
    named = re.search(r"named data set: ([^.]+)\.", text)
    assert named is not None
    assert set(named[1].split(", ")) == set(NAMED_SETS)


def test_help_fits_eighty_columns_and_groups_its_options() -> None:
    text = CliRunner().invoke(app, ["fit", "--help"], env={"COLUMNS": "80"}).stdout
    assert max(map(len, text.splitlines())) <= 80
    panels = re.findall(r"^╭─ (\w+) ─", text, re.MULTILINE)
    assert panels == ["Arguments", "Options", "Data", "Model", "Training", "Run"]
    assert "\x1b" not in text
