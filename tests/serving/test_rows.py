"""JSON and CSV to raw tensors: as a file is read, and what is said of rows that cannot be."""

from __future__ import annotations

import json
import math
from typing import Any

import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from served_runs import mixed

from stoker.data.columns import Columns
from stoker.data.schema import infer_schema
from stoker.data.sources.jsonlines import parse_json_lines
from stoker.errors import DataError, StokerError
from stoker.serving.problems import Problem, place_of
from stoker.serving.rows import RowReader, parse_json

FRAME = mixed("price")
COLUMNS = Columns.fit(FRAME, infer_schema(FRAME, "price"))
READER = RowReader(COLUMNS, max_rows=100)
ROW: dict[str, Any] = {
    "size": 50.5,
    "rooms": 3,
    "lift": True,
    "kind": "flat",
    "street": "street 3",
    "seen": "2024-01-05T10:00:00",
}
HEADER = "size,rooms,lift,kind,street,seen\n"


def alike(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and torch.equal(one[name].nan_to_num(1e9), other[name].nan_to_num(1e9))
        for name in one
    )


def json_of(frame: pl.DataFrame) -> bytes:
    return json.dumps(frame.to_dicts(), default=str).encode()


@pytest.mark.parametrize("rows", [1, 2, 100])
def test_json_is_read_as_the_table_is(rows: int) -> None:
    assert alike(READER.json(json_of(FRAME[:rows])), COLUMNS.read(FRAME[:rows]))


def test_csv_is_read_as_the_table_is() -> None:
    assert alike(READER.csv(FRAME[:100].write_csv().encode()), COLUMNS.read(FRAME[:100]))


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(
        ["flat", " flat ", "house", "FLAT", "3", "3.0", " 7", "true", "No", "NA", "nan", "", "-", "street 3", "x",
         "street 10", "street 99", " street 3", "Na", "False", "20", "\x1fstreet 3", "street 3\u00a0", "0001-01-01",
         "9999-12-31 23:59:59", "2024-02-30", "1969-12-31T23:59", "2024-01-05T24:00", "2024-01-05 10:05:59.25",
         "2024/01/05", "2024-01-05", "2024-01-05T10:00:59Z", "10:05", "٣", "0x1", "1_000"]
    ),
)  # fmt: skip


@pytest.mark.parametrize("column", COLUMNS.names)
@settings(max_examples=150, deadline=None)
@given(values=st.lists(VALUES, min_size=1, max_size=3))
def test_every_value_is_read_as_in_json_lines_or_refused_where_those_are(column: str, values: list[Any]) -> None:
    """The quick way and the way of files agree, value by value; a file's whole numbers may be of 64 bits at most.

    True and false are refused where numbers belong, even if all of a column are such.
    """
    values = [float(v) if isinstance(v, int) and not -(2**63) <= v < 2**63 else v for v in values]
    rows = [ROW | {column: value} for value in values]
    lines = "\n".join(map(json.dumps, rows)).encode()
    try:
        if column in ("size", "rooms") and any(type(value) is bool for value in values):
            raise DataError("values", "must be numbers", "a boolean", "It is refused.")
        wanted = COLUMNS.read(parse_json_lines(lines, "lines"))
    except StokerError:
        with pytest.raises(Problem):
            READER.json(json.dumps(rows).encode())
    else:
        assert alike(READER.json(json.dumps(rows).encode()), wanted)


def test_one_object_is_one_row_and_more_columns_are_passed_over() -> None:
    one = READER.json(json.dumps(ROW | {"more": [1, {"deep": None}]}).encode())
    assert alike(one, READER.json(json.dumps([ROW]).encode()))


