"""Whatever is sent, the answer is an error of ours, and the server lives on."""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from served_process import TABLE_ROW, Server, client, serving

import stoker

JSON, CSV = {"Content-Type": "application/json"}, {"Content-Type": "text/csv"}
MIB = 2**20


@pytest.fixture
def opened(grades: Server) -> Iterator[httpx.Client]:
    """A client, after which the server must still predict."""
    with client(grades) as made:
        yield made
        assert made.post("/predict", json=TABLE_ROW).status_code == 200


def check(answer: httpx.Response, status: int, code: str, text: str = "") -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/json"
    body: dict[str, Any] = answer.json()
    assert (answer.status_code, body["code"]) == (status, code), body
    assert text in body["error"]
    assert "Traceback" not in answer.text
    return body


@pytest.mark.parametrize(
    ("content", "headers", "status", "code", "text"),
    [
        (b"nonsense", JSON, 422, "invalid-json", "body: must be JSON, got a fault"),
        (b"", JSON, 422, "empty-body", "body: must not be empty"),
        (b"", CSV, 422, "invalid-data", "body: must not be empty"),
        (b"[" * MIB, JSON, 422, "invalid-json", "must not be nested so deeply"),
        (b"[" * 1000, JSON, 422, "invalid-json", "body: must"),
        (b"\xff" * 100, JSON, 422, "invalid-json", "body: must"),
        (b"\x00" * 100, CSV, 422, "invalid-data", "body"),
        (b"\x89PNG", {"Content-Type": "image/png"}, 415, "unsupported-media-type", "must be application/json or"),
        (json.dumps(TABLE_ROW).encode(), {}, 415, "unsupported-media-type", "got none"),
        (b"a=b", {"Content-Type": "application/x-www-form-urlencoded"}, 415, "unsupported-media-type", "got applic"),
        (b"size,size\n1,2\n", CSV, 422, "invalid-data", "column names must be unique"),
        (b'size\n"1\n', CSV, 422, "invalid-data", "quotes must be closed"),
        (b"x\n1\n", CSV, 422, "invalid-data", "must have every column"),
    ],
)  # fmt: skip
def test_bodies(
    content: bytes, headers: dict[str, str], status: int, code: str, text: str, opened: httpx.Client
) -> None:
    check(opened.post("/predict", content=content, headers=headers), status, code, text)


@pytest.mark.parametrize("value", ["many", "1e999", [1], {"a": {}}, "x" * 10_000, 10**300 * 10**99, "\ud800", "\x00"])
def test_values(value: Any, opened: httpx.Client) -> None:
    body = json.dumps([TABLE_ROW, TABLE_ROW | {"size": value}])
    found = check(opened.post("/predict", content=body, headers=JSON), 422, "invalid-value", "column 'size', row 1")
    assert (found["column"], found["row"]) == ("size", 1)
    assert len(json.dumps(found)) < 3000


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400"])
def test_numbers_that_are_none(text: str, opened: httpx.Client) -> None:
    body = json.dumps([TABLE_ROW | {"size": 0.25}]).replace("0.25", text)
    found = check(opened.post("/predict", content=body, headers=JSON), 422, "invalid-value", "must be a finite number")
    assert found["value"] in ("nan", "inf", "-inf")


@pytest.mark.parametrize("number", [1e30, 5e-324, 2**63, -(2**70), 0.1 + 0.2])
def test_numbers_that_are_large_or_small_are_predicted(number: float, opened: httpx.Client) -> None:
    answer = opened.post("/predict?proba=1", json=TABLE_ROW | {"size": number})
    assert answer.status_code == 200
    assert sum(answer.json()["predictions"][0]["probabilities"].values()) == pytest.approx(1)


def test_a_number_too_large_for_the_network_has_no_prediction(opened: httpx.Client, prices: Server) -> None:
    """As :math:`10^{308}` overflows on its way through, which is no reason to name a class."""
    row = TABLE_ROW | {"size": 1e308}
    found = opened.post("/predict?proba=1", json=[row, TABLE_ROW]).json()["predictions"]
    assert (found[0]["prediction"], set(found[0]["probabilities"].values())) == (None, {None})
    assert found[1]["prediction"] is not None
    with client(prices) as made:
        assert made.post("/predict", json=row).status_code == 200


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("top_k=0", "top_k: must be from 1 to the number of classes, 3, got 0."),
        ("top_k=-1", "top_k: must be from 1"),
        ("top_k=4", "top_k: must be from 1"),
        ("top_k=x", "top_k: must be a whole number, got 'x'."),
        ("top_k=1.5", "top_k: must be a whole number, got '1.5'."),
        ("top_k=" + "9" * 500, "top_k: must be"),
        ("proba=perhaps", "proba: must be true or false, got 'perhaps'."),
    ],
)
def test_parameters(query: str, text: str, opened: httpx.Client) -> None:
    check(opened.post(f"/predict?{query}", json=TABLE_ROW), 422, "invalid-parameter", text)


