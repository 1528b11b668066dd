"""From measurements to figures: medians over rounds, steady steps, and what was too long to be measured."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from benchmarks.jobs import JOBS
from benchmarks.plan import FEWEST, predicted

LENGTHS = (1, 20, 200, 500)
# A final loss that differs from the median of all sides by more than this part of it, and by more than so much, is far
# from the others'. What differs by less may have had its batches in another order.
FAR, FAR_AT_LEAST = 0.25, 0.05

Measurement: TypeAlias = Mapping[str, Any]


class Key(NamedTuple):
    """A table of the report: a job with its rows, batch size and threads."""

    job: str
    batch_size: int
    threads: int
    rows: int | None


@dataclass(frozen=True)
class Total:
    """Seconds of a call.

    Attributes:
        seconds: The median over the rounds.
        noise: Half of what lies between the fastest and the slowest round.
        extrapolated: Whether they are the first epoch's and steady ones' rather than measured.
    """

    seconds: float
    noise: float = 0.0
    extrapolated: bool = False


@dataclass(frozen=True)
class Figures:
    """What a side came to.

    Attributes:
        side: By name.
        first_s: From the call to the end of the first epoch.
        step_us: Of a steady step.
        totals: By number of epochs; of :data:`LENGTHS`, and of those that were measured.
        memory_mb: Peak above the imports.
        process_mb: Peak of the whole process.
        loss: After as many epochs as the side's longest call that all sides made.
        loss_is_far: From the others' (:data:`FAR`).
        note: What the side says about how it trained, from its longest call.
        absent: Why there are no figures.
        rounds: How many they are medians of.
        imports_s: See :class:`benchmarks.sides.Trained`.
    """

    side: str
    first_s: float | None = None
    step_us: float | None = None
    totals: Mapping[int, Total] | None = None
    memory_mb: float | None = None
    process_mb: float | None = None
    loss: float | None = None
    loss_is_far: bool = False
    note: str = ""
    absent: str = ""
    rounds: int = 0
    imports_s: float = 0.0


def steady(epochs_s: Sequence[float], side: str) -> list[float]:
    """The seconds of the epochs that count as steady.

    All but the first two; of a side that may change over to another engine on its way, the last third.
    """
    return list(epochs_s[-max(1, len(epochs_s) // 3) :] if side == "stoker-auto" else epochs_s[2:])


def step_us(measurements: Iterable[Measurement]) -> float | None:
    """Microseconds of a steady step: the median over the calls of each call's median."""
    medians = [
        statistics.median(steady(m["epochs_s"], m["side"])) / m["steps"] * 1e6
        for m in measurements
        if m["epochs"] >= FEWEST
    ]
    return statistics.median(medians) if medians else None


def total(measurements: Sequence[Measurement], epochs: int) -> Total | None:
    """Seconds of a call of so many epochs; extrapolated from the longest shorter one where there is none."""
    if done := [m["total_s"] for m in measurements if m["epochs"] == epochs]:
        return Total(statistics.median(done), (max(done) - min(done)) / 2)
    enough = [m["epochs"] for m in measurements if FEWEST <= m["epochs"] < epochs]
    if not enough:
        return None
    calls = [m for m in measurements if m["epochs"] == max(enough)]
    seconds = [predicted(epochs, m["epochs_s"][0], statistics.median(steady(m["epochs_s"], m["side"]))) for m in calls]
    return Total(statistics.median(seconds), (max(seconds) - min(seconds)) / 2, extrapolated=True)


def by_table(measurements: Iterable[Measurement]) -> dict[Key, dict[str, list[Measurement]]]:
    """Measurements by table and side, in the order in which they were made."""
    tables: dict[Key, dict[str, list[Measurement]]] = {}
    for m in measurements:
        key = Key(m["job"], m["batch_size"], m["threads"], m["rows"])
        tables.setdefault(key, {}).setdefault(m["side"], []).append(m)
    return tables


def summarise(measurements: Iterable[Measurement]) -> dict[Key, list[Figures]]:
    """The figures of each table, a row a side; tables in the order of the plan."""
    tables, jobs = by_table(measurements), list(JOBS)

    def place(key: Key) -> tuple[int, bool, int, int]:  # as the plan has them, in whatever order they were measured
        return key.threads, key.batch_size != JOBS[key.job].batch_size, jobs.index(key.job), key.batch_size

    return {key: _rows(tables[key]) for key in sorted(tables, key=place)}


def _rows(sides: Mapping[str, Sequence[Measurement]]) -> list[Figures]:
    done = {side: [m for m in made if "epochs_s" in m] for side, made in sides.items()}
    length = _common_length(done.values())
    losses = {
        side: statistics.median(m["loss"] for m in made if m["epochs"] == length)
        for side, made in done.items()
        if any(m["epochs"] == length for m in made)
    }
    middle = statistics.median(losses.values()) if losses else 0.0
    rows = []
    for side, made in sides.items():
        calls = done[side]
        if not calls:
            absent = [m.get("skipped") or f"failed: {m.get('failed')}" for m in made]
            rows.append(Figures(side, absent=absent[0]))
            continue
        totals = {epochs: total(calls, epochs) for epochs in sorted({*LENGTHS, *(m["epochs"] for m in calls)})}
        memory, process = ([m[name] for m in calls if m.get(name) is not None] for name in ("memory_mb", "process_mb"))
        loss = losses.get(side)
        failed = [f"a call of {m['epochs']} epochs failed: {m['failed']}" for m in made if "failed" in m]
        rows.append(
            Figures(
                side,
                first_s=statistics.median(m["epochs_s"][0] for m in calls),
                step_us=step_us(calls),
                totals={epochs: seconds for epochs, seconds in totals.items() if seconds is not None},
                memory_mb=max(memory, default=None),
                process_mb=max(process, default=None),
                loss=loss,
                loss_is_far=loss is not None and not abs(loss - middle) <= max(FAR * middle, FAR_AT_LEAST),
                rounds=len({m["round"] for m in calls}),
                imports_s=statistics.median(m.get("imports_s", 0.0) for m in calls),
                note="; ".join([max(calls, key=lambda m: m["epochs"])["note"], *failed[:1]]).strip("; "),
            )
        )
    return rows


def _common_length(sides: Iterable[Sequence[Measurement]]) -> int:
    """The longest call that all sides made; where they have none in common, the one that most of them made."""
    counts: dict[int, int] = {}
    for calls in sides:
        for epochs in {m["epochs"] for m in calls}:
            counts[epochs] = counts.get(epochs, 0) + 1
    return max(counts, key=lambda epochs: (counts[epochs], epochs), default=0)
