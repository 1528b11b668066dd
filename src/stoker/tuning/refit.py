"""The end of a study: the best trial's settings, trained on the training and the validation rows, and tested once."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna

from stoker.errors import RunExistsError
from stoker.jobs.config import FitConfig, build_config
from stoker.jobs.fit import Order, carry_out, fit, named_model, prepared
from stoker.jobs.prepare import encode, job_criterion, trained_part
from stoker.jobs.run import Run
from stoker.models.own import named_anew
from stoker.randomness import derive_seed
from stoker.runs.files import read_json, read_text, write_atomic, write_json
from stoker.settings import merge
from stoker.training.callbacks import Callback
from stoker.training.history import Row
from stoker.training.progress import ProgressMode
from stoker.training.trainer import Trainer
from stoker.tuning.ensemble import Averaged, Ensemble
from stoker.tuning.objectives import FitObjective
from stoker.tuning.settings import placed

__all__ = ["refit", "refit_path", "refit_settings"]

Notify = Callable[[str], None]


class _StopAfter(Callback):
    """Ends a training whose schedule is made for more epochs."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch

    def on_epoch_end(self, row: Row, is_best: bool) -> bool:  # noqa: ARG002
        return int(row["epoch"]) >= self._epoch


def refit_path(folder: Path, best: optuna.trial.FrozenTrial, seeds: int) -> Path:
    """Where the refit of a trial is kept."""
    return folder / (f"refit-trial-{best.number}" + ("" if seeds == 1 else f"-{seeds}-seeds"))


def refit_settings(objective: FitObjective, best: optuna.trial.FrozenTrial) -> dict[str, Any]:
    """The best trial's settings, for a training on its training and validation rows that is as long as was best."""
    values = objective.suggest(optuna.trial.FixedTrial(dict(best.params)))
    config = objective.config(values)
    training: dict[str, Any] = {"patience": None}
    if not _is_scheduled(config):
        training["epochs"] = int(best.user_attrs["best_epoch"])  # else it would be compressed: see _StopAfter
    if "lr" in best.user_attrs:
        training["lr"] = best.user_attrs["lr"]
    data = {"train_on_valid": True}
    return merge(merge(objective.raw, placed(values)), {"training": training, "data": data})


