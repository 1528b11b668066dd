"""What the doctor finds."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

__all__ = ["Checkup", "Finding", "Rate", "Status"]

Status: TypeAlias = Literal["works", "absent", "poor", "broken"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: What.
        status: ``works``; ``absent``: not installed, and not needed by everyone; ``poor``: works, but not as well as it
            could; ``broken``.
        says: What was found, in a line.
        fix: What to do about it: a command where there is one; empty if nothing need be done.
    """

    name: str
    status: Status
    says: str
    fix: str = ""


@dataclass(frozen=True)
class Rate:
    """How fast square matrices are multiplied.

    Attributes:
        device: ``cpu``, ``cuda:0``, …
        dtype: Of the matrices.
        threads: How many, on a CPU; 0 elsewhere.
        size: Rows and columns.
        gflops: ``2·size³`` per second, in billions: the best of several.
    """

    device: str
    dtype: str
    threads: int
    size: int
    gflops: float


@dataclass(frozen=True)
class Checkup:
    """All of it.

    Attributes:
        machine: Facts by name.
        versions: Of Python and of the packages that are installed.
        findings: In the order in which they are shown.
        rates: As measured.
    """

    machine: dict[str, str]
    versions: dict[str, str]
    findings: list[Finding] = field(default_factory=list)
    rates: list[Rate] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it, with ``ok``: whether nothing is broken."""
        return {"ok": all(one.status != "broken" for one in self.findings), **asdict(self)}
