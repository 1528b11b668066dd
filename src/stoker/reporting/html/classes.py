"""What a report shows of a classification."""

from __future__ import annotations

import numpy as np

from stoker.reporting.calibration import BINS, calibration, probabilities
from stoker.reporting.html import pictures, tables
from stoker.reporting.html.measured import Measured, Split
from stoker.reporting.html.parts import Part
from stoker.reporting.html.tables import short
from stoker.reporting.thresholds import Curve, precision_recall, roc
from stoker.runs.artifact import Recipe
from stoker.training.progress_text import number

__all__ = ["classification"]

_MOST_CURVES = 10  # classes that are drawn against the rest
_FEW_ROWS = 1000  # on which a calibration error is mostly chance


def classification(split: Split, found: Measured, recipe: Recipe) -> list[Part]:
    """The confusion matrix, ROC and precision-recall curves, and calibration of a split.

    Args:
        split: The split, whose outputs are finite.
        found: What was measured anew.
        recipe: The run's.
    """
    classes, name = recipe.classes, found.held_out
    grids = [tables.confusion_grid(split, classes)]
    right = int((split.outputs.argmax(axis=1) == split.targets).sum())
    text = f"On the {name} split, {right:,} of {len(split.targets):,} rows are put in their class."
    if len(classes) > 2:
        grids.append(tables.classes_grid(split, classes))
    return [
        Part("Which class is taken for which", text, grids=grids),
        _thresholds(split, classes),
        _calibrated(split, found, classes),
    ]


def _thresholds(split: Split, classes: tuple[str, ...]) -> Part:
    logits = split.outputs
    if len(classes) == 2:
        scored = [(classes[1], logits[:, 1] - logits[:, 0], split.targets == 1)]
        text = (
            f"For every threshold on the score of {short(classes[1])}, the second class. AP is the average precision."
        )
    else:
        table = np.log(np.maximum(probabilities(logits), 1e-300))
        counts = np.bincount(split.targets, minlength=len(classes))
        chosen = sorted(np.argsort(-counts, kind="stable")[:_MOST_CURVES].tolist())
        scored = [(classes[index], table[:, index], split.targets == index) for index in chosen if counts[index]]
        text = "Each class against the rest, for every threshold on its probability. AP is the average precision."
        if len(classes) > _MOST_CURVES:
            text += f" Of {len(classes):,} classes the {_MOST_CURVES} most frequent are drawn."
    curves: dict[str, list[tuple[str, Curve]]] = {"roc": [], "pr": []}
    for name, scores, positive in scored:
        for kind, make in (("roc", roc), ("pr", precision_recall)):
            if (curve := make(scores, positive)) is not None:
                curves[kind].append((short(name, 30), curve))
    if not curves["roc"]:
        return Part("ROC and precision-recall", "Only one class occurs in the split: there is nothing to tell apart.")
    drawn = [
        pictures.curves_chart("ROC", ("false positive rate", "true positive rate"), curves["roc"], "AUROC"),
        pictures.curves_chart("Precision and recall", ("recall", "precision"), curves["pr"], "AP"),
    ]
    return Part("ROC and precision-recall", text, drawn)


def _calibrated(split: Split, found: Measured, classes: tuple[str, ...]) -> Part:
    before = calibration(split.outputs, split.targets)
    entries = [("as trained", "s0", before)]
    text = (
        "The expected calibration error (ECE) is the mean distance between probability and frequency over "
        f"{BINS} bins of equal width, weighted by their rows: {number(before.error, 3)}."
    )
    if len(split.targets) < _FEW_ROWS:
        text += f" Of {len(split.targets):,} rows, chance alone makes it larger than it is."
    if found.temperature is not None:
        after = calibration(split.outputs, split.targets, temperature=found.temperature)
        entries.append((f"logits / {number(found.temperature, 4)}", "s1", after))
        text += (
            f" With logits divided by a temperature of {number(found.temperature, 4)}, which has the least log loss on "
            f"the validation split, it is {number(after.error, 3)}, and the log loss "
            f"{_log_loss(split, found.temperature)} instead of {_log_loss(split, 1.0)}. Which class is predicted does "
            "not change; the run's own weights are as they were."
        )
    binary = short(classes[1], 24) if len(classes) == 2 else None
    return Part("Calibration", text, [pictures.calibration_chart(entries, binary)])


def _log_loss(split: Split, temperature: float) -> str:
    from sklearn.metrics import log_loss

    table = probabilities(split.outputs, temperature)
    return number(float(log_loss(split.targets, table, labels=list(range(table.shape[1])))), 4)
