"""Where checkpoints go, and how a training finds and continues from one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

from stoker.errors import CheckpointError, ConfigError
from stoker.training.checkpoints.checkpointer import Checkpointer
from stoker.training.checkpoints.files import checkpoint_paths, newest
from stoker.training.checkpoints.identity import refuse_difference
from stoker.training.checkpoints.state import Legs, legs_of
from stoker.training.checkpoints.when import Every
from stoker.training.history import StopReason

__all__ = ["CheckpointWarning", "Checkpoints", "Course", "course"]


class CheckpointWarning(UserWarning):
    """A damaged checkpoint was passed over, or one is gone on from that was made by other software."""


def _warn(text: str) -> None:
    warnings.warn(text, CheckpointWarning, stacklevel=6)


@dataclass(frozen=True)
class Checkpoints:
    """What a training keeps on the disk, and what it goes on from.

    Attributes:
        folder: Where checkpoints go; ``None`` if none are written.
        every: ``"1epoch"``, ``"500steps"``, ``"2min"`` and their like.
        keep: How many of the newest remain.
        resume: Whether to go on from the newest in ``folder``, if there is one; or the folder to go on from.
        force: Go on although versions, device or threads are others. The numbers may then be others too.
        asked: Whether somebody asked for them. Then one is written when training has ended too, so that more epochs can
            follow, and training ends where none can be written. If not, it goes on without.
        notify: Told of damaged checkpoints, and of what ``force`` let pass.
        callbacks_end: Whether a training that a callback ended is over. If not, the epoch in which it asked for that is
            trained again, and it is asked again.
        about: What else must be the same to go on, by name, in words and numbers.

    Raises:
        ConfigError: ``every`` or ``keep`` is of another form.
    """

    folder: Path | None
    every: str = "1epoch"
    keep: int = 3
    resume: bool | str | Path = False
    force: bool = False
    asked: bool = True
    notify: Callable[[str], None] = field(default=_warn, compare=False)
    callbacks_end: bool = True
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        Every.of(self.every)
        if type(self.keep) is not int or self.keep < 1:
            raise ConfigError("keep", "must be a whole number of checkpoints from 1 on", repr(self.keep))

    @classmethod
    def of(
        cls,
        checkpoint: str | Path | Checkpoints | None,
        every: str,
        keep: int,
        resume: bool | str | Path,
        processes: int = 1,
    ) -> Checkpoints | None:
        """What the arguments of ``fit`` ask for; ``None`` if nothing is kept nor gone on from.

        Raises:
            ConfigError: They are of another form, or several processes train together.
        """
        if checkpoint is None and resume is False:
            return None
        if processes > 1:
            fix = "Leave checkpoint and resume out, or train in one process."
            raise ConfigError("checkpoint", "is for training in one process", f"{processes} processes", fix)
        if isinstance(checkpoint, Checkpoints):
            return checkpoint
        return cls(None if checkpoint is None else Path(checkpoint), every, keep, resume)

    def keeper(self, about: dict[str, Any], legs: Legs, seconds: float) -> Checkpointer | None:
        """What writes them; ``None`` if none are written.

        Args:
            about: What must be the same where training goes on.
            legs: Which epochs are trained.
            seconds: How long training took before.
        """
        if self.folder is None:
            return None
        every = Every.of(self.every)
        return Checkpointer(
            self.folder,
            every,
            self.keep,
            self.asked,
            about,
            legs,
            seconds,
            self.notify,
            callbacks_end=self.callbacks_end,
        )

    def found(self) -> dict[str, Any] | None:
        """The checkpoint to go on from; ``None`` to begin at the beginning.

        Raises:
            CheckpointError: There is none to go on from though a folder was named, or none that is whole; or there are
                some that nobody asked to go on from.
        """
        source = self.folder if self.resume is True else None if self.resume is False else Path(self.resume)
        here = self.folder is not None and source is not None and self.folder.resolve() == source.resolve()
        if self.folder is not None and not here and checkpoint_paths(self.folder):
            fix = "Pass resume=True to go on from the newest, or another folder."
            raise CheckpointError(str(self.folder), "must have no checkpoints yet", "some", fix)
        if self.resume is False:
            return None
        if source is None:
            raise ConfigError(
                "resume", "needs the folder of the checkpoints", "True alone", "Pass checkpoint=DIRECTORY."
            )
        found = newest(source, self.notify)
        if found is None and self.resume is not True:
            fix = "Pass checkpoint=DIRECTORY and resume=True to begin where there is none."
            raise CheckpointError(str(source), "must have a checkpoint to go on from", "none", fix)
        return None if found is None else found[1]


@dataclass(frozen=True)
class Course:
    """Which epochs are to be trained.

    Attributes:
        legs: Where they stand among those asked for.
        done: Epochs that are over.
        new_leg: Whether more were asked for than the training had, which had ended.
        ended: Why there is nothing left to train; ``None`` if there is.
    """

    legs: Legs
    done: int
    new_leg: bool = False
    ended: StopReason | None = None

    @property
    def numbers(self) -> range:
        """The epochs, from 0."""
        return range(self.done, self.done if self.ended else self.legs.first + self.legs.epochs)


def course(
    saved: Mapping[str, Any] | None, about: Mapping[str, Any], epochs: int, before: int, checkpoints: Checkpoints | None
) -> Course:
    """Find out which epochs are to be trained.

    Args:
        saved: The checkpoint; ``None`` for none.
        about: What must be as it was; see :class:`stoker.training.checkpoints.checkpointer.Checkpointer`.
        epochs: How many are asked for, those that are over among them.
        before: How many the trainer has trained, where there is no checkpoint.
        checkpoints: Whether differences of the environment are to be passed over, and who is told.

    Raises:
        CheckpointError: Something is not as it was.
        ConfigError: The number of epochs does not fit.
    """
    if saved is None or checkpoints is None:
        return Course(Legs(origin=before, asked=epochs, first=before, epochs=epochs), before)
    legs, stopped, done = legs_of(saved), saved.get("stopped"), saved.get("epoch")
    if (
        not isinstance(stopped, str)  # a tensor would compare number by number
        or stopped not in get_args(StopReason)
        or stopped == "imported"
        or type(done) is not int
        or not legs.first <= done <= legs.first + legs.epochs
        or not all(isinstance(saved.get(name), dict) for name in ("job", "environment"))
    ):
        raise CheckpointError("checkpoint", "must say what it is of", str(stopped), "It is damaged.")
    refuse_difference(saved["job"], about["job"], "Go on with what it was begun with, or start anew.")
    try:
        fix = "Go on where it was begun; or force it (--force, force=True), and the numbers may come out otherwise."
        refuse_difference(saved["environment"], about["environment"], fix)
    except CheckpointError as error:
        if not checkpoints.force:
            raise
        checkpoints.notify(f"forced: {error.rule}, got {error.got}; the numbers may come out otherwise")
    if stopped == "callback" and not checkpoints.callbacks_end:
        fix = "Start anew."
        raise CheckpointError("checkpoint", "must be of a training that goes on", "one that a callback ended", fix)
    if stopped == "running":
        if epochs != legs.asked:
            fix = "Train these first, then ask for more."
            raise ConfigError("epochs", f"must be the checkpoint's, {legs.asked}, until they are trained", epochs, fix)
        return Course(legs, done)
    trained = done - legs.origin
    if epochs == legs.asked:
        return Course(legs, done, ended=cast(StopReason, stopped))
    if epochs <= trained:
        raise ConfigError("epochs", f"must be more than the {trained} that are trained", epochs)
    return Course(Legs(legs.origin, epochs, first=done, epochs=epochs - trained), done, new_leg=True)
