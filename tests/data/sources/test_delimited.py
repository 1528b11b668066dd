from __future__ import annotations

import csv
import io
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.data.sources import delimited
from stoker.data.sources.delimited import detect_separator, parse_delimited
from stoker.errors import SchemaError, SourceFormatError


def parse(text: str | bytes, separator: str | None = None) -> dict[str, list[Any]]:
    data = text.encode() if isinstance(text, str) else text
    return parse_delimited(data, "t.csv", separator).to_dict(as_series=False)


def test_types_and_missing_values() -> None:
    frame = parse_delimited(b'a,b,c,d,e\n1,x,0.5,true,2020-01-01\nNA,"NA",?,,NaN\n3,N/A,nan,false,null\n', "t.csv")
    assert frame.to_dict(as_series=False) == {
        "a": [1, None, 3],
        "b": ["x", None, None],
        "c": [0.5, None, None],
        "d": [True, None, False],
        "e": [frame["e"][0], None, None],
    }
    assert frame.dtypes == [pl.Int64, pl.String, pl.Float64, pl.Boolean, pl.Date]


def test_marks_of_missing_values_count_only_as_whole_fields() -> None:
    assert parse("a,b\nwhat?,NAN\nNA NA,NATO\n") == {"a": ["what?", "NA NA"], "b": ["NAN", "NATO"]}


def test_a_column_without_any_value_is_all_missing() -> None:
    assert parse("a,b\n?,1\nNA,2\n,3\n") == {"a": [None] * 3, "b": [1, 2, 3]}


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffa,b\n1,x\n2,y\n",  # byte order mark
        "a,b\r\n1,x\r\n2,y\r\n",
        "a,b\r1,x\r2,y\r",  # as old Macs did
        "a,b\n1,x\r2,y\r\n",  # a mixture
        "a,b\n1,x\n2,y",  # no line end at the end
        "\n\na,b\n1,x\n\n2,y\n\n\n",  # blank lines
        "a,b\n1,x\n   \n2,y\r\n\r\n",
        " a , b \n1,x\n2,y\n",
        'a, "b"\n1, "x"\n2, "y"\n',  # quotes after a space
        '"a","b"\n"1","x"\n"2","y"\n',
        "a;b\n1;x\n2;y\n",
        "a\tb\n1\tx\n2\ty\n",
    ],
)
def test_ways_to_write_the_same_table(text: str) -> None:
    assert parse(text) == {"a": [1, 2], "b": ["x", "y"]}


@pytest.mark.parametrize(
    ("header", "separator"),
    [
        ("a,b", ","),
        ("a,b;c", ","),  # a comma outside of quotes decides
        ("a;b", ";"),
        ('"a,x";b', ";"),
        ("a\tb", "\t"),
        ("a;b\tc", ";"),
        ("a", ","),
        ('"a;b"', ","),
        ('"a\n,b";c', ";"),
    ],
)
def test_the_header_tells_the_separator(header: str, separator: str) -> None:
    assert detect_separator(f"{header}\n1,2;3\t4\n".encode()) == separator


def test_semicolons_bring_decimal_commas() -> None:
    assert parse("a;b\n3,14;1\n2;2,5\n") == {"a": [3.14, 2.0], "b": [1.0, 2.5]}
    assert parse('a,b\n"3,14",1\n"2,1",2\n') == {"a": ["3,14", "2,1"], "b": [1, 2]}


def test_a_single_column_keeps_its_blank_lines_as_missing_values() -> None:
    assert parse("a\n1\n\n3\n\n\n") == {"a": [1, None, 3]}
    assert parse("a\r\n1\r\n\r\n3\r\n") == {"a": [1, None, 3]}


