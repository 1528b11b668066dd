"""Small data with a bit of everything in them, and a quick fit, for the tests of whole jobs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import polars as pl
from PIL import Image

import stoker

QUICK: dict[str, Any] = {"epochs": 2, "hidden": (8,), "progress": "none"}
RUN_FILES = {
    "README.md",
    "config.json",
    "figures/learning_curves.png",
    "history.csv",
    "metrics.json",
    "model.safetensors",
}


def mixed(rows: int = 150, seed: int = 0) -> pl.DataFrame:
    """Numbers, gaps, booleans, few and many categories, times; and a target for each task.

    ``price`` is a number in the thousands, ``sold`` true or false, ``grade`` one of three; all follow from the rest.
    """
    rng = np.random.default_rng(seed)
    size = rng.uniform(20, 200, rows).round(2)
    rooms = rng.integers(1, 8, rows)
    lift = rng.choice([True, False], rows)
    kind = rng.choice(["flat", "house", "loft"], rows)
    price = 3000 * size + 9000 * rooms + 5000 * lift + 20_000 * (kind == "loft") + rng.normal(0, 1000, rows)
    gaps = rng.random((rows, 3)) < 0.1
    return pl.DataFrame(
        {
            "size": pl.Series(np.where(gaps[:, 0], np.nan, size), nan_to_null=True),
            "rooms": rooms,
            "lift": [None if gone else bool(value) for gone, value in zip(gaps[:, 1], lift, strict=True)],
            "kind": [None if gone else str(value) for gone, value in zip(gaps[:, 2], kind, strict=True)],
            "street": [f"street {number}" for number in rng.integers(0, 25, rows)],
            "seen": [datetime(2024, 1, 1, 8) + timedelta(hours=7 * row) for row in range(rows)],
            "price": price.round(2),
            "sold": price < np.median(price),
            "grade": np.array(["low", "middle", "top"])[np.digitize(price, np.quantile(price, [0.4, 0.8]))],
        }
    )


def learning(target: str, rows: int = 150, seed: int = 0) -> pl.DataFrame:
    """:func:`mixed` with one of its targets."""
    return mixed(rows, seed).drop({"price", "sold", "grade"} - {target})


def quick_fit(source: Any, out: Path | None, *, pictures: bool = False, **settings: Any) -> stoker.Run:
    """Fit a small network for two epochs, in silence.

    Drawing takes most of a small fit's time, so that empty files stand for pictures where nobody looks at them.
    """

    def draw(*given: Any, **_: Any) -> None:
        next(path for path in given if isinstance(path, Path)).touch()

    settings = {**QUICK, **settings}
    if pictures:
        return stoker.fit(source, out=out, **settings)
    with patch.multiple("stoker.jobs.writing", learning_curves=draw, predicted_vs_true=draw, confusion_matrix=draw):
        return stoker.fit(source, out=out, **settings)


def write_table(frame: pl.DataFrame, path: Path) -> Path:
    """Write a table in the format of the path's suffix."""
    import gzip

    writers: dict[str, Callable[[], object]] = {
        ".csv": lambda: frame.write_csv(path),
        ".tsv": lambda: frame.write_csv(path, separator="\t"),
        ".gz": lambda: path.write_bytes(gzip.compress(frame.write_csv().encode())),
        ".parquet": lambda: frame.write_parquet(path),
        ".jsonl": lambda: frame.write_ndjson(path),
        ".arrow": lambda: frame.write_ipc(path),
    }
    writers[path.suffix]()
    return path


def write_images(folder: Path, classes: tuple[str, ...] = ("cat", "dog"), each: int = 15) -> Path:
    """Grey images of 8 × 8 pixels in a folder a class; each class has a brightness of its own."""
    rng = np.random.default_rng(0)
    for place, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(each):
            pixels = rng.integers(0, 60, (8, 8)) + 90 * place
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number:02}.png")
    return folder


def files_of(folder: Path) -> set[str]:
    """All files below a folder, relative to it."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
