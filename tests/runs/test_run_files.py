"""Files that are whole or not there, and directories that are new."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from stoker.errors import ConfigError, DiskFullError, RunError, RunExistsError
from stoker.runs.files import (
    naming_full_disk,
    new_directory,
    read_json,
    read_text,
    refuse_bad_path,
    require_room,
    write_atomic,
    write_json,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_a_file_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, "text é\n")
    assert path.read_bytes() == "text é\n".encode()
    write_atomic(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    write_atomic(path, lambda temporary: temporary.write_text("by a function"))  # type: ignore[arg-type]
    assert path.read_text() == "by a function"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken"), ValueError("a bug"), KeyboardInterrupt()])
def test_a_file_that_cannot_be_written_stays_as_it_was(error: BaseException, tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, "old")

    def write(temporary: Path) -> None:
        temporary.write_text("half of the n")
        raise error

    with pytest.raises(type(error)):
        write_atomic(path, write)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(os, "fsync", lambda _: seen.append(sorted(file.name for file in tmp_path.iterdir())))
    write_atomic(tmp_path / "file", "text")
    assert seen == [[f".tmp-{os.getpid()}-file"], ["file"]], "the file, then its name"


def test_a_private_directory_has_private_files(tmp_path: Path) -> None:
    for mode in (0o700, 0o755):
        tmp_path.chmod(mode)
        write_atomic(tmp_path / "file", "text")
        assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode & 0o666


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("I/O error: No space left on device (os error 28)"),  # as safetensors says it
    ],
)
def test_a_full_disk_has_one_name_whoever_notices_it(error: Exception, tmp_path: Path) -> None:
    with (
        pytest.raises(DiskFullError, match=r"^place: no room left on the disk, got .*\. Make room\."),
        naming_full_disk("place"),
    ):
        raise error

    def write(_: Path) -> None:
        raise error

    with pytest.raises(DiskFullError, match=r"file: no room left on the disk"):
        write_atomic(tmp_path / "file", write)
    assert list(tmp_path.iterdir()) == []


def test_other_errors_keep_theirs() -> None:
    with pytest.raises(OSError, match="broken") as caught, naming_full_disk("place"):
        raise OSError(errno.EIO, "broken")
    assert not isinstance(caught.value, DiskFullError)
    with pytest.raises(DiskFullError, match=r"^first"), naming_full_disk("second"), naming_full_disk("first"):
        raise OSError(errno.ENOSPC, "full")


def test_room_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9 - 5_000_000, 5_000_000))
    require_room(tmp_path, 5_000_000)
    match = r": the run needs about 5\.2 MB of disk, got 5\.0 MB free\. Make room, or choose another --out\."
    with pytest.raises(DiskFullError, match=match):
        require_room(tmp_path, 5_200_000)


def test_numbers_that_json_does_not_have(tmp_path: Path) -> None:
    data = {"a": [1.5, math.nan, {"b": -math.inf}], "c": (math.inf, "é"), "d": None, "e": 10**20, "f": True}
    write_json(tmp_path / "x.json", data)
    assert read_json(tmp_path / "x.json") == {
        "a": [1.5, None, {"b": None}],
        "c": [None, "é"],
        "d": None,
        "e": 10**20,
        "f": True,
    }
    assert "é" in (tmp_path / "x.json").read_text(encoding="utf-8"), "for people to read"


def test_floats_read_back_to_the_bit(tmp_path: Path) -> None:
    values = [0.1, 1 / 3, 1e-320, 1.7976931348623157e308, -0.0]
    write_json(tmp_path / "x.json", {"values": values})
    assert [value.hex() for value in read_json(tmp_path / "x.json")["values"]] == [value.hex() for value in values]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "must be JSON: Expecting value"),
        (b'{"a": 1', "must be JSON: Expecting ',' delimiter"),
        (b"[" * 100_000, "must be JSON: maximum recursion depth exceeded"),
        (b"\xff", "must be UTF-8 text: 'utf-8' codec can't decode"),
        (b'{"a": ' + b"9" * 5000 + b"}", "must be JSON: Exceeds the limit"),
        (b"[1]", "must be a JSON object, got list"),
        (b"\x80\x04}", "must be UTF-8 text"),
    ],
)
def test_json_that_is_damaged(content: bytes, match: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(RunError, match=rf"config\.json: {match}.*(copy it again|damaged)"):
        read_json(tmp_path / "config.json")


def test_files_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "history.csv"
    with pytest.raises(RunError, match=r"history\.csv: is missing from the run\. Copy the run again, whole\."):
        read_text(path)
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(RunError, match="is missing from the run"):
        read_text(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(RunError, match="must be a file, got something else"):
        read_text(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(RunError, match="must be a file, got something else"):
        read_text(path)
    path.rmdir()
    path.write_text("x" * 1000)
    monkeypatch.setattr("stoker.runs.files.TEXT_BYTES", 999)
    with pytest.raises(RunError, match=r"must not be larger than 0 MB, got 0 MB"):
        read_text(path)


def test_files_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.json"
    path.write_text("{}")

    def forbid(*_: object, **__: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "read_text", forbid)
    with pytest.raises(RunError, match=r"config\.json: must be readable, got Permission denied\."):
        read_json(path)


def test_an_unnamed_directory(tmp_path: Path) -> None:
    names = []
    for _ in range(3):
        with new_directory(None, "my-data", NOW, parent=tmp_path / "runs") as path:
            names.append(path.name)
    assert names == [f"my-data-20260102-030405{number}" for number in ("", "-2", "-3")]


@pytest.mark.parametrize("name", ["x" * 255, "é" * 200, "日" * 90])
def test_a_long_name_is_cut_between_characters(name: str, tmp_path: Path) -> None:
    with new_directory(None, name, NOW, parent=tmp_path) as path:
        kept = path.name.removesuffix("-20260102-030405")
        assert name.startswith(kept)
        assert 97 < len(kept.encode()) <= 100


def test_a_named_directory_is_new(tmp_path: Path) -> None:
    with new_directory(tmp_path / "a" / "run", "data", NOW) as path:
        assert path == tmp_path / "a" / "run"
        assert list(path.iterdir()) == []
    with pytest.raises(RunExistsError, match=r"^--out: must not exist yet, got "), new_directory(path, "data", NOW):
        raise AssertionError("not reached")
    assert path.is_dir(), "what was there stays there"


def test_what_was_made_is_removed_on_failure_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()

    def fail(out: Path, *more: str) -> None:
        with new_directory(out, "data", NOW) as path:
            (path / "figures").mkdir()
            (path / "figures" / "x.png").touch()
            for name in ("model.safetensors", ".tmp-1-config.json", *more):
                (path / name).touch()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail(tmp_path / "a" / "b" / "c" / "run")
    assert [path.name for path in tmp_path.rglob("*")] == ["a"]
    with pytest.raises(ZeroDivisionError):
        fail(tmp_path / "a" / "run", "notes.txt")
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "run", "notes.txt"]


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    rule = r"^--out: must be a directory that can be made \(Not a directory\), got '.*'\. Choose another --out\."
    for out in (tmp_path / "file" / "run", tmp_path / "file" / "a" / "b"):
        with pytest.raises(ConfigError, match=rule):
            refuse_bad_path(out)
        with (
            pytest.raises(ConfigError, match=r"^--out: must be a directory that can be made"),
            new_directory(out, "x", NOW),
        ):
            raise AssertionError("not reached")
    assert (tmp_path / "file").read_text() == "precious"


def test_paths_that_are_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for out in (None, "run", Path("a/b/run"), tmp_path / "run"):
        refuse_bad_path(out)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("out", [".", "..", "", "here"])
def test_paths_that_are_taken(out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    with pytest.raises(RunExistsError, match="must not exist yet"):
        refuse_bad_path(out)


def test_a_place_where_nothing_may_be_written_is_told_of_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ConfigError, match=r"^--out: must be a directory that can be made \(Permission denied\), got"):
        refuse_bad_path(tmp_path / "a" / "run")


def test_a_disk_without_room_for_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(DiskFullError, match="no room left on the disk"), new_directory(tmp_path / "run", "x", NOW):
        raise AssertionError("not reached")


def test_json_is_plain_text_with_a_last_line_end(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": 1})
    assert (tmp_path / "x.json").read_text() == json.dumps({"a": 1}, indent=2) + "\n"
