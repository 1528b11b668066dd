"""Whole jobs of models of the user's own: imported because the user names them, and for no other reason."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small import learning, quick_fit, write_images, write_table
from torch import Tensor, nn
from typer.testing import CliRunner

import stoker
from stoker.cli.app import app
from stoker.errors import CheckError, ConfigError, InputTypeError, RunError, UnknownNameError

PLAIN: dict[str, Any] = {"hidden": None, "epochs": 8, "lr": 0.02}
NETS = """
from pathlib import Path

import torch
from torch import nn

Path("imported").touch()


class Net(nn.Module):
    def __init__(self, n_features, n_outputs, n_hidden=16):
        super().__init__()
        self.a, self.b = nn.Linear(n_features, n_hidden), nn.Linear(n_hidden, n_outputs)

    def forward(self, x):
        return self.b(torch.relu(self.a(x)))
"""
fresh = itertools.count()


class Net(nn.Module):
    """One tensor of a table in; a row's number without a dimension of its own out."""

    def __init__(self, n_features: int, n_hidden: int = 16) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(n_features, n_hidden), nn.ReLU(), nn.Linear(n_hidden, 1))

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.layers(x)
        return output[:, 0]


class Tied(nn.Module):
    """Three names for one weight, a frozen one, and two views of one memory."""

    def __init__(self, n_features: int, n_outputs: int, depth: int = 2) -> None:
        super().__init__()
        self.first = nn.Linear(n_features, n_features)
        self.rest = nn.ModuleList(nn.Linear(n_features, n_features) for _ in range(depth))
        for layer in self.rest:
            assert isinstance(layer, nn.Linear)
            layer.weight = self.first.weight
        self.last = nn.Linear(n_features, n_outputs)
        self.last.weight.requires_grad_(False)
        shared = torch.randn(2, n_features)
        self.scale, self.shift = nn.Parameter(shared[0]), nn.Parameter(shared[1])

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.scale + self.shift
        for layer in (self.first, *self.rest):
            x = layer(x).relu()
        output: Tensor = self.last(x)
        return output


class Coded(nn.Module):
    """Takes the codes of categories by their name."""

    def __init__(self, n_numeric: int, cardinalities: list[int], n_classes: int) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(size, 3) for size in cardinalities)
        self.out = nn.Linear(n_numeric + 3 * len(cardinalities), n_classes)

    def forward(self, numeric: Tensor, categorical: Tensor) -> Tensor:
        parts = [table(codes) for table, codes in zip(self.tables, categorical.unbind(1), strict=True)]
        output: Tensor = self.out(torch.cat([numeric, *parts], dim=1))
        return output


def lazy(n_classes: int) -> nn.Module:
    """A function; its layers find out their inputs themselves."""
    return nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.ReLU(), nn.LazyLinear(n_classes))


def convolutional(in_channels: int, n_classes: int, width: int = 4) -> nn.Module:
    """Of images."""
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, n_classes)
    )


Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a module into the current directory, and gives its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # which is looked at by the second, and files change faster

    def written(text: str) -> str:
        name = f"own_nets{next(fresh)}"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return written


