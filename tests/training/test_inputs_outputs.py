"""Inputs and outputs of every form: by place, by name, out of dicts; lazy models; iterables that cannot be repeated."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from fitting import QUIET, X, Y, some, trainer_of
from sklearn.metrics import accuracy_score, mean_squared_error
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from stoker.errors import ConfigError, DataError, InputTypeError, UnknownNameError
from stoker.training.objective import Loss

LABELS = (X[:, 0] > 0).long()


class TwoHeads(nn.Module):
    """Numbers and a class out of two inputs; the auxiliary head is there in training alone."""

    def __init__(self, auxiliary: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Linear(3, 8)
        self.number, self.kind = nn.Linear(10, 1), nn.Linear(10, 2)
        self.aux: Any = nn.Linear(8, 1) if auxiliary else None

    def forward(self, wide: Tensor, deep: Tensor) -> dict[str, Tensor]:
        hidden = self.body(deep).tanh()
        both = torch.cat([wide, hidden], dim=1)
        found = {"number": self.number(both), "kind": self.kind(both)}
        return found | ({"aux": self.aux(hidden)} if self.aux is not None and self.training else {})


class Records(Dataset[dict[str, Tensor]]):
    """One dict a sample, inputs and targets together."""

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"wide": X[index, :2], "deep": X[index], "y": Y[index], "label": LABELS[index]}


OBJECTIVE = {
    "number": Loss("mse", weight=0.5, target="y"),
    "kind": Loss("cross-entropy", target="label", metrics=["accuracy"]),
}
WHOLE = {"wide": X[:, :2], "deep": X, "y": Y, "label": LABELS}


@pytest.mark.parametrize("form", ["resident", "pair", "dataset", "loader", "iterable"])
def test_named_inputs_and_several_targets_from_whatever_holds_them(form: str) -> None:
    class Own:
        def __iter__(self) -> Iterator[dict[str, Tensor]]:
            return iter(DataLoader(Records(), batch_size=16))

    inputs = {"wide": X[:, :2], "deep": X}
    data: Any = {
        "resident": WHOLE,
        "pair": (inputs, {"y": Y, "label": LABELS}),
        "dataset": Records(),
        "loader": DataLoader(Records(), batch_size=16),
        "iterable": Own(),
    }[form]
    reference, mine = TwoHeads(), TwoHeads()
    trainer_of(reference, OBJECTIVE, "sgd").fit(
        (inputs, {"y": Y, "label": LABELS}), epochs=2, batch_size=16, shuffle=False, **QUIET
    )
    trainer = trainer_of(mine, OBJECTIVE, "sgd")
    history = trainer.fit(data, data, epochs=2, batch_size=16, shuffle=False, **QUIET)
    for one, other in zip(mine.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)
    names = [
        "loss",
        "number_loss",
        "kind_loss",
        "number_mse",
        "number_rmse",
        "number_mae",
        "number_r2",
        "kind_accuracy",
    ]
    assert [name for name in history[-1] if name.startswith("valid_")] == [f"valid_{name}" for name in names]


def test_each_output_has_its_own_metrics() -> None:
    trainer = trainer_of(TwoHeads(), OBJECTIVE, "sgd")
    found, outputs = trainer.evaluate(WHOLE), trainer.predict({"wide": X[:, :2], "deep": X})
    assert found["number_mse"] == pytest.approx(mean_squared_error(Y, outputs["number"]), rel=1e-6)
    assert found["number_rmse"] == math.sqrt(found["number_mse"])
    assert found["kind_accuracy"] == accuracy_score(LABELS, outputs["kind"].argmax(1))
    assert found["loss"] == pytest.approx(0.5 * found["number_loss"] + found["kind_loss"])


def test_one_of_several_can_be_monitored() -> None:
    trainer = trainer_of(TwoHeads(), OBJECTIVE, "sgd", lr=0.1)
    history = trainer.fit(WHOLE, WHOLE, epochs=3, monitor="valid_kind_accuracy", patience=3, **QUIET)
    assert history.best["valid_kind_accuracy"] == max(history.column("valid_kind_accuracy"))
    with pytest.raises(
        UnknownNameError, match=r"metric: must be one of the known names, got 'acuracy'\. Did you mean 'accu"
    ):
        trainer.fit(WHOLE, WHOLE, monitor="valid_kind_acuracy", **QUIET)


def test_an_auxiliary_output_regularises_and_is_ignored_in_evaluation() -> None:
    spec: Any = {
        "number": Loss("mse", weight=0.8, target="y"),
        "aux": Loss("mse", weight=0.2, target="y", train_only=True),
    }
    model = TwoHeads(auxiliary=True)
    before = model.aux.weight.clone()
    trainer = trainer_of(model, spec, "sgd", lr=0.1)
    data = {name: leaf for name, leaf in WHOLE.items() if name != "label"}
    with torch.no_grad():
        model.train()
        outputs = model(data["wide"], data["deep"])
        expected = 0.8 * mean_squared_error(Y, outputs["number"]) + 0.2 * mean_squared_error(Y, outputs["aux"])
    history = trainer.fit(data, data, epochs=1, batch_size=None, **QUIET)
    assert history[0]["train_loss"] == pytest.approx(expected, rel=1e-5)
    assert not torch.equal(model.aux.weight, before)
    assert [name for name in history[0] if name.startswith("valid_")] == [
        f"valid_{name}" for name in ("loss", "mse", "rmse", "mae", "r2")
    ]
    assert history[0]["valid_loss"] == pytest.approx(history[0]["valid_mse"], rel=1e-6)


class TestLazy:
    def make(self) -> nn.Module:
        return nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyBatchNorm1d(), nn.Dropout(0.5), nn.LazyLinear(1))

    @pytest.mark.parametrize("data", [(X, Y), DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=32)])
    def test_takes_its_sizes_from_the_first_batch(self, data: Any) -> None:
        model = self.make()
        trainer = trainer_of(model, seed=3)
        with pytest.raises(
            ConfigError, match=r"optimizer: is made when a lazy model has seen a batch, got none so far\."
        ):
            _ = trainer.optimizer
        history = trainer.fit(data, epochs=2, **QUIET)
        assert model[0].in_features == 3  # type: ignore[index]
        assert len(history) == 2
        assert sum(len(group["params"]) for group in trainer.optimizer.param_groups) == 6

    def test_draws_its_weights_from_the_seed_alone(self) -> None:
        found = []
        for ambient in (1, 2):
            torch.manual_seed(ambient)
            model = self.make()
            generator = torch.get_rng_state()
            trainer_of(model, seed=3).fit((X, Y), epochs=1, **QUIET)
            assert torch.equal(torch.get_rng_state(), generator)
            found.append([parameter.detach() for parameter in model.parameters()])
        assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))

    def test_a_part_that_stays_lazy_is_named(self) -> None:
        class Half(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.used, self.unused = nn.LazyLinear(1), nn.LazyLinear(1)

            def forward(self, x: Tensor) -> Tensor:
                return self.used(x)  # type: ignore[no-any-return]

        text = (
            r"model: must know its sizes after a first batch, got unused\.weight without one\. Give it its size, or u"
        )
        with pytest.raises(ConfigError, match=text):
            trainer_of(Half()).fit((X, Y), **QUIET)


class TestContainers:
    def test_lists_dicts_and_bare_parameters(self) -> None:
        class Many(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layers = nn.ModuleList([nn.Linear(3, 3) for _ in range(2)])
                self.heads = nn.ModuleDict({"a": nn.Linear(3, 1), "b": nn.Linear(3, 1)})
                self.scales = nn.ParameterList([nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))])

            def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
                for layer, scale in zip(self.layers, self.scales, strict=True):
                    x = layer(x).tanh() * scale
                return self.heads["a"](x), self.heads["b"](x)

        model = Many()
        before = [parameter.detach().clone() for parameter in model.parameters()]
        trainer_of(model, {0: "mse", 1: Loss("mae", weight=0.1)}).fit((X, Y), epochs=1, **QUIET)
        assert all(not torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))

    def test_forward_hooks_see_every_step(self) -> None:
        seen: list[int] = []
        model = nn.Sequential(nn.Linear(3, 1))
        model[0].register_forward_hook(lambda *call: seen.append(len(call[-1])))
        trainer_of(model).fit((X, Y), epochs=1, batch_size=32, check=False, **QUIET)
        assert seen == [32, 32, 6]


class TestIterables:
    def test_one_that_can_be_gone_through_once_is_refused(self) -> None:
        text = r"data: must be iterable anew for each epoch, got a generator, which is not\. Pass a DataLoader, a list"
        with pytest.raises(InputTypeError, match=text):
            trainer_of(nn.Linear(3, 1)).fit(((X, Y) for _ in range(3)), **QUIET)

    def test_one_that_runs_dry_is_found_out(self) -> None:
        class Once(IterableDataset[Any]):
            def __init__(self) -> None:
                self.samples = iter([(x, y) for x, y in zip(X, Y, strict=True)])

            def __iter__(self) -> Iterator[Any]:
                return self.samples

        text = (
            r"fit: the data must yield their batches anew for each epoch, got none in epoch 2\. Pass a DataLoader, or"
        )
        with pytest.raises(DataError, match=text):
            trainer_of(nn.Linear(3, 1)).fit(DataLoader(Once(), batch_size=8), epochs=2, **QUIET)

    def test_one_that_yields_nothing(self) -> None:
        class Nothing:
            def __iter__(self) -> Iterator[Any]:
                return iter(())

        text = (
            r"fit: the data must yield at least one batch, got none\. Look at the data set's length, and at drop_last\."
        )
        with pytest.raises(DataError, match=text):
            trainer_of(nn.Linear(3, 1)).fit(Nothing(), **QUIET)


class TestDicts:
    def test_without_targets_named(self) -> None:
        text = (
            r"batches: a batch must be \(inputs, targets\), got a dict of wide, deep, y, label\. Say which entries are"
        )
        with pytest.raises(DataError, match=text):
            trainer_of(TwoHeads()).fit(Records(), **QUIET)

    def test_without_the_target_that_was_named(self) -> None:
        text = (
            r"batches: a batch must have the target 'z', got wide, deep, y, label\. Look at what the Dataset returns\."
        )
        with pytest.raises(DataError, match=text):
            trainer_of(TwoHeads(), {"number": Loss("mse", target="z")}).fit(Records(), **QUIET)

    def test_an_output_that_the_model_has_not(self) -> None:
        text = r"outputs: must be one of the known names, got 'numbre'\. Did you mean 'number'\? Known: number, kind\."
        data = {name: leaf for name, leaf in WHOLE.items() if name != "label"}
        with pytest.raises(UnknownNameError, match=text):
            trainer_of(TwoHeads(), {"numbre": Loss("mse", target="y")}).fit(data, **QUIET)

    def test_prediction_leaves_the_targets_out(self) -> None:
        trainer = trainer_of(TwoHeads(), OBJECTIVE)
        found = trainer.predict(Records())
        torch.testing.assert_close(found["number"], trainer.predict({"wide": X[:, :2], "deep": X})["number"])


GROUPS: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    (
        "sgd",
        {"bodi": {"lr": 1}},
        UnknownNameError,
        r"groups: must be one of the known names, got 'bodi'\. Did you mean 'body'\?",
    ),
    (
        "sgd",
        {"body": {"betas": 1}},
        ConfigError,
        r"optimizer: SGD has no such setting, got 'betas'\. Known: lr, momentum",
    ),
]


@pytest.mark.parametrize(("optimizer", "groups", "error", "text"), GROUPS)
def test_groups_that_are_refused(optimizer: Any, groups: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        trainer_of(TwoHeads(), OBJECTIVE, optimizer, groups=groups)


def test_an_optimizer_that_is_made_has_its_own_groups() -> None:
    model = TwoHeads()
    text = r"optimizer: an optimizer that is already made takes no settings, got groups\. Set them on it\."
    with pytest.raises(ConfigError, match=text):
        trainer_of(model, OBJECTIVE, torch.optim.SGD(model.parameters()), groups={"body": {"lr": 1}})


SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"accumulate": 0}, r"accumulate: must be a whole number of batches from 1 on, got 0\."),
    (
        {"ema": 1.0},
        r"ema: must be a decay from 0 up to, not including, 1, got 1\.0\. Such as 0\.999; leave it out for no",
    ),
    (
        {"schedule": "plateau", "schedule_interval": "step"},
        r"schedule_interval: a plateau is looked for after an epoch",
    ),
    (
        {"schedule": "cosine", "schedule_interval": "batch"},
        r"schedule_interval: must be one of the known names, got 'bat",
    ),
    (
        {"distributed": True},
        r"distributed: needs processes that know of each other, got one alone\. Start the script with",
    ),
]


@pytest.mark.parametrize(("settings", "text"), SETTINGS)
def test_settings_out_of_range(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        trainer_of(nn.Linear(3, 1), **settings)


def test_inputs_of_different_shapes_and_dtypes() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.image, self.out = nn.Embedding(7, 4), nn.Conv2d(1, 2, 3), nn.Linear(4 + 2 + 3, 1)

        def forward(self, words: Tensor, image: Tensor, *, numbers: Tensor) -> Tensor:
            parts = [self.words(words).mean(1), self.image(image).mean((2, 3)), numbers.float()]
            return self.out(torch.cat(parts, dim=1))  # type: ignore[no-any-return]

    inputs = {
        "words": torch.randint(0, 7, (70, 5), generator=torch.Generator().manual_seed(0)),
        "image": some(70, 1, 6, 6),
        "numbers": X.bfloat16(),
    }
    history = trainer_of(Mixed()).fit((inputs, Y), (inputs, Y), epochs=2, **QUIET)
    assert math.isfinite(history[-1]["valid_rmse"])
