from __future__ import annotations

import hashlib
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from stoker.data.sources import fingerprint
from stoker.data.sources.fingerprint import (
    digest_file,
    fingerprint_arrays,
    fingerprint_file,
    fingerprint_files,
    fingerprint_frame,
)

FRAME = pl.DataFrame(
    {
        "i": [1, None, 3],
        "u": pl.Series([1, 2, 3], dtype=pl.UInt8),
        "f": [1.5, None, -0.0],
        "b": [True, None, False],
        "s": ["x", None, "é"],
        "c": pl.Series(["x", None, "y"], dtype=pl.Categorical),
        "e": pl.Series(["x", None, "y"], dtype=pl.Enum(["y", "x"])),
        "t": [datetime(2020, 1, 31), None, datetime(1960, 1, 1)],
        "d": pl.Series([1, None, 3], dtype=pl.Duration("ms")),
        "l": [[1, 2], None, []],
    }
)


def test_files_are_hashed_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc" * 100_000)
    expected = hashlib.sha256(b"abc" * 100_000).hexdigest()
    assert fingerprint_file(path) == f"sha256:{expected}"
    assert digest_file(path, "md5") == hashlib.md5(b"abc" * 100_000, usedforsecurity=False).hexdigest()


def test_several_files_in_any_order() -> None:
    one, other = hashlib.sha256(b"1").hexdigest(), hashlib.sha256(b"2").hexdigest()
    whole = fingerprint_files({"a/1": one, "b/2": other})
    assert whole == fingerprint_files({"b/2": other, "a/1": one})
    assert whole.startswith("sha256:")
    assert len({whole, fingerprint_files({"a/1": other, "b/2": one}), fingerprint_files({"a": one, "b/2": other})}) == 3


def test_a_frame_has_one_fingerprint_that_never_changes() -> None:
    """It is written into runs: another polars, another platform or another day must give the same."""
    assert fingerprint_frame(FRAME) == "sha256:1879e903d2cdba0a23053239ee3b97a2530c84a664a57c25fef3a526a3c77008"


def test_layout_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fingerprint_frame(FRAME)
    assert fingerprint_frame(pl.concat([FRAME[:1], FRAME[1:]], rechunk=False)) == whole
    assert fingerprint_frame(pl.concat([FRAME, FRAME])[3:]) == whole
    categories = pl.Series("c", ["y", "x", None, "y"], dtype=pl.Categorical)  # other codes for the same values
    assert fingerprint_frame(categories[1:].to_frame()) == fingerprint_frame(FRAME.select("c"))
    monkeypatch.setattr(fingerprint, "_ROWS_AT_ONCE", 2)
    assert fingerprint_frame(pl.DataFrame({"a": ["x", "y", "z"]})) != whole


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": [1]}, {"b": [1]}),
        ({"a": [1]}, {"a": [2]}),
        ({"a": [1]}, {"a": [1.0]}),
        ({"a": [0, 1]}, {"a": [None, 1]}),
        ({"a": [0, None]}, {"a": [None, 0]}),
        ({"a": ["", "x"]}, {"a": [None, "x"]}),
        ({"a": ["ab", "c"]}, {"a": ["a", "bc"]}),
        ({"a": [1], "b": [2]}, {"b": [2], "a": [1]}),
        ({"a": [1], "b": [2]}, {"a": [2], "b": [1]}),
        ({"a": [True]}, {"a": [1]}),
        ({"a": [[1]]}, {"a": [[2]]}),
        ({"a": [datetime(2020, 1, 1)]}, {"a": [1577836800000000]}),
    ],
)
def test_every_difference_shows(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert fingerprint_frame(pl.DataFrame(one)) != fingerprint_frame(pl.DataFrame(other))


def test_time_units_and_zones_show() -> None:
    naive = pl.Series("t", [datetime(2020, 1, 1)])
    forms = [
        naive,
        naive.dt.cast_time_unit("ms"),
        naive.dt.replace_time_zone("UTC"),
        naive.dt.replace_time_zone("Asia/Tokyo"),
    ]
    assert len({fingerprint_frame(form.to_frame()) for form in forms}) == 4


def test_names_that_polars_takes_for_patterns() -> None:
    frame = pl.DataFrame({"^a.*$": ["x", None], "*": [1.5, None]})
    assert fingerprint_frame(frame) != fingerprint_frame(frame.rename({"*": "b"}))


def test_arrays() -> None:
    images = np.arange(24, dtype=np.int32).reshape(2, 3, 4)
    whole = fingerprint_arrays({"images": images, "labels": None})
    assert fingerprint_arrays({"images": np.asfortranarray(images), "labels": None}) == whole
    swapped: NDArray[Any] = images.astype(">i4")
    assert fingerprint_arrays({"images": swapped, "labels": None}) == whole
    others: list[NDArray[Any]] = [images.reshape(3, 2, 4), images.astype(np.int64), images + 1]
    assert whole not in {fingerprint_arrays({"images": other, "labels": None}) for other in others}
    assert fingerprint_arrays({"images": images, "labels": images[:, 0, 0]}) != whole
    assert fingerprint_arrays({"images": images[:0]}) != fingerprint_arrays({"images": images[:1]})
