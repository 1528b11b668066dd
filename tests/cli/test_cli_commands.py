"""The commands, at work on real data: what they print, where, and with which exit code."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from sklearn.datasets import load_diabetes, load_iris
from typer.testing import CliRunner

import stoker
from stoker.cli.app import app
from stoker.training.history import History

WIDTH = {"COLUMNS": "80"}


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=WIDTH)


@pytest.fixture(scope="module")
def iris(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """``stoker fit iris``: the run and the command's result."""
    path = tmp_path_factory.mktemp("runs") / "iris"
    result = invoke("fit", "iris", "--epochs", 4, "--lr", 0.01, "--device", "cpu", "--out", path)
    assert result.exit_code == 0, result.output
    return SimpleNamespace(path=path, stdout=result.stdout, stderr=result.stderr)


@pytest.fixture(scope="module")
def diabetes(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A regression from a CSV file of scikit-learn's diabetes data."""
    folder = tmp_path_factory.mktemp("diabetes")
    pl.from_pandas(load_diabetes(as_frame=True).frame).write_csv(folder / "diabetes.csv")
    path = folder / "run"
    result = invoke("fit", folder / "diabetes.csv", "--target", "target", "--epochs", 2, "--quiet", "--out", path)
    assert result.exit_code == 0, result.output
    return SimpleNamespace(path=path, source=folder / "diabetes.csv", stdout=result.stdout, stderr=result.stderr)


def test_fit_prints_its_result_on_stdout_and_its_progress_on_stderr(iris: SimpleNamespace) -> None:
    lines = [line.rstrip() for line in iris.stdout.splitlines()]
    assert lines[1].split() == ["train", "valid", "test"]
    assert {line.split()[0] for line in lines[2:7]} == {"loss", "accuracy", "f1", "auroc", "log_loss"}
    assert any(re.match(r"Training  finished after 4 epochs in ", line) for line in lines)
    assert any(re.match(r"Best      epoch [1-4], whose weights are kept \(valid_loss \d", line) for line in lines)
    assert f"Run       {iris.path}" in lines
    assert f"Next      stoker evaluate {iris.path}" in lines
    assert f"          stoker predict {iris.path} iris -o predictions.csv" in lines
    for figure in re.findall(r"\S+\.png", iris.stdout):
        assert Path(figure).is_file()
    assert len(re.findall(r"\S+\.png", iris.stdout)) == 2
    assert "epoch 4/4" in iris.stderr
    assert "epoch 4/4" not in iris.stdout
    assert "engine" not in iris.stderr  # the summary says it
    assert "\x1b" not in iris.stdout + iris.stderr


@pytest.mark.parametrize(
    ("optimizer", "reason"),
    [("adam", "compiled: as asked"), ("adadelta", "eager: the optimizer Adadelta, which has no pure update")],
)
def test_fit_says_which_engine_has_trained_and_why(optimizer: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "run"
    settings = ["--epochs", 2, "--batch-size", 16, "--engine", "compiled", "--optimizer", optimizer, "--device", "cpu"]
    result = invoke("fit", "iris", *settings, "--out", path)
    assert result.exit_code == 0, result.output
    assert f"\nEngine    {reason}\n" in result.stdout
    record = json.loads((path / "config.json").read_text())
    assert record["settings"]["training"]["engine"] == "compiled"  # what was asked for
    assert (record["training"]["engine"], record["training"]["engine_reason"]) == (reason.partition(":")[0], reason)
    assert f"({reason.partition(':')[0]})" in (path / "README.md").read_text()
    assert stoker.load(path).history.engine == reason


def test_the_figures_printed_are_those_of_the_run(iris: SimpleNamespace) -> None:
    metrics = json.loads((iris.path / "metrics.json").read_text())
    row = next(line.split() for line in iris.stdout.splitlines() if line.startswith("accuracy"))
    printed = [float(text) for text in row[1:]]
    assert printed == pytest.approx([metrics[split]["accuracy"] for split in ("train", "valid", "test")], abs=5e-5)


def test_quiet_prints_the_path_alone(diabetes: SimpleNamespace) -> None:
    assert diabetes.stdout == f"{diabetes.path}\n"
    assert diabetes.stderr == ""


def test_an_existing_out_is_not_touched(iris: SimpleNamespace) -> None:
    before = {file: file.read_bytes() for file in iris.path.rglob("*") if file.is_file()}
    result = invoke("fit", "iris", "--epochs", 1, "--out", iris.path)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("error: --out: must not exist yet, got ")
    assert {file: file.read_bytes() for file in iris.path.rglob("*") if file.is_file()} == before


def test_an_interrupted_fit_shows_its_result_and_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    run = SimpleNamespace(
        path=Path("runs/x"),
        metrics={"train": {"loss": 0.5}},
        history=History([{"epoch": 1, "train_loss": 0.5}], None, 1, "interrupted", 2.0),
        figures=[],
        stopped="interrupted",
        config=SimpleNamespace(model={"name": "mlp"}),
        record=SimpleNamespace(training=SimpleNamespace(engine_reason="eager: a hook on layers.0")),
    )
    monkeypatch.setitem(vars(stoker), "fit", lambda *_, **__: run)
    result = invoke("fit", "iris")
    assert result.exit_code == 130
    assert "Training  interrupted by Ctrl-C after 1 epoch in 2.0s; what was learnt is kept\n" in result.stdout
    result = invoke("fit", "iris", "--quiet")
    assert (result.exit_code, result.stdout) == (130, f"{Path('runs/x')}\n")


def test_evaluate_measures_the_test_split_again(iris: SimpleNamespace) -> None:
    metrics = json.loads((iris.path / "metrics.json").read_text())["test"]
    result = invoke("evaluate", iris.path, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == pytest.approx(metrics, rel=1e-5)
    table = invoke("evaluate", iris.path).stdout.splitlines()
    assert table[0].split() == ["value"]
    assert [line.split()[0] for line in table[1:]] == list(metrics)


def test_evaluate_other_data(diabetes: SimpleNamespace, tmp_path: Path) -> None:
    frame = pl.read_csv(diabetes.source).with_columns(
        target=pl.when(pl.int_range(pl.len()) < 2).then(None).otherwise("target")
    )
    frame.write_csv(tmp_path / "other.csv")
    result = invoke("evaluate", diabetes.path, tmp_path / "other.csv", "--json")
    assert result.exit_code == 0, result.output
    measured = json.loads(result.stdout)
    assert measured["rmse"] == measured["mse"] ** 0.5
    assert result.stderr.startswith("note: 2 rows")


def test_predict_prints_csv(iris: SimpleNamespace) -> None:
    result = invoke("predict", iris.path, "iris", "--proba", "--top-k", 2)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    frame = pl.read_csv(result.stdout.encode())
    names = ["setosa", "versicolor", "virginica"]
    top = ["top1", "top1_proba", "top2", "top2_proba"]
    assert frame.columns == ["prediction", *(f"proba_{name}" for name in names), *top]
    truth = [names[label] for label in load_iris().target]
    assert (frame["prediction"] == pl.Series(truth)).mean() > 0.7  # type: ignore[operator]
    assert frame.select(pl.sum_horizontal(pl.col("^proba_.*$"))).to_series().to_numpy() == pytest.approx(1, abs=1e-5)


def test_predict_to_a_file(diabetes: SimpleNamespace, tmp_path: Path) -> None:
    path = tmp_path / "predictions.parquet"
    result = invoke("predict", diabetes.path, diabetes.source, "-o", path)
    assert (result.exit_code, result.output) == (0, "")
    assert pl.read_parquet(path).shape == (442, 1)
    again = invoke("predict", diabetes.path, diabetes.source, "-o", path)
    assert again.exit_code == 1
    assert again.stderr.startswith("error: --output: must not exist yet, got ")


def test_predict_refuses_an_unknown_suffix_before_the_work(tmp_path: Path) -> None:
    result = invoke("predict", tmp_path / "no-run", "iris", "-o", tmp_path / "p.xlsx")
    assert result.exit_code == 1
    assert "Known: .csv, .parquet, .jsonl." in result.stderr


def test_a_run_that_is_none(tmp_path: Path) -> None:
    result = invoke("evaluate", tmp_path)
    assert result.exit_code == 1
    assert re.fullmatch(r"error: run: must be a directory that stoker fit made, got .*\n", result.stderr)


def test_inspect_a_table() -> None:
    result = invoke("inspect", "iris", "--ignore", "petal width (cm)", "--categorical", "sepal width (cm)")
    assert result.exit_code == 0, result.output
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    assert lines[0] == "iris: 150 rows of 5 columns"
    kinds = {line[:17]: line[19:].split()[0] for line in lines if line.startswith(("sepal", "petal"))}
    assert list(kinds.values()) == ["numeric", "categorical", "numeric", "ignored"]
    assert lines[-3] == "Target    species"
    assert lines[-2].startswith("Task      multiclass (")
    assert lines[-1] == "Classes   setosa, versicolor, virginica"


def test_inspect_images() -> None:
    result = invoke("inspect", "digits")
    assert result.exit_code == 0, result.output
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    assert lines[0] == "digits: 1,797 images; 8 x 8 pixels, one channel"
    assert lines[2].split() == ["class", "images"]
    assert [int(line.split()[1]) for line in lines[3:]] == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--target", "spices"], "Did you mean 'species'?"),
        (["--numeric", "petal"], "error: numeric: must be one of the known names, got 'petal'."),
        (["--task", "clustering"], "error: data.task: must be one of the known names, got 'clustering'."),
    ],
)
def test_inspect_says_what_is_wrong(flags: list[str], message: str) -> None:
    result = invoke("inspect", "iris", *flags)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stdout == ""
