from __future__ import annotations

import platform
from pathlib import Path

import pytest

from stoker.engines.xla.heap import give_back

GLIBC = platform.libc_ver()[0] == "glibc"


def resident() -> float:
    """This process's anonymous memory, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith("RssAnon:"))


@pytest.mark.skipif(not GLIBC, reason="another C library gives back what it likes")
def test_what_was_freed_between_what_is_kept_goes_back_to_the_system() -> None:
    blocks = [bytes(2_000) for _ in range(30_000)]  # 60 MB in pieces that the C heap makes, not Python's own
    kept = blocks[::100]
    del blocks
    before = resident()
    assert give_back()
    assert before - resident() > 30
    assert all(block == bytes(2_000) for block in kept)


@pytest.mark.skipif(GLIBC, reason="glibc gives back")
def test_other_c_libraries_are_left_alone() -> None:
    assert not give_back()
