"""``stoker serve`` by torch and by ONNX beside a plain FastAPI handler of the same model: requests a second, and waits.

    make bench-serving          # or: python -m benchmarks.serving [--hidden 50,40] [--seconds 3] [--rounds 2]

First the backends alone, called as the server calls them, without HTTP. Then the servers, processes of their own on the
loopback, one thread each; the client is this process. Each request is one row of California housing (synthetic rows of
that shape, where it is not at hand) and is checked against the answer that this very row must have. Servers take turns,
so that whatever else the machine does meets all of them; the last column is what a request took of the processors.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

import stoker
from benchmarks.load import Outcome, send_all
from stoker.errors import SourceNotFoundError
from stoker.exporting.loader import timed
from stoker.serving.backends import open_backend

CONNECTIONS = (1, 8, 64)
SIDES = ("stoker serve, torch", "stoker serve, onnx", "FastAPI, def", "FastAPI, async def")
BACKENDS = ("torch", "onnx")
SIZES = (1, 64)  # rows that a backend is given at once


@contextmanager
def served(side: str, run: Path) -> Iterator[tuple[int, int]]:
    """The port of a server in a process of its own, and that process."""
    kind, what = side.split(", ")
    ours = ["stoker", "serve", str(run), "--port", "0", "--backend", what]
    arguments = ours if kind == "stoker serve" else ["benchmarks.plain_server", str(run), what.split()[0]]
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments], env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if found := re.search(r"is served at http://127\.0\.0\.1:(\d+)", line):
                yield int(found[1]), process.pid
                return
        raise SystemExit(f"{side} did not start")
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def data(rows: int) -> pl.DataFrame:
    """California housing, or numbers of its shape."""
    try:
        table = stoker.load_data("california-housing", download=_offline)
        assert isinstance(table, stoker.Table)
        assert table.target is not None
        return table.frame.head(rows).rename({table.target: "target"})
    except SourceNotFoundError:
        rng = np.random.default_rng(0)
        numbers = {f"x{place}": rng.normal(100, 30, rows).round(3) for place in range(8)}
        return pl.DataFrame(numbers | {"target": sum(numbers.values()) + rng.normal(0, 5, rows)})


def _offline(url: str, path: Path) -> None:
    raise OSError(f"no download of {url} to {path}")


def cpu_seconds(process: int) -> float:
    """What a process has had of the processors so far, which a busy machine does not change much."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(port: int, rows: list[dict[str, Any]], wanted: list[float], connections: int, seconds: float) -> Outcome:
    """Send for so many seconds."""
    exact = Outcome()
    count = 40 * connections
    while sum(exact.seconds) / connections < seconds:  # each connection is busy all the time
        chosen = list(itertools.islice(itertools.cycle(range(len(rows))), count))
        found = asyncio.run(
            send_all(
                "127.0.0.1",
                port,
                [rows[place] for place in chosen],
                [wanted[place] for place in chosen],
                connections,
                patience=20,
                same=lambda got, right: math.isclose(got, right, rel_tol=1e-4, abs_tol=1e-4),
            )
        )
        if found.wrong or found.lost or found.statuses:
            raise SystemExit(f"{len(found.wrong)} mixed up, {len(found.lost)} lost, {dict(found.statuses)}")
        exact.seconds += found.seconds
    return exact


def calls(run: stoker.Run, inputs: pl.DataFrame) -> None:
    """Print how long a call of each backend takes, in this process and one thread."""
    columns = run.artifact.columns
    assert columns is not None
    rows = columns.read(inputs)
    torch.set_num_threads(1)
    backends = {name: open_backend(name, run) for name in BACKENDS}
    print(f"| one call, µs | {' | '.join(f'{size} rows' if size > 1 else 'a row' for size in SIZES)} |")
    print(f"| --- | {' | '.join('---:' for _ in SIZES)} |")
    for name, backend in backends.items():
        taken = [
            1e6 * timed(backend.predict, {part: values[:size] for part, values in rows.items()}, 1.0) for size in SIZES
        ]
        print(f"| {name} | {' | '.join(f'{one:,.0f}' for one in taken)} |")
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--hidden", default="50,40", help="widths of the network's layers")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=2, help="of all of them")
    arguments = parser.parse_args()
    hidden = tuple(int(width) for width in arguments.hidden.split(","))
    frame = data(2000)
    with tempfile.TemporaryDirectory() as folder:
        run = stoker.fit(frame, out=Path(folder) / "run", target="target", hidden=hidden, epochs=1, progress="none")
        run = stoker.load(run.path, device="cpu")
        stoker.export(run, "onnx", bench=False)  # which the server takes, instead of making one at each start
        inputs = frame.drop("target").head(500)
        rows = json.loads(json.dumps(inputs.to_dicts()))
        wanted = [float(value) for value in run.predict(inputs).values]
        print(f"{len(os.sched_getaffinity(0))} cores, network {'-'.join(map(str, hidden))}, each answer checked\n")
        calls(run, inputs)
        times: dict[tuple[str, int], list[float]] = {}
        rates: dict[tuple[str, int], list[float]] = {}
        works: dict[tuple[str, int], list[float]] = {}
        for _ in range(arguments.rounds):
            for side in SIDES:
                with served(side, run.path) as (port, process):
                    measure(port, rows, wanted, 8, 0.3)  # what is made at first use
                    for connections in CONNECTIONS:
                        before = cpu_seconds(process)
                        found = measure(port, rows, wanted, connections, arguments.seconds)
                        key = (side, connections)
                        times.setdefault(key, []).extend(found.seconds)
                        rates.setdefault(key, []).append(len(found.seconds) / (sum(found.seconds) / connections))
                        spent = (cpu_seconds(process) - before) / len(found.seconds)
                        works.setdefault(key, []).append(spent)
    print("| server | connections | requests a second | p50, ms | p99, ms | processor, ms |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for side in SIDES:
        for connections in CONNECTIONS:
            waits = sorted(times[side, connections])
            p50, p99 = statistics.median(waits), waits[int(0.99 * (len(waits) - 1))]
            work = statistics.mean(works[side, connections])
            rate = statistics.mean(rates[side, connections])
            print(f"| {side} | {connections} | {rate:,.0f} | {1e3 * p50:.2f} | {1e3 * p99:.2f} | {1e3 * work:.2f} |")


if __name__ == "__main__":
    main()
