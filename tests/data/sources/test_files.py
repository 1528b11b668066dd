from __future__ import annotations

import gzip
import hashlib
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from stoker.data.sources.files import gunzip, read_table, short_name, table_suffix
from stoker.errors import SchemaError, SourceFormatError, SourceNotFoundError

TEXT = "a,b\n1,x\n2,\n"
FRAME = pl.DataFrame({"a": [1, 2], "b": ["x", None]})


def zipped(**members: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name.replace("__dot__", "."), text)
    return out.getvalue()


def written(path: Path, frame: pl.DataFrame = FRAME) -> Path:
    name = path.name.lower()
    if name.endswith((".csv", ".csv.gz")):
        data = frame.write_csv().encode()
    elif name.endswith((".tsv", ".tsv.gz")):
        data = frame.write_csv(separator="\t").encode()
    elif name.endswith(".zip"):
        data = zipped(**{"inner/t__dot__csv": frame.write_csv(), "__MACOSX/inner/t__dot__csv": "\0"})
    elif name.endswith((".jsonl", ".ndjson", ".jsonl.gz")):
        data = frame.write_ndjson().encode()
    else:
        out = io.BytesIO()
        if name.endswith(".parquet"):
            frame.write_parquet(out)
        elif name.startswith("stream"):
            frame.write_ipc_stream(out)
        else:
            frame.write_ipc(out)
        data = out.getvalue()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


@pytest.mark.parametrize(
    "name",
    [
        "t.csv",
        "t.CSV",
        "t.csv.gz",
        "t.csv.zip",
        "t.zip",
        "t.tsv",
        "t.tsv.gz",
        "t.jsonl",
        "t.ndjson",
        "t.jsonl.gz",
        "t.parquet",
        "t.arrow",
        "t.feather",
        "t.ipc",
        "stream.arrow",
        "with [glob] * and year=2020.parquet",
        "with [glob] * and year=2020.csv",
    ],
)
def test_every_format_gives_the_same_table(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name)
    table = read_table(path)
    assert table.frame.equals(FRAME)
    assert (table.target, table.task, table.test) == (None, None, None)
    provenance = table.provenance
    assert provenance.origin == str(path)
    assert provenance.rows == 2
    assert provenance.fingerprint == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def test_nan_in_binary_formats_is_missing(tmp_path: Path) -> None:
    frame = pl.DataFrame({"a": [1.0, float("nan"), None]})
    for name in ("t.parquet", "t.arrow"):
        assert read_table(written(tmp_path / name, frame)).frame["a"].to_list() == [1.0, None, None]


@pytest.mark.parametrize(
    ("name", "suffix", "short"),
    [
        ("flights.csv.zip", ".csv.zip", "flights"),
        ("flights.zip", ".zip", "flights"),
        ("my data (1).tsv.gz", ".tsv.gz", "my-data-1"),
        ("v1.2.parquet", ".parquet", "v1.2"),
        (".csv", None, "csv"),
        ("t.txt", None, "t.txt"),
        ("t.gz", None, "t.gz"),
        ("t.parquet.gz", None, "t.parquet.gz"),
        ("?.csv", ".csv", "data"),
    ],
)
def test_suffixes_and_names(name: str, suffix: str | None, short: str) -> None:
    assert table_suffix(name) == suffix
    assert short_name(Path("some") / name, suffix or "") == short


def test_a_directory_is_named_by_its_real_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pets").mkdir()
    monkeypatch.chdir(tmp_path / "pets")
    assert short_name(Path(), "") == "pets"


