"""``stoker.tune``: a study from its first trial to the refit of its best."""

from __future__ import annotations

import json
import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import optuna
import torch
from optuna.trial import FrozenTrial

from stoker._version import __version__
from stoker.errors import ConfigError, RunExistsError, TrainingError, UnknownNameError
from stoker.jobs.run import Run
from stoker.runs.files import read_json, write_json
from stoker.training.progress import ProgressMode
from stoker.tuning.display import best_of, shown
from stoker.tuning.ensemble import Ensemble
from stoker.tuning.interrupted import forget
from stoker.tuning.objectives import FitObjective, OwnObjective
from stoker.tuning.plots import draw
from stoker.tuning.processes import Job, run
from stoker.tuning.question import Asked, Question, of_function, of_source
from stoker.tuning.refit import refit as refit_best
from stoker.tuning.refit import refit_path
from stoker.tuning.sampling import PRUNERS, SAMPLERS, make_pruner, make_sampler
from stoker.tuning.space import Space
from stoker.tuning.storage import Storage, naming_damage, open_storage, patiently, sqlite_url
from stoker.tuning.study import REASON, Direction, Plan, open_study
from stoker.tuning.threads import having_threads, threads_each
from stoker.tuning.worker import Ending

__all__ = ["TuneResult", "tune"]

Notify = Callable[[str], None]
REFIT = "stoker:refit"


@dataclass(frozen=True)
class TuneResult:
    """What came out of a study.

    Attributes:
        path: The study's directory.
        name: The study's name in its storage.
        storage: The storage's URL, without a password.
        direction: ``"minimize"`` or ``"maximize"``.
        total: How many trials there were to be.
        trials: All of them, as Optuna has them.
        ending: ``finished``, ``timeout`` (no more time to begin a trial) or ``interrupted`` (by Ctrl-C). The same call
            goes on.
        run: The refit of the best trial; ``None`` if there is none.
        ensemble: Likewise, of several seeds.
        files: Pictures.
    """

    path: Path
    name: str
    storage: str
    direction: Direction
    total: int
    trials: list[FrozenTrial]
    ending: Ending
    run: Run | None = None
    ensemble: Ensemble | None = None
    files: list[Path] = field(default_factory=list)

    @property
    def best_trial(self) -> FrozenTrial | None:
        """The best complete trial."""
        return best_of(self.trials, self.direction)

    @property
    def best_value(self) -> float | None:
        """Its value."""
        return None if self.best_trial is None else self.best_trial.value

    @property
    def best_params(self) -> dict[str, Any]:
        """Its parameters, as the study names them."""
        return {} if self.best_trial is None else dict(self.best_trial.params)

    @property
    def counts(self) -> dict[str, int]:
        """How many trials are ``complete``, ``pruned``, ``failed`` and ``running``."""
        found = Counter(trial.state.name for trial in self.trials)
        return {"complete": found["COMPLETE"], "pruned": found["PRUNED"], "failed": found["FAIL"]} | {
            "running": found["RUNNING"]
        }


