"""Delimited text (CSV, TSV) to a table: polars reads it; here is what it leaves unsaid.

polars fills short lines with nulls, renames duplicate columns, and guesses types from the first rows. So a vectorised
check first makes sure that every record has as many fields as the header. Text that fails it, or that quotes in an
unusual way, goes through Python's own :mod:`csv` (slower, exact), which either names the line at fault or writes the
same records in the usual way for polars.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stoker.data.sources.tidy import CODE, MISSING, check_unique, narrow
from stoker.errors import SourceFormatError

__all__ = ["check_utf8", "count_separators", "parse_delimited"]

_BYTES_AT_ONCE = 1 << 19  # the checks look at the text in pieces: their masks stay small beside it
_LONGEST_HEADER = 1 << 20  # of which separators are counted
_ROWS_TO_INFER = 10_000  # later rows that do not fit are read as text and typed from all their values
_NEWLINE, _RETURN, _QUOTE = b"\n"[0], b"\r"[0], b'"'[0]
_OTHER_FORMATS = {
    b"PK\x03\x04": "a zip archive or an Excel workbook",
    b"\x1f\x8b": "gzip",
    b"PAR1": "Parquet",
    b"ARROW1": "Arrow",
    b"SQLite format 3": "an SQLite database",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
}


def parse_delimited(data: bytes, where: str, separator: str | None = None) -> pl.DataFrame:
    """Parse the text of a CSV or TSV file.

    The first line is the header; white space around names is dropped, and a column without a name is called
    ``column_3`` by its place. Blank lines count for nothing, unless there is only one column. Types are those of *all*
    values (see :func:`stoker.data.sources.tidy.narrow`), and a field that is as a whole one of
    :data:`stoker.data.sources.tidy.MISSING`, with or without quotes, is missing.

    Args:
        data: The text, in UTF-8, with or without a byte order mark.
        where: What to call it in errors.
        separator: One ASCII character between fields. If ``None``, a comma where the header has one outside of quotes;
            else a semicolon (then ``3,14`` is a number), else a tab, where the header has one.

    Returns:
        The table.

    Raises:
        SourceFormatError: It is empty, has no rows, is not UTF-8 text, or has a line with too few or too many fields.
        SchemaError: Two columns have the same name.
    """
    check_utf8(data, where)
    data = data.removeprefix(codecs.BOM_UTF8)  # a copy only if there is something to remove, here and below
    blank = re.match(rb"[\r\n]*", data)
    first = 1 + (len(blank[0].splitlines()) if blank else 0)
    data = data.lstrip(b"\r\n")
    if data.endswith((b"\n\n", b"\n\r\n")):
        data = data.rstrip(b"\r\n")
    separator = separator or detect_separator(data)
    if not data:  # nothing but a byte order mark and ends of lines
        raise _empty(where)
    names = _header(data, where, separator, first)
    if not _is_regular(data, separator, len(names)):
        data = _regularise(data, where, separator, first, len(names))
    frame = _read(data, where, separator)
    if _has_codes(data, separator):
        frame = _with_codes__as_text(frame, data, separator)
    if frame.is_empty():
        raise SourceFormatError(
            where, "must have rows under its header", "none", "Check that it was written to the end."
        )
    frame.columns = names
    return narrow(frame, decimal_comma=separator == ";")


def check_utf8(data: bytes, where: str) -> None:
    """Make sure that bytes are UTF-8 text, with something in it.

    Raises:
        SourceFormatError: They are not; the text names the first byte that is wrong, and its line.
    """
    if not data or (not data[:1024].strip() and not data.strip()):
        raise _empty(where)
    for magic, name in _OTHER_FORMATS.items():
        if data.startswith(magic):
            raise SourceFormatError(where, "must be text", name, "Give the file the suffix of its format.")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise SourceFormatError(where, "must be UTF-8 text", "UTF-16", _recode("utf-16"))
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(data), _BYTES_AT_ONCE):
        carried = len(decoder.getstate()[0])
        part = data[start : start + _BYTES_AT_ONCE]
        try:
            decoder.decode(part, final=start + len(part) == len(data))
        except UnicodeDecodeError as error:
            offset = start - carried + error.start
            line = data.count(b"\n", 0, offset) + 1
            got = f"the byte 0x{data[offset]:02x} at offset {offset}, in line {line}"
            raise SourceFormatError(where, "must be UTF-8 text", got, _recode("latin1")) from None


def _empty(where: str) -> SourceFormatError:
    return SourceFormatError(where, "must not be empty", "a file without text", "Check that it was written to the end.")


def detect_separator(data: bytes) -> str:
    """The separator of CSV text, from its header alone: a comma if one is outside of quotes, else ``;``, else a tab."""
    bare = _bare_header(data)
    return next((sep for sep in (",", ";", "\t") if sep.encode() in bare), ",")


def count_separators(data: bytes) -> int:
    """How many separators the header of CSV text has: one less than columns, told without making anything of them.

    Where quotes are not around whole names, those of its first line. Only the first mebibyte is looked at.
    """
    data = data[:_LONGEST_HEADER].removeprefix(codecs.BOM_UTF8).lstrip(b"\r\n")
    separator = detect_separator(data).encode()
    bare = _bare_header(data).count(separator)
    line = re.match(rb"[^\r\n]*+", data)
    odd = line is not None and line[0].count(b'"') % 2 == 1
    return max(bare, line[0].count(separator)) if line is not None and odd else bare


def _bare_header(data: bytes) -> bytes:
    """The header without what stands in quotes."""
    header = re.match(rb'(?:"[^"]*+"|[^"\r\n]++)*+', data)
    return re.sub(rb'"[^"]*"', b"", header[0] if header else b"")


def _recode(encoding: str) -> str:
    return f"Convert it first, for example: iconv -f {encoding} -t utf-8 OLD > NEW."


def _header(data: bytes, where: str, separator: str, first: int) -> list[str]:
    _, fields = next(_records(data, where, separator, first))
    names = [field.strip() or f"column_{place}" for place, field in enumerate(fields, start=1)]
    check_unique(names, where)
    return names


def _records(data: bytes, where: str, separator: str, first: int) -> Iterator[tuple[int, list[str]]]:
    """The records as Python's :mod:`csv` reads them, each with the number of the line that it begins in."""
    text = io.TextIOWrapper(io.BytesIO(data), "utf-8", newline="")
    spaced = f'{separator} "'.encode() in data  # a space before an opening quote belongs to the separator
    reader = csv.reader(text, delimiter=separator, strict=True, skipinitialspace=spaced)
    line = first
    try:
        for fields in reader:
            yield line, fields
            line = first + reader.line_num
    except csv.Error as error:
        rule = "quotes must be closed and go around whole values"
        fix = 'A quote inside of quotes is doubled: "5"" pipe".'
        raise SourceFormatError(f"{where}, line {line}", rule, error, fix) from None


