"""The named data sets: a registry, of which each entry says all there is to know about one.

URLs and checksums are those that scikit-learn 1.9 (``sklearn/datasets/_california_housing.py``, ``_covtype.py``) and
torchvision (``torchvision/datasets/mnist.py``) state.
"""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl

from stoker.data.dataset import DataSet, ImageSet, Provenance, Table, Task
from stoker.data.sources.download import Download, RemoteFile, default_data_home, http_download, obtain
from stoker.data.sources.files import gunzip, open_checked
from stoker.data.sources.fingerprint import fingerprint_arrays, fingerprint_file, fingerprint_frame
from stoker.data.sources.idx import IDX_FILES, load_idx_files
from stoker.data.sources.limits import read_whole, unpacked
from stoker.errors import SourceFormatError, UnknownNameError

__all__ = ["NAMED_SETS", "NamedSet", "load_named"]


@dataclass(frozen=True)
class NamedSet:
    """A data set that is known by name.

    Attributes:
        name: The name.
        description: What it is, in a line.
        load: Makes the data from the name and the places of its files.
        files: What it is made of, by names that ``load`` knows; empty if scikit-learn brings it.
    """

    name: str
    description: str
    load: Callable[[str, Mapping[str, Path]], DataSet]
    files: Mapping[str, RemoteFile] = field(default_factory=dict)


def load_named(name: str, *, data_home: Path | None = None, download: Download | None = None) -> DataSet:
    """Load a named data set.

    Args:
        name: A key of :data:`NAMED_SETS`.
        data_home: Where its files are kept; by default ``$STOKER_DATA``, or ``stoker`` in the user's cache directory.
        download: What downloads those that are neither there nor where packages of the system put them.

    Returns:
        The data, with target and task, and with ``test`` where the set is published with a test set.

    Raises:
        UnknownNameError: There is no such data set.
        SourceNotFoundError: Its files are not there and cannot be downloaded; the text says where to put which.
        SourceFormatError: A file is damaged.
        DiskFullError: There is no room for a download.
    """
    if name not in NAMED_SETS:
        raise UnknownNameError("named data set", name, NAMED_SETS)
    entry = NAMED_SETS[name]
    home = default_data_home() if data_home is None else data_home
    return entry.load(name, obtain(name, entry.files, home, http_download if download is None else download))


def _sklearn() -> ModuleType:
    from sklearn import datasets

    return datasets  # type: ignore[no-any-return]


def _digits(name: str, _: Mapping[str, Path]) -> ImageSet:
    import torch

    bunch: Any = _sklearn().load_digits()
    images = bunch.images.astype(np.uint8)[:, None]  # whole numbers from 0 to 16
    labels = bunch.target.astype(np.int64)
    fingerprint = fingerprint_arrays({"images": images, "labels": labels})
    classes = tuple(str(digit) for digit in bunch.target_names)
    provenance = Provenance(name, name, fingerprint, len(images))
    return ImageSet(torch.from_numpy(images), torch.from_numpy(labels), classes, provenance)


def _from_sklearn(function: str, target: str, task: Task) -> Callable[[str, Mapping[str, Path]], Table]:
    """A loader of one of the tables inside scikit-learn; classes get their names."""

    def load(name: str, _: Mapping[str, Path]) -> Table:
        bunch: Any = getattr(_sklearn(), function)()
        columns = [pl.Series(str(n), bunch.data[:, place]) for place, n in enumerate(bunch.feature_names)]
        values = bunch.target if task == "regression" else [str(bunch.target_names[code]) for code in bunch.target]
        frame = pl.DataFrame([*columns, pl.Series(target, values)])
        return Table(frame, Provenance(name, name, fingerprint_frame(frame), frame.height), target=target, task=task)

    return load


