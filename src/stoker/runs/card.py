"""The model card: what a run's README.md says, by the Hugging Face Hub's conventions.

Source: hub-docs, ``modelcard.md`` (the head's fields, and which of a ``model-index`` are required) and the model card
template. ``license`` and ``datasets`` are left to whoever publishes the model: the first is theirs to choose, and the
second takes names of data sets on the Hub.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["ENDINGS", "UNKNOWN", "model_card"]

TASK_TAGS = {
    ("table", "regression"): "tabular-regression",
    ("table", "binary"): "tabular-classification",
    ("table", "multiclass"): "tabular-classification",
}
# What a metric is called at hf.co/metrics, where that is another name.
HUB_METRICS = {"auroc": "roc_auc", "r2": "r_squared"}
_YAML_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"}
ENDINGS = {
    "finished": "ran to its last epoch",
    "patience": "stopped early, when epochs no longer improved",
    "callback": "was ended by a callback",
    "interrupted": "was interrupted, and what was trained until then kept",
    "non-finite": "stopped because the loss became NaN or infinite; the best epoch before that was kept",
}
UNKNOWN = "Whether the imported weights saw the rows measured here is not known."


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
    tested = "No test split was held back."
    if "test" in record["rows"]:
        tested = f"The test split was {'used once, after training' if 'test' in metrics else 'not used'}."
    imported = training["stopped"] == "imported"
    kept = "The weights are those of the last epoch."
    if training["monitor"]:
        kept = f"The weights are those of epoch {training['best_epoch']}, the best by `{training['monitor']}`."
    if imported:
        kept, tested = f"{_text(training['engine_reason'])}.", UNKNOWN
        kept = kept[0].upper() + kept[1:]
    lines = [
        "---",
        *_head(record, metrics, tag),
        "---",
        "",
        f"# {_text(record['name'])}",
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
        *([] if imported else _pictures(recipe)),
        f"## What {'its encoder' if imported else 'it'} was trained on",
        "",
        *[
            f"- {name}: {_code(source['origin'])}, {source['rows']:,} rows, `{source['fingerprint']}`"
            for name, source in record["sources"].items()
        ],
        f"- rows per split: {', '.join(f'{name} {count:,}' for name, count in record['rows'].items())}",
        *[f"- {_text(notice)}" for notice in record["notices"]],
        "",
        "## How",
        "",
        *([f"- preset: {_text(settings['preset'])}"] if settings.get("preset") else []),
        f"- data: {_settings(settings['data'])}",
        f"- model: {_settings(settings['model'])}; {training['parameters']:,} parameters",
        *(["- training: not here; the weights were imported"] if imported else _trained(training, settings)),
        f"- versions: {', '.join(f'{name} {number}' for name, number in record['versions'].items())}",
        "",
        "## What to mind",
        "",
        *_limits(recipe, metrics, record["rows"]),
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


def _head(record: Mapping[str, Any], metrics: Mapping[str, Mapping[str, float]], tag: str) -> list[str]:
    """The YAML between the rules, a line each."""
    name = _yaml(_line(record["name"]) or "model")
    measured = {
        split: {metric: value for metric, value in metrics[split].items() if metric != "loss" and math.isfinite(value)}
        for split in ("test", "valid")
        if split in metrics
    }
    known = list(dict.fromkeys(metric for values in measured.values() for metric in values))
    lines = [
        "library_name: stoker",
        f"pipeline_tag: {tag}",
        "tags:",
        *(f"- {one}" for one in ("stoker", "pytorch", tag)),
        *(["metrics:", *(f"- {_yaml(HUB_METRICS.get(metric, metric))}" for metric in known)] if known else []),
        "model-index:",
        f"- name: {name}",
        f"  results:{'' if known else ' []'}",
    ]
    for split, values in measured.items():
        if not values:
            continue
        lines += [
            "  - task:",
            f"      type: {tag}",
            f"      name: {tag.replace('-', ' ').capitalize()}",
            "    dataset:",
            f"      type: {name}",
            f"      name: {name}",
            f"      split: {split}",
            "    metrics:",
        ]
        for metric, value in values.items():
            lines += [
                f"    - type: {_yaml(HUB_METRICS.get(metric, metric))}",
                f"      value: {_yaml_number(value)}",
                f"      name: {_yaml(f'{metric} ({split})')}",
                "      verified: false",
            ]
    return lines


def _limits(
    recipe: Mapping[str, Any], metrics: Mapping[str, Mapping[str, float]], kept: Mapping[str, int]
) -> list[str]:
    """What the numbers above do not say."""
    held_out = next((split for split in ("test", "valid") if split in metrics), None)
    rows = "rows" if recipe["kind"] == "table" else "images"
    back = f"The {rows} held back were not used" if "test" in kept else f"No {rows} were held back"
    lines = [
        f"- The numbers hold for {rows} like those of the {held_out} split; measure it anew on others "
        "(`stoker evaluate`)."
        if held_out is not None
        else f"- {back}: how good it is on others, nobody has measured.",
        "- Nobody has looked into how errors are spread over groups of people or things. `stoker report` shows the "
        f"most wrong {rows} and what the network relies on.",
    ]
    if recipe["task"] != "regression":
        lines.append(f"- It knows its {len(recipe['classes'])} classes alone, and puts everything into one of them.")
    if recipe["kind"] == "table":
        lines.append("- Categories that did not occur in training are all taken for the same, *unknown*.")
    return lines


def _yaml_number(value: float) -> str:
    """A number that YAML 1.1 takes for one as well: it wants a point before an exponent."""
    mantissa, e, exponent = repr(float(value)).partition("e")
    return f"{mantissa}{'.0' if e and '.' not in mantissa else ''}{e}{exponent}"


def _yaml(text: str) -> str:
    """Text of any origin as one of YAML's double-quoted scalars, or as it is where that is the same."""
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", text) and text.lower() not in _YAML_WORDS:
        return text
    signs = ((character, ord(character)) for character in text.replace("\\", "\\\\").replace('"', '\\"'))
    return '"' + "".join(sign if sign.isprintable() else f"\\U{code:08x}" for sign, code in signs) + '"'


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


