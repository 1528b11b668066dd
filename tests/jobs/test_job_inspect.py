"""Looking at a source says what ``fit`` would do with it."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from small import learning, mixed, quick_fit, write_images, write_table

import stoker
from stoker.data.dataset import Table
from stoker.errors import ConfigError, SchemaError, SourceFormatError, SourceNotFoundError, UnknownNameError


def kinds(found: stoker.Inspection) -> dict[str, str]:
    assert found.schema is not None
    return {column.name: column.kind for column in found.schema.columns}


def test_what_is_inspected_is_what_is_fitted(tmp_path: Path) -> None:
    path = write_table(learning("grade"), tmp_path / "grades.csv")
    found = stoker.inspect(path, target="grade", categorical=["rooms"], ignore=["seen"])
    assert isinstance(found.dataset, Table)
    assert found.dataset.provenance.rows == 150
    assert kinds(found) == {
        "size": "numeric",
        "rooms": "categorical",
        "lift": "boolean",
        "kind": "categorical",
        "street": "categorical",
        "seen": "ignored",
    }
    run = quick_fit(path, tmp_path / "run", target="grade", categorical=("rooms",), ignore=("seen",))
    assert run.schema == found.schema


def test_without_a_target_the_columns_are_looked_at() -> None:
    found = stoker.inspect(mixed())
    assert list(kinds(found)) == mixed().columns
    assert found.schema is not None
    assert found.schema.target is None


def test_named_sets_know_their_target() -> None:
    found = stoker.inspect("iris")
    assert found.schema is not None
    assert found.schema.target is not None
    assert found.schema.target.task == "multiclass"
    other = stoker.inspect("diabetes", target="bmi")
    assert other.schema is not None
    assert other.schema.target is not None
    assert other.schema.target.name == "bmi"


def test_images(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "animals", each=3)
    found = stoker.inspect(folder)
    assert (len(found.dataset), found.schema, found.notices) == (6, None, [])
    (folder / "cat" / "01.png").write_bytes(b"no image")
    with pytest.raises(SourceFormatError, match=r"01\.png: must be a readable image"):
        stoker.inspect(folder)
    found = stoker.inspect(folder, skip_bad=True)
    assert len(found.notices) == 1
    assert found.notices[0].startswith("unreadable image cat/01.png is left out: not an image")
    with pytest.raises(ConfigError, match=r"^inspect: columns and targets are for tables, got images\."):
        stoker.inspect(folder, skip_bad=True, numeric=["x"])


def test_what_is_wrong_is_told_as_fit_tells_it(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match="must be an existing file or directory"):
        stoker.inspect(tmp_path / "none.csv")
    with pytest.raises(SchemaError, match=r"must be a column, got 'prise'\. Did you mean 'price'\?"):
        stoker.inspect(mixed(), target="prise")
    with pytest.raises(UnknownNameError, match=r"^numeric: must be one of the known names, got 'Size'\."):
        stoker.inspect(mixed(), numeric=["Size"])
    with pytest.raises(SchemaError, match=r"must have more than one value"):
        stoker.inspect(mixed().with_columns(price=pl.lit(1)), target="price")