def tune(
    what: Any,
    space: Space | Mapping[str, Any] | None = None,
    *,
    trials: int = 50,
    more: int | None = None,
    timeout: float | None = None,
    metric: str | None = None,
    direction: Direction | None = None,
    sampler: str = "tpe",
    pruner: str | None = None,
    study_name: str | None = None,
    storage: str | None = None,
    workers: int = 1,
    threads: int | Literal["auto"] = "auto",
    batch_trials: int = 1,
    out: str | Path | None = None,
    refit: bool = True,
    refit_seeds: int = 1,
    args: Sequence[Any] = (),
    train: Any = None,
    valid: Any = None,
    test: Any = None,
    config: str | Path | None = None,
    assignments: Sequence[str] = (),
    seed: int | None = None,
    progress: ProgressMode = "auto",
    notify: Notify | None = None,
    **settings: Any,
) -> TuneResult:
    """Look for good settings: a study of many trials, which can be killed at any moment and goes on where it was.

    Called again with the same arguments it joins the same study: finished trials are kept, one that was interrupted is
    run again to the same result, and there are no more than ``trials`` in all, however many workers there are. With one
    worker and the same seed the trials and their values are the same. Several workers are processes of their own, so
    that a script that asks for them needs ``if __name__ == "__main__":``.

    Args:
        what: A source, as :func:`stoker.fit` takes it; or ``build(params) -> Trainer``, with a ``space``, ``train`` and
            ``valid``; or ``objective(trial, *args) -> float``, without a space, as Optuna has them.
        space: What is tried: names of ``fit``'s settings to :class:`stoker.Float`, :class:`stoker.Int`,
            :class:`stoker.Categorical`, :class:`stoker.Layers`, or to a list of choices. For a source, by default
            ``[space]`` of ``config``, or else a good space of the model (:mod:`stoker.tuning.settings`).
        trials: How many there are to be in all.
        more: So many more than were planned until now, instead.
        timeout: Begin no trial after so many seconds.
        metric: What trials are compared by, on the validation split: ``"loss"`` (the default) or a metric's name.
        direction: ``"minimize"`` or ``"maximize"``, where it does not follow from the metric.
        sampler: ``"tpe"``, ``"random"``, ``"cmaes"``, ``"grid"`` or ``"gp"``.
        pruner: ``"median"`` (the default), ``"hyperband"``, ``"asha"`` or ``"none"``.
        study_name: By default of the source, the model or the function.
        storage: ``sqlite:///FILE`` or ``postgresql+psycopg://…``; by default a file in the study's directory.
        workers: How many processes.
        threads: How many threads each of them has, and the last training. ``"auto"``: a single worker has torch's, by
            default one for each core; several share these out, unless ``OMP_NUM_THREADS`` says how many a process has.
        batch_trials: How many trials each of them trains at once, those of the same shape as one vectorised program
            (:mod:`stoker.tuning.batched`); not for an ``objective``. Their values are drawn at once as well.
        out: The study's directory, by default ``runs/<study name>``.
        refit: Of a source: train the best trial's settings on the training and validation rows, and test once.
        refit_seeds: How many networks are trained so; several are an ensemble.
        args: For ``objective``.
        train: For ``build``.
        valid: For ``build``; of a source, see :func:`stoker.fit`.
        test: See :func:`stoker.fit`.
        config: A TOML file of settings, and of the space in its table ``[space]``.
        assignments: See :func:`stoker.fit`.
        seed: Of the sampler, and of each training; 0 where ``config`` says no other.
        progress: ``"auto"``, ``"rich"``, ``"plain"`` or ``"none"``.
        notify: Told what the user should know.
        **settings: Settings that all trials share, as for :func:`stoker.fit`; for ``build``, arguments of
            :meth:`stoker.Trainer.fit`.

    Raises:
        UnknownNameError: A parameter, setting, metric, sampler or pruner is not known; the nearest is suggested.
        ConfigError: A range is empty, a setting is out of range, the storage cannot be reached, or there is a study of
            this name that is about something else. Nothing of it is lost.
        DataError: The data cannot be used.
        TrainingError: Trials fail, one after the other.
        RunExistsError: ``out`` is there and holds something else.

    Example:
        >>> result = tune("housing.csv", target="price", trials=50, workers=4)
        >>> result.best_params, result.run.metrics["test"]
    """
    tell = notify or (lambda _: None)
    _check_counts(
        trials=trials,
        more=more,
        workers=workers,
        batch_trials=batch_trials,
        refit_seeds=refit_seeds,
        timeout=timeout,
    )
    each = threads_each(threads, workers, own=torch.get_num_threads())
    if sampler not in SAMPLERS:
        raise UnknownNameError("sampler", sampler, SAMPLERS)
    if pruner is not None and pruner not in PRUNERS:
        raise UnknownNameError("pruner", pruner, PRUNERS)
    if direction not in (None, "minimize", "maximize"):
        raise UnknownNameError("direction", str(direction), ("minimize", "maximize"))
    asked = Asked(metric, direction, pruner, seed, tell)
    if callable(what) and not isinstance(what, type):
        told: dict[str, Any] = {"train": train, "valid": valid, "config": config, "test": test}
        question = of_function(what, space, asked, args, settings, told)
    else:
        if args or train is not None:
            name = "args" if args else "train"
            raise ConfigError(name, "is for a function of your own", "a source of data", "Leave it out.")
        question = of_source(what, space, asked, valid, test, config, assignments, settings)
    if batch_trials > 1 and isinstance(question.objective, OwnObjective):
        fix = "Leave it out, or pass a function that builds a Trainer, with a space."
        raise ConfigError("--batch-trials", "cannot batch an objective of your own", batch_trials, fix)
    make_sampler(sampler, question.seed, question.space)  # whether it can be
    name = study_name or question.name
    folder = _study_folder(out, name)
    _refuse_another_study(folder, {"study": name})
    url = storage or sqlite_url(folder / "study.db")
    here = torch.get_num_threads() if threads == "auto" else each  # of the last training too
    with _quiet(), having_threads(here), open_storage(url) as opened:
        plan = Plan(name, question.direction, trials, question.about, {"sampler": sampler, "metric": asked.name})
        points = make_sampler(sampler, question.seed, question.space)
        with naming_damage(opened):
            study, plan = open_study(opened, plan, points, make_pruner(pruner or "median"), more=more)
        total = min(plan.trials, getattr(points, "size", plan.trials))
        if not isinstance(question.objective, OwnObjective):
            question.objective.trials, question.objective.folder = total, folder / "trials"
        if total < plan.trials:
            tell(f"the grid has {total} points: there will be as many trials, not {plan.trials}")
        _refuse_more(total, workers=workers, batch_trials=batch_trials)
        if more is not None:
            tell(f"{total} trials in all; should this be interrupted, go on with --trials {total}")
        record = _record(name, opened, question, sampler, pruner or "median")
        record["workers"] = {"count": workers, "threads": each}  # on this machine, in this call
        _refuse_another_study(folder, {"study": name, "about": record["about"]})
        write_json(folder / "study.json", record)
        until = None if timeout is None else time.time() + timeout
        job = Job(
            opened.url,
            name,
            total,
            sampler,
            question.seed,
            question.space,
            pruner or "median",
            question.objective,
            until,
            together=batch_trials,
            threads=each,
        )
        with shown(study, total, progress):
            ending = run(job, opened, workers, tell)
        done = patiently(lambda: study.get_trials(deepcopy=True))
        for trial in done:
            if trial.state.is_finished():  # its worker may have died before it could
                forget(folder / "trials", trial.number)
        if ending == "timeout" and sum(trial.state.is_finished() for trial in done) >= total:
            ending = "finished"
        result = TuneResult(folder, name, opened.shown, question.direction, total, done, ending)
        if ending == "finished" and result.best_trial is None:
            raise _nothing_succeeded(result)
        if ending == "interrupted" or result.best_trial is None:
            return result
        files = draw(study, folder / "figures", tell)
        made: Run | Ensemble | None = None
        if refit and isinstance(question.objective, FitObjective) and ending == "finished":
            about = record | {"trials": result.counts, "best": _described(result.best_trial)}
            try:
                made = _refit_once(question.objective, result, about, opened, study, refit_seeds, tell, progress)
            except KeyboardInterrupt:
                ending = "interrupted"
        return TuneResult(
            folder,
            name,
            opened.shown,
            question.direction,
            total,
            done,
            ending,
            run=made if isinstance(made, Run) else None,
            ensemble=made if isinstance(made, Ensemble) else None,
            files=files,
        )


