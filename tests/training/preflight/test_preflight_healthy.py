"""Models and batches in which there is nothing to find: a warning that is not true is worse than one that is missed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from checking import CPU, C, Calls, X, Y, findings, labels, mlp, some
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.utils.checkpoint import checkpoint

from stoker.training.criteria import MeanCrossEntropy, OnScaledTarget
from stoker.training.objective import Loss

IMAGES, TOKENS = some(70, 1, 8, 8), labels(70 * 6, 11).reshape(70, 6)
KINDS = labels(70, 3)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.3),
        nn.Linear(36, 3),
    )  # fmt: skip


class Sequence(nn.Module):
    def __init__(self, body: str) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8, padding_idx=0)
        if body == "lstm":
            self.body: nn.Module = nn.LSTM(8, 8, batch_first=True, bidirectional=True, dropout=0.1, num_layers=2)
        else:
            self.body = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)
        self.head = nn.Linear(16 if body == "lstm" else 8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.body(self.embed(tokens))
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        logits: Tensor = self.head(hidden.mean(dim=1))
        return logits


class Causal(nn.Module):
    """A language model: weights shared between embedding and output, and a mask of minus infinity."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.attend = nn.Embedding(11, 8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.mask, self.out = Mask(), nn.Linear(8, 11, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        x = x + self.attend(x, x, x, attn_mask=self.mask(x), need_weights=False)[0]
        logits: Tensor = self.out(x).transpose(1, 2)
        return logits


