"""Several runs beside each other, and what of them cannot be compared."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from stoker.errors import StokerError
from stoker.metrics.registry import direction
from stoker.reporting.bootstrap import interval
from stoker.reporting.html import pictures, tables
from stoker.reporting.html.measured import Measured
from stoker.reporting.html.parts import Part
from stoker.reporting.html.pictures import Key, Picture
from stoker.reporting.html.sections import recipe_of
from stoker.reporting.html.tables import Cell, Grid, value_cell
from stoker.training.progress_text import duration, number

if TYPE_CHECKING:
    from stoker.jobs.run import Run

__all__ = ["comparison"]

_MOST_DIFFERENCES = 60


def comparison(runs: dict[str, Run], measured: dict[str, Measured]) -> tuple[list[Part], list[str]]:
    """Compare runs.

    Args:
        runs: By name, as they are called in the report.
        measured: Likewise.

    Returns:
        What is shown, and what the reader should know: what could not be compared, and why.
    """
    recipes = {name: recipe_of(run) for name, run in runs.items()}
    aims = {name: (recipe.task, recipe.target, recipe.classes) for name, recipe in recipes.items()}
    notes: list[str] = []
    parts = []
    if len(set(aims.values())) > 1:
        listed = "; ".join(f"{name}: {task} of {target}" for name, (task, target, _) in aims.items())
        alike = len({(task, target) for task, target, _ in aims.values()}) == 1
        what = "know different classes" if alike else "are for different tasks"
        notes.append(f"The runs {what} ({listed}). Their metrics and curves are not set beside each other.")
    else:
        split = _common_split(runs)
        if split is None:
            notes.append("The runs have no split in common; their metrics are not set beside each other.")
        else:
            parts.append(_metrics(runs, measured, split, notes))
        parts.append(_curves(runs, notes))
    parts.append(Part("What differs", grids=_differences(runs)))
    return parts, notes


def _common_split(runs: dict[str, Run]) -> str | None:
    return next(
        (name for name in ("test", "valid", "train") if all(name in run.metrics for run in runs.values())), None
    )


def _metrics(runs: dict[str, Run], measured: dict[str, Measured], split: str, notes: list[str]) -> Part:
    first = next(iter(runs))
    paired = {name for name in runs if name != first and _same_rows(runs, measured, first, name, split)}
    if other := [name for name in runs if name != first and name not in paired]:
        whom = ", ".join(other)
        why = "differ" if all(split in measured[name].splits for name in runs) else "could not be read for all of them"
        notes.append(f"The rows of the {split} split {why}: compare {whom} with {first} with care.")
    names = list(dict.fromkeys(metric for run in runs.values() for metric in run.metrics[split]))
    body: list[list[Cell]] = []
    drawn: list[Picture | None] = []
    for metric in names:
        values = {name: run.metrics[split].get(metric, math.nan) for name, run in runs.items()}
        intervals = {name: _interval(measured[name], split, metric) for name in runs}
        best = _best(metric, values) if metric != "loss" or _one_criterion(runs) else None
        cells = []
        for name, value in values.items():
            cell = value_cell(value, intervals[name])
            cells.append(Cell(cell.says, cell.below, f"{cell.css} best" if name == best else cell.css))
        body.append([Cell(metric), *cells])
        if paired and metric != "loss":
            row = [
                _difference(measured, first, name, split, metric, values) if name in paired else Cell("")
                for name in runs
            ]
            if any(cell.says for cell in row):
                body.append([Cell(f"{metric}, less {first}'s", css="sub"), *row])
        if metric != "loss" and len(drawn) < 4:
            ends = [
                (name, f"s{place % pictures.SERIES}", values[name],
                 math.nan if intervals[name] is None else intervals[name].low,
                 math.nan if intervals[name] is None else intervals[name].high)
                for place, name in enumerate(runs)
            ]  # fmt: skip
            drawn.append(pictures.dots_chart(metric, ends))
    text = f"On the {split} split. The best value of a row is in bold; intervals are as explained below."
    if paired:
        text += (
            " Where the rows are the same, differences are taken sample by sample: they tell two runs apart that "
            "intervals one by one do not. One that includes 0 may be chance."
        )
    if not _one_criterion(runs):
        text += " The losses are of different criteria, and not comparable."
    grid = Grid(f"Metrics on the {split} split, by run", ["", *runs], body)
    return Part("Metrics", text, [one for one in drawn if one is not None], [grid])


def _interval(found: Measured, split: str, metric: str) -> Any:
    return found.splits[split].intervals.get(metric) if split in found.splits else None


def _best(metric: str, values: dict[str, float]) -> str | None:
    finite = {name: value for name, value in values.items() if math.isfinite(value)}
    if len(finite) < 2 or len(set(finite.values())) == 1:
        return None
    try:
        choose = min if direction(metric) == "min" else max
    except StokerError:
        return None
    return choose(finite, key=lambda name: finite[name])


def _difference(
    measured: dict[str, Measured], first: str, name: str, split: str, metric: str, values: dict[str, float]
) -> Cell:
    mine, its = (measured[one].splits[split].samples.get(metric) for one in (name, first))
    if mine is None or its is None or len(mine) != len(its):
        return Cell("")
    one, value = interval(mine - its), values[name] - values[first]
    if one is None or not math.isfinite(value):
        return Cell("")
    sign = "+" if value > 0 else ""
    below = f"{number(one.low, 3)} to {number(one.high, 3)}".replace("-", "−")
    return Cell(f"{sign}{number(value, 3)}".replace("-", "−"), below, "num sub")


def _same_rows(runs: dict[str, Run], measured: dict[str, Measured], first: str, name: str, split: str) -> bool:
    """Whether two runs were measured on the same rows, in the same order."""
    mine, its = (measured[one].splits.get(split) for one in (name, first))
    if mine is None or its is None or not np.array_equal(mine.rows, its.rows):
        return False
    keys = [runs[one].record.sources for one in (name, first)]
    source = [key.get(split, key.get("train")) for key in keys]  # type: ignore[call-overload]
    return None not in source and source[0].fingerprint == source[1].fingerprint


def _one_criterion(runs: dict[str, Run]) -> bool:
    training = [run.config.training for run in runs.values()]
    scaled = {run.config.data.scale_target for run in runs.values()}
    return len(scaled) == 1 and len({(one.loss, str(one.class_weights), one.label_smoothing) for one in training}) == 1


def _curves(runs: dict[str, Run], notes: list[str]) -> Part:
    histories = {}
    for name, run in runs.items():
        try:
            histories[name] = run.history.rows
        except StokerError as error:
            notes.append(f"The learning curves of {name} are left out: {error}")
    names = list(dict.fromkeys(column for rows in histories.values() for row in rows for column in row))
    wanted = [column for column in names if column.startswith("valid_")] or ["train_loss"]
    if not _one_criterion(runs):
        wanted = [column for column in wanted if not column.endswith("_loss") or column == "valid_log_loss"]
    drawn: list[Picture] = []
    for column in wanted[:6]:
        lines = [
            (name, f"s{place % pictures.SERIES}", [row["epoch"] for row in histories[name]],
             [row.get(column, math.nan) for row in histories[name]])
            for place, name in enumerate(runs) if name in histories
        ]  # fmt: skip
        title = (
            column.replace("valid_", "", 1) + ", validation split" if column.startswith("valid_") else "Training loss"
        )
        picture = pictures.epochs_chart(title, lines)
        if picture is not None:
            drawn.append(
                Picture(picture.title, picture.svg, picture.caption, [Key(css, name) for name, css, _, _ in lines])
            )
    return Part("Learning curves", pictures=drawn)


def _differences(runs: dict[str, Run]) -> list[Grid]:
    tables_of = {name: _told(run) for name, run in runs.items()}
    names = list(dict.fromkeys(key for told in tables_of.values() for key in told))
    differing = [key for key in names if len({repr(told.get(key)) for told in tables_of.values()}) > 1]
    body = [
        [Cell(key), *(Cell(tables.short(told.get(key, "–"), 80)) for told in tables_of.values())]
        for key in differing[:_MOST_DIFFERENCES]
    ]
    rest = len(differing) - len(body)
    return [
        Grid(
            "What differs between the runs",
            ["", *runs],
            body,
            f"{rest:,} further differences are not shown." if rest else "",
        )
    ]


def _told(run: Run) -> dict[str, str]:
    training = run.record.training
    told = {f"{name} source": f"{one.origin}, {one.fingerprint[:19]}…" for name, one in run.record.sources.items()}
    told |= {"rows": ", ".join(f"{name} {rows:,}" for name, rows in run.record.rows.items())}
    told |= {name: str(value) for name, value in tables.flat(run.record.settings).items()}
    told |= {
        "parameters": f"{training.parameters:,}",
        "epochs done": f"{training.epochs:,}",
        "best epoch": f"{training.best_epoch:,}",
        "time": duration(training.seconds),
        "engine": training.engine,
        "device": training.device,
    }
    return told | {f"version of {name}": version for name, version in run.record.versions.items()}