def _nothing_succeeded(result: TuneResult) -> TrainingError:
    failed = [trial.user_attrs[REASON] for trial in result.trials if REASON in trial.user_attrs]
    got = failed[-1].rstrip(".") if failed else f"{result.counts['pruned']} pruned trials"
    fix = "Look at the settings and the space. The trials are kept, with their reasons: stoker tune --show."
    return TrainingError(f"study {result.name!r}", "some trials must succeed", got, fix)


def _check_counts(**given: Any) -> None:
    for name, value in given.items():
        option = f"--{name.replace('_', '-')}"
        if value is None:
            continue
        if name == "timeout":
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
                raise ConfigError(option, "must be seconds above 0", repr(value))
        elif isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(option, "must be a whole number from 1 on", repr(value))
    if given["more"] is None:
        _refuse_more(given["trials"], workers=given["workers"], batch_trials=given["batch_trials"])


def _refuse_more(trials: int, **given: int) -> None:
    """Raise ConfigError where more is asked for than there are trials."""
    for name, value in given.items():
        if value > trials:
            option = f"--{name.replace('_', '-')}"
            fix = f"Say {'fewer workers' if name == 'workers' else 'a smaller batch'}, or more trials."
            raise ConfigError(option, f"must not be more than the trials, {trials}", value, fix)


