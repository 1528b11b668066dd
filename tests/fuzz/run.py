"""Fuzz every target for so many seconds each, one after the other.

    python tests/fuzz/run.py [SECONDS] [TARGET ...]

Inputs that reached something new are kept in ``.fuzz/TARGET/corpus``, those that are findings in
``.fuzz/TARGET/findings``. The exit status is 1 where there is one.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
SCRIPT = HERE / "one.py"
sys.path[:0] = [str(HERE), str(HERE.parent / "hostile")]
KEPT = Path(".fuzz")
MEMORY_MB = 4096  # resident, torch and all: far above what reading takes
STUCK = 20  # seconds for one input


def fuzzed(name: str, good: Path, seconds: int, kept: Path) -> tuple[bool, str]:
    """Fuzz a target.

    Returns:
        Whether nothing was found, and what was said.
    """
    from targets import TARGETS

    corpus, findings, seeds = kept / name / "corpus", kept / name / "findings", good / "seeds" / name
    for folder in (corpus, findings, seeds):
        folder.mkdir(parents=True, exist_ok=True)
    for place, seed in enumerate(TARGETS[name].seeds(good)):
        (seeds / str(place)).write_bytes(seed)
    options = {
        "max_total_time": seconds, "rss_limit_mb": MEMORY_MB, "malloc_limit_mb": MEMORY_MB, "timeout": STUCK, "seed": 1,
        "max_len": 1 << 15, "artifact_prefix": f"{findings}/", "print_final_stats": 1, "verbosity": 1,
    }  # fmt: skip
    command = [sys.executable, str(SCRIPT), name, str(good)]
    command += [f"-{option}={value}" for option, value in options.items()] + [str(corpus), str(seeds)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    limit = seconds + 120  # to begin, and to end
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", env=environment, check=False, timeout=limit
        )
    except subprocess.TimeoutExpired:
        return False, f"it did not end within {limit} s"
    return done.returncode == 0, done.stderr + done.stdout


def main(seconds: int, names: list[str]) -> int:
    """Fuzz, and say what was found."""
    try:
        import atheris  # type: ignore[import-untyped, import-not-found, unused-ignore]  # noqa: F401
    except ImportError:
        print('fuzzing needs the package atheris: pip install "stoker[fuzz]"', file=sys.stderr)
        return 2
    from targets import TARGETS, good_files

    good = good_files()
    found = 0
    try:
        for name in names or TARGETS:
            began = time.monotonic()
            sound, said = fuzzed(name, good, seconds, KEPT)
            runs = re.search(r"stat::number_of_executed_units:\s*(\d+)", said)
            inputs, reached = int(runs[1]) if runs else 0, re.findall(r"cov: (\d+)", said)
            took, outcome = time.monotonic() - began, "nothing found" if sound else "FOUND"
            counts = f"{inputs:,} inputs, {reached[-1] if reached else 0} places of the code reached, {took:.0f} s"
            print(f"{name:<16} {counts}: {outcome}", flush=True)
            if not sound:
                found += 1
                print(said[-6000:])
                for file in sorted((KEPT / name / "findings").iterdir()):
                    print(f"{file}: {file.read_bytes()[:400]!r}")
    finally:
        shutil.rmtree(good, ignore_errors=True)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 60, sys.argv[2:]))