def _california(name: str, files: Mapping[str, Path]) -> Table:
    path = files["data"]
    raw = _whole(path) if path.suffix == ".data" else _member(path, "CaliforniaHousing/cal_housing.data")
    columns_read = _numbers(raw, path, [pl.Float64] * 9)
    # in NumPy, for bit for bit what scikit-learn computes: polars divides by a number by multiplying with its inverse
    longitude, latitude, age, rooms, bedrooms, population, households, income, value = map(
        pl.Series.to_numpy, columns_read
    )
    columns = {
        "MedInc": income,
        "HouseAge": age,
        "AveRooms": rooms / households,
        "AveBedrms": bedrooms / households,
        "Population": population,
        "AveOccup": population / households,
        "Latitude": latitude,
        "Longitude": longitude,
        "MedHouseVal": value / 100_000.0,
    }
    provenance = Provenance(name, name, fingerprint_file(path), len(value))
    return Table(pl.DataFrame(columns), provenance, target="MedHouseVal", task="regression")


_COVERTYPE_MEASURES = (
    "Elevation",
    "Aspect",
    "Slope",
    "Horizontal_Distance_To_Hydrology",
    "Vertical_Distance_To_Hydrology",
    "Horizontal_Distance_To_Roadways",
    "Hillshade_9am",
    "Hillshade_Noon",
    "Hillshade_3pm",
    "Horizontal_Distance_To_Fire_Points",
)
_COVERTYPE_FLAGS = (*(f"Wilderness_Area_{i}" for i in range(4)), *(f"Soil_Type_{i}" for i in range(40)))


def _covertype(name: str, files: Mapping[str, Path]) -> Table:
    path = files["data"]
    dtypes = (*[pl.Int16] * len(_COVERTYPE_MEASURES), *[pl.UInt8] * len(_COVERTYPE_FLAGS), pl.UInt8)
    columns = _numbers(gunzip(_whole(path), str(path)), path, dtypes)
    names = (*_COVERTYPE_MEASURES, *_COVERTYPE_FLAGS, "Cover_Type")
    provenance = Provenance(name, name, fingerprint_file(path), len(columns[0]))
    frame = pl.DataFrame(dict(zip(names, columns, strict=True)))
    return Table(frame, provenance, target="Cover_Type", task="multiclass")


def _whole(path: Path) -> bytes:
    with open_checked(path) as file:
        return read_whole(file, str(path))


def _numbers(raw: bytes, path: Path, dtypes: Sequence[type[pl.DataType]]) -> list[pl.Series]:
    """The columns of a file of numbers, separated by commas, without a header."""
    schema = {f"column_{place}": dtype for place, dtype in enumerate(dtypes, start=1)}
    try:
        if not re.match(rb"[-+.\d]", raw):  # polars would unpack what begins like zlib or gzip, at any size
            raise ValueError("no number at its beginning")
        frame = pl.read_csv(raw, has_header=False, schema=schema)
        if frame.is_empty() or sum(frame.null_count().row(0)):
            raise ValueError("missing values")
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, ValueError) as error:
        rule, reason = f"must hold {len(dtypes)} numbers a line", str(error).splitlines()[0]
        raise SourceFormatError(str(path), rule, reason, "Delete it, and it is downloaded again.") from None
    return frame.get_columns()


def _member(path: Path, member: str) -> bytes:
    """The bytes of a file in a tar archive; nothing is unpacked onto the disk."""
    data = _whole(path)
    size = len(data)
    try:
        if data[:2] == b"\x1f\x8b":  # unpacked to its end, where the checksum is, which tarfile does not read
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as whole:
                data = unpacked(whole, size, str(path))
        with (
            tarfile.open(fileobj=io.BytesIO(data)) as archive,
            archive.extractfile(member) or io.BytesIO() as file,
        ):
            return unpacked(file, size, str(path))
    except (tarfile.TarError, KeyError, EOFError, OSError, zlib.error) as error:
        reason = str(error).strip("\"'").partition("\n")[0] or type(error).__name__
        fix = "Delete it, and it is downloaded again."
        raise SourceFormatError(str(path), f"must be a tar archive with {member}", reason, fix) from None


