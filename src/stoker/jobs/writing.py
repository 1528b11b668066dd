"""Writing a run: whole or not at all, and where that cannot be, somewhere else, so that hours of work are not lost."""

from __future__ import annotations

import contextlib
import platform
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch

from stoker._version import __version__
from stoker.data.dataset import Provenance
from stoker.errors import DiskFullError, RunError
from stoker.jobs.prepare import Prepared
from stoker.reporting.figures import confusion_matrix, learning_curves, lr_curve, predicted_vs_true
from stoker.runs.artifact import save_weights
from stoker.runs.card import model_card
from stoker.runs.files import naming_full_disk, write_atomic, write_json
from stoker.runs.record import FORMAT, Record, SourceRecord, TrainingRecord
from stoker.training.history import History, history_csv
from stoker.training.lr_finder import LrCurve
from stoker.training.trainer import Trainer

__all__ = ["FIGURE_BYTES", "Trained", "model_bytes", "resolved_settings", "write_run"]

FIGURE_BYTES = 2 << 20  # what the pictures and texts of a run take at most, roughly


@dataclass(frozen=True)
class Trained:
    """All that a run is written from.

    Attributes:
        ready: What was trained, and on what.
        trainer: What has trained it.
        history: A row an epoch.
        metrics: By split; pictures are of one that was measured.
        origins: Where each source came from.
        tell: Told what cannot be written without harm.
        notices: What the user was told.
        curve: Of the rates that were tried for ``lr="auto"``.
    """

    ready: Prepared
    trainer: Trainer
    history: History
    metrics: dict[str, dict[str, float]]
    origins: dict[str, Provenance]
    tell: Callable[[str], None]
    notices: list[str]
    curve: LrCurve | None


def write_run(path: Path, trained: Trained) -> None:
    """Write the run; where that fails, into the temporary directory instead.

    Raises:
        DiskFullError: There is no room; the text says where the run is kept instead.
        RunError: It cannot be written for another reason; likewise.
    """
    try:
        _write(path, trained)
    except Exception as error:
        rescue = _rescue(path, trained)
        if not isinstance(error, DiskFullError):
            if rescue is None:
                raise
            fix = f"The run is kept in {rescue} instead."
            raise RunError(str(path), "the run must be written where it was to be", error, fix) from error
        error.fix = "Make room and train again: the temporary directory has none either."
        if rescue is not None:
            error.fix = f"The run is kept in {rescue} instead: move it to where there is room."
        raise


def _rescue(path: Path, trained: Trained) -> Path | None:
    """Write the run into the temporary directory, if that can be."""
    rescue: Path | None = None
    try:
        rescue = Path(tempfile.mkdtemp(prefix=f"stoker-{path.name[:100]}-"))
        _write(rescue, trained, figures="if there is room")
    except Exception:  # what went wrong at first is told
        if rescue is not None:
            shutil.rmtree(rescue, ignore_errors=True)
        return None
    return rescue


def _write(path: Path, trained: Trained, figures: Literal["always", "if there is room"] = "always") -> None:
    (path / "config.json").unlink(missing_ok=True)  # of a run that was trained further: until all is written it is none
    save_weights(trained.ready.model, path / "model.safetensors")
    write_json(path / "metrics.json", trained.metrics)
    write_atomic(path / "history.csv", history_csv(trained.history.rows))
    try:
        with naming_full_disk(path / "figures"):
            (path / "figures").mkdir(exist_ok=True)
            _draw(path / "figures", trained)
    except DiskFullError:
        if figures == "always":
            raise
    except Exception as error:  # whatever keeps a picture from being drawn, the network is worth more
        trained.tell(f"the pictures could not be drawn: {type(error).__name__}: {error}")
    record = _record(trained).model_dump(mode="json")
    write_atomic(path / "README.md", model_card(record, trained.metrics))
    write_json(path / "config.json", record)  # last: a directory without it is no run


def _draw(figures: Path, trained: Trained) -> None:
    ready, history = trained.ready, trained.history
    best = history.best_epoch if history.monitor is not None else None
    learning_curves(history.rows, figures / "learning_curves.png", best_epoch=best)
    if (curve := trained.curve) is not None:
        path, title = figures / "lr_finder.png", ready.provenance.name
        lr_curve(curve.lrs, curve.levelled, curve.smoothed, path, suggestion=curve.suggestion, title=title)
    held_out = next(name for name in ("test", "valid", "train") if name in trained.metrics)
    inputs, targets = ready.splits[held_out]
    outputs = trained.trainer.predict(inputs)
    title = f"{held_out} split"
    if ready.recipe.task == "regression":
        path = figures / "predicted_vs_true.png"
        predicted_vs_true(targets[:, 0].numpy(), outputs[:, 0].numpy(), path, name=ready.recipe.target, title=title)
    else:
        path = figures / "confusion_matrix.png"
        confusion_matrix(targets.numpy(), outputs.argmax(dim=1).numpy(), ready.recipe.classes, path, title=title)


def _record(trained: Trained) -> Record:
    ready, trainer, history = trained.ready, trained.trainer, trained.history
    return Record(
        format=FORMAT,
        versions=_versions(),
        name=ready.provenance.name,
        sources={name: SourceRecord(**asdict(origin)) for name, origin in trained.origins.items()},
        rows={name: len(targets) for name, (_, targets) in ready.splits.items()},
        duplicates=ready.duplicates,
        notices=tuple(trained.notices),
        settings=resolved_settings(ready, trainer),
        training=TrainingRecord(
            engine=trainer.engine_reason.partition(":")[0],
            engine_reason=trainer.engine_reason,
            device=str(trainer.device),
            epochs=len(history),
            steps=trainer.state.step,
            monitor=history.monitor,
            best_epoch=history.best_epoch,
            stopped=history.stopped,
            seconds=round(history.seconds, 3),
            parameters=sum(parameter.numel() for parameter in ready.model.parameters()),
        ),
        recipe=ready.recipe.model_dump(mode="json"),
    )


def resolved_settings(ready: Prepared, trainer: Trainer) -> dict[str, Any]:
    """The settings, with the optimizer's own learning rate where none was asked for."""
    settings = ready.config.model_dump(mode="json")
    settings["training"]["lr"] = float(trainer.optimizer.defaults["lr"])
    return settings


def _versions() -> dict[str, str]:
    found = {"stoker": __version__, "python": platform.python_version(), "platform": platform.platform()}
    found["torch"] = str(torch.__version__)  # its metadata do not say for which accelerator it was built
    for package in ("torchmetrics", "polars", "scikit-learn", "numpy", "safetensors"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def model_bytes(model: torch.nn.Module) -> int:
    """What a module's state takes in memory, and about as much in a file."""
    return sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
