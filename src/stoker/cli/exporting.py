"""The commands ``stoker export`` and ``stoker import-weights``, and what they show."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

import stoker
from stoker.cli import failures, options
from stoker.cli.options import listed

if TYPE_CHECKING:
    from rich.table import Table as Grid

    from stoker.exporting.importing import Imported
    from stoker.exporting.job import Exported

__all__ = ["EXPORT_HELP", "IMPORT_HELP", "export", "import_weights"]

EXPORT_HELP = (
    "Write a trained network as a file for other programs, checked against the network.\n\n"
    "FORMATS, with commas between: onnx, torch-export, aoti, torchscript-trace, torchscript-script, state-dict, "
    "safetensors; or all. The encoder is in the file, so that raw numbers and category codes go in; the JSON beside it "
    "says which. What stands in brackets is the default.\n\n"
    "The file is loaded again in a fresh process and compared with the network, row by row; if a number or a top class "
    "differs, there is no file."
)
IMPORT_HELP = (
    "Put weights that were trained elsewhere into a run's network, as a new run.\n\n"
    "FILE is a state dict in a .pt or .pth file, of which nothing is run, or safetensors. The run itself is left alone."
)


def _option(text: str, metavar: str | None = None, *names: str, **how: Any) -> Any:
    return typer.Option(*names, help=text, metavar=metavar, show_default=False, **how)


def export(
    run: options.RunPath,
    formats: Annotated[list[str] | None, _option("In which formats (onnx).", "FORMATS", "--format", "-f")] = None,
    out: Annotated[Path | None, _option("The file, or a directory (RUN/exports).", "PATH", "--out", "-o")] = None,
    optimize: Annotated[bool, _option("Make it faster: onnx, torchscript.", " ", "--optimize")] = False,
    quantize: Annotated[str | None, _option("int8: 8-bit numbers; onnx.", "TYPE", "--quantize")] = None,
    rows: Annotated[str | None, _option("Rows to compare on (the run's own).", "SOURCE", "--rows")] = None,
    bench: Annotated[bool, _option("Measure how fast it is.", " ", "--bench/--no-bench")] = True,
    overwrite: Annotated[bool, _option("Replace files that are there.", " ", "--overwrite")] = False,
    verbose: Annotated[bool, _option("If it fails, show all that the exporter said.", " ", "--verbose")] = False,
    model: options.OwnModel = None,
) -> None:
    """Write a trained network as a file for other programs."""
    from stoker.errors import ExportError

    names = listed(formats) or ("onnx",)
    try:
        done = stoker.export(
            stoker.load(run, device="cpu", model=model),
            names[0] if len(names) == 1 and names[0] != "all" else names,
            out=out,
            optimize=optimize,
            quantize=cast("Any", quantize),  # whether it is one is seen to there
            rows=rows,
            bench=bench,
            overwrite=overwrite,
            notify=_note,
        )
    except ExportError as error:
        if verbose and error.log:
            typer.echo(error.log, err=True)
        raise
    for refused in done.refused.values():
        if verbose and isinstance(refused, ExportError) and refused.log:
            typer.echo(refused.log, err=True)
        failures.say("error", str(refused), "bold red")
    _show(done)
    if done.refused:
        raise typer.Exit(failures.FAILED)


def import_weights(
    file: Annotated[Path, typer.Argument(help="The weights: .pt, .pth or .safetensors.", metavar="FILE")],
    run: Annotated[Path, _option("The run whose network they are for.", "RUN", "--run")],
    out: Annotated[Path | None, _option("The new run (runs/NAME-TIME).", "DIR", "--out")] = None,
    partial: Annotated[bool, _option("Take what fits, keep the run's for the rest.", " ", "--partial")] = False,
    model: options.OwnModel = None,
) -> None:
    """Put weights that were trained elsewhere into a run's network."""
    _show_imported(stoker.import_weights(file, run, out=out, partial=partial, model=model, notify=_note))


def _show(done: Exported) -> None:
    """The files, how far each is from the model, and how fast."""
    from rich.text import Text

    from stoker.cli.show import console, printable

    out = console()
    out.print()
    if done.files:
        out.print(_table(done))
        out.print()
    for file in done.files:
        compared = "every tensor is the network's, bit for bit"
        if file.rows:
            first = "as int8, " if file.metrics else ""
            compared = f"{first}{file.rows} rows in batches of 1, 2, 7, 64 differ by {file.difference:.2g} at most"
        facts = {"File": str(file.path), "": compared}
        if file.metrics:
            (name, before), after = next(iter(file.metrics["before"].items())), file.metrics["after"]
            facts["int8"] = f"{name} {before:.5g} before, {after[name]:.5g} after"
        for label, text in facts.items():
            out.print(Text.assemble((f"{label:<10}", "bold"), printable(text)), soft_wrap=True)
    notes = [f"{timing.name} was not measured: {timing.note}" for timing in done.baselines if timing.note]
    for note in notes:
        out.print(Text(printable(note), "dim"), soft_wrap=True)


def _table(done: Exported) -> Grid:
    """A row a file, and below them the model itself; what is fastest here is in bold."""
    from rich.text import Text

    from stoker.cli.show import plain_grid

    timings = [file.timing for file in done.files] + [one for one in done.baselines if not one.note]
    table = plain_grid(
        "", "size", "load", "one row", "rows/s at 256", right=("size", "load", "one row", "rows/s at 256")
    )
    fastest = {
        "latency": min((one.latency for one in timings), key=_or_infinite),
        "throughput": max((one.throughput for one in timings), key=lambda value: -_or_infinite(-value)),
    }
    for one in timings:
        cells = [
            Text(_size(one.bytes)),
            Text(_time(one.load)),
            Text(_time(one.latency), "bold" if one.latency == fastest["latency"] else ""),
            Text(
                "–" if math.isnan(one.throughput) else f"{one.throughput:,.0f}",
                "bold" if one.throughput == fastest["throughput"] else "",
            ),
        ]
        table.add_row(Text(one.name), *cells)
    return table


def _or_infinite(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _size(count: int) -> str:
    if not count:
        return "–"
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def _time(seconds: float) -> str:
    if math.isnan(seconds):
        return "–"
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} µs"


def _show_imported(done: Imported) -> None:
    from rich.text import Text

    from stoker.cli.show import console, metrics_by_split, printable

    out = console()
    place = shlex.quote(str(done.run.path))
    out.print()
    if done.run.metrics:
        out.print(metrics_by_split(done.run.metrics))
        out.print()
    for label, text in {"Run": str(done.run.path), "Next": f"stoker evaluate {place}"}.items():
        out.print(Text.assemble((f"{label:<10}", "bold"), printable(text)), soft_wrap=True)


def _note(text: str) -> None:
    failures.say("note", text, "yellow")
