"""Served by ONNX Runtime: within the export's tolerance of ``stoker predict``, from a file that was checked."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from served_process import TABLE_ROW, Server, client, serving
from served_runs import mixed
from typer.testing import CliRunner

import stoker
from benchmarks.load import send_all
from stoker.cli.app import app
from stoker.errors import ConfigError, ExportError, MissingExtraError
from stoker.exporting.formats.onnx import ONNX
from stoker.models.assembly import Rescale
from stoker.serving import onnx_file
from stoker.serving.backends import open_backend
from stoker.serving.onnx_backend import OnnxBackend, log_probabilities, thread_count
from stoker.serving.onnx_file import checked_model

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def exported_run(grade_run: stoker.Run, tmp_path_factory: pytest.TempPathFactory) -> stoker.Run:
    """A copy of ``grade_run``, with its export in its directory."""
    copy = shutil.copytree(grade_run.path, tmp_path_factory.mktemp("onnx") / "grade-run")
    stoker.export(copy, "onnx", bench=False)
    return stoker.load(copy, device="cpu")


@pytest.fixture(scope="module")
def image_content(image_run: stoker.Run) -> bytes:
    return checked_model(image_run, None, lambda _: None)


@pytest.fixture(scope="module")
def grades_onnx(exported_run: stoker.Run) -> Iterator[Server]:
    with serving(exported_run.path, "--backend", "onnx") as server:
        yield server


@pytest.fixture(scope="module")
def prices_onnx(price_run: stoker.Run) -> Iterator[Server]:
    """Of a run that has no export: the server makes one."""
    with serving(price_run.path, "--backend", "onnx") as server:
        yield server


@pytest.fixture(scope="module")
def animals_onnx(image_run: stoker.Run) -> Iterator[Server]:
    with serving(image_run.path, "--backend", "onnx") as server:
        yield server


def as_json(target: str, rows: int) -> tuple[Any, list[dict[str, Any]]]:
    frame = mixed(target, rows, seed=5).drop(target)
    return frame, json.loads(json.dumps(frame.to_dicts(), default=str))


def near(found: Any, wanted: Any, scale: float = 1.0) -> bool:
    """Within the tolerance that the export states."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    return bool((np.abs(found - wanted) <= ONNX.tolerance.of(wanted, scale)).all())


@pytest.mark.slow
def test_classes_are_predicts_and_probabilities_within_the_tolerance(
    grades_onnx: Server, grade_run: stoker.Run
) -> None:
    frame, rows = as_json("grade", 300)
    rows += [TABLE_ROW | {"kind": "castle"}, dict.fromkeys(TABLE_ROW)]
    with client(grades_onnx) as opened:
        found = opened.post("/predict?proba=1&top_k=2", json=rows).json()["predictions"]
        infer = opened.get("/v2/models/grade-run").json()
        assert (opened.get("/info").json()["backend"], infer["platform"]) == ("onnx", "onnx_onnxv1")
    wanted = grade_run.predict(frame)
    assert [row["prediction"] for row in found[:300]] == wanted.values
    assert near([list(row["probabilities"].values()) for row in found[:300]], wanted.probabilities)
    assert all(row["top"][0]["class"] == row["prediction"] for row in found)
    assert sum(found[301]["probabilities"].values()) == pytest.approx(1, abs=1e-6)
    assert "export is made" not in grades_onnx.said, "the run's own is there"


@pytest.mark.slow
def test_numbers_are_within_the_tolerance_and_alike_whatever_is_beside_them(
    prices_onnx: Server, price_run: stoker.Run
) -> None:
    frame, rows = as_json("price", 300)
    output = price_run.artifact.model.head.output
    assert isinstance(output, Rescale)
    with client(prices_onnx) as opened:
        by_size = {
            size: [
                row["prediction"]
                for start in range(0, 150 if size < 7 else 300, size)
                for row in opened.post("/predict", json=rows[start : start + size]).json()["predictions"]
            ]
            for size in (1, 7, 33, 300)
        }
    assert near(by_size[300], price_run.predict(frame).values, float(output.std))
    for found in by_size.values():
        assert found == by_size[300][: len(found)]
    assert "an ONNX export is made and checked for this server (stoker export " in prices_onnx.said
    assert "checked on 67 rows in batches of 1, 2, 7 and 64: they differ by " in prices_onnx.said
    assert not (price_run.path / "exports").exists(), "the run is left as it was"


