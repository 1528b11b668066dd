"""Numeric embeddings: the paper's equations written as plain loops, and bins that only training rows decide."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from stoker import Dense, PeriodicEmbedding, PiecewiseLinearEmbedding, ResidualBlock
from stoker.errors import ConfigError, UnknownNameError
from stoker.models.inputs import TableInput, TableSpec
from stoker.models.mlp import MLPConfig, TableMLP
from stoker.models.numeric import FeatureLinear, periodic, piecewise_linear, quantile_edges
from stoker.models.registry import build_model, model_config

BOTH = [PiecewiseLinearEmbedding, PeriodicEmbedding]


def numbers(n: int = 200, seed: int = 0) -> Tensor:
    """Normal, skewed, few whole numbers, a flag, a constant."""
    g = torch.Generator().manual_seed(seed)
    normal = torch.randn(n, generator=g)
    columns = [
        normal,
        torch.randn(n, generator=g).exp(),
        torch.randint(0, 4, (n,), generator=g).float(),
        (torch.rand(n, generator=g) < 0.1).float(),
        torch.full((n,), 2.5),
    ]
    return torch.stack(columns, dim=1)


def encode(embedding: PiecewiseLinearEmbedding, x: Tensor) -> Tensor:
    return piecewise_linear(x, embedding.start, embedding.length, embedding.low, embedding.high)


def equation_1(x: float, edges: list[float]) -> list[float]:
    """Equation 1 of arXiv:2203.05556, bins b_0 … b_T."""
    last = len(edges) - 1
    encoded = []
    for t in range(1, last + 1):
        if x < edges[t - 1] and t > 1:
            encoded.append(0.0)
        elif x >= edges[t] and t < last:
            encoded.append(1.0)
        else:
            encoded.append((x - edges[t - 1]) / (edges[t] - edges[t - 1]))
    return encoded


@pytest.mark.parametrize("bins", [1, 2, 5, 48])
def test_the_piecewise_linear_encoding_is_the_papers(bins: int) -> None:
    train, new = numbers(), 1.5 * numbers(40, seed=1)  # beyond the bins too
    embedding = PiecewiseLinearEmbedding(5, 3, bins=bins)
    embedding.fit(train, rows_per_bin=1)
    x = torch.cat([new, train[:20]])
    encoded = encode(embedding, x).numpy()
    assert encoded.shape == (60, 5, bins)
    for feature in range(5):
        column = train[:, feature].sort().values.tolist()
        edges = sorted({column[max(0, -(-len(column) * t // bins) - 1)] for t in range(bins + 1)})
        for row in range(len(x)):
            expected = equation_1(float(x[row, feature]), edges)
            expected += [0.0] * (bins - len(expected))  # no bins
            assert encoded[row, feature] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_equal_quantiles_are_one_edge() -> None:
    x = numbers()
    ordered = x[:, 0].sort().values[[0, 49, 99, 149, 199]]
    assert torch.equal(quantile_edges(x[:, 0], 4), ordered), "of 200 values, four times 50"
    assert quantile_edges(x[:, 2], 48).tolist() == [0, 1, 2, 3]
    assert quantile_edges(x[:, 3], 48).tolist() == [0, 1], "a flag has one bin, and keeps its value there"
    assert quantile_edges(x[:, 4], 48).tolist() == [2.5], "a constant has no bin"


def test_a_flag_keeps_its_value_and_a_constant_says_nothing() -> None:
    embedding = PiecewiseLinearEmbedding(5, 3, bins=8)
    embedding.fit(numbers())
    encoded = encode(embedding, torch.tensor([[0.0, 0, 0, 0, 1], [0.0, 0, 0, 1, 9]]))
    assert encoded[:, 3].tolist() == [[0] * 8, [1] + [0] * 7]
    assert encoded[:, 4].tolist() == [[0] * 8] * 2


def test_before_a_fit_bins_are_even() -> None:
    embedding = PiecewiseLinearEmbedding(2, 3, bins=6)
    encoded = encode(embedding, torch.tensor([[-0.5, 2.5]]))
    assert encoded.tolist() == [[[1, 1, 0.5, 0, 0, 0], [1, 1, 1, 1, 1, 0.5]]]


def test_few_rows_make_few_bins() -> None:
    embedding, x = PiecewiseLinearEmbedding(1, 3, bins=48), numbers()[:, :1]
    for rows, per_bin, bins in [(200, 1, 48), (200, 10, 20), (200, 16, 12), (15, 16, 1), (1, 1, 0)]:
        embedding.fit(x[:rows], rows_per_bin=per_bin)
        assert int((embedding.high > 0).sum()) == bins


def test_fitting_again_forgets_the_bins_before() -> None:
    once, twice = PiecewiseLinearEmbedding(5, 3), PiecewiseLinearEmbedding(5, 3)
    twice.fit(numbers(seed=2).flip(1))
    for embedding in (once, twice):
        embedding.fit(numbers())
    assert all(torch.equal(mine, dict(once.named_buffers())[name]) for name, mine in twice.named_buffers())


def test_periodic_is_sines_and_cosines_of_each_features_own_frequencies() -> None:
    x, frequencies = torch.tensor([[0.5, -2.0]]), torch.tensor([[0.1, 1.0, 3.0], [0.2, 0.5, 0.7]])
    expected = [
        [function(2 * math.pi * c * value) for function in (math.sin, math.cos) for c in row]
        for value, row in zip(x[0].tolist(), frequencies.tolist(), strict=True)
    ]
    torch.testing.assert_close(periodic(x, frequencies), torch.tensor([expected]))


def test_frequencies_are_drawn_with_the_scale_asked_for() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = PeriodicEmbedding(50, 2, frequencies=100, scale=0.3).frequencies
    assert drawn.mean().item() == pytest.approx(0, abs=0.02)
    assert drawn.std().item() == pytest.approx(0.3, rel=0.05)


def test_each_feature_has_a_linear_map_of_its_own() -> None:
    linear, x = FeatureLinear(3, 4, 2), torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0))
    for feature in range(3):
        expected = x[:, feature] @ linear.weight[feature] + linear.bias[feature]
        torch.testing.assert_close(linear(x)[:, feature], expected)
    assert linear.weight.abs().max().item() <= 0.5, "1/√4"


@pytest.mark.parametrize("kind", BOTH)
def test_shapes_gradients_and_modes(kind: Any) -> None:
    x = numbers()
    embedding: nn.Module = kind(5, 7)
    out = embedding(x)
    assert (out.shape, out.dtype) == ((200, 5, 7), torch.float32)
    assert bool((out >= 0).all()), "a ReLU is last"
    assert bool((kind(5, 7, activation=None)(x) < 0).any())
    assert torch.equal(embedding.eval()(x), out)
    assert torch.equal(embedding(x[:1]), out[:1]) or torch.allclose(embedding(x[:1]), out[:1], atol=1e-6)
    out.square().sum().backward()
    for name, parameter in embedding.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.any()), name


@pytest.mark.parametrize("kind", BOTH)
def test_it_can_be_exported_for_any_number_of_rows(kind: Any) -> None:
    embedding = kind(5, 3)
    if kind is PiecewiseLinearEmbedding:
        embedding.fit(numbers())
    model = nn.Sequential(embedding, nn.Flatten(), nn.Linear(15, 1)).eval()
    exported = torch.export.export(model, (numbers(10),), dynamic_shapes=({0: torch.export.Dim("rows")},))
    torch.testing.assert_close(exported.module()(numbers(33)), model(numbers(33)))


@pytest.mark.parametrize("kind", BOTH)
def test_its_training_step_can_be_traced(kind: Any) -> None:
    model = nn.Sequential(kind(5, 3), nn.Flatten(), Dense(15, 4, norm="batch"), ResidualBlock(4), nn.Linear(4, 1))

    def loss(parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        after = {name: buffer.clone() for name, buffer in buffers.items()}  # batch norm writes to them
        outputs: Tensor = torch.func.functional_call(model, {**parameters, **after}, (x,))
        return outputs.square().mean(), after

    state = {name: tensor.detach() for name, tensor in model.named_parameters()}, dict(model.named_buffers())
    step = torch.func.grad_and_value(loss, has_aux=True)
    traced = make_fx(step)(*state, numbers(20))
    x = numbers(20, seed=1)
    torch.testing.assert_close(traced(*state, x), step(*state, x))


@pytest.mark.parametrize("kind", BOTH)
def test_its_state_goes_from_one_to_another(kind: Any) -> None:
    one, other, x = kind(5, 3), kind(5, 3), numbers()
    if kind is PiecewiseLinearEmbedding:
        one.fit(x)
    other.load_state_dict(one.state_dict())
    assert torch.equal(other(x), one(x))


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (
            lambda: PiecewiseLinearEmbedding(0),
            ConfigError,
            r"PiecewiseLinearEmbedding\.n_features: must be 1 or more, got 0",
        ),
        (
            lambda: PiecewiseLinearEmbedding(2, bins=0),
            ConfigError,
            r"PiecewiseLinearEmbedding\.bins: must be 1 or more",
        ),
        (lambda: PeriodicEmbedding(2, 0), ConfigError, r"PeriodicEmbedding\.width: must be 1 or more, got 0\."),
        (
            lambda: PeriodicEmbedding(2, scale=0),
            ConfigError,
            r"PeriodicEmbedding\.scale: must be a positive number, got 0",
        ),
        (lambda: PeriodicEmbedding(2, activation="rely"), UnknownNameError, r"activation: .* Did you mean 'relu'\?"),
        (
            lambda: PiecewiseLinearEmbedding(2).fit(torch.zeros(4, 3)),
            ConfigError,
            r"PiecewiseLinearEmbedding\.fit: must be training rows of 2 numbers, got shape \[4, 3\]\.",
        ),
        (lambda: PiecewiseLinearEmbedding(2).fit(torch.zeros(0, 2)), ConfigError, r"must be training rows .* \[0, 2\]"),
        (
            lambda: PiecewiseLinearEmbedding(2).fit(torch.zeros(4, 2), rows_per_bin=0),
            ConfigError,
            r"PiecewiseLinearEmbedding\.fit\.rows_per_bin: must be 1 or more, got 0\.",
        ),
        (
            lambda: PiecewiseLinearEmbedding(1).fit(torch.tensor([[math.nan]])),
            ConfigError,
            r"PiecewiseLinearEmbedding\.fit: must be finite numbers, got NaN or infinity\. Fill what is",
        ),
    ],
)
def test_what_cannot_be_is_refused(make: Callable[[], object], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        make()


class TestInTables:
    def test_vectors_stand_between_the_numbers_and_the_categories(self) -> None:
        spec = TableSpec(n_numeric=4, n_flags=1, cardinalities=(3,))
        table = TableInput(spec, numbers=MLPConfig(numeric_embedding="periodic", embedding_width=5))
        numeric, categorical = numbers(6)[:, :4], torch.tensor([[2]] * 6)
        out = table(numeric, categorical)
        assert table.numbers is not None
        assert out.shape == (6, table.width) == (6, 4 + 3 * 5 + 3)
        assert torch.equal(out[:, :4], numeric)
        assert torch.equal(out[:, 4:19], table.numbers(numeric[:, :3]).flatten(1))
        assert torch.equal(out[:, 19:], table.embeddings[0](categorical[:, 0]))

    def test_a_table_of_flags_alone_has_nothing_to_embed(self) -> None:
        spec = TableSpec(n_numeric=2, n_flags=2)
        assert TableInput(spec, numbers=MLPConfig(numeric_embedding="piecewise-linear")).numbers is None

    def test_fit_inputs_reaches_the_bins(self) -> None:
        model = TableMLP(MLPConfig(numeric_embedding="piecewise-linear", bins=4), TableSpec(n_numeric=5, n_flags=2), 1)
        model.fit_inputs(numeric=numbers())
        bins = model.input.numbers
        assert isinstance(bins, PiecewiseLinearEmbedding)
        assert bins.start[:, 0].tolist() == numbers()[:, :3].min(dim=0).values.tolist()
        TableMLP(MLPConfig(), TableSpec(n_numeric=5), 1).fit_inputs(numeric=numbers())  # nothing to learn

    def test_images_have_no_numbers_to_embed(self) -> None:
        from stoker.models.inputs import ImageSpec

        text = r"model\.numeric_embedding: is for tables, got 'periodic' for images\. Leave it out\."
        with pytest.raises(ConfigError, match=text):
            build_model(MLPConfig(numeric_embedding="periodic"), ImageSpec(channels=1, height=4, width=4), 2)


class TestSettings:
    def test_sizes_that_are_used_are_filled_in_and_others_left_out(self) -> None:
        def sizes(**settings: Any) -> dict[str, Any]:
            said = model_config({"name": "mlp", **settings}).model_dump()
            return {name: value for name, value in said.items() if name not in MLPConfig().model_dump()}

        assert sizes() == {}
        assert sizes(bins=7) == {}
        assert sizes(numeric_embedding="piecewise-linear", bins=7) == {"embedding_width": 24, "bins": 7}
        assert sizes(numeric_embedding="periodic", embedding_width=3, bins=7) == {
            "embedding_width": 3,
            "frequencies": 48,
            "frequency_scale": 0.05,
        }

    @pytest.mark.parametrize(
        ("settings", "text"),
        [
            ({"numeric_embedding": "periodical"}, r"model\.numeric_embedding: .* Did you mean 'periodic'\?"),
            ({"numeric_embedding": 3}, r"model\.numeric_embedding: must be one of the known names, got 3\."),
            ({"numeric_embedding": "periodic", "frequencies": 0}, r"model\.frequencies: must be greater .* got 0\."),
            ({"numeric_embedding": "periodic", "frequency_scale": 0}, r"model\.frequency_scale: .* than 0, got 0\."),
            ({"numeric_embedding": "piecewise-linear", "bins": "x"}, r"model\.bins: must be a valid integer"),
            ({"norm": "bach"}, r"model\.norm: .* got 'bach'\. Did you mean 'batch'\?"),
            ({"bin": 3}, r"model: must be one of the known names, got 'bin'\. Did you mean 'bins'\?"),
        ],
    )
    def test_settings_out_of_range_are_refused(self, settings: dict[str, Any], text: str) -> None:
        with pytest.raises(ConfigError, match=text):
            model_config({"name": "mlp", **settings})
