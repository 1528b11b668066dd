"""What a trial is: a job of ``fit`` with the trial's settings, a Trainer that the user builds, or a user's function."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna

from stoker.data.dataset import DataSet
from stoker.engines.auto import AutoEngine
from stoker.engines.registry import ENGINES, choose_engine
from stoker.engines.step import Engine
from stoker.engines.together import Lane
from stoker.errors import ConfigError, InputTypeError, StokerError
from stoker.jobs.config import FitConfig, build_config
from stoker.jobs.fit import job_trainer, load_sources, named_model
from stoker.jobs.prepare import Encoded, Prepared, assemble, encode
from stoker.jobs.rate import find_rate, with_rate
from stoker.metrics.registry import default_metrics, entry_for
from stoker.models.own import OwnModel
from stoker.settings import merge
from stoker.training.callbacks import Callback
from stoker.training.checkpoints.resuming import Checkpoints
from stoker.training.history import History, Row
from stoker.training.preflight.findings import act_on
from stoker.training.trainer import Trainer
from stoker.tuning.interrupted import continued, forget
from stoker.tuning.settings import placed
from stoker.tuning.space import Space
from stoker.tuning.storage import LOST, patiently
from stoker.tuning.study import REASON, Outcome

__all__ = ["BuildObjective", "FitObjective", "OwnObjective"]

Notify = Callable[[str], None]
KEPT_ENCODINGS = 4  # of those that differ by tuned settings of the data


class _Reporter(Callback):
    """Tells a trial its epochs, and ends it early.

    Attributes:
        pruned: Whether the pruner gave it up.
        stopped: Whether it was to stop unfinished.
    """

    def __init__(self, trial: optuna.Trial, column: str, stop: Callable[[], bool]) -> None:
        self.pruned = False
        self.stopped = False
        self._trial = trial
        self._column = column
        self._stop = stop
        self._known = set(patiently(lambda: trial.storage.get_trial(trial._trial_id)).intermediate_values)

    def on_epoch_end(self, row: Row, is_best: bool) -> bool:  # noqa: ARG002
        epoch, value = int(row["epoch"]), row[self._column]
        if epoch not in self._known:  # else it is run again, to the same values
            patiently(lambda: self._trial.report(value, epoch))
        self.pruned = patiently(self._trial.should_prune)
        self.stopped = not self.pruned and self._stop()
        return self.pruned or self.stopped


class _Kept:
    """An objective whose trials keep checkpoints.

    Attributes:
        folder: Where; ``None`` if they keep none.
        trials: How many there are to be.
    """

    folder: Path | None = None
    trials = 1

    def over(self, number: int) -> None:
        """See :class:`stoker.tuning.worker.Objective`: its checkpoints go."""
        forget(self.folder, number)


class FitObjective(_Kept):
    """A job of :func:`stoker.fit`, without its run directory.

    The data are loaded once in a process, and encoded once for all trials whose settings of the data are the same.

    Args:
        source: See :func:`stoker.fit`.
        raw: The settings that all trials share, by group.
        space: What is tried; if it follows from the data, it is put into ``space`` afterwards.
        metric: What trials are compared by: its value on the validation split in the best epoch.
        valid: See :func:`stoker.fit`.
        test: Likewise.
        model: The user's own model, if its class was passed.
    """

    reports = False  # it does

    def __init__(
        self,
        source: Any,
        raw: Mapping[str, Any],
        space: Space | None,
        metric: str,
        *,
        valid: Any = None,
        test: Any = None,
        model: Any = None,
    ) -> None:
        self.source, self.valid, self.test, self.model = source, valid, test, model
        self.raw, self.space, self.metric = dict(raw), space, metric
        self._loaded: dict[str, DataSet] | None = None
        self._encoded: dict[str, Encoded] = {}

    def __getstate__(self) -> dict[str, Any]:  # each process loads its own
        return self.__dict__ | {"_loaded": None, "_encoded": {}}

    def load(self) -> dict[str, DataSet]:
        """The sources of the splits.

        Raises:
            SourceNotFoundError: One is not there.
            DataError: It cannot be used.
        """
        if self._loaded is None:
            data = build_config(self.raw).data
            valid = data.valid if self.valid is None else self.valid
            test = data.test if self.test is None else self.test
            sources = {"train": self.source, "valid": valid, "test": test}
            self._loaded = load_sources(sources, data.target, data.skip_bad)
        return self._loaded

    def config(self, values: Mapping[str, Any]) -> FitConfig:
        """The settings of a trial with these values."""
        return build_config(merge(self.raw, placed(values)))

    def encoded(self, config: FitConfig, own: OwnModel | None, notify: Notify = lambda _: None) -> Encoded:
        """The data as these settings have them."""
        key = f"{config.data.model_dump_json()} {own is not None and own.takes_codes} {own is None}"
        if key not in self._encoded:
            loaded = self.load()
            data = encode(
                loaded["train"], config, valid=loaded.get("valid"), test=loaded.get("test"), own=own, notify=notify
            )
            if "valid" not in data.splits:
                fix = "Leave valid_size as it is, or pass a source of it."
                raise ConfigError("tune", "needs a validation split to compare trials by", "none", fix)
            while len(self._encoded) >= KEPT_ENCODINGS:
                self._encoded.pop(next(iter(self._encoded)))
            self._encoded[key] = data
        return self._encoded[key]

    def begin(self, notify: Notify) -> Encoded:
        """Load and encode the data for the first time, and settle what is measured.

        Raises:
            DataError: The data cannot be used as they are.
            ConfigError: A setting does not fit them.
        """
        config = build_config(self.raw)
        data = self.encoded(config, named_model(config, self.model), notify)
        if self.metric != "loss":
            entry_for(self.metric, data.task)  # whether it is one for this task
        metrics: Any = config.training.metrics
        if metrics == "auto":
            metrics = default_metrics(data.task, len(data.classes))
        if self.metric != "loss" and self.metric not in metrics:
            self.raw = merge(self.raw, {"training": {"metrics": [*metrics, self.metric]}})
        self.raw = merge(self.raw, {"training": {"monitor": f"valid_{self.metric}"}})
        return data

    def suggest(self, trial: optuna.Trial | optuna.trial.FixedTrial) -> dict[str, Any]:
        """The values of a trial."""
        assert self.space is not None  # it is there when there are trials
        space = self.space
        return patiently(lambda: space.suggest(trial))  # type: ignore[arg-type]  # a FixedTrial suggests as well

    def __call__(self, trial: optuna.Trial, stop: Callable[[], bool], lane: Lane | None = None) -> Outcome:
        config = self.config(self.suggest(trial))
        own = named_model(config, self.model)
        found: dict[str, Any] = {}
        reporter = _Reporter(trial, f"valid_{self.metric}", stop)

        def train(keeping: Checkpoints | None) -> History:
            ready = assemble(self.encoded(config, own), config, own, notify=lambda _: None)
            trainer = job_trainer(ready, self._engine(config, lane))
            if ready.config.training.lr == "auto":
                rate = found["lr"] = find_rate(trainer, ready, None).suggestion
                ready = with_rate(ready, rate)
                trainer = job_trainer(ready, self._engine(config, lane))
            return _train(trainer, ready, reporter, keeping)

        history = continued(self.folder, trial.number, trial.params, train)
        return _outcome(history, reporter, found)

    def _engine(self, config: FitConfig, lane: Lane | None = None) -> Engine:
        """Chosen by the whole study's length, and never by a clock, on which values would depend in their last bits."""
        return choose_engine(config.training.engine, deterministic=True, trainings=self.trials, lane=lane)