@pytest.mark.slow
def test_images_are_predicted_as_files_are(animals_onnx: Server, image_run: stoker.Run, served_home: Path) -> None:
    files = sorted((served_home / "animals").rglob("*.png"))[::5]
    with client(animals_onnx) as opened:
        form = [("file", (file.name, file.read_bytes(), "image/png")) for file in files]
        rows = opened.post("/predict?proba=1", files=form).json()["predictions"]
    wanted = torch.cat([image_run.predict(file).probabilities for file in files])
    assert near([list(row["probabilities"].values()) for row in rows], wanted)
    assert [row["prediction"] for row in rows] == [file.parent.name for file in files]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/predict", [TABLE_ROW | {"size": "many"}]),
        ("/predict", [{"size": 1}]),
        ("/predict?top_k=4", [TABLE_ROW]),
        ("/predict?proba=perhaps", [TABLE_ROW]),
        ("/v2/models/grade-run/infer", {"inputs": []}),
    ],
)
def test_what_is_refused_is_refused_likewise(path: str, body: Any, grades_onnx: Server, grades: Server) -> None:
    answers = [httpx.post(f"{server.url}{path}", json=body, trust_env=False) for server in (grades_onnx, grades)]
    assert answers[0].status_code == 422
    assert answers[0].json() == answers[1].json()


@pytest.mark.slow
def test_requests_at_once_are_computed_together(prices_onnx: Server) -> None:
    _, rows = as_json("price", 200)
    host, port = httpx.URL(prices_onnx.url).host, httpx.URL(prices_onnx.url).port
    assert port is not None
    with client(prices_onnx) as opened:
        wanted = [row["prediction"] for row in opened.post("/predict", json=rows).json()["predictions"]]
    outcome = asyncio.run(send_all(host, port, rows, wanted, 32))
    assert (outcome.lost, outcome.wrong, outcome.statuses) == ([], [], {})
    assert len(outcome.answered) == 200


