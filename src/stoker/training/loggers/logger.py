"""What every logger does: which numbers it is given, under which names, and what becomes of it when it fails."""

from __future__ import annotations

import re
import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from stoker.errors import ConfigError, MissingExtraError
from stoker.training.callbacks import Callback, FitPlan

if TYPE_CHECKING:
    from stoker.training.callbacks import StepProgress
    from stoker.training.history import History, Row

__all__ = ["Logger", "metric_name", "plain_name", "required"]


def metric_name(column: str) -> str:
    """A history's column as loggers call it: ``valid_loss`` is ``valid/loss``, so that splits become groups.

    Args:
        column: Such as ``"train_loss"`` or ``"lr"``. What not every tool takes in a name becomes ``_``.
    """
    split, _, name = column.partition("_")
    grouped = split in {"train", "valid", "test"} and name
    return f"{split}/{plain_name(name.replace('/', '_'))}" if grouped else plain_name(column)


def plain_name(name: str) -> str:
    """Letters, digits, ``_``, ``-``, ``.``, ``:``, ``/`` and spaces; everything else becomes ``_``."""
    return re.sub(r"[^\w\-.:/ ]", "_", name)


def required(logger: str, package: str, extra: str) -> Any:
    """Import what a logger needs.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        raise MissingExtraError(logger, package, extra) from error


class Logger(Callback):
    """Hands the numbers of a training to a tool that keeps them.

    By epoch, at the epoch's number: every column of the history but ``epoch``, named as :func:`metric_name` says. By
    step, at the number of updates made so far: ``train/step_loss`` and ``train/step_lr``, of every so-many-th update
    only, because reading a loss waits for the device. When training ends, the best epoch's validation columns as
    ``best/…``.

    A tool that cannot be reached when training begins is an error. If it fails later, that is told once, as a warning,
    and the training goes on without it.

    Args:
        every: Of how many updates one is logged.
        params: What else the tool should know of this training, by name.

    Raises:
        ConfigError: ``every`` is no count.
    """

    def __init__(self, every: int, params: Mapping[str, Any] | None) -> None:
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ConfigError("every", "must be a whole number of updates from 1 on", repr(every))
        self._every = every
        self._params = {plain_name(str(name)): value for name, value in (params or {}).items()}
        self._state: Literal["new", "open", "closed", "lost"] = "new"

    @property
    def _name(self) -> str:
        return type(self).__name__

    def on_fit_start(self, plan: FitPlan) -> None:
        """Open the log, and write down what is about to be trained.

        Raises:
            ConfigError: The tool refuses.
        """
        told = {name: value for name, value in asdict(plan).items() if value is not None}
        try:
            self._open({**told, **self._params}, continued=plan.first_epoch > 1)
        except Exception as error:  # whatever the tool raises
            text = f"must be able to log to {self._place()}: {_one_line(error)}"
            raise ConfigError(self._name, text, "", "Mend that, or train without it.") from error
        self._state = "open"

    def on_step_end(self, step: StepProgress) -> None:
        """Log every so-many-th update's loss and learning rate."""
        if self._state == "open" and step.step % self._every == 0:
            values = {"train/step_loss": float(step.loss), "train/step_lr": step.lr}
            self._attempt(lambda: self._write(values, step.step))

    def on_epoch_end(self, row: Row, is_best: bool) -> None:  # noqa: ARG002
        """Log the epoch's row."""
        if self._state == "open":
            values = {metric_name(name): float(value) for name, value in row.items() if name != "epoch"}
            self._attempt(lambda: self._write(values, int(row["epoch"])))

    def on_fit_end(self, history: History) -> None:
        """Write down how it ended, and close the log; also when an error ended the training."""
        if self._state != "open":
            return
        self._state = "closed"
        best = {
            f"best/{plain_name(name.removeprefix('valid_'))}": float(value)
            for name, value in history.best.items()
            if name.startswith("valid_")
        }
        self._attempt(lambda: self._close(history, best))

    def record(self, values: Mapping[str, float]) -> None:
        """Log numbers of the training as a whole, such as a test split's metrics, after ``fit``."""
        if self._state == "closed":
            plain = {plain_name(name): float(value) for name, value in values.items()}
            self._attempt(lambda: self._record(plain))

    def _attempt(self, send: Callable[[], None]) -> None:
        try:
            send()
        except Exception as error:
            self._state = "lost"
            text = f"{self._name} stopped logging to {self._place()}: {_one_line(error)}; the training is not affected"
            warnings.warn(text, RuntimeWarning, stacklevel=3)

    @abstractmethod
    def _place(self) -> str:
        """Where it logs to, for messages."""

    @abstractmethod
    def _open(self, params: dict[str, Any], *, continued: bool) -> None:
        """Begin a log, or go on with the last one where a training is ``continued`` by another call to ``fit``."""

    @abstractmethod
    def _write(self, values: dict[str, float], at: int) -> None:
        """Log numbers of an epoch or an update."""

    @abstractmethod
    def _close(self, history: History, best: dict[str, float]) -> None:
        """End the log."""

    @abstractmethod
    def _record(self, values: dict[str, float]) -> None:
        """Add numbers to a log that was ended."""


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return (text if len(text) <= 300 else f"{text[:299]}…").rstrip(".")
