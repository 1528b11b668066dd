"""Predictions over HTTP are those of ``stoker predict``, number for number."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
import torch
from served_process import TABLE_ROW, Server, client
from served_runs import mixed

import stoker
from stoker.data.dataset import Table
from stoker.serving.app import wants_csv
from stoker.serving.rows import RowReader
from stoker.serving.server import load_model
from stoker.serving.settings import ServeSettings

GRADES = mixed("grade", 300, seed=5).drop("grade")
PRICES = mixed("price", 300, seed=5).drop("price")


@pytest.fixture
def grade_client(grades: Server) -> Iterator[httpx.Client]:
    with client(grades) as opened:
        yield opened


@pytest.fixture
def price_client(prices: Server) -> Iterator[httpx.Client]:
    with client(prices) as opened:
        yield opened


@pytest.fixture
def animal_client(animals: Server) -> Iterator[httpx.Client]:
    with client(animals) as opened:
        yield opened


def as_json(frame: pl.DataFrame) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(json.dumps(frame.to_dicts(), default=str))
    return found


def predicted(run: stoker.Run, source: Path, *options: str) -> str:
    """What the command prints, in a process of its own."""
    command = [sys.executable, "-m", "stoker", "predict", str(run.path), str(source), *options]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_csv_in_and_out_is_what_the_command_prints(
    grade_client: httpx.Client, grade_run: stoker.Run, tmp_path: Path
) -> None:
    GRADES.write_csv(tmp_path / "rows.csv")
    served = grade_client.post(
        "/predict?proba=1&top_k=2",
        content=(tmp_path / "rows.csv").read_bytes(),
        headers={"Content-Type": "text/csv; charset=utf-8", "Accept": "text/csv"},
    )
    assert served.headers["content-type"].startswith("text/csv")
    assert served.text == predicted(grade_run, tmp_path / "rows.csv", "--proba", "--top-k", "2")


def test_json_lines_and_json_give_the_same_numbers(
    price_client: httpx.Client, price_run: stoker.Run, tmp_path: Path
) -> None:
    rows = as_json(PRICES)
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    wanted = pl.read_csv(io.StringIO(predicted(price_run, tmp_path / "rows.jsonl")))["prediction"].to_list()
    answer = price_client.post("/predict", json=rows).json()
    assert answer["model"] == "price-run"
    assert [row["prediction"] for row in answer["predictions"]] == wanted


@pytest.mark.parametrize("size", [1, 2, 7, 31, 33, 64, 300])
def test_a_row_has_one_prediction_however_many_are_sent_with_it(
    size: int, price_client: httpx.Client, price_run: stoker.Run
) -> None:
    wanted = price_run.predict(PRICES).values
    count = 300 if size > 7 else 40
    found: list[float] = []
    for start in range(0, count, size):
        answer = price_client.post("/predict", json=as_json(PRICES[start : start + size])).json()
        found += [row["prediction"] for row in answer["predictions"]]
    assert found == wanted[: len(found)]


def test_probabilities_and_the_best_classes(grade_client: httpx.Client, grade_run: stoker.Run) -> None:
    answer = grade_client.post("/predict?proba=true&top_k=3", json=as_json(GRADES)).json()
    found = grade_run.predict(GRADES)
    for row, name, values in zip(answer["predictions"], found.values, found.probabilities.tolist(), strict=True):
        assert row["prediction"] == name
        assert row["probabilities"] == dict(zip(grade_run.classes, values, strict=True))
        assert row["top"] == sorted(
            [{"class": c, "probability": p} for c, p in row["probabilities"].items()],
            key=lambda one: -one["probability"],
        )


def test_one_object_is_one_row(grade_client: httpx.Client) -> None:
    one, several = (grade_client.post("/predict", json=body).json() for body in (TABLE_ROW, [TABLE_ROW]))
    assert one == several
    assert one["predictions"][0]["prediction"] in ("low", "middle", "top")


def test_an_unknown_category_and_a_missing_value_are_predicted_as_by_the_command(
    grade_client: httpx.Client, grade_run: stoker.Run
) -> None:
    rows = [TABLE_ROW | {"kind": "castle"}, TABLE_ROW | {"street": None}, dict.fromkeys(TABLE_ROW)]
    answer = grade_client.post("/predict?proba=1", json=rows).json()
    frame = pl.DataFrame(rows, schema={"size": pl.Float64, "rooms": pl.Int64, "lift": pl.Boolean} | dict.fromkeys(("kind", "street", "seen"), pl.String))  # fmt: skip  # noqa: E501
    wanted = grade_run.predict(frame).probabilities.tolist()
    assert [list(row["probabilities"].values()) for row in answer["predictions"]] == wanted


@pytest.mark.parametrize("way", ["raw", "form"])
def test_images_are_predicted_as_files_are(
    way: str, animal_client: httpx.Client, image_run: stoker.Run, served_home: Path
) -> None:
    files = sorted((served_home / "animals").rglob("*.png"))[::7]
    wanted = torch.cat([image_run.predict(file).probabilities for file in files]).tolist()
    if way == "raw":
        rows = []
        for file in files:
            content, headers = file.read_bytes(), {"Content-Type": "image/png"}
            rows += animal_client.post("/predict?proba=1", content=content, headers=headers).json()["predictions"]
        assert [row["image"] for row in rows] == ["image"] * len(files)
    else:
        form = [("file", (file.name, file.read_bytes(), "image/png")) for file in files]
        rows = animal_client.post("/predict?proba=1", files=form).json()["predictions"]
        assert [row["image"] for row in rows] == [file.name for file in files]
    assert [list(row["probabilities"].values()) for row in rows] == wanted


def test_info_tells_what_the_model_is(grade_client: httpx.Client, grade_run: stoker.Run) -> None:
    info = grade_client.get("/info").json()
    assert (info["name"], info["task"], info["target"], info["classes"], info["backend"]) == (
        "grade-run", "multiclass", "grade", ["low", "middle", "top"], "torch",
    )  # fmt: skip
    assert info["metrics"]["test"]["accuracy"] == grade_run.metrics["test"]["accuracy"]
    assert info["trained_with"]["torch"] == torch.__version__
    columns = {column["name"]: column for column in info["columns"]}
    assert list(columns) == ["size", "rooms", "lift", "kind", "street", "seen"], "in the table's order"
    assert [column["kind"] for column in columns.values()] == [
        "numeric", "numeric", "boolean", "categorical", "categorical", "datetime",
    ]  # fmt: skip
    assert columns["kind"]["categories"] == ["flat", "house", "loft"]
    low, high = columns["size"]["usual"]
    assert 0 <= low < 20 < 200 < high < 250
    rows = grade_run.splits()["train"].data
    assert isinstance(rows, Table)
    for name in ("size", "rooms"):
        low, high = columns[name]["range"]
        assert [low, high] == [rows.frame[name].min(), rows.frame[name].max()], "of the rows that were trained on"
        assert low <= columns[name]["example"] <= high
    assert [type(value) for value in columns["rooms"]["range"]] == [int, int]
    assert [name for name, column in columns.items() if "range" in column] == ["size", "rooms"]
    assert str(grade_run.path.parent) not in json.dumps(info), "nothing of where files lie"


def test_a_run_of_before_ranges_were_kept_is_served_as_it_was(older_run: stoker.Run, grade_run: stoker.Run) -> None:
    model = load_model(ServeSettings(run=older_run.path), print)
    size = model.columns()[0]
    assert (size["name"], "range" in size, len(size["usual"])) == ("size", False, 2)
    assert list(model.example()[0]) == list(TABLE_ROW)
    assert isinstance(model.reader, RowReader)
    outputs = model.backend.predict(model.reader.read({name: [value] * 3 for name, value in TABLE_ROW.items()}))
    assert torch.equal(outputs, grade_run.predict(pl.DataFrame([TABLE_ROW] * 3)).outputs)
    again = stoker.load(older_run.path)
    assert again.artifact.columns is not None
    assert {column.low for column in again.artifact.columns.numeric} == {None}


def test_the_documentation_tells_the_range_of_training(grade_client: httpx.Client) -> None:
    api = grade_client.get("/openapi.json").json()
    schema = api["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    low, high = grade_client.get("/info").json()["columns"][0]["range"]
    size = schema["items"]["properties"]["size"]
    assert size["description"] == f"From {low} to {high} in training; others are taken too."
    assert low <= size["examples"][0] <= high
    assert "description" not in schema["items"]["properties"]["lift"]
    assert grade_client.post("/predict", json=TABLE_ROW | {"size": high + 1000}).status_code == 200


def test_the_example_of_the_documentation_can_be_sent(grades: Server, prices: Server) -> None:
    for server in (grades, prices):
        with client(server) as opened:
            api = opened.get("/openapi.json").json()
            for kind, content in api["paths"]["/predict"]["post"]["requestBody"]["content"].items():
                example = content["example"]
                sent = example if isinstance(example, str) else json.dumps(example)
                answer = opened.post("/predict", content=sent, headers={"Content-Type": kind})
                assert answer.status_code == 200, answer.text
                assert len(answer.json()["predictions"]) == 1
            path = "/v2/models/{name}/infer"
            example = api["paths"][path]["post"]["requestBody"]["content"]["application/json"]["example"]
            answer = opened.post(path.format(name=api["info"]["title"].split(",")[0]), json=example)
            assert answer.status_code == 200, answer.text
            row = {tensor["name"]: tensor["data"][0] for tensor in example["inputs"]}
            wanted = opened.post("/predict", json=row).json()["predictions"][0]["prediction"]
            assert answer.json()["outputs"][0]["data"] == [wanted], "the same row as of /predict"


def test_the_documentation_of_images_says_what_can_be_sent(
    animals: Server, image_run: stoker.Run, served_home: Path
) -> None:
    file = next((served_home / "animals").rglob("*.png"))
    with client(animals) as opened:
        api = opened.get("/openapi.json").json()
        content = api["paths"]["/predict"]["post"]["requestBody"]["content"]
        binary = {"type": "string", "format": "binary"}
        assert content == {
            "image/png": {"schema": binary},
            "image/jpeg": {"schema": binary},
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"file": {"type": "array", "items": binary}}}
            },
        }
        name = next(iter(content["multipart/form-data"]["schema"]["properties"]))
        sent: list[dict[str, Any]] = [
            {"files": [(name, (file.name, file.read_bytes(), "image/png"))] * 2},
            {"content": file.read_bytes(), "headers": {"Content-Type": "image/png"}},
        ]
        for body, count in zip(sent, (2, 1), strict=True):
            answer = opened.post("/predict", **body)
            assert answer.status_code == 200, answer.text
            assert [row["prediction"] for row in answer.json()["predictions"]] == [file.parent.name] * count

        answers = api["paths"]["/predict"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
        assert answers["properties"]["predictions"]["items"]["properties"]["image"] == {"type": "string"}
        path = "/v2/models/{name}/infer"
        example = api["paths"][path]["post"]["requestBody"]["content"]["application/json"]["example"]
        assert example["inputs"][0] | {"data": None} == {
            "name": "images", "datatype": "UINT8", "shape": [1, 1, 8, 8], "data": None,
        }  # fmt: skip
        answer = opened.post(path.format(name="animals-run"), json=example)
    assert answer.status_code == 200, answer.text
    black = image_run.outputs({"images": torch.zeros(1, 1, 8, 8, dtype=torch.uint8)})
    found = {tensor["name"]: tensor["data"] for tensor in answer.json()["outputs"]}
    assert found["probabilities"] == black.softmax(dim=1).flatten().tolist()
    assert found["prediction"] == [image_run.classes[int(black.argmax())]]


def test_health_and_measures(grade_client: httpx.Client) -> None:
    assert grade_client.get("/health").json() == {"status": "ready"}

    def count() -> float:
        text = grade_client.get("/metrics").text
        series = 'stoker_requests_total{method="POST",path="/predict",status="200"} '
        return next((float(line.split()[1]) for line in text.splitlines() if line.startswith(series)), 0.0)

    before = count()
    for _ in range(3):
        grade_client.post("/predict", json=TABLE_ROW).raise_for_status()
    assert count() == before + 3
    grade_client.get("/made/up/by/the/client")
    answer = grade_client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "made" not in answer.text
    assert 'path="other",status="404"' in answer.text


def test_headers_forbid_what_the_page_does_not_need(grade_client: httpx.Client) -> None:
    for path in ("/", "/info", "/nothing"):
        headers = grade_client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
        assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("accept", "csv"),
    [
        ("text/csv", True),
        ("Text/CSV; charset=utf-8", True),
        ("text/csv, application/json", True),
        ("text/csv;q=0.5, */*", True),
        ("application/json;q=0.2, text/csv; q=0.8", True),
        ("text/csv;q=0", False),
        ("text/csv; q=0.000, application/json", False),
        ("application/json, text/csv;q=0.9", False),
        ("text/csvx", False),
        ("text/csv;q=many", False),
        ("*/*", False),
        ("", False),
    ],
)
def test_an_accept_header_is_weighed(accept: str, csv: bool) -> None:
    assert wants_csv(accept) is csv


def test_csv_that_is_not_accepted_is_not_sent(prices: Server) -> None:
    with client(prices) as made:
        answer = made.post("/predict", json=TABLE_ROW, headers={"Accept": "text/csv;q=0, application/json"})
    assert answer.headers["content-type"] == "application/json"
