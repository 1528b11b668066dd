"""The command ``stoker tune``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

import stoker
from stoker.cli import INTERRUPTED, failures, options
from stoker.cli.options import listed

if TYPE_CHECKING:
    from stoker.tuning.tune import TuneResult

__all__ = ["HELP", "tune"]

HELP = (
    "Look for good settings: a study of many trials, then the best one trained anew and tested.\n\n"
    "The same command goes on with a study that was interrupted, however it was, and joins one that runs, from other "
    "machines too if --storage is a PostgreSQL database. Settings that are given are fixed; what is tried stands in "
    "the table \\[space] of --config, and is else a good choice for the model.\n\n"
    "What stands in brackets is the default."
)
STUDY = "Study"


def _option(text: str, metavar: str | None = None, *names: str, **how: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=STUDY, metavar=metavar, show_default=False, **how)


def tune(
    source: Annotated[
        str | None, typer.Argument(help="A file, a folder or a named data set.", metavar="SOURCE", show_default=False)
    ] = None,
    trials: Annotated[int | None, _option("How many in all (50).", "COUNT")] = None,
    more: Annotated[int | None, _option("So many more than were planned.", "COUNT")] = None,
    timeout: Annotated[float | None, _option("Begin no trial after so long.", "SECONDS")] = None,
    metric: Annotated[str | None, _option("What compares trials, on the validation split (loss).", "NAME")] = None,
    direction: Annotated[str | None, _option("minimize or maximize (the metric's).", "NAME")] = None,
    sampler: Annotated[str, _option("tpe, random, cmaes, grid, gp (tpe).", "NAME")] = "tpe",
    pruner: Annotated[str | None, _option("median, hyperband, asha, none (median).", "NAME")] = None,
    study_name: Annotated[str | None, _option("Its name (the source's, and -tune).", "NAME")] = None,
    storage: Annotated[str | None, _option("A database (a file in the study's directory).", "URL")] = None,
    workers: Annotated[int, _option("How many processes run trials (1).", "COUNT")] = 1,
    threads: Annotated[str, _option("Threads of each (auto: the cores, shared out).", "COUNT")] = "auto",
    batch_trials: Annotated[int, _option("How many each of them trains as one program (1).", "COUNT")] = 1,
    refit: Annotated[bool, _option("Train the best settings anew, and test them.", " ", "--refit/--no-refit")] = True,
    refit_seeds: Annotated[int, _option("How many networks; several are an ensemble (1).", "COUNT")] = 1,
    show: Annotated[Path | None, _option("Show a study's directory instead.", "STUDY", "--show")] = None,
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
    hidden: options.Hidden = None,
    activation: options.Activation = None,
    dropout: options.Dropout = None,
    norm: options.Norm = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    optimizer: options.Optimizer = None,
    lr: options.LearningRate = None,
    weight_decay: options.WeightDecay = None,
    schedule: options.Schedule = None,
    patience: options.Patience = None,
    preset: options.Preset = None,
    seed: options.Seed = None,
    device: options.Device = None,
    out: Annotated[Path | None, _option("The study's directory (runs/STUDY-NAME).", "DIR", "--out")] = None,
    config: Annotated[Path | None, _option("Settings, and the \\[space], in TOML.", "FILE", "--config")] = None,
    assignments: options.Assignments = None,
    quiet: options.Quiet = False,
) -> None:
    """Look for good settings."""
    from stoker.cli.studies import show_study, tune_summary

    if show is not None:
        show_study(show, storage, study_name)
        return
    if source is None:
        raise typer.BadParameter("Missing argument 'SOURCE'.")
    if trials is not None and more is not None:
        raise typer.BadParameter("--trials is the total and --more adds to it: say one of them.")
    result: TuneResult = stoker.tune(
        source,
        trials=50 if trials is None else trials,
        more=more,
        timeout=timeout,
        metric=metric,
        direction=cast("Any", direction),  # whether it is one is seen to there
        sampler=sampler,
        pruner=pruner,
        study_name=study_name,
        storage=storage,
        workers=workers,
        threads=cast("Any", int(threads) if threads.isdecimal() else threads),  # likewise
        batch_trials=batch_trials,
        out=out,
        refit=refit,
        refit_seeds=refit_seeds,
        valid=valid,
        test=test,
        config=config,
        assignments=assignments or (),
        seed=seed,
        progress="none" if quiet else "auto",
        notify=None if quiet else lambda text: failures.say("note", text, "yellow"),
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
        hidden=hidden,
        activation=activation,
        dropout=dropout,
        norm=norm,
        epochs=epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        lr=lr,
        weight_decay=weight_decay,
        schedule=schedule,
        patience=patience,
        preset=preset,
        device=device,
    )
    if quiet:
        made = result.run or result.ensemble
        typer.echo(str(result.path if made is None else made.path))
    else:
        tune_summary(result, shlex.quote(source))
    if result.ending == "interrupted":
        raise typer.Exit(INTERRUPTED)
