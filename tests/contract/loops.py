"""The loop that one would write by hand in plain PyTorch, and the data and models it is compared on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from stoker.data.resident import epoch_order
from stoker.data.trees import call_model, tree_map
from stoker.randomness import derive_seed

SEED = 5
ROWS, BATCH, EPOCHS = 70, 16, 2  # 70 = 4 × 16 + 6: the last batch is smaller

OWN_NOISE = {"compiled"}  # engines whose dropout draws other numbers than torch's

# How far weights and losses may be from the loop's. The eager engine does the same arithmetic in the same order, so on
# the CPU it must not be off by a single bit.
TOLERANCE = {"eager": 0.0, "compiled": 1e-4, "auto": 1e-4}


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(ROWS, *shape, generator=torch.Generator().manual_seed(seed))


def labels(classes: int) -> Tensor:
    return torch.randint(0, classes, (ROWS,), generator=torch.Generator().manual_seed(1))


def built(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make()


def loop(
    model: nn.Module,
    criterion: Callable[[Any, Any], Tensor],
    optimizer: Optimizer,
    inputs: Any,
    targets: Any,
    *,
    clip_norm: float | None = None,
    by_step: Any = None,
    by_epoch: Any = None,
) -> tuple[list[float], list[float]]:
    """The hand-written loop: each epoch's loss, as a mean over samples, and its learning rate when it ended."""
    losses, rates = [], []
    for epoch in range(EPOCHS):
        model.train()
        torch.manual_seed(derive_seed(SEED, "noise", epoch))
        total = 0.0
        for chosen in torch.split(epoch_order(ROWS, SEED, epoch), BATCH):
            x = tree_map(lambda leaf: leaf[chosen], inputs)  # noqa: B023  # used at once
            y = tree_map(lambda leaf: leaf[chosen], targets)  # noqa: B023
            optimizer.zero_grad()
            loss = criterion(call_model(model, x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            if clip_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
            optimizer.step()
            if by_step is not None:
                by_step.step()
            total += loss.item() * len(chosen)
        losses.append(total / ROWS)
        rates.append(float(optimizer.param_groups[0]["lr"]))
        if by_epoch is not None:
            by_epoch.step()
    return losses, rates


def assert_same_state(engine: str, model: nn.Module, expected: nn.Module) -> None:
    for (name, mine), theirs in zip(model.state_dict().items(), expected.state_dict().values(), strict=True):
        near = torch.isclose(mine, theirs, rtol=TOLERANCE[engine], atol=TOLERANCE[engine])
        assert bool(near.all()), f"{name} is {mine}, by hand it is {theirs}"


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
