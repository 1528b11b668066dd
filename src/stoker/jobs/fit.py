"""The main job: from a source to a trained, measured, saved network."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stoker.data.dataset import DataSet, ImageSet, Provenance, Table
from stoker.data.sources import load as load_source
from stoker.engines.replicas import Replicas
from stoker.engines.step import Engine
from stoker.errors import ConfigError, NonFiniteLossError, StokerError
from stoker.jobs.config import FitConfig, build_config
from stoker.jobs.keeping import DEFAULT_EVERY, Job, alone, can_go_on, remove_job, write_job
from stoker.jobs.loggers import check_loggers, make_loggers, record_metrics
from stoker.jobs.prepare import Prepared, job_criterion, prepare, trained_part
from stoker.jobs.rate import find_rate, with_rate
from stoker.jobs.run import Run
from stoker.jobs.writing import FIGURE_BYTES, Trained, model_bytes, resolved_settings, write_run
from stoker.models.own import OwnModel, OwnModelConfig, own_model
from stoker.models.registry import model_config
from stoker.runs.files import (
    CHECKPOINTS,
    new_directory,
    refuse_bad_path,
    require_room,
)
from stoker.training.callbacks import Callback
from stoker.training.checkpoints.resuming import Checkpoints
from stoker.training.device import resolve_device
from stoker.training.history import History
from stoker.training.interrupts import CtrlC, Terminated
from stoker.training.lr_finder import LrCurve
from stoker.training.preflight.findings import act_on
from stoker.training.progress import ProgressMode, progress_callback
from stoker.training.trainer import Trainer

__all__ = ["Order", "carry_out", "fit", "job_trainer", "load_sources", "named_model", "prepared"]

Notify = Callable[[str], None]


def fit(
    source: Any,
    *,
    out: str | Path | None = None,
    config: str | Path | Mapping[str, Any] | None = None,
    assignments: Sequence[str] = (),
    valid: Any = None,
    test: Any = None,
    progress: ProgressMode = "auto",
    notify: Notify | None = None,
    callbacks: Iterable[Callback] = (),
    log: str | Sequence[str] = (),
    now: datetime | None = None,
    checkpoint_every: str | None = None,
    keep: int = 3,
    **settings: Any,
) -> Run:
    """Train a network on a table or on images, measure it honestly, and keep all of it in a run directory.

    The best epoch's weights are kept, by the loss on the validation split; the test split is used once, at the end.

    Args:
        source: A file (CSV, TSV, Parquet, Arrow, JSON lines), a directory of images, a named data set such as
            ``"digits"``, a pandas, polars or Arrow table, or ``(X, y)`` arrays.
        out: The run's directory, which must not exist; by default ``runs/<source>-<time>``.
        config: A TOML file with the tables ``[data]``, ``[model]`` and ``[training]``, and ``preset`` above them;
            or what such a file holds.
        assignments: ``"training.lr=0.1"``, over everything else.
        valid: A source of this split, instead of rows held back from ``source``.
        test: Likewise.
        progress: ``"auto"`` (a live display on a terminal, lines elsewhere), ``"rich"``, ``"plain"`` or ``"none"``.
        notify: Told in words what the user should know: columns and rows left out, duplicates across splits.
        callbacks: Told what happens in training.
        log: ``"tensorboard"`` (event files in the run's directory), ``"mlflow"`` (a run where MLflow is configured to
            keep them, ``MLFLOW_TRACKING_URI``), or both. Each needs the extra of its name.
        now: The time of the run, by default the clock's.
        checkpoint_every: How often the training is kept on the disk, ``"1epoch"``, ``"500steps"``, ``"2min"``, so that
            :func:`stoker.resume` can go on from there. By default every minute. The checkpoints are removed when the
            run is whole, unless they were asked for here or Ctrl-C ended the training.
        keep: How many of the newest checkpoints remain.
        **settings: Any setting by its short name (:func:`stoker.jobs.config.setting_names`): ``target="price"``,
            ``epochs=50``, ``hidden=(50, 40)``, ``lr=0.01``; ``preset="best"`` for a strong model of a
            table. ``lr="auto"`` looks for a learning rate first (:meth:`stoker.training.trainer.Trainer.find_lr`). A
            model of your own is ``model="package.module:Class"``, or the class itself, with
            ``model_args={"n_hidden": 50}``; :func:`stoker.models.own.filled_in` says which arguments follow from the
            data, :class:`stoker.models.own.OwnNetwork` what it is called with.

    Returns:
        The run.

    Raises:
        ConfigError: A setting is unknown, out of range, or does not fit the data.
        CheckError: The first batch shows that training would fail or be in vain.
        SourceNotFoundError: A source is not there.
        DataError: The data cannot be used as they are; names column, row and value.
        RunExistsError: ``out`` exists.
        NonFiniteLossError: The loss became NaN or infinite; if an epoch was finished before, the run of the best one
            is kept, and the text says where.
        TrainingError: ``lr="auto"`` found no rate at which the loss falls.
        MissingExtraError: What ``log`` needs is not installed.
        OutOfMemoryError: A batch does not fit; the text says its size.
        CheckpointError: A checkpoint that was asked for cannot be written.
        DiskFullError: There is no room; what is trained is then kept in the system's temporary directory.
        SystemExit: SIGTERM came while it was training: with code 143, after a checkpoint was written.
        RunError: The run cannot be written for another reason; likewise.

    Example:
        >>> run = fit("housing.csv", target="price", epochs=50)
        >>> run.metrics["test"]["rmse"]
    """
    given = settings.get("model")
    if given is not None and not isinstance(given, str):
        settings["model"] = own_model(given).name
    known = build_config(config, settings, assignments)
    replicas = Replicas.found(resolve_device(known.training.device))
    first = replicas is None or replicas.first
    if first:
        refuse_bad_path(out)
    if replicas is not None and checkpoint_every is not None:
        fix = "Leave checkpoint_every out, or train in one process."
        raise ConfigError("checkpoint_every", "is for training in one process", f"{replicas.world} processes", fix)
    how: dict[str, Any] = {
        "every": checkpoint_every or DEFAULT_EVERY,
        "keep": keep,
        "asked": checkpoint_every is not None,
    }
    Checkpoints(None, how["every"], keep)  # whether they can be so
    logs = check_loggers(log)
    own = named_model(known, given)
    sources = {"train": source, "valid": _first(valid, known.data.valid), "test": _first(test, known.data.test)}
    order = Order(known, sources, own, logs, tuple(callbacks), progress, notify if first else None, replicas)
    ready, origins = prepared(order)
    job = Job.of(sources, origins, known, log=logs, **how)
    with _directory(replicas, out, ready.provenance.name, now or datetime.now(UTC)) as path:
        conclude = carry_out(path, order, ready, origins, None if replicas is not None else job)
    return conclude()


@dataclass(frozen=True)
class Order:
    """A job as it was ordered.

    Attributes:
        config: The settings.
        sources: By split; ``None`` where a split has none of its own.
        own: The model of the user's own, if it is one.
        logs: Loggers by name.
        callbacks: Told what happens in training.
        progress: How it is shown.
        notify: Told what the user should know; ``None`` for nobody.
        replicas: The processes that train together; ``None`` for one alone.
        force: Whether a training goes on with other software than it was begun with.
        tested: Whether the test split is used at the end. By one network of an ensemble it is not, but by all together.
        notices: What there was to tell.
    """

    config: FitConfig
    sources: Mapping[str, Any]
    own: OwnModel | None
    logs: tuple[str, ...]
    callbacks: tuple[Callback, ...]
    progress: ProgressMode
    notify: Notify | None
    replicas: Replicas | None = None
    force: bool = False
    tested: bool = True
    notices: list[str] = field(default_factory=list)

    def tell(self, text: str) -> None:
        """Tell the user, and keep it for the run."""
        self.notices.append(text)
        self.say(text)

    def say(self, text: str) -> None:
        """Tell the user what is about this process alone."""
        if self.notify is not None:
            self.notify(text)


def prepared(order: Order) -> tuple[Prepared, dict[str, Provenance]]:
    """Load the sources, and get everything ready; with where they came from.

    Raises:
        SourceNotFoundError: A source is not there.
        DataError: The data cannot be used as they are.
    """
    loaded = load_sources(dict(order.sources), order.config.data.target, order.config.data.skip_bad)
    valid, test = loaded.get("valid"), loaded.get("test")
    ready = prepare(loaded["train"], order.config, valid=valid, test=test, own=order.own, notify=order.tell)
    return ready, {name: data.provenance for name, data in loaded.items()}


def carry_out(
    path: Path, order: Order, ready: Prepared, origins: dict[str, Provenance], job: Job | None
) -> Callable[[], Run]:
    """Train, from the newest checkpoint on if there is one, measure, and write the run.

    Args:
        path: The run's directory.
        order: What was ordered.
        ready: What is trained on.
        origins: Where it came from.
        job: What is kept beside the checkpoints; ``None`` for no checkpoints.

    Returns:
        What is left to do once the directory is whole: it gives the run, or raises what ended the training early.
    """
    replicas, tell = order.replicas, order.tell
    first = replicas is None or replicas.first
    trainer = job_trainer(ready)
    with alone(path) if job is not None else nullcontext():
        if first:
            kept = 0 if job is None or not job.asked else (job.keep + 1) * 5
            require_room(path, (2 + kept) * model_bytes(ready.model) + FIGURE_BYTES)
        if job is not None:
            write_job(path, job)
        curve: LrCurve | None = None
        if ready.config.training.lr == "auto":
            curve = find_rate(trainer, ready, order.notify)
            tell(f"learning rate {curve.suggestion:.3g}, a tenth of where the loss was lowest: figures/lr_finder.png")
            ready = with_rate(ready, curve.suggestion)
            trainer = job_trainer(ready)
        about = {"source": ready.provenance.name, **resolved_settings(ready, trainer)}
        loggers = make_loggers(order.logs if first else (), path, about)
        _check(trainer, ready, tell)
        checkpoints = None if job is None else _checkpoints(path, job, order)
        try:
            history, failure = _train(trainer, ready, [*order.callbacks, *loggers], order.progress, checkpoints)
        except (Terminated, KeyboardInterrupt) as error:
            if job is not None and can_go_on(path):
                signal = "SIGTERM" if isinstance(error, Terminated) else "Ctrl-C"
                order.say(f"stopped by {signal}; it goes on with: stoker resume {shlex.quote(str(path))}")
            raise
        with CtrlC():  # measuring and writing take a moment, in which nothing may be lost
            measured = {name: split for name, split in ready.splits.items() if order.tested or name != "test"}
            metrics = {name: trainer.evaluate(split) for name, split in measured.items()}
            _refuse_broken(metrics["train"]["loss"], history)
            for name, values in metrics.items():
                if not math.isfinite(values["loss"]):
                    tell(f"the loss of the {name} split is {values['loss']}: look for extreme values in it")
            if first:
                write_run(path, Trained(ready, trainer, history, metrics, origins, tell, order.notices, curve))
            if job is not None and not job.asked and history.stopped != "interrupted":
                remove_job(path)

    def conclude() -> Run:
        record_metrics(loggers, metrics)
        if failure is not None:
            failure.fix += f" The run up to there is kept in {path}."
            raise failure
        model = None if order.own is None else order.own.factory
        return Run(path, device=ready.config.training.device, model=model)

    return conclude


def _checkpoints(path: Path, job: Job, order: Order) -> Checkpoints:
    return Checkpoints(
        path / CHECKPOINTS,
        job.every,
        job.keep,
        resume=True,
        force=order.force,
        asked=job.asked,
        notify=order.say,
    )


def _stays(path: Path, error: BaseException) -> bool:
    """Whether a run that did not come to its end can go on: what goes wrong by itself would go wrong again."""
    if isinstance(error, NonFiniteLossError) or not can_go_on(path):
        return False
    if isinstance(error, StokerError):
        error.fix += f" What was trained goes on with: stoker resume {shlex.quote(str(path))}."
    return True


@contextmanager
def _directory(replicas: Replicas | None, out: str | Path | None, name: str, now: datetime) -> Iterator[Path]:
    """The run's directory, which the first process makes and fills; the others wait until it is whole."""
    if replicas is None or replicas.first:
        with new_directory(out, name, now, stays=_stays) as path:
            if replicas is not None:
                replicas.text(str(path))
            yield path
    else:
        assert replicas is not None
        yield Path(replicas.text(""))
    if replicas is not None:
        replicas.any(False)  # each waits here for all