@pytest.mark.parametrize(
    ("column", "value", "code", "text"),
    [
        ("size", "many", "invalid-value", r"column 'size', row 1 .*: must be a number, got 'many'\."),
        ("size", "12,5", "invalid-value", r"must be a number, got '12,5'"),
        ("size", math.nan, "invalid-value", r"must be a finite number, got 'nan'\. Write null for a missing value"),
        ("size", math.inf, "invalid-value", r"must be a finite number, got 'inf'"),
        ("size", 10**400, "invalid-value", r"must be a finite number, got '1000"),
        ("rooms", [1], "invalid-value", r"column 'rooms', row 1.*: must hold numbers, text, .*, got a list"),
        ("rooms", {"a": 1}, "invalid-value", r"must hold numbers, text, booleans or times, got a dict"),
        ("lift", "maybe", "invalid-value", r"must be yes or no .*, got 'maybe'"),
        ("lift", 2, "invalid-value", r"must be yes or no"),
        ("kind", math.nan, "invalid-value", r"must be a finite number"),
        ("kind", "\ud800", "invalid-value", r"must be text of Unicode characters, got"),
        ("seen", "31.1.2024", "invalid-value", r"must be a date or datetime such as 2013-01-31"),
        ("seen", 20240131, "invalid-column", r"column 'seen': must be a date or datetime"),
    ],
)  # fmt: skip
def test_a_value_that_does_not_fit_is_named(column: str, value: Any, code: str, text: str) -> None:
    rows = [ROW, ROW | {column: value}] if code == "invalid-value" else [ROW | {column: value}]
    with pytest.raises(Problem, match=text) as caught:
        READER.json(json.dumps(rows).encode())
    assert (caught.value.status, caught.value.code, caught.value.body["column"]) == (422, code, column)
    if code == "invalid-value":
        assert caught.value.body["row"] == 1
    json.dumps(caught.value.body, allow_nan=False)


@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        (b"", "empty-body", r"body: must not be empty, got nothing\."),
        (b"  \n", "empty-body", r"must not be empty"),
        (b"{", "invalid-json", r"body: must be JSON, got a fault"),
        (b"\xff\xfe{}", "invalid-json", r"must be UTF-8|must be JSON"),
        (b"[" * 100_000, "invalid-json", r"must not be nested so deeply"),
        (b'{"a":' * 100_000, "invalid-json", r"must not be nested so deeply"),
        (b"[" + b"9" * 5000 + b"]", "invalid-json", r"must be JSON, got a fault"),
        (b"3", "invalid-json", r"must be a list of objects, got a number"),
        (b"null", "invalid-json", r"must be a list of objects, got null"),
        (b"[]", "no-rows", r"must have rows, got none"),
        (b"[[1, 2]]", "invalid-row", r"row 0 .*: must be an object, got a list"),
        (b"[{}]", "missing-column", r"column 'size', row 0 .*: must be there, got a row without it\. It has none"),
        (b'[{"Size": 1}]', "missing-column", r"Did you mean 'Size'\?"),
    ],
)
def test_what_is_no_list_of_rows(body: bytes, code: str, text: str) -> None:
    with pytest.raises(Problem, match=text) as caught:
        READER.json(body)
    assert (caught.value.status, caught.value.code) == (422, code)


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("", "invalid-data", r"body: must not be empty"),
        ("size,rooms\n", "invalid-data", r"body: must have rows under its header"),
        ("size,size\n1,2\n", "invalid-data", r"body: column names must be unique, got 'size' as columns 1 and 2"),
        ("size,rooms\n1\n", "invalid-data", r"body, line 2: must have 2 fields, as the header has, got 1"),
        ("size\n1\n", "invalid-data", r"table: must have every column .* got a table without 'rooms'"),
        (f"{HEADER}many,3,1,flat,a,2024-01-05\n", "invalid-value", r"'size', row 0.*got 'many'"),
        (f"{HEADER}inf,3,1,flat,a,2024-01-05\n", "invalid-value", r"must be a finite number, got 'inf'"),
        (f"{HEADER}1e999,3,1,flat,a,2024-01-05\n", "invalid-value", r"must be a finite number, got 'inf'"),
        (f"{HEADER}1e999,3,1,flat,a,2024-01-05\nx,3,1,flat,a,2024-01-05\n", "invalid-value", r"must be a finite"),
        (",".join(f"c{n}" for n in range(1100)) + "\n" + "," * 1099 + "\n", "too-many-columns", r"at most 1,000"),
    ],
)  # fmt: skip
def test_csv_that_cannot_be_read(text: str, code: str, message: str) -> None:
    with pytest.raises(Problem, match=message) as caught:
        READER.csv(text.encode())
    assert (caught.value.status, caught.value.code) == (422, code)
    json.dumps(caught.value.body, allow_nan=False)


