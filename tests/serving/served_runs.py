"""Small runs to serve: of classes, of a number, of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import polars as pl
from PIL import Image

import stoker

STREETS = tuple(f"street {number}" for number in range(12))


def mixed(target: str, rows: int = 240, seed: int = 0) -> pl.DataFrame:
    """Numbers, gaps, a boolean, few and many categories, times, and a target: ``price`` or ``grade``."""
    rng = np.random.default_rng(seed)
    size = rng.uniform(20, 200, rows).round(2)
    rooms = rng.integers(1, 8, rows)
    lift = rng.choice([True, False], rows)
    kind = rng.choice(["flat", "house", "loft"], rows)
    price = 3000 * size + 9000 * rooms + 5000 * lift + 20_000 * (kind == "loft") + rng.normal(0, 1000, rows)
    grade = np.array(["low", "middle", "top"])[np.digitize(price, np.quantile(price, [0.4, 0.8]))]
    gaps = rng.random((rows, 3)) < 0.1
    hours = pl.Series(np.arange(rows) * 7 * 3_600_000_000).cast(pl.Duration("us"))
    start = pl.Series(["2024-01-01T08:00:00"]).str.to_datetime(time_unit="us")
    return pl.DataFrame(
        {
            "size": pl.Series(np.where(gaps[:, 0], np.nan, size), nan_to_null=True),
            "rooms": rooms,
            "lift": [None if gone else bool(value) for gone, value in zip(gaps[:, 1], lift, strict=True)],
            "kind": [None if gone else str(value) for gone, value in zip(gaps[:, 2], kind, strict=True)],
            "street": rng.choice(STREETS, rows),
            "seen": start.new_from_index(0, rows) + hours,
            target: price.round(2) if target == "price" else grade,
        }
    )


def write_animals(folder: Path, each: int = 20) -> Path:
    """Grey images of 8 × 8 pixels in a folder a class; each class has a brightness of its own."""
    rng = np.random.default_rng(0)
    for place, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for number in range(each):
            pixels = (rng.integers(0, 60, (8, 8)) + 90 * place).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:02}.png")
    return folder


def fit_small(home: Path, target: str, **others: Any) -> stoker.Run:
    """A run in ``home/<target>-run``, of ``home/<target>.csv`` or a folder of images; no pictures are drawn.

    Args:
        home: The folder.
        target: ``price``, ``grade`` or ``animals``.
        others: Other settings than those that are usual here.
    """
    settings: dict[str, Any] = {"epochs": 8, "lr": 0.02, "progress": "none", "out": home / f"{target}-run"}
    if target == "animals":
        source = write_animals(home / "animals")
        settings |= {"model": "cnn"}
    else:
        source = home / f"{target}.csv"
        settings |= {"target": target, "hidden": (16, 8)}
        mixed(target).write_csv(source)

    settings |= others

    def draw(*given: Any, **_: Any) -> None:
        next(path for path in given if isinstance(path, Path)).touch()

    with patch.multiple("stoker.jobs.writing", learning_curves=draw, predicted_vs_true=draw, confusion_matrix=draw):
        return stoker.fit(source, **settings)
