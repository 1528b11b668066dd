"""What the figures were measured on, and with which versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

PACKAGES = ("stoker", "torch", "torchvision", "jax", "jaxlib", "lightning", "skorch", "keras", "scikit-learn", "numpy")


STATUS = Path("/proc/self/status")


def memory(name: str) -> float | None:
    """A line of Linux's ``/proc/self/status`` (``VmRSS`` now, ``VmHWM`` at most), in MB; ``None`` elsewhere."""
    lines = STATUS.read_text().splitlines() if STATUS.exists() else []
    return next((int(line.split()[1]) / 1e3 for line in lines if line.startswith(f"{name}:")), None)


def described(now: datetime) -> dict[str, Any]:
    """Date, processor, cores, system, and the version of each library that is installed."""
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "date": now.isoformat(timespec="minutes"),
        "cpu": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "versions": versions,
    }


def committed(folder: Path) -> str:
    """The commit that a working tree is at, and whether it has changes beside; empty where there is no git."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short", "HEAD") + (" with changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _processor() -> str:
    """As Linux calls it, with the model number, since virtual machines hide the name."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    told = dict(line.split(":", 1) for line in lines if ":" in line)
    fields = {name.strip(): value.strip() for name, value in told.items()}
    name = fields.get("model name") or platform.processor() or platform.machine()
    model = f" (family {fields['cpu family']}, model {fields['model']})" if "cpu family" in fields else ""
    wide = next((word for word in ("avx512f", "avx2") if word in fields.get("flags", "").split()), "")
    return f"{name}{model}{f', {wide}' if wide else ''}"
