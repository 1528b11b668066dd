"""What happened, a row an epoch."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

__all__ = ["History", "Row", "StopReason", "history_csv"]

Row: TypeAlias = dict[str, float]
"""``epoch`` (from 1), ``step`` (updates so far), ``lr``, ``train_loss``, and ``valid_…`` if there is such a split."""

StopReason: TypeAlias = Literal["finished", "patience", "callback", "interrupted", "non-finite", "running", "imported"]


@dataclass
class History(Sequence[Row]):
    """The rows of one training, and how it ended.

    Attributes:
        rows: One per epoch; an epoch that was cut short by Ctrl-C has its row too (its ``step`` shows where).
        monitor: The column by which epochs were compared; ``None`` without a validation split.
        best_epoch: The epoch with the best monitored value; without one, the last.
        stopped: Why it ended: ``finished``, ``patience``, ``callback`` (one asked for it), ``interrupted`` (Ctrl-C) or
            ``non-finite``; ``running`` if it has not, or if an error ended it; ``imported`` where nothing was trained.
        seconds: How long the epochs took, evaluation included.
        engine: What carried out the last steps, and why, as ``Trainer.engine_reason`` says it; empty until training has
            ended, and where nobody knows.
    """

    rows: list[Row] = field(default_factory=list)
    monitor: str | None = None
    best_epoch: int = 0
    stopped: StopReason = "running"
    seconds: float = 0.0
    engine: str = ""

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]  # Sequence's overloads add nothing here
        return self.rows[index]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def column(self, name: str) -> list[float]:
        """One column, by epoch; NaN where a row lacks it."""
        return [row.get(name, math.nan) for row in self.rows]

    @property
    def best(self) -> Row:
        """The row of the best epoch; empty if no epoch was finished."""
        return next((row for row in self.rows if row["epoch"] == self.best_epoch), {})


def history_csv(rows: Sequence[Row]) -> str:
    """The rows as CSV text, with numbers written so that they read back to the same bits."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: repr(value) for name, value in row.items()})
    return text.getvalue()
