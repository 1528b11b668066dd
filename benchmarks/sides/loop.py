"""The loop as it is written by hand: ``DataLoader`` over a ``TensorDataset``, ``loss.item()`` at each step."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from benchmarks.jobs import Data, Job
from benchmarks.sides import Mark, Trained
from benchmarks.sides.torch_networks import criterion, network, tensors, trained


def train(job: Job, data: Data, epochs: int, batch_size: int, mark: Mark) -> Trained:
    inputs, targets = tensors(data)
    return train_on(TensorDataset(*inputs, targets), job, data, epochs, batch_size, mark)


def train_on(dataset: Dataset[Any], job: Job, data: Data, epochs: int, batch_size: int, mark: Mark) -> Trained:
    model, loss_of = network(job, data), criterion(job)
    optimizer = torch.optim.SGD(model.parameters(), lr=job.lr)
    torch.manual_seed(0)
    loader = DataLoader(dataset, batch_size=batch_size, shuffle=True)
    losses = []
    for _ in range(epochs):
        model.train()
        total = 0.0
        for *inputs, targets in loader:
            loss = loss_of(model(*inputs), targets)
            total += loss.item()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        losses.append(total / len(loader))
        mark()
    return trained(model, f"mean loss of the last epoch's batches {losses[-1]:.4f}")
