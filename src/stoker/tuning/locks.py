"""Locks among the workers of a study, which the system gives back when their holder dies, however it dies.

Two are needed: one that is held for a moment, while a worker takes or ends a trial; and one that each worker holds as
long as it lives, so that the others know at once when it does not.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import sqlalchemy

if TYPE_CHECKING:
    from filelock import FileLock

__all__ = ["FileLocks", "Locks", "PostgresLocks"]

HELD = """
SELECT EXISTS (
    SELECT 1 FROM pg_locks JOIN pg_database ON pg_locks.database = pg_database.oid
    WHERE locktype = 'advisory' AND datname = current_database() AND granted
    AND classid::bigint = :high AND objid::bigint = :low AND objsubid = 1
)
"""


class Locks(Protocol):
    """Locks by name."""

    def only_one(self, name: str) -> AbstractContextManager[Callable[[], object]]:
        """Of all who come, one after the other is in this block.

        It gives a function that raises what a database raises if that is so no more, as when a connection broke.
        """
        ...

    def hold(self, name: str) -> bool:
        """Take a lock and keep it for the rest of the process's life; ``False`` if another has it."""
        ...

    def let_go(self, name: str) -> None:
        """Give back what :meth:`hold` took."""
        ...

    def is_held(self, name: str) -> bool:
        """Whether anyone holds it."""
        ...


class FileLocks:
    """Locked files beside a study's own file, for processes of one machine.

    Args:
        folder: Where they are; made when it is needed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held: dict[str, FileLock] = {}

    def _lock(self, name: str) -> FileLock:
        from filelock import FileLock

        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / f"{re.sub(r'[^A-Za-z0-9._-]', '_', name)}.lock", thread_local=False)

    @contextmanager
    def only_one(self, name: str) -> Iterator[Callable[[], object]]:
        with self._lock(name).acquire(poll_interval=0.01):
            yield lambda: None

    def hold(self, name: str) -> bool:
        from filelock import Timeout

        if name in self._held:
            return True
        lock = self._lock(name)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        self._held[name] = lock
        return True

    def let_go(self, name: str) -> None:
        lock = self._held.pop(name, None)
        if lock is not None:
            Path(lock.lock_file).unlink(missing_ok=True)  # nobody waits for it: others only ask whether it is held
            lock.release()

    def is_held(self, name: str) -> bool:
        from filelock import Timeout

        if name in self._held:
            return True
        lock = self._lock(name)
        if not Path(lock.lock_file).exists():
            return False
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
        return False


class PostgresLocks:
    """PostgreSQL's advisory locks, for processes of many machines; the server gives them back with their connection.

    Args:
        url: Of the database.
        connect_args: For its driver.
    """

    def __init__(self, url: str, connect_args: dict[str, Any]) -> None:
        self._engine = sqlalchemy.create_engine(
            url, poolclass=sqlalchemy.pool.NullPool, isolation_level="AUTOCOMMIT", connect_args=connect_args
        )
        self._keeper: sqlalchemy.Connection | None = None
        self._held: set[str] = set()

    @contextmanager
    def only_one(self, name: str) -> Iterator[Callable[[], object]]:
        with self._engine.connect() as connection:  # ends with it, whatever happens
            self._ask(connection, "pg_advisory_lock", name)
            try:
                yield lambda: connection.execute(sqlalchemy.text("SELECT 1"))
            finally:
                with suppress(sqlalchemy.exc.SQLAlchemyError):  # of a connection that broke it is gone already
                    self._ask(connection, "pg_advisory_unlock", name)

    def hold(self, name: str) -> bool:
        if name in self._held and self._alive():
            return True
        if bool(self._ask(self._kept(), "pg_try_advisory_lock", name)):
            self._held.add(name)
            return True
        return False

    def let_go(self, name: str) -> None:
        if name in self._held:
            self._held.discard(name)
            with suppress(Exception):  # a connection that is gone holds nothing
                self._ask(self._kept(), "pg_advisory_unlock", name)
        if not self._held and self._keeper is not None:
            self._keeper.close()
            self._keeper = None

    def is_held(self, name: str) -> bool:
        if name in self._held:
            return True
        with self._engine.connect() as connection:  # looked at, not tried: a lock that is tried is held for a moment
            return bool(connection.execute(sqlalchemy.text(HELD), _parts(name)).scalar())

    def _kept(self) -> sqlalchemy.Connection:
        """The connection whose end gives the held locks back; a new one, without them, where it broke."""
        if self._keeper is None or not self._alive():
            self._held.clear()
            self._keeper = self._engine.connect()
        return self._keeper

    def _alive(self) -> bool:
        if self._keeper is None:
            return False
        try:
            self._keeper.execute(sqlalchemy.text("SELECT 1"))
        except sqlalchemy.exc.SQLAlchemyError:
            with suppress(Exception):
                self._keeper.close()
            self._keeper = None
            self._held.clear()
            return False
        return True

    @staticmethod
    def _ask(connection: sqlalchemy.Connection, function: str, name: str) -> Any:
        return connection.execute(sqlalchemy.text(f"SELECT {function}(:key)"), {"key": _key(name)}).scalar()


def _key(name: str) -> int:
    """A lock's number, of 64 bits with a sign."""
    return int.from_bytes(hashlib.blake2b(f"stoker {name}".encode(), digest_size=8).digest(), "big", signed=True)


def _parts(name: str) -> dict[str, int]:
    """Its two halves, as PostgreSQL lists them."""
    key = _key(name) % (1 << 64)
    return {"high": key >> 32, "low": key % (1 << 32)}
