"""A run of the user's own model, trained, predicted and served in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from served_process import Server, client, serving
from served_runs import mixed

from stoker.exporting.formats.onnx import ONNX

NETS = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, n_numeric, cardinalities, n_outputs, n_hidden=16):
        super().__init__()
        self.embeddings = nn.ModuleList(nn.Embedding(size, 3) for size in cardinalities)
        self.a, self.b = nn.Linear(n_numeric + 3 * len(cardinalities), n_hidden), nn.Linear(n_hidden, n_outputs)

    def forward(self, numeric, categorical):
        codes = [embed(categorical[:, place]) for place, embed in enumerate(self.embeddings)]
        return self.b(torch.relu(self.a(torch.cat([numeric, *codes], dim=1))))


class Other(Net):
    pass
"""
MODEL = "nets:Net"
ROWS = mixed("grade", 80, seed=5).drop("grade")


def stoker_says(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "stoker", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=dict(os.environ))
    return done.stdout if done.returncode == 0 else f"{done.returncode}: {' '.join(done.stderr.split())}"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: the model's file, the data, the rows to predict, and the run."""
    home = tmp_path_factory.mktemp("own")
    (home / "nets.py").write_text(NETS)
    mixed("grade").write_csv(home / "grade.csv")
    ROWS.write_csv(home / "rows.csv")
    said = stoker_says(home, "fit", "grade.csv", "--target", "grade", "--model", MODEL, "--epochs", "8", "--out", "run")
    assert (home / "run" / "config.json").exists(), said
    return home


def answers(server: Server, **query: Any) -> str:
    """The CSV that the server makes of the rows."""
    with client(server) as opened:
        headers = {"Content-Type": "text/csv", "Accept": "text/csv"}
        return opened.post("/predict", params=query, content=ROWS.write_csv().encode(), headers=headers).text


def table(csv: str) -> tuple[list[str], Any]:
    lines = [line.split(",") for line in csv.splitlines()[1:]]
    return [line[0] for line in lines], np.array([[float(value) for value in line[1:]] for line in lines])


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        (),
        pytest.param(("--workers", "2"), marks=pytest.mark.long),
        pytest.param(("--backend", "torch", "--max-batch", "7"), marks=pytest.mark.long),
    ],
)
def test_served_as_the_command_predicts(options: tuple[str, ...], home: Path) -> None:
    wanted = stoker_says(home, "predict", "run", "rows.csv", "--model", MODEL, "--proba")
    with serving(Path("run"), "--model", MODEL, *options, cwd=home) as server:
        assert answers(server, proba=1) == wanted
        info = httpx.get(f"{server.url}/info", trust_env=False).json()
        assert (info["architecture"], info["backend"]) == (MODEL, "torch")
        example = json.dumps([{column["name"]: column["example"] for column in info["columns"]}])
        headers = {"Content-Type": "application/json"}
        answer = httpx.post(f"{server.url}/predict", content=example, headers=headers, trust_env=False)
        assert answer.json()["predictions"][0]["prediction"] in ("low", "middle", "top")
        assert server.stop() == 143
        assert "Traceback" not in server.said


@pytest.mark.slow
def test_served_as_onnx_within_the_tolerance_of_the_export(home: Path) -> None:
    pytest.importorskip("onnxruntime")
    names, probabilities = table(stoker_says(home, "predict", "run", "rows.csv", "--model", MODEL, "--proba"))
    stoker_says(home, "export", "run", "--model", MODEL, "--no-bench")
    with serving(Path("run"), "--model", MODEL, "--backend", "onnx", "--workers", "2", cwd=home) as server:
        found, numbers = table(answers(server, proba=1))
        assert server.stop() == 143
    assert found == names
    assert (np.abs(numbers - probabilities) <= ONNX.tolerance.of(probabilities, 1.0)).all()
    reason = "the code of a model of your own may have changed since an export; an ONNX export is made and checked"
    assert server.said.count(reason) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "text"),
    [
        ((), "error: model: the run's model is your own, nets:Net, and is imported only if you name it, got no name."),
        (("--model", "nets:Other"), "error: model: must be the run's own, 'nets:Net', got 'nets:Other'."),
        (("--model", "net.py:Net"), "error: model: must be the run's own, 'nets:Net', got 'net.py:Net'."),
    ],
)
def test_it_is_to_be_named_as_it_was(options: tuple[str, ...], text: str, home: Path) -> None:
    assert text in stoker_says(home, "serve", "run", "--port", "0", *options)