def refit(
    objective: FitObjective,
    best: optuna.trial.FrozenTrial,
    about: Mapping[str, Any],
    folder: Path,
    *,
    seeds: int,
    notify: Notify,
    progress: ProgressMode,
) -> Run | Ensemble:
    """Train the best trial's network anew on all rows but the test's, and use the test split, once.

    What was begun and not ended by a process that died is begun anew.

    Args:
        objective: Of the study.
        best: Its best trial.
        about: The study's provenance, kept in each run as ``study.json``.
        folder: The study's directory.
        seeds: How many networks; of several, the first has the trial's own seed.
        notify: Told what the user should know.
        progress: How each training is shown.

    Returns:
        The run, or the ensemble of several.

    Raises:
        RunExistsError: Where it would be kept stands the refit of another study.
        KeyboardInterrupt: A training was ended by Ctrl-C; nothing is kept of it.
    """
    target = refit_path(folder, best, seeds)
    _refuse_others(target, about)
    raw = refit_settings(objective, best)
    model = {} if objective.model is None else {"model": objective.model}
    if not target.exists():
        partial = target.with_name(f"{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)  # ours alone: whoever refits holds the study's lock
        if seeds > 1:
            partial.mkdir()
        own_seed = objective.config({}).training.seed if seeds > 1 else 0
        callbacks = [_StopAfter(int(best.user_attrs["best_epoch"]))] if _is_scheduled(build_config(raw)) else []
        for place in range(seeds):
            if seeds > 1:
                notify(f"training network {place + 1} of {seeds}")
                seed = own_seed if place == 0 else derive_seed(own_seed, "refit", place, bits=32)
                split = objective.config({}).data.split_seed
                split = own_seed if split is None else split
                raw = merge(raw, {"training": {"seed": seed}, "data": {"split_seed": split}})
                run = _member(objective, raw, partial / f"network-{place + 1}", callbacks, notify, progress)
            else:
                run = fit(
                    objective.source,
                    out=partial,
                    config=raw,
                    valid=objective.valid,
                    test=objective.test,
                    callbacks=callbacks,
                    notify=notify,
                    progress=progress,
                    **model,
                )
            if run.history.stopped == "interrupted":
                raise KeyboardInterrupt  # what is there is begun anew by whoever comes next
            _add_provenance(run.path, about, best, seeds)
        if seeds > 1:
            _measure(objective, raw, partial)
            write_json(partial / "study.json", dict(about))
        partial.rename(target)
    return Run(target, **model) if seeds == 1 else Ensemble(target, **model)


def _member(
    objective: FitObjective,
    raw: Mapping[str, Any],
    path: Path,
    callbacks: Sequence[Callback],
    notify: Notify,
    progress: ProgressMode,
) -> Run:
    """Train a network of an ensemble, without a look at the test rows.

    It keeps no checkpoints, for nobody goes on from them.
    """
    config = build_config(raw)
    own = named_model(config, objective.model)
    first = notify if path.name == "network-1" else None  # the others would be told the same
    order = Order(config, objective.load(), own, (), tuple(callbacks), progress, first, tested=False)
    ready, origins = prepared(order)
    path.mkdir()
    return carry_out(path, order, ready, origins, None)()


def _refuse_others(path: Path, about: Mapping[str, Any]) -> None:
    """Raise RunExistsError where a refit stands that is not of this study and trial."""
    if not path.exists():
        return
    file = path / "study.json"
    found = read_json(file) if os.path.lexists(file) else {}
    ours = json.loads(json.dumps(about))
    same = [found.get(name) == ours[name] for name in ("study", "about")]
    best = found.get("best")
    if not all(same) or not isinstance(best, dict) or best.get("params") != ours["best"]["params"]:
        fix = "Choose another --out, or move it away."
        raise RunExistsError("refit", "must be of this study, or not exist yet", str(path), fix)


def _is_scheduled(config: FitConfig) -> bool:
    return config.training.schedule not in (None, "constant")


def _add_provenance(path: Path, about: Mapping[str, Any], best: optuna.trial.FrozenTrial, seeds: int) -> None:
    """Say in a run's directory which study its settings come from."""
    write_json(path / "study.json", dict(about))
    finished = about["trials"]
    text = (
        f"\n## Tuning\n\nThe settings are those of trial {best.number}, the best of {finished['complete']} complete, "
        f"{finished['pruned']} pruned and {finished['failed']} failed trials of the study `{about['study']}` by "
        f"valid_{about['metric']}, {best.value:.5g}. It was trained anew on its training and validation rows for as "
        "many epochs as were best there. See `study.json`.\n"
    )
    if seeds > 1:
        text += f"\nIt is one network of {seeds}. The test split was used once, for all together: `../metrics.json`.\n"
    write_atomic(path / "README.md", read_text(path / "README.md").rstrip("\n") + "\n" + text)


def _measure(objective: FitObjective, raw: Mapping[str, Any], folder: Path) -> None:
    """Measure an ensemble, on the test rows for the first time."""
    runs = Ensemble(folder, **({} if objective.model is None else {"model": objective.model})).runs
    first = runs[0]
    own = named_anew(str(first.config.model.get("name", "")), objective.model)
    loaded = objective.load()
    config = build_config(raw)
    data = encode(
        loaded["train"],
        config,
        valid=loaded.get("valid"),
        test=loaded.get("test"),
        own=None if own is None else own(),
        notify=lambda _: None,
    )
    recipe = first.artifact.recipe
    members = [trained_part(run.artifact.model, recipe.kind) for run in runs]
    trainer = Trainer(
        Averaged(members, recipe.task),
        job_criterion(first.config, recipe, first.artifact.model),
        metrics=first.config.training.metrics,
        task=recipe.task,
        device=first.config.training.device,
    )
    write_json(folder / "metrics.json", {name: trainer.evaluate(split) for name, split in data.splits.items()})