@pytest.mark.slow
def test_workers_share_what_the_first_process_made(grade_run: stoker.Run, tmp_path: Path) -> None:
    options = ("--backend", "onnx", "--workers", "2")
    with serving(grade_run.path, *options, TMPDIR=str(tmp_path), ORT_DISABLE_TELEMETRY="") as server:
        found = {httpx.post(f"{server.url}/predict?proba=1", json=TABLE_ROW, trust_env=False).text for _ in range(20)}
        shared = [path.name for path in tmp_path.rglob("model.onnx*")]
        assert sorted(shared) == ["model.onnx", "model.onnx.json"]
        assert server.stop(signal.SIGTERM) == 143
    assert len(found) == 1
    assert '"probabilities"' in found.pop()
    assert server.said.count("an ONNX export is made") == 1
    assert list(tmp_path.iterdir()) == [], (
        "nothing is left, and ONNX Runtime reports nothing: it would keep a file here"
    )


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_terminated_while_it_exports_it_leaves_nothing(workers: str, grade_run: stoker.Run, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "stoker", "serve", str(grade_run.path), "--port", "0"]
    process = subprocess.Popen(
        [*command, "--backend", "onnx", "--workers", workers],
        env=os.environ | {"TMPDIR": str(tmp_path)}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    assert "an ONNX export is made" in process.stderr.readline()
    process.terminate()
    assert process.wait(60) == 143
    assert "is served at" not in process.stderr.read()
    process.stderr.close()
    assert list(tmp_path.glob("stoker-*")) == []


@pytest.mark.slow
def test_a_file_that_is_not_the_runs_as_it_is_now_is_not_used(exported_run: stoker.Run, tmp_path: Path) -> None:
    run = stoker.load(shutil.copytree(exported_run.path, tmp_path / "run"), device="cpu")
    file = run.path / "exports" / "model.onnx"
    good = file.read_bytes()
    said: list[str] = []
    assert checked_model(run, None, said.append) == good
    assert said == []

    file.write_bytes(good[:-1] + b"x")
    assert checked_model(run, None, said.append) == good
    rule = f"{file}: must have the bytes that were compared, got others; an ONNX export is made and checked for this"
    assert said[0] == f"{rule} server (stoker export {run.path} --format onnx --overwrite keeps one)"
    assert file.read_bytes() != good, "what is in the run's directory is the user's"
    file.write_bytes(good)

    weights = run.path / "model.safetensors"
    save_file({name: value * 1.01 for name, value in load_file(weights).items()}, weights)
    changed = stoker.load(run.path, device="cpu")
    said.clear()
    content = checked_model(changed, None, said.append)
    assert "model.onnx: must be made of the run's weights, got others; " in said[0]
    row = changed.artifact.columns
    assert row is not None
    raw = row.read(mixed("grade", 40, seed=8))
    found = OnnxBackend(content, "table", 1).predict(raw).softmax(dim=1)
    assert near(found, changed.predict(mixed("grade", 40, seed=8)).probabilities)


@pytest.mark.slow
def test_a_run_that_onnx_cannot_hold_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "branching.py").write_text(
        "from torch import nn\n\n\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, n_features, n_outputs):\n"
        "        super().__init__()\n"
        "        self.layer = nn.Linear(n_features, n_outputs)\n\n"
        "    def forward(self, x):\n"
        "        if x.sum() > 0:\n"
        "            return self.layer(x)\n"
        "        return self.layer(x) * 2\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        mixed("price", 60).write_csv("price.csv")
        model = "branching:Net"
        stoker.fit("price.csv", target="price", model=model, epochs=1, out="run", progress="none", engine="eager")
        result = CliRunner().invoke(app, ["serve", "run", "--backend", "onnx", "--model", model])
    said = " ".join(result.stderr.split())
    assert result.exit_code == 1
    wanted = (
        "error: --backend onnx: the model must not take values out of tensors, to choose by or to compute with, got"
    )
    assert f"{wanted} that in branching.py, line 10: if x.sum() > 0. Take --backend torch. stoker export run" in said


@pytest.mark.parametrize("package", ["onnxruntime", "onnxscript"])
def test_a_package_that_is_missing(package: str, grade_run: stoker.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "find_spec", lambda name: None if name == package else name)
    text = (
        rf'^--backend onnx: needs the package {package}, which is not installed\. Run: pip install "stoker\[export\]"'
    )
    with pytest.raises(MissingExtraError, match=text):
        open_backend("onnx", grade_run)
    result = CliRunner().invoke(app, ["serve", str(grade_run.path), "--backend", "onnx"])
    assert result.exit_code == 1
    assert 'pip install "stoker[export]"' in result.stderr


def test_onnx_runtime_alone_is_enough_for_an_export_that_is_there(
    exported_run: stoker.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "find_spec", lambda name: name if name == "onnxruntime" else None)
    assert open_backend("onnx", exported_run).name == "onnx"


def test_another_device_is_refused(grade_run: stoker.Run) -> None:
    result = CliRunner().invoke(app, ["serve", str(grade_run.path), "--backend", "onnx", "--device", "cuda"])
    assert result.exit_code == 1
    text = "error: --device: must be cpu for --backend onnx, got cuda. Leave it out, or take --backend torch."
    assert " ".join(result.stderr.split()) == text


def test_bytes_that_are_no_export_are_refused(image_content: bytes) -> None:
    fix = r"Export the run again, or take --backend torch\."
    with pytest.raises(ExportError, match=rf"^--backend onnx: ONNX Runtime must load the run's export, got .*\. {fix}"):
        OnnxBackend(b"onnx", "table", 1)
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(image_content)
    del model.graph.output[1]
    text = rf"^--backend onnx: the run's export must have its outputs, got probabilities\. {fix}"
    with pytest.raises(ExportError, match=text):
        OnnxBackend(model.SerializeToString(), "images", 1)


@pytest.mark.parametrize("threads", [1, 2])
def test_onnx_runtime_has_so_many_threads_and_the_same_numbers(
    threads: int, image_run: stoker.Run, image_content: bytes
) -> None:
    backend = OnnxBackend(image_content, "images", threads)
    assert backend._session.get_session_options().intra_op_num_threads == threads
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (20, 1, 8, 8)).astype(np.uint8))
    assert near(backend.predict({"images": images}).softmax(dim=1), image_run.predict(images).probabilities)


@pytest.mark.parametrize(("said", "threads"), [(None, 1), ("", 1), ("3", 3), (" 2 ", 2), ("4,2", 4)])
def test_threads_are_those_of_the_environment(said: str | None, threads: int) -> None:
    assert thread_count({} if said is None else {"OMP_NUM_THREADS": said}) == threads


@pytest.mark.parametrize("said", ["0", "-1", "many", "1.5", "², ", "100000"])
def test_a_number_of_threads_that_is_none(said: str) -> None:
    with pytest.raises(ConfigError, match=r"^OMP_NUM_THREADS: must be a number of threads from 1 to 1024, got "):
        thread_count({"OMP_NUM_THREADS": said})


def test_probabilities_as_logits() -> None:
    probabilities = torch.tensor([[0.2, 0.5, 0.3], [0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [torch.nan] * 3])
    logits = log_probabilities(probabilities, torch.tensor([1, 1, 0, 0]))
    torch.testing.assert_close(logits.softmax(dim=1)[:3], probabilities[:3], rtol=2e-7, atol=0)
    assert logits.argmax(dim=1)[:3].tolist() == [1, 1, 0], "of two that rounding made equal, the class"
    assert logits[3].isnan().all()
