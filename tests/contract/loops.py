"""The loop that one would write by hand in plain PyTorch, the data it is compared on, and what made the steps."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from stoker.data.resident import epoch_order
from stoker.data.trees import call_model, tree_map
from stoker.engines import auto, takeover
from stoker.engines.xla.scan import Scan
from stoker.randomness import derive_seed
from stoker.training.trainer import Trainer

SEED = 5
ROWS, BATCH, EPOCHS = 150, 16, 2
WHOLE, STEPS = ROWS // BATCH, -(-ROWS // BATCH)  # of an epoch: 150 = 9 × 16 + 6, the last batch is smaller
ALL_STEPS = EPOCHS * STEPS

OWN_NOISE = {"auto", "compiled"}  # engines whose dropout draws other numbers than torch's

# How far weights and losses may be from the loop's. The eager engine does the same arithmetic in the same order, so on
# the CPU it must not be off by a single bit.
TOLERANCE = {"eager": 0.0, "compiled": 1e-4, "auto": 1e-4}

EAGER_FIRST = {"compiled": 3, "auto": 4}
"""Updates that an engine makes eagerly in a training: one (``auto`` two), and two that a program is compared with."""

SEGMENTS: list[int] = []
"""The updates that programs have made since :func:`carried_out` was asked last, segment by segment."""


def prepare(patch: pytest.MonkeyPatch) -> None:
    """Have ``auto`` hand over to a program after two steps whatever the clock says, and count what programs make.

    Weights are the same whichever tests ran before.
    """
    torch.manual_seed(0)
    for name in ("AT_ONCE", "UNKNOWN", "KEPT", "READY"):
        patch.setattr(auto, name, 0.0)
    patch.setattr(auto, "EARLY", (1, 2))
    patch.setattr(takeover, "measured_pace", lambda *_: 1e-9)
    advance = Scan.advance

    def counted(self: Scan, start: int, stop: int) -> list[float]:
        losses = advance(self, start, stop)
        SEGMENTS.append(len(losses))
        return losses

    SEGMENTS.clear()
    patch.setattr(Scan, "advance", counted)


def carried_out(
    trainer: Trainer, *, eager: str | None = None, epochs: int = EPOCHS, updates: int = WHOLE, going_on: bool = False
) -> int:
    """Assert that programs made a training's updates where they should, and none elsewhere.

    Args:
        trainer: What has trained last.
        eager: A pattern of why no engine but the eager one can; ``None`` if a program can.
        epochs: Of the training.
        updates: Whole ones of an epoch; a smaller one after them is made eagerly.
        going_on: Whether it had a program from a training before.

    Returns:
        How many segments programs made.
    """
    asked, segments = trainer.engine_asked, len(SEGMENTS)
    made = sum(SEGMENTS)
    SEGMENTS.clear()
    if asked == "eager" or eager is not None:
        assert re.fullmatch(f"eager: {'as asked' if asked == 'eager' else eager}", trainer.engine_reason)
        assert made == 0
        return 0
    reason = {"compiled": r"compiled: as asked", "auto": r"compiled: from epoch \d+, step 3 on; a step takes .*"}
    assert re.fullmatch(reason[asked], trainer.engine_reason), trainer.engine_reason
    assert made == epochs * updates - (0 if going_on else EAGER_FIRST[asked])
    return segments


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
