"""Lazy modules, which take their sizes from the first batch that they see."""

from __future__ import annotations

import itertools

import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from stoker.data.batches import Batches
from stoker.data.trees import call_model
from stoker.errors import ConfigError
from stoker.randomness import derive_seed, preserved_randomness, seed_globally
from stoker.training.evaluation import evaluating
from stoker.training.preflight.signature import check_call

__all__ = ["is_lazy", "materialise"]

Lazy = (UninitializedParameter, UninitializedBuffer)


def is_lazy(model: nn.Module) -> bool:
    """Whether some of its sizes are not known yet."""
    return any(isinstance(leaf, Lazy) for leaf in (*model.parameters(), *model.buffers()))


def materialise(model: nn.Module, batches: Batches, seed: int, device: torch.device) -> None:
    """Call a lazy model once, so that it takes its sizes from a batch.

    Raises:
        ConfigError: Some are not known afterwards either.
    """
    with preserved_randomness(device), evaluating(model):
        seed_globally(derive_seed(seed, "init"), device)
        for inputs, _ in itertools.islice(batches.epoch(0), 1):
            check_call(model, inputs)
            call_model(model, inputs)
    if left := [name for name, parameter in model.named_parameters() if isinstance(parameter, Lazy)]:
        fix = "Give it its size, or use it in forward."
        raise ConfigError("model", "must know its sizes after a first batch", f"{left[0]} without one", fix)
