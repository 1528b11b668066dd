"""Lightning's Trainer over a ``DataLoader``, with all that costs time switched off (``barebones=True``)."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import torch
from lightning import LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.jobs import Data, Job
from benchmarks.sides import Mark, Trained
from benchmarks.sides.torch_networks import criterion, network, tensors, trained


class Module(LightningModule):  # type: ignore[misc]
    def __init__(self, job: Job, data: Data, mark: Mark) -> None:
        super().__init__()
        self.model, self.loss_of, self.lr, self.mark = network(job, data), criterion(job), job.lr, mark

    def training_step(self, batch: Any, _: int) -> Any:
        *inputs, targets = batch
        return self.loss_of(self.model(*inputs), targets)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.model.parameters(), lr=self.lr)

    def on_train_epoch_end(self) -> None:
        self.mark()


def train(job: Job, data: Data, epochs: int, batch_size: int, mark: Mark) -> Trained:
    warnings.filterwarnings("ignore", module="lightning")  # that more workers might load faster, which they do not here
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    inputs, targets = tensors(data)
    torch.manual_seed(0)
    loader = DataLoader(TensorDataset(*inputs, targets), batch_size=batch_size, shuffle=True)
    module = Module(job, data, mark)
    Trainer(max_epochs=epochs, accelerator="cpu", devices=1, barebones=True).fit(module, loader)
    return trained(module.model)
