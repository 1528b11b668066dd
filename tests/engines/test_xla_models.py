"""Loss, gradients and new buffers of whole networks, as captured and lowered to XLA, against eager torch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lowered import assert_same, run
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from stoker.engines.decompositions import trace
from stoker.models.layers import ACTIVATIONS

Loss = Callable[..., Tensor]
Case = Callable[[], tuple[nn.Module, Loss, tuple[Tensor, ...], tuple[Tensor, ...]]]
"""A module, a loss of its output and the targets, its inputs, the targets."""

CASES: dict[str, Case] = {}


def case(name: str) -> Callable[[Case], Case]:
    def enter(make: Case) -> Case:
        CASES[name] = make
        return make

    return enter


def square(output: Any, *_: Tensor) -> Tensor:
    """A loss that every number of an output has a part in."""
    tensors = [output] if isinstance(output, Tensor) else pytree.tree_leaves(output)
    numbers = torch.cat([t.reshape(-1) for t in tensors if isinstance(t, Tensor)])
    return ((numbers - 0.3) ** 2).mean()


def of(module: nn.Module, *shapes: tuple[int, ...]) -> Case:
    return lambda: (copy.deepcopy(module), square, tuple(torch.randn(shape) for shape in shapes), ())


def of_layers(*layers: nn.Module, shape: tuple[int, ...]) -> Case:
    return of(nn.Sequential(*layers), shape)


def text(recurrent: nn.Module) -> Case:
    """Tokens to one of four classes."""
    tokens, labels = torch.tensor([[0, 3, 8, 1], [5, 5, 2, 7], [0, 0, 4, 6]]), torch.tensor([1, 3, 0])
    return lambda: (PaddedText(recurrent, 5), F.cross_entropy, (tokens,), (labels,))


def with_loss(loss: Loss, target: Tensor) -> Case:
    return lambda: (nn.Linear(5, 4), loss, (torch.randn(6, 5),), (target,))


class Block(nn.Module):
    """A residual block with a projection."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(width, out, 3, 2, 1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(inplace=True),
            nn.Conv2d(out, out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(out),
        )
        self.skip = nn.Sequential(nn.Conv2d(width, out, 1, 2, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.main(x) + self.skip(x))


class WideAndDeep(nn.Module):
    """Categories to a wide linear part and, embedded, to a deep one."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes = (7, 5)
        self.embeddings = nn.ModuleList(nn.Embedding(n, 3) for n in self.sizes)
        self.wide = nn.Linear(12 + 4, 1)
        self.deep = nn.Sequential(nn.Linear(6 + 4, 8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, numeric: Tensor, categorical: Tensor) -> Tensor:
        columns = categorical.unbind(1)
        one_hot = [F.one_hot(c, size).float() for c, size in zip(columns, self.sizes, strict=True)]
        dense = [e(c) for c, e in zip(columns, self.embeddings, strict=True)]
        wide: Tensor = self.wide(torch.cat([numeric, *one_hot], 1))
        deep: Tensor = self.deep(torch.cat([numeric, *dense], 1))
        return wide + deep


class SelfAttention(nn.Module):
    def __init__(self, need_weights: bool, causal: bool = False) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.need_weights = need_weights
        self.causal = causal

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Any:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1]) if self.causal else None
        out = self.attention(
            x, x, x, need_weights=self.need_weights, attn_mask=mask, key_padding_mask=padding, is_causal=self.causal
        )
        return out if self.need_weights else out[0]


class PaddedText(nn.Module):
    """Embedded tokens with padding, through a recurrent layer; the last state is classified."""

    def __init__(self, recurrent: nn.Module, states: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 6, padding_idx=0)
        self.recurrent = recurrent
        self.head = nn.Linear(states, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        output, _ = self.recurrent(self.embedding(tokens))
        logits: Tensor = self.head(output[:, -1])
        return logits


for _name, _activation in ACTIVATIONS.items():
    CASES[f"mlp {_name}"] = of_layers(nn.Linear(5, 8), _activation(), nn.Linear(8, 8), _activation(), shape=(6, 5))
for _name, _layer in {
    "prelu": nn.PReLU(),
    "relu6": nn.ReLU6(),
    "glu": nn.GLU(),
    "gelu tanh": nn.GELU("tanh"),
    "softsign": nn.Softsign(),
    "log-sigmoid": nn.LogSigmoid(),
    "celu": nn.CELU(),
    "hardsigmoid": nn.Hardsigmoid(),
    "hardtanh": nn.Hardtanh(),
    "tanhshrink": nn.Tanhshrink(),
    "softmax": nn.Softmax(-1),
    "layer norm": nn.LayerNorm(8),
    "rms norm": nn.RMSNorm(8),
    "batch norm": nn.BatchNorm1d(8),
    "batch norm without statistics": nn.BatchNorm1d(8, track_running_stats=False),
    "dropout of nothing": nn.Dropout(0.0),
    "identity": nn.Identity(),
    "bilinear resize": nn.Sequential(nn.Unflatten(1, (2, 4)), nn.Upsample(scale_factor=2, mode="linear")),
}.items():
    CASES[_name] = of_layers(nn.Linear(5, 8), _layer, shape=(6, 5))
for _name, _layer in {
    "conv": nn.Conv2d(4, 6, 3),
    "conv strided": nn.Conv2d(4, 6, 3, stride=2, padding=1),
    "conv grouped": nn.Conv2d(4, 6, 3, groups=2, bias=False),
    "conv depthwise": nn.Conv2d(4, 8, 3, groups=4, padding="same"),
    "conv dilated": nn.Conv2d(4, 6, (3, 2), dilation=(2, 1), padding=(1, 0)),
    "conv circular": nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"),
    "conv reflect": nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"),
    "conv replicate": nn.Conv2d(4, 6, 3, padding=1, padding_mode="replicate"),
    "conv transposed": nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
    "max pool": nn.MaxPool2d(3, 2, padding=1),
    "max pool to ceil": nn.MaxPool2d(2, ceil_mode=True),
    "max pool of what fits": nn.MaxPool2d(7),
    "max pool with gaps": nn.MaxPool2d(2, 3),
    "max pool overlapping": nn.MaxPool2d(3, 2, 1),
    "avg pool": nn.AvgPool2d(3, 2, padding=1, count_include_pad=False),
    "adaptive avg pool": nn.AdaptiveAvgPool2d((3, 2)),
    "adaptive max pool": nn.AdaptiveMaxPool2d((3, 2)),
    "global pool": nn.AdaptiveAvgPool2d(1),
    "batch norm 2d": nn.BatchNorm2d(4),
    "group norm": nn.GroupNorm(2, 4),
    "instance norm": nn.InstanceNorm2d(4, affine=True),
    "channel dropout of nothing": nn.Dropout2d(0.0),
    "upsample nearest": nn.Upsample(scale_factor=2),
    "upsample bilinear": nn.Upsample(size=(7, 9), mode="bilinear"),
    "pixel shuffle": nn.PixelShuffle(2),
    "local response norm": nn.LocalResponseNorm(3),
    "flatten": nn.Flatten(),
}.items():
    CASES[_name] = of_layers(nn.Conv2d(3, 4, 1), _layer, shape=(3, 3, 7, 7))
for _name, _layer in {
    "conv 1d": nn.Conv1d(4, 6, 3, padding="same", dilation=2),
    "conv 1d transposed": nn.ConvTranspose1d(4, 5, 3, stride=2),
    "pool 1d": nn.Sequential(nn.MaxPool1d(2), nn.AvgPool1d(2)),
    "adaptive pool 1d": nn.AdaptiveAvgPool1d(3),
    "adaptive max pool 1d": nn.AdaptiveMaxPool1d(3),
}.items():
    CASES[_name] = of_layers(nn.Conv1d(3, 4, 1), nn.BatchNorm1d(4), _layer, shape=(3, 3, 11))
for _name, _layer in {
    "rnn": nn.RNN(6, 5, batch_first=True),
    "lstm": nn.LSTM(6, 5, batch_first=True),
    "lstm projected": nn.LSTM(6, 7, proj_size=5, batch_first=True),
    "gru": nn.GRU(6, 5, batch_first=True),
}.items():
    CASES[_name] = text(_layer)
for _name, _layer in {
    "rnn of rectifiers": nn.RNN(6, 5, nonlinearity="relu", bias=False, batch_first=True),
    "lstm without bias": nn.LSTM(6, 5, bias=False, batch_first=True),
    "gru without bias": nn.GRU(6, 5, bias=False, batch_first=True),
}.items():
    CASES[_name] = text(_layer)
CASES["rnn of two layers, both ways"] = of(nn.RNN(3, 4, num_layers=2, bidirectional=True), (5, 2, 3))
CASES["lstm of two layers, both ways"] = of(nn.LSTM(3, 4, num_layers=2, bidirectional=True), (5, 2, 3))
CASES["gru of two layers, both ways"] = of(nn.GRU(3, 4, num_layers=2, bidirectional=True), (5, 2, 3))
CASES["max pool 3d"] = of_layers(nn.Conv3d(2, 3, 1), nn.MaxPool3d((2, 1, 3)), shape=(2, 2, 4, 3, 6))
CASES["cnn"] = of_layers(
    *(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
    *(nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
    *(nn.Flatten(), nn.Linear(54, 10)),
    shape=(4, 1, 12, 12),
)
CASES["residual network"] = of_layers(
    Block(3, 4), Block(4, 6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3), shape=(3, 3, 8, 8)
)
CASES["wide and deep"] = lambda: (
    WideAndDeep(),
    F.mse_loss,
    (torch.randn(6, 4), torch.randint(0, 5, (6, 2))),
    (torch.randn(6, 1),),
)
CASES["attention with weights"] = of(SelfAttention(True), (2, 5, 8))
CASES["attention without weights"] = of(SelfAttention(False), (2, 5, 8))
CASES["attention, causal"] = of(SelfAttention(False, causal=True), (2, 5, 8))
CASES["attention, padded"] = lambda: (
    SelfAttention(False),
    square,
    (torch.randn(2, 5, 8), torch.tensor([[False] * 5, [False, False, False, True, True]])),
    (),
)
for _name, _first in {"norm last": False, "norm first": True}.items():
    _encoder = nn.TransformerEncoderLayer(8, 2, 16, 0.0, "gelu", batch_first=True, norm_first=_first)
    CASES[f"transformer, {_name}"] = of(nn.TransformerEncoder(_encoder, 2, enable_nested_tensor=False), (2, 5, 8))
CASES["transformer decoder"] = of(nn.TransformerDecoderLayer(8, 2, 16, 0.0, batch_first=True), (2, 4, 8), (2, 5, 8))

classes, near = torch.tensor([0, 3, 1, 2, 3, 1]), torch.linspace(-2, 2, 24).reshape(6, 4)
likely = (near * 1.3).softmax(1)
LOSSES: dict[str, tuple[Loss, Tensor]] = {
    "mse": (nn.MSELoss(), near),
    "l1": (nn.L1Loss(), near),
    "huber": (nn.HuberLoss(delta=0.7), near),
    "smooth l1": (nn.SmoothL1Loss(beta=0.5), near),
    "cross-entropy": (nn.CrossEntropyLoss(), classes),
    "cross-entropy, weighted": (nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 0.5, 1.5])), classes),
    "cross-entropy, smoothed": (nn.CrossEntropyLoss(label_smoothing=0.1), classes),
    "cross-entropy, with a class to ignore": (nn.CrossEntropyLoss(ignore_index=3), classes),
    "cross-entropy, all at once": (
        nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 0.5, 1.5]), ignore_index=1, label_smoothing=0.2, reduction="sum"),
        classes,
    ),
    "cross-entropy, of probabilities": (nn.CrossEntropyLoss(label_smoothing=0.1), likely),
    "bce with logits": (nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 2.0, 0.5, 1.5])), likely),
    "bce": (lambda output, target: F.binary_cross_entropy(output.sigmoid(), target), likely),
    "nll": (lambda output, target: F.nll_loss(output.log_softmax(1), target), classes),
    "kl": (lambda output, target: F.kl_div(output.log_softmax(1), target, reduction="batchmean"), likely),
    "poisson": (nn.PoissonNLLLoss(), near.exp()),
    "soft margin": (nn.SoftMarginLoss(), near.sign()),
    "hinge embedding": (nn.HingeEmbeddingLoss(), near.sign()),
    "cosine embedding": (lambda output, target: F.cosine_embedding_loss(output, target, torch.ones(6)), near),
    "triplet margin": (lambda output, target: F.triplet_margin_loss(output, target, -target), near),
}
for _name, (_loss, _target) in LOSSES.items():
    CASES[f"loss {_name}"] = with_loss(_loss, _target)
CASES["loss cross-entropy over places"] = lambda: (
    nn.Conv2d(3, 4, 1),
    nn.CrossEntropyLoss(ignore_index=0),
    (torch.randn(2, 3, 4, 4),),
    (torch.randint(0, 4, (2, 4, 4)),),
)
CASES["loss nll over places, summed"] = lambda: (
    nn.Sequential(nn.Conv2d(3, 4, 1), nn.LogSoftmax(1)),
    nn.NLLLoss(torch.tensor([1.0, 2.0, 0.5, 1.5]), reduction="sum"),
    (torch.randn(2, 3, 4, 4),),
    (torch.randint(0, 4, (2, 4, 4)),),
)


QUICK = {
    "mlp relu",
    "batch norm",
    "cnn",
    "lstm",
    "gru",
    "transformer, norm first",
    "wide and deep",
    "loss cross-entropy",
}
"""A few of them for every run of the tests; a new kind of layer wants them all."""


def captured(model: nn.Module, loss: Loss, inputs: tuple[Tensor, ...], targets: tuple[Tensor, ...]) -> Any:
    """The graph of loss, gradients and new buffers, and what it takes."""
    parameters = {name: value.detach().clone() for name, value in model.named_parameters()}
    buffers = {name: value.detach().clone() for name, value in model.named_buffers()}

    def function(parameters: Any, buffers: Any, inputs: Any, targets: Any) -> Any:
        def of_parameters(parameters: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
            own = {name: value.clone() for name, value in buffers.items()}
            return loss(torch.func.functional_call(model, parameters | own, inputs), *targets), own

        gradients, (value, own) = torch.func.grad_and_value(of_parameters, has_aux=True)(parameters)
        return value, list(gradients.values()), list(own.values())

    given = (parameters, buffers, inputs, targets)
    return trace(function, *given), given


def eager(model: nn.Module, loss: Loss, inputs: tuple[Tensor, ...], targets: tuple[Tensor, ...]) -> list[Tensor]:
    value = loss(model(*inputs), *targets)
    value.backward()  # type: ignore[no-untyped-call]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    return [value.detach(), *gradients, *model.buffers()]


def in_double(
    model: nn.Module, loss: Loss, inputs: tuple[Tensor, ...], targets: tuple[Tensor, ...]
) -> tuple[nn.Module, Loss, tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The same in double precision."""

    def double(value: Any) -> Any:
        if isinstance(value, nn.Module):
            return copy.deepcopy(value).double()
        return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value

    return double(model), double(loss), tuple(map(double, inputs)), tuple(map(double, targets))


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in CASES]
)
def test_loss_and_gradients_equal_torchs(name: str) -> None:
    # In double precision: what is left of terms that cancel, such as a gradient ahead of batch norm, is rounding. The
    # relative 1e-7 is for torch's hardsigmoid, whose gradient has a sixth in single precision in it.
    torch.manual_seed(4)
    case = in_double(*CASES[name]())
    graph, given = captured(*case)
    expected = eager(*case)
    scale = max(float(tensor.abs().max()) for tensor in expected)
    assert_same(run(graph, *given), expected, {torch.float64: (1e-7, 1e-12 * scale)})


@pytest.mark.parametrize("name", sorted(QUICK))
def test_in_single_precision_they_are_as_near_as_rounding_leaves_them(name: str) -> None:
    torch.manual_seed(4)
    case = CASES[name]()
    graph, given = captured(*case)
    expected = eager(*case)
    scale = max(float(tensor.abs().max()) for tensor in expected)
    assert_same(run(graph, *given), expected, {torch.float32: (1e-4, 1e-5 * scale)})
