"""After a check everything is as it was: the objects, their bits, and what comes next."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from checking import CPU, Calls, X, Y, findings, mlp, some
from torch import Tensor, nn

from stoker.training.preflight.untouched import same_draws, untouched


class Busy(nn.Module):
    """Changes all that a forward pass can change of a module."""

    moving: Tensor
    replaced: Tensor
    hidden: Tensor

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.norm, self.drop = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5)
        self.frozen = nn.BatchNorm1d(8).eval()
        self.embed = nn.Embedding(5, 8, max_norm=0.1)
        self.head, self.unused = nn.Linear(8, 1), nn.Linear(2, 2)
        self.register_buffer("moving", torch.zeros(3))
        self.register_buffer("replaced", torch.zeros(3))
        self.register_buffer("hidden", torch.zeros(3), persistent=False)
        self.plain, self.steps, self.seen, self.by_name = torch.zeros(3), 0, [1, 2], {"a": torch.zeros(2)}
        self.later: Any = None

    def forward(self, x: Tensor) -> Any:
        self.moving.add_(1)
        self.replaced = self.replaced + 1
        self.hidden.add_(1)
        self.plain.add_(1)
        self.by_name["a"] += 1
        self.by_name["b"] = torch.ones(1)
        self.steps += 1
        self.seen.append(self.steps)
        if self.later is None:
            self.later = nn.Linear(8, 8)
            self.register_parameter("scale", nn.Parameter(torch.randn(1)))
            self.head.register_forward_hook(lambda *_: None)
        random.random()
        np.random.rand()
        with torch.no_grad():
            self.unused.weight.mul_(0.5)
            self.fc.weight.grad = None
            if self.fc.bias.grad is not None:
                self.fc.bias.grad.mul_(2)
        self.unused.weight.requires_grad_(False)
        hidden = self.frozen(self.norm(self.fc(x))) + self.embed((x[:, 0] > 0).long())
        return self.head(self.later(self.drop(hidden)))


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.calls += 1
        return (outputs - targets).square().mean()


def picture(model: nn.Module, criterion: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """All that there is to compare, with the objects' identities."""
    return {
        "modules": [(name, id(module), module.training) for name, module in model.named_modules()],
        "parameters": [(n, id(p), p.requires_grad, p.detach().clone()) for n, p in model.named_parameters()],
        "buffers": [(name, id(buffer), buffer.clone()) for name, buffer in model.named_buffers()],
        "state_dict": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "grads": [(id(p.grad), None if p.grad is None else p.grad.clone()) for p in model.parameters()],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()],
        "attributes": [sorted(vars(module)) for module in model.modules()],
        "others": [repr(getattr(model, name, None)) for name in ("plain", "steps", "seen", "by_name", "later")],
        "criterion": repr(vars(criterion).get("calls")),
        "optimizer": optimizer.state_dict(),
        "random": [torch.get_rng_state(), random.getstate(), np.random.get_state()],
        "grad mode": torch.is_grad_enabled(),
    }


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return one.shape == other.shape and one.dtype == other.dtype and bits(one) == bits(other)
    if isinstance(one, np.ndarray):
        return bool(np.array_equal(one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


def bits(tensor: Tensor) -> bytes:
    return tensor.detach().numpy().tobytes()


def differing(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [name for name in before if not equal(before[name], after[name])]


def busy() -> tuple[nn.Module, nn.Module, torch.optim.Optimizer]:
    """A model that has been trained a little, with gradients left from it."""
    model, criterion = Busy(), Counting()
    optimizer = torch.optim.Adam(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return model, criterion, optimizer


def test_the_model_of_these_tests_does_change_all_of_it() -> None:
    model, criterion, optimizer = busy()
    before = picture(model, criterion, optimizer)
    criterion(model(X), Y).backward()
    assert set(differing(before, picture(model, criterion, optimizer))) == set(before) - {"optimizer", "grad mode"}


@pytest.mark.parametrize(
    "change",
    [
        lambda _: None,
        lambda model: model.eval(),
        lambda model: model.zero_grad(),
        lambda model: model.embed.requires_grad_(False),
        lambda model: model.head.weight.data.fill_(torch.nan),  # what is looked for further is called more often
        lambda model: [part.data.zero_() for part in model.head.parameters()],
        lambda model: model.fc.register_forward_hook(lambda *_: None),
    ],
)
def test_everything_is_as_it_was(change: Callable[[Any], Any]) -> None:
    model, criterion, optimizer = busy()
    change(model)
    before = picture(model, criterion, optimizer)
    findings(model, criterion, optimizer=optimizer)
    assert differing(before, picture(model, criterion, optimizer)) == []


@pytest.mark.parametrize(
    "inputs", [X.double(), X[:, :3], X[:1], X * torch.nan], ids=["dtype", "shape", "one row", "nan"]
)
def test_everything_is_as_it_was_after_an_error(inputs: Tensor) -> None:
    model, criterion, optimizer = busy()
    before, batch = picture(model, criterion, optimizer), inputs.clone()
    raised: AbstractContextManager[Any] = (
        pytest.raises(RuntimeError, match="shapes cannot be mul") if inputs.shape[1] == 3 else nullcontext()
    )
    with raised:
        assert findings(model, criterion, inputs, Y[: len(inputs)], optimizer=optimizer) != []
    assert differing(before, picture(model, criterion, optimizer)) == []
    assert equal(inputs, batch)


def test_in_place_faults_are_looked_for_without_a_trace() -> None:
    model = Calls(lambda m, x: m.fc(x).sigmoid().add_(1), norm=nn.BatchNorm1d(4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = picture(model, nn.Identity(), optimizer)
    assert len(findings(model, optimizer=optimizer)) == 1
    assert differing(before, picture(model, nn.Identity(), optimizer)) == []


def test_a_lazy_model_stays_lazy() -> None:
    model = nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.LazyLinear(1))
    state = torch.get_rng_state()
    assert findings(model, optimizer=None) == []
    assert all(isinstance(parameter, nn.UninitializedParameter) for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_batch_that_the_model_writes_to_is_not_changed() -> None:
    inputs, targets = some(10, 4), some(10, 1)
    before = inputs.clone(), targets.clone()

    def criterion(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets.mul_(2)).square().mean()

    assert findings(Calls(lambda m, x: m.fc(x.mul_(2))), criterion, inputs, targets) == []
    assert torch.equal(inputs, before[0])
    assert torch.equal(targets, before[1])


def test_untouched_rewinds_as_often_as_one_likes() -> None:
    model, criterion, optimizer = busy()
    before = picture(model, criterion, optimizer)
    with same_draws(CPU), untouched([model, criterion]) as rewind:
        for _ in range(2):
            criterion(model(X), Y).backward()
            rewind()
            optimizer.zero_grad(set_to_none=False)
    assert differing(before, picture(model, criterion, optimizer)) == []


@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated")  # of a kind that depends on the version of torch
def test_scripted_models_keep_mode_and_statistics() -> None:
    model = torch.jit.script(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)))
    model.eval()
    before = [tensor.clone() for tensor in model.state_dict().values()]
    assert findings(model) == []
    assert all(map(torch.equal, before, model.state_dict().values()))
    assert not any(module.training for module in model.modules())


def test_little_is_computed_where_all_is_well() -> None:
    rows: list[int] = []
    model = mlp()
    model.register_forward_hook(lambda _module, args, _output: rows.append(len(args[0])))
    assert findings(model, inputs=some(5000, 4), targets=some(5000, 1)) == []
    assert rows == [64, 64]
