"""Predictions as files: by suffix, never over another file, and whole or not at all."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from stoker.cli import output
from stoker.errors import ConfigError, DiskFullError, RunExistsError

FRAME = pl.DataFrame({"prediction": ["Grüße", 'a,"b"'], "proba_a": [0.25, 0.75]})


@pytest.mark.parametrize(
    ("name", "read"),
    [("p.csv", pl.read_csv), ("p.parquet", pl.read_parquet), ("p.jsonl", pl.read_ndjson), ("P.CSV", pl.read_csv)],
)
def test_the_suffix_says_the_format(tmp_path: Path, name: str, read: Any) -> None:
    output.check(tmp_path / name)
    output.write(FRAME, tmp_path / name)
    assert_frame_equal(read(tmp_path / name), FRAME)


@pytest.mark.parametrize("name", ["p.xlsx", "p", "p.csv.gz"])
def test_another_suffix_is_an_error_that_lists_the_known(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        ConfigError, match=r"--output: must have a known suffix, got .* Known: \.csv, \.parquet, \.jsonl"
    ):
        output.check(tmp_path / name)


def test_an_existing_file_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("precious")
    with pytest.raises(RunExistsError, match=r"--output: must not exist yet, got .*p\.csv\. Choose another name"):
        output.check(path)
    with pytest.raises(RunExistsError, match="--output: must not exist yet"):  # made since it was checked
        output.write(FRAME, path)
    assert path.read_text() == "precious"


def test_the_directory_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--output: must be in a directory that exists, got .* Make the directory"):
        output.check(tmp_path / "nowhere" / "p.csv")
    with pytest.raises(ConfigError, match=r"--output: must be a place to write to, got .*No such file or directory"):
        output.write(FRAME, tmp_path / "nowhere" / "p.csv")


def test_a_full_disk_leaves_no_half_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, _: Any) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def open_full(path: Path, mode: str) -> Full:
        assert mode == "xb"
        path.touch()
        return Full()

    monkeypatch.setattr(Path, "open", open_full)
    with pytest.raises(DiskFullError, match="no room left on the disk"):
        output.write(FRAME, tmp_path / "p.csv")
    assert list(tmp_path.iterdir()) == []