def named_model(config: FitConfig, given: Any) -> OwnModel | None:
    """The model of the user's own, if it is one, imported before the data are read."""
    model = model_config(config.model) if "name" in config.model else None
    if not isinstance(model, OwnModelConfig):
        return None
    passed = None if given is None or isinstance(given, str) else own_model(given)
    own = passed if passed is not None and passed.name == model.name else own_model(model.name)
    own.check(model.args)
    return own


def _check(trainer: Trainer, ready: Prepared, tell: Notify) -> None:
    """Look at the first batch; what lets training go on is told, and kept in the run, as other notices are."""
    findings = trainer.check(ready.splits["train"], batch_size=ready.config.training.batch_size)
    act_on(finding for finding in findings if finding.severity == "error")
    for finding in findings:
        tell(str(finding))


def _train(
    trainer: Trainer,
    ready: Prepared,
    callbacks: Iterable[Callback],
    progress: ProgressMode,
    checkpoints: Checkpoints | None,
) -> tuple[History, NonFiniteLossError | None]:
    """Train; what ends it early is handed back if there is an epoch to keep, and raised if there is none."""
    training = ready.config.training
    try:
        history = trainer.fit(
            ready.splits["train"],
            ready.splits.get("valid"),
            epochs=training.epochs,
            batch_size=training.batch_size,
            patience=training.patience,
            min_delta=training.min_delta,
            monitor=training.monitor,
            restore_best=True,
            callbacks=callbacks,
            progress=progress_callback(progress, engine=False),  # the run's record and the summary say it
            check=False,  # see _check
            checkpoint=checkpoints,
        )
    except NonFiniteLossError as error:
        if error.history is None or not error.history.rows:
            raise
        return error.history, error
    return history, None


