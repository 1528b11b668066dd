"""The folder of compiled programs: one that others can write is not used, and what is damaged in it does no harm."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stoker.engines.xla.cache import _ours

TRAINING = """
import torch, stoker
torch.manual_seed(0)
trainer = stoker.Trainer(torch.nn.Linear(2, 1), torch.nn.MSELoss(), "adam", engine="compiled")
print(trainer.fit((torch.ones(640, 2), torch.ones(640, 1)), epochs=2, progress="none").rows[-1]["train_loss"])
print(trainer.engine_reason)
"""


def test_a_folder_that_others_can_write_is_not_used(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "xla" / "1-threads"
    assert _ours(folder)
    for path in (folder, folder.parent, tmp_path / "cache"):
        mode = path.stat().st_mode
        path.chmod(0o777)
        assert not _ours(folder), path
        path.chmod(mode)
    assert _ours(folder)


def test_a_folder_of_somebody_else_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cache" / "xla" / "1-threads"
    folder.mkdir(parents=True)
    if os.getuid() == 0:
        os.chown(tmp_path / "cache", 12345, 12345)
    else:
        monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert not _ours(folder)


def test_a_folder_that_cannot_be_made_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert not _ours(tmp_path / "file" / "xla")


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: bytes(len(data)),
        lambda data: bytes(byte ^ (16 if place % 97 == 0 else 0) for place, byte in enumerate(data)),
        lambda _: b"",
    ],
    ids=["half", "zeros", "flipped bits", "empty"],
)
def test_a_damaged_program_is_compiled_anew(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    def trained() -> list[str]:
        environment = {**os.environ, "STOKER_CACHE": str(tmp_path), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", TRAINING]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    first = trained()
    programs = [path for path in tmp_path.rglob("*-cache") if path.is_file()]
    assert programs
    for path in programs:
        path.write_bytes(damage(path.read_bytes()))
    assert trained() == first
    assert first[1].startswith("compiled")
