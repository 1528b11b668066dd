"""The machine, as the system describes it: processor, memory, disks, caches, compiler."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from stoker.doctor.findings import Finding

__all__ = ["compiler", "describe", "disks", "memory", "threads", "usable_cpus"]

_LITTLE_DISK = 1 << 30
_PROGRAM = "#include <vector>\nint main() { return static_cast<int>(std::vector<int>(3).size()) - 3; }\n"
_LIMIT = 60.0  # seconds that a compiler may take


def usable_cpus(root: Path = Path("/")) -> int:
    """How many processors this process may use at once: those it is bound to, within what its container is given.

    Args:
        root: Where ``sys`` is; another one in tests.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = (root / "sys/fs/cgroup/cpu.max").read_text().split()[:2]
        count = min(count, max(1, int(int(quota) / int(period))))  # "max": no limit, and no number
    return count


def memory(root: Path = Path("/")) -> tuple[int, int] | None:
    """Bytes of memory, and how much of it is free; ``None`` where the system does not say.

    Args:
        root: Where ``proc`` and ``sys`` are; another one in tests.
    """
    try:
        fields = dict(line.split(":", 1) for line in (root / "proc/meminfo").read_text().splitlines() if ":" in line)
        total, free = (int(fields[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    except (OSError, ValueError, KeyError, IndexError):
        with suppress(AttributeError, ValueError, OSError):
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), 0
        return None
    with suppress(OSError, ValueError):  # of a container
        limit = int((root / "sys/fs/cgroup/memory.max").read_text())
        used = int((root / "sys/fs/cgroup/memory.current").read_text())
        total, free = min(total, limit), min(free, max(0, limit - used))
    return total, free


def describe(root: Path = Path("/")) -> dict[str, str]:
    """The system, the processor and the memory, each in a line; what cannot be found out is left out."""
    facts = {"system": f"{platform.system()} {platform.release()}, {platform.machine()}"}
    cpus, there = usable_cpus(root), os.cpu_count() or 1
    name = _processor(root)
    facts["processor"] = f"{name}, {cpus} CPU{'' if cpus == 1 else 's'}" + (f" of {there}" if there != cpus else "")
    if (found := memory(root)) is not None:
        total, free = found
        facts["memory"] = f"{total / 2**30:.1f} GiB" + (f", {free / 2**30:.1f} GiB free" if free else "")
    return facts


def _processor(root: Path) -> str:
    with suppress(OSError, UnicodeDecodeError):
        for line in (root / "proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    return platform.processor() or platform.machine() or "unknown processor"


def threads(environ: Mapping[str, str], cpus: int, torch_threads: int | None) -> Finding:
    """Whether as many threads are used as there are processors.

    Args:
        environ: The environment's variables.
        cpus: How many processors there are.
        torch_threads: How many threads torch uses; ``None`` if it could not be asked.
    """
    limits = {name: environ[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if environ.get(name)}
    said = ", ".join(f"{name}={value}" for name, value in limits.items())
    if torch_threads is None:
        return Finding("threads", "works", said or f"as many as CPUs, {cpus}")
    says = f"torch uses {torch_threads} of {cpus} CPU{'' if cpus == 1 else 's'}" + (f" ({said})" if said else "")
    if torch_threads < cpus and limits:
        return Finding("threads", "poor", says, f"unset {' '.join(limits)}")
    if torch_threads > cpus:
        return Finding("threads", "poor", f"{says}: they wait for each other", f"export OMP_NUM_THREADS={cpus}")
    return Finding("threads", "works", says)


def compiler(environ: Mapping[str, str]) -> Finding:
    """Whether a C++ compiler makes a program that runs. AOTInductor and ``torch.compile`` need one; nothing else does.

    Args:
        environ: The environment's variables, ``CXX`` and ``PATH`` among them.
    """
    name, fix = "C++ compiler", "apt install g++ (or xcode-select --install on macOS)"
    candidates = (environ.get("CXX"), "c++", "g++", "clang++")
    path = next((path for one in candidates if one and (path := shutil.which(one, path=environ.get("PATH")))), None)
    if path is None:
        return Finding(name, "absent", "none; needed by torch.compile, and for exports with AOTInductor", fix)
    try:
        with tempfile.TemporaryDirectory() as folder:
            source, program = Path(folder) / "try.cpp", Path(folder) / "try"
            source.write_text(_PROGRAM)
            made = _run([path, str(source), "-o", str(program)])
            if made.returncode != 0:
                first = next(iter(made.stderr.strip().splitlines()), "no message")
                return Finding(name, "broken", f"{path} does not compile: {first[:200]}", fix)
            if _run([str(program)]).returncode != 0:
                return Finding(name, "broken", f"what {path} makes does not run", fix)
    except (OSError, subprocess.SubprocessError) as error:
        return Finding(name, "broken", f"{path}: {error}", fix)
    return Finding(name, "works", path)


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_LIMIT, check=False)


def disks(folders: Mapping[str, Path], free: Callable[[Path], int] | None = None) -> Iterator[Finding]:
    """Whether folders can be written to, and how much room there is.

    Args:
        folders: By what they are for. Those that are not there yet are not made.
        free: How many bytes are free somewhere; another one in tests.
    """
    for name, folder in folders.items():
        nearest = next((above for above in (folder, *folder.parents) if os.path.lexists(above)), Path("/"))
        try:
            with tempfile.TemporaryFile(dir=nearest):
                pass
            room = (free or _free)(nearest)
        except OSError as error:
            variable = {"data sets": "STOKER_DATA", "compiled programs": "STOKER_CACHE"}.get(name)
            fix = f"export {variable}=/a/folder/of/yours" if variable else "Work in another directory."
            yield Finding(name, "broken", f"{folder} cannot be written to ({error.strerror or error})", fix)
            continue
        says = f"{folder}, {_size(room)} free"
        if room < _LITTLE_DISK:
            yield Finding(name, "poor", says, "Make room.")
        else:
            yield Finding(name, "works", says)


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _size(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 1 << 30 else f"{count / 2**20:,.0f} MiB"