class Mask(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.full((x.shape[1], x.shape[1]), -torch.inf).triu(1)


class TwoInTwoOut(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide, self.deep, self.aux = nn.Linear(4, 2), nn.Linear(6, 2), nn.Linear(2, 1)

    def forward(self, wide: Tensor, deep: Tensor) -> dict[str, Tensor]:
        hidden = self.deep(deep).relu()
        return {"main": self.wide(wide) + hidden, "aux": self.aux(hidden)}


def frozen_backbone() -> nn.Module:
    model = mlp()
    model[0].requires_grad_(False)
    return model


def zeroed_head() -> nn.Module:
    model = mlp()
    for parameter in model[2].parameters():
        nn.init.zeros_(parameter)
    return model


def under_no_grad(model: Any, x: Tensor) -> Any:
    with torch.no_grad():
        hidden = model.body(x)
    return model.head(hidden)


def derivative(model: Any, x: Tensor) -> Any:
    """As a network that solves a differential equation has it: a gradient within the forward pass."""
    x = x.detach().requires_grad_()
    u = model.body(x)
    return torch.autograd.grad(u.sum(), x, create_graph=True)[0].sum(1, keepdim=True) + u


def pairwise(outputs: Tensor, targets: Tensor) -> Tensor:
    """A ranking loss: all pairs of outputs against all pairs of targets, broadcast on purpose."""
    outputs, targets = outputs.reshape(-1), targets.reshape(-1)
    return F.relu(1 - (outputs[:, None] - outputs[None]) * (targets[:, None] - targets[None]).sign()).mean()


def contrastive(outputs: Tensor, targets: Tensor) -> Tensor:
    near = (targets[:, None] == targets).float()
    return F.binary_cross_entropy_with_logits(outputs @ outputs.T, near)


HEALTHY: dict[str, Callable[[], tuple[Any, ...]]] = {
    "mlp": lambda: (mlp(), "mse", X, Y),
    "mlp classes": lambda: (mlp(3), nn.CrossEntropyLoss(), X, C),
    "class weights": lambda: (mlp(3), MeanCrossEntropy([1.0, 2.0, 3.0], 0.1), X, C),
    "class probabilities": lambda: (mlp(3), nn.CrossEntropyLoss(), X, some(100, 3).softmax(1)),
    "ignored classes": lambda: (mlp(3), nn.CrossEntropyLoss(), X, C.where(C > 0, -100)),
    "ignored class 255": lambda: (mlp(3), nn.CrossEntropyLoss(ignore_index=255), X, C.where(C > 0, 255)),
    "ignored, in a partial": lambda: (
        mlp(3), functools.partial(F.cross_entropy, ignore_index=9), X, C.where(C > 0, 9)
    ),
    "bytes as classes": lambda: (mlp(3), nn.CrossEntropyLoss(), X, C.byte()),
    "two classes, smoothed": lambda: (mlp(), nn.BCEWithLogitsLoss(), X, (Y > 0).float() * 1.0001),
    "two classes": lambda: (mlp(), nn.BCEWithLogitsLoss(), X, (Y > 0).float()),
    "sigmoid and BCE": lambda: (mlp(1, nn.Sigmoid()), nn.BCELoss(), X, (Y > 0).float()),
    "log-softmax and NLL": lambda: (mlp(3, nn.LogSoftmax(dim=1)), nn.NLLLoss(), X, C),
    "sigmoid and MSE": lambda: (mlp(1, nn.Sigmoid()), "mse", X, Y),
    "softmax as attention": lambda: (Calls(lambda m, x: m.fc(x * m.gate(x).softmax(1)), gate=nn.Linear(4, 4)),),
    "gate": lambda: (Calls(lambda m, x: m.fc(x).sigmoid() * m.fc(x)), nn.BCEWithLogitsLoss(), X, (Y > 0).float()),
    "margin of log-softmax": lambda: (mlp(3, nn.LogSoftmax(dim=1)), nn.MultiMarginLoss(), X, C),
    "outputs that sum to 1 by chance": lambda: (
        Calls(lambda m, x: torch.cat([m.fc(x), 1 - m.fc(x)], 1).abs()), nn.CrossEntropyLoss(), X, C % 2
    ),
    "whole numbers as targets": lambda: (mlp(), nn.MSELoss(), X, C[:, None]),
    "scaled target": lambda: (mlp(), OnScaledTarget(nn.MSELoss(), torch.zeros(1), torch.ones(1)), X, Y),
    "quantiles": lambda: (mlp(3), lambda o, y: torch.maximum(0.1 * (y - o), 0.9 * (o - y)).mean(), X, Y),
    "ranking": lambda: (mlp(), pairwise, X, Y[:, 0]),
    "contrastive": lambda: (mlp(3), contrastive, X, C),
    "cnn": lambda: (cnn(), "cross-entropy", IMAGES, KINDS),
    "segmentation": lambda: (nn.Conv2d(1, 3, 1), nn.CrossEntropyLoss(), IMAGES, labels(70 * 64, 3).reshape(70, 8, 8)),
    "lstm": lambda: (Sequence("lstm"), "cross-entropy", TOKENS, KINDS),
    "time first": lambda: (
        Calls(lambda m, x: m.head(m.body(x)[0][-1]), body=nn.GRU(4, 5), head=nn.Linear(5, 1), fc=None),
        "mse", some(80, 9, 4), some(9, 1),
    ),
    "as many steps as rows": lambda: (
        Calls(lambda m, x: m.head(m.body(x)[0][-1]), body=nn.GRU(4, 5), head=nn.Linear(5, 1), fc=None),
        "mse", some(80, 80, 4), some(80, 1),
    ),
    "transformer": lambda: (Sequence("transformer"), "cross-entropy", TOKENS, KINDS),
    "shared weights": lambda: (Causal(), nn.CrossEntropyLoss(), TOKENS, TOKENS),
    "sparse embedding": lambda: (
        nn.Sequential(nn.Embedding(11, 3, sparse=True), nn.Flatten(), nn.Linear(18, 3)), "cross-entropy", TOKENS, KINDS
    ),
    "embedding with a largest norm": lambda: (
        nn.Sequential(nn.Embedding(11, 3, max_norm=0.5), nn.Flatten(), nn.Linear(18, 3)), "cross-entropy", TOKENS, KINDS
    ),
    "bag of tokens": lambda: (nn.EmbeddingBag(11, 3), "cross-entropy", TOKENS, KINDS),
    "frozen backbone": lambda: (frozen_backbone(),),
    "backbone under no_grad": lambda: (
        Calls(under_no_grad, body=mlp(5).requires_grad_(False), head=nn.Linear(5, 1), fc=None),
    ),
    "head of zeros": lambda: (zeroed_head(),),
    "head of zeros on tokens": lambda: (
        Calls(lambda m, x: m.fc(m.table(x).mean(1)), table=nn.Embedding(11, 4), fc=zeroed_head()), "mse", TOKENS, Y[:70]
    ),
    "weights of zero": lambda: (Calls(lambda m, x: x @ m.w, w=nn.Parameter(torch.zeros(4, 1)), fc=None),),
    "two inputs, one output used": lambda: (TwoInTwoOut(), {"main": "mse"}, (X, some(100, 6)), {"main": some(100, 2)}),
    "two inputs by name, two outputs": lambda: (
        TwoInTwoOut(), {"main": "mse", "aux": Loss("mse", 0.2, train_only=True)},
        {"deep": some(100, 6), "wide": X}, {"main": some(100, 2), "aux": Y},
    ),
    "no targets": lambda: (mlp(4), lambda o, _: (o - 1).square().mean(), X, None),
    "in-place, but allowed": lambda: (Calls(lambda m, x: m.fc(x).add_(1).relu_()),),
    "in-place on the inputs": lambda: (Calls(lambda m, x: m.fc(x.clone().sigmoid_().add_(1))),),
    "spectral norm": lambda: (Calls(lambda m, x: m.head(x), head=spectral_norm(nn.Linear(4, 1)), fc=None),),
    "weight norm": lambda: (Calls(lambda m, x: m.head(x), head=weight_norm(nn.Linear(4, 1)), fc=None),),
    "checkpointing": lambda: (
        Calls(
            lambda m, x: checkpoint(m.head, m.body(x), use_reentrant=False), body=nn.Linear(4, 4), head=mlp(), fc=None
        ),
    ),
    "reentrant checkpointing": lambda: (
        Calls(
            lambda m, x: checkpoint(m.head, m.body(x), use_reentrant=True), body=nn.Linear(4, 4), head=mlp(), fc=None
        ),
    ),
    "derivatives": lambda: (
        Calls(derivative, body=nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1)), fc=None),
    ),
    "reentrant checkpointing of all there is to train": lambda: (
        Calls(lambda m, x: checkpoint(m.head, x.requires_grad_(), use_reentrant=True), head=mlp(), fc=None),
    ),
    "double throughout": lambda: (mlp().double(), "mse", X.double(), Y.double()),
    "double inside": lambda: (Calls(lambda m, x: m.fc((x.double() * 2).float())),),
    "double inputs, cast within": lambda: (Calls(lambda m, x: m.fc(x.float())), "mse", X.double()),
    "bytes as pixels": lambda: (
        Calls(lambda m, x: m.fc(x.float() / 255)), "mse", (X.abs() * 50).byte(), Y
    ),
    "missing values that the model fills": lambda: (
        Calls(lambda m, x: m.fc(x.nan_to_num())), "mse", torch.where(X > 1, torch.nan, X), Y
    ),
    "scripted": lambda: (torch.jit.script(mlp()),),
    "batch normalisation, two rows": lambda: (mlp(8, nn.BatchNorm1d(8), nn.Linear(8, 1)), "mse", X[:2], Y[:2]),
    "one row": lambda: (mlp(), "mse", X[:1], Y[:1]),
    "rows that are alike": lambda: (mlp(), "mse", X[:1].expand(9, 4), Y[:9]),
    "evaluation mode": lambda: (mlp(8, nn.BatchNorm1d(8), nn.Dropout(0.1), nn.Linear(8, 1)).eval(),),
    "bfloat16 throughout": lambda: (mlp().bfloat16(), "mse", X.bfloat16(), Y.bfloat16()),
    "lazy": lambda: (nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.LazyLinear(1)), "mse", X, Y, None),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated")  # of a kind that depends on the version of torch
