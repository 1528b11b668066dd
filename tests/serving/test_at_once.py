"""How much a server takes on at once: requests, and bytes of their bodies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from stoker.serving.limits import Guard, Receive, Scope, Send
from stoker.serving.measures import Measures

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
