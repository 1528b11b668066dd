"""Requests over many connections at once, each with a row of its own, checked against its own answer."""

from __future__ import annotations

import asyncio
import json
import operator
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Lost(NamedTuple):
    """A row whose connection broke, and when it was sent, and when the connection broke."""

    number: int
    sent: float
    broke: float


@dataclass
class Outcome:
    """What became of the requests.

    Attributes:
        answered: How often each row was answered, and rightly.
        wrong: Rows whose answer was another's.
        lost: Rows whose connection broke while they were being answered.
        statuses: Other statuses than 200.
        seconds: Of each answer.
    """

    answered: Counter[int] = field(default_factory=Counter)
    wrong: list[int] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)


class Connection:
    """One kept-alive connection; opened anew when it broke, as often as it takes while the server is away."""

    def __init__(self, host: str, port: int, patience: float) -> None:
        self._address = (host, port)
        self._patience = patience
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        until = time.monotonic() + self._patience
        while self._streams is None:
            try:
                self._streams = await asyncio.open_connection(*self._address)
            except OSError:
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(0.05)
        return self._streams

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        reader, writer = await self.open()
        try:
            head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
            writer.write(f"{head}\r\n\r\n".encode() + body)
            start = await reader.readuntil(b"\r\n\r\n")
            lines = start.decode().lower().split("\r\n")
            length = next(int(line.split(":")[1]) for line in lines if line.startswith("content-length:"))
            return int(lines[0].split()[1]), await reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError):
            self.close()
            raise ConnectionError from None

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def send_all(
    host: str,
    port: int,
    rows: list[dict[str, Any]],
    wanted: list[Any],
    connections: int,
    *,
    patience: float = 0.0,
    same: Callable[[Any, Any], bool] = operator.eq,
) -> Outcome:
    """Send each row once to ``/predict``, over so many connections at once.

    Args:
        host, port: The server's.
        rows: What to send, one a request.
        wanted: The prediction of each.
        connections: How many requests are on their way at once.
        patience: Seconds to wait for a server that is away.
        same: Whether an answer is the one that was wanted.

    Returns:
        What became of them; a row that is lost is noted, and not sent again.
    """
    outcome = Outcome()
    numbers = iter(range(len(rows)))

    async def one() -> None:
        connection = Connection(host, port, patience)
        for number in numbers:
            body = json.dumps([rows[number]]).encode()
            await connection.open()  # to wait for a server that is away is no part of an answer's time
            began = time.monotonic()
            try:
                status, content = await connection.post("/predict", body)
            except ConnectionError:
                outcome.lost.append(Lost(number, began, time.monotonic()))
                continue
            outcome.seconds.append(time.monotonic() - began)
            if status != 200:
                outcome.statuses[status] += 1
            elif same(json.loads(content)["predictions"][0]["prediction"], wanted[number]):
                outcome.answered[number] += 1
            else:
                outcome.wrong.append(number)
        connection.close()

    await asyncio.gather(*(one() for _ in range(connections)))
    return outcome
