"""The arguments and options of the commands: how each is written, read and explained.

Defaults live in :mod:`stoker.jobs.config`, which is not imported here for the sake of a quick ``--help``: an option
that is not given is ``None``. The defaults and names in the help texts are compared with the truth by a test.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["listed"]

DATA, MODEL, TRAINING, RUN = "Data", "Model", "Training", "Run"


def listed(values: Iterable[str] | None) -> tuple[str, ...] | None:
    """``["a,b", "c"]``, as options that may be repeated give them, to ``("a", "b", "c")``; none at all to ``None``."""
    names = [name.strip() for value in values or () for name in value.split(",")]
    return tuple(name for name in names if name) or None


def whole_numbers(text: str) -> tuple[int, ...]:
    """``"50,40"`` to ``(50, 40)``."""
    try:
        return tuple(int(part) for part in text.strip("[]()").split(","))
    except ValueError:
        raise typer.BadParameter(f"must be whole numbers with commas between, such as 50,40, got {text!r}.") from None


def number_or_count(text: str) -> float | int:
    """``"0.2"`` to a fraction, ``"500"`` to a count of rows."""
    try:
        return int(text) if re.fullmatch(r"\s*[+-]?\d+\s*", text) else float(text)
    except ValueError:
        raise typer.BadParameter(f"must be a fraction such as 0.2 or a number of rows, got {text!r}.") from None


def rate(text: str) -> float | str:
    """``"auto"`` as it is, ``"0.01"`` to a number."""
    try:
        return text if text == "auto" else float(text)
    except ValueError:
        raise typer.BadParameter(f"must be a number such as 0.01, or auto, got {text!r}.") from None


def weights(text: str) -> str | tuple[float, ...]:
    """``"balanced"`` as it is, ``"1,2.5"`` to ``(1.0, 2.5)``."""
    if text == "balanced":
        return text
    try:
        return tuple(float(part) for part in text.strip("[]()").split(","))
    except ValueError:
        rule = f"must be 'balanced' or one number a class with commas between, such as 1,2.5, got {text!r}."
        raise typer.BadParameter(rule) from None


def _option(help: str, panel: str | None, metavar: str | None = None, *names: str, **how: Any) -> Any:  # noqa: A002
    return typer.Option(*names, help=help, rich_help_panel=panel, metavar=metavar, show_default=False, **how)


def _argument(help: str, metavar: str) -> Any:  # noqa: A002
    return typer.Argument(help=help, metavar=metavar, show_default=False)


def _flag(help: str, panel: str | None, *names: str) -> Any:  # noqa: A002
    return typer.Option(*names, help=help, rich_help_panel=panel, metavar=" ", show_default=False)


Source = Annotated[str, _argument("A file, a folder or a named data set.", "SOURCE")]
OtherSource = Annotated[str | None, _argument("Data of the same columns (its own test split).", "SOURCE")]
NewSource = Annotated[str, _argument("Data of the same columns, target or not.", "SOURCE")]
OwnModel = Annotated[str | None, _option("The run's, if of your own: package.module:Class.", None, "NAME", "--model")]
RunPath = Annotated[Path, _argument("The directory of a run.", "RUN")]

# What the data are.
Target = Annotated[str | None, _option("What to predict; named data sets know theirs.", DATA, "COLUMN")]
Task = Annotated[str | None, _option("regression, binary, multiclass (guessed).", DATA, "NAME")]
Numeric = Annotated[list[str] | None, _option("Columns to take as numbers.", DATA, "COLUMNS")]
Categorical = Annotated[list[str] | None, _option("Columns to take as categories.", DATA, "COLUMNS")]
Datetime = Annotated[list[str] | None, _option("Columns to take as points in time.", DATA, "COLUMNS")]
Ignore = Annotated[list[str] | None, _option("Columns to leave out.", DATA, "COLUMNS")]
SkipBad = Annotated[bool | None, _flag("Leave unreadable images out, do not stop.", DATA, "--skip-bad")]

# How they are split.
Valid = Annotated[str | None, _option("Data to validate on (rows held back).", DATA, "SOURCE")]
Test = Annotated[str | None, _option("Data to test on (rows held back).", DATA, "SOURCE")]
ValidSize = Annotated[
    Any, _option("Share or number of rows to validate on (0.2).", DATA, "SIZE", parser=number_or_count)
]
TestSize = Annotated[Any, _option("Share or number of rows to test on (0.2).", DATA, "SIZE", parser=number_or_count)]
Group = Annotated[str | None, _option("Rows of the same value stay in one split.", DATA, "COLUMN")]
Time = Annotated[str | None, _option("Validate and test on the latest rows by this.", DATA, "COLUMN")]

# What is trained.
Model = Annotated[
    str | None,
    _option("linear, mlp, resnet, wide-deep, cnn or package.module:Class (mlp; for images cnn).", MODEL, "NAME"),
]
ModelArgs = Annotated[
    list[str] | None, _option("For a class of your own; may be repeated.", MODEL, "NAME=VALUE", "--model-arg")
]
Hidden = Annotated[Any, _option("Of the hidden layers, such as 50,40.", MODEL, "WIDTHS", parser=whole_numbers)]
Activation = Annotated[str | None, _option("relu, gelu, silu, tanh and others (relu).", MODEL, "NAME")]
Dropout = Annotated[float | None, _option("Share of hidden outputs to drop (0).", MODEL, "SHARE")]
Norm = Annotated[str | None, _option("none, batch, layer (the model's own).", MODEL, "NAME")]
NumericEmbedding = Annotated[str | None, _option("none, piecewise-linear, periodic (none).", MODEL, "NAME")]
Wide = Annotated[list[str] | None, _option("Of wide-deep: straight to the output (all).", MODEL, "COLUMNS")]
Deep = Annotated[list[str] | None, _option("Of wide-deep: through hidden layers (all).", MODEL, "COLUMNS")]
AuxWeight = Annotated[float | None, _option("Of wide-deep: share of an auxiliary loss (0).", MODEL, "SHARE")]

# How.
Epochs = Annotated[int | None, _option("Passes over the training data (20).", TRAINING, "COUNT")]
BatchSize = Annotated[int | None, _option("Rows in a step (32).", TRAINING, "COUNT")]
Optimizer = Annotated[str | None, _option("sgd, adam, any other of torch's (adamw).", TRAINING, "NAME")]
LearningRate = Annotated[
    Any, _option("A rate, or auto to look for one (the optimizer's own).", TRAINING, "RATE", "--lr", parser=rate)
]
Momentum = Annotated[float | None, _option("For optimizers that have it.", TRAINING, "NUMBER")]
WeightDecay = Annotated[float | None, _option("For optimizers that have it.", TRAINING, "NUMBER")]
Schedule = Annotated[
    str | None,
    _option("constant, cosine, linear, one-cycle, exponential, step, plateau (constant).", TRAINING, "NAME"),
]
Loss = Annotated[str | None, _option("mse, mae, huber, cross-entropy (the task's).", TRAINING, "NAME")]
ClassWeights = Annotated[Any, _option("balanced, or one for each class: 1,2.5.", TRAINING, "WEIGHTS", parser=weights)]
LabelSmoothing = Annotated[float | None, _option("Share of a label to spread over all (0).", TRAINING, "SHARE")]
ClipNorm = Annotated[float | None, _option("Largest norm of the gradients.", TRAINING, "NORM")]
Accumulate = Annotated[int | None, _option("Batches that make one update together (1).", TRAINING, "COUNT")]
EMA = Annotated[float | None, _option("Decay of an average of the weights, to keep.", TRAINING, "DECAY", "--ema")]
Patience = Annotated[int | None, _option("Stop after so many epochs without a gain.", TRAINING, "COUNT")]
Monitor = Annotated[str | None, _option("What tells the best epoch (valid_loss).", TRAINING, "NAME")]
Metrics = Annotated[list[str] | None, _option("What to measure, such as accuracy,f1.", TRAINING, "NAMES")]

# Where, and whereto.
Preset = Annotated[str | None, _option("best: a strong model of a table.", RUN, "NAME")]
Seed = Annotated[int | None, _option("Of all that is random (0).", RUN, "NUMBER")]
Device = Annotated[str | None, _option("auto, cpu, cuda, cuda:1, mps, xpu (auto).", RUN, "NAME")]
Precision = Annotated[str | None, _option("32 or bf16 (32).", RUN, "NAME")]
Engine = Annotated[str | None, _option("auto, eager or compiled (auto).", RUN, "NAME")]
Deterministic = Annotated[bool | None, _flag("Use deterministic algorithms only.", RUN, "--deterministic")]
Out = Annotated[Path | None, _option("A new directory (runs/NAME-TIME).", RUN, "DIR")]
Config = Annotated[Path | None, _option("Settings in TOML; options override them.", RUN, "FILE")]
Assignments = Annotated[list[str] | None, _option("Any setting; may be repeated.", RUN, "A.B=C", "--set")]
Log = Annotated[list[str] | None, _option("tensorboard, mlflow: follow the training there.", RUN, "NAMES")]
CheckpointEvery = Annotated[
    str | None, _option("A checkpoint each 1epoch, 500steps, 2min (1min).", RUN, "SPAN", "--checkpoint-every")
]
Keep = Annotated[int, _option("How many checkpoints remain (3).", RUN, "COUNT")]
Quiet = Annotated[bool, _flag("Print the run's path and errors only.", RUN, "--quiet", "-q")]

# Going on.
AllEpochs = Annotated[int | None, _option("In all, to train a finished run further.", None, "COUNT", "--epochs")]
Force = Annotated[bool, _flag("Go on with other versions than before; numbers may differ.", None, "--force")]

# What is shown.
Graph = Annotated[bool, _flag("Show what fit's training step consists of.", None, "--graph")]
Json = Annotated[bool, _flag("Print JSON instead of a table.", None, "--json")]
Proba = Annotated[bool, _flag("Add the probability of each class.", None, "--proba")]
TopK = Annotated[int | None, _option("Add the K most probable classes.", None, "K", "--top-k")]
Output = Annotated[
    Path | None,
    _option("A new .csv, .parquet or .jsonl (CSV to stdout).", None, "FILE", "--output", "-o"),
]
