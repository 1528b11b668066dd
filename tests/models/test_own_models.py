"""Models of the user's own: arguments, inputs, outputs, and what is said where one does not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stoker.errors import ConfigError, InputTypeError, UnknownNameError
from stoker.models.inputs import ImageSpec, InputSpec, TableSpec
from stoker.models.own import OwnModelConfig, OwnNetwork, build_own, filled_in, named_anew, own_model
from stoker.models.registry import build_model, model_config

TABLE = TableSpec(n_numeric=4)
CODES = TableSpec(n_numeric=4, cardinalities=(5, 9))
IMAGES = ImageSpec(channels=3, height=6, width=8)


class Net(nn.Module):
    """Any features to any outputs."""

    def __init__(self, n_features: int, n_outputs: int, n_hidden: int = 7, *, batch_norm: bool = False) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(n_features, n_hidden), nn.ReLU(), nn.Linear(n_hidden, n_outputs))
        self.norm = nn.BatchNorm1d(n_features) if batch_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.layers(self.norm(x.flatten(1)))
        return output


class Coded(nn.Module):
    """Embeds what categories it is given."""

    def __init__(self, n_numeric: int, cardinalities: list[int], num_classes: int) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(size, 2) for size in cardinalities)
        self.out = nn.Linear(n_numeric + 2 * len(cardinalities), num_classes)

    def forward(self, categorical: Tensor, numeric: Tensor) -> Tensor:
        parts = [table(codes) for table, codes in zip(self.tables, categorical.unbind(1), strict=True)]
        output: Tensor = self.out(torch.cat([numeric, *parts], dim=1))
        return output


class Returns(nn.Module):
    """Returns what it is told to."""

    def __init__(self, what: str, n_features: int) -> None:
        super().__init__()
        self.what, self.linear = what, nn.Linear(n_features, 3)

    def forward(self, x: Tensor) -> Any:
        first: Tensor = self.linear(x)
        kinds = {
            "flat": first[:, 0],
            "whole": first,
            "labels": first.argmax(dim=1),
            "dict": {"main": first},
            "pair": (first, first),
            "nothing": None,
        }
        return kinds[self.what]


def build(factory: Any, spec: InputSpec, n_outputs: int, **args: Any) -> OwnNetwork:
    own = own_model(factory)
    config = filled_in(OwnModelConfig(name=own.name, args=args), own, spec, n_outputs)
    return build_own(config, spec, n_outputs, own)


def args_of(factory: Any, spec: InputSpec, n_outputs: int, **args: Any) -> dict[str, Any]:
    own = own_model(factory)
    return filled_in(OwnModelConfig(name=own.name, args=args), own, spec, n_outputs).args


class TestArguments:
    def test_those_that_follow_from_a_table_are_filled_in(self) -> None:
        assert args_of(Net, TABLE, 3, n_hidden=5) == {
            "n_features": 4,
            "n_outputs": 3,
            "n_hidden": 5,
            "batch_norm": False,
        }
        assert args_of(nn.Linear, TABLE, 3, bias=False) == {
            "in_features": 4,
            "out_features": 3,
            "bias": False,
            "device": None,
            "dtype": None,
        }
        assert args_of(Coded, CODES, 2) == {"n_numeric": 4, "cardinalities": [5, 9], "num_classes": 2}

        def n_inputs(n_inputs: int, n_classes: int = 10) -> nn.Module:
            return nn.Linear(n_inputs, n_classes)

        assert args_of(n_inputs, TABLE, 3) == {"n_inputs": 4, "n_classes": 3}, "a default is none of the user's"

    def test_those_that_follow_from_images_are_filled_in(self) -> None:
        def convolutional(in_channels: int, n_classes: int) -> nn.Module:
            return nn.Sequential(nn.Conv2d(in_channels, 2, 3), nn.Flatten(), nn.LazyLinear(n_classes))

        assert args_of(convolutional, IMAGES, 10) == {"in_channels": 3, "n_classes": 10}
        assert args_of(Net, IMAGES, 10)["n_features"] == 3 * 6 * 8
        assert build(convolutional, IMAGES, 10)(torch.rand(5, 3, 6, 8)).shape == (5, 10)
        assert build(Net, IMAGES, 10)(torch.rand(5, 3, 6, 8)).shape == (5, 10)

    def test_defaults_are_kept_where_json_holds_them(self) -> None:
        def small(width: int = 3, act: type[nn.Module] = nn.ReLU, sizes: tuple[int, ...] = (1, 2)) -> nn.Module:
            return nn.Sequential(nn.Linear(4, width), act(), nn.Linear(width, sizes[0]))

        assert args_of(small, TABLE, 1) == {"width": 3}
        assert build(small, TABLE, 1)(torch.zeros(2, 4)).shape == (2, 1)

    def test_what_the_user_gives_counts(self) -> None:
        assert args_of(Net, TABLE, 3, n_features=8)["n_features"] == 8

    def test_an_unknown_one_is_told_with_the_nearest_and_the_signature(self) -> None:
        text = (
            r"model .*:Net, arguments: must be one of the known names, got 'n_hiden'\. Did you mean 'n_hidden'\? "
            r"Known: n_features, n_outputs, n_hidden, batch_norm\. "
            r"It is Net\(n_features, n_outputs, n_hidden=7, \*, batch_norm=False\)\."
        )
        with pytest.raises(UnknownNameError, match=text):
            own_model(Net).check({"n_hiden": 3})

    def test_a_missing_one_is_told_before_there_are_data(self) -> None:
        text = r"needs what, got no arguments\. It is Returns\(what, n_features\)\. Say --model-arg what=VALUE"
        with pytest.raises(ConfigError, match=text):
            own_model(Returns).check({})

    def test_any_go_to_a_function_that_takes_any(self) -> None:
        def any_of_them(*layers: int, **settings: Any) -> nn.Module:
            return nn.Linear(4, settings["width"])

        own_model(any_of_them).check({"width": 3})
        assert build(any_of_them, TABLE, 3, width=3)(torch.zeros(2, 4)).shape == (2, 3)

    def test_one_that_the_constructor_refuses(self) -> None:
        text = (
            r"model .*:Net: must take its arguments, got TypeError: .* \(test_own_models\.py, line \d+\)\. "
            r"It got n_features=4, n_outputs=3, n_hidden='wide', batch_norm=False; it is Net\(n_features, n_outputs, n_"
        )
        with pytest.raises(ConfigError, match=text):
            build(Net, TABLE, 3, n_hidden="wide")

    def test_one_that_cannot_be_kept(self) -> None:
        for value in (nn.ReLU(), float("nan"), {1, 2}):
            with pytest.raises(ConfigError, match=r"model\.args\.act: must be a finite number, text, true or false"):
                model_config({"name": "nets:Net", "args": {"act": value}})

    def test_tuples_become_lists_as_they_will_be_once_they_are_read_from_a_run(self) -> None:
        seen: list[object] = []

        def remember(sizes: object) -> nn.Module:
            seen.append(sizes)
            return nn.Linear(4, 1)

        build(remember, TABLE, 1, sizes=(1, 2))
        assert seen == [[1, 2]]


class TestInputs:
    def test_one_tensor(self) -> None:
        network = build(Net, TABLE, 3)
        x = torch.randn(5, 4)
        assert torch.equal(network(numeric=x), network.module(x))

    def test_two_by_their_names(self) -> None:
        network = build(Coded, CODES, 2)
        numeric, categorical = torch.randn(5, 4), torch.ones(5, 2, dtype=torch.int64)
        expected = network.module(categorical, numeric)
        assert torch.equal(network(numeric=numeric, categorical=categorical), expected)

    def test_who_takes_codes(self) -> None:
        def annotated() -> Coded:
            raise NotImplementedError

        def not_annotated() -> Any:
            raise NotImplementedError

        factories = (Coded, annotated, Net, not_annotated)
        assert [own_model(factory).takes_codes for factory in factories] == [True, True, False, False]

    def test_what_forward_does_not_take(self) -> None:
        text = (
            r"its forward must take \[2, 4\] float32, got RuntimeError: mat1 and mat2 .* It is Linear\.forward\(input\)"
        )
        with pytest.raises(ConfigError, match=text):
            build(nn.Linear, TABLE, 3, in_features=9)
        with pytest.raises(ConfigError, match=r"must take numeric=\[2, 4\] float32, got TypeError: .*'categorical'"):
            build(Coded, TABLE, 2)
        with pytest.raises(
            ConfigError, match=r"One tensor has no place for codes: leave data\.categories out, or give"
        ):
            build(Net, CODES, 2)


class TestOutputs:
    def test_a_number_a_row_becomes_a_column(self) -> None:
        network = build(Returns, TABLE, 1, what="flat")
        x = torch.randn(5, 4)
        assert torch.equal(network(numeric=x), network.module(x)[:, None])

    @pytest.mark.parametrize(
        ("what", "n_outputs", "text"),
        [
            (
                "whole",
                1,
                r"must return one float tensor \[n, 1\], got \[2, 3\] float32 of two rows\. Return one number a row",
            ),
            (
                "flat",
                3,
                r"must return one float tensor \[n, 3\], got \[2\] float32 of two rows\. Return a logit for each of",
            ),
            ("whole", 2, r"must return one float tensor \[n, 2\], got \[2, 3\] float32 of two rows\."),
            ("labels", 1, r"must return one float tensor \[n, 1\], got \[2, 1\] int64 of two rows\."),
            (
                "dict",
                3,
                r"must return one float tensor \[n, 3\], got dict\. For several outputs there is stoker\.Trainer\.",
            ),
            ("pair", 3, r"must return one float tensor \[n, 3\], got tuple\."),
            ("nothing", 3, r"must return one float tensor \[n, 3\], got NoneType\."),
        ],
    )
    def test_of_another_form_is_refused_before_training(self, what: str, n_outputs: int, text: str) -> None:
        with pytest.raises(ConfigError, match=text):
            build(Returns, TABLE, n_outputs, what=what)


def test_trying_it_out_leaves_it_as_it_was() -> None:
    network = build(Net, TABLE, 3, batch_norm=True)
    norm = network.module.norm
    assert isinstance(norm, nn.BatchNorm1d)
    assert norm.num_batches_tracked is not None
    assert int(norm.num_batches_tracked) == 0
    assert all(module.training for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_lazy_modules_get_their_shapes() -> None:
    network = build(nn.LazyLinear, TABLE, 3)
    assert isinstance(network.module, nn.Linear)
    assert network.module.weight.shape == (3, 4)


def test_a_lazy_module_that_forward_does_not_call() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(4, 1), nn.LazyLinear(2)

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = self.used(x)
            return output

    with pytest.raises(
        ConfigError, match=r"must give every lazy module its shape, got none for idle\.weight\. Leave out"
    ):
        build(Idle, TABLE, 1)


def test_state_that_is_no_tensor() -> None:
    class Stateful(nn.Linear):
        def get_extra_state(self) -> Any:
            return {"calls": 3}

        def set_extra_state(self, state: Any) -> None:
            raise NotImplementedError

    with pytest.raises(ConfigError, match=r"must hold tensors alone, got another object as module\._extra_state\."):
        build(Stateful, TABLE, 1)


def test_what_is_no_module() -> None:
    def number() -> Any:
        return 3

    with pytest.raises(
        InputTypeError, match=r"model .*number: must give a torch\.nn\.Module, got int\. Return an instance"
    ):
        build(number, TABLE, 1)


def test_nothing_is_imported_because_a_config_says_so() -> None:
    config = model_config({"name": "no_such_module:Net", "args": {"n_hidden": 3}})
    with pytest.raises(ConfigError) as caught:
        build_model(config, TABLE, 1)
    assert str(caught.value) == (
        "model: the run's model is your own, no_such_module:Net, and is imported only if you name it, got no name. "
        'Name it: stoker.load(path, model="no_such_module:Net"), or --model no_such_module:Net on the command line.'
    )


def test_another_model_than_the_configs_is_refused() -> None:
    config = model_config({"name": "nets:Net"})
    with pytest.raises(ConfigError, match=r"model: must be the run's own, 'nets:Net', got '.*:Net'\."):
        build_model(config, TABLE, 1, own_model(Net))


def test_settings_of_other_models_are_the_constructors() -> None:
    text = r"model\.hidden: is no setting of a model of your own, got \[5\]\. Have .* take it: --model-arg hidden="
    with pytest.raises(ConfigError, match=text):
        model_config({"name": "nets:Net", "hidden": [5]})


class TestNamedAnew:
    def test_by_its_name(self) -> None:
        found = named_anew("torch.nn:Linear", "torch.nn:Linear")
        assert found is not None
        assert found().factory is nn.Linear
        assert named_anew("torch.nn:Linear", None) is None

    def test_by_its_class_wherever_it_stands_now(self) -> None:
        found = named_anew("somewhere.else:Net", Net)
        assert found is not None
        assert (found().name, found().factory) == ("somewhere.else:Net", Net)

    def test_it_is_imported_only_when_it_is_needed(self) -> None:
        found = named_anew("no_such_module:Net", "no_such_module:Net")
        assert found is not None
        with pytest.raises(ConfigError, match="there must be a module no_such_module"):
            found()

    @pytest.mark.parametrize("other", ["nets:Nett", "other:Net", Coded])
    def test_another_is_refused(self, other: Any) -> None:
        with pytest.raises(ConfigError, match=r"model: must be the run's own, 'nets:Net', got '.*'\. Name that one\."):
            named_anew("nets:Net", other)

    def test_stokers_own_need_none(self) -> None:
        text = r"is to be named for runs with a model of your own, got 'nets:Net'\. This run's model is 'mlp'"
        with pytest.raises(ConfigError, match=text):
            named_anew("mlp", "nets:Net")

    def test_an_instance_is_refused(self) -> None:
        with pytest.raises(InputTypeError, match=r"model: must be a class or a function, got an instance of Linear\."):
            named_anew("nets:Net", nn.Linear(2, 1))
