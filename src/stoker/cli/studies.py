"""What ``stoker tune`` shows of a study: while it was run, and afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from stoker.cli.show import console, metrics_by_split, printable
from stoker.errors import RunNotFoundError, UnknownNameError
from stoker.runs.record import read_metrics
from stoker.training.progress_text import number
from stoker.tuning.display import table, trial_line
from stoker.tuning.storage import dashboard_command, naming_damage, open_storage, sqlite_url
from stoker.tuning.study import read_plan

if TYPE_CHECKING:
    from stoker.tuning.tune import TuneResult

__all__ = ["show_study", "tune_summary"]


def tune_summary(result: TuneResult, source: str) -> None:
    """A study that has just been run: its best trial, how it ended, and what to do next.

    Args:
        result: The study.
        source: What was learnt from, as one writes it in a shell.
    """
    out = console()
    out.print()
    made = result.run or result.ensemble
    if made is not None:
        metrics = result.run.metrics if result.run is not None else read_metrics(made.path / "metrics.json")
        out.print(metrics_by_split(metrics))
        out.print()
    best = result.best_trial
    counts = ", ".join(f"{count} {name}" for name, count in result.counts.items() if count)
    how = {
        "finished": "finished",
        "timeout": "out of time; the same command goes on",
        "interrupted": "interrupted by Ctrl-C; the same command goes on",
    }[result.ending]
    facts = {
        "Study": [f"{result.name}, {how}", f"trials: {counts or 'none'}, of {result.total}"],
        "Best": [] if best is None or best.value is None else [f"trial {best.number}: {number(best.value)}"],
        "": [] if best is None else [f"{name} = {value}" for name, value in best.params.items()],
        "Pictures": [str(file) for file in result.files if file.suffix == ".png"],
        "Run": [] if made is None else [str(made.path)],
        "Next": []
        if result.run is None
        else [f"stoker evaluate {result.run.path}", f"stoker predict {result.run.path} {source} -o predictions.csv"],
        "Watch": [dashboard_command(result.storage)],
    }
    for name, texts in facts.items():
        for place, text in enumerate(texts):
            out.print(Text.assemble((f"{'' if place else name:<10}", "bold"), printable(text)), soft_wrap=True)


def show_study(folder: Path, storage: str | None, name: str | None) -> None:
    """A study that was run before, or runs now.

    Args:
        folder: Its directory; with ``storage``, a study's name will do.
        storage: Where it is, if not in its directory.
        name: Its name, if several are in one storage.

    Raises:
        RunNotFoundError: There is no study.
        UnknownNameError: The storage has no study of that name.
        RunError: The study cannot be read.
    """
    import optuna

    file = folder / "study.db"
    if storage is None and not file.is_file():
        fix = "Name a study's directory; with --storage URL, the study's name."
        raise RunNotFoundError("--show", "must be a study's directory", str(folder), fix)
    with open_storage(storage or sqlite_url(file), create=False) as opened, naming_damage(opened):
        names = [study.study_name for study in optuna.get_all_study_summaries(opened.base, include_best_trial=False)]
        wanted = name or (folder.name if folder.name in names or len(names) != 1 else names[0])
        if wanted not in names:
            raise UnknownNameError("study", wanted, names)
        study = optuna.load_study(study_name=wanted, storage=opened.base)
        trials = study.get_trials()
        direction = study.direction.name.lower()
        total = int(read_plan(study).get("trials", len(trials)))
        head, best = Text(f"{printable(wanted)}, to {direction}", style="bold"), table(trials, total, direction)
        failed = [trial for trial in trials if trial.state == optuna.trial.TrialState.FAIL]
        reasons = [Text(printable(trial_line(trial, None))) for trial in failed]
    out = console()
    out.print(head)
    out.print(best)
    for line in reasons:
        out.print(line, soft_wrap=True)
