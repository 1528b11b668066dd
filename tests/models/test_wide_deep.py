"""Wide & Deep by its definition, of tensors and of tables."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stoker import WideAndDeep
from stoker.data.columns import Columns
from stoker.data.encoder import TableEncoder
from stoker.data.schema import infer_schema
from stoker.errors import ConfigError, UnknownNameError
from stoker.models.assembly import Head, Rescale
from stoker.models.inputs import TableSpec
from stoker.models.registry import model_config
from stoker.models.wide_deep import TableWideAndDeep, WideDeepConfig, check_columns

SPEC = TableSpec(
    n_numeric=6,
    cardinalities=(5, 9),
    numeric_columns=("size", "rooms", "seen", "seen", "size", "kind"),
    categorical_columns=("street", "town"),
)


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def codes(rows: int) -> Tensor:
    g = torch.Generator().manual_seed(1)
    return torch.stack([torch.randint(0, size, (rows,), generator=g) for size in SPEC.cardinalities], dim=1)


def table_model(outputs: int = 1, **settings: Any) -> TableWideAndDeep:
    torch.manual_seed(0)
    config = model_config({"name": "wide-deep", "hidden": [7, 3], **settings})
    assert isinstance(config, WideDeepConfig)
    model = TableWideAndDeep(config, SPEC, outputs)
    for weights in model.code_weights.parameters():
        nn.init.normal_(weights)  # as if it had learnt something
    return model


class TestOfTensors:
    def test_is_linear_in_the_wide_input_and_in_the_last_hidden_layer(self) -> None:
        model = WideAndDeep(2, 3, 4, hidden=(6, 5), activation="tanh")
        wide, deep = draws(8, 2), draws(8, 3, seed=1)
        first, _, last, _ = model.deep
        assert isinstance(first, nn.Linear)
        assert isinstance(last, nn.Linear)
        hidden = ((deep @ first.weight.T + first.bias).tanh() @ last.weight.T + last.bias).tanh()
        expected = wide @ model.output.weight[:, :2].T + hidden @ model.output.weight[:, 2:].T + model.output.bias
        torch.testing.assert_close(model(X_wide=wide, X_deep=deep), expected)
        torch.testing.assert_close(model(wide, deep), expected)

    def test_the_auxiliary_output_is_that_of_the_deep_path_and_of_training_alone(self) -> None:
        model = WideAndDeep(2, 3, hidden=(6,), auxiliary=True)
        wide, deep = draws(8, 2).requires_grad_(), draws(8, 3, seed=1)
        outputs = model(wide, deep)
        assert isinstance(outputs, dict)
        assert list(outputs) == ["main", "aux"]
        assert model.aux_output is not None
        torch.testing.assert_close(outputs["aux"], model.aux_output(model.deep(deep)))
        assert torch.equal(model.eval()(wide, deep), outputs["main"])
        gradients: tuple[Tensor | None, ...] = torch.autograd.grad(outputs["aux"].sum(), wide, allow_unused=True)
        assert gradients == (None,)

    def test_without_an_auxiliary_output_there_is_one_tensor(self) -> None:
        assert WideAndDeep(2, 3).train()(draws(4, 2), draws(4, 3)).shape == (4, 1)

    def test_nothing_may_go_straight(self) -> None:
        assert WideAndDeep(0, 3, 2)(draws(4, 0), draws(4, 3)).shape == (4, 2)

    @pytest.mark.parametrize(
        ("arguments", "settings", "text"),
        [
            ((-1, 3), {}, r"n_wide: must be 0 or more, got -1\."),
            ((2, 0), {}, r"n_deep: must be 1 or more, got 0\."),
            ((2, 3, 0), {}, r"n_outputs: must be 1 or more, got 0\."),
            (
                (2, 3),
                {"hidden": ()},
                r"hidden: must have at least one layer, got none\. Without any, use a linear model",
            ),
            ((2, 3), {"hidden": (5, 0)}, r"hidden\[1\]: must be 1 or more, got 0\."),
            ((2, 3), {"dropout": 1.0}, r"dropout: must be from 0 up to, not including, 1, got 1\.0\."),
            ((2, 3), {"activation": "rulu"}, r"activation: must be one of .* got 'rulu'\. Did you mean 'relu'\?"),
        ],
    )
    def test_what_cannot_be_built_is_refused(
        self, arguments: tuple[int, ...], settings: dict[str, Any], text: str
    ) -> None:
        with pytest.raises(ConfigError, match=text):
            WideAndDeep(*arguments, **settings)


class TestOfATable:
    def test_each_path_sees_the_features_of_its_columns(self) -> None:
        model = table_model(wide=["size"], deep=["seen", "kind"])
        numeric = draws(5, 6)
        expected = model.paths(X_wide=numeric[:, [0, 4]], X_deep=numeric[:, [2, 3, 5]])
        assert torch.equal(model(numeric, codes(5)), expected)

    def test_a_column_may_go_both_ways(self) -> None:
        model = table_model(wide=["size", "rooms", "seen"], deep=["seen", "size"])
        numeric = draws(5, 6)
        expected = model.paths(X_wide=numeric[:, :5], X_deep=numeric[:, [0, 2, 3, 4]])
        assert torch.equal(model(numeric, codes(5)), expected)

    @pytest.mark.parametrize("outputs", [1, 3])
    @pytest.mark.parametrize("aux_weight", [0.0, 0.2])
    def test_a_weight_for_each_code_is_a_linear_layer_of_one_hot_columns(self, outputs: int, aux_weight: float) -> None:
        model = table_model(outputs, wide=["rooms", "town", "street"], deep=["size"], aux_weight=aux_weight)
        numeric, categorical = draws(20, 6), codes(20)
        wide = torch.cat([numeric[:, 1:2], *(F.one_hot(c, n) for c, n in zip(categorical.T, (5, 9), strict=True))], 1)
        numbers, (street, town) = model.paths.output.weight, model.code_weights.parameters()
        weight = torch.cat([numbers[:, :1], street.T, town.T], dim=1)
        hidden = model.paths.deep(numeric[:, [0, 4]])
        expected = wide @ weight.T + hidden @ numbers[:, 1:].T + model.paths.output.bias
        outcome = model(numeric, categorical)
        torch.testing.assert_close(outcome["main"] if isinstance(outcome, dict) else outcome, expected)
        torch.testing.assert_close(model.eval()(numeric, categorical), expected)
        if isinstance(outcome, dict):
            assert model.paths.aux_output is not None
            torch.testing.assert_close(outcome["aux"], model.paths.aux_output(hidden))

    def test_the_other_columns_change_nothing(self) -> None:
        model = table_model(wide=["rooms", "town"], deep=["street", "kind"])
        numeric, categorical = draws(5, 6), codes(5)
        before = model(numeric, categorical)
        others = numeric.clone()
        others[:, [0, 2, 3, 4]] = 100.0
        assert torch.equal(model(others, categorical), before)
        assert not torch.equal(model(numeric, (categorical + 1) % 5), before)

    def test_one_path_may_have_categories_alone(self) -> None:
        for wide, deep in ((["town"], ["size"]), (["size"], ["town"]), (["town"], ["street"])):
            assert table_model(3, wide=wide, deep=deep)(draws(5, 6), codes(5)).shape == (5, 3)

    def test_by_default_all_columns_go_both_ways(self) -> None:
        model = table_model()
        assert model.paths.output.in_features == 6 + 3
        assert len(model.code_weights) == len(model.input.embeddings) == 2
        unnamed = TableWideAndDeep(WideDeepConfig(), TableSpec(n_numeric=2, cardinalities=(4,)), 1)
        assert unnamed(draws(3, 2), torch.zeros(3, 1, dtype=torch.int64)).shape == (3, 1)

    def test_a_category_says_nothing_until_training_has_taught_it_something(self) -> None:
        model = TableWideAndDeep(WideDeepConfig(), SPEC, 2)
        assert not any(bool(weights.any()) for weights in model.code_weights.parameters())

    @pytest.mark.parametrize("path", ["wide", "deep"])
    def test_a_column_that_is_not_there_is_told_with_the_nearest(self, path: str) -> None:
        with pytest.raises(
            UnknownNameError, match=rf"model\.{path}: .*, got 'sise'\. Did you mean 'size'\? Known: size,"
        ):
            table_model(1, **{path: ["sise"]})


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"wide": []}, r"model\.wide: must be 'all' or a list of one column name or more, got \[\]\."),
        ({"deep": "size"}, r"model\.deep: must be 'all' or a list of one column name or more, got 'size'\."),
        ({"deep": [3]}, r"model\.deep: must be 'all' or a list of one column name or more, got \[3\]\."),
        ({"hidden": []}, r"model\.hidden: .* at least 1 item"),
        ({"aux_weight": 1.0}, r"model\.aux_weight: must be less than 1, got 1\.0\."),
        ({"aux_weight": -0.1}, r"model\.aux_weight: must be greater than or equal to 0, got -0\.1\."),
    ],
)
def test_settings_out_of_range_of_wide_deep_are_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        model_config({"name": "wide-deep", **settings})


def test_predictions_by_name_are_each_in_the_targets_unit() -> None:
    network = WideAndDeep(2, 3, hidden=(4,), auxiliary=True)
    head = Head(network, Rescale(torch.tensor([100.0]), torch.tensor([10.0])))
    inputs = {"X_wide": draws(5, 2), "X_deep": draws(5, 3)}
    plain, scaled = network(**inputs), head(**inputs)
    assert list(scaled) == ["main", "aux"]
    for name in scaled:
        torch.testing.assert_close(scaled[name], plain[name] * 10 + 100)
    assert torch.equal(head.eval()(**inputs), scaled["main"])


FRAME = pl.DataFrame(
    {
        "size": [None if row % 9 == 0 else float(row) for row in range(60)],
        "kind": ["flat", "house", "loft"] * 20,
        "street": [f"street {row % 15}" for row in range(60)],
        "seen": pl.datetime_range(pl.datetime(2024, 1, 1), pl.datetime(2024, 1, 20), "7h", eager=True)[:60],
        "same": ["x"] * 60,
        "price": [1000.0 * row for row in range(60)],
    }
)


def test_each_feature_is_traced_to_the_column_it_is_made_from() -> None:
    schema = infer_schema(FRAME, "price", categorical=["same"])
    columns = Columns.fit(FRAME, schema)
    raw = columns.read(FRAME)
    encoder = TableEncoder.fit(raw, columns)
    numeric, categorical = encoder.columns_of_features(columns)
    # Feature names are ours; the column is what stands before " is missing", ".part" or "=category".
    assert [name.split(" is missing")[0].split(".")[0].split("=")[0] for name in encoder.feature_names] == list(numeric)
    assert {"size", "kind", "seen"} <= set(numeric)
    assert numeric.count("size") == 2
    assert numeric.count("kind") == 3
    assert categorical == ("street",)


class TestColumnsNamed:
    schema = infer_schema(FRAME, "price", ignore=["kind"])
    used = ("size", "street", "seen")

    @pytest.mark.parametrize(
        ("names", "text"),
        [
            (["street", "sise"], r"model\.wide: .*, got 'sise'\. Did you mean 'size'\? Known: size, street, seen\."),
            (
                ["price"],
                r"model\.wide: must name columns to learn from, got 'price', the target\. Leave it out of --wide",
            ),
            (
                ["kind"],
                r"model\.wide: must name columns that are used, got 'kind', left out because: .*\. Leave it out of",
            ),
            (["same"], r"model\.wide: must name columns that are used, got 'same', left out because: constant: always"),
        ],
    )
    def test_one_that_cannot_be_learnt_from_is_refused(self, names: list[str], text: str) -> None:
        with pytest.raises(ConfigError, match=text):
            check_columns(WideDeepConfig(wide=tuple(names)), self.schema, self.used)
        with pytest.raises(ConfigError, match=text.replace("wide", "deep")):
            check_columns(WideDeepConfig(deep=tuple(names)), self.schema, self.used)

    def test_one_that_does_not_vary_in_the_rows_to_train_on_is_refused(self) -> None:
        with pytest.raises(
            ConfigError, match=r"got 'seen', left out because: it has one value in all rows to train on\."
        ):
            check_columns(WideDeepConfig(wide=("seen",)), self.schema, ("size", "street"))

    def test_those_that_go_neither_way_are_told(self) -> None:
        assert check_columns(WideDeepConfig(), self.schema, self.used) == []
        assert check_columns(WideDeepConfig(wide=("size",)), self.schema, self.used) == []
        assert check_columns(WideDeepConfig(wide=("size",), deep=("seen",)), self.schema, self.used) == ["street"]
