"""The suite that every model of the registry passes, with each kind of input it takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stoker.data.trees import call_model
from stoker.errors import ConfigError, UnknownNameError
from stoker.models.assembly import Assembly, Head, Rescale
from stoker.models.cnn import CNNConfig
from stoker.models.inputs import ImageSpec, InputSpec, TableInput, TableSpec, embedding_width
from stoker.models.layers import ACTIVATIONS
from stoker.models.linear import Linear
from stoker.models.mlp import MLPConfig, TableMLP
from stoker.models.registry import MODELS, build_model, model_config
from stoker.training.trainer import Trainer

ROWS = 48
SPECS: dict[str, InputSpec] = {
    "numbers": TableSpec(n_numeric=5),
    "categories": TableSpec(n_numeric=0, cardinalities=(4, 7)),
    "numbers and categories": TableSpec(n_numeric=3, cardinalities=(4, 7, 2)),
    "numbers and flags": TableSpec(n_numeric=5, n_flags=2),
    "gray images": ImageSpec(channels=1, height=8, width=8),
    "coloured images": ImageSpec(channels=3, height=7, width=10),
    "one pixel": ImageSpec(channels=1, height=1, width=1),
}
# models by the settings that make another network of them
VARIANTS: dict[str, dict[str, Any]] = {
    **{name: {"name": name} for name in MODELS},
    "mlp with batch norm": {"name": "mlp", "norm": "batch"},
    "mlp with layer norm": {"name": "mlp", "norm": "layer"},
    "mlp of bins": {"name": "mlp", "numeric_embedding": "piecewise-linear"},
    "mlp of waves": {"name": "mlp", "numeric_embedding": "periodic", "frequency_scale": 0.3},
    "resnet of bins": {"name": "resnet", "numeric_embedding": "piecewise-linear", "residual_dropout": 0.1},
}
CASES = [
    pytest.param(name, spec, id=f"{name}, {what}")
    for name, settings in VARIANTS.items()
    for what, spec in SPECS.items()
    if type(spec) in MODELS[settings["name"]].builders
    and not ("numeric_embedding" in settings and isinstance(spec, ImageSpec))
]
every_model = pytest.mark.parametrize(("name", "spec"), CASES)


def example(spec: InputSpec, rows: int = ROWS) -> dict[str, Tensor]:
    """Inputs as the encoder gives them, with each category but the first, which stands for those never seen."""
    g = torch.Generator().manual_seed(3)
    if isinstance(spec, ImageSpec):
        return {"images": torch.rand(rows, spec.channels, spec.height, spec.width, generator=g)}
    inputs = {}
    if spec.n_numeric:
        inputs["numeric"] = torch.randn(rows, spec.n_numeric, generator=g)
    if spec.cardinalities:
        drawn = [1 + torch.randperm(rows, generator=g) % (size - 1) for size in spec.cardinalities]
        inputs["categorical"] = torch.stack(drawn, dim=1)
    return inputs


def built(name: str, spec: InputSpec, outputs: int = 3, seed: int = 0, **settings: Any) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_model(model_config({**VARIANTS[name], **settings}), spec, outputs)


def test_every_model_takes_some_input() -> None:
    assert {case.values[0] for case in CASES} == set(VARIANTS)
    assert set(MODELS) == {"linear", "mlp", "resnet", "wide-deep", "cnn"}


@every_model
@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("rows", [1, ROWS])
def test_output_shape(name: str, spec: InputSpec, outputs: int, rows: int) -> None:
    result = call_model(built(name, spec, outputs), example(spec, rows))
    assert result.shape == (rows, outputs)
    assert result.dtype == torch.float32


@every_model
def test_gradient_reaches_every_parameter(name: str, spec: InputSpec) -> None:
    # With tanh no unit can be dead, as one of a ReLU network may.
    settings: dict[str, Any] = {} if name == "linear" else {"activation": "tanh"}
    model = built(name, spec, **settings)
    call_model(model, example(spec)).square().sum().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert bool(parameter.grad.any()), parameter_name


@every_model
def test_weights_survive_a_file(name: str, spec: InputSpec, tmp_path: Path) -> None:
    model, other = built(name, spec).eval(), built(name, spec, seed=1).eval()
    inputs = example(spec)
    expected = call_model(model, inputs)
    assert not torch.equal(call_model(other, inputs), expected)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert torch.equal(call_model(other, inputs), expected)


@every_model
def test_learns(name: str, spec: InputSpec) -> None:
    inputs = example(spec)
    first = next(iter(inputs.values()))
    labels = (first.float().flatten(1)[:, 0] > first.float().flatten(1)[:, 0].median()).long()
    trainer = Trainer(built(name, spec, 2), "cross-entropy", "adam", lr=0.01, device="cpu", metrics=())
    losses = trainer.fit((inputs, labels), epochs=15, batch_size=8, progress="none").column("train_loss")
    assert losses[-1] < 0.9 * losses[0]


@every_model
def test_config_survives_json(name: str, spec: InputSpec) -> None:
    config = model_config(VARIANTS[name])
    again = model_config(json.loads(json.dumps(config.model_dump(mode="json"))))
    assert again == config
    assert type(again) is type(config) is MODELS[config.name].config


@every_model
def test_same_seed_same_weights(name: str, spec: InputSpec) -> None:
    one, other = built(name, spec, seed=4), built(name, spec, seed=4)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_by_name(activation: str) -> None:
    config = model_config({"name": "mlp", "activation": activation, "hidden": [4]})
    model = build_model(config, TableSpec(n_numeric=2), 1)
    assert isinstance(model.get_submodule("layers.1"), ACTIVATIONS[activation])


@pytest.mark.parametrize(
    ("name", "spec", "text"),
    [
        ("linear", SPECS["gray images"], r"model: must be one for images, got 'linear'\. Use one of mlp, cnn\."),
        (
            "cnn",
            SPECS["numbers"],
            r"model: must be one for table, got 'cnn'\. Use one of linear, mlp, resnet, wide-deep\.",
        ),
    ],
)
def test_a_model_of_another_kind_of_input_is_refused(name: str, spec: InputSpec, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        built(name, spec)


def test_a_table_without_columns_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model: must have at least one input column, got none\."):
        built("mlp", TableSpec(n_numeric=0))


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ({"name": "mpl"}, r"model: must be one of the known names, got 'mpl'\. Did you mean 'mlp'\? Known: auto,"),
        ({"name": "mlp", "hiden": [5]}, r"model: must be one of the known names, got 'hiden'\. Did you mean 'hidden'"),
        (
            {"name": "linear", "hidden": [5]},
            r"got 'hidden'\. Known: name\. 'hidden' is a setting of mlp, resnet, wide-deep, cnn\.",
        ),
        ({"name": "mlp", "wide": ["a"]}, r"model: must be .*, got 'wide'\. .* 'wide' is a setting of wide-deep\."),
        ({"name": "mlp", "args": {}}, r"got 'args'\. .* a setting of a model of your own, package\.module:Class\."),
        (
            {"name": "mlp", "activation": "rulu"},
            r"model\.activation: must be one of the known names, got 'rulu'\. Did you mean 'relu'\? Known: relu, gelu,",
        ),
    ],
)
def test_unknown_names_are_told_with_the_nearest(raw: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        model_config(raw)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"hidden": [50, 0]}, r"model\.hidden\.1: must be greater than or equal to 1, got 0\."),
        ({"hidden": [50.5]}, r"model\.hidden\.0: must be a valid integer, .*, got 50\.5\."),
        ({"hidden": 50}, r"model\.hidden: must be a list, got 50\."),
        ({"dropout": 1}, r"model\.dropout: must be less than 1, got 1\."),
        ({"dropout": -0.1}, r"model\.dropout: must be greater than or equal to 0, got -0\.1\."),
        ({"dropout": float("nan")}, r"model\.dropout: must be .*, got nan\."),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        model_config({"name": "mlp", **settings})


def test_the_default_model_depends_on_the_input() -> None:
    assert isinstance(model_config({}, TableSpec), MLPConfig)
    assert isinstance(model_config({"name": "auto", "hidden": [3]}, ImageSpec), CNNConfig)
    assert model_config({"name": "auto", "hidden": [3]}, ImageSpec).hidden == (3,)  # type: ignore[union-attr]
    with pytest.raises(UnknownNameError):
        model_config({"name": "auto", "channels": [3]}, TableSpec)


def test_an_mlp_is_the_sequential_that_one_would_write() -> None:
    mine = built("mlp", TableSpec(n_numeric=8), 1, seed=42, hidden=[50, 40])
    with torch.random.fork_rng():
        torch.manual_seed(42)
        theirs = nn.Sequential(nn.Linear(8, 50), nn.ReLU(), nn.Linear(50, 40), nn.ReLU(), nn.Linear(40, 1))
    weights = zip(mine.parameters(), theirs.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in weights)
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(mine(x), theirs(x))


def test_a_linear_model_of_numbers_is_nn_linear() -> None:
    mine = built("linear", TableSpec(n_numeric=8), 1, seed=42)
    with torch.random.fork_rng():
        torch.manual_seed(42)
        theirs = nn.Linear(8, 1)
    assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), theirs.parameters(), strict=True))


def test_dropout_stands_after_each_hidden_activation() -> None:
    layers = built("mlp", TableSpec(n_numeric=2), 1, hidden=[4, 3], dropout=0.2).get_submodule("layers")
    kinds = [type(layer).__name__ for layer in layers.children()]
    assert kinds == ["Linear", "ReLU", "Dropout", "Linear", "ReLU", "Dropout", "Linear"]


def test_a_cnn_halves_the_image_while_it_can() -> None:
    model = built("cnn", ImageSpec(channels=1, height=5, width=9), 2, channels=[2, 3, 4], hidden=[])
    kinds = [type(layer).__name__ for layer in model.get_submodule("blocks").children()]
    assert kinds == ["Conv2d", "ReLU", "MaxPool2d", "Conv2d", "ReLU", "MaxPool2d", "Conv2d", "ReLU"]
    last = model.get_submodule("layers.1")  # 5 × 9 → 2 × 4 → 1 × 2
    assert isinstance(last, nn.Linear)
    assert last.in_features == 4 * 1 * 2


class TestTableInput:
    def test_categories_spread_over_columns_of_their_own(self) -> None:
        spread = TableInput(TableSpec(n_numeric=1, cardinalities=(3, 2)), one_hot=True)
        out = spread(torch.tensor([[0.5], [2.0]]), torch.tensor([[2, 0], [1, 1]]))
        assert out.tolist() == [[0.5, 0, 0, 1, 1, 0], [2.0, 0, 1, 0, 0, 1]]
        assert spread.width == 6
        assert spread.unknown_columns == [1, 4]

    def test_embeddings_stand_after_the_numbers(self) -> None:
        table = TableInput(TableSpec(n_numeric=2, cardinalities=(3, 5)))
        numeric, categorical = torch.tensor([[0.5, 1.0]]), torch.tensor([[2, 4]])
        first, second = (module.weight for module in table.embeddings if isinstance(module, nn.Embedding))
        expected = torch.cat([numeric[0], first[2], second[4]])
        assert torch.equal(table(numeric, categorical)[0], expected)
        assert table.width == 2 + embedding_width(3) + embedding_width(5) == len(expected)

    def test_a_category_never_seen_says_nothing(self) -> None:
        spec = TableSpec(n_numeric=2, cardinalities=(4, 3))
        numeric = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
        unknown = torch.zeros(6, 2, dtype=torch.int64)
        # Embedded, it is all zeros; one-hot, its weights are.
        assert not bool(TableInput(spec)(numeric, unknown)[:, 2:].any())
        linear = Linear(spec, 3)
        expected = numeric @ linear.output.weight[:, :2].T + linear.output.bias
        torch.testing.assert_close(linear(numeric, unknown), expected)
        known = torch.ones_like(unknown)
        assert not torch.allclose(linear(numeric, known), expected)

    @pytest.mark.parametrize(("cardinality", "width"), [(1, 2), (2, 2), (3, 3), (10, 6), (100, 21), (1000, 50)])
    def test_width_of_an_embedding(self, cardinality: int, width: int) -> None:
        # By hand: 1.6 · 10^0.56 = 5.81, 1.6 · 100^0.56 = 21.09, 1.6 · 1000^0.56 = 76.6, of which 50 are left.
        assert embedding_width(cardinality) == width


def test_an_assembly_goes_from_raw_values_to_the_targets_unit() -> None:
    class Double(nn.Module):
        """Stands for an encoder: names what the network takes."""

        def forward(self, price: Tensor) -> dict[str, Tensor]:
            return {"numeric": price * 2}

    network = TableMLP(MLPConfig(hidden=()), TableSpec(n_numeric=1), 1)
    head = Head(network, Rescale(torch.tensor([100.0]), torch.tensor([10.0])))
    model = Assembly(Double(), head)
    x = torch.tensor([[1.0], [3.0]])
    last = network.layers[0]
    assert isinstance(last, nn.Linear)
    expected = ((2 * x) @ last.weight.T + last.bias) * 10 + 100
    torch.testing.assert_close(model(x), expected)
    torch.testing.assert_close(model(price=x), expected)
    assert list(head.state_dict()) == [
        "network.layers.0.weight",
        "network.layers.0.bias",
        "output.mean",
        "output.std",
    ]