def _is_regular(data: bytes, separator: str, width: int) -> bool:
    """Whether every record has ``width`` fields, with quotes only around whole fields (and doubled inside of them)."""
    codes = np.frombuffer(data, dtype=np.uint8)
    cut = ord(separator)
    quoted = False  # whether the piece begins inside of quotes
    pending = 0  # separators since the last end of a record
    for start in range(0, len(codes), _BYTES_AT_ONCE):
        piece = codes[start : start + _BYTES_AT_ONCE]
        cuts, ends = piece == cut, piece == _NEWLINE
        returns = np.flatnonzero(piece == _RETURN)
        quotes = np.flatnonzero(piece == _QUOTE)
        if quotes.size or quoted:
            if not _quotes_are_regular(codes, quotes + start, cut, quoted=quoted):
                return False
            inside = np.zeros(len(piece), dtype=bool)
            inside[quotes] = True
            inside = np.logical_xor.accumulate(inside) ^ quoted
            cuts &= ~inside
            ends &= ~inside
            returns = returns[~inside[returns]]
            quoted ^= bool(quotes.size % 2)
        following = returns + start + 1
        if following.size and (following[-1] == len(codes) or (codes[following] != _NEWLINE).any()):
            return False  # carriage returns alone end lines too, but not to polars
        marks = np.flatnonzero(cuts | ends)
        ends_among_marks = np.flatnonzero(ends[marks])
        if ends_among_marks.size:
            separators = np.diff(ends_among_marks, prepend=-1) - 1
            separators[0] += pending
            if (separators != width - 1).any():
                return False
            pending = len(marks) - 1 - int(ends_among_marks[-1])
        else:
            pending += len(marks)
    return not quoted and pending == (0 if data.endswith(b"\n") else width - 1)


