"""The loggers of a job, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stoker.errors import UnknownNameError
from stoker.training.loggers.logger import Logger, required
from stoker.training.loggers.mlflow import MLflowLogger
from stoker.training.loggers.tensorboard import TensorBoardLogger

__all__ = ["LOGGERS", "check_loggers", "make_loggers", "record_metrics"]

# Each from the run's directory and what is to be known of the run.
LOGGERS: dict[str, Callable[[Path, dict[str, Any]], Logger]] = {
    "tensorboard": lambda path, params: TensorBoardLogger(path / "tensorboard", params=params),
    "mlflow": lambda path, params: MLflowLogger(run_name=path.name, params=params),
}


def check_loggers(log: str | Sequence[str]) -> tuple[str, ...]:
    """The names of loggers, each once, before there is anything to log.

    Raises:
        UnknownNameError: There is no such logger.
        MissingExtraError: What it needs is not installed.
    """
    names = (log,) if isinstance(log, str) else tuple(dict.fromkeys(log))
    for name in names:
        if name not in LOGGERS:
            raise UnknownNameError("log", str(name), LOGGERS)
        required(f"log {name}", name, name)  # package and extra are called as the logger is
    return names


def make_loggers(names: Iterable[str], path: Path, settings: Mapping[str, Any]) -> list[Logger]:
    """Make them.

    Args:
        names: Out of :data:`LOGGERS`.
        path: The run's directory.
        settings: Of the job, nested; those left empty are not logged.
    """
    params = {name: value for name, value in _flat(settings) if value not in (None, [], (), "")}
    return [LOGGERS[name](path, params) for name in names]


def record_metrics(loggers: Iterable[Logger], metrics: Mapping[str, Mapping[str, float]]) -> None:
    """Log what the network came to, measured on each split: ``final/test/rmse``."""
    values = {f"final/{split}/{name}": value for split, found in metrics.items() for name, value in found.items()}
    for logger in loggers:
        logger.record(values)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
