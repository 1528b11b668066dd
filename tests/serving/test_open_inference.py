"""The Open Inference Protocol: by its specification, and with the numbers of ``/predict``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest
from PIL import Image
from served_process import TABLE_ROW, Server, client
from served_runs import mixed

import stoker
from stoker.serving.oip_routes import counted_path

ROWS = mixed("grade", 50, seed=6).drop("grade")
DATATYPES = {"size": "FP64", "rooms": "INT64", "lift": "BOOL", "kind": "BYTES", "street": "BYTES", "seen": "BYTES"}
INFER = "/v2/models/grade-run/infer"


@pytest.fixture
def opened(grades: Server) -> Iterator[httpx.Client]:
    with client(grades) as made:
        yield made


def tensors(frame: pl.DataFrame = ROWS, shape: tuple[int, ...] = ()) -> list[dict[str, Any]]:
    data = json.loads(json.dumps(frame.to_dict(as_series=False), default=str))
    return [
        {"name": name, "shape": [frame.height, *shape], "datatype": DATATYPES[name], "data": data[name]}
        for name in frame.columns
    ]


def test_server_and_model_are_described(opened: httpx.Client) -> None:
    for path in ("/v2", "/v2/"):
        assert opened.get(path).json() == {"name": "stoker", "version": stoker.__version__, "extensions": []}
    assert opened.get("/v2/health/live").json() == {"live": True}
    assert opened.get("/v2/health/ready").json() == {"live": True, "ready": True}
    assert opened.get("/v2/models/grade-run/ready").json() == {"name": "grade-run", "ready": True}
    model = opened.get("/v2/models/grade-run").json()
    assert (model["name"], model["versions"]) == ("grade-run", ["1"])
    assert model["platform"] == "pytorch_stoker"
    assert {tensor["name"]: tensor["datatype"] for tensor in model["inputs"]} == DATATYPES | {"rooms": "FP64"}
    assert model["outputs"] == [
        {"name": "prediction", "datatype": "BYTES", "shape": [-1]},
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]},
    ]


@pytest.mark.parametrize("shape", [(), (1,)])
def test_inference(shape: tuple[int, ...], opened: httpx.Client, grade_run: stoker.Run) -> None:
    answer = opened.post(INFER, json={"id": "42", "inputs": tensors(shape=shape)}).json()
    found = grade_run.predict(ROWS)
    flat = found.probabilities.flatten().tolist()
    assert answer == {
        "model_name": "grade-run",
        "model_version": "1",
        "id": "42",
        "outputs": [
            {"name": "prediction", "datatype": "BYTES", "shape": [50], "data": found.values},
            {"name": "probabilities", "datatype": "FP32", "shape": [50, 3], "data": flat},
        ],
    }  # fmt: skip


def test_the_version_may_be_named(opened: httpx.Client) -> None:
    plain, versioned = "/v2/models/grade-run", "/v2/models/grade-run/versions/1"
    for path in ("", "/ready"):
        assert opened.get(versioned + path).json() == opened.get(plain + path).json()
    body = {"inputs": tensors()}
    answer = opened.post(f"{versioned}/infer", json=body)
    assert answer.status_code == 200
    assert answer.json() == opened.post(f"{plain}/infer", json=body).json()
    measures = opened.get("/metrics").text
    for path in ("", "/ready", "/infer"):
        assert f'path="/v2/models/{{name}}/versions/{{version}}{path}",status="200"' in measures


@pytest.mark.parametrize(
    ("path", "code", "text"),
    [
        ("/v2/models/grade-run/versions/2", "unknown-version", "version of 'grade-run': must be '1', got '2'."),
        ("/v2/models/grade-run/versions/2/ready", "unknown-version", "must be '1', got '2'."),
        ("/v2/models/other/versions/1", "unknown-model", "model: must be 'grade-run', got 'other'."),
        ("/v2/models/grade-run/versions/1/more", "unknown-path", "path: must be one of the server's"),
        ("/v2/models/grade-run/versions", "unknown-path", "path: must be one of the server's"),
        ("/v2/models/grade-run/versions/", "unknown-path", "path: must be one of the server's"),
    ],
)
def test_another_version(path: str, code: str, text: str, opened: httpx.Client) -> None:
    answer = opened.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, code)
    assert text in answer.json()["error"]
    if code == "unknown-version":
        infer = f"{path.removesuffix('/ready')}/infer"
        assert opened.post(infer, json={"inputs": tensors()}).json()["code"] == code


def test_measures_know_paths_by_their_form() -> None:
    paths = {
        "/v2/": "/v2",
        "/v2/models/a": "/v2/models/{name}",
        "/v2/models/a/infer": "/v2/models/{name}/infer",
        "/v2/models/a/versions/b": "/v2/models/{name}/versions/{version}",
        "/v2/models/a/versions/b/infer": "/v2/models/{name}/versions/{version}/infer",
        "/v2/models/a/b": None,
        "/v2/models/a/versions/b/c": None,
        "/v2/models/a/versions/b/infer/c": None,
        "/v2/models": None,
        "/v3": None,
    }
    assert {path: counted_path(path) for path in paths} == paths


def test_data_may_be_nested_and_outputs_chosen(opened: httpx.Client) -> None:
    inputs = [tensor | {"data": [[value] for value in tensor["data"]]} for tensor in tensors(shape=(1,))]
    answer = opened.post(INFER, json={"inputs": inputs, "outputs": [{"name": "probabilities"}]}).json()
    assert [tensor["name"] for tensor in answer["outputs"]] == ["probabilities"]
    assert "id" not in answer


def test_a_regression_has_one_output(prices: Server, price_run: stoker.Run) -> None:
    with client(prices) as opened:
        answer = opened.post("/v2/models/price-run/infer", json={"inputs": tensors()}).json()
    assert answer["outputs"] == [
        {"name": "prediction", "datatype": "FP32", "shape": [50], "data": price_run.predict(ROWS).values}
    ]


def test_images_are_a_tensor(animals: Server, image_run: stoker.Run) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 1, 8, 8)).astype(np.uint8)
    tensor = {"name": "images", "shape": [3, 1, 8, 8], "datatype": "UINT8"}
    with client(animals) as opened:
        assert opened.get("/v2/models/animals-run").json()["inputs"] == [
            {"name": "images", "datatype": "UINT8", "shape": [-1, 1, 8, 8]}
        ]
        for data in (pixels.tolist(), pixels.flatten().tolist()):
            body = {"inputs": [tensor | {"data": data}], "outputs": [{"name": "probabilities"}]}
            answer = opened.post("/v2/models/animals-run/infer", json=body).json()
            assert answer["outputs"][0]["data"] == image_run.predict(pixels).probabilities.flatten().tolist()
        odd: list[tuple[dict[str, Any], str]] = [
            ({"shape": [3, 8, 8, 1]}, "must be UINT8 of the shape"),
            ({"datatype": "FP32"}, "must be UINT8"),
            ({"data": [256] * 192}, "whole numbers from 0 to 255"),
            ({"data": [1.5] * 192}, "whole numbers from 0 to 255"),
            ({"data": [0] * 191}, "must have the 192 elements of its shape, got 191"),
            ({"name": "pictures"}, "input 'images': must be there"),
        ]
        for change, text in odd:
            body = {"inputs": [tensor | {"data": pixels.flatten().tolist()} | change]}
            answer = opened.post("/v2/models/animals-run/infer", json=body)
            assert answer.status_code == 422
            assert text in answer.json()["error"]
    assert Image.fromarray(pixels[0, 0]).size == (8, 8)


def changed(**change: Any) -> dict[str, Any]:
    first, *rest = tensors(pl.DataFrame([TABLE_ROW]))
    return {"inputs": [first | change, *rest]}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ([], 'body: must be an object with a list "inputs"'),
        ({}, 'body: must be an object with a list "inputs"'),
        ({"inputs": []}, "input 'size': must be there, got none"),
        ({"inputs": [3]}, "inputs: must each have a name of its own"),
        ({"inputs": [{"name": "size"}, {"name": "size"}]}, "inputs: must each have a name of its own"),
        (changed(shape=[2]), "must have the 2 elements of its shape, got 1"),
        (changed(shape=[-1]), "must have a shape of whole numbers"),
        (changed(shape="x"), "must have a shape of whole numbers"),
        (changed(shape=[1, 2]), "must have the shape [n] or [n, 1], got [1, 2]"),
        (changed(datatype="FP128"), "must have a datatype of the protocol, got 'FP128'"),
        (changed(data=None), "must have a list of data, got NoneType"),
        (changed(data=["many"]), "input 'size', row 0 (counting from 0): must be FP64, got 'many'"),
        (changed(data=[True]), "input 'size', row 0 (counting from 0): must be FP64, got 'True'"),
        (changed(data=["many"], datatype="BYTES"), "column 'size', row 0 (counting from 0): must be a number"),
        (changed(data=[1.0, 2.0], shape=[2]), "inputs: must all have one number of rows, got 1, 2"),
        ({**changed(), "id": 7}, "id: must be text, got 7"),
        ({**changed(), "outputs": [{"name": "secrets"}]}, "outputs: must be among prediction, probabilities"),
        ({**changed(), "outputs": [{"name": "prediction"}] * 2}, "outputs: must each be another, got prediction twice"),
        ({**changed(), "outputs": 3}, "outputs: must be among prediction, probabilities"),
    ],
)
def test_requests_that_are_refused(body: Any, text: str, opened: httpx.Client) -> None:
    answer = opened.post(INFER, json=body)
    assert answer.status_code == 422
    assert text in answer.json()["error"]


def test_another_model(opened: httpx.Client) -> None:
    for path in ("/v2/models/other", "/v2/models/other/ready"):
        answer = opened.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown-model")
    assert opened.post("/v2/models/other/infer", json={}).status_code == 404
