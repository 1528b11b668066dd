"""``stoker tune`` on real data: what it prints, where, and with which exit code."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from sklearn.datasets import load_diabetes
from typer.testing import CliRunner

import stoker
from stoker.cli.app import app
from stoker.cli.studies import tune_summary
from stoker.errors import ConfigError

QUICK = ("--epochs", 2, "--device", "cpu", "--trials", 3, "--hidden", "8")


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "80"})


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    path = tmp_path_factory.mktemp("runs") / "iris-tune"
    result = invoke("tune", "iris", *QUICK, "--pruner", "none", "--out", path)
    assert result.exit_code == 0, result.output
    return SimpleNamespace(path=path, stdout=result.stdout, stderr=result.stderr)


def test_results_are_on_stdout_and_progress_on_stderr(study: SimpleNamespace) -> None:
    assert re.findall(r"^trial (\d): ", study.stderr, re.MULTILINE) == ["0", "1", "2"]
    assert "trial 0: 0" in study.stderr
    assert not re.search(r"^trial ", study.stdout, re.MULTILINE)
    lines = [line.rstrip() for line in study.stdout.splitlines()]
    assert lines[1].split() == ["train", "test"]
    assert "Study     iris-tune, finished" in lines
    assert "          trials: 3 complete, of 3" in lines
    (run,) = study.path.glob("refit-trial-*")
    assert f"Run       {run}" in lines
    assert f"Next      stoker evaluate {run}" in lines
    assert f"Watch     optuna-dashboard sqlite:///{study.path}/study.db" in lines
    assert invoke("evaluate", run).exit_code == 0
    for picture in re.findall(r"\S+\.png", study.stdout):
        assert Path(picture).is_file()


def test_a_databases_password_is_said_to_be_missing_and_not_stars(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = "postgresql+psycopg://me:***@db.example/studies"
    tune_summary(stoker.TuneResult(tmp_path, "s", storage, "minimize", 1, [], "timeout"), "iris")
    watch = "Watch     optuna-dashboard postgresql+psycopg://me@db.example/studies  # after: export PGPASSWORD=…"
    assert watch in capsys.readouterr().out.splitlines()


def test_a_study_can_be_shown(study: SimpleNamespace) -> None:
    for arguments in ((study.path,), ("iris-tune", "--storage", f"sqlite:///{study.path}/study.db")):
        shown = invoke("tune", "--show", *arguments)
        assert shown.exit_code == 0, shown.output
        assert shown.stdout.splitlines()[0] == "iris-tune, to minimize"
        assert "trials 3/3" in shown.stdout


def test_what_cannot_be_shown(study: SimpleNamespace, tmp_path: Path) -> None:
    missing = invoke("tune", "--show", tmp_path)
    assert missing.exit_code == 1
    assert "error: --show: must be a study's directory" in missing.stderr
    other = invoke(
        "tune", "--show", "iris-tuna", "--study-name", "iris-tuna", "--storage", f"sqlite:///{study.path}/study.db"
    )
    assert other.exit_code == 1
    assert "Did you mean 'iris-tune'?" in other.stderr


def test_quiet_prints_the_run_alone(study: SimpleNamespace) -> None:
    again = invoke("tune", "iris", *QUICK, "--pruner", "none", "--out", study.path, "--quiet")
    (run,) = study.path.glob("refit-trial-*")
    assert again.stdout == f"{run}\n"


def test_an_error_is_a_line_and_a_code(study: SimpleNamespace) -> None:
    other = invoke("tune", "iris", *QUICK, "--out", study.path, "--metric", "accuracy")
    assert other.exit_code == 1
    assert "error: study 'iris-tune': is there already, to minimize, got maximize." in other.stderr
    assert invoke("tune").exit_code == 2


def test_a_total_and_more_are_not_asked_for_together(study: SimpleNamespace) -> None:
    both = invoke("tune", "iris", *QUICK, "--out", study.path, "--more", 2)
    assert both.exit_code == 2
    assert "say one of them" in both.stderr


def test_another_study_in_the_same_directory_is_refused(study: SimpleNamespace) -> None:
    before = sorted(path.name for path in study.path.rglob("*"))
    other = invoke("tune", "wine", *QUICK, "--pruner", "none", "--out", study.path)
    assert other.exit_code == 1
    assert "error: --out: must be the directory of the study 'wine-tune', got" in " ".join(other.stderr.split())
    assert sorted(path.name for path in study.path.rglob("*")) == before


def test_no_refit(tmp_path: Path) -> None:
    done = invoke("tune", "iris", *QUICK, "--no-refit", "--out", tmp_path / "s")
    assert done.exit_code == 0, done.output
    assert not list((tmp_path / "s").glob("refit-*"))
    assert "Run  " not in done.stdout


def test_a_space_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "space.toml").write_text('[space]\nactivation = ["relu", "tanh"]\nlr = [0.01]\n')
    settings = ("--sampler", "grid", "--config", tmp_path / "space.toml", "--no-refit", "--out", tmp_path / "s")
    done = invoke("tune", "iris", *QUICK, *settings)
    assert done.exit_code == 0, done.output
    assert "note: the grid has 2 points: there will be as many trials, not 3" in done.stderr.replace("\n", " ")
    (tmp_path / "space.toml").write_text("[space]\nactivatoin = ['relu']\n")
    wrong = invoke("tune", "iris", *QUICK, "--config", tmp_path / "space.toml", "--out", tmp_path / "t")
    assert wrong.exit_code == 1
    assert "Did you mean 'activation'?" in wrong.stderr
    assert not (tmp_path / "t").exists()


def test_trials_in_batches(tmp_path: Path) -> None:
    quick = (*QUICK, "--no-refit", "--out", tmp_path / "s")
    done = invoke("tune", "iris", *quick, "--batch-trials", 3)
    assert done.exit_code == 0, done.output
    # iris has 96 rows to train on, and its default space batches of 32 or more
    assert "note: some trials are trained by themselves: an epoch has fewer than four whole updates" in done.stderr
    assert "trials: 3 complete, of 3" in done.stdout
    refused = invoke("tune", "iris", *quick, "--batch-trials", 4)
    assert refused.exit_code == 1
    assert "error: --batch-trials: must not be more than the trials, 3, got 4." in refused.stderr


ARRIVES: list[tuple[str, str, str, object]] = [
    ("--direction", "maximize", "direction", "maximize"),
    ("--sampler", "gp", "sampler", "gp"),
    ("--sampler", "cmaes", "sampler", "cmaes"),
    ("--pruner", "hyperband", "pruner", "hyperband"),
    ("--pruner", "asha", "pruner", "asha"),
    ("--refit-seeds", "5", "refit_seeds", 5),
    ("--timeout", "1.5", "timeout", 1.5),
    ("--more", "3", "more", 3),
    ("--metric", "rmse", "metric", "rmse"),
    ("--workers", "4", "workers", 4),
    ("--threads", "2", "threads", 2),
    ("--threads", "auto", "threads", "auto"),
    ("--threads", "many", "threads", "many"),
    ("--batch-trials", "4", "batch_trials", 4),
    ("--study-name", "s", "study_name", "s"),
    ("--storage", "postgresql+psycopg://me@host/db", "storage", "postgresql+psycopg://me@host/db"),
]


@pytest.mark.parametrize(("option", "value", "name", "arrived"), ARRIVES, ids=[" ".join(one[:2]) for one in ARRIVES])
def test_an_option_arrives(
    option: str, value: str, name: str, arrived: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, object] = {}

    def tune(source: str, **settings: object) -> None:
        given.update(settings, source=source)
        raise ConfigError("tune", "is not for this test")

    monkeypatch.setattr(stoker, "tune", tune)
    assert invoke("tune", "iris", option, value).exit_code == 1
    assert (given["source"], given[name], type(given[name])) == ("iris", arrived, type(arrived))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--threads", "many"), "error: --threads: must be auto, or a whole number from 1 on, got 'many'."),
        (("--direction", "maximize"), "error: --direction: must be minimize for loss, got maximize."),
        (("--sampler", "cma"), "Did you mean 'cmaes'?"),
        (("--refit-seeds", 0), "error: --refit-seeds: must be a whole number from 1 on, got 0."),
    ],
)
def test_an_option_that_cannot_be_is_an_error(options: tuple[object, ...], text: str, tmp_path: Path) -> None:
    refused = invoke("tune", "iris", *QUICK, *options, "--out", tmp_path / "s")
    assert refused.exit_code == 1
    assert text in " ".join(refused.stderr.split())
    assert not (tmp_path / "s").exists()


def test_out_of_time(tmp_path: Path) -> None:
    options = ("--epochs", 2, "--device", "cpu", "--trials", 5000, "--timeout", 0.5, "--out", tmp_path / "s")
    done = invoke("tune", "iris", *options)
    assert done.exit_code == 0, done.output
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert "Study     iris-tune, out of time; the same command goes on" in lines
    assert not any(line.startswith("Run ") for line in lines)


def test_several_networks(tmp_path: Path) -> None:
    done = invoke("tune", "iris", *QUICK, "--refit-seeds", 2, "--pruner", "none", "--out", tmp_path / "s")
    assert done.exit_code == 0, done.output
    (made,) = (tmp_path / "s").glob("refit-trial-*-2-seeds")
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert lines[1].split() == ["train", "test"]
    assert f"Run       {made}" in lines


def test_a_file_and_its_target_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    frame = pl.from_pandas(load_diabetes(as_frame=True).frame).rename({"target": "y"})
    frame.head(100).write_csv("data.csv")
    done = invoke("tune", "data.csv", "--target", "y", "--trials", 2)
    assert done.exit_code == 0, done.output
    (run,) = Path("runs/data-tune").glob("refit-trial-*")
    assert set(stoker.load(run).metrics) == {"train", "test"}
    about = json.loads(Path("runs/data-tune/study.json").read_text())["about"]
    training, network = {"lr", "batch_size", "weight_decay"}, {"hidden", "activation", "dropout", "norm"}
    assert set(about["space"]) == training | network | {"numeric_embedding"}
