"""A run whose training did not come to its end, or is to go further, goes on from its newest checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from stoker.errors import CheckpointError, ConfigError, RunError, StokerError
from stoker.jobs.config import FitConfig
from stoker.jobs.fit import Order, carry_out, named_model, prepared
from stoker.jobs.keeping import Job, alone, read_job, refuse_other_data, write_job
from stoker.jobs.loggers import check_loggers
from stoker.jobs.run import Run
from stoker.models.importing import Factory
from stoker.models.own import named_anew
from stoker.runs.files import CHECKPOINTS
from stoker.settings import merge, parse_settings
from stoker.training.callbacks import Callback
from stoker.training.checkpoints.files import newest
from stoker.training.checkpoints.state import legs_of
from stoker.training.progress import ProgressMode

__all__ = ["resume"]


def resume(
    run: str | Path,
    *,
    epochs: int | None = None,
    force: bool = False,
    source: Any = None,
    valid: Any = None,
    test: Any = None,
    model: str | Factory | None = None,
    progress: ProgressMode = "auto",
    notify: Callable[[str], None] | None = None,
    callbacks: Iterable[Callback] = (),
) -> Run:
    """Go on with a training that was killed, or train a finished run further.

    It comes to the same weights, metrics and history, bit for bit, as if it had never been interrupted, on the same
    machine with the same software. Where there is no checkpoint yet, it begins at the beginning.

    Args:
        run: The run's directory.
        epochs: How many in all. More than the run was to have are as another call of :meth:`stoker.Trainer.fit`: the
            optimizer remembers, the schedule begins anew, and the best epoch of all is kept.
        force: Go on although the software, the device or the number of threads are others than the checkpoint's; the
            numbers may then come out otherwise. Data, settings and model must be the same in any case.
        source: What it is trained on, if that was an object in memory, or has moved.
        valid: Likewise.
        test: Likewise.
        model: For a run with a model of your own: the model, named once more as ``"package.module:Class"``, or the
            class itself. Nothing is imported because the run says so.
        progress: As for :func:`stoker.fit`.
        notify: Likewise.
        callbacks: Likewise; the same as before, if they keep a state.

    Returns:
        The run.

    Raises:
        RunNotFoundError: There is no such run.
        RunError: It has no checkpoints any more, is damaged, or is being trained by another process.
        CheckpointError: The checkpoint is of other software, or none of them is whole.
        ConfigError: ``epochs`` does not fit what is trained, or the model is not the run's.
        SourceNotFoundError: A source is not there.
        DataError: A source is not what it was.
    """
    path, tell = Path(run), notify or _silent
    job = read_job(path)
    if epochs is None and (path / "config.json").exists() and _is_over(path):
        tell("this run is finished: --epochs N (epochs=N) trains it further")
        return Run(path, model=model)
    config = parse_settings(FitConfig, job.settings, "settings")
    if epochs is not None:
        config = parse_settings(FitConfig, merge(job.settings, {"training": {"epochs": epochs}}), "settings")
    recorded = str(config.model.get("name", ""))
    if ":" in recorded and model is None:
        fix = f"Name it: --model {recorded}. Stoker imports nothing because a file says so."
        raise ConfigError("model", "of your own must be named to go on", "none", fix)
    named_anew(recorded, model)
    given = {"train": source, "valid": valid, "test": test}
    sources = {name: _source(name, given[name], job) for name in given}
    logs = check_loggers(job.log)
    own = named_model(config, model)
    order = Order(config, sources, own, logs, tuple(callbacks), progress, notify, force=force)
    ready, origins = prepared(order)
    refuse_other_data(job, origins)
    wanted = job.model_copy(update={"settings": config.model_dump(mode="json")})
    try:
        conclude = carry_out(path, order, ready, origins, wanted)
    except StokerError:
        with suppress(RunError), alone(path):  # unless it is another process that is at work on it
            if not _has_begun(path, config.training.epochs):
                write_job(path, job)  # what was asked for does not fit; what was begun is as it was
        raise
    return conclude()


def _has_begun(path: Path, epochs: int) -> bool:
    """Whether something is kept of a training of so many epochs."""
    try:
        found = newest(path / CHECKPOINTS, _silent)
        return found is not None and legs_of(found[1]).asked == epochs
    except CheckpointError:
        return False


def _is_over(path: Path) -> bool:
    found = newest(path / CHECKPOINTS, _silent)
    return found is None or found[1].get("stopped") != "running"


def _source(split: str, given: Any, job: Job) -> Any:
    if given is not None:
        return given
    if split not in job.given:
        return None
    known = job.given[split]
    if known is None:
        word = "source" if split == "train" else split
        fix = f"Pass it again in Python: stoker.resume(run, {word}=...)."
        raise RunError("resume", f"the {split} source was an object in memory, which no file can name", "", fix)
    return known


def _silent(_: str) -> None:
    """Tell nobody."""
