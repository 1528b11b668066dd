"""One measurement, in a process of its own: time to each epoch's end, peak memory, and what the network came to.

    python -m benchmarks.measure FOLDER '{"job": "california", "side": "loop", ...}'      # prints one line of JSON

The process imports the side, reads the data, and only then starts the clock. The peak of memory is Linux's ``VmHWM``
above what the process held after the imports; elsewhere it is left out. The loss is computed afterwards by the
benchmark itself, from the trained network's outputs on the first rows of the training data: so nobody skips work.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from benchmarks.jobs import JOBS, Array, Data, load, mean_loss
from benchmarks.machine import memory
from benchmarks.sides import SIDES, Trained

CLEAR = Path("/proc/self/clear_refs")
ROWS_OF_LOSS = 10_000
ROOT = Path(__file__).parent.parent

Measurement: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Spec:
    """What to measure.

    Attributes:
        job, side: By name.
        batch_size: Samples of a batch.
        threads: Of all that the side computes with.
        epochs: In one call.
        rows: The first of the data; ``None`` for all.
        round: Which turn of the side it is, from 0.
    """

    job: str
    side: str
    batch_size: int
    threads: int
    epochs: int
    rows: int | None = None
    round: int = 0


def environment(spec: Spec) -> dict[str, str]:
    """The variables of a measurement's process: so many threads, no GPU.

    XLA's CPU client takes the number of its threads from ``NPROC``; its own flags change nothing (measured with JAX
    0.10: 1.7 cores busy with them and 1.0 with ``NPROC=1``).
    """
    threads = str(spec.threads)
    return {
        **os.environ,
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC"), threads),
        "CUDA_VISIBLE_DEVICES": "",
        "JAX_PLATFORMS": "cpu",
        **SIDES[spec.side].environment,
    }


def measure(spec: Spec, folder: Path, timeout: float) -> Measurement:
    """Measure in a fresh process.

    Args:
        spec: What.
        folder: Where :mod:`benchmarks.jobs` wrote the data.
        timeout: Seconds after which the process is ended.

    Returns:
        The spec's fields, and: ``skipped`` or ``failed``, with a reason; or what :func:`measured` returns.
    """
    command = [sys.executable, "-m", "benchmarks.measure", str(folder), json.dumps(asdict(spec))]
    with tempfile.TemporaryDirectory(prefix="stoker-cache-") as cache:  # nobody finds what an earlier round compiled
        env = {**environment(spec), "STOKER_CACHE": cache}
        try:
            process = subprocess.run(
                command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            return {**asdict(spec), "failed": f"not done after {timeout:.0f} s"}
    lines = process.stdout.splitlines()
    if process.returncode or not lines:
        said = process.stderr.strip().splitlines() or [f"it ended with status {process.returncode}"]
        return {**asdict(spec), "failed": said[-1][:200]}
    result: Measurement = json.loads(lines[-1])
    return {**asdict(spec), **result}


def measured(spec: Spec, folder: Path) -> Measurement:
    """Measure in this process.

    Returns:
        ``skipped`` with a reason; or ``epochs_s``: seconds of each epoch, the first from the call; ``total_s``: of the
        whole call; ``memory_mb``: this process's peak above the imports, and ``process_mb``: with them, or ``None``;
        ``loss``; ``steps``: of an epoch; ``note``; ``imports_s``: of :class:`benchmarks.sides.Trained`.
    """
    job, side = JOBS[spec.job], SIDES[spec.side]
    try:
        train = side.trainer()
    except Exception as error:  # whatever a package raises that cannot be imported
        return {"skipped": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(spec.threads)
    gc.collect()
    baseline = memory("VmRSS")
    if CLEAR.exists():
        CLEAR.write_text("5")  # the peak begins anew: what the imports took for a moment does not count
    data = load(folder / spec.job, spec.rows)
    ends = [time.perf_counter()]
    result: Trained = train(
        job, data, spec.epochs, spec.batch_size, lambda: ends.append(time.perf_counter()), **side.settings
    )
    total = time.perf_counter() - ends[0]
    peak = memory("VmHWM")
    epochs = [after - before for before, after in pairwise(ends)]
    if len(epochs) != spec.epochs:
        raise RuntimeError(f"{spec.side} told of {len(epochs)} epochs, and was asked for {spec.epochs}")
    return {
        "epochs_s": epochs,
        "total_s": total,
        "memory_mb": None if peak is None or baseline is None else peak - baseline,
        "process_mb": peak,
        "loss": mean_loss(job, *_outputs(result, data)),
        "steps": -(-len(data) // spec.batch_size),
        "note": result.note,
        "imports_s": result.imports_s,
    }


def _outputs(result: Trained, data: Data) -> tuple[Array, Array]:
    inputs, targets = [array[:ROWS_OF_LOSS] for array in data.inputs], data.targets[:ROWS_OF_LOSS]
    starts = range(0, len(targets), 1_000)
    return np.concatenate([result.outputs(tuple(array[at : at + 1_000] for array in inputs)) for at in starts]), targets


def main() -> None:
    folder, spec = sys.argv[1:]
    print(json.dumps(measured(Spec(**json.loads(spec)), Path(folder))))


if __name__ == "__main__":
    main()
