"""skorch's NeuralNet, without a validation split and without the table that it prints."""

from __future__ import annotations

from typing import Any

import torch
from skorch import NeuralNet
from skorch.callbacks import Callback

from benchmarks.jobs import Data, Job
from benchmarks.sides import Mark, Trained
from benchmarks.sides.torch_networks import criterion, network, trained


class Marks(Callback):  # type: ignore[misc]
    def __init__(self, mark: Mark) -> None:
        self.mark = mark

    def on_epoch_end(self, net: Any, **_: Any) -> None:  # noqa: ARG002
        self.mark()


def train(job: Job, data: Data, epochs: int, batch_size: int, mark: Mark) -> Trained:
    torch.manual_seed(0)
    net = NeuralNet(
        network(job, data),
        criterion(job),
        optimizer=torch.optim.SGD,
        lr=job.lr,
        max_epochs=epochs,
        batch_size=batch_size,
        iterator_train__shuffle=True,
        train_split=None,
        callbacks=[Marks(mark)],
        callbacks__print_log=None,
        device="cpu",
    )
    names = ("numbers", "codes")  # forward's, where there are several
    inputs = data.inputs[0] if len(data.inputs) == 1 else dict(zip(names, data.inputs, strict=True))
    net.fit(inputs, data.targets)
    return trained(net.module_)