def _idx_files(
    folder: str, torchvision: str, urls: tuple[str, ...], md5: tuple[str, str, str, str], system: str = ""
) -> dict[str, RemoteFile]:
    """The four IDX files of a data set, in the layout of this project's data home or in that of torchvision."""
    return {
        name: RemoteFile(
            places=tuple(f"{place}/{name}{gz}" for place in (folder, f"{torchvision}/raw") for gz in (".gz", "")),
            urls=tuple(f"{url}{name}.gz" for url in urls),
            checksum=f"md5:{digest}",
            system=(f"{system}/{name}.gz", f"{system}/{name}") if system else (),
        )
        for name, digest in zip(IDX_FILES, md5, strict=True)
    }


def _load_idx(*classes: str) -> Callable[[str, Mapping[str, Path]], ImageSet]:
    def load(name: str, files: Mapping[str, Path]) -> ImageSet:
        return load_idx_files(dict(files), name=name, origin=name, classes=classes)

    return load


_ENTRIES = (
    NamedSet("digits", "1,797 handwritten digits, 8 × 8 pixels with values from 0 to 16; 10 classes", _digits),
    NamedSet(
        "diabetes",
        "442 patients, 10 standardised measurements; how far the disease had progressed a year later",
        _from_sklearn("load_diabetes", "progression", "regression"),
    ),
    NamedSet(
        "wine",
        "178 wines, 13 chemical measurements; which of 3 cultivars",
        _from_sklearn("load_wine", "cultivar", "multiclass"),
    ),
    NamedSet(
        "breast-cancer",
        "569 tumours, 30 measurements of their cells (Wisconsin); malignant or benign",
        _from_sklearn("load_breast_cancer", "diagnosis", "binary"),
    ),
    NamedSet(
        "iris",
        "150 irises, 4 lengths and widths; which of 3 species",
        _from_sklearn("load_iris", "species", "multiclass"),
    ),
    NamedSet(
        "california-housing",
        "20,640 districts in California (census of 1990), 8 numbers; median house value in 100,000 dollars",
        _california,
        {
            "data": RemoteFile(
                places=("california_housing/cal_housing.tgz", "california_housing/cal_housing.data"),
                urls=("https://ndownloader.figshare.com/files/5976036",),
                checksum="sha256:aaa5c9a6afe2225cc2aed2723682ae403280c4a3695a2ddda4ffb5d8215ea681",
            )
        },
    ),
    NamedSet(
        "covertype",
        "581,012 patches of forest in Colorado, 54 numbers; which of 7 kinds of trees",
        _covertype,
        {
            "data": RemoteFile(
                places=("covertype/covtype.data.gz",),
                urls=(
                    "https://ndownloader.figshare.com/files/5976039",
                    "https://archive.ics.uci.edu/ml/machine-learning-databases/covtype/covtype.data.gz",
                ),
                checksum="sha256:614360d0257557dd1792834a85a1cdebfadc3c4f30b011d56afee7ffb5b15771",
            )
        },
    ),
    NamedSet(
        "fashion-mnist",
        "70,000 pictures of clothing, 28 × 28 grey pixels, 10,000 of them to test on; 10 classes",
        _load_idx(
            "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"
        ),
        _idx_files(
            "fashion_mnist",
            "FashionMNIST",
            (
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
                "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
            ),
            (
                "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                "25c81989df183df01b3e8a0aad5dffbe",
                "bef4ecab320f06d8554ea6380940ec79",
                "bb300cfdad3c16e7a12a480ee83cd310",
            ),
            system="/usr/share/datasets/fashion-mnist",  # Debian's package dataset-fashion-mnist
        ),
    ),
    NamedSet(
        "mnist",
        "70,000 handwritten digits, 28 × 28 grey pixels, 10,000 of them to test on; 10 classes",
        _load_idx(*"0123456789"),
        _idx_files(
            "mnist",
            "MNIST",
            ("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"),
            (
                "f68b3c2dcbeaaa9fbdd348bbdeb94873",
                "d53e105ee54ea40749a09fcbcd1e9432",
                "9fb629c4189551a2d022fa330f9573f3",
                "ec29112dd5afa0611ce80d1b7f02629c",
            ),
        ),
    ),
)

NAMED_SETS: Mapping[str, NamedSet] = {entry.name: entry for entry in _ENTRIES}
"""Every named data set, by its name."""
