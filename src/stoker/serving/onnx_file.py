"""The ONNX file that a run is served from: its own checked export, or one that is made and checked for the server."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from stoker.errors import ExportError, MissingExtraError
from stoker.jobs.run import Run

__all__ = ["checked_model"]

Tell = Callable[[str], None]

_WHERE = "--backend onnx"
_NAME = "model.onnx"


def checked_model(run: Run, folder: Path | None, tell: Tell) -> bytes:
    """A run's model as ONNX, which was compared with the run's own model as the run is now.

    It is read from ``folder`` if it is there; else from the run's ``exports/``, unless the model is of the user's own,
    whose code may have changed since; else it is exported and compared now.

    Args:
        run: The run, on the CPU.
        folder: Where several processes share the file that the first of them made; ``None`` for one process.
        tell: Told if it is exported, and how that went.

    Raises:
        MissingExtraError: ONNX Runtime, or what the export needs, is not installed.
        ExportError: The run cannot be exported to ONNX, and why.
        RunError: The run is damaged.
    """
    _require("onnxruntime")
    from stoker.exporting.current import read_current
    from stoker.exporting.formats import FORMATS

    own = ":" in str(run.artifact.recipe.model.get("name", ""))
    exported = run.path / "exports" / _NAME
    shared = [] if folder is None else [folder / _NAME]
    reason = "the code of a model of your own may have changed since an export" if own else ""
    for file in [*shared, *([] if own else [exported])]:
        if file.exists():
            try:
                return read_current(run, FORMATS["onnx"], file)
            except ExportError as error:
                reason = f"{error.where}: {error.rule}, got {error.got}"
    _require(*FORMATS["onnx"].packages)
    again = " --overwrite" if exported.exists() else ""
    keeping = "" if own else f" ({_export_command(run)}{again} keeps one)"
    tell(f"{reason or f'there is no {exported}'}; an ONNX export is made and checked for this server{keeping}")
    with _place(folder) as place:
        _export(run, place / _NAME, tell)
        return read_current(run, FORMATS["onnx"], place / _NAME)


def _export(run: Run, file: Path, tell: Tell) -> None:
    from stoker.exporting.job import export

    try:
        done = export(run, "onnx", out=file, bench=False, overwrite=True, notify=tell).files[0]
    except ExportError as error:
        fix = f"Take --backend torch. {_export_command(run)} --verbose shows all that the exporter said."
        refused = ExportError(_WHERE, error.rule, error.got, fix)
        refused.log = error.log
        raise refused from None
    tell(f"checked on {done.rows} rows in batches of 1, 2, 7 and 64: they differ by {done.difference:.2g} at most")


def _export_command(run: Run) -> str:
    return f"stoker export {shlex.quote(str(run.path))} --format onnx"


@contextmanager
def _place(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with TemporaryDirectory(prefix="stoker-serve-") as made:
        yield Path(made)


def _require(*packages: str) -> None:
    for package in packages:
        if find_spec(package) is None:
            raise MissingExtraError(_WHERE, package, "export")
