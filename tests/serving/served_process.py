"""A server in a process of its own, and a small browser, for the tests of serving."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

TABLE_ROW: dict[str, Any] = {
    "size": 50.5,
    "rooms": 3,
    "lift": True,
    "kind": "flat",
    "street": "street 3",
    "seen": "2024-01-05T10:00:00",
}


class Server:
    """``stoker serve`` in a process of its own.

    Attributes:
        url: Where it listens.
        process: The process.
        said: What it wrote to stderr up to the line that says where it listens.
    """

    def __init__(self, run: Path, *options: str, cwd: Path | None = None, **environment: str) -> None:
        command = [sys.executable, "-m", "stoker", "serve", str(run), "--port", "0", *options]
        self.process = subprocess.Popen(
            command, cwd=cwd, env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stderr is not None
        self.said = ""
        self.url = ""
        until = time.monotonic() + 60
        while not self.url and time.monotonic() < until:
            line = self.process.stderr.readline()
            if not line:
                raise AssertionError(f"stoker serve ended: {self.process.wait()}\n{self.said}")
            self.said += line
            found = re.search(r"is served at (http://\S+)", line)
            self.url = found[1] if found else ""

    def stop(self, number: int = signal.SIGTERM, wait: float = 30.0) -> int:
        """Send a signal, and return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(wait)
        assert self.process.stderr is not None
        self.said += self.process.stderr.read()
        self.process.stderr.close()
        return status


@contextmanager
def serving(run: Path, *options: str, cwd: Path | None = None, **environment: str) -> Iterator[Server]:
    """Serve a run while the block lasts."""
    server = Server(run, *options, cwd=cwd, **environment)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop(signal.SIGKILL)


def client(server: Server, **settings: Any) -> httpx.Client:
    """A client of a server, which goes around any proxy."""
    return httpx.Client(base_url=server.url, timeout=60, trust_env=False, **settings)
