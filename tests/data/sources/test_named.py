from __future__ import annotations

import gzip
import io
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stoker.data.dataset import ImageSet, Table
from stoker.data.sources.download import default_data_home, obtain
from stoker.data.sources.idx import IDX_FILES
from stoker.data.sources.named import NAMED_SETS, load_named
from stoker.errors import SourceFormatError, SourceNotFoundError, UnknownNameError


def offline(url: str, to: Path) -> None:
    raise OSError("no network")


def serving(data: bytes) -> Callable[[str, Path], None]:
    def download(url: str, to: Path) -> None:
        to.write_bytes(data)

    return download


def packed_housing(text: bytes, member: str = "CaliforniaHousing/cal_housing.data") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        info = tarfile.TarInfo(member)
        info.size = len(text)
        archive.addfile(info, io.BytesIO(text))
    return out.getvalue()


def test_the_registry_is_whole() -> None:
    named = "digits diabetes wine breast-cancer iris california-housing covertype fashion-mnist mnist"
    assert list(NAMED_SETS) == named.split()
    for name, entry in NAMED_SETS.items():
        assert entry.name == name
        assert entry.description
        assert "\n" not in entry.description
        for file in entry.files.values():
            algorithm, _, digest = file.checksum.partition(":")
            assert len(digest) == {"sha256": 64, "md5": 32}[algorithm]
            assert file.urls
            assert not any(Path(place).is_absolute() for place in file.places)


def test_digits() -> None:
    from sklearn.datasets import load_digits

    data, bunch = load_named("digits", download=offline), load_digits()
    assert isinstance(data, ImageSet)
    assert data.images.shape == (1797, 1, 8, 8)
    assert data.images.dtype == torch.uint8
    assert int(data.images.max()) == 16
    np.testing.assert_array_equal(data.images[:, 0].numpy(), bunch.images)
    assert data.labels is not None
    np.testing.assert_array_equal(data.labels.numpy(), bunch.target)
    assert data.classes == tuple("0123456789")
    assert (data.provenance.name, data.provenance.origin, data.provenance.rows) == ("digits", "digits", 1797)
    fingerprint = "d0a54679f3b41bf3071c3fad50f8a26d896012b8b3c46dc0d24e75bbf8f45c7d"
    assert data.provenance.fingerprint == f"sha256:{fingerprint}"  # the same on every machine, for ever


@pytest.mark.parametrize(
    ("name", "function", "target", "task", "classes"),
    [
        ("diabetes", "load_diabetes", "progression", "regression", None),
        ("wine", "load_wine", "cultivar", "multiclass", ["class_0", "class_1", "class_2"]),
        ("breast-cancer", "load_breast_cancer", "diagnosis", "binary", ["malignant", "benign"]),
        ("iris", "load_iris", "species", "multiclass", ["setosa", "versicolor", "virginica"]),
    ],
)
def test_tables_inside_scikit_learn(
    name: str, function: str, target: str, task: str, classes: list[str] | None
) -> None:
    from sklearn import datasets

    data, bunch = load_named(name, download=offline), getattr(datasets, function)()
    assert isinstance(data, Table)
    assert (data.target, data.task) == (target, task)
    assert data.frame.columns == [*bunch.feature_names, target]
    np.testing.assert_array_equal(data.frame.drop(target).to_numpy(), bunch.data)
    expected = bunch.target.tolist() if classes is None else [classes[code] for code in bunch.target]
    assert data.frame[target].to_list() == expected
    assert (data.provenance.name, data.provenance.rows) == (name, len(bunch.target))


def test_an_unknown_name() -> None:
    with pytest.raises(
        UnknownNameError, match=r"named data set: .*, got 'iriss'\. Did you mean 'iris'\? Known: digits, "
    ):
        load_named("iriss")


HOUSES = b"-122.23,37.88,41,880,129,322,126,8.3252,452600\n-122.22,37.86,21,7099,1106,2401,1138,8.3014,358500\n"


@pytest.fixture
def housing_home(tmp_path: Path) -> Path:
    (tmp_path / "california_housing").mkdir()
    (tmp_path / "california_housing/cal_housing.data").write_bytes(HOUSES)
    return tmp_path


