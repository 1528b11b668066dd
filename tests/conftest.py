"""Real data for tests: what this machine has; what it lacks is a skip that says why. Nothing is downloaded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# Small networks gain nothing from a second thread, and on a busy machine the threads wait for each other: a step of
# 0.3 ms then takes 5. It is read when torch is first imported, here and in the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("STOKER_CACHE", str(Path(__file__).parents[1] / ".pytest_cache" / "stoker"))  # not the user's

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stoker.data.dataset import ImageSet, Table


def offline(url: str, path: Path) -> None:
    raise OSError(f"tests use no network: {url} to {path}")


@pytest.fixture(scope="session")
def california() -> Table:
    """California housing, 20,640 rows, if ``$STOKER_DATA`` has it."""
    from stoker.data.dataset import Table
    from stoker.data.sources import load
    from stoker.errors import SourceNotFoundError

    try:
        table = load("california-housing", download=offline)
    except SourceNotFoundError as error:
        pytest.skip(f"no California housing here: {error.rule}")
    assert isinstance(table, Table)
    return table


@pytest.fixture(scope="session")
def fashion() -> ImageSet:
    """Fashion-MNIST, if ``$STOKER_DATA`` or Debian's dataset-fashion-mnist has it."""
    from stoker.data.dataset import ImageSet
    from stoker.data.sources import load
    from stoker.errors import SourceNotFoundError

    try:
        images = load("fashion-mnist", download=offline)
    except SourceNotFoundError as error:
        pytest.skip(f"no Fashion-MNIST here: {error.rule}")
    assert isinstance(images, ImageSet)
    return images


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL server of the tests' own, if it is installed."""
    from database import running_postgres

    with running_postgres() as url:
        yield url


@pytest.fixture
def postgres(postgres_server: str) -> str:
    """The URL of an empty PostgreSQL database."""
    from database import empty_database

    return empty_database(postgres_server)


@pytest.fixture(params=["sqlite", "postgresql"])
def storage_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a storage for a study, of each kind there is."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres"))
    return f"sqlite:///{tmp_path / 'study.db'}"
