from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from stoker.data.dataset import ImageSet, Table
from stoker.data.sources import load
from stoker.data.sources.idx import IDX_FILES
from stoker.errors import (
    ConfigError,
    DataError,
    InputTypeError,
    SchemaError,
    SourceFormatError,
    SourceNotFoundError,
)


@pytest.fixture
def house(tmp_path: Path) -> Path:
    path = tmp_path / "house.csv"
    path.write_text("rooms,price\n3,1.5\n4,2.5\n")
    return path


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    for name in ("pets/cat/1.png", "pets/dog/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(tmp_path / name)
    return tmp_path / "pets"


def test_table_files(house: Path) -> None:
    for source in (house, str(house)):
        data = load(source, target="price")
        assert isinstance(data, Table)
        assert data.frame.rows() == [(3, 1.5), (4, 2.5)]
        assert data.provenance.name == "house"


def test_a_path_with_a_tilde(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(house.parent))
    assert len(load("~/house.csv")) == 2


def test_image_folders_and_files(pets: Path) -> None:
    data = load(pets, image_shape=(1, 3, 4))
    assert isinstance(data, ImageSet)
    assert data.images.shape == (2, 1, 3, 4)
    single = load(str(pets / "cat/1.png"))
    assert isinstance(single, ImageSet)
    assert single.images.shape == (1, 3, 6, 8)
    (pets / "cat/2.png").write_bytes(b"text")
    with pytest.raises(SourceFormatError, match=r"cat/2\.png: must be a readable image"):
        load(pets)
    skipping = load(pets, skip_bad=True)
    assert isinstance(skipping, ImageSet)
    assert [name for name, _ in skipping.skipped] == ["cat/2.png"]


def test_folders_of_idx_files(tmp_path: Path) -> None:
    for name, size in zip(IDX_FILES, ((2, 3, 4), (2,)) * 2, strict=True):
        header = struct.pack(f">BBBB{len(size)}I", 0, 0, 8, len(size), *size)
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(header + bytes(int(np.prod(size)))))
    data = load(tmp_path)
    assert isinstance(data, ImageSet)
    assert data.images.shape == (2, 1, 3, 4)
    assert data.test is not None


def test_named_sets_and_paths_of_the_same_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = load("iris")
    assert isinstance(data, Table)
    assert data.target == "species"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "iris").mkdir()
    Image.new("L", (2, 2)).save(tmp_path / "iris/1.png")
    assert isinstance(load("iris"), ImageSet)  # an existing path wins
    with pytest.raises(SourceNotFoundError, match=r"'wine': must be an existing file or directory"):
        load(Path("wine"))  # a Path is a path


def test_the_data_home_and_the_download_are_passed_on(tmp_path: Path) -> None:
    asked: list[str] = []

    def download(url: str, to: Path) -> None:
        asked.append(url)
        raise OSError("no network")

    with pytest.raises(SourceNotFoundError, match=rf"covertype: {tmp_path}/covertype/covtype\.data\.gz must be there"):
        load("covertype", data_home=tmp_path, download=download)
    assert asked[0] == "https://ndownloader.figshare.com/files/5976039"


@pytest.mark.parametrize("source", ["irsi", "no/such/file.csv", "x" * 5000, "a\0b", "a,b\n1,2\n"])
def test_what_is_neither_a_path_nor_a_name(source: str) -> None:
    text = (
        r": must be an existing file or directory, or a named data set, got no such file, and not a named data set\. "
    )
    with pytest.raises(SourceNotFoundError, match=text) as caught:
        load(source)
    assert "Named data sets: digits, diabetes, wine, breast-cancer, iris, california-housing" in str(caught.value)
    assert ("Did you mean 'iris'?" in str(caught.value)) == (source == "irsi")


def test_a_path_that_may_not_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_dir", refuse)
    with pytest.raises(SourceNotFoundError, match=r"secret/a\.csv: must be readable, got permission denied\. Ask its"):
        load("secret/a.csv")


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").write_bytes(b"x")
    with pytest.raises(SourceFormatError, match=r"a\.xlsx: a table file has a known suffix, got \.xlsx"):
        load(tmp_path / "a.xlsx")
    with pytest.raises(DataError, match=r"must hold images, in a sub-folder a class or directly inside, got none"):
        load(tmp_path)


def test_objects() -> None:
    frame = pl.DataFrame({"a": [1, 2], "b": [3, 4]})
    data = load(frame, target="b")
    assert isinstance(data, Table)
    assert data.frame.equals(frame)
    assert load(data) is data
    pair = load((np.zeros((2, 3)), [0, 1]), target="kind")
    assert isinstance(pair, Table)
    assert pair.target == "kind"
    labelled = load((np.zeros((2, 3, 4), np.uint8), [0, 1]), target="kind")
    assert isinstance(labelled, ImageSet)
    with pytest.raises(
        InputTypeError, match=r"source: an object must be of a kind that holds data, got int\. Taken are"
    ):
        load(3)


def test_an_unknown_target(house: Path) -> None:
    text = r"unknown target: must be a column, got 'prize'\. Did you mean 'price'\? Columns: rooms, price\."
    with pytest.raises(SchemaError, match=text):
        load(house, target="prize")
    with pytest.raises(SchemaError, match=r"unknown target: must be a column, got 'zzz'\. Columns: rooms, price\."):
        load(load(house), target="zzz")
    with pytest.raises(SchemaError, match=r"unknown target: .* got 'type'.* Columns: sepal length \(cm\)"):
        load("iris", target="type")


def test_images_have_no_target_column(pets: Path) -> None:
    for source in (pets, "digits", np.zeros((2, 3, 4), np.uint8)):
        with pytest.raises(
            SchemaError, match=r"target: images have their classes .*, got 'label'\. Leave the target out"
        ):
            load(source, target="label")


@pytest.mark.parametrize("source", ["digits", np.zeros((2, 8, 8), np.uint8)])
def test_images_of_another_shape(source: Any) -> None:
    assert len(load(source, image_shape=(1, 8, 8))) >= 2
    text = r"(digits|ndarray): must be images of the shape \(1, 28, 28\), got \(1, 8, 8\)\. Arrays, IDX files and named"
    with pytest.raises(DataError, match=text):
        load(source, image_shape=(1, 28, 28))


def test_tables_where_images_are_wanted(house: Path) -> None:
    with pytest.raises(
        DataError, match=r"house\.csv: must be images of the shape \(1, 8, 8\), got a table\. Give images"
    ):
        load(house, image_shape=(1, 8, 8))


def test_a_shape_that_is_none(pets: Path) -> None:
    with pytest.raises(ConfigError, match=r"image_shape: must be \(channels, height, width\)"):
        load(pets, image_shape=(2, 8, 8))
