"""The report of some runs: ``stoker report`` and :func:`report`."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from markupsafe import Markup

from stoker._version import __version__
from stoker.errors import ConfigError, RunExistsError, RunNotFoundError
from stoker.jobs.run import Run
from stoker.models.importing import Factory
from stoker.reporting.bootstrap import RESAMPLES
from stoker.reporting.html.compare import comparison
from stoker.reporting.html.measured import REPEATS, Measured, Progress, measure
from stoker.reporting.html.sections import section
from stoker.runs.files import naming_full_disk

__all__ = ["report"]

MOST_RUNS = 10
_HERE = Path(__file__).parent


def report(
    *runs: Run | str | Path,
    out: str | Path | None = None,
    calibrate: bool = False,
    samples: int = RESAMPLES,
    repeats: int = REPEATS,
    seed: int = 0,
    model: str | Factory | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write an HTML report of one or several runs: one file, which needs nothing else.

    What is said of a run comes from its files. What needs its data (intervals, calibration, importance, the most wrong
    rows) is measured anew, on the source that the run names; if that is gone or has changed, the report says so and is
    made without. The same runs and arguments give the same bytes.

    Args:
        runs: Runs, or their directories; each is described, and several are compared.
        out: The file, which must not exist yet; by default ``report.html`` in the directory of a single run, and in the
            current one for several.
        calibrate: Fit a temperature on the validation split, and show calibration before and after.
        samples: Of the bootstrap.
        repeats: How often each column is shuffled for its importance.
        seed: Of the samples and the shuffles.
        model: For runs with a model of your own: the model, named once more as ``"package.module:Class"``, or the
            class.
        progress: Told what is being done, how much of it is done, and of how much.

    Returns:
        The file.

    Raises:
        RunNotFoundError: A directory is not there, or not a run's.
        RunError: A run is damaged, or of another format.
        RunExistsError: The file exists.
        ConfigError: The file cannot be written there; no run or more than 10 are given; a number is out of range.
        DiskFullError: There is no room.
    """
    if not 1 <= len(runs) <= MOST_RUNS:
        raise ConfigError("report", f"needs from 1 to {MOST_RUNS} runs", len(runs))
    for what, value, least in (("samples", samples, 100), ("repeats", repeats, 1)):
        if value < least:
            raise ConfigError(what, f"must be at least {least}", value)
    opened = [_open(run, model) for run in runs]
    path = _refuse_bad_file(out, opened)  # before the work, not after it
    by_name = dict(zip(_names(opened), opened, strict=True))
    tell = progress or _silent
    measured = {}
    for name, run in by_name.items():
        measured[name] = measure(
            run, samples=samples, repeats=repeats, calibrate=calibrate, seed=seed, progress=_within(tell, name, by_name)
        )
    _write(path, _page(by_name, measured))
    return path


def _page(by_name: dict[str, Run], measured: dict[str, Measured]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    style = (_HERE / "report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    parts, notes = comparison(by_name, measured) if len(by_name) > 1 else ([], [])
    sections = [
        section(run, measured[name], name, f"run{place}") for place, (name, run) in enumerate(by_name.items(), start=1)
    ]
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    title = sections[0].name if len(sections) == 1 else f"{len(sections)} runs: {', '.join(by_name)}"
    return environment.get_template("report.html.j2").render(
        title=title, style=Markup(style), digest=digest, sections=sections, comparison=parts, notes=notes,
        version=__version__,
    )  # fmt: skip


def _open(run: Run | str | Path, model: str | Factory | None) -> Run:
    if isinstance(run, Run):
        return run
    opened = Run(run)
    own = ":" in str(opened.config.model.get("name", ""))
    return Run(run, model=model) if own and model is not None else opened


def _names(runs: Sequence[Run]) -> list[str]:
    """What each run is called: its directory's name, with as many of those above it as tell it from the others."""
    paths = [run.path.resolve() for run in runs]
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise ConfigError("report", "must be of different runs", str(twice), "Name each run once.")
    for depth in range(1, 1 + max(len(path.parts) for path in paths)):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return names


def _refuse_bad_file(out: str | Path | None, runs: Sequence[Run]) -> Path:
    path = Path(out) if out is not None else (runs[0].path if len(runs) == 1 else Path()) / "report.html"
    if path.suffix.lower() not in (".html", ".htm"):
        raise ConfigError("--out", "must be a file that ends in .html", repr(str(path)))
    if os.path.lexists(path):
        raise RunExistsError(
            "--out", "must not exist yet", str(path), "Choose another name with --out: Stoker overwrites nothing."
        )
    if not path.parent.is_dir():
        raise RunNotFoundError("--out", "must be in a directory that exists", str(path), "Make the directory first.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        fix = "Choose another place with --out."
        raise ConfigError("--out", "must be a place to write to", f"{path} (Permission denied)", fix)
    return path


def _write(path: Path, page: str) -> None:
    """Write a new file; nothing is left of it if that fails."""
    try:
        file = path.open("xb")
    except OSError as error:
        raise ConfigError("--out", "must be a place to write to", f"{path} ({error.strerror})") from None
    try:
        with naming_full_disk(path), file:
            file.write(page.encode("utf-8", errors="replace"))
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _within(tell: Progress, name: str, runs: dict[str, Run]) -> Callable[[str, int, int], None]:
    """Progress that says of which run it is, if there are several."""
    return tell if len(runs) == 1 else lambda what, done, of: tell(f"{name}: {what}", done, of)


def _silent(_what: str, _done: int, _of: int) -> None:
    """Tell nobody."""