def _train(trainer: Trainer, ready: Prepared, reporter: _Reporter, keeping: Checkpoints | None) -> History:
    """Train a trial. One that was interrupted comes here again with the same settings and seed."""
    training = ready.config.training
    batch_size = training.batch_size
    act_on(one for one in trainer.check(ready.splits["train"], batch_size=batch_size) if one.severity == "error")
    return trainer.fit(
        ready.splits["train"],
        ready.splits["valid"],
        epochs=training.epochs,
        batch_size=batch_size,
        patience=training.patience,
        min_delta=training.min_delta,
        monitor=training.monitor,
        restore_best=False,
        callbacks=[reporter],
        progress="none",
        check=False,
        checkpoint=keeping,
    )


def _outcome(history: History, reporter: _Reporter, found: Mapping[str, Any]) -> Outcome:
    about = {**found, "epochs": len(history), "seconds": round(history.seconds, 3)}
    if reporter.pruned:
        return Outcome("pruned", about=about)
    if reporter.stopped or history.stopped == "interrupted":
        return Outcome("interrupted")
    assert history.monitor is not None  # there is a validation split
    return Outcome("complete", history.best[history.monitor], {**about, "best_epoch": history.best_epoch})


class BuildObjective(_Kept):
    """A :class:`stoker.Trainer` that the user builds from the trial's values, trained on the user's data.

    Args:
        build: From values by name to a Trainer.
        space: What is tried; ``epochs``, ``batch_size`` and ``patience`` among them are for the training.
        metric: See :class:`FitObjective`.
        train: What :meth:`stoker.Trainer.fit` takes.
        valid: Likewise.
        fit: Further arguments of it.
    """

    reports = False

    def __init__(
        self,
        build: Callable[[dict[str, Any]], Trainer],
        space: Space,
        metric: str,
        *,
        train: Any,
        valid: Any,
        fit: Mapping[str, Any],
    ) -> None:
        self.build, self.space, self.metric = build, space, metric
        self.train, self.valid, self.fit = train, valid, dict(fit)

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """The values of a trial."""
        return patiently(lambda: self.space.suggest(trial))

    def __call__(self, trial: optuna.Trial, stop: Callable[[], bool], lane: Lane | None = None) -> Outcome:
        values = self.suggest(trial)
        reporter = _Reporter(trial, f"valid_{self.metric}", stop)
        settings = self.fit | {name: values[name] for name in ("epochs", "batch_size", "patience") if name in values}
        settings |= {"monitor": f"valid_{self.metric}", "restore_best": False, "progress": "none"}

        def train(keeping: Checkpoints | None) -> History:
            trainer = self.build(dict(values))
            if not isinstance(trainer, Trainer):
                raise InputTypeError("build", "must return a stoker.Trainer", type(trainer).__name__)
            if lane is not None and trainer.engine_asked in ENGINES:
                trainer.engine = choose_engine(trainer.engine_asked, lane=lane)
            elif isinstance(trainer.engine, AutoEngine):  # as in a study of settings
                trainer.engine = choose_engine("auto", deterministic=True, trainings=self.trials)
            return trainer.fit(self.train, self.valid, callbacks=[reporter], **settings | {"checkpoint": keeping})

        history = continued(self.folder, trial.number, trial.params, train)
        return _outcome(history, reporter, {})


class OwnObjective:
    """A function of the user's own, ``objective(trial, *args) -> float``, as Optuna has them.

    Args:
        function: The function; it may call ``trial.report`` and ``trial.should_prune``, and raise ``TrialPruned``.
        args: Further arguments, such as data.
        reports: Whether it is a mistake if it reports no epochs.
    """

    def __init__(self, function: Callable[..., Any], args: Sequence[Any], *, reports: bool) -> None:
        self.function, self.args, self.reports = function, tuple(args), reports

    def over(self, number: int) -> None:
        """See :class:`stoker.tuning.worker.Objective`: nothing is kept."""

    def __call__(self, trial: optuna.Trial, stop: Callable[[], bool]) -> Outcome:
        try:
            value = self.function(trial, *self.args)
        except (optuna.TrialPruned, StokerError, MemoryError, KeyboardInterrupt, *LOST):
            raise
        except Exception as error:
            if stop():
                return Outcome("interrupted")
            return Outcome("failed", about={REASON: f"{type(error).__name__}: {error}"})
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(float(value)):
            return Outcome("failed", about={REASON: f"its value must be a finite number, got {value!r}."})
        return Outcome("complete", float(value))
