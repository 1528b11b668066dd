"""One run as a part of a report: from its files, and from what was measured anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stoker.data.schema import Schema
from stoker.errors import RunError, StokerError
from stoker.jobs.splitting import counted
from stoker.models.inputs import ImageSpec
from stoker.reporting.html import pictures, tables
from stoker.reporting.html.cards import brightened, cards
from stoker.reporting.html.classes import classification
from stoker.reporting.html.measured import Measured, Split, is_image
from stoker.reporting.html.parts import Part, Section
from stoker.reporting.html.tables import Grid, facts_grid, listed, short
from stoker.reporting.worst import most_wrong
from stoker.runs.artifact import Recipe
from stoker.runs.card import ENDINGS, UNKNOWN
from stoker.settings import parse_settings
from stoker.training.progress_text import duration, number

if TYPE_CHECKING:
    from stoker.jobs.run import Run

__all__ = ["recipe_of", "section"]

WORST = 12
_FOREMOST = ("accuracy", "f1", "auroc", "rmse", "mae", "r2")
_MOST_NOTICES = 20
_MOST_SETTINGS = 80


def _notices(run: Run) -> list[str]:
    """What the user was told; of much, the first."""
    told = [short(notice, 300) for notice in run.notices[:_MOST_NOTICES]]
    rest = len(run.notices) - len(told)
    return [*told, f"{rest:,} further notices are in config.json."] if rest else told


def recipe_of(run: Run) -> Recipe:
    """The run's recipe, whether or not its model can be built.

    Raises:
        RunError: It is damaged.
    """
    try:
        recipe = parse_settings(Recipe, run.record.recipe, "recipe")
        if recipe.table_schema is not None:
            Schema.from_dict(recipe.table_schema)
    except StokerError as error:
        raise RunError(str(run.path), f"config.json is damaged ({error})", "", "Copy the run again.") from None
    return recipe


def section(run: Run, found: Measured, name: str, anchor: str) -> Section:
    """Put together what is said of a run.

    Args:
        run: The run.
        found: What was measured anew.
        name: What it is called in this report.
        anchor: Where links to it go.
    """
    recipe = recipe_of(run)
    parts = [_metrics(run, found), _learning(run, found)]
    if found.held_out is not None:
        split = found.splits[found.held_out]
        if np.isfinite(split.outputs).all():
            shown = _regression if recipe.task == "regression" else classification
            parts += shown(split, found, recipe)
        else:
            reason = f"the model's outputs on the {found.held_out} split are not finite"
            found.left_out.append(("Pictures of its predictions", reason))
        parts += _importance(found, recipe) + _worst(split, found, recipe)
    parts += [_data(run, recipe), _how(run)]
    return Section(
        anchor, name, str(run.path), _says(run, recipe), _figures(run, found),
        [part for part in parts if part.text or part.pictures or part.grids],
        [*found.notes, *_notices(run)], found.left_out,
    )  # fmt: skip


def _says(run: Run, recipe: Recipe) -> str:
    inputs = "images"
    if recipe.table_schema is not None:
        features = len(Schema.from_dict(recipe.table_schema).features)
        inputs = f"{features:,} column{'' if features == 1 else 's'}"
    what = f"the number {short(recipe.target)}"
    if recipe.task != "regression":
        what = f"{short(recipe.target)}, one of {len(recipe.classes):,} classes ({listed(recipe.classes)}),"
    return (
        f"{short(run.config.model.get('name', 'a model'))} predicts {what} from {inputs} of {short(run.record.name)}."
    )


def _figures(run: Run, found: Measured) -> list[tuple[str, str, str]]:
    split = next((name for name in ("test", "valid", "train") if name in run.metrics), None)
    figures = []
    if split is not None:
        intervals = found.splits[split].intervals if split in found.splits else {}
        names = [name for name in run.metrics[split] if name != "loss"]
        for name in ([name for name in names if name in _FOREMOST] or names)[:3]:
            value, one = run.metrics[split][name], intervals.get(name)
            below = f"{split} split" + ("" if one is None else f", {tables.span(one)}")
            figures.append((name, number(value, 4) if np.isfinite(value) else "undefined", below))
    training, imported = run.record.training, run.record.training.stopped == "imported"
    figures.append(("parameters", f"{training.parameters:,}", short(run.config.model.get("name", ""))))
    figures.append(
        ("training", "none", "weights imported")
        if imported
        else ("training", duration(training.seconds), f"{counted(training.epochs, 'epoch')} on {training.device}")
    )
    return figures


def _metrics(run: Run, found: Measured) -> Part:
    intervals = [one for split in found.splits.values() for one in split.intervals.values()]
    text = ""
    if intervals:
        most = max(one.samples for one in intervals)
        fewest = min(one.samples for one in intervals)
        samples = f"{most:,}" if fewest == most else f"{fewest:,} to {most:,}"
        level = f"{intervals[0].level:.0%}"
        text = (
            f"Below a value is its {level} interval: percentile bootstrap over rows, {samples} samples. It tells "
            "how far the value may be off for the choice of rows, not for that of the seed."
        )
    return Part("Metrics", text, grids=[tables.metrics_grid(run.metrics, run.record.rows, found)])


def _learning(run: Run, found: Measured) -> Part:
    training = run.record.training
    if training.stopped == "imported":
        return Part("Imported weights", f"It was not trained here; {short(training.engine_reason, 160)}. {UNKNOWN}")
    try:
        history = run.history
    except StokerError as error:
        found.left_out.append(("Learning curves", str(error)))
        return Part("Learning curves")
    best = history.best_epoch if history.monitor is not None else None
    ended = ENDINGS.get(history.stopped, f"ended: {history.stopped}")
    text = f"Training {ended}."
    if len(history) == 1:
        losses = [
            f"{name} loss {number(row)}" for name in ("train", "valid") if (row := history.rows[0].get(f"{name}_loss"))
        ]
        text += f" There was one epoch only, which makes no curve: {', '.join(losses) or 'no finite loss'}."
    if history.monitor is not None:
        text += f" The weights of epoch {best} were kept, the best by {short(history.monitor)}."
    elif "valid" not in run.metrics:
        text += " There is no validation split; the weights are those of the last epoch."
    drawn = pictures.history_charts(history.rows, best) if len(history) > 1 else []
    return Part("Learning curves", text, drawn)


def _regression(split: Split, found: Measured, recipe: Recipe) -> list[Part]:
    target, preds = tables.column_of(split.targets), split.outputs[:, 0]
    name = short(recipe.target, 24)
    drawn = [pictures.pairs_chart(target, preds, name), pictures.errors_chart(preds - target, name)]
    return [Part("Predictions and errors", f"On the {found.held_out} split, {len(target):,} rows.", drawn)]


def _importance(found: Measured, recipe: Recipe) -> list[Part]:
    if not found.importance:
        return []
    error = "RMSE" if recipe.task == "regression" else "log loss"
    repeats = found.importance[0].repeats
    text = (
        f"Each column was shuffled {repeats} time{'' if repeats == 1 else 's'} over {found.importance_rows:,} rows of "
        f"the {found.held_out} split; ± is the standard deviation over these. About 0: of no use to this model. "
        "Columns that say the same share their importance, and may all look unimportant."
    )
    return [Part("What the model relies on", text, grids=[tables.importance_grid(found, error, str(found.held_out))])]


def _worst(split: Split, found: Measured, recipe: Recipe) -> list[Part]:
    images, regression = is_image(split), recipe.task == "regression"
    most = 2 * WORST if images else WORST
    rows = most_wrong(split.outputs, split.targets, regression=regression, most=most).tolist()
    title, what = "Where it is most wrong", "image" if images else "row"
    if not rows:
        return [Part(title, f"Every {what} of the {found.held_out} split is put in its class.")]
    how = "largest error" if regression else "least probability of the true class"
    text = f"Of the {found.held_out} split, the {what}s with the {how}: worth a look for wrong labels and odd values."
    if images:
        if not getattr(split.data, "names", ()):
            text += " Images are counted from 1 in their source."
        text += " They are brightened to be seen." if brightened(split) else ""
        return [Part(title, text, cards=cards(split, rows, recipe.classes))]
    names = [one.column for one in found.importance]
    if recipe.table_schema is not None:
        names += [one.name for one in Schema.from_dict(recipe.table_schema).features if one.name not in set(names)]
    text += " Rows are counted from 1 in their source, a heading not counted."
    return [Part(title, text, grids=[tables.worst_grid(split, rows, recipe.classes, names)])]


def _data(run: Run, recipe: Recipe) -> Part:
    record = run.record
    body = [
        [tables.Cell(name), tables.Cell(short(one.origin, 120)), tables.Cell(f"{one.rows:,}", css="num"),
         tables.Cell(one.fingerprint, css="code")]
        for name, one in record.sources.items()
    ]  # fmt: skip
    grids = [Grid("Sources", ["for", "origin", "rows", "fingerprint"], body)]
    facts: dict[str, object] = {"target": f"{short(recipe.target)} ({recipe.task})"}
    if recipe.classes:
        facts["classes"] = listed(recipe.classes, 20)
    facts["rows per split"] = ", ".join(f"{name} {rows:,}" for name, rows in record.rows.items())
    facts |= {f"rows {what}": f"{rows:,}" for what, rows in record.duplicates.items()}
    if isinstance(spec := recipe.spec, ImageSpec):
        facts["images"] = (
            f"{spec.width} × {spec.height} pixels, {spec.channels} channel{'' if spec.channels == 1 else 's'}"
        )
    grids.append(facts_grid("Data", facts))
    if recipe.table_schema is not None:
        grids.append(tables.schema_grid(Schema.from_dict(recipe.table_schema)))
    return Part("What it was trained on", grids=grids)


def _how(run: Run) -> Part:
    training, settings = run.record.training, run.record.settings
    long = counted(training.epochs, "epoch"), counted(training.steps, "step")
    facts: dict[str, object] = {
        "engine": training.engine_reason or training.engine,
        "device": training.device,
        "length": ", ".join((*long, duration(training.seconds))),
        "parameters": f"{training.parameters:,}",
    }
    told = {name: _setting(value) for name, value in tables.flat(settings).items() if not _empty(value)}
    shown = dict(list(told.items())[:_MOST_SETTINGS])
    rest = len(told) - len(shown)
    grids = [
        facts_grid("Training", facts),
        facts_grid("Settings, those left empty aside", shown, f"{rest:,} more are in config.json." if rest else ""),
        facts_grid("Versions", run.record.versions),
    ]
    return Part("How it was trained", grids=grids)


def _empty(value: object) -> bool:
    return value is None or value is False or value in ("", [], {})


def _setting(value: object) -> str:
    if isinstance(value, list | tuple):
        return listed([str(one) for one in value], 20)
    return number(value, 6, trim=True) if isinstance(value, float) else str(value)
