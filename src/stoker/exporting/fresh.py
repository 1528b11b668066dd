"""An exported file, loaded and asked in a fresh process, as whoever gets it will."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from stoker.errors import ExportError
from stoker.exporting import loader
from stoker.exporting.runtime import silent

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Answers", "ask", "stored_tensors"]

Array: TypeAlias = "NDArray[Any]"
START_SECONDS = 600.0  # to load a file, however large
ROW_SECONDS = 5.0  # to answer a row at each batch size, on a slow machine


@dataclass(frozen=True)
class Answers:
    """What an exported file answered.

    Attributes:
        by_size: Batch size to outputs, each of all rows.
        load: Seconds that loading took.
        latency: Seconds of a call with one row; NaN if nothing was timed.
        throughput: Rows a second in batches of 256; likewise.
    """

    by_size: dict[int, tuple[Array, ...]]
    load: float
    latency: float
    throughput: float


def ask(
    kind: str,
    file: Path,
    rows: dict[str, Tensor],
    seconds: float = 0.0,
    where: str = "export",
    limit: float | None = None,
) -> Answers:
    """Load a file in a fresh process and have it answer all rows, at each of the batch sizes.

    Args:
        kind: How it is loaded; see :mod:`stoker.exporting.loader`.
        file: The file.
        rows: By input name, in order.
        seconds: How long to time calls for; 0 for not at all.
        where: What stands before an error.
        limit: Seconds after which the process is ended; by default ten minutes, and five seconds for each row.

    Raises:
        ExportError: It cannot be loaded, refuses the rows, or takes too long.
    """
    if limit is None:
        limit = START_SECONDS + 20 * seconds + ROW_SECONDS * len(next(iter(rows.values())))
    read = _run(kind, file, rows, seconds, where, limit)
    load, latency, throughput = read.pop("timings").tolist()
    by_size = {
        size: tuple(read[f"{size}.{place}"] for place in range(sum(name.startswith(f"{size}.") for name in read)))
        for size in loader.SIZES
    }
    return Answers(by_size, load, latency, throughput)


def stored_tensors(kind: str, file: Path, where: str = "export") -> dict[str, Array]:
    """Load a file of weights in a fresh process; each tensor as its bytes.

    Raises:
        ExportError: It cannot be loaded.
    """
    return _run(kind, file, {}, 0.0, where, START_SECONDS)


def _run(kind: str, file: Path, rows: dict[str, Tensor], seconds: float, where: str, limit: float) -> dict[str, Array]:
    given, answered = file.with_name("rows.npz"), file.with_name("answers.npz")
    loader.save(str(given), {name: values.numpy() for name, values in rows.items()})
    command = [sys.executable, "-P", loader.__file__, kind, *map(str, (file, given, answered, seconds))]
    threads = str(torch.get_num_threads())  # as the model has here
    environment = silent({**os.environ, "OMP_NUM_THREADS": threads, "PYTHONWARNINGS": "ignore"})
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, errors="replace", check=False, timeout=limit
        )
    except subprocess.TimeoutExpired:
        rule = f"the file must load and answer in a fresh process within {limit:,.0f} s"
        raise ExportError(where, rule, "no answer", "Nothing was exported.") from None
    if done.returncode != 0:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        got = said[-1][:300] if said else f"exit code {done.returncode}"
        rule = "the file must load and answer in a fresh process"
        error = ExportError(where, rule, got, "Nothing was exported.")
        error.log = done.stderr
        raise error
    try:
        with np.load(answered, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ExportError(where, "the fresh process must write its answers", error, "Nothing was exported.") from None
    finally:
        given.unlink(missing_ok=True)
        answered.unlink(missing_ok=True)