def test_a_regression_has_no_probabilities(prices: Server) -> None:
    with client(prices) as made:
        for query in ("proba=1", "top_k=1"):
            text = "is for classification, got a regression. Leave it out."
            check(made.post(f"/predict?{query}", json=TABLE_ROW), 422, "invalid-parameter", text)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(sorted(TABLE_ROW)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
ROWS = st.lists(st.fixed_dictionaries(dict.fromkeys(TABLE_ROW, ANYTHING)), max_size=3)
TENSORS = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(sorted(TABLE_ROW)) | ANYTHING},
        optional={
            "shape": ANYTHING,
            "datatype": st.sampled_from(["FP64", "BYTES", "BOOL"]) | ANYTHING,
            "data": ANYTHING,
        },
    ),
    max_size=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(["/predict", "/v2/models/grade-run/infer"]),
    body=st.one_of(
        st.binary(max_size=200),
        (ANYTHING | ROWS | st.fixed_dictionaries({"inputs": TENSORS, "outputs": ANYTHING})).map(
            lambda data: json.dumps(data).encode()
        ),
    ),
    headers=st.sampled_from([JSON, CSV]),
)
def test_anything(path: str, body: bytes, headers: dict[str, str], opened: httpx.Client) -> None:
    answer = opened.post(path, content=body, headers=headers)
    if answer.status_code != 200:
        assert answer.status_code in (413, 422), answer.text
        assert {"error", "code"} <= answer.json().keys()


def test_methods_and_paths(opened: httpx.Client) -> None:
    for method in ("GET", "PUT", "DELETE", "PATCH", "TRACE"):
        answer = opened.request(method, "/predict")
        check(answer, 405, "wrong-method", "/predict: must be asked with POST")
        assert answer.headers["allow"] == "POST"
    for path in ("/nothing", "/predict/", "/../../etc/passwd", "/page/index.html", "/v1/", "/" + "x" * 5000, "/%00"):
        check(opened.get(path), 404, "unknown-path", "path: must be one of the server's")


def test_large_bodies(opened: httpx.Client) -> None:
    """100 MiB that are announced, and as many that are not: each is refused, and read by a client that sends on."""
    text = "body: must be at most 16,777,216 bytes, got "
    check(opened.post("/predict", content=b" " * (100 * MIB), headers=JSON), 413, "body-too-large", text)
    pieces = (b" " * MIB for _ in range(100))
    check(opened.post("/predict", content=pieces, headers=JSON), 413, "body-too-large", text + "more")
    row = ",".join(str(value) for value in TABLE_ROW.values())
    lines = f"{','.join(TABLE_ROW)}\n" + f"{row}\n" * 1_000_000
    check(opened.post("/predict", content=lines.encode(), headers=CSV), 413, "body-too-large", text)


def test_a_million_rows(opened: httpx.Client) -> None:
    text = "body: must have at most 10,000 rows, got 1,000,000."
    check(opened.post("/predict", content=b"[" + b"{}," * 999_999 + b"{}]", headers=JSON), 413, "too-many-rows", text)
    check(opened.post("/predict", content=b"size\n" + b"1\n" * 1_000_000, headers=CSV), 413, "too-many-rows", text)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"POST /predict HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 50_000 + b"\r\n",
    ],
    ids=["tls", "negative", "two lengths", "long path", "many headers"],
)
def test_what_is_no_http(sent: bytes, grades: Server, opened: httpx.Client) -> None:
    url = httpx.URL(grades.url)
    with socket.create_connection((url.host, url.port or 80), timeout=20) as connection:
        try:
            connection.sendall(sent)
            got = connection.recv(4096)
        except ConnectionError:  # refused while we still sent: an answer too
            got = b""
    assert got == b"" or got.startswith(b"HTTP/1.1 4")


