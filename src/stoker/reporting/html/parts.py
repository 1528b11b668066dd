"""What a report is made of, ready to be written."""

from __future__ import annotations

from dataclasses import dataclass, field

from stoker.reporting.html.cards import Card
from stoker.reporting.html.pictures import Picture
from stoker.reporting.html.tables import Grid

__all__ = ["Part", "Section"]


@dataclass(frozen=True)
class Part:
    """Something with a heading."""

    title: str
    text: str = ""
    pictures: list[Picture] = field(default_factory=list)
    grids: list[Grid] = field(default_factory=list)
    cards: list[Card] = field(default_factory=list)


@dataclass(frozen=True)
class Section:
    """One run.

    Attributes:
        anchor, name, path: Of the run.
        says: What it is, in a sentence.
        figures: The few numbers that matter most: what, value, and what goes below.
        parts: In order.
        notes: What the reader should know.
        left_out: What is missing, and why.
    """

    anchor: str
    name: str
    path: str
    says: str
    figures: list[tuple[str, str, str]]
    parts: list[Part]
    notes: list[str]
    left_out: list[tuple[str, str]]
