"""What is read of the machine, from systems that are made up."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from stoker.doctor.findings import Checkup, Finding
from stoker.doctor.machine import compiler, describe, disks, memory, threads, usable_cpus

MEMINFO = "MemTotal:       8000000 kB\nMemFree:  1 kB\nMemAvailable:   5000000 kB\n"


def system(root: Path, **files: str) -> Path:
    for name, content in files.items():
        path = root / {"cpu": "sys/fs/cgroup/cpu.max", "limit": "sys/fs/cgroup/memory.max",
                       "used": "sys/fs/cgroup/memory.current", "meminfo": "proc/meminfo",
                       "cpuinfo": "proc/cpuinfo"}[name]  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


@pytest.mark.parametrize(
    ("quota", "cpus"), [("100000 100000", 1), ("50000 100000", 1), ("250000 100000", 2), ("max 100000", 99), ("", 99)]
)
def test_a_containers_share_of_the_processors_counts(
    quota: str, cpus: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(99)))
    assert usable_cpus(system(tmp_path, cpu=quota)) == cpus


def test_memory_within_a_containers_limit(tmp_path: Path) -> None:
    assert memory(system(tmp_path, meminfo=MEMINFO)) == (8_000_000 * 1024, 5_000_000 * 1024)
    assert memory(system(tmp_path, limit="max", used="1")) == (8_000_000 * 1024, 5_000_000 * 1024)
    assert memory(system(tmp_path, limit="1000000000", used="400000000")) == (1_000_000_000, 600_000_000)


def test_the_machine_in_words(tmp_path: Path) -> None:
    found = describe(system(tmp_path, cpuinfo="processor : 0\nmodel name\t: Some  Chip 9\n", meminfo=MEMINFO))
    assert found["processor"].startswith("Some Chip 9, ")
    assert found["memory"] == "7.6 GiB, 4.8 GiB free"


def test_a_machine_that_says_nothing_is_no_failure(tmp_path: Path) -> None:
    assert {"system", "processor"} <= describe(tmp_path).keys()


def test_the_compiler_is_tried(tmp_path: Path) -> None:
    assert compiler({"PATH": str(tmp_path)}).status == "absent"
    assert "apt install g++" in compiler({"PATH": str(tmp_path)}).fix
    assert compiler({"PATH": str(tmp_path)}).says == "none; needed by torch.compile, and for exports with AOTInductor"
    for script, says in (("echo no such header >&2; exit 1", "no such header"), ("exit 0", "try")):
        path = tmp_path / "g++"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        found = compiler({"PATH": f"{tmp_path}:/bin:/usr/bin"} | {"CXX": str(path)})
        assert found.status == "broken"
        assert says in found.says


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler here")
def test_a_compiler_that_is_there_works() -> None:
    assert compiler(os.environ).status == "works"


def test_folders_are_tried_but_not_made(tmp_path: Path) -> None:
    wanted = tmp_path / "not" / "yet"
    (found,) = disks({"data sets": wanted}, free=lambda _: 3 << 30)
    assert (found.status, found.says) == ("works", f"{wanted}, 3.0 GiB free")
    assert not (tmp_path / "not").exists()
    (found,) = disks({"temporary files": tmp_path}, free=lambda _: 5 << 20)
    assert (found.status, found.says, found.fix) == ("poor", f"{tmp_path}, 5 MiB free", "Make room.")


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (found,) = disks({"data sets": tmp_path / "file" / "below"})
    assert (found.status, found.fix) == ("broken", "export STOKER_DATA=/a/folder/of/yours")
    assert "cannot be written to" in found.says


@pytest.mark.parametrize(
    ("environ", "torch", "status", "fix"),
    [
        ({}, 4, "works", ""),
        ({"OMP_NUM_THREADS": "1"}, 1, "poor", "unset OMP_NUM_THREADS"),
        ({"OMP_NUM_THREADS": "9"}, 9, "poor", "export OMP_NUM_THREADS=4"),
        ({}, 2, "works", ""),  # halves of cores
        ({"OMP_NUM_THREADS": "x"}, None, "works", ""),
    ],
)
def test_threads(environ: dict[str, str], torch: int | None, status: str, fix: str) -> None:
    found = threads(environ, 4, torch)
    assert (found.status, found.fix) == (status, fix)


def test_as_json() -> None:
    found = Checkup({}, {}, [Finding("a", "absent", "")])
    assert found.to_dict()["ok"] is True
    found.findings.append(Finding("b", "broken", "x", "y"))
    assert found.to_dict() == {
        "ok": False,
        "machine": {},
        "versions": {},
        "findings": [
            {"name": "a", "status": "absent", "says": "", "fix": ""},
            {"name": "b", "status": "broken", "says": "x", "fix": "y"},
        ],
        "rates": [],
    }