def test_california_from_a_file_in_the_data_home(housing_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = load_named("california-housing", data_home=housing_home, download=offline)
    assert isinstance(data, Table)
    assert (data.target, data.task) == ("MedHouseVal", "regression")
    first = [8.3252, 41.0, 880 / 126, 129 / 126, 322.0, 322 / 126, 37.88, -122.23, 4.526]
    assert data.frame.row(0) == tuple(first)
    assert data.provenance.rows == 2
    monkeypatch.setenv("STOKER_DATA", str(housing_home))
    again = load_named("california-housing", download=offline)
    assert isinstance(again, Table)
    assert again.frame.equals(data.frame)


def test_california_from_the_archive(tmp_path: Path) -> None:
    (tmp_path / "california_housing").mkdir()
    path = tmp_path / "california_housing/cal_housing.tgz"
    path.write_bytes(packed_housing(HOUSES))
    data = load_named("california-housing", data_home=tmp_path, download=offline)
    assert isinstance(data, Table)
    assert data.frame.height == 2
    assert set(tmp_path.rglob("*")) == {path, path.parent}  # nothing is unpacked onto the disk
    rule = (
        r"cal_housing\.tgz: must be a tar archive with CaliforniaHousing/cal_housing\.data, got .*Delete it, and it is"
    )
    for bad in (packed_housing(HOUSES, member="../evil"), packed_housing(HOUSES * 99)[:-60], b"text"):
        path.write_bytes(bad)
        with pytest.raises(SourceFormatError, match=rule):
            load_named("california-housing", data_home=tmp_path, download=offline)


@pytest.mark.parametrize("text", [b"", HOUSES[:-30], b"a,b\n1,2\n", HOUSES + b"1,2\n", HOUSES.replace(b"880", b"?")])
def test_california_that_is_damaged(housing_home: Path, text: bytes) -> None:
    (housing_home / "california_housing/cal_housing.data").write_bytes(text)
    with pytest.raises(
        SourceFormatError, match=r"cal_housing\.data: must hold 9 numbers a line, got .*Delete it, and it"
    ):
        load_named("california-housing", data_home=housing_home, download=offline)


def test_california_is_that_of_scikit_learn(california: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row for row and bit for bit what ``fetch_california_housing`` makes of the same file."""
    from sklearn.datasets import _california_housing, fetch_california_housing

    files = NAMED_SETS["california-housing"].files
    path = obtain("california-housing", files, default_data_home(), offline)["data"]
    packed = path.read_bytes() if path.suffix == ".tgz" else packed_housing(path.read_bytes())
    (tmp_path / "cal_housing.tgz").write_bytes(packed)
    monkeypatch.setattr(_california_housing, "_fetch_remote", lambda *_, **__: str(tmp_path / "cal_housing.tgz"))
    bunch: Any = fetch_california_housing(data_home=tmp_path)
    assert california.frame.columns == [*bunch.feature_names, *bunch.target_names]
    np.testing.assert_array_equal(california.frame.drop("MedHouseVal").to_numpy(), bunch.data)
    np.testing.assert_array_equal(california.frame["MedHouseVal"].to_numpy(), bunch.target)
    assert california.frame.shape == (20_640, 9)


def test_covertype(tmp_path: Path) -> None:
    from sklearn.datasets import _covtype

    generator = np.random.default_rng(0)
    rows = generator.integers(-100, 7000, (5, 10)), generator.integers(0, 2, (5, 44)), generator.integers(1, 8, (5, 1))
    values = np.hstack(rows)
    text = "".join(",".join(map(str, row)) + "\n" for row in values).encode()
    (tmp_path / "covertype").mkdir()
    path = tmp_path / "covertype/covtype.data.gz"
    path.write_bytes(gzip.compress(text))
    data = load_named("covertype", data_home=tmp_path, download=offline)
    assert isinstance(data, Table)
    assert data.frame.columns == _covtype.FEATURE_NAMES + _covtype.TARGET_NAMES
    np.testing.assert_array_equal(data.frame.to_numpy(), values)
    assert (data.target, data.task) == ("Cover_Type", "multiclass")
    assert data.frame.estimated_size() == 5 * (10 * 2 + 45)
    path.write_bytes(gzip.compress(text)[:-20])
    with pytest.raises(SourceFormatError, match=r"covtype\.data\.gz: must be whole, got a truncated gzip file"):
        load_named("covertype", data_home=tmp_path, download=offline)
    path.write_bytes(gzip.compress(text + b"1,2,3\n"))
    with pytest.raises(SourceFormatError, match=r"covtype\.data\.gz: must hold 55 numbers a line"):
        load_named("covertype", data_home=tmp_path, download=offline)


def idx(array: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
@pytest.mark.parametrize("layout", ["own", "torchvision"])
def test_idx_sets_in_either_layout(name: str, layout: str, tmp_path: Path) -> None:
    torchvision = {"mnist": "MNIST/raw", "fashion-mnist": "FashionMNIST/raw"}[name]
    folder = tmp_path / (name.replace("-", "_") if layout == "own" else torchvision)
    folder.mkdir(parents=True)
    images = np.arange(4 * 28 * 28).astype(np.uint8).reshape(4, 28, 28)
    for file, array in zip(IDX_FILES, (images, np.arange(4, dtype=np.uint8)) * 2, strict=True):
        (folder / file).write_bytes(idx(array))
    data = load_named(name, data_home=tmp_path, download=offline)
    assert isinstance(data, ImageSet)
    assert data.images.shape == (4, 1, 28, 28)
    assert data.test is not None
    assert data.provenance.name == data.provenance.origin == name
    assert data.classes[0] == {"mnist": "0", "fashion-mnist": "T-shirt/top"}[name]
    assert len(data.classes) == 10


def test_fashion_mnist(fashion: ImageSet) -> None:
    assert fashion.images.shape == (60_000, 1, 28, 28)
    assert fashion.test is not None
    assert fashion.test.images.shape == (10_000, 1, 28, 28)
    for part, each in ((fashion, 6000), (fashion.test, 1000)):
        assert part.labels is not None
        assert torch.bincount(part.labels).tolist() == [each] * 10
        assert part.classes[9] == "Ankle boot"
    assert fashion.labels is not None
    assert fashion.labels[:5].tolist() == [9, 0, 0, 3, 0]  # the first five of the published set
    counts = torch.bincount(fashion.images.flatten(), minlength=256).double()
    values = torch.arange(256).double() / 255
    mean = (counts * values).sum() / counts.sum()
    std = ((counts * (values - mean) ** 2).sum() / counts.sum()).sqrt()
    assert (round(mean.item(), 4), round(std.item(), 4)) == (0.2860, 0.3530)  # the figures that are commonly published


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("california-housing", ["california_housing/cal_housing.tgz"]),
        ("covertype", ["covertype/covtype.data.gz"]),
        ("mnist", [f"mnist/{name}.gz" for name in IDX_FILES]),
    ],
)
def test_without_network_the_error_says_where_to_put_what(name: str, files: list[str], tmp_path: Path) -> None:
    with pytest.raises(
        SourceNotFoundError, match=rf"{name}: .* must be there or be downloaded, got .*no network"
    ) as caught:
        load_named(name, data_home=tmp_path, download=offline)
    for file, source in zip(files, NAMED_SETS[name].files.values(), strict=True):
        assert f"{source.urls[0]} to {tmp_path / file}" in str(caught.value)


def test_another_file_than_the_published_one_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(
        SourceFormatError, match=r"california-housing: cal_housing\.tgz must have the checksum sha256:aaa5c"
    ):
        load_named("california-housing", data_home=tmp_path, download=serving(packed_housing(HOUSES)))
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_what_was_downloaded_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib
    from dataclasses import replace

    packed = packed_housing(HOUSES)
    entry = NAMED_SETS["california-housing"]
    file = replace(entry.files["data"], checksum=f"sha256:{hashlib.sha256(packed).hexdigest()}")
    monkeypatch.setattr("stoker.data.sources.named.NAMED_SETS", {entry.name: replace(entry, files={"data": file})})
    data = load_named("california-housing", data_home=tmp_path, download=serving(packed))
    assert isinstance(data, Table)
    assert data.frame["MedHouseVal"].to_list() == [4.526, 3.585]
    again = load_named("california-housing", data_home=tmp_path, download=offline)
    assert again.provenance == data.provenance