def _trained(training: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    return [
        f"- training: {_settings(settings['training'])}",
        f"- it {ENDINGS.get(training['stopped'], training['stopped'])}; {training['epochs']} epochs, "
        f"{training['steps']:,} steps, {training['seconds']:.1f} s on {training['device']} ({training['engine']})",
    ]


def _pictures(recipe: Mapping[str, Any]) -> list[str]:
    shown = "![Confusion matrix](figures/confusion_matrix.png)"
    if recipe["task"] == "regression":
        shown = "![Predicted against true](figures/predicted_vs_true.png)"
    return ["![Learning curves](figures/learning_curves.png)", shown, ""]


def _table(metrics: Mapping[str, Mapping[str, float]], rows: Mapping[str, int]) -> list[str]:
    names = list(dict.fromkeys(name for values in metrics.values() for name in values))
    head = f"| split | rows | {' | '.join(_text(name) for name in names)} |"
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
    return ", ".join(f"{name} {_setting(value)}" for name, value in told.items())


def _setting(value: object) -> str:
    return f"[{', '.join(_setting(one) for one in value)}]" if isinstance(value, list) else _text(value)


def _line(text: object) -> str:
    """Text of any origin as one line."""
    return " ".join(str(text).split())


def _text(text: object) -> str:
    r"""Text of any origin as one line that Markdown shows as it is: no link, picture, HTML, formula or list of its own.

    Source: CommonMark, 2.4 (any ASCII punctuation may have a backslash before it); an underscore within a word is none
    of emphasis, and stays as it is.
    """
    line = re.sub(r"([\\`*<>&\[\]|~$#!]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))", r"\\\1", _line(text))
    return re.sub(r"^(\d*)((?<=\d)[.)]|(?<!\d)[-+])(?=[-\s]|$)", r"\1\\\2", line)


def _code(text: str) -> str:
    """Text of any origin as Markdown's inline code: in more backticks than it has itself one after the other."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{space}{_line(text) or ' '}{space}{fence}"
