"""The command ``stoker report``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

import stoker
from stoker.cli import options

__all__ = ["HELP", "report"]

HELP = (
    "Write one HTML file that says all about a run, or compares several.\n\n"
    "It needs nothing else: no server, no network. Metrics have intervals, and there are curves, a confusion matrix "
    "or residuals, calibration, the importance of each column, the most wrong rows or images. The run's own source is "
    "read again for that; if it is gone, the report is made without, and says so."
)


def report(
    runs: Annotated[list[Path], typer.Argument(help="The directories of runs.", metavar="RUN…", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="A new .html file (RUN/report.html).", metavar="FILE", show_default=False),
    ] = None,
    calibrate: Annotated[
        bool,
        typer.Option("--calibrate", help="Fit a temperature on the validation split.", metavar=" ", show_default=False),
    ] = False,
    samples: Annotated[
        int | None, typer.Option(help="Of the bootstrap (1000).", metavar="COUNT", show_default=False)
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(help="Shuffles of each column (5).", metavar="COUNT", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of samples and shuffles (0).", metavar="NUMBER", show_default=False)] = 0,
    model: options.OwnModel = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show no progress.", metavar=" ", show_default=False)
    ] = False,
) -> None:
    """Write a report."""
    given = {name: value for name, value in {"samples": samples, "repeats": repeats}.items() if value is not None}
    with _progress(quiet) as tell:
        path = stoker.report(*runs, out=out, calibrate=calibrate, seed=seed, model=model, progress=tell, **given)
    typer.echo(str(path))


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A line on a terminal that says what is being done; nothing elsewhere."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

    from stoker.cli.show import console, printable

    err = console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(24), MofNCompleteColumn())
    with Progress(*columns, console=err, transient=True, disable=quiet or not err.is_terminal) as shown:
        task = shown.add_task("reading the run", total=None)

        def tell(what: str, done: int, of: int) -> None:
            shown.update(task, description=printable(what), completed=done, total=of)

        yield tell
