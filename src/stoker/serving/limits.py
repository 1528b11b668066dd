"""What stands before every request: its size, its time, its token; and behind it: our error, security, measures.

Plain ASGI: a layer of Starlette's own kind would take longer than a prediction.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from polars.exceptions import PanicException

from stoker.serving.measures import Measures
from stoker.serving.problems import Problem

__all__ = ["Guard", "json_bytes"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_OPEN = frozenset({"/", "/docs", "/page.css", "/page.js", "/docs.js", "/health", "/v2/health/live", "/v2/health/ready"})
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_DRAINED = 8  # so many times the limit is read and thrown away, so that the client can read why it is refused
_MOST_REQUESTS = 512
_MOST_HELD = 256 << 20
_LARGE_AT_ONCE = 4  # bodies of the largest size, however large that is
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
]

logger = logging.getLogger("stoker.serving")


def json_bytes(data: Any) -> bytes:
    """JSON in ASCII, which holds whatever text a client sent."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).encode()


class Guard:
    """Refuses what is too large, too slow, too much at once or without its token, and answers failures in our own form.

    Args:
        app: What serves.
        paths: The server's own paths, as they are to be counted.
        max_body: The largest body in bytes.
        body_timeout: Seconds that a body may take.
        token: What requests must bear; ``None`` for nothing.
        measures: Told of every request.
        max_requests: How many may be answered at once; those of its health and its page always are.
        max_held: The most bytes of all the bodies that are being answered; by default 256 MiB, or four bodies.
    """

    def __init__(
        self,
        app: App,
        *,
        paths: Callable[[str], str],
        max_body: int,
        body_timeout: float,
        token: str | None,
        measures: Measures,
        max_requests: int = _MOST_REQUESTS,
        max_held: int | None = None,
    ) -> None:
        self._app = app
        self._paths = paths
        self._max_body = max_body
        self._body_timeout = body_timeout
        self._token = None if token is None else token.encode()
        self._measures = measures
        self._max_requests = max_requests
        self._max_held = max(_MOST_HELD, _LARGE_AT_ONCE * max_body) if max_held is None else max_held
        self._requests = 0
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or hand on what is none."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        held = 0

        def hold(size: int) -> bool:
            nonlocal held
            held += size
            self._held += size
            return self._held <= self._max_held

        self._requests += 1
        try:
            body = _Body(receive, self._max_body, time.monotonic() + self._body_timeout, hold)
            headers = dict(scope["headers"])
            self._check_token(scope["path"], headers)
            if self._requests > self._max_requests and scope["path"] not in _OPEN:
                raise _too_much("requests")
            await body.check_length(headers)
            await self._app(scope, body.receive, answer)
        except Problem as problem:
            if not status:
                await answer_problem(problem, answer)
        except (Exception, PanicException):
            logger.exception("a request failed")
            if not status:
                text = "server: must not fail, got a fault of its own, which its log has."
                await answer_problem(Problem(500, "internal-error", text), answer)
        finally:
            self._requests -= 1
            self._held -= held
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._measures.request(method, self._paths(scope["path"]), status, time.perf_counter() - began)

    def _check_token(self, path: str, headers: dict[bytes, bytes]) -> None:
        if self._token is None or path in _OPEN:
            return
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self._token):
            got = "none" if not given else "another"
            text = f"token: must be the server's, got {got}. Send it: Authorization: Bearer TOKEN."
            raise Problem(401, "unauthorized", text, headers={"WWW-Authenticate": "Bearer"})


async def answer_problem(problem: Problem, send: Send) -> None:
    """Answer with a problem."""
    body = json_bytes(problem.body)
    headers = {"content-type": "application/json", "content-length": str(len(body)), **problem.headers}
    encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})


def _too_much(what: str) -> Problem:
    text = f"server: must have less to do, got too many {what} at once. Try again in a second."
    return Problem(503, "overloaded", text, headers={"Retry-After": "1", "Connection": "close"})


class _Body:
    """A request's body, which may neither be too large nor take too long, nor come when there are too many."""

    def __init__(self, receive: Receive, limit: int, deadline: float, hold: Callable[[int], bool]) -> None:
        self._receive = receive
        self._hold = hold
        self._limit = limit
        self._deadline = deadline
        self._seen = 0
        self._whole = False

    async def check_length(self, headers: dict[bytes, bytes]) -> None:
        """Refuse a body that says itself that it is too large."""
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._limit:
            if b"expect" not in headers:  # who asks first gets the answer without sending anything
                await self._drain(int(length))
            raise self._too_large(f"{int(length):,}")

    async def receive(self) -> Message:
        """The next piece, for the app."""
        if self._whole:  # what comes now is the end of the connection, for which one may wait
            return await self._receive()
        message = await self._next()
        if self._seen > self._limit:
            await self._drain(self._seen)
            raise self._too_large("more")
        if not self._hold(len(message.get("body", b""))):
            await self._drain(self._seen)
            raise _too_much("bodies")
        return message

    async def _next(self) -> Message:
        try:
            async with asyncio.timeout(max(0.0, self._deadline - time.monotonic())):
                message = await self._receive()
        except TimeoutError:
            text = "body: must arrive within a minute or so, got a part of it."
            raise Problem(408, "too-slow", text, headers={"Connection": "close"}) from None
        self._seen += len(message.get("body", b""))
        self._whole = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def _drain(self, length: int) -> None:
        while not self._whole and max(length, self._seen) <= _DRAINED * self._limit + (1 << 20):
            await self._next()

    def _too_large(self, got: str) -> Problem:
        fix = "Send the rows in several requests, or start the server with a larger --max-body-mb."
        text = f"body: must be at most {self._limit:,} bytes, got {got}. {fix}"
        return Problem(413, "body-too-large", text, headers={"Connection": "close"})
