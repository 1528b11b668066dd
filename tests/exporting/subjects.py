"""Small runs of every kind of model, trained for a moment, and rows to ask them about."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import networks
import numpy as np
import polars as pl
from PIL import Image

import stoker

TARGETS = ("price", "sold", "grade")
# name: target, settings
SUBJECTS: dict[str, tuple[str, dict[str, Any]]] = {
    "linear, three classes": ("grade", {"model": "linear"}),
    "mlp, a number": ("price", {"model": "mlp", "hidden": (8, 4), "norm": "batch", "dropout": 0.2}),
    "mlp, two classes": ("sold", {"model": "mlp", "hidden": (8,)}),
    "wide-deep, a number": ("price", {"model": "wide-deep", "hidden": (8,), "aux_weight": 0.2}),
    "preset, three classes": ("grade", {"preset": "best"}),
    "bins, a number": ("price", {"model": "mlp", "numeric_embedding": "piecewise-linear", "hidden": (8,)}),
    "waves, two classes": ("sold", {"model": "resnet", "numeric_embedding": "periodic"}),
    "cnn, images": ("images", {"model": "cnn", "channels": (4,), "hidden": (8,)}),
    "mlp, images": ("images", {"model": "mlp", "hidden": (8,)}),
    "own, a number": ("price", {"model": networks.Plain}),
    "own, flat": ("price", {"model": networks.Flat}),
    "own, by name": ("grade", {"model": networks.Named}),
    "own, careful": ("sold", {"model": networks.Careful}),
    "own, branching": ("price", {"model": networks.Branching}),
    "own, scaled": ("price", {"model": networks.Scaled}),
    "own, otherwise": ("price", {"model": networks.Otherwise}),
    "own, tied": ("grade", {"model": networks.Tied}),
    "own, numpy": ("price", {"model": networks.Numpy}),
    "own, half": ("grade", {"model": networks.Half}),
    "numbers alone": ("numbers", {"model": "mlp", "hidden": (5,)}),
    "categories alone": ("categories", {"model": "mlp", "hidden": (5,)}),
    "own, categories alone": ("categories", {"model": networks.Plain}),
}


def table(target: str, rows: int = 160, seed: int = 0) -> pl.DataFrame:
    """Numbers, gaps, dates, few and many categories; what is learnt follows from them."""
    rng = np.random.default_rng(seed)
    size, rooms = rng.uniform(20, 200, rows).round(2), rng.integers(1, 8, rows)
    kind = rng.choice(["flat", "house", "loft"], rows)
    price = 3000 * size + 9000 * rooms + 20_000 * (kind == "loft") + rng.normal(0, 1000, rows)
    columns = {
        "size": pl.Series(np.where(rng.random(rows) < 0.1, np.nan, size), nan_to_null=True),
        "rooms": rooms,
        "seen": [f"2024-0{month}-{day:02}" for month, day in rng.integers(1, 9, (rows, 2)).tolist()],
        "kind": [None if gone else str(value) for gone, value in zip(rng.random(rows) < 0.1, kind, strict=True)],
        "street": [f"street {number}" for number in rng.integers(0, 25, rows)],
    }
    if target == "numbers":
        columns = {name: columns[name] for name in ("size", "rooms")}
    if target == "categories":
        columns = {name: columns[name] for name in ("kind", "street")}
    learnt = {
        "sold": (price < np.median(price)).tolist(),
        "grade": np.array(["low", "middle", "top"])[np.digitize(price, np.quantile(price, [0.4, 0.8]))],
    }
    return pl.DataFrame({**columns, "y": learnt.get(target, price.round(2))})


def images(folder: Path, each: int = 20) -> Path:
    """Grey images of 8 × 8 pixels, brighter ones of dogs."""
    rng = np.random.default_rng(0)
    for place, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for number in range(each):
            pixels = rng.integers(0, 120, (8, 8)) + 90 * place
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number:02}.png")
    return folder


@functools.cache
def _place() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="stoker-exporting-")  # gone with the process


@functools.cache
def fitted(name: str) -> stoker.Run:
    """The run of that name; trained when it is first asked for."""
    target, settings = SUBJECTS[name]
    folder = Path(_place().name) / name.replace(", ", "-").replace(" ", "-")
    source = folder / "images" if target == "images" else folder / "table.csv"
    if target == "images":
        images(source)
    else:
        folder.mkdir(parents=True)
        table(target).write_csv(source)
        settings = {**settings, "target": "y"}
    return fit(source, folder / "run", **settings)


def fit(source: Any, out: Path, **settings: Any) -> stoker.Run:
    """Two epochs, without pictures."""

    def draw(*given: Any, **_: Any) -> None:
        next(path for path in given if isinstance(path, Path)).touch()

    settings = {"epochs": 2, "progress": "none", "engine": "eager", "device": "cpu", **settings}
    with patch.multiple("stoker.jobs.writing", learning_curves=draw, predicted_vs_true=draw, confusion_matrix=draw):
        return stoker.fit(source, out=out, **settings)