def _quotes_are_regular(codes: NDArray[np.uint8], at: NDArray[np.intp], cut: int, *, quoted: bool) -> bool:
    """Whether each quote opens at the start of a field, closes at the end of one, or is half of a doubled quote."""
    opening, closing = at[int(quoted) :: 2], at[int(not quoted) :: 2]
    before = codes[opening[opening > 0] - 1]
    after = codes[closing[closing < len(codes) - 1] + 1]
    return bool(
        np.isin(before, (cut, _NEWLINE, _QUOTE)).all() and np.isin(after, (cut, _NEWLINE, _RETURN, _QUOTE)).all()
    )


def _regularise(data: bytes, where: str, separator: str, first: int, width: int) -> bytes:
    """Write the same records so that :func:`_is_regular` holds, or raise an error that names the line at fault."""
    regular = io.BytesIO()
    out = io.TextIOWrapper(regular, "utf-8", newline="", write_through=True)
    writer = csv.writer(out, delimiter=separator, lineterminator="\r\n")
    for line, fields in _records(data, where, separator, first):
        if len(fields) == width:
            writer.writerow(fields)
        elif fields and (len(fields) > 1 or fields[0].strip()):
            rule = f"must have {width} fields, as the header has"
            fix = "Mend that line; a value with a separator in it needs quotes around it."
            raise SourceFormatError(f"{where}, line {line}", rule, len(fields), fix)
        elif width == 1:
            writer.writerow([""])
    return regular.getvalue()


def _read(data: bytes, where: str, separator: str) -> pl.DataFrame:
    missing = list(MISSING)
    data = _as_text(data)
    try:
        return pl.read_csv(data, separator=separator, null_values=missing, infer_schema_length=_ROWS_TO_INFER)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        pass  # a later value did not fit the type of the first rows: take all as text, and let all values decide
    try:
        return pl.read_csv(data, separator=separator, null_values=missing, infer_schema=False)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        reason = str(error).splitlines()[0]
        raise SourceFormatError(where, "must be delimited text", reason, "Check how it was written.") from None


def _as_text(data: bytes) -> bytes:
    """UTF-8 text as polars takes it for text: what begins like zlib, as ``x^2,y`` does, it would unpack."""
    return codecs.BOM_UTF8 + data if data.startswith(b"x") else data


def _has_codes(data: bytes, separator: str) -> bool:
    """Whether any field begins with a zero and another digit, as codes such as ``01234`` do."""
    codes = np.frombuffer(data, dtype=np.uint8)
    before = (ord(separator), _NEWLINE, _QUOTE, b" "[0])
    for start in range(0, len(codes), _BYTES_AT_ONCE):
        zeros = np.flatnonzero(codes[start : start + _BYTES_AT_ONCE] == b"0"[0]) + start
        zeros = zeros[(zeros > 0) & (zeros < len(codes) - 1)]
        zeros = zeros[np.isin(codes[zeros - 1], before)]
        if ((codes[zeros + 1] >= b"0"[0]) & (codes[zeros + 1] <= b"9"[0])).any():
            return True
    return False


def _with_codes__as_text(frame: pl.DataFrame, data: bytes, separator: str) -> pl.DataFrame:
    """Take back as text the columns that polars took for integers though their digits have zeros before them."""
    places = [place for place, column in enumerate(frame) if column.dtype.is_integer()]
    if not places:
        return frame
    missing = list(MISSING)
    text = pl.read_csv(_as_text(data), separator=separator, null_values=missing, infer_schema=False, columns=places)
    columns = frame.get_columns()
    for place, column in zip(places, text, strict=True):
        if column.alias("").str.contains(CODE).any():
            columns[place] = column
    return pl.DataFrame(columns)
