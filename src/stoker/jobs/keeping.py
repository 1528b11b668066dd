"""What a run's directory holds while it is trained: checkpoints, and how the job was begun, so that it can go on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from stoker.data.dataset import Provenance
from stoker.errors import DataError, RunError, RunNotFoundError, StokerError
from stoker.jobs.config import FitConfig
from stoker.runs.files import CHECKPOINTS, JOB, read_json, refuse_links_out, write_json
from stoker.runs.record import SourceRecord
from stoker.settings import Settings, parse_settings
from stoker.training.checkpoints.files import checkpoint_paths, remove_checkpoints

__all__ = ["DEFAULT_EVERY", "Job", "alone", "can_go_on", "read_job", "refuse_other_data", "remove_job", "write_job"]

DEFAULT_EVERY = "1min"  # where nobody asks: short trainings are not held up, long ones lose a minute
Split = Literal["train", "valid", "test"]


class Job(Settings):
    """``checkpoints/job.json``: how a training was begun.

    Attributes:
        format: Of this file.
        given: What each split's source was called; ``None`` for an object in memory.
        sources: The sources as they were.
        settings: :class:`stoker.jobs.config.FitConfig`, as it was asked for.
        every: How often a checkpoint is written.
        keep: How many remain.
        asked: Whether checkpoints were asked for: then they stay when the run is whole.
        log: The loggers.
    """

    format: Literal[1] = 1
    given: dict[Split, str | None]
    sources: dict[Split, SourceRecord]
    settings: dict[str, Any]
    every: str
    keep: int
    asked: bool
    log: tuple[str, ...] = ()

    @classmethod
    def of(cls, given: Mapping[str, Any], origins: Mapping[str, Provenance], config: FitConfig, **how: Any) -> Job:
        """The job of these sources and settings."""
        names = {
            name: str(one) if isinstance(one, (str, Path)) else None for name, one in given.items() if one is not None
        }
        sources = {name: asdict(origin) for name, origin in origins.items()}
        raw = {"given": names, "sources": sources, "settings": config.model_dump(mode="json"), **how}
        return parse_settings(cls, raw, "job")


def write_job(run: Path, job: Job) -> None:
    """Keep it.

    Raises:
        DiskFullError: There is no room.
    """
    (run / CHECKPOINTS).mkdir(exist_ok=True)
    write_json(run / JOB, job.model_dump(mode="json"))


def read_job(run: Path) -> Job:
    """Read how a run's training was begun.

    Raises:
        RunNotFoundError: There is no run.
        RunError: It cannot go on: its checkpoints are gone, or damaged.
    """
    if not run.is_dir():
        raise RunNotFoundError("run", "no such directory", str(run), "stoker fit says where its run is.")
    if not (run / JOB).is_file():
        if not (run / "config.json").exists():
            raise RunNotFoundError("run", "must be a directory that stoker fit made", str(run))
        fix = "Train with --checkpoint-every 1epoch to keep them when a run is finished."
        raise RunError(str(run), "must have its checkpoints to go on", "none", fix)
    try:
        refuse_links_out(run)
        return parse_settings(Job, read_json(run / JOB, run), "job")
    except RunError:
        raise
    except StokerError as error:
        raise RunError(str(run / JOB), f"must say how the training was begun ({error})", "", "It is damaged.") from None


def refuse_other_data(job: Job, origins: Mapping[str, Provenance]) -> None:
    """Make sure that the sources are what they were.

    Raises:
        DataError: One is not.
    """
    for name, known in job.sources.items():
        now = origins.get(name)
        if now is None or now.fingerprint != known.fingerprint:
            rule = f"the run's {name} source must be as it was when the training began"
            got = "none" if now is None else f"other contents in {now.origin}"
            raise DataError("resume", rule, got, "Bring it back, or train anew.")


def can_go_on(run: Path) -> bool:
    """Whether there is a checkpoint."""
    return bool(checkpoint_paths(run / CHECKPOINTS))


def remove_job(run: Path) -> None:
    """Remove a run's checkpoints, and how it was begun."""
    with suppress(OSError):
        (run / JOB).unlink(missing_ok=True)
        (run / CHECKPOINTS / "lock").unlink(missing_ok=True)
    remove_checkpoints(run / CHECKPOINTS)


@contextmanager
def alone(run: Path) -> Iterator[None]:
    """Within this block no other process trains the run; the lock ends with the process, however that ends.

    Raises:
        RunError: Another one does.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    (run / CHECKPOINTS).mkdir(exist_ok=True)
    handle = os.open(run / CHECKPOINTS / "lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            # Not flock: a process that was forked to compile would hold it for longer than the training lives.
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            fix = "Wait for it, or end it."
            raise RunError(str(run), "must be trained by one process at a time", "another at work on it", fix) from None
        yield
    finally:
        os.close(handle)