def test_quotes_commas_and_line_ends_within_fields() -> None:
    assert parse('a,b\n"x, ""y""\nz",1\n\'q\',2\n') == {"a": ['x, "y"\nz', "'q'"], "b": [1, 2]}
    assert parse('a,b\n5" pipe,1\nfoo "bar" baz,2\n') == {"a": ['5" pipe', 'foo "bar" baz'], "b": [1, 2]}


def test_columns_without_a_name_get_one_by_their_place() -> None:
    assert parse(",a,\n0,1,2\n") == {"column_1": [0], "a": [1], "column_3": [2]}


def test_codes_keep_their_zeros() -> None:
    rows = "".join(f"{i},{i:05d},{i}.5,00{i}.5\n" for i in range(3))
    columns = parse(f"n,zip,x,y\n{rows}")
    assert columns == {"n": [0, 1, 2], "zip": ["00000", "00001", "00002"], "x": [0.5, 1.5, 2.5], "y": [0.5, 1.5, 2.5]}
    assert parse('zip,n\n"01234",1\n98765,2\n') == {"zip": ["01234", "98765"], "n": [1, 2]}
    assert parse("n,t\n0,05:30\n10,06:00\n") == {"n": [0, 10], "t": ["05:30", "06:00"]}


@pytest.mark.parametrize(
    ("late", "dtype"),
    [("0.5", pl.Float64), ("x", pl.String), ("12345678901234567890123", pl.Float64), ("true", pl.String)],
)
def test_values_late_in_the_file_count(late: str, dtype: Any) -> None:
    text = "a,b,c\n" + "1,true,\n" * 20_000 + f"{late},false,7\n"
    frame = parse_delimited(text.encode(), "t.csv")
    assert frame.dtypes == [dtype, pl.Boolean, pl.Int64]  # c has its first value where no one looks for it
    assert frame["c"].to_list() == [None] * 20_000 + [7]
    assert frame["a"].null_count() == 0


@pytest.mark.parametrize(
    ("text", "line", "got"),
    [
        ("a,b,c\n1,2,3\n4,5\n", 3, 2),
        ("a,b,c\n1,2,3\n4,5,6,7\n", 3, 4),
        ('a,b,c\n"x\ny\n",2,3\n4,5,6\n7,8\n', 6, 2),  # line ends in quotes count as lines of the file, not as records
        ("a,b,c\r\n1,2,3\r\n\r\n4,5\r\n", 4, 2),
        ("\ufeff\r\n\na,b,c\n4,5\n", 4, 2),  # blank lines before the header count as well
        ("a,b,c\n1,2,3\n4,5", 3, 2),
        ('a,b,c\n"1,2",3\n', 2, 2),
    ],
)
def test_ragged_lines_are_named(text: str, line: int, got: int) -> None:
    message = rf"^t\.csv, line {line}: must have 3 fields, as the header has, got {got}\. Mend that line"
    with pytest.raises(SourceFormatError, match=message):
        parse(text)


def test_a_ragged_line_is_found_far_into_a_file() -> None:
    text = "a,b\n" + '1,"x\ny"\n' * 300_000 + "1\n" + "1,2\n" * 1000
    with pytest.raises(SourceFormatError, match=r"line 600002: must have 2 fields, as the header has, got 1"):
        parse(text)


@pytest.mark.parametrize("text", ['a,b\n1,2\n"x,3\n4,5\n', 'a,b\n1,2\n"x"y,3\n'])
def test_quotes_that_do_not_close_are_named(text: str) -> None:
    with pytest.raises(SourceFormatError, match=r"t\.csv, line 3: quotes must be closed and go around whole values"):
        parse(text)


def test_duplicate_names() -> None:
    with pytest.raises(SchemaError, match=r"t\.csv: column names must be unique, got 'a' as columns 1 and 3"):
        parse("a,b, a\n1,2,3\n")


@pytest.mark.parametrize(("text", "got"), [("", "a file without text"), (" \n\n", "a file without text")])
def test_empty_text(text: str, got: str) -> None:
    with pytest.raises(SourceFormatError, match=rf"t\.csv: must not be empty, got {got}"):
        parse(text)