def _study_folder(out: str | Path | None, name: str) -> Path:
    """The study's directory: a new one, an empty one, or one of a study."""
    if not name.strip() or Path(name).name != name or name in {".", ".."}:
        raise ConfigError("--study-name", "must be fit for a directory's name", repr(name), "Leave out slashes.")
    path = Path("runs") / name if out is None else Path(out)
    try:
        path.mkdir(parents=True, exist_ok=True)
        content = {file.name for file in path.iterdir()}
    except OSError as error:
        rule = f"must be a directory that can be made ({error.strerror})"
        raise ConfigError("--out", rule, repr(str(path)), "Choose another --out.") from None
    if content and not content & {"study.json", "study.db", "study.db-wal", "study.db.locks"}:
        fix = "Choose another --out: Stoker overwrites nothing."
        raise RunExistsError("--out", "must be a study's directory, or not exist yet", str(path), fix)
    return path


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna tells each trial on standard error; here it is shown in another way."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _refuse_another_study(folder: Path, ours: dict[str, Any]) -> None:
    """Raise RunExistsError where a directory is another study's, by what is said of ours."""
    file = folder / "study.json"
    found = read_json(file) if os.path.lexists(file) else ours
    if {name: found.get(name) for name in ours} != json.loads(json.dumps(ours)):
        fix = "Choose another --out: Stoker overwrites nothing."
        raise RunExistsError("--out", f"must be the directory of the study {ours['study']!r}", str(folder), fix)


def _record(name: str, storage: Storage, question: Question, sampler: str, pruner: str) -> dict[str, Any]:
    """The study's provenance."""
    return {
        "study": name,
        "storage": storage.shown,
        "direction": question.direction,
        "metric": str(question.about.get("metric", "")),
        "sampler": sampler,
        "pruner": pruner,
        "seed": question.seed,
        "about": question.about,
        "versions": {"stoker": __version__, "optuna": optuna.__version__},
    }


def _described(trial: FrozenTrial) -> dict[str, Any]:
    own = {name: value for name, value in trial.user_attrs.items() if not name.startswith("stoker:")}
    return {"number": trial.number, "value": trial.value, "params": dict(trial.params), **own}


def _refit_once(
    objective: FitObjective,
    result: TuneResult,
    about: dict[str, Any],
    storage: Storage,
    study: optuna.Study,
    seeds: int,
    tell: Notify,
    progress: ProgressMode,
) -> Run | Ensemble | None:
    """Refit the best trial, if nobody did it yet or does it now: of many machines one."""
    best = result.best_trial
    assert best is not None
    path = refit_path(result.path, best, seeds)
    lock = f"{result.name} refit"
    if not patiently(lambda: storage.locks.hold(lock)):
        tell("another process trains the best settings anew")
        return None
    try:
        where = study.user_attrs.get(REFIT) or {}
        key = f"{best.number}/{seeds}"
        there = where.get(key)
        if there is not None and there["host"] != platform.node() and not path.exists():
            tell(f"the best settings were trained anew on {there['host']}: {there['path']}")
            return None
        made = refit_best(objective, best, about, result.path, seeds=seeds, notify=tell, progress=progress)
        here = {"host": platform.node(), "path": str(made.path.absolute())}
        patiently(lambda: study.set_user_attr(REFIT, {**where, key: here}))
        return made
    finally:
        storage.locks.let_go(lock)