def test_a_client_that_hangs_up(grades: Server, opened: httpx.Client) -> None:
    url = httpx.URL(grades.url)
    for sent in (
        b"POST /predict HTTP/1.1\r\nHost: a\r\n",
        b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n[",
    ):
        with socket.create_connection((url.host, url.port or 80), timeout=20) as connection:
            connection.sendall(sent)
    assert opened.get("/health").status_code == 200


def png(width: int = 8, height: int = 8) -> bytes:
    data = io.BytesIO()
    Image.new("L", (width, height), 90).save(data, "PNG")
    return data.getvalue()


@pytest.mark.parametrize(
    ("content", "kind", "status", "code", "text"),
    [
        (b"", "image/png", 422, "invalid-image", "image 'image': must be a readable image, got nothing"),
        (b"GIF89a", "image/gif", 422, "invalid-image", "must be a readable image"),
        (png()[:40], "image/png", 422, "invalid-image", "must be a readable image"),
        (png(20_000, 20_000), "image/png", 422, "invalid-image", "must be a readable image"),
        (png(9_000, 9_000), "image/png", 422, "invalid-image", "must have at most 16,777,216 pixels, got 81,000,000"),
        (b"[]", "application/json", 415, "unsupported-media-type", "must be image/png, image/jpeg or multipart"),
        (b"x", "multipart/form-data", 422, "invalid-form", "must be a form with files"),
        (b"x", "multipart/form-data; boundary=y", 422, "invalid-form", "must be a form with files"),
        (b"--y--\r\n", "multipart/form-data; boundary=y", 422, "no-rows", "must have images, got none"),
    ],
)
def test_images(content: bytes, kind: str, status: int, code: str, text: str, animals: Server) -> None:
    with client(animals) as made:
        check(made.post("/predict", content=content, headers={"Content-Type": kind}), status, code, text)
        assert made.post("/predict", content=png(), headers={"Content-Type": "image/png"}).status_code == 200


def test_a_form_that_was_cut_off_is_not_answered_in_part(animals: Server) -> None:
    part = b'--y\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n' + png() + b"\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=y"}
    with client(animals) as made:
        assert len(made.post("/predict", content=part * 2 + b"--y--", headers=headers).json()["predictions"]) == 2
        cut = (part * 2)[:-20]
        found = check(
            made.post("/predict", content=cut, headers=headers), 422, "invalid-form", "must be a form with files"
        )
        assert found["error"] == "body: must be a form with files, got one without its last boundary."


def test_one_bad_image_of_several_is_named(animals: Server) -> None:
    with client(animals) as made:
        form = [("file", ("a.png", png())), ("file", ("b.png", b"no image"))]
        found = check(
            made.post("/predict", files=form), 422, "invalid-image", "image 'b.png': must be a readable image"
        )
        assert (found["row"], found["value"]) == (1, "b.png")
        answer = made.post("/predict", files=[("file", (f"{n}.png", png())) for n in range(300)])
        assert answer.status_code in (413, 422)
        assert answer.json()["code"] in ("too-many-rows", "invalid-form")


@pytest.mark.slow
def test_a_token(grade_run: stoker.Run) -> None:
    with serving(grade_run.path, STOKER_SERVE_TOKEN="glühwürmchen") as server, client(server) as made:
        bearer = {"Authorization": "Bearer glühwürmchen".encode()}
        for path in ("/info", "/metrics", "/openapi.json", "/v2", "/v2/models/grade-run", "/nothing"):
            answer = made.get(path)
            check(answer, 401, "unauthorized", "token: must be the server's, got none. Send it: Authorization: Bearer")
            assert answer.headers["www-authenticate"] == "Bearer"
        wrong = [b"Bearer", b"Bearer glueh", b"Basic Z2w6eA==", "glühwürmchen".encode(), b"Bearer \xff\xfe"]
        for value in wrong:
            check(made.post("/predict", json=TABLE_ROW, headers={b"Authorization": value}), 401, "unauthorized")
        for path in ("/", "/docs", "/page.js", "/page.css", "/health", "/v2/health/live", "/v2/health/ready"):
            assert made.get(path).status_code == 200, path
        assert made.post("/predict", json=TABLE_ROW, headers=bearer).status_code == 200  # type: ignore[arg-type]
        assert made.get("/info", headers=bearer).status_code == 200  # type: ignore[arg-type]
        assert "glühwürmchen" not in server.said


@pytest.mark.slow
def test_limits_can_be_set(grade_run: stoker.Run, tmp_path: Path) -> None:
    with serving(grade_run.path, "--max-body-mb", "0.01", "--max-rows", "3") as server, client(server) as made:
        check(made.post("/predict", json=[TABLE_ROW] * 4), 413, "too-many-rows", "must have at most 3 rows, got 4")
        check(made.post("/predict", content=b" " * 20_000, headers=JSON), 413, "body-too-large", "at most 10,485 bytes")
        assert len(made.post("/predict", json=[TABLE_ROW] * 3).json()["predictions"]) == 3