@pytest.mark.parametrize("text", ["a,b\n", "a,b", "a\n", "a,b\r\n\r\n"])
def test_a_header_without_rows(text: str) -> None:
    with pytest.raises(SourceFormatError, match=r"t\.csv: must have rows under its header, got none"):
        parse(text)


def test_text_in_other_encodings() -> None:
    with pytest.raises(
        SourceFormatError, match=r"must be UTF-8 text, got the byte 0xe9 at offset 10, in line 3\. .*iconv"
    ):
        parse("a,b\n1,x\n2,é\n".encode("latin1"))
    with pytest.raises(SourceFormatError, match=r"must be UTF-8 text, got UTF-16\. .*iconv -f utf-16"):
        parse("a,b\n1,x\n".encode("utf-16"))


def test_a_character_across_two_pieces_is_no_error_and_a_broken_one_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "_BYTES_AT_ONCE", 3)
    assert parse("é,b\nöü€,x\n") == {"é": ["öü€"], "b": ["x"]}
    with pytest.raises(SourceFormatError, match=r"the byte 0xe2 at offset 9, in line 2"):
        parse("aé,b\nöx".encode() + "€".encode()[:2])


@pytest.mark.parametrize(
    ("magic", "name"),
    [(b"PK\x03\x04", "a zip archive or an Excel workbook"), (b"\x1f\x8b", "gzip"), (b"PAR1", "Parquet")],
)
def test_other_formats_under_the_name_of_text(magic: bytes, name: str) -> None:
    with pytest.raises(SourceFormatError, match=rf"t\.csv: must be text, got {name}\. Give the file the suffix of its"):
        parse(magic + b"rest")


def test_what_polars_cannot_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise pl.exceptions.ComputeError("no luck\nat all")

    monkeypatch.setattr(pl, "read_csv", fail)
    with pytest.raises(SourceFormatError, match=r"t\.csv: must be delimited text, got no luck\. Check how"):
        parse("a,b\n1,2\n")


CELLS = st.text(alphabet="ab0?,;\"\n\r \t'é", max_size=4)


@settings(max_examples=300, deadline=None)
@given(st.integers(2, 4).flatmap(lambda width: st.lists(st.lists(CELLS, min_size=width, max_size=width), min_size=1)))
def test_any_cells_come_back_as_python_wrote_them(rows: list[list[str]]) -> None:
    """Whatever the cells hold, values are those that Python's csv module writes and reads, but for their types."""
    width = len(rows[0])
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerows([[f"c{i}" for i in range(width)], *rows])
    frame = parse_delimited(out.getvalue().encode(), "t.csv")
    assert frame.height == len(rows)
    for place, column in enumerate(frame):
        cells = [row[place] for row in rows]
        if column.dtype == pl.String:
            for cell, value in zip(cells, column.to_list(), strict=True):
                assert value == cell or value == cell.strip() or (value is None and cell.strip() in ("", "?"))
        else:
            numbers = [float(cell) if cell.strip() not in ("", "?") else None for cell in cells]
            assert column.cast(pl.Float64).to_list() == numbers


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet='a1,"\n\r ', max_size=30), st.sampled_from([4, 1 << 19]))
def test_any_text_is_a_table_or_a_clear_error(text: str, piece: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited, "_BYTES_AT_ONCE", piece)  # the checks go through text in pieces: their edges matter
        try:
            frame = parse_delimited(text.encode(), "t.csv")
        except (SourceFormatError, SchemaError):
            return
    reader = csv.reader(io.StringIO(text.strip("\r\n"), newline=""), skipinitialspace=', "' in text)
    header, *rows = [row for row in reader if row]
    if len(header) > 1:
        rows = [row for row in rows if len(row) > 1 or row[0].strip()]
        assert frame.height == len(rows)
    assert frame.width == len(header)
