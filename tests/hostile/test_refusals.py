# ruff: noqa: E501  # texts of errors, whole
"""What the corpus and the fuzzing found, each once more by itself, with the text of its error."""

from __future__ import annotations

import gzip
import io
import json
import os
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from stoker.atomic import leads_out, write_atomic
from stoker.data.sources import load
from stoker.data.sources.delimited import parse_delimited
from stoker.data.sources.jsonlines import parse_json_lines
from stoker.errors import ConfigError, DataError, RunError, SourceFormatError, SourceNotFoundError  # fmt: skip
from stoker.runs.files import new_directory, read_json, read_text, refuse_links_out
from stoker.serving.problems import Problem
from stoker.serving.rows import parse_json
from stoker.settings import parse_assignment, read_toml
from stoker.tensors import BadTensorsError, read_tensors
from stoker.tuning.refit import _refuse_others
from stoker.tuning.tune import _refuse_another_study


@pytest.mark.parametrize("name", ["x^2", "x\x01", "x", "xڀ"])
def test_a_table_that_begins_like_zlib_is_a_table(name: str) -> None:
    """polars would unpack it."""
    frame = parse_delimited(f"{name},y\n01,2\n03,4\n".encode(), "table")
    assert frame.columns == [name, "y"]
    assert frame["y"].to_list() == [2, 4]


@pytest.mark.parametrize("text", [b"\xef\xbb\xbf", b"\xef\xbb\xbf\n\r\n"])
def test_a_table_of_nothing_but_a_byte_order_mark(text: bytes) -> None:
    with pytest.raises(SourceFormatError, match="table: must not be empty, got a file without text"):
        parse_delimited(text, "table")


def test_packed_tables_do_not_become_huge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stoker.data.sources.limits.LEAST_BYTES", 1 << 20)
    text = b"a,b\n" + b"0,0\n" * 1_000_000
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(text))
    with zipfile.ZipFile(tmp_path / "t.csv.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("t.csv", text)
    for name in ("t.csv.gz", "t.csv.zip"):
        rule = r"must not become more than 1 MB when it is unpacked, 100 times its size, got more\. Unpack it yourself"
        with pytest.raises(SourceFormatError, match=rf"{name}: {rule}"):
            load(tmp_path / name)


def test_parquet_of_one_value_over_and_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stoker.data.sources.files.LEAST_BYTES", 1 << 20)
    frame = pl.select(pl.repeat(0, 10_000_000, dtype=pl.Int8).alias("a"))
    frame.write_parquet(tmp_path / "t.parquet")
    frame.write_ipc(tmp_path / "t.arrow", compression="zstd")
    for name in ("t.parquet", "t.arrow"):
        with pytest.raises(
            SourceFormatError, match=rf"{name}: must not have more than .* cells, 125 for each byte, got 10"
        ):
            load(tmp_path / name)


def test_a_pipe_and_a_device_are_no_tables(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "t.csv")
    with pytest.raises(SourceNotFoundError, match=r"t\.csv: must be a file, got a pipe\. Write its contents to a file"):
        load(tmp_path / "t.csv")
    with pytest.raises(SourceNotFoundError, match="/dev/zero: must be a file, got a device or the like"):
        load("/dev/zero")


def test_a_file_of_holes_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "t.csv").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(
        DataError, match=r"t\.csv: must fit into memory \(.* GiB\), got 1,024\.0 GiB\. Take a part of it"
    ):
        load(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (b'{"a":' + b"[" * 100_000, "line 1: must be a JSON object, got one nested too deeply"),
        (b'{"a":"\\ud800"}\n{"a":NaN}\n', r"must be text in UTF-8, got half of a surrogate pair, such as \\ud800"),
        (
            b"".join(b'{"k%d":1}\n' % i for i in range(30_000)),
            "must not have more than 33,554,432 cells: lines times names",
        ),
    ],
)
def test_json_lines(text: bytes, match: str) -> None:
    with pytest.raises(SourceFormatError, match=match):
        parse_json_lines(text, "table")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("a = " + "[" * 100_000, "must be TOML that is not nested so deeply"),
        ("a" + ".a" * 500 + " = 1", "must be TOML that is not nested so deeply"),
        ("a = " + "9" * 5000, "must be TOML: Exceeds the limit"),
        ("#" * (17 << 20), "must be TOML of at most 16 MB, got more"),
    ],
)
def test_toml(text: str, match: str, tmp_path: Path) -> None:
    (tmp_path / "fit.toml").write_text(text)
    with pytest.raises(SourceFormatError, match=match):
        read_toml(tmp_path / "fit.toml")


def test_assignments_are_not_nested_deeply() -> None:
    with pytest.raises(ConfigError, match=r"--set: must be name=value, got 'a\.a\.a"):
        parse_assignment("a" + ".a" * 5000 + "=1")
    assert parse_assignment("a=" + "[" * 100_000) == {"a": "[" * 100_000}


def test_a_config_that_is_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fit.toml")
    with pytest.raises(SourceNotFoundError, match=r"--config: must be a file to read: it is none, got .*fit\.toml"):
        read_toml(tmp_path / "fit.toml")


