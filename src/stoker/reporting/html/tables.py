"""The tables of a report: bounded, and each number with its full value beside what is shown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from stoker.data.dataset import Table
from stoker.data.schema import Schema
from stoker.reporting.bootstrap import Interval
from stoker.reporting.calibration import probabilities
from stoker.reporting.confusion import count_pairs
from stoker.reporting.html.chart import bar
from stoker.reporting.html.measured import Measured, Split
from stoker.training.progress_text import number

__all__ = ["Cell", "Grid", "span", "value_cell"]

MOST_CLASSES = 15  # in a matrix
MOST_ROWS = 30
MOST_COLUMNS = 100  # of a schema
_MOST_TEXT = 60
_LISTED = 12


@dataclass(frozen=True)
class Cell:
    """A cell: what is shown, below it something small, and a class for its look."""

    says: object
    below: str = ""
    css: str = ""


@dataclass(frozen=True)
class Grid:
    """A table.

    Attributes:
        caption: What it shows.
        head: The columns' names.
        rows: The first cell of each is its heading.
        left_out: How much is not shown; empty if all is.
        css: A class for its look.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    left_out: str = ""
    css: str = ""

    @property
    def columns(self) -> list[tuple[str, str]]:
        """The columns' names, and ``num`` for those of numbers, whose names stand at the right as these do."""
        cells = self.rows[0] if self.rows else [Cell("")] * len(self.head)
        return [
            (name, "num" if "num" in cell.css.split() else "") for name, cell in zip(self.head, cells, strict=False)
        ]


def span(interval: Interval) -> str:
    """An interval as short as it can be, so that three stand beside each other on a telephone."""
    low, high = number(interval.low, 4), number(interval.high, 4)
    return f"{low}–{high}" if interval.low >= 0 else f"{low} to {high}".replace("-", "−")


def value_cell(value: float | None, interval: Interval | None = None) -> Cell:
    """A number, to be read by people and by programs."""
    if value is None:
        return Cell("")
    if not math.isfinite(value):
        return Cell("undefined" if math.isnan(value) else str(value), css="num quiet")
    shown = Markup('<data value="{}">{}</data>').format(repr(value), number(value))
    return Cell(shown, "" if interval is None else span(interval), "num")


def metrics_grid(metrics: Mapping[str, Mapping[str, float]], rows: Mapping[str, int], found: Measured) -> Grid:
    """A row a metric, a column a split."""
    names = list(dict.fromkeys(name for values in metrics.values() for name in values))
    counts = [Cell("rows", css="quiet"), *(Cell(f"{rows.get(split, 0):,}", css="num quiet") for split in metrics)]
    intervals = {split: found.splits[split].intervals if split in found.splits else {} for split in metrics}
    body = [
        [Cell(name), *(value_cell(values.get(name), intervals[split].get(name)) for split, values in metrics.items())]
        for name in names
    ]
    return Grid("Metrics by split", ["", *metrics], [counts, *body])


def confusion_grid(split: Split, classes: Sequence[str]) -> Grid:
    """Which class was taken for which; of many classes, the most frequent mistakes."""
    pairs = count_pairs(split.targets, split.outputs.argmax(axis=1), len(classes))
    if len(classes) > MOST_CLASSES:
        wrong = int((pairs.true != pairs.predicted).sum())
        listed = pairs.mistakes(MOST_ROWS)
        body = [
            [Cell(short(classes[true])), Cell(short(classes[said])), Cell(f"{count:,}", css="num"),
             Cell(f"{count / pairs.totals[true]:.0%}", css="num")]
            for count, true, said in listed
        ]  # fmt: skip
        more = f"{wrong - len(listed):,} further pairs of classes were mixed up." if wrong > len(listed) else ""
        caption = f"The most frequent mistakes among {len(classes):,} classes"
        return Grid(caption, ["true", "predicted", "rows", "of the true class"], body, more)
    counts = np.zeros((len(classes), len(classes)), np.int64)
    counts[pairs.true, pairs.predicted] = pairs.count
    body = []
    for true, name in enumerate(classes):
        cells = []
        for said in range(len(classes)):
            share = counts[true, said] / pairs.totals[true] if pairs.totals[true] else 0.0
            level = math.ceil(10 * math.sqrt(share))  # the root lifts rare mistakes off the background
            kind = "hit" if true == said else "miss"
            cells.append(Cell(f"{counts[true, said]:,}", _share(share), f"num {kind}{level}"))
        body.append([Cell(short(name)), *cells, Cell(f"{pairs.totals[true]:,}", css="num quiet")])
    head = ["true \\ predicted", *(short(name, 18) for name in classes), "rows"]
    return Grid("Confusion matrix: rows by true and predicted class", head, body, css="matrix")


def _share(share: float) -> str:
    return "" if share == 0 else "< 1%" if share < 0.005 else f"{share:.0%}"


def classes_grid(split: Split, classes: Sequence[str]) -> Grid:
    """Precision, recall and F1 of each class; of many, the worst."""
    from sklearn.metrics import precision_recall_fscore_support

    labels = list(range(len(classes)))
    scores = precision_recall_fscore_support(
        split.targets, split.outputs.argmax(axis=1), labels=labels, zero_division=np.nan
    )
    order = [label for label in labels if scores[3][label]]
    absent = len(labels) - len(order)
    caption, more = "Each class", []
    if len(order) > MOST_ROWS:
        more.append(f"{len(order) - MOST_ROWS:,} classes with a higher F1 are left out.")
        order = sorted(order, key=lambda label: (np.nan_to_num(scores[2][label]), label))[:MOST_ROWS]
        caption = "The classes with the lowest F1"
    if absent:
        more.append(f"{absent:,} class{'es do' if absent > 1 else ' does'} not occur in the split.")
    body = [
        [Cell(short(classes[label])), *(value_cell(float(score[label])) for score in scores[:3]),
         Cell(f"{scores[3][label]:,}", css="num")]
        for label in order
    ]  # fmt: skip
    return Grid(caption, ["class", "precision", "recall", "F1", "rows"], body, " ".join(more))


