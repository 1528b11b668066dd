"""The model card: what a run's README.md says, by the Hugging Face Hub's conventions."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["model_card"]

TASK_TAGS = {
    ("table", "regression"): "tabular-regression",
    ("table", "binary"): "tabular-classification",
    ("table", "multiclass"): "tabular-classification",
}
ENDINGS = {
    "finished": "ran to its last epoch",
    "patience": "stopped early, when epochs no longer improved",
    "interrupted": "was interrupted, and what was trained until then kept",
    "non-finite": "stopped because the loss became NaN or infinite; the best epoch before that was kept",
}


def model_card(record: Mapping[str, Any], metrics: Mapping[str, Mapping[str, float]]) -> str:
    """Write the card.

    Args:
        record: The content of ``config.json``.
        metrics: Split to metric to value.

    Returns:
        Markdown with a YAML head, as the Hub reads it.
    """
    recipe, training, settings = record["recipe"], record["training"], record["settings"]
    tag = TASK_TAGS.get((recipe["kind"], recipe["task"]), "image-classification")
    example = "new_rows.csv" if recipe["kind"] == "table" else "folder_of_images"
    tested = "The test split was used once, after training." if "test" in metrics else "No test split was held back."
    kept = "The weights are those of the last epoch."
    if training["monitor"]:
        kept = f"The weights are those of epoch {training['best_epoch']}, the best by `{training['monitor']}`."
    lines = [
        "---",
        "library_name: stoker",
        f"pipeline_tag: {tag}",
        f"tags: [stoker, pytorch, {tag}]",
        "---",
        "",
        f"# {_line(record['name'])}",
        "",
        _what(recipe),
        "",
        "## How good it is",
        "",
        *_table(metrics, record["rows"]),
        "",
        f"{kept} {tested}",
        *[f"\nRows {what}: {count:,}." for what, count in record["duplicates"].items()],
        "",
        "![Learning curves](figures/learning_curves.png)",
        f"![{_picture(recipe)[0]}]({_picture(recipe)[1]})",
        "",
        "## What it was trained on",
        "",
        *[
            f"- {name}: {_code(source['origin'])}, {source['rows']:,} rows, `{source['fingerprint']}`"
            for name, source in record["sources"].items()
        ],
        f"- rows per split: {', '.join(f'{name} {count:,}' for name, count in record['rows'].items())}",
        *[f"- {_line(notice)}" for notice in record["notices"]],
        "",
        "## How",
        "",
        *([f"- preset: {_line(settings['preset'])}"] if settings.get("preset") else []),
        f"- data: {_settings(settings['data'])}",
        f"- model: {_settings(settings['model'])}; {training['parameters']:,} parameters",
        f"- training: {_settings(settings['training'])}",
        f"- it {ENDINGS.get(training['stopped'], training['stopped'])}; {training['epochs']} epochs, "
        f"{training['steps']:,} steps, {training['seconds']:.1f} s on {training['device']} ({training['engine']})",
        f"- versions: {', '.join(f'{name} {number}' for name, number in record['versions'].items())}",
        "",
        "## How to use it",
        "",
        "```python",
        "import stoker",
        "",
        f'run = stoker.load("path/to/this/directory"{_own_model(settings)})',
        f'run.predict("{example}").frame()',
        "```",
        "",
    ]
    return "\n".join(lines)


def _own_model(settings: Mapping[str, Any]) -> str:
    """A model of the user's own is named once more by whoever loads it."""
    name = str(settings["model"]["name"])
    return f", model={json.dumps(name, ensure_ascii=False)}" if ":" in name else ""


def _what(recipe: Mapping[str, Any]) -> str:
    inputs = "the columns of a table" if recipe["kind"] == "table" else "images"
    if recipe["task"] == "regression":
        return f"A network that predicts the number {_code(recipe['target'])} from {inputs}."
    classes = recipe["classes"]
    shown = ", ".join(_code(name) for name in classes[:20]) + (
        f" and {len(classes) - 20} more" if len(classes) > 20 else ""
    )
    return f"A network that predicts {_code(recipe['target'])}, one of {len(classes)} classes ({shown}), from {inputs}."


def _picture(recipe: Mapping[str, Any]) -> tuple[str, str]:
    if recipe["task"] == "regression":
        return "Predicted against true", "figures/predicted_vs_true.png"
    return "Confusion matrix", "figures/confusion_matrix.png"


def _table(metrics: Mapping[str, Mapping[str, float]], rows: Mapping[str, int]) -> list[str]:
    names = list(dict.fromkeys(name for values in metrics.values() for name in values))
    head = f"| split | rows | {' | '.join(names)} |"
    rule = "| --- |" + " ---: |" * (len(names) + 1)
    body = [
        f"| {split} | {rows[split]:,} | {' | '.join(_number(values.get(name, math.nan)) for name in names)} |"
        for split, values in metrics.items()
    ]
    return [head, rule, *body]


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.5g}"


def _settings(settings: Mapping[str, Any]) -> str:
    """The settings that say something: not those left empty or switched off; the seed always."""
    empty: tuple[object, ...] = (None, "", "none", False, 0.0, [], {})
    told = {name: value for name, value in settings.items() if name == "seed" or value not in empty}
    return ", ".join(f"{name} {_line(value)}" for name, value in told.items())


def _line(text: object) -> str:
    """Text of any origin as one line."""
    return " ".join(str(text).split())


def _code(text: str) -> str:
    """Text of any origin as Markdown's inline code: in more backticks than it has itself one after the other."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{space}{_line(text) or ' '}{space}{fence}"