@pytest.mark.parametrize("text", ["{" + '"a":[' + "[]," * 4_000_000 + "[]]}", "epoch\n" + "1\n" * 4_000_001])
def test_files_of_runs_have_no_millions_of_values(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(RunError, match=r"config\.json: must not have more than 4,000,000 values, got more"):
        read_text(tmp_path / "config.json")


@pytest.mark.parametrize("content", ["[1]", "nonsense", '{"best": 3}', '{"study": "s", "about": {}, "best": []}'])
def test_a_study_json_that_is_none(content: str, tmp_path: Path) -> None:
    from stoker.errors import StokerError

    (tmp_path / "study.json").write_text(content)
    with pytest.raises(StokerError, match="must be"):
        _refuse_others(tmp_path, {"study": "s", "about": {}, "best": {"params": {}}})
    with pytest.raises(StokerError, match="must be"):
        _refuse_another_study(tmp_path, {"study": "t", "about": {}})


@pytest.mark.parametrize("name", ["../../out", "/tmp/out", "..", "a/b", "a\\b", "a\0b", "\n", ""])
def test_the_name_of_a_run_leads_nowhere_else(name: str, tmp_path: Path) -> None:
    """A run that is imported into is named in its own config.json."""
    with new_directory(None, name, datetime(2026, 1, 2, tzinfo=UTC), parent=tmp_path / "runs") as made:
        assert made.parent == tmp_path / "runs"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]


def test_links_out_of_a_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (tmp_path / "secret.json").write_text("{}")
    (run / "config.json").symlink_to(tmp_path / "secret.json")
    text = r"config\.json: must be in the run, got a link out of it\. Put a copy in its place, if you know what it leads to\."
    with pytest.raises(RunError, match=text):
        read_json(run / "config.json")
    with pytest.raises(RunError, match=text):
        refuse_links_out(run)
    (run / "config.json").unlink()
    (run / "whole.json").write_text("{}")
    (run / "config.json").symlink_to("whole.json")  # within the run it may
    assert read_json(run / "config.json") == {}
    refuse_links_out(run)
    assert leads_out(run / ".." / "secret.json", run)


def test_a_link_under_the_temporary_name_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "secret").write_text("as it was")
    (tmp_path / "run" / f".tmp-{os.getpid()}-config.json").symlink_to(tmp_path / "secret")
    write_atomic(tmp_path / "run" / "config.json", "{}")
    assert (tmp_path / "secret").read_text() == "as it was"
    assert (tmp_path / "run" / "config.json").read_text() == "{}"
    assert not (tmp_path / "run" / "config.json").is_symlink()


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"\xff" * 100, (10).to_bytes(8, "little") + b"{}"])
def test_tensors_without_a_header(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(BadTensorsError, match="no header of such a file"):
        read_tensors(tmp_path / "w.safetensors")


def test_very_many_tensors(tmp_path: Path) -> None:
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    head = json.dumps({str(number): entry for number in range(100_001)}).encode()
    (tmp_path / "w.safetensors").write_bytes(len(head).to_bytes(8, "little") + head)
    with pytest.raises(BadTensorsError, match="more than 100,000 tensors"):
        read_tensors(tmp_path / "w.safetensors")


def test_a_request_of_very_many_lists() -> None:
    with pytest.raises(Problem, match="body: must be of at most 1,200,000 lists and objects, got more"):
        parse_json(b"[" + b"[]," * 1_200_000 + b"[]]")


def test_idx_in_gzip_does_not_become_huge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stoker.data.sources.idx import read_idx

    monkeypatch.setattr("stoker.data.sources.idx.LEAST_BYTES", 1 << 20)
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb") as file:
        file.write(b"\0\0\x08\x01" + (1 << 24).to_bytes(4, "big") + bytes(1 << 24))
    (tmp_path / "t.gz").write_bytes(buffer.getvalue())
    with pytest.raises(SourceFormatError, match="must not become more than 1 MB when it is unpacked"):
        read_idx(tmp_path / "t.gz")


@pytest.mark.parametrize(
    ("place", "value", "text"),
    [
        ("eps", "x", "eps is str, not float"),
        ("lr", None, "lr is NoneType, not float"),
        ("betas", (0.9,), "betas is tuple, not tuple"),
        ("betas", ("a", "b"), "betas is tuple, not tuple"),
    ],
)
def test_a_checkpoint_whose_optimizer_was_changed(place: str, value: object, text: str, tmp_path: Path) -> None:
    """With a digest that fits: torch would tell in the first step only, and not in our words."""
    import torch

    import stoker
    from stoker.errors import CheckpointError
    from stoker.training.checkpoints.files import newest, write_checkpoint

    def fit(**settings: Any) -> stoker.History:
        torch.manual_seed(0)
        trainer = stoker.Trainer(torch.nn.Linear(2, 1), torch.nn.MSELoss(), "adam", engine="eager")
        data = (torch.ones(8, 2), torch.ones(8, 1))
        epochs = 2 if settings else 1
        return trainer.fit(data, epochs=epochs, checkpoint=tmp_path, progress="none", **settings)

    fit()
    found = newest(tmp_path, lambda _: None)
    assert found is not None
    saved = dict(found[1])
    saved["optimizer"]["param_groups"][0][place] = value
    write_checkpoint(tmp_path, saved["step"], saved, keep=1)
    with pytest.raises(CheckpointError, match=rf"must hold a state that fits this training, got TypeError: {text}\."):
        fit(resume=True)
