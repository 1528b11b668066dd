"""``lr = "auto"``: a job looks for its learning rate before it trains."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from stoker.jobs.prepare import Prepared
from stoker.training.lr_finder import LrCurve
from stoker.training.trainer import Trainer

__all__ = ["find_rate", "with_rate"]

QUIET_SECONDS = 2.0  # what takes longer is told


def find_rate(trainer: Trainer, ready: Prepared, notify: Callable[[str], None] | None) -> LrCurve:
    """Look for a learning rate on the training split.

    Args:
        trainer: Of the job, with any rate.
        ready: What it trains on.
        notify: Told, if it takes long, that it does.
    """
    started, told = time.monotonic(), notify is None

    def watch(steps: int) -> None:
        nonlocal told
        if not told and time.monotonic() - started > QUIET_SECONDS:
            told = True
            assert notify is not None
            notify(f"looking for a learning rate: {steps} of at most 100 steps so far")

    return trainer.find_lr(ready.splits["train"], batch_size=ready.config.training.batch_size, watch=watch)


def with_rate(ready: Prepared, lr: float) -> Prepared:
    """The same with this rate among its settings."""
    training = ready.config.training.model_copy(update={"lr": lr})
    return replace(ready, config=ready.config.model_copy(update={"training": training}))
