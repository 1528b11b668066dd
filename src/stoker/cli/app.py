"""The command line: one function a command, in the order in which they are shown."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from typer.core import TyperCommand

import stoker
from stoker._version import __version__
from stoker.cli import INTERRUPTED, checkup, exporting, failures, options, reporting, serving
from stoker.cli.options import listed
from stoker.cli.tuning import HELP, tune

if TYPE_CHECKING:
    from stoker.data.dataset import Task

__all__ = ["app"]

app = typer.Typer(
    name="stoker",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Command(TyperCommand):
    """A command whose failures are lines and exit codes instead of tracebacks."""

    def invoke(self, ctx: Any) -> Any:
        """Call the command's function; whether its arguments fit has been seen to before."""
        with failures.reported():
            return super().invoke(ctx)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"stoker {__version__}")
        raise typer.Exit


@app.callback(epilog="For a start:\n\n  stoker fit iris\n\n  stoker fit housing.csv --target price --epochs 50")
def stoker_command(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", metavar=" ", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Train, evaluate and use PyTorch networks on tables and images."""


@app.command(
    cls=Command,
    help="Train a network on a table or a set of images, and measure it.\n\n"
    "SOURCE is a file (CSV, TSV, JSON lines, Parquet, Arrow), a folder with a sub-folder of images for each class, or "
    "a named data set: digits, iris, wine, breast-cancer, diabetes, california-housing, covertype, mnist, "
    "fashion-mnist.\n\n"
    "COLUMNS, WIDTHS, WEIGHTS and NAMES have commas between. What stands in brackets is the default. Ctrl-C ends the "
    "training and keeps what is trained.",
    epilog="Every other setting is reached by its name:\n\n"
    "  --set training.min_delta=0.01\n\n"
    "  --set 'data.ignore=[\"a column, with a comma\"]'",
)
def fit(
    source: options.Source,
    target: options.Target = None,
    task: options.Task = None,
    numeric: options.Numeric = None,
    categorical: options.Categorical = None,
    datetime: options.Datetime = None,
    ignore: options.Ignore = None,
    valid: options.Valid = None,
    test: options.Test = None,
    valid_size: options.ValidSize = None,
    test_size: options.TestSize = None,
    group: options.Group = None,
    time: options.Time = None,
    skip_bad: options.SkipBad = None,
    model: options.Model = None,
    model_args: options.ModelArgs = None,
    hidden: options.Hidden = None,
    activation: options.Activation = None,
    dropout: options.Dropout = None,
    norm: options.Norm = None,
    numeric_embedding: options.NumericEmbedding = None,
    wide: options.Wide = None,
    deep: options.Deep = None,
    aux_weight: options.AuxWeight = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    optimizer: options.Optimizer = None,
    lr: options.LearningRate = None,
    momentum: options.Momentum = None,
    weight_decay: options.WeightDecay = None,
    schedule: options.Schedule = None,
    loss: options.Loss = None,
    class_weights: options.ClassWeights = None,
    label_smoothing: options.LabelSmoothing = None,
    clip_norm: options.ClipNorm = None,
    accumulate: options.Accumulate = None,
    ema: options.EMA = None,
    patience: options.Patience = None,
    monitor: options.Monitor = None,
    metrics: options.Metrics = None,
    preset: options.Preset = None,
    seed: options.Seed = None,
    device: options.Device = None,
    precision: options.Precision = None,
    engine: options.Engine = None,
    deterministic: options.Deterministic = None,
    out: options.Out = None,
    config: options.Config = None,
    assignments: options.Assignments = None,
    log: options.Log = None,
    checkpoint_every: options.CheckpointEvery = None,
    keep: options.Keep = 3,
    quiet: options.Quiet = False,
) -> None:
    """Train a network, and show how well it does."""
    from stoker.settings import parse_arguments

    run = stoker.fit(
        source,
        out=out,
        config=config,
        assignments=assignments or (),
        valid=valid,
        test=test,
        progress="none" if quiet else "auto",
        notify=None if quiet else _note,
        log=listed(log) or (),
        checkpoint_every=checkpoint_every,
        keep=keep,
        target=target,
        task=task,
        numeric=listed(numeric),
        categorical=listed(categorical),
        datetime=listed(datetime),
        ignore=listed(ignore),
        valid_size=valid_size,
        test_size=test_size,
        group=group,
        time=time,
        skip_bad=skip_bad,
        model=model,
        model_args=parse_arguments(model_args) if model_args else None,
        hidden=hidden,
        activation=activation,
        dropout=dropout,
        norm=norm,
        numeric_embedding=numeric_embedding,
        wide="all" if wide == ["all"] else listed(wide),
        deep="all" if deep == ["all"] else listed(deep),
        aux_weight=aux_weight,
        epochs=epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        lr=lr,
        momentum=momentum,
        weight_decay=weight_decay,
        schedule=schedule,
        loss=loss,
        class_weights=class_weights,
        label_smoothing=label_smoothing,
        clip_norm=clip_norm,
        accumulate=accumulate,
        ema=ema,
        patience=patience,
        monitor=monitor,
        metrics="auto" if metrics == ["auto"] else listed(metrics),
        preset=preset,
        seed=seed,
        device=device,
        precision=precision,
        engine=engine,
        deterministic=deterministic,
    )
    if os.environ.get("RANK", "0") == "0":  # of several processes, the first one shows
        _show(run, source, quiet)
    if run.stopped == "interrupted":
        raise typer.Exit(INTERRUPTED)


@app.command(cls=Command)
def resume(
    run: options.RunPath,
    epochs: options.AllEpochs = None,
    model: options.OwnModel = None,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Go on with a training that was killed or interrupted, or train a finished run further.

    It comes to the same numbers, bit for bit, as if nothing had happened.
    """
    progress: Any = "none" if quiet else "auto"
    done = stoker.resume(
        run, epochs=epochs, model=model, force=force, progress=progress, notify=None if quiet else _note
    )
    _show(done, done.record.sources["train"].origin, quiet)
    if done.stopped == "interrupted":
        raise typer.Exit(INTERRUPTED)


def _show(run: stoker.Run, source: str, quiet: bool) -> None:
    from stoker.cli import show

    if quiet:
        typer.echo(str(run.path))
    else:
        show.fit_summary(run, source)


app.command(cls=Command, help=HELP)(tune)


@app.command(cls=Command)
def evaluate(
    run: options.RunPath,
    source: options.OtherSource = None,
    model: options.OwnModel = None,
    json: options.Json = False,
) -> None:
    """Measure a trained network, on its own test split or on other data."""
    from stoker.cli import show

    metrics = stoker.load(run, model=model).evaluate(source, notify=_note)
    if json:
        show.metrics_json(metrics)
    else:
        show.metrics_of(metrics)


@app.command(cls=Command)
def predict(
    run: options.RunPath,
    source: options.NewSource,
    model: options.OwnModel = None,
    proba: options.Proba = False,
    top_k: options.TopK = None,
    output: options.Output = None,
) -> None:
    """Predict with a trained network, a row for each row of the source."""
    from stoker.cli import output as files

    if output is not None:
        files.check(output)  # before the work, not after it
    frame = stoker.load(run, model=model).predict(source).frame(proba=proba, top_k=top_k)
    if output is None:
        files.print_csv(frame)
    else:
        files.write(frame, output)


app.command(cls=Command, help=exporting.EXPORT_HELP)(exporting.export)
app.command("import-weights", cls=Command, help=exporting.IMPORT_HELP)(exporting.import_weights)
app.command(cls=Command, help=serving.HELP)(serving.serve)
app.command(cls=Command, help=reporting.HELP)(reporting.report)


@app.command(cls=Command)
def inspect(
    source: options.Source,
    target: options.Target = None,
    task: options.Task = None,
    numeric: options.Numeric = None,
    categorical: options.Categorical = None,
    datetime: options.Datetime = None,
    ignore: options.Ignore = None,
    skip_bad: options.SkipBad = None,
    graph: options.Graph = False,
    model: options.Model = None,
    model_args: options.ModelArgs = None,
    hidden: options.Hidden = None,
    activation: options.Activation = None,
    dropout: options.Dropout = None,
    norm: options.Norm = None,
    numeric_embedding: options.NumericEmbedding = None,
    batch_size: options.BatchSize = None,
    optimizer: options.Optimizer = None,
    loss: options.Loss = None,
    clip_norm: options.ClipNorm = None,
    device: options.Device = None,
    config: options.Config = None,
    assignments: options.Assignments = None,
) -> None:
    """Show what a source holds: what each column is taken as, and why.

    With --graph: the training step that fit would make, with its settings; all others are reached with --set.
    """
    from stoker.cli import show

    columns = {
        "target": target,
        "task": cast("Task | None", task),  # whether it is one is seen to there
        "numeric": listed(numeric),
        "categorical": listed(categorical),
        "datetime": listed(datetime),
        "ignore": listed(ignore),
        "skip_bad": skip_bad,
    }
    training = {
        "model": model,
        "model_args": model_args,
        "hidden": hidden,
        "activation": activation,
        "dropout": dropout,
        "norm": norm,
        "numeric_embedding": numeric_embedding,
        "batch_size": batch_size,
        "optimizer": optimizer,
        "loss": loss,
        "clip_norm": clip_norm,
        "device": device,
    }
    if graph:
        from stoker.settings import parse_arguments

        training["model_args"] = parse_arguments(model_args) if model_args else None
        found = stoker.explain(
            source, config=config, assignments=assignments or (), notify=_note, **columns, **training
        )
        show.explanation(found)
        return
    _refuse({**training, "config": config, "assignments": assignments})
    given: dict[str, Any] = {name: value for name, value in columns.items() if value is not None}
    show.inspection(stoker.inspect(source, **given))


app.command(cls=Command, help=checkup.HELP)(checkup.doctor)


def _refuse(training: dict[str, Any]) -> None:
    """Settings of a training mean nothing where columns alone are looked at."""
    from stoker.errors import ConfigError

    for name, value in training.items():
        if value is not None:
            flag = {"model_args": "model-arg", "assignments": "set"}.get(name, name.replace("_", "-"))
            raise ConfigError(f"--{flag}", "is for the training step", "no --graph", "Add --graph, or leave it out.")


def _note(text: str) -> None:
    failures.say("note", text, "yellow")
