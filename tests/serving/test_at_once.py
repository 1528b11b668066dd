"""How much a server takes on at once, how long it waits for a body, and when it is ready."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from served_process import TABLE_ROW

import stoker
from stoker.serving.app import build_app
from stoker.serving.backends import open_backend
from stoker.serving.limits import Guard, Receive, Scope, Send
from stoker.serving.measures import Measures
from stoker.serving.served import ServedModel
from stoker.serving.settings import ServeSettings

DONE = {"type": "http.response.start", "status": 200, "headers": []}


class Scene:
    """A server whose answers wait for a gate, with limits of three requests and a hundred bytes."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.guard = Guard(
            self.app,
            paths=str,
            max_body=80,
            body_timeout=5,
            token=None,
            measures=Measures(),
            max_requests=3,
            max_held=100,
        )

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        if scope["path"] != "/health":
            await self.gate.wait()
        await send(DONE)
        await send({"type": "http.response.body", "body": b"{}"})

    async def ask(self, *pieces: bytes, path: str = "/predict") -> tuple[int, dict[bytes, bytes], dict[str, Any]]:
        """Ask with a body that comes in pieces; the answer's status, headers and body."""
        left: Iterator[tuple[int, bytes]] = iter(enumerate(pieces, start=1))
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            await asyncio.sleep(0)
            number, piece = next(left)
            return {"type": "http.request", "body": piece, "more_body": number < len(pieces)}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": path, "headers": []}
        await self.guard(scope, receive, send)
        return sent[0]["status"], dict(sent[0]["headers"]), json.loads(sent[1]["body"])


async def together(requests: list[list[bytes]], then: list[bytes]) -> tuple[list[int], list[Any]]:
    """The statuses of requests that come together, and the answers to one beside them and one after them."""
    scene = Scene()
    tasks = [asyncio.create_task(scene.ask(*pieces)) for pieces in requests]
    await asyncio.sleep(0.05)
    beside = await asyncio.wait_for(scene.ask(b"", path="/health"), 1)
    scene.gate.set()
    statuses = [status for status, _, _ in await asyncio.gather(*tasks)]
    return statuses, [beside, await scene.ask(*then)]


@pytest.mark.parametrize(
    ("requests", "statuses", "what"),
    [
        ([[b"x"]] * 5, [200, 200, 200, 503, 503], "requests"),
        ([[b"x" * 40]] * 3, [200, 200, 503], "bodies"),
        ([[b"x" * 40, b"x" * 20], [b"x" * 20, b"x" * 40]], [200, 503], "bodies"),
        ([[b"x" * 40], [b"x" * 60], [b""]], [200, 200, 200], ""),
    ],
)
def test_what_is_too_much_at_once_is_refused_and_nothing_after_it(
    requests: list[list[bytes]], statuses: list[int], what: str
) -> None:
    found, (beside, after) = asyncio.run(together(requests, [b"x" * 80]))
    assert found == statuses
    assert beside[0] == 200, "its health is told whatever there is to do"
    assert after[0] == 200, "what was held is given back"


def test_who_is_refused_is_told_when_to_come_back() -> None:
    async def scene() -> tuple[int, dict[bytes, bytes], dict[str, Any]]:
        made = Scene()
        task = asyncio.create_task(made.ask(b"x" * 60))
        await asyncio.sleep(0.05)
        refused = await made.ask(b"x" * 60)
        made.gate.set()
        await task
        return refused

    status, headers, body = asyncio.run(scene())
    assert (status, headers[b"retry-after"], body["code"]) == (503, b"1", "overloaded")
    assert body["error"] == "server: must have less to do, got too many bodies at once. Try again in a second."


def app_of(run: stoker.Run, **settings: Any) -> Guard:
    """The application that serves a run."""
    run = stoker.load(run.path, device="cpu")
    return build_app(ServedModel(run, open_backend("torch", run)), ServeSettings(run=run.path, **settings))


@contextmanager
def listening(app: Guard) -> Iterator[int]:
    """The port of a server of this process."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until = time.monotonic() + 20
        while not server.started:
            assert time.monotonic() < until
            time.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


def answered(connection: socket.socket) -> tuple[str, str, dict[str, Any]]:
    """The status line, the headers and the body of the answer after which the connection is closed."""
    received = b""
    while piece := connection.recv(65536):
        received += piece
    head, _, body = received.decode().partition("\r\n\r\n")
    status, _, headers = head.partition("\r\n")
    return status, headers.lower(), json.loads(body)


def test_a_body_that_takes_too_long_is_refused_and_others_need_not_wait(grade_run: stoker.Run) -> None:
    head = "POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    with listening(app_of(grade_run, body_timeout_s=4.0)) as port:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=20) as silent,
            socket.create_connection(("127.0.0.1", port), timeout=20) as dripping,
        ):
            began = time.monotonic()
            silent.sendall(f"{head}Content-Length: 400\r\n\r\n[".encode())
            dripping.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
            for _ in range(4):  # each piece comes soon, and the whole never
                dripping.sendall(b"1\r\n \r\n")
                time.sleep(0.1)
            answer = httpx.post(f"http://127.0.0.1:{port}/predict", json=TABLE_ROW, trust_env=False)
            assert answer.status_code == 200
            assert time.monotonic() - began < 4, "before those were given up"
            for connection in (silent, dripping):
                status, headers, body = answered(connection)
                assert status == "HTTP/1.1 408 Request Timeout"
                assert "connection: close" in headers
                assert body["code"] == "too-slow"
                assert body["error"].startswith("body: must arrive within a minute or so, got a part of it.")
            assert 3.9 < time.monotonic() - began < 30
        text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    assert 'stoker_requests_total{method="POST",path="/predict",status="408"} 2' in text


async def lifetime(app: Guard) -> list[dict[str, tuple[int, Any]]]:
    """What is answered before the server runs, while it runs, and when it stops."""
    gates: tuple[asyncio.Queue[Any], asyncio.Queue[Any]] = asyncio.Queue(), asyncio.Queue()
    life = asyncio.create_task(app({"type": "lifespan", "asgi": {"version": "3.0"}}, gates[0].get, gates[1].put))

    async def ask() -> dict[str, tuple[int, Any]]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a") as client:
            answers = {path: await client.get(path) for path in ("/health", "/v2/health/ready", "/v2/health/live")}
            return {path: (answer.status_code, answer.json()) for path, answer in answers.items()}

    async def predicted() -> tuple[int, Any]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a") as client:
            answer = await client.post("/predict", json=TABLE_ROW)
            return answer.status_code, answer.json().get("code")

    found = [await ask()]
    for message in ("lifespan.startup", "lifespan.shutdown"):
        await gates[0].put({"type": message})
        assert (await gates[1].get())["type"] == f"{message}.complete"
        found.append(await ask() | {"/predict": await predicted()})
    await life
    return found


def test_health_says_whether_predictions_are_served(grade_run: stoker.Run) -> None:
    before, running, stopping = asyncio.run(lifetime(app_of(grade_run)))
    assert before["/health"] == stopping["/health"] == (503, {"status": "stopping"})
    assert running["/health"] == (200, {"status": "ready"})
    for now, ready in ((before, False), (running, True), (stopping, False)):
        assert now["/v2/health/ready"] == (200 if ready else 503, {"live": True, "ready": ready})
        assert now["/v2/health/live"] == (200, {"live": True})
    assert running["/predict"] == (200, None)
    assert stopping["/predict"] == (503, "stopping")
