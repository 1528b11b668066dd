"""A real PostgreSQL for the tests that need one, on this machine alone."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SECONDS = 60


def _programs() -> Path | None:
    """Where ``initdb`` and ``postgres`` are; Debian keeps them off the path."""
    found = [Path(name).parent for name in (shutil.which("initdb"),) if name]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in found if (folder / "initdb").exists() and (folder / "postgres").exists()), None)


def _as_plain_user(folder: Path) -> list[str]:
    """What to put before a command, since PostgreSQL does not run as root."""
    if os.getuid() != 0:
        return []
    names = [user.pw_name for user in pwd.getpwall() if user.pw_name in {"postgres", "nobody"}]
    name = max(names)
    user = pwd.getpwnam(name)
    os.chown(folder, user.pw_uid, user.pw_gid)
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


@contextmanager
def running_postgres() -> Iterator[str]:
    """The URL of a server's first database, of a password of its own; the server ends with the tests."""
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="stoker-postgres-", dir="/tmp"))  # a short path, for the socket's sake
    server: subprocess.Popen[bytes] | None = None
    try:
        plain = _as_plain_user(folder)
        data, password = folder / "data", secrets.token_hex(8)
        (folder / "password").write_text(password)
        (folder / "password").chmod(0o644)
        initdb = [*plain, str(programs / "initdb"), "-D", str(data), "-U", "stoker", "-A", "scram-sha-256"]
        subprocess.run(
            [*initdb, "--pwfile", str(folder / "password"), "--no-sync"], check=True, capture_output=True, cwd=folder
        )
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": str(folder),
            "fsync": "off",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(
                [*plain, str(programs / "postgres"), "-D", str(data), *options], stdout=log, stderr=log, cwd=folder
            )
        url = f"postgresql+psycopg://stoker:{password}@127.0.0.1:{port}/postgres"
        _wait(url, server, folder / "log")
        yield url
    finally:
        if server is not None:
            server.send_signal(signal.SIGINT)  # SIGTERM would wait for its clients
            server.wait(SECONDS)
        shutil.rmtree(folder, ignore_errors=True)


def _wait(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    import psycopg

    until = time.monotonic() + SECONDS
    while True:
        try:
            psycopg.connect(url.replace("+psycopg", "")).close()
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > until:
                raise AssertionError(log.read_text()) from None
            time.sleep(0.05)
        else:
            return


def empty_database(server: str) -> str:
    """The URL of a new database of a server."""
    import psycopg

    name = f"study_{secrets.token_hex(6)}"
    with psycopg.connect(server.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return server.rpartition("/")[0] + f"/{name}"
