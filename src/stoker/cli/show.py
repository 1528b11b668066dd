"""What the commands show on the standard output: tables that can be read in a terminal, a pipe and a log."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from stoker.data.dataset import ImageSet
from stoker.training.progress_text import duration, number

if TYPE_CHECKING:
    from stoker import Explanation, Inspection, Run
    from stoker.data.schema import Column, Schema, Target
    from stoker.training.history import History

__all__ = [
    "best_epoch",
    "console",
    "explanation",
    "fit_summary",
    "how_it_ended",
    "inspection",
    "metrics_by_split",
    "metrics_json",
    "metrics_of",
    "plain_grid",
    "printable",
]

LISTED_CLASSES = 12


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # rich would end the program


def console(*, stderr: bool = False) -> Console:
    """The standard output or error: colours only on a terminal without ``NO_COLOR``; no markup is read into names."""
    return _Console(stderr=stderr, highlight=False, markup=False, emoji=False)


def printable(text: str) -> str:
    r"""One line, with nothing in it that would move a terminal's cursor: ``\x1b`` and its like are spelt out."""
    parts = (part if part.isprintable() else " " if part in "\n\r\t" else ascii(part)[1:-1] for part in text)
    return "".join(parts)


def fit_summary(run: Run, source: str) -> None:
    """A run that has just been made: how good it is, how it ended, where it is, and what to do next.

    Args:
        run: The run.
        source: What it was trained on, as the user wrote it.
    """
    out = console()
    out.print()
    out.print(metrics_by_split(run.metrics))
    out.print()
    place = shlex.quote(str(run.path))
    name = str(run.config.model["name"])
    named = f" --model {shlex.quote(name)}" if ":" in name else ""  # one of the user's own
    facts = {
        "Training": [how_it_ended(run.history)],
        "Best": [best] if (best := best_epoch(run.history)) else [],
        "Engine": [] if run.stopped == "imported" else [run.record.training.engine_reason],
        "Run": [str(run.path)],
        "Pictures": [str(figure) for figure in run.figures],
        "Next": [
            *([f"stoker resume {place}{named}"] if run.stopped == "interrupted" else []),
            f"stoker evaluate {place}{named}",
            f"stoker report {place}{named}",
            f"stoker predict {place} {shlex.quote(source)}{named} -o predictions.csv",
        ],
    }
    for name, texts in facts.items():
        for index, text in enumerate(texts):
            label = "" if index else name
            out.print(Text.assemble((f"{label:<10}", "bold"), printable(text)), soft_wrap=True)


def how_it_ended(history: History) -> str:
    """Why a training ended, in words."""
    if history.stopped == "imported":
        return "none: the weights were imported"
    after = f"after {len(history)} epoch{'' if len(history) == 1 else 's'} in {duration(history.seconds)}"
    return {
        "finished": f"finished {after}",
        "patience": f"stopped early {after}: no gain for as many as --patience allows",
        "interrupted": f"interrupted by Ctrl-C {after}; what was learnt is kept",
    }.get(history.stopped, f"ended {after} ({history.stopped})")


def best_epoch(history: History) -> str:
    """Which epoch's weights were kept and by what; empty if none was better than another."""
    if history.monitor is None or history.monitor not in history.best:
        return ""
    value = number(history.best[history.monitor])
    return f"epoch {history.best_epoch}, whose weights are kept ({history.monitor} {value})"


def metrics_of(metrics: Mapping[str, float]) -> None:
    """The metrics of one split, as a table."""
    console().print(metrics_by_split({"value": metrics}))


def metrics_json(metrics: Mapping[str, float]) -> None:
    """Metrics as JSON, with ``null`` where one is not defined."""
    finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
    console().print(json.dumps(finite, indent=2), soft_wrap=True)


def metrics_by_split(metrics: Mapping[str, Mapping[str, float]]) -> Grid:
    """A row a metric, a column a split."""
    grid = plain_grid("", *metrics, right=list(metrics))
    for name in dict.fromkeys(name for split in metrics.values() for name in split):
        values = [number(split[name]) if name in split else "" for split in metrics.values()]
        grid.add_row(Text(printable(name)), *values)
    return grid


def inspection(found: Inspection) -> None:
    """What a source holds: its columns, or its classes of images."""
    out = console()
    data = found.dataset
    name = printable(data.provenance.name)
    held_back = f", and {len(data.test):,} for testing" if data.test is not None else ""
    if isinstance(data, ImageSet):
        out.print(_images_title(name, data, held_back))
        out.print()
        out.print(_classes(data))
    else:
        out.print(Text.assemble((name, "bold"), f": {len(data):,} rows of {data.frame.width:,} columns{held_back}"))
        if found.schema is not None:
            out.print()
            out.print(_columns(found.schema, out.width))
            if found.schema.target is not None:
                out.print()
                out.print(_target(found.schema.target))
    for notice in found.notices:
        out.print()
        out.print(Text.assemble(("note: ", "yellow"), printable(notice)), soft_wrap=True)


