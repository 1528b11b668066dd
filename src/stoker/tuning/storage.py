"""Where a study is kept: a SQLite file for the processes of one machine, a PostgreSQL database for those of many."""

from __future__ import annotations

import shlex
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import optuna
import sqlalchemy

from stoker.errors import ConfigError, MissingExtraError, RunError, SourceNotFoundError, StokerError, TrainingError
from stoker.tuning.locks import FileLocks, Locks, PostgresLocks

__all__ = [
    "LOST",
    "Storage",
    "dashboard_command",
    "naming_damage",
    "naming_lost",
    "open_storage",
    "patiently",
    "sqlite_url",
]

LOST = (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError)
"""What is raised where a database is away."""

HIDDEN = "***"  # stands for a password
DRIVER = "postgresql+psycopg"  # SQLAlchemy's own choice is an older one
Result = TypeVar("Result")
BUSY_SECONDS = 60  # how long one waits for others to finish writing
RETRY_SECONDS = 60.0  # how long a database may be away


@dataclass(frozen=True)
class Storage:
    """A study's place.

    Attributes:
        url: Of the database; it may hold a password.
        shown: The same without the password.
        base: Optuna's storage.
        locks: Shared by all who have opened it.
    """

    url: str
    shown: str
    base: optuna.storages.RDBStorage
    locks: Locks

    def close(self) -> None:
        """Close its connections."""
        self.base.remove_session()
        self.base.engine.dispose()

    def __enter__(self) -> Storage:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite file."""
    return f"sqlite:///{path.absolute()}"


def dashboard_command(shown: str) -> str:
    """What to type to watch a storage in a browser; it can be typed as it is.

    PostgreSQL's client takes a password that its URL does not have from ``PGPASSWORD``, or from ``~/.pgpass``.

    Args:
        shown: Its URL, with ``***`` for a password (:attr:`Storage.shown`).
    """
    url = sqlalchemy.engine.make_url(shown)
    if url.drivername == "postgresql":
        url = url.set(drivername=DRIVER)
    hidden = HIDDEN in (url.password, url.query.get("password"))
    if hidden:
        url = url._replace(password=None).difference_update_query(["password"])
    typed = shown if url.get_backend_name() == "sqlite" else url.render_as_string()
    return f"optuna-dashboard {shlex.quote(typed)}{'  # after: export PGPASSWORD=…' if hidden else ''}"


def open_storage(url: str, *, create: bool = True) -> Storage:
    """Open a storage, and make its tables if they are not there.

    Args:
        url: ``sqlite:///study.db`` or ``postgresql+psycopg://user:password@host/database``.
        create: Whether a SQLite file may be made.

    Raises:
        ConfigError: It is no such URL, or what it names cannot be reached; the text has no password.
        SourceNotFoundError: There is no such file, and none may be made.
        MissingExtraError: The database's driver is not installed.
    """
    try:
        parsed = sqlalchemy.engine.make_url(url)
    except sqlalchemy.exc.ArgumentError:
        raise ConfigError("--storage", "must be a URL of a database", _without_password(url), KINDS) from None
    if parsed.host and "@" in parsed.host:
        rule = "must have an @ in the password written as %40"
        raise ConfigError("--storage", rule, _without_password(url), KINDS)
    secrets = {name: value for name, value in parsed.query.items() if "password" in name}
    shown = parsed.set(query={**parsed.query, **dict.fromkeys(secrets, HIDDEN)}).render_as_string(hide_password=True)
    shown = shown.replace("%2A", "*")
    backend = parsed.get_backend_name()
    connect_args: dict[str, Any]
    locks: Locks
    if backend == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise ConfigError("--storage", "must be a file that others can open too", shown, KINDS)
        path = Path(parsed.database)
        if not path.exists() and not create:
            raise SourceNotFoundError("--storage", "no such file", str(path))
        if not path.absolute().parent.is_dir():
            raise ConfigError("--storage", "must be in a directory that exists", shown, "Make the directory first.")
        connect_args = {"timeout": BUSY_SECONDS}
        locks = FileLocks(path.with_name(f"{path.name}.locks"))
    elif backend == "postgresql":
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername=DRIVER)
        url = parsed.render_as_string(hide_password=False)
        connect_args = {"connect_timeout": 10, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
        try:
            locks = PostgresLocks(url, connect_args)
        except ModuleNotFoundError as error:
            raise MissingExtraError("--storage", error.name or "psycopg", "postgres") from None
    else:
        raise ConfigError("--storage", "must be a SQLite file or a PostgreSQL database", shown, KINDS)
    settings = {"connect_args": connect_args, "pool_pre_ping": backend == "postgresql"}
    try:
        with locks.only_one("tables"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            base = optuna.storages.RDBStorage(url, engine_kwargs=settings)
    except (OSError, RuntimeError, ValueError, *LOST) as error:  # ValueError: text that is no UTF-8
        cause: BaseException = error
        while isinstance(cause, optuna.exceptions.StorageInternalError) and cause.__cause__ is not None:
            cause = cause.__cause__
        said = str(getattr(cause, "orig", None) or cause)
        for secret in filter(None, (parsed.password, *secrets.values())):
            said = said.replace(str(secret), "***")
        why = " ".join(said.split())[:200].rstrip(".")
        fix = "Look whether it is running, and at user, password and name."
        if backend == "sqlite":
            fix = "Look whether it is a study's file, and at its permissions."
        raise ConfigError(f"--storage {shown}", f"cannot be reached ({why})", "", fix) from None
    if backend == "sqlite":
        base.engine.dispose()  # the connections that made the tables
        sqlalchemy.event.listen(base.engine, "connect", _write_ahead)
    return Storage(url, shown, base, locks)


def _write_ahead(connection: Any, _: object) -> None:
    """Have a SQLite file's commits wait for no disk: an epoch of a small network is shorter than that.

    What was committed survives the death of any process. If the machine goes down, the file is sound, and may lack the
    last seconds. Where the file system cannot have a write-ahead log, SQLite leaves things as they are.
    """
    with suppress(sqlite3.OperationalError):  # others are just doing the same
        if connection.execute("PRAGMA journal_mode=WAL").fetchone()[0] == "wal":
            connection.execute("PRAGMA synchronous=NORMAL")


KINDS = "Such as sqlite:///study.db, or postgresql+psycopg://user:password@host/database."


def patiently(call: Callable[[], Result], *, seconds: float = RETRY_SECONDS, pause: float = 0.5) -> Result:
    """The result of a call to a database that may be away for a while, as when its server is started anew."""
    until = time.monotonic() + seconds
    while True:
        try:
            return call()
        except LOST:
            if time.monotonic() > until:
                raise
            time.sleep(pause)


@contextmanager
def naming_damage(storage: Storage) -> Iterator[None]:
    """Turn what reading a damaged study raises, or one that is no study, into :class:`stoker.errors.RunError`."""
    try:
        yield
    except (LookupError, TypeError, AttributeError, RuntimeError, ValueError, *LOST) as error:
        if isinstance(error, StokerError):
            raise
        got = f"{type(error).__name__}: {' '.join(str(error).split())}"[:200].rstrip(".")
        rule = "must hold a study that can be read"
        raise RunError(f"--storage {storage.shown}", rule, got, "Is it damaged, or another's?") from error


@contextmanager
def naming_lost(storage: Storage) -> Iterator[None]:
    """Turn a database that stays away into :class:`stoker.errors.TrainingError`."""
    try:
        yield
    except LOST as error:
        fix = "What was finished is kept there: the same command goes on when it is back."
        raise TrainingError(f"--storage {storage.shown}", "cannot be reached any more", "", fix) from error


def _without_password(url: str) -> str:
    """Text that may be a URL with a password, without what stands between ``:`` and ``@``."""
    before, at, after = url.rpartition("@")
    if not at:
        return repr(url)
    scheme, slashes, rest = before.rpartition("//")
    return repr(f"{scheme}{slashes}{rest.partition(':')[0]}:***@{after}")
