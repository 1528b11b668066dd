"""What is kept of a trial while it runs: whoever takes it after its worker's death goes on from there."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stoker.errors import CheckpointError
from stoker.training.checkpoints.resuming import Checkpoints
from stoker.training.history import History

__all__ = ["EVERY", "continued", "forget"]

EVERY = "10s"  # a trial that takes less than that is sooner run again than kept


def continued(
    folder: Path | None, number: int, params: Mapping[str, Any], train: Callable[[Checkpoints | None], History]
) -> History:
    """Train a trial, from where it was left if anything is left of it on this machine.

    Args:
        folder: Of the study's trials; ``None`` where nothing is kept.
        number: The trial's.
        params: The trial's values: what was kept of other ones, of a study that is gone, is not gone on from.
        train: Builds what is trained, and trains it; called again, from the beginning, if what was kept cannot be gone
            on from, such as with another version of torch.
    """
    if folder is None:
        return train(None)
    keeping = Checkpoints(
        folder / str(number),
        EVERY,
        keep=1,
        resume=True,
        asked=False,
        notify=lambda _: None,
        callbacks_end=False,  # whether it is pruned, or only left to another, is the study's to say
        about={"the trial's values": repr(sorted(params.items()))},
    )
    try:
        return train(keeping)
    except CheckpointError:
        forget(folder, number)
        return train(keeping)


def forget(folder: Path | None, number: int) -> None:
    """Remove what was kept of a trial that is over."""
    if folder is not None:
        shutil.rmtree(folder / str(number), ignore_errors=True)