@pytest.mark.parametrize("name", HEALTHY)
def test_nothing_is_found(name: str) -> None:
    assert [str(finding) for finding in findings(*HEALTHY[name]())] == []


def test_nothing_is_found_with_autocast() -> None:
    assert findings(cnn(), "cross-entropy", IMAGES, KINDS, autocast=torch.bfloat16) == []


@pytest.mark.parametrize("seed", range(6))
def test_layers_may_be_left_out_at_random(seed: int) -> None:
    model = Calls(lambda m, x: m.fc(m.extra(x) if torch.rand(()) < 0.5 else x), extra=nn.Linear(4, 4))
    torch.manual_seed(seed)
    assert findings(model) == []


def test_what_the_optimizer_leaves_out_needs_no_gradient() -> None:
    model = Calls(lambda m, x: m.fc(x), old=nn.Linear(4, 4))
    assert findings(model, optimizer=torch.optim.SGD(model.fc.parameters(), lr=0.1)) == []


def test_an_optimizer_may_train_the_criterion_too() -> None:
    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))  # of the shape of a bias that is not trained

        def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return ((-self.scale).exp() * F.mse_loss(outputs, targets) + self.scale).sum()

    model, criterion = mlp(), Weighted()
    optimizer = torch.optim.Adam([*model[0].parameters(), *criterion.parameters()])
    assert findings(model, criterion, optimizer=optimizer) == []


def test_a_compiled_model_is_not_compiled() -> None:
    compiled: list[object] = []

    def backend(graph: Any, example: Any) -> Any:
        compiled.append(graph)
        return graph.forward

    model: Any = torch.compile(mlp(), backend=backend)
    assert findings(model) == []
    assert compiled == []
    assert model(X.to(CPU)).shape == (100, 1)
    assert len(compiled) == 1