def explanation(found: Explanation) -> None:
    """A training step: its operators one by one, then by kind, with what keeps it from being compiled."""
    out = console()
    for line in [*found.graph.splitlines(), *([""] if found.graph else []), *str(found).splitlines()]:
        out.print(printable(line), soft_wrap=True)


def _images_title(name: str, data: ImageSet, held_back: str) -> Text:
    _, channels, height, width = data.images.shape
    colours = "one channel" if channels == 1 else f"{channels} channels"
    title = Text.assemble((name, "bold"), f": {len(data):,} images{held_back}; {width} x {height} pixels, {colours}")
    if data.skipped:
        title.append(f"; unreadable and left out: {len(data.skipped):,}")
    return title


def _classes(data: ImageSet) -> Grid | Text:
    """A row a class, with its number of images."""
    if data.labels is None:
        return Text("There are no labels.")
    splits = {"images": data.labels} | (
        {} if data.test is None or data.test.labels is None else {"test": data.test.labels}
    )
    counts = [labels.bincount(minlength=len(data.classes)).tolist() for labels in splits.values()]
    grid = plain_grid("class", *splits, right=list(splits))
    for name, *row in zip(data.classes, *counts, strict=True):
        grid.add_row(Text(printable(name)), *(f"{count:,}" for count in row))
    return grid


def _columns(schema: Schema, width: int) -> Grid:
    """A row a column. Where the width does not do for the reason it goes below, with the example behind it."""
    rows = [_column_texts(column) for column in schema.columns]
    names = ("column", "kind", "dtype", "missing", "distinct", "example", "reason")
    widths = [max(cell_len(text) for text in texts) for texts in zip(names, *rows, strict=True)]
    if sum(widths) + 2 * len(widths) <= width:
        grid = plain_grid(*names, right=("missing", "distinct"))
        for row, column in zip(rows, schema.columns, strict=True):
            grid.add_row(*(Text(text) for text in row), style=_row_style(column))
        return grid
    kind, dtype, missing, distinct = widths[1:5]
    heading = f"{'kind':<{kind}}  {'dtype':<{dtype}}  {'missing':>{missing}}  {'distinct':>{distinct}}"
    grid = plain_grid("column", heading)
    grid.columns[0].max_width = max(width - len(heading) - 4, 12)  # a longer name is folded instead of the figures
    for row, column in zip(rows, schema.columns, strict=True):
        figures = f"{row[1]:<{kind}}  {row[2]:<{dtype}}  {row[3]:>{missing}}  {row[4]:>{distinct}}\n"
        example = f"'{row[5]}'" if row[2] == "String" else row[5]
        such_as = f", such as {example}" if row[5] and row[5] not in row[6] else ""
        grid.add_row(Text(row[0]), Text.assemble(figures, (f"{row[6]}{such_as}", "dim")), style=_row_style(column))
    return grid


def _column_texts(column: Column) -> tuple[str, ...]:
    dtype = column.dtype.partition("(")[0]  # a Datetime's unit and zone would take half a line
    counts = f"{column.missing:,}", f"{column.distinct:,}"
    return tuple(printable(text) for text in (column.name, column.kind, dtype, *counts, column.example, column.reason))


def _row_style(column: Column) -> str:
    return "dim" if column.kind == "ignored" else ""


def _target(target: Target) -> Grid:
    """What is to be learnt: its name, the task and why, the classes."""
    missing = f"; rows without it, which are left out: {target.missing:,}" if target.missing else ""
    more = len(target.classes) - LISTED_CLASSES
    classes = ", ".join(target.classes[:LISTED_CLASSES]) + (f" and {more:,} more" if more > 0 else "")
    facts = {"Target": target.name, "Task": f"{target.task} ({target.reason}){missing}", "Classes": classes}
    grid = plain_grid("", "")
    grid.show_header = False
    for name, text in facts.items():
        if text:
            grid.add_row(Text(f"{name:<8}", "bold"), Text(printable(text)))
    return grid


def plain_grid(*names: str, right: Sequence[str] = ()) -> Grid:
    """A table without lines, so that nothing of it breaks in a log or another program."""
    grid = Grid(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for name in names:
        grid.add_column(Text(name), justify="right" if name in right else "left", overflow="fold")
    return grid