@pytest.mark.parametrize(
    ("start", "separator"), [("", ","), ("\ufeff\n", ";"), ("", "\t"), ('"a\nb"', ","), ('a"b', ",")]
)
def test_very_many_columns_are_counted_not_parsed(start: str, separator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("it was parsed")

    monkeypatch.setattr("stoker.serving.rows.parse_delimited", never)
    line = start + separator.join(f"c{n}" for n in range(1100)) + "\n"
    with pytest.raises(Problem, match=r"must have at most 1,000 columns that the model does not take") as caught:
        READER.csv((line * 2).encode())
    assert (caught.value.status, caught.value.code) == (422, "too-many-columns")


def test_separators_in_quotes_are_no_columns() -> None:
    frame = FRAME[:3].with_columns(pl.lit(1).alias("," * 3000))
    assert alike(READER.csv(frame.write_csv().encode()), COLUMNS.read(FRAME[:3]))


@pytest.mark.parametrize("other", [True, False, None, 3, 2.5])
@pytest.mark.parametrize("column", ["size", "rooms"])
def test_true_is_no_number_whatever_stands_beside_it(column: str, other: Any) -> None:
    rows = [ROW | {column: other}, ROW | {column: True}]
    row = 0 if isinstance(other, bool) else 1
    word = str(other is not False).lower()
    text = rf"^column '{column}', row {row} \(counting from 0\): must be a number, got '{word}'\."
    with pytest.raises(Problem, match=text) as caught:
        READER.json(json.dumps(rows).encode())
    assert (caught.value.code, caught.value.body["row"]) == ("invalid-value", row)
    with pytest.raises(Problem, match=text):
        READER.csv(
            pl.DataFrame([{k: None if v is None else json.dumps(v).strip('"') for k, v in r.items()} for r in rows])
            .write_csv()
            .encode()
        )


def test_the_value_of_a_csv_is_given_back() -> None:
    with pytest.raises(Problem) as caught:
        READER.csv(b"size,rooms,lift,kind,street,seen\n1,3,1,flat,a,2024-01-05\n1,lots,1,flat,a,2024-01-05\n")
    assert {name: caught.value.body[name] for name in ("column", "row", "value")} == {
        "column": "rooms",
        "row": 1,
        "value": "lots",
    }


def test_too_many_rows() -> None:
    for read, body in ((READER.json, json_of(FRAME[:101])), (READER.csv, FRAME[:101].write_csv().encode())):
        with pytest.raises(Problem, match=r"^body: must have at most 100 rows, got 101\.") as caught:
            read(body)
        assert (caught.value.status, caught.value.code) == (413, "too-many-rows")


@pytest.mark.parametrize("name", ["size", "it's", 'a "quote"', "both ' and \"", "new\nline", "Größe", "\\", ""])
def test_a_place_is_read_back_from_an_error(name: str) -> None:
    from stoker.data.cells import place

    assert place_of(place(name, 17)) == (name, 17)
    assert place_of(f"column {name!r}") == (name, None)
    assert place_of("table") == (None, None)


def test_json_that_python_writes_and_nobody_else() -> None:
    assert math.isnan(parse_json(b"[NaN]")[0]), "let through, to be refused with its column and row"