def _refuse_broken(loss: float, history: History) -> None:
    """The last step of an epoch may break what its own loss, taken before it, does not show yet."""
    if math.isfinite(loss):
        return
    fix = "Try a lower learning rate or clip_norm=1.0, or look for extreme values."
    error = NonFiniteLossError(f"after epoch {history.best_epoch}", "the loss must be finite", loss, fix)
    error.history = history
    raise error


def _first(given: Any, setting: str | None) -> Any:
    return given if given is not None else setting


def load_sources(sources: dict[str, Any], target: str | None, skip_bad: bool) -> dict[str, DataSet]:
    """Load each split that has a source of its own; ``"train"`` comes first."""
    loaded: dict[str, DataSet] = {}
    shape: tuple[int, int, int] | None = None
    for name, source in sources.items():
        if source is None:
            continue
        # whether the others have the target is seen to when they are split off, where the error can say which it is
        wanted = target if name == "train" or isinstance(source, tuple) else None
        data = loaded[name] = load_source(source, target=wanted, skip_bad=skip_bad, image_shape=shape)
        if name == "train" and isinstance(data, ImageSet):
            shape = (int(data.images.shape[1]), int(data.images.shape[2]), int(data.images.shape[3]))
        if name == "train" and isinstance(data, Table):
            target = target or data.target
    return loaded


def job_trainer(ready: Prepared, engine: Engine | None = None) -> Trainer:
    """The Trainer of a job, with another engine than its settings name if one is given."""
    training = ready.config.training
    return Trainer(
        trained_part(ready.model, ready.recipe.kind),
        job_criterion(ready.config, ready.recipe, ready.model),
        training.optimizer,
        lr=None if isinstance(training.lr, str) else training.lr,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
        optimizer_settings=training.optimizer_settings,
        schedule=training.schedule,
        schedule_settings=training.schedule_settings,
        schedule_interval=training.schedule_interval,
        groups=training.groups,
        clip_norm=training.clip_norm,
        accumulate=training.accumulate,
        ema=training.ema,
        metrics=training.metrics,
        task=ready.recipe.task,
        device=training.device,
        precision=training.precision,
        deterministic=training.deterministic,
        seed=training.seed,
        engine=engine or training.engine,
    )
