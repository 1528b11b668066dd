"""Callbacks observe a training: they are told what happens, and may ask it to stop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from stoker.training.history import History, Row

__all__ = ["Callback", "EpochProgress", "FitPlan", "StepProgress"]


@dataclass(frozen=True)
class FitPlan:
    """What is about to be trained.

    Attributes:
        epochs: How many epochs, counting those of earlier calls to ``fit``.
        first_epoch: The number of the first one, from 1.
        steps_per_epoch: Updates an epoch makes; ``None`` if the data do not say.
        rows: Samples an epoch sees; ``None`` if the data do not say.
        parameters: How many numbers are trained.
        device: Where, such as ``"cpu"``.
        engine: By what, such as ``"eager"``.
        monitor: The column by which epochs are compared, or ``None``.
    """

    epochs: int
    first_epoch: int
    steps_per_epoch: int | None
    rows: int | None
    parameters: int
    device: str
    engine: str
    monitor: str | None


@dataclass(frozen=True)
class EpochProgress:
    """Where an epoch stands: ``epoch`` (from 1), ``steps`` made, its mean ``loss`` so far, and the current ``lr``."""

    epoch: int
    steps: int
    loss: float
    lr: float


@dataclass(frozen=True)
class StepProgress:
    """One update.

    Attributes:
        epoch: From 1.
        step: Updates made so far, this one among them, over all epochs and calls to ``fit``.
        loss: The mean over its samples before the update, a 0-d tensor on the device: reading it waits for the device.
        lr: With which the next one is made.
    """

    epoch: int
    step: int
    loss: Tensor
    lr: float


class Callback:
    """Does nothing; subclasses override what they want to hear of.

    Where several processes train together, those of the first are told, and what they ask for is done in all.
    """

    def state_dict(self) -> Mapping[str, Any] | None:
        """What of it a checkpoint shall hold: numbers, texts, tensors, and lists, tuples and dicts of these.

        A training that goes on hands it to :meth:`load_state_dict`. By default there is nothing.
        """
        return None

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Be as it was when :meth:`state_dict` returned this; called before ``on_fit_start``."""

    def on_fit_start(self, plan: FitPlan) -> None:
        """Training is about to begin."""

    def on_epoch_start(self, epoch: int) -> None:
        """An epoch (from 1) is about to begin."""

    def on_step_end(self, step: StepProgress) -> bool | None:
        """An update was made. Returning ``True`` asks the training to stop here.

        It is called only where it is overridden. Then it costs every step its call, and all steps are the eager
        engine's, since anything may be changed between two of them.
        """

    def on_progress(self, progress: EpochProgress) -> None:
        """Some steps were made; about ten times a second."""

    def on_epoch_end(self, row: Row, is_best: bool) -> bool | None:
        """An epoch has ended and been evaluated. Returning ``True`` asks the training to stop here."""

    def on_fit_end(self, history: History) -> None:
        """Training has ended, for whatever reason; also told when an error is about to be raised.

        The callbacks are told in the reverse of their order, each whatever the others raise.
        """
