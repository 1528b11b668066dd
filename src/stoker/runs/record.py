"""What ``config.json`` says: how a run came about, read back without trusting a byte of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from stoker.errors import RunError, StokerError
from stoker.runs.files import read_json
from stoker.settings import Settings, parse_settings
from stoker.training.history import StopReason

__all__ = ["FORMAT", "Record", "SourceRecord", "TrainingRecord", "read_metrics", "read_record"]

FORMAT = 1
Count = Annotated[int, Field(ge=0)]


class SourceRecord(Settings):
    """Where a split came from; see :class:`stoker.data.dataset.Provenance`."""

    name: str
    origin: str
    fingerprint: str
    rows: Count


class TrainingRecord(Settings):
    """How training went.

    Attributes:
        engine, engine_reason: What carried out the steps, and why.
        device: Where.
        epochs, steps, seconds: How long.
        monitor: By what epochs were compared; ``None`` without a validation split.
        best_epoch: The one whose weights were kept.
        stopped: Why it ended.
        parameters: The model's size.
    """

    engine: str
    engine_reason: str
    device: str
    epochs: Count
    steps: Count
    monitor: str | None
    best_epoch: Count
    stopped: StopReason
    seconds: Annotated[float, Field(ge=0)]
    parameters: Count


class Record(Settings):
    """All of ``config.json``.

    Attributes:
        format: Of this file.
        versions: Of Stoker, Python and the packages that the numbers depend on.
        name: The source's.
        sources: The training source, and those of the splits that have one of their own.
        rows: Of each split.
        duplicates: Rows that stand in several splits: what, and how many.
        notices: What the user was told.
        settings: :class:`stoker.jobs.config.FitConfig`, with what was left open filled in.
        training: How training went.
        recipe: :class:`stoker.runs.artifact.Recipe`.
    """

    format: Literal[1]
    versions: dict[str, str]
    name: str
    sources: dict[Literal["train", "valid", "test"], SourceRecord]
    rows: dict[str, Count]
    duplicates: dict[str, Count]
    notices: tuple[str, ...]
    settings: dict[str, Any]
    training: TrainingRecord
    recipe: dict[str, Any]


def read_record(path: Path) -> Record:
    """Read ``config.json``.

    Raises:
        RunError: It is missing, damaged, or of another format.
    """
    data = read_json(path)
    if data.get("format") != FORMAT:
        got = repr(data.get("format"))
        raise RunError(str(path.parent), f"must be of format {FORMAT}", got, "It was written by another Stoker.")
    try:
        return parse_settings(Record, data, "config")
    except StokerError as error:
        raise RunError(str(path.parent), f"config.json is damaged ({error})", "", "Copy the run again.") from None


class _Metrics(Settings):
    splits: dict[str, dict[str, float | None]]


def read_metrics(path: Path) -> dict[str, dict[str, float]]:
    """Read ``metrics.json``: split to metric to value, NaN where the file has ``null``.

    Raises:
        RunError: It is missing or damaged.
    """
    try:
        read = parse_settings(_Metrics, {"splits": read_json(path)})
    except RunError:
        raise
    except StokerError as error:
        raise RunError(str(path), f"must hold numbers by split and name ({error})", "", "Copy the run again.") from None
    return {
        split: {name: float("nan") if value is None else value for name, value in values.items()}
        for split, values in read.splits.items()
    }
