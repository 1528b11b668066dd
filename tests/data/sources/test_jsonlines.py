from __future__ import annotations

import json

import polars as pl
import pytest

from stoker.data.sources import jsonlines
from stoker.data.sources.jsonlines import parse_json_lines
from stoker.errors import SourceFormatError


@pytest.fixture(params=["fast", "exact"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "exact":
        monkeypatch.setattr(jsonlines, "_fast", lambda _: None)


@pytest.mark.usefixtures("either_way")
def test_objects_become_rows() -> None:
    lines = [{"a": 1, "b": "x", "t": "2020-01-31"}, {"b": "y", "a": 2.5}, {"a": None, "c": True}]
    text = "\ufeff" + "\n\n".join(json.dumps(line) for line in lines)
    frame = parse_json_lines(text.encode(), "t.jsonl")
    assert set(frame.columns) == {"a", "b", "t", "c"}
    assert frame["a"].to_list() == [1.0, 2.5, None]
    assert frame["b"].to_list() == ["x", "y", None]
    assert frame["c"].to_list() == [None, None, True]
    assert frame["t"].dtype == pl.Date


@pytest.mark.usefixtures("either_way")
def test_late_values_and_mixtures_keep_all_they_say() -> None:
    text = '{"a":1,"b":1}\n' * 3000 + '{"a":0.5,"b":"x"}\n'
    frame = parse_json_lines(text.encode(), "t.jsonl")
    assert frame["a"].to_list() == [1.0] * 3000 + [0.5]
    assert frame["b"].to_list() == ["1"] * 3000 + ["x"]


@pytest.mark.usefixtures("either_way")
def test_text_stays_text() -> None:
    assert parse_json_lines(b'{"a":"1"}\n{"a":"NA"}\n', "t.jsonl")["a"].to_list() == ["1", "NA"]


def test_the_nan_that_python_writes_is_missing() -> None:
    text = "\n".join(json.dumps({"a": value}) for value in (1.5, float("nan")))
    assert parse_json_lines(text.encode(), "t.jsonl")["a"].to_list() == [1.5, None]


@pytest.mark.parametrize(
    ("text", "line", "got"),
    [
        ('{"a":1}\n{"a":\n', 2, r"bad JSON \(Expecting value"),
        ('{"a":1}\n\n[1,2]\n', 3, "a list"),
        ("1\n", 1, "a number"),
        ('[{"a":1},{"a":2}]', 1, "a list"),
        ('{"a":1}\n"x"\n', 2, "a text"),
    ],
)
def test_bad_lines_are_named(text: str, line: int, got: str) -> None:
    with pytest.raises(
        SourceFormatError, match=rf"t\.jsonl, line {line}: must be a JSON object, got {got}.* Write one obj"
    ):
        parse_json_lines(text.encode(), "t.jsonl")


def test_empty_or_in_another_encoding() -> None:
    with pytest.raises(SourceFormatError, match=r"t\.jsonl: must not be empty"):
        parse_json_lines(b"\n", "t.jsonl")
    with pytest.raises(
        SourceFormatError, match=r"t\.jsonl: must be UTF-8 text, got the byte 0xe9 at offset 6, in line 1"
    ):
        parse_json_lines('{"a":"é"}'.encode("latin1"), "t.jsonl")
