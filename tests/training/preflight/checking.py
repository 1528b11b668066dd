"""A small way to call the check, for its tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from stoker.training.objective import build_objective
from stoker.training.preflight.findings import Finding
from stoker.training.preflight.probe import check

CPU = torch.device("cpu")


def some(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def labels(rows: int, classes: int, seed: int = 0) -> Tensor:
    return torch.randint(classes, (rows,), generator=torch.Generator().manual_seed(seed))


X, Y, C = some(100, 4), some(100, 1, seed=1), labels(100, 3)


def mlp(outputs: int = 1, *last: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, outputs), *last)


def findings(
    model: nn.Module, criterion: Any = "mse", inputs: Any = X, targets: Any = Y, optimizer: Any = "sgd", **settings: Any
) -> list[Finding]:
    """What the check says, with an optimizer of all that is trained, or with one made of the model."""
    objective = build_objective(criterion, device=CPU)
    if optimizer == "sgd":
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.SGD(trained, lr=0.1)
    return check(model, objective, optimizer, inputs, targets, device=CPU, **settings)


def only(found: list[Finding]) -> tuple[str, str]:
    """Severity and text of the one finding that there is."""
    assert len(found) == 1, [str(finding) for finding in found]
    return found[0].severity, str(found[0])


class Calls(nn.Module):
    """A model whose forward pass is a function of itself and the inputs."""

    def __init__(self, forward: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(4, 1)
        for name, part in parts.items():
            setattr(self, name, part)
        self._does = forward

    def forward(self, x: Any) -> Any:
        return self._does(self, x)