def importance_grid(found: Measured, error: str, split: str) -> Grid:
    """What shuffling each column does."""
    shown = found.importance[:MOST_ROWS]
    low = min(0.0, min(one.mean - one.std for one in shown))
    high = max(0.0, max(one.mean + one.std for one in shown))
    body = [
        [Cell(short(one.column)), Cell(Markup('<data value="{}">{}</data> <span class="quiet">± {}</span>').format(
             repr(one.mean), _signed(one.mean), number(one.std, 2)), css="num"),
         Cell(bar(one.mean, one.std, low, high), css="wide")]
        for one in shown
    ]  # fmt: skip
    rest = len(found.importance) - len(shown)
    more = [f"{rest:,} less important columns are not shown."] if rest else []
    if found.screened:
        more.append(
            f"{found.screened:,} columns were first shuffled once, on few rows; the {len(found.importance):,} that "
            "then mattered most were measured in full."
        )
    caption = f"Permutation importance: how much {error} on the {split} split rises when a column is shuffled"
    return Grid(caption, ["column", f"rise of {error}", ""], body, " ".join(more))


def _signed(value: float) -> str:
    if math.isnan(value):
        return "undefined"
    return number(value, 3).replace("-", "−") if value < 0 else f"+{number(value, 3)}"


def worst_grid(split: Split, rows: Sequence[int], classes: Sequence[str], columns: Sequence[str]) -> Grid:
    """Some rows of a table: what was said of them, and their values.

    Args:
        split: The split.
        rows: Which of its rows.
        classes: Their names; empty for regression.
        columns: Whose values to show, the most important first.
    """
    assert isinstance(split.data, Table)  # images are shown, not listed
    shown = list(columns[:8])
    body = [
        [
            Cell(f"{split.rows[row] + 1:,}", css="num quiet"),
            *_verdict(split, classes, row),
            *(Cell(short(_plain(split.data.frame[name][row]))) for name in shown),
        ]
        for row in rows
    ]
    said = ["true", "predicted", "p(predicted)", "p(true)"] if classes else ["true", "predicted", "error"]
    caption = f"The {len(rows)} most wrong rows" if len(rows) > 1 else "The most wrong row"
    more = len(columns) - len(shown)
    left_out = f"{more:,} further columns are not shown." if more > 0 else ""
    return Grid(caption, ["row", *said, *(short(name, 24) for name in shown)], body, left_out)


def _verdict(split: Split, classes: Sequence[str], row: int) -> list[Cell]:
    if not classes:
        true, said = float(split.targets[row].reshape(-1)[0]), float(split.outputs[row, 0])
        return [value_cell(true), value_cell(said), Cell(_signed(said - true), css="num")]
    table = probabilities(split.outputs[row : row + 1])[0]
    true, said = int(split.targets[row]), int(split.outputs[row].argmax())
    return [
        Cell(short(classes[true])), Cell(short(classes[said])),
        Cell(percent(float(table[said])), css="num"), Cell(percent(float(table[true])), css="num"),
    ]  # fmt: skip


def percent(share: float) -> str:
    if math.isnan(share):
        return "undefined"
    return "< 0.01 %" if share < 1e-4 else f"{100 * share:.{2 if share < 0.01 else 1}f} %"


def schema_grid(schema: Schema) -> Grid:
    """What each column was taken as, and why."""
    body = [
        [Cell(short(column.name)), Cell(column.kind), Cell(column.dtype.partition("(")[0]),
         Cell(f"{column.missing:,}", css="num"), Cell(f"{column.distinct:,}", css="num"),
         Cell(short(column.example, 30)), Cell(short(column.reason, 120), css="long")]
        for column in schema.columns[:MOST_COLUMNS]
    ]  # fmt: skip
    rest = len(schema.columns) - len(body)
    more = f"{rest:,} further columns are not shown." if rest > 0 else ""
    head = ["column", "kind", "dtype", "missing", "distinct", "example", "why"]
    return Grid(f"The {len(schema.columns):,} columns beside the target", head, body, more)


def facts_grid(caption: str, facts: Mapping[str, object], left_out: str = "") -> Grid:
    """Names and what they are."""
    body = [[Cell(short(name)), Cell(short(says, 400))] for name, says in facts.items()]
    return Grid(caption, ["", ""], body, left_out, "facts")


def flat(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """``{"training": {"lr": 1}}`` to ``{"training.lr": 1}``."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{above}{name}.")
        else:
            found[f"{above}{name}"] = value
    return found


def short(text: object, most: int = _MOST_TEXT) -> str:
    """Text of any origin as one line that is not too long."""
    line = " ".join(str(text).split())
    if len(line) <= most:
        return line
    end = most // 3 if most <= _MOST_TEXT else 0  # names are often told apart by their ends
    return f"{line[: most - 1 - end]}…{line[len(line) - end :]}"


def listed(names: Sequence[str], most: int = _LISTED) -> str:
    """Names with commas between; of many, the first."""
    rest = len(names) - most
    return ", ".join(short(name) for name in names[:most]) + (f" and {rest:,} more" if rest > 0 else "")


def _plain(value: object) -> str:
    if value is None:
        return "missing"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def column_of(values: NDArray[Any]) -> NDArray[np.float64]:
    """``[n, 1]`` or ``[n]`` to ``[n]``."""
    return np.asarray(values, np.float64).reshape(len(values))