CASES: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "one tensor, one number a row": (Net, "price", {"n_hidden": 20}),
    "shared, frozen and cut weights": (Tied, "grade", {}),
    "codes by name": (Coded, "sold", {}),
    "a function of lazy modules": (lazy, "grade", {}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_of_a_model_of_ones_own_predicts_the_same_once_it_is_read_again(case: str, tmp_path: Path) -> None:
    model, target, args = CASES[case]
    rows = write_table(learning(target, 300), tmp_path / "homes.csv")
    run = quick_fit(rows, tmp_path / "run", target=target, model=model, model_args=args, **PLAIN)
    assert run.history.rows[-1]["train_loss"] < run.history.rows[0]["train_loss"]
    again = stoker.load(run.path, model=model)
    outputs = again.predict(rows).outputs
    assert torch.equal(outputs, run.predict(rows).outputs)
    assert outputs.shape == (300, {"price": 1, "sold": 2, "grade": 3}[target])
    assert again.evaluate() == run.metrics["test"]


def test_images(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images")
    run = quick_fit(folder, tmp_path / "run", model=convolutional, model_args={"width": 3}, **PLAIN)
    assert run.config.model["args"] == {"in_channels": 1, "n_classes": 2, "width": 3}
    again = stoker.load(run.path, model=convolutional)
    assert torch.equal(again.predict(folder).outputs, run.predict(folder).outputs)


def test_the_record_has_the_name_and_all_arguments(tmp_path: Path) -> None:
    run = quick_fit(learning("sold"), tmp_path / "run", target="sold", model=Coded, **PLAIN)
    kept = json.loads((run.path / "config.json").read_text())
    spec = run.artifact.recipe.spec
    args = {"n_numeric": spec.n_numeric, "cardinalities": list(spec.cardinalities), "n_classes": 2}  # type: ignore[union-attr]
    assert kept["settings"]["model"] == kept["recipe"]["model"] == {"name": f"{__name__}:Coded", "args": args}
    assert kept["settings"]["data"]["categories"] == "embedding"
    assert len(run.artifact.recipe.spec.cardinalities) == 2, "kind and street, however few kinds there are"  # type: ignore[union-attr]


def test_one_tensor_has_all_categories_one_hot(tmp_path: Path) -> None:
    run = quick_fit(learning("price"), tmp_path / "run", target="price", model=Net, **PLAIN)
    assert run.config.data.categories == "one-hot"
    assert run.artifact.recipe.spec.cardinalities == ()  # type: ignore[union-attr]
    assert run.config.model["args"]["n_features"] == run.artifact.recipe.spec.n_numeric  # type: ignore[union-attr]


def test_shared_weights_are_stored_once_and_are_shared_again(tmp_path: Path) -> None:
    run = quick_fit(learning("grade"), tmp_path / "run", target="grade", model=Tied, **PLAIN)
    stored = load_file(run.path / "model.safetensors")
    assert [name for name in stored if name.startswith(("head.network.module.first", "head.network.module.rest"))] == [
        "head.network.module.first.bias",
        "head.network.module.first.weight",
        "head.network.module.rest.0.bias",
        "head.network.module.rest.1.bias",
    ]
    again = stoker.load(run.path, model=Tied).artifact.model.head.network.module
    assert isinstance(again, Tied)
    assert again.first.weight is again.rest[0].weight is again.rest[1].weight
    assert not again.last.weight.requires_grad
    assert again.first.weight.requires_grad
    assert torch.equal(again.first.weight, stored["head.network.module.first.weight"])
    assert torch.equal(again.shift, stored["head.network.module.shift"])


def test_predictions_are_in_the_targets_unit(tmp_path: Path) -> None:
    rows = learning("price", 300)
    run = quick_fit(rows, tmp_path / "run", target="price", model=Net, **(PLAIN | {"epochs": 30}))
    assert run.metrics["test"]["r2"] > 0.5
    assert run.predict(rows).outputs.mean().item() == pytest.approx(rows["price"].mean(), rel=0.1)


class Soft(nn.Module):
    """Ends in a softmax, before a criterion that has one."""

    def __init__(self, n_features: int, n_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(n_features, n_classes), nn.Softmax(dim=1))

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.layers(x)
        return output


class Cut(Net):
    """Cuts its outputs off from its parameters."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).detach()


def test_what_the_check_finds_is_told_and_kept_or_stops_the_job(tmp_path: Path) -> None:
    run = stoker.fit("iris", model=Soft, epochs=1, out=tmp_path / "run", progress="none")
    text = "(Softmax): softmax comes before MeanCrossEntropy, which takes logits: it learns slowly, or not at all."
    assert any(text in notice for notice in run.notices)
    with pytest.raises(CheckError, match=r"check: the first batch must pass before training begins, got 1 error\."):
        quick_fit(learning("price", 60), tmp_path / "cut", target="price", model=Cut, **PLAIN)
    assert not (tmp_path / "cut").exists()


class TestNothingIsImportedUnlessItIsNamed:
    @pytest.fixture
    def run(self, write: Write, tmp_path: Path) -> stoker.Run:
        """Of a module that leaves a file behind when it is imported; not imported any more."""
        name = write(NETS)
        learning("price").write_csv("homes.csv")
        made = quick_fit("homes.csv", tmp_path / "run", target="price", model=f"{name}:Net", **PLAIN)
        del sys.modules[name]
        Path("imported").unlink()
        return made

    def test_not_by_loading(self, run: stoker.Run) -> None:
        again = stoker.load(run.path)
        assert again.metrics == run.metrics
        assert len(again.history) == 8
        name = run.config.model["name"]
        text = (
            f"model: the run's model is your own, {name}, and is imported only if you name it, got no name. "
            f'Name it: stoker.load(path, model="{name}"), or --model {name} on the command line.'
        )
        for use in (lambda: again.model, lambda: again.predict("homes.csv"), again.evaluate):
            with pytest.raises(ConfigError) as caught:
                use()
            assert str(caught.value) == text
        with pytest.raises(ConfigError, match=r"model: must be the run's own, '.*', got 'json:loads'"):
            stoker.load(run.path, model="json:loads")
        assert not Path("imported").exists()

    def test_not_by_the_command_line(self, run: stoker.Run) -> None:
        for command in (["evaluate", "run"], ["predict", "run", "homes.csv"]):
            result = CliRunner().invoke(app, command)
            assert result.exit_code == 1
            assert f"or --model {run.config.model['name']} on the command line." in result.stderr
            result = CliRunner().invoke(app, [*command, "--model", "other:Net"])
            assert result.exit_code == 1
            assert "error: model: must be the run's own, " in result.stderr
        assert not Path("imported").exists()

    def test_but_by_its_name(self, run: stoker.Run) -> None:
        name = run.config.model["name"]
        again = stoker.load(run.path, model=name)
        assert not Path("imported").exists(), "only when it is needed"
        assert torch.equal(again.predict("homes.csv").outputs, run.predict("homes.csv").outputs)
        assert Path("imported").exists()
        result = CliRunner().invoke(app, ["evaluate", "run", "--json", "--model", name])
        assert json.loads(result.stdout) == run.metrics["test"]
        result = CliRunner().invoke(app, ["predict", "run", "homes.csv", "--model", name])
        assert len(result.stdout.splitlines()) == 151

    def test_a_class_that_is_not_what_it_was(self, run: stoker.Run) -> None:
        name = run.config.model["name"]
        source = Path(f"{name.partition(':')[0]}.py")
        source.write_text(NETS.replace("self.b = nn", "self.c = nn").replace("self.b(", "self.c("))
        text = (
            rf"head\.network\.module\.\w\.bias .* Perhaps {name} is not what it was in training\. If it is: The weights"
        )
        with pytest.raises(RunError, match=text):
            _ = stoker.load(run.path, model=name).model
        del sys.modules[source.stem]
        source.write_text(NETS.replace("n_hidden=16", "n_units=16").replace("n_hidden", "n_units"))
        with pytest.raises(ConfigError, match=r"must take its arguments, got TypeError: .* argument 'n_hidden'"):
            _ = stoker.load(run.path, model=name).model


def test_from_the_command_line(write: Write, tmp_path: Path) -> None:
    learning("grade").write_csv("homes.csv")
    name = f"{write(NETS)}:Net"
    flags = ["--target", "grade", "--model", name, "--model-arg", "n_hidden=5", "--epochs", "2", "--out", "run"]
    result = CliRunner().invoke(app, ["fit", "homes.csv", *flags])
    assert result.exit_code == 0, result.output
    assert f"stoker predict run homes.csv --model {name} -o predictions.csv" in result.stdout
    assert stoker.load(tmp_path / "run").config.model["args"]["n_hidden"] == 5
    assert f'stoker.load("path/to/this/directory", model="{name}")' in (tmp_path / "run/README.md").read_text()


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--model", "no_such_nets:Net"], "error: model no_such_nets:Net: there must be a module no_such_nets, got No"),
        (["--model", "{}:Nett"], "in {}: must be one of the known names, got 'Nett'. Did you mean 'Net'? Known: Net."),
        (["--model", "{}:Path"], "must be a class of torch.nn.Module, got the class Path."),
        (["--model", "{}:Net", "--model-arg", "hidden=3"], "got 'hidden'. Did you mean 'n_hidden'? Known: n_features,"),
        (["--model", "{}:Net", "--model-arg", "n_hidden=x"], "must take its arguments, got TypeError: "),
        (["--model", "{}:Net", "--hidden", "3"], "model.hidden: is no setting of a model of your own, got (3,)."),
        (["--model", "mlp", "--model-arg", "n=3"], "'args' is a setting of a model of your own, package.module:Class."),
    ],
)
def test_mistakes_on_the_command_line_are_a_line_each(write: Write, flags: list[str], text: str) -> None:
    learning("price").write_csv("homes.csv")
    name = write(NETS)
    result = CliRunner().invoke(app, ["fit", "homes.csv", "--target", "price", *(flag.format(name) for flag in flags)])
    assert result.exit_code == 1
    assert text.format(name) in result.stderr
    assert "Traceback" not in result.output
    assert "internal error" not in result.output


def test_the_name_is_looked_up_before_the_data_are_read(write: Write) -> None:
    with pytest.raises(ConfigError, match="there must be a module no_such_nets"):
        stoker.fit("no_such_file.csv", model="no_such_nets:Net")
    with pytest.raises(UnknownNameError, match="got 'n_hiden'"):
        stoker.fit("no_such_file.csv", model=f"{write(NETS)}:Net", model_args={"n_hiden": 3})
    with pytest.raises(InputTypeError, match="must be a class or a function, got an instance of Linear"):
        stoker.fit("no_such_file.csv", model=nn.Linear(2, 1))


def test_codes_for_a_model_of_one_tensor(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"One tensor has no place for codes: leave data\.categories out"):
        quick_fit(learning("price"), tmp_path / "a", target="price", model=Net, categories="embedding", **PLAIN)


def test_a_model_that_is_named_for_a_run_of_stokers_own(tmp_path: Path) -> None:
    run = quick_fit(learning("price"), tmp_path / "run", target="price")
    with pytest.raises(ConfigError, match=r"is to be named for runs with a model of your own, .* model is 'mlp'"):
        stoker.load(run.path, model=Net)
