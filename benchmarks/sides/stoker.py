"""Stoker's Trainer, one call to ``fit``, with any of its engines.

``auto`` is measured as users have it: JAX is imported when the engine wants it, within the call, and counts.
"""

from __future__ import annotations

from typing import Any

from benchmarks.jobs import Data, Job
from benchmarks.sides import Mark, Trained
from benchmarks.sides.torch_networks import criterion, network, tensors, trained
from stoker import Callback, Trainer


class Marks(Callback):
    def __init__(self, mark: Mark) -> None:
        self.mark = mark

    def on_epoch_end(self, row: Any, is_best: bool) -> None:  # noqa: ARG002
        self.mark()


def train(job: Job, data: Data, epochs: int, batch_size: int, mark: Mark, engine: str) -> Trained:
    inputs, targets = tensors(data)
    model = network(job, data)
    trainer = Trainer(model, criterion(job), "sgd", lr=job.lr, metrics=(), device="cpu", engine=engine)
    features = inputs if len(inputs) > 1 else inputs[0]
    settings: dict[str, Any] = {"callbacks": [Marks(mark)], "progress": "none"}
    trainer.fit((features, targets), epochs=epochs, batch_size=batch_size, **settings)
    return trained(model, trainer.engine_reason)
