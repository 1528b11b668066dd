"""Processes that train copies of one model together, each on its share of every batch.

``torchrun --nproc_per_node 2 script.py`` starts them. The gradient of a batch is the sum over its samples, whichever
process had them, divided by their number; every process then makes the same update. This is what one process does with
the same batches, up to the order of additions.
"""

from __future__ import annotations

import atexit
import importlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from stoker.data.trees import tree_map
from stoker.errors import ConfigError, TrainingError

__all__ = ["Replicas", "share_rows"]

PATIENCE = timedelta(minutes=10)  # how long one process waits for another that neither answers nor ends


def share_rows(rows: int, rank: int, world: int, *, least: int = 1) -> tuple[int, int]:
    """Which rows of a batch are a process's own.

    Args:
        rows: Of the batch.
        rank: The process, from 0.
        world: How many processes there are.
        least: A batch is divided among no more processes than get so many rows each.

    Returns:
        The first row, and the one after the last; consecutive over the ranks, their numbers differing by one at most.
    """
    parts = max(1, min(world, rows // least))
    part = min(rank, parts)
    return rows * part // parts, rows * min(part + 1, parts) // parts


@dataclass(frozen=True)
class Replicas:
    """The group of processes.

    Attributes:
        rank: This process, from 0.
        world: How many there are.
        device: Where this one computes, and tensors are exchanged from.
    """

    rank: int
    world: int
    device: torch.device

    @classmethod
    def found(cls, device: torch.device, wanted: bool | None = None) -> Replicas | None:
        """The group that this process is one of, joined now if need be; ``None`` if it is alone.

        Args:
            device: Where this process computes; NCCL connects CUDA devices, Gloo the others.
            wanted: ``None``: if the environment says so, as ``torchrun`` sets it, or the script has made a process
                group. ``False``: never. ``True``: always.

        Raises:
            ConfigError: It is wanted, but there is no group to be one of.
            TrainingError: The others cannot be reached.
        """
        there = dist.is_available() and (dist.is_initialized() or int(os.environ.get("WORLD_SIZE", "1")) > 1)
        if wanted and not there:
            fix = "Start the script with: torchrun --nproc_per_node 2 script.py."
            raise ConfigError("distributed", "needs processes that know of each other", "one alone", fix)
        if wanted is False or not there:
            return None
        if not dist.is_initialized():
            # Functions in there have the group as a default, if there is one when they are imported. They would keep it
            # and its threads beyond _leave; and one that lets go of a tensor as Python ends aborts the process.
            importlib.import_module("torch.distributed.nn.functional")
            with _naming_the_lost(int(os.environ.get("RANK", "0")), int(os.environ["WORLD_SIZE"])):
                dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
            atexit.register(_leave)
        return cls(dist.get_rank(), dist.get_world_size(), device) if dist.get_world_size() > 1 else None

    @property
    def first(self) -> bool:
        """Whether this is the process that shows, tells and writes."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> None:
        """Put the sum over all processes into a tensor, the same bits in each."""
        with _naming_the_lost(self.rank, self.world):
            dist.all_reduce(tensor)

    def sum_of(self, numbers: Sequence[float]) -> list[float]:
        """The sum over all processes of each number, in double precision where the device has it."""
        dtype = torch.float32 if self.device.type == "mps" else torch.float64
        sums = torch.tensor(list(numbers), dtype=dtype, device=self.device)
        self.sum(sums)
        return [float(value) for value in sums]

    def any(self, flag: bool) -> bool:
        """Whether a flag is set in any process."""
        return self.sum_of([float(flag)])[0] > 0

    def text(self, text: str) -> str:
        """The first process's text, in all of them."""
        coded = text.encode()
        size = int(self.sum_of([len(coded) if self.first else 0])[0])
        letters = torch.zeros(size, dtype=torch.int32, device=self.device)
        if self.first:
            letters.copy_(torch.tensor(list(coded), dtype=torch.int32))
        self.sum(letters)
        return bytes(letters.tolist()).decode()

    @torch.no_grad()
    def same(self, model: nn.Module, *, buffers_only: bool = False) -> None:
        """Give every process the first one's parameters and buffers, bit for bit."""
        tensors = [*([] if buffers_only else model.parameters()), *model.buffers()]
        with _naming_the_lost(self.rank, self.world):
            for tensor in tensors:
                if tensor.is_contiguous():
                    dist.broadcast(tensor.detach(), 0)
                else:  # such as a convolution's weights with the channels innermost
                    dense = tensor.detach().contiguous()
                    dist.broadcast(dense, 0)
                    tensor.detach().copy_(dense)

    def share(self, tree: Any, rows: int, *, least: int = 1) -> Any:
        """This process's rows of a batch, views; possibly none. What has no rows, such as a 0-d tensor, stays."""
        first, last = share_rows(rows, self.rank, self.world, least=least)
        return tree_map(lambda leaf: leaf[first:last] if leaf.ndim and leaf.shape[0] == rows else leaf, tree)

    def average_gradients(
        self, parameters: Sequence[nn.Parameter], loss_sum: Tensor, rows: int, stop: bool
    ) -> tuple[Tensor, Tensor]:
        """Turn gradients of sums over samples, each of a process's own, into the gradient of the mean over all.

        Everything goes in one exchange. A parameter without a gradient in any process stays without one.

        Args:
            parameters: What is trained.
            loss_sum: 0-d, the sum over this process's samples.
            rows: How many they are.
            stop: Whether this process has a reason to end the training.

        Returns:
            The mean loss over all samples, and how many processes want to end, both 0-d.
        """
        given = [parameter.grad is not None for parameter in parameters]
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        dtype = loss_sum.dtype
        for gradient in gradients:
            dtype = torch.promote_types(dtype, gradient.dtype)
        dtype = torch.promote_types(dtype, torch.float32)  # half precision cannot count samples
        numbers = torch.tensor([rows, stop, *given], dtype=dtype, device=self.device)
        parts = [gradient.reshape(-1).to(dtype) for gradient in gradients]
        flat = torch.cat([*parts, loss_sum.detach().reshape(1).to(dtype), numbers])
        self.sum(flat)
        sizes = [gradient.numel() for gradient in gradients]
        *parts, mean, samples, stops, holders = torch.split(flat, [*sizes, 1, 1, 1, len(parameters)])
        anywhere = given if all(given) else [holder > 0 for holder in holders.tolist()]
        for parameter, gradient, part, exists in zip(parameters, gradients, parts, anywhere, strict=True):
            if exists:
                gradient.copy_((part / samples).view_as(gradient))
                parameter.grad = gradient
        return (mean / samples).to(loss_sum.dtype).reshape(()), stops.reshape(())


@contextmanager
def _naming_the_lost(rank: int, world: int) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        fix = "Another process has ended or hangs: what it printed says why. Start all of them again."
        got = str(error).strip().splitlines()[0][:200]
        raise TrainingError(f"process {rank} of {world}", "must reach the others", got, fix) from error


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
