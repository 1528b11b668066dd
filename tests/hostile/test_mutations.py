"""Good files damaged by chance: each loads to something, or is refused with an error of ours."""

from __future__ import annotations

import random
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from corpus import JSON, TENSORS
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from loaders import LOADERS, Loader, Refused, make_good, needed
from mutations import damaged_bytes, damaged_tensors, damaged_text

from stoker.errors import StokerError

IN_PROCESS = [name for name, loader in LOADERS.items() if loader.kind != "graph"]
"""All but what other programs' compiled code reads, which might end this process: test_corpus.py has it forked."""


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_good(tmp_path_factory.mktemp("good"))


def read_or_refused(loader: Loader, file: Path, folder: Path, content: bytes) -> None:
    """Read a file of such a content; anything but an error of Stoker's goes through."""
    file.write_bytes(content)
    with suppress(StokerError, Refused):
        loader.load(folder)
    for made in (folder / "new", folder / "report.html"):
        shutil.rmtree(made, ignore_errors=True)
        made.unlink(missing_ok=True)


def tried(loader: Loader, good: Path, place: Path, examples: int) -> None:
    folder = needed(loader, good, place / "files")
    file = folder / loader.file
    content = file.read_bytes()
    structural = damaged_text if loader.kind in JSON else damaged_tensors if loader.kind in TENSORS else damaged_bytes

    @seed(1)
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, 2**32), st.booleans())
    def check(chance: int, bytewise: bool) -> None:
        damage = damaged_bytes if bytewise else structural
        read_or_refused(loader, file, folder, damage(content, random.Random(chance)))

    check()


# resuming and reporting take a second each: what they read is read by the others too, and by the slow test
QUICK = [name for name in IN_PROCESS if not name.startswith(("resume", "report", "tune --show"))]


@pytest.mark.parametrize("name", QUICK)
def test_damaged_files_are_read_or_refused(name: str, good: Path, tmp_path: Path) -> None:
    tried(LOADERS[name], good, tmp_path, 40)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", IN_PROCESS)
def test_many_damaged_files_are_read_or_refused(name: str, good: Path, tmp_path: Path) -> None:
    tried(LOADERS[name], good, tmp_path, 250 if name in QUICK else 40)
