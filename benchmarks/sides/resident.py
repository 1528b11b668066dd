"""A careful loop by hand: tensors in memory, a batch is an index into them, the loss is read once an epoch."""

from __future__ import annotations

import torch

from benchmarks.jobs import Data, Job
from benchmarks.sides import Mark, Trained
from benchmarks.sides.torch_networks import criterion, network, tensors, trained


def train(job: Job, data: Data, epochs: int, batch_size: int, mark: Mark) -> Trained:
    inputs, targets = tensors(data)
    model, loss_of = network(job, data), criterion(job)
    optimizer = torch.optim.SGD(model.parameters(), lr=job.lr)
    torch.manual_seed(0)
    losses = []
    for _ in range(epochs):
        model.train()
        total = torch.zeros(())
        order = torch.split(torch.randperm(len(targets)), batch_size)
        for rows in order:
            loss = loss_of(model(*(values[rows] for values in inputs)), targets[rows])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            total += loss.detach()
        losses.append(total.item() / len(order))
        mark()
    return trained(model, f"mean loss of the last epoch's batches {losses[-1]:.4f}")