def test_missing_files_directories_and_permissions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceNotFoundError, match=r"no\.csv: must be a file, got no such file\. Check the spelling"):
        read_table(tmp_path / "no.csv")
    with pytest.raises(SourceNotFoundError, match=r"no\.txt: must be a file, got no such file"):
        read_table(tmp_path / "no.txt")
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(SourceNotFoundError, match=r"d\.csv: must be a file, got a directory\. Name a file in it"):
        read_table(tmp_path / "d.csv")
    path = written(tmp_path / "secret.csv")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)  # root may read every file, and tests may run as root
    with pytest.raises(
        SourceNotFoundError, match=r"secret\.csv: must be readable, got permission denied\. Run: chmod u\+r"
    ):
        read_table(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = written(tmp_path / "secret.csv")
    path.chmod(0)
    with pytest.raises(SourceNotFoundError, match=r"secret\.csv: must be readable, got permission denied"):
        read_table(path)


@pytest.mark.parametrize(("name", "got"), [("t.xlsx", r"\.xlsx"), ("t", "none"), ("t.parquet.gz", r"\.gz")])
def test_unknown_suffixes(tmp_path: Path, name: str, got: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    text = rf"a table file has a known suffix, got {got}\. Rename it\. Known: \.csv, \.tsv, .*\.ipc, and the first four"
    with pytest.raises(SourceFormatError, match=text):
        read_table(tmp_path / name)


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t.csv.gz", "t.zip", "t.jsonl", "t.arrow"])
def test_empty_files(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(
        SourceFormatError, match=r"must not be empty, got a file of 0 bytes\. Check that it was written"
    ):
        read_table(tmp_path / name)


def test_tables_without_rows(tmp_path: Path) -> None:
    for name in ("t.parquet", "t.arrow"):
        with pytest.raises(SourceFormatError, match=r"must have rows and columns, got a table of shape \(0, 2\)"):
            read_table(written(tmp_path / name, FRAME.clear()))
    with pytest.raises(SourceFormatError, match=r"t\.csv: must have rows under its header"):
        read_table(written(tmp_path / "t.csv", FRAME.clear()))


def test_truncated_files(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    frame = pl.DataFrame({"a": generator.normal(size=2000)})
    for name, text in [
        (
            "t.parquet",
            r"must be a readable Parquet file, got .*Check that it was written to the end, and that it is Parq",
        ),
        ("t.arrow", r"must be a readable Arrow file, got .*Check that it was written to the end, and that it is Arrow"),
        ("t.csv.gz", r"t\.csv\.gz: must be whole, got a truncated gzip file\. Copy or download it again"),
        ("t.zip", r"t\.zip: must be a zip archive, as its name says, got .*Copy or download it again"),
    ]:
        path = written(tmp_path / name, frame)
        data = path.read_bytes()
        for size in (len(data) // 2, len(data) - 10):
            path.write_bytes(data[:size])
            with pytest.raises(SourceFormatError, match=text):
                read_table(path)


def test_damaged_archives(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(b"a,b\n" + bytes(np.random.default_rng(0).integers(48, 57, 5000, np.uint8))))
    data[2000] ^= 255
    with pytest.raises(SourceFormatError, match=r"t\.gz: must be gzip, as its name says, got "):
        gunzip(bytes(data), "t.gz")
    with pytest.raises(SourceFormatError, match=r"must be gzip, as its name says, got Not a gzipped file"):
        gunzip(b"a,b\n1,2\n", "t.gz")
    path = tmp_path / "t.zip"
    packed = bytearray(zipped(t__dot__csv=TEXT * 100))
    packed[45] ^= 255
    path.write_bytes(packed)
    with pytest.raises(SourceFormatError, match=r"t\.zip: must be a zip archive, as its name says"):
        read_table(path)


def test_zip_archives_of_none_or_several(tmp_path: Path) -> None:
    path = tmp_path / "t.zip"
    rule = r"t\.zip: a zip archive must hold exactly one file of \.csv, \.tsv, \.jsonl, \.ndjson"
    for members, got in [
        ({"a__dot__csv": TEXT, "b__dot__tsv": TEXT}, r"a\.csv, b\.tsv"),
        ({"a__dot__txt": TEXT}, r"a\.txt"),
        ({}, "an empty archive"),
    ]:
        path.write_bytes(zipped(**members))
        with pytest.raises(SourceFormatError, match=rf"{rule}, got {got}\. Unpack it and name the file"):
            read_table(path)
    path.write_bytes(zipped(a__dot__csv=TEXT, readme__dot__txt="read me"))
    assert read_table(path).frame.equals(FRAME)


def test_errors_within_archives_name_the_member(tmp_path: Path) -> None:
    path = tmp_path / "t.zip"
    path.write_bytes(zipped(a__dot__csv="a,b\n1\n"))
    with pytest.raises(
        SourceFormatError, match=r"t\.zip, a\.csv, line 2: must have 2 fields, as the header has, got 1"
    ):
        read_table(path)


def test_encrypted_archives(tmp_path: Path) -> None:
    packed = bytearray(zipped(a__dot__csv=TEXT))
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        packed[packed.index(header) + flags] |= 1  # the flag that says: encrypted
    path = tmp_path / "t.zip"
    path.write_bytes(packed)
    with pytest.raises(SourceFormatError, match=r"t\.zip: a zip archive must be readable, got .*encrypted.*Unpack it"):
        read_table(path)


def test_other_formats_under_known_names(tmp_path: Path) -> None:
    for name, text in [
        ("t.parquet", "must be a readable Parquet file"),
        ("t.arrow", "must be a readable Arrow file"),
        ("t.csv.gz", "must be gzip, as its name says"),
        ("t.zip", "must be a zip archive, as its name says"),
    ]:
        (tmp_path / name).write_bytes(TEXT.encode() * 20)
        with pytest.raises(SourceFormatError, match=text):
            read_table(tmp_path / name)
    (tmp_path / "t.feather").write_bytes(b"FEA1" + b"x" * 100)
    with pytest.raises(
        SourceFormatError, match=r"must be an Arrow file, got Feather version 1\. Write it again as version 2"
    ):
        read_table(tmp_path / "t.feather")


@pytest.mark.skipif(int(pl.__version__.partition(".")[0]) < 2, reason="polars 1 keeps one of the duplicates, silently")
def test_duplicate_names_in_parquet(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.table([[1], [2]], names=["a", "a"]), tmp_path / "t.parquet")
    with pytest.raises(SchemaError, match=r"t\.parquet: column names must be unique, got .*'?a'?.*Rename or drop"):
        read_table(tmp_path / "t.parquet")


MEASURE = """
import resource, sys, time
from pathlib import Path
import polars as pl
from stoker.data.sources.files import read_table
pl.DataFrame({"a": [1]}).select(pl.col("a").sum())  # starts polars' threads
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
frame = read_table(Path(sys.argv[1])).frame
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(frame.height, (after - before) * 1024 / frame.estimated_size())
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss has other units elsewhere")
def test_memory_peaks_at_a_small_multiple_of_the_table(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    rows = 200_000
    columns = {f"i{i}": generator.integers(0, 3000, rows) for i in range(14)}
    texts = {f"s{i}": generator.choice(["UA", "N14228", "IAH", ""], rows) for i in range(5)}
    pl.DataFrame(columns | texts).write_csv(tmp_path / "t.csv")
    result = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "t.csv")], capture_output=True, text=True, check=True
    )
    height, ratio = result.stdout.split()
    assert int(height) == rows
    assert float(ratio) < 4  # 2.8 where it was measured; allocators differ
