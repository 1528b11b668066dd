from __future__ import annotations

import shlex
import socket
from pathlib import Path

import optuna
import pytest
import sqlalchemy

from stoker.errors import ConfigError, SourceNotFoundError
from stoker.tuning.storage import dashboard_command, open_storage, patiently, sqlite_url


def test_a_path_with_blanks_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a study.db"
    with open_storage(sqlite_url(path)):
        assert path.is_file()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("study.db", "--storage: must be a URL of a database, got 'study.db'."),
        ("postgres//me:secret@host/db", "--storage: must be a URL of a database, got 'postgres//me:***@host/db'."),
        ("sqlite://", "--storage: must be a file that others can open too, got sqlite://."),
        ("sqlite:///:memory:", "--storage: must be a file that others can open too"),
        (
            "sqlite:////nowhere/study.db",
            "--storage: must be in a directory that exists, got sqlite:////nowhere/study.db",
        ),
        (
            "postgresql+psycopg://me:s@secret@host/db",
            "must have an @ in the password written as %40, got 'postgresql+psycopg://me:***@host/db'.",
        ),
        ("mysql://me:secret@host/db", "must be a SQLite file or a PostgreSQL database, got mysql://me:***@host/db."),
    ],
)
def test_what_is_no_storage_is_said_without_its_password(url: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_storage(url)
    assert text in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_database_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    path.write_text("my diary, " * 1000)
    with pytest.raises(ConfigError, match=r"cannot be reached \(file is not a database\)\. Look whether"):
        open_storage(sqlite_url(path))
    assert path.read_text() == "my diary, " * 1000


def test_a_file_that_is_not_there_can_be_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match="--storage: no such file"):
        open_storage(sqlite_url(tmp_path / "study.db"), create=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["me:secret@127.0.0.1:{}/db", "127.0.0.1:{}/db?password=secret&user=me"])
def test_a_server_that_is_not_there_is_named_without_its_password(url: str) -> None:
    url = f"postgresql+psycopg://{url.format(free_port())}"
    with pytest.raises(ConfigError) as caught:
        open_storage(url)
    assert str(caught.value).startswith(f"--storage {url.replace('secret', '***')}: cannot be reached (")
    assert "secret" not in str(caught.value)


def test_a_wrong_password_is_not_repeated(postgres: str) -> None:
    before, _, after = postgres.partition("@")
    wrong = f"{before.rpartition(':')[0]}:wrongsecret@{after}"
    with pytest.raises(ConfigError) as caught:
        open_storage(wrong)
    assert "password authentication failed" in str(caught.value)
    assert "wrongsecret" not in str(caught.value)


def test_the_driver_need_not_be_said(postgres: str) -> None:
    with open_storage(postgres.replace("+psycopg", "")) as storage:
        assert storage.url == postgres


LATER = "  # after: export PGPASSWORD=…"


@pytest.mark.parametrize(
    ("shown", "command"),
    [
        ("sqlite:////runs/study.db", "optuna-dashboard sqlite:////runs/study.db"),
        ("sqlite:////my runs/study.db", "optuna-dashboard 'sqlite:////my runs/study.db'"),
        ("postgresql+psycopg://me@host/db", "optuna-dashboard postgresql+psycopg://me@host/db"),
        ("postgresql://me:***@host:5/db", f"optuna-dashboard postgresql+psycopg://me@host:5/db{LATER}"),
        (
            "postgresql+psycopg://host/db?password=***&sslmode=require&user=me",
            f"optuna-dashboard 'postgresql+psycopg://host/db?sslmode=require&user=me'{LATER}",
        ),
    ],
)
def test_how_to_watch_it(shown: str, command: str) -> None:
    assert dashboard_command(shown) == command


def test_what_is_printed_to_watch_a_database_can_be_typed(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_storage(postgres) as storage:
        command = dashboard_command(storage.shown)
    password = sqlalchemy.engine.make_url(postgres).password
    assert password is not None
    assert str(password) not in command
    _, url = shlex.split(command, comments=True)
    monkeypatch.setenv("PGPASSWORD", str(password))
    base = optuna.storages.RDBStorage(url)  # as optuna-dashboard opens it
    assert optuna.get_all_study_names(base) == []
    base.remove_session()
    base.engine.dispose()


def test_a_database_that_is_away_for_a_while_is_waited_for() -> None:
    calls = []

    def call() -> int:
        calls.append(1)
        if len(calls) < 4:
            raise optuna.exceptions.StorageInternalError("away")
        return 7

    assert patiently(call, pause=0.0) == 7
    assert len(calls) == 4
    calls.clear()
    with pytest.raises(optuna.exceptions.StorageInternalError):
        patiently(call, seconds=-1.0, pause=0.0)
