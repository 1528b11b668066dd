"""The peak memory of a training with engine="compiled", in multiples of engine="eager"'s.

    make bench-memory
    python -m benchmarks.memory [--jobs california,fashion,cnn] [--epochs 3]

Each is a fresh process that imports JAX only where its engine does, with nothing in the cache of programs. The peak is
of all resident memory from the training's start on (Linux's ``VmHWM``), the interpreter, PyTorch and the data included;
what reading the data took for a moment is not. Pages of files (libraries), which other processes share and the
system can drop, are counted, and told besides as they are at the end. The status is 1 where a ratio is above 1.2.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.jobs import JOBS, load
from benchmarks.machine import memory
from benchmarks.measure import CLEAR, ROOT, Spec, environment

WANTED = 1.2
ENGINES = ("eager", "compiled")


@dataclass(frozen=True)
class Peak:
    """What a training's process held.

    Attributes:
        peak: Resident memory at most, in MB.
        files: Pages of files among the resident memory at the end, in MB.
        note: The engine's own words on what carried out the steps.
    """

    peak: float
    files: float
    note: str


def trained(job: str, engine: str, epochs: int, folder: Path) -> Peak:
    """Train in this process.

    Args:
        job: By name.
        engine: Stoker's.
        epochs: How many.
        folder: Where :mod:`benchmarks.jobs` wrote the data.

    Raises:
        RuntimeError: This is not Linux, or the peak cannot be reset.
    """
    import torch

    from benchmarks.sides.stoker import train

    torch.set_num_threads(1)
    data = load(folder / job)
    if not CLEAR.exists():
        raise RuntimeError("peak memory: is told by Linux alone, got no /proc/self/clear_refs. Run it there.")
    CLEAR.write_text("5")
    note = train(JOBS[job], data, epochs, JOBS[job].batch_size, lambda: None, engine).note
    peak, files = memory("VmHWM"), memory("RssFile")
    assert peak is not None
    assert files is not None
    return Peak(peak, files, note)


def measured(job: str, engine: str, epochs: int, folder: Path) -> Peak:
    """The same in a fresh process.

    Raises:
        subprocess.CalledProcessError: It failed; what it wrote is on this process's standard error.
    """
    command = [sys.executable, "-m", "benchmarks.memory", "--one", engine, "--jobs", job, "--epochs", str(epochs)]
    with tempfile.TemporaryDirectory(prefix="stoker-cache-") as cache:  # one that is found takes less than one made
        env = {**environment(Spec(job, f"stoker-{engine}", 0, 1, epochs)), "STOKER_CACHE": cache}
        process = subprocess.run(
            [*command, "--folder", str(folder)], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, check=True
        )
    return Peak(**json.loads(process.stdout.splitlines()[-1]))


def over(peaks: Mapping[str, Peak]) -> bool:
    """Whether a job's compiled training takes more than it may, or was none: an eager one in its place is no answer."""
    return not peaks["compiled"].note.startswith("compiled") or ratio(peaks) > WANTED


def ratio(peaks: Mapping[str, Peak]) -> float:
    """The compiled engine's peak in multiples of the eager one's."""
    return peaks["compiled"].peak / peaks["eager"].peak


def line(job: str, peaks: Mapping[str, Peak]) -> str:
    """A job's row of the table."""
    eager, compiled = peaks["eager"], peaks["compiled"]
    told = f"{job:12}{eager.peak:>8.0f}{eager.files:>8.0f}{compiled.peak:>10.0f}{compiled.files:>8.0f}"
    if not compiled.note.startswith("compiled"):
        return f"{told}  {compiled.note}"
    return f"{told}{ratio(peaks):>8.2f} ×{f'  over {WANTED} ×' if over(peaks) else ''}"


HEAD = f"{'MB':12}{'eager':>8}{'files':>8}{'compiled':>10}{'files':>8}{'ratio':>8}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; the status is 1 where a ratio is above the wanted one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--jobs", default="california,fashion,cnn")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--one", choices=ENGINES, help="train the job in this process, with this engine")
    parser.add_argument("--folder", type=Path, help="where the data are, with --one")
    given = parser.parse_args(arguments)
    if given.one:
        print(json.dumps(vars(trained(given.jobs, given.one, given.epochs, given.folder))))
        return 0
    names = given.jobs.split(",")
    failed = False
    with tempfile.TemporaryDirectory(prefix="stoker-bench-") as kept:
        command = [sys.executable, "-m", "benchmarks.jobs", kept, *names]
        missing = json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout)
        print(HEAD, flush=True)
        for job in names:
            if job in missing:
                print(f"{job:12}not measured: {missing[job]}", flush=True)
                failed = True
                continue
            peaks = {engine: measured(job, engine, given.epochs, Path(kept)) for engine in ENGINES}
            print(line(job, peaks), flush=True)
            failed |= over(peaks)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
