"""What may be trained: models by name, by config, by class, function or instance; losses, optimizers, schedules."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_iris
from torch import Tensor, nn

from stoker import MeanCrossEntropy, StokerClassifier, StokerRegressor
from stoker.errors import ConfigError, InputTypeError, UnknownNameError

X, y = load_iris(return_X_y=True)
QUICK: dict[str, Any] = {"epochs": 3, "random_state": 0}


class Net(nn.Module):
    def __init__(self, n_inputs: int, n_outputs: int, width: int = 16) -> None:
        super().__init__()
        self.body = nn.Linear(n_inputs, width)
        self.last = nn.Linear(width, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(torch.relu(self.body(x)))
        return out


def make_net(n_inputs: int, n_outputs: int, *, depth: int = 1) -> nn.Module:
    body = [nn.Sequential(nn.Linear(n_inputs, n_inputs), nn.ReLU()) for _ in range(depth)]
    return nn.Sequential(*body, nn.Linear(n_inputs, n_outputs))


def returns_text(n_inputs: int, n_outputs: int) -> str:
    return f"{n_inputs}-{n_outputs}"


MODELS: dict[str, dict[str, Any]] = {
    "name": {"model": "mlp", "hidden": (16,), "activation": "tanh", "dropout": 0.1},
    "linear": {"model": "linear"},
    "config": {"model": {"name": "mlp", "hidden": [16, 8]}},
    "config and parameters": {"model": {"name": "mlp", "hidden": [999]}, "hidden": (16,)},
    "model_args": {"model": "mlp", "model_args": {"hidden": [16]}},
    "class": {"model": Net},
    "class with arguments": {"model": Net, "model_args": {"width": 8}},
    "function": {"model": make_net, "model_args": {"depth": 2}},
    "instance": {"model": Net(4, 3)},
    "by import": {"model": "test_sklearn_models:Net", "model_args": {"width": 8}},
    "wide-deep": {"model": "wide-deep", "hidden": (16,), "model_args": {"wide": ["x0", "x1"], "aux_weight": 0.2}},
    "lazy": {"model": nn.Sequential(nn.LazyLinear(16), nn.ReLU(), nn.LazyLinear(3))},
}


@pytest.mark.parametrize("kind", MODELS)
def test_models_of_every_kind(kind: str) -> None:
    classifier = StokerClassifier(**MODELS[kind], lr=0.02, epochs=20, random_state=0)
    assert clone(classifier).fit(X, y).score(X, y) > 0.9
    first, again = clone(classifier).fit(X, y), clone(classifier).fit(X, y)
    assert np.array_equal(first.predict_proba(X), again.predict_proba(X))
    assert np.array_equal(first.predict_proba(X), pickle.loads(pickle.dumps(first)).predict_proba(X))


def test_settings_reach_the_network() -> None:
    def widths(classifier: StokerClassifier) -> list[int]:
        layers = classifier.fit(X, y).model_.head.network.modules()
        return [layer.out_features for layer in layers if isinstance(layer, nn.Linear)]

    assert widths(StokerClassifier(**MODELS["config"], **QUICK)) == [16, 8, 3]
    assert widths(StokerClassifier(**MODELS["config and parameters"], **QUICK)) == [16, 3]
    assert widths(StokerClassifier(**MODELS["class with arguments"], **QUICK)) == [8, 3]
    assert widths(StokerClassifier(**MODELS["function"], **QUICK)) == [4, 4, 3]


def test_a_module_is_copied_and_begins_with_its_own_weights() -> None:
    module = Net(4, 3)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    classifier = StokerClassifier(module, optimizer="sgd", lr=1e-12, **QUICK).fit(X, y)
    assert classifier.model is module
    assert classifier.model_.head.network.module is not module
    trained: Any = classifier.model_.head.network
    for name, tensor in trained.module.state_dict().items():
        assert torch.allclose(tensor, before[name], atol=1e-8)
    StokerClassifier(module, lr=0.1, **QUICK).fit(X, y)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_your_own_module_gets_one_tensor_with_categories_spread_out() -> None:
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"size": rng.normal(size=200), "town": [f"town {i}" for i in rng.integers(0, 12, 200)]})
    target = frame["town"].str.len_chars().to_numpy() + 0.1 * rng.normal(size=200)
    regressor = StokerRegressor(make_net, epochs=60, lr=0.02, random_state=0).fit(frame, target)
    model: Any = regressor.model_
    assert model.head.network.module[-1].in_features == 13
    assert model.encoder.feature_names[:3] == ("size", "town=town 0", "town=town 1")
    assert regressor.score(frame, target) > 0.8


def test_a_module_that_takes_codes_gets_them() -> None:
    class Codes(nn.Module):
        def __init__(self, n_numeric: int, cardinalities: list[int], n_outputs: int) -> None:
            super().__init__()
            self.embeddings = nn.ModuleList(nn.Embedding(size, 4) for size in cardinalities)
            self.last = nn.Linear(n_numeric + 4 * len(cardinalities), n_outputs)

        def forward(self, numeric: Tensor, categorical: Tensor) -> Tensor:
            parts = [embed(codes) for embed, codes in zip(self.embeddings, categorical.unbind(1), strict=True)]
            out: Tensor = self.last(torch.cat([numeric, *parts], dim=1))
            return out

    frame = pl.DataFrame({"size": X[:, 0], "kind": np.array(["a", "b", "c"])[y]})
    settings: dict[str, Any] = {"epochs": 30, "lr": 0.02, "random_state": 0}
    assert StokerClassifier(Codes, **settings).fit(frame, y).score(frame, y) > 0.95
    assert StokerClassifier(Codes(1, [5], 3), **settings).fit(frame, y).score(frame, y) > 0.95


def test_an_auxiliary_output_has_its_share_of_the_training_loss() -> None:
    arguments: dict[str, Any] = {"model": "wide-deep", "optimizer": "sgd", "lr": 1e-12, **QUICK}
    wide_deep = StokerRegressor(model_args={"aux_weight": 0.3}, **arguments).fit(X, y, np.ones(150))
    network: Any = wide_deep.model_.head.network
    inputs = wide_deep.model_.encoder(numeric=torch.from_numpy(X))
    with torch.no_grad():
        outputs = network.train()(**inputs)
    target = torch.from_numpy((y - y.mean()) / y.std())[:, None]
    losses = {name: float(((out - target) ** 2).mean()) for name, out in outputs.items()}
    assert wide_deep.loss_curve_[0] == pytest.approx(0.7 * losses["main"] + 0.3 * losses["aux"], rel=1e-4)
    with pytest.raises(ConfigError, match="aux_weight: is for a single label, got 2 labels"):
        StokerClassifier("wide-deep", model_args={"aux_weight": 0.3}).fit(X, np.column_stack([y, y]))


def test_losses() -> None:
    by_name = StokerRegressor("linear", loss="mae", **QUICK).fit(X, X[:, 0] ** 2)
    by_module = StokerRegressor("linear", loss=nn.L1Loss(), **QUICK).fit(X, X[:, 0] ** 2)
    by_function = StokerRegressor("linear", loss=lambda out, wanted: (out - wanted).abs().mean(), **QUICK)
    assert np.array_equal(by_name.predict(X), by_module.predict(X))
    assert by_function.fit(X, X[:, 0] ** 2).predict(X) == pytest.approx(by_name.predict(X), rel=1e-5)
    squared = StokerRegressor("linear", **QUICK).fit(X, X[:, 0] ** 2)
    assert squared.loss_curve_ != by_name.loss_curve_
    smooth = MeanCrossEntropy(label_smoothing=0.2)
    classifier = StokerClassifier("linear", loss=smooth, **QUICK).fit(X, y)
    assert classifier.loss is smooth
    assert classifier.loss_curve_ != StokerClassifier("linear", **QUICK).fit(X, y).loss_curve_


def test_the_loss_is_in_the_targets_unit_unless_it_is_scaled() -> None:
    target = 1000 * X[:, 0]
    plain = StokerRegressor("linear", scale_target=False, optimizer="sgd", lr=1e-9, **QUICK).fit(X, target)
    scaled = StokerRegressor("linear", optimizer="sgd", lr=1e-9, **QUICK).fit(X, target)
    assert plain.loss_curve_[0] == pytest.approx(np.mean((plain.predict(X) - target) ** 2), rel=1e-4)
    assert scaled.loss_curve_[0] == pytest.approx(np.mean((scaled.predict(X) - target) ** 2) / target.var(), rel=1e-4)


def test_engines_agree() -> None:
    settings: dict[str, Any] = {"epochs": 5, "random_state": 0}
    found = [StokerClassifier(engine=engine, **settings).fit(X, y).predict_proba(X) for engine in ("eager", "compiled")]
    assert found[1] == pytest.approx(found[0], rel=1e-3, abs=1e-5)
    with pytest.raises(UnknownNameError, match="engine: must be one of the known names, got 'warp'"):
        StokerClassifier(engine="warp", **settings).fit(X, y)


def test_optimizers_schedules_clipping_and_precision() -> None:
    for settings in (
        {"optimizer": torch.optim.RMSprop},
        {"optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9)},
        {"optimizer": "adam", "weight_decay": 0.1, "clip_norm": 0.1},
        {"precision": "64"},
        {"precision": 64},
        {"precision": "bf16"},
    ):
        classifier = StokerClassifier(**settings, **QUICK).fit(X, y)
        dtype = torch.float64 if str(settings.get("precision")) == "64" else torch.float32
        assert {parameter.dtype for parameter in classifier.model_.parameters()} == {dtype}
        assert classifier.predict_proba(X).dtype == np.float64
    cosine = StokerClassifier(schedule="cosine", **QUICK).fit(X, y).history_.column("lr")
    assert cosine[0] > cosine[1] > cosine[2] >= 0


def test_what_is_refused() -> None:
    def refused(error: type[Exception], match: str, kind: Any = StokerClassifier, **settings: Any) -> None:
        with pytest.raises(error, match=match):
            kind(**{**QUICK, **settings}).fit(X, y)

    refused(UnknownNameError, "model: must be one of the known names, got 'mpl'. Did you mean 'mlp'", model="mpl")
    refused(ConfigError, "model: must be one for table, got 'cnn'", model="cnn")
    refused(UnknownNameError, "model: must be one of the known names, got 'hidden'", model="linear", hidden=(8,))
    refused(ConfigError, "model.hidden", hidden=(0,))
    refused(ConfigError, "hidden: is for Stoker's own models, got a model of your own. Hand", model=Net, hidden=(8,))
    refused(ConfigError, "hidden: is for Stoker's own models, .* Set it on", model=Net(4, 3), hidden=(8,))
    refused(ConfigError, "model_args: are for classes and functions", model=Net(4, 3), model_args={"width": 3})
    wrong: dict[str, Any] = {"model": Net, "model_args": {"wide": 3}}
    refused(UnknownNameError, "Net, arguments: must be one of the known names, got 'wide'. Did you", **wrong)
    wrong = {"model": Net, "model_args": {"width": "three"}}
    refused(ConfigError, "Net: must take its arguments, got TypeError.* It is Net.*width=16", **wrong)
    refused(InputTypeError, "model: must be a class or a function, got int", model=3)
    refused(ConfigError, "returns_text: must give a torch.nn.Module, got str. Return an instance", model=returns_text)
    refused(ConfigError, r"model: must return shape \[2, 3\] for 2 rows, got shape \[2, 2\]. Its last", model=Net(4, 2))
    refused(ConfigError, r"model: must take numeric \[2, 4\], got RuntimeError: mat1 and mat2", model=Net(5, 3))
    refused(UnknownNameError, "loss: must be one of the known names, got 'mean'", loss="mean")
    refused(ConfigError, "loss: must be one for multiclass, got 'mse'", loss="mse")
    refused(InputTypeError, "loss: must be a module, a function or a name, got the class MSELoss", loss=nn.MSELoss)
    refused(UnknownNameError, "optimizer: must be one of the known names", optimizer="adamx")
    refused(UnknownNameError, "schedule: must be one of the known names", schedule="cosin")
    refused(UnknownNameError, "precision: must be one of the known names, got '16'", precision="16")
    refused(ConfigError, "epochs: must be a whole number from 1 on, got 0", epochs=0)
    refused(ConfigError, "batch_size: must be a whole number from 1 on", batch_size=0)
    refused(ConfigError, "patience: must be at least 1 epoch", patience=0)
    refused(UnknownNameError, "device", device="gpu")
