"""Data frames of other libraries, and single columns of every kind, to polars.

pandas is converted column by column through NumPy, so it needs no pyarrow beside it. Others come through narwhals or
through Arrow's C stream. Nothing is imported that the object itself has not imported already.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stoker.data.sources.tidy import check_unique, nans_to_nulls
from stoker.errors import DataError, InputTypeError, SchemaError

__all__ = ["frame_from", "kind_of", "series_from"]


def kind_of(source: object) -> str:
    """What an object is, in a word that its user knows: ``pandas.DataFrame``, ``numpy.ndarray``."""
    if isinstance(source, tuple):
        return f"({', '.join(kind_of(part) for part in source)})"
    package = type(source).__module__.partition(".")[0]
    return type(source).__qualname__ if package == "builtins" else f"{package}.{type(source).__qualname__}"


def frame_from(source: Any) -> pl.DataFrame | None:
    """Convert a data frame of any library; None if it is not a data frame.

    pandas: the index is dropped; column names that are not text become text; categoricals become ``pl.Enum`` (text of
    their categories, in their order), nullable types and zoned times keep their meaning.

    Args:
        source: A polars, pandas or pyarrow table, another eager frame that narwhals knows, or an object with
            ``__arrow_c_stream__``.

    Returns:
        The table, with null for every NaN.

    Raises:
        InputTypeError: It is lazy.
        SchemaError: Two columns have the same name, or one holds objects that are not values.
    """
    import narwhals as nw

    if isinstance(source, pl.DataFrame):
        return nans_to_nulls(source)
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(source, pandas.DataFrame):
        return _from_pandas(source)
    pyarrow: Any = sys.modules.get("pyarrow")
    if pyarrow is not None and isinstance(source, pyarrow.Table | pyarrow.RecordBatch | pyarrow.RecordBatchReader):
        check_unique(source.schema.names, kind_of(source))
        if isinstance(source, pyarrow.RecordBatch):
            source = pyarrow.Table.from_batches([source])
        return nans_to_nulls(pl.DataFrame(source if isinstance(source, pyarrow.Table) else source.read_all()))
    known: Any = nw.from_native(source, pass_through=True, allow_series=True)
    if isinstance(known, nw.LazyFrame):
        raise InputTypeError(
            "source", "a data frame must be in memory", kind_of(source), "Call .collect() on it first."
        )
    if isinstance(known, nw.DataFrame):
        pandas_like = known.implementation.is_pandas_like()
        return _from_pandas(known.to_pandas()) if pandas_like else nans_to_nulls(known.to_polars())
    if hasattr(source, "__arrow_c_stream__") and not isinstance(known, nw.Series) and not _is_column(source):
        return nans_to_nulls(pl.DataFrame(source))
    return None


def series_from(name: str, values: Any) -> pl.Series:
    """Convert one column: a Series of any library, a one-dimensional array or tensor, or a list.

    Args:
        name: What to call it.
        values: Its values, n of them.

    Returns:
        The column. NaN, NaT, None and masked values are null.

    Raises:
        DataError: It is not one-dimensional.
        SchemaError: It holds something that is not a number, text, boolean or time; the text names row and value.
        InputTypeError: It is not a column at all.
    """
    return _column(name, values).alias(name)


def _column(name: str, values: Any) -> pl.Series:
    """Convert one column, nameless: polars takes names such as ``^a.*$`` and ``*`` for patterns."""
    import narwhals as nw

    pandas: Any = sys.modules.get("pandas")
    if isinstance(values, pl.Series):
        series = values.alias("")
        return series.fill_nan(None) if series.dtype.is_float() else series
    if pandas is not None and isinstance(values, pandas.Series | pandas.Index | pandas.api.extensions.ExtensionArray):
        return _pandas_column(name, pandas.Series(values))
    known: Any = nw.from_native(values, pass_through=True, allow_series=True)
    if isinstance(known, nw.Series):
        return _column(name, known.to_polars())
    if _is_column(values):
        return _column(name, pl.Series(values))
    if isinstance(values, list | tuple | range):
        return _object_column(name, list(values))
    array = array_from(values)
    if array is None:
        rule = "a column must be an array, a tensor, a Series or a list"
        raise InputTypeError(f"column {name!r}", rule, kind_of(values), "Convert it first.")
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        fix = "Give each of its columns a name of its own."
        raise DataError(f"column {name!r}", "must be one-dimensional", f"the shape {array.shape}", fix)
    return _array_column(name, array)


def array_from(source: Any) -> NDArray[Any] | None:
    """An array or tensor as NumPy's own, on the CPU; None if it is neither. Masked arrays stay masked."""
    torch: Any = sys.modules.get("torch")
    if torch is not None and isinstance(source, torch.Tensor):
        tensor = source.detach().cpu()
        if tensor.layout != torch.strided:
            tensor = tensor.to_dense()
        return np.asarray((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy())
    if isinstance(source, np.ma.MaskedArray):
        return source
    if isinstance(source, np.ndarray) or (hasattr(source, "__array__") and not isinstance(source, type)):
        return np.asarray(source)
    return None


def _is_column(source: object) -> bool:
    """Whether an object is a pyarrow array, which streams as Arrow just as a table does."""
    pyarrow: Any = sys.modules.get("pyarrow")
    return pyarrow is not None and isinstance(source, pyarrow.Array | pyarrow.ChunkedArray)


def _from_pandas(frame: Any) -> pl.DataFrame:
    names = [str(name) for name in frame.columns]
    check_unique(names, "pandas.DataFrame")
    return pl.DataFrame([_pandas_column(name, frame.iloc[:, place]).alias(name) for place, name in enumerate(names)])


def _pandas_column(name: str, column: Any) -> pl.Series:
    pandas: Any = sys.modules["pandas"]
    dtype = column.dtype
    if isinstance(dtype, np.dtype):
        return _array_column(name, column.to_numpy())
    if isinstance(dtype, pandas.CategoricalDtype):
        return _categories([str(category) for category in dtype.categories], column.cat.codes.to_numpy())
    if isinstance(dtype, pandas.DatetimeTZDtype):
        naive = _array_column(name, column.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy())
        utc = naive.dt.replace_time_zone("UTC")
        try:
            return utc.dt.convert_time_zone(str(dtype.tz))
        except pl.exceptions.PolarsError:  # a fixed offset, no zone to polars: the instants are the same
            return utc
    if isinstance(dtype, pandas.PeriodDtype):
        return _array_column(name, column.dt.to_timestamp().to_numpy())
    if isinstance(dtype, pandas.SparseDtype):
        return _pandas_column(name, column.sparse.to_dense())
    if isinstance(dtype, pandas.ArrowDtype):
        return _column(name, pl.Series(column.array.__arrow_array__()))
    kind: np.dtype[Any] | None = getattr(dtype, "numpy_dtype", None)  # of the nullable numbers and booleans
    if kind is not None and kind.kind in "biuf":
        values = column.to_numpy(dtype=kind, na_value=kind.type(0))
        return _array_column(name, np.ma.MaskedArray(values, mask=column.isna().to_numpy()))
    if isinstance(dtype, pandas.StringDtype):
        return pl.Series(column.to_numpy(dtype=object, na_value=None).tolist(), dtype=pl.String)
    return _object_column(name, [None if gone else str(v) for v, gone in zip(column, column.isna(), strict=True)])


def _categories(categories: list[str], codes: NDArray[np.integer[Any]]) -> pl.Series:
    taken = pl.Series(np.where(codes < 0, 0, codes), dtype=pl.UInt32)
    text = pl.Series(categories or [""], dtype=pl.String).gather(taken)
    present = pl.Series(codes >= 0)
    return text.zip_with(present, pl.Series([None], dtype=pl.String)).cast(pl.Enum(list(dict.fromkeys(categories))))


def _array_column(name: str, array: NDArray[Any]) -> pl.Series:
    """A one-dimensional array; the kinds are NumPy's own letters for boolean, integer, float, time, text and object."""
    mask = np.ma.getmaskarray(array) if isinstance(array, np.ma.MaskedArray) else None
    array = np.asarray(array)
    kind = array.dtype.kind
    if kind == "f":
        size = min(max(array.dtype.itemsize, 4), 8)  # half and extended precision are not for polars
        series = pl.Series(array.astype(f"f{size}"), nan_to_null=True)
    elif kind in "biu":
        series = pl.Series(array.astype(array.dtype.newbyteorder("=")))
    elif kind in "mM":
        series = pl.Series(array.astype(f"{kind}8[{_time_unit(kind, np.datetime_data(array.dtype)[0])}]"))
    elif kind == "S":
        return _array_column(name, np.char.decode(array, "utf-8"))
    elif kind in "UT":
        series = pl.Series(array.tolist(), dtype=pl.String)
    elif kind == "O":
        series = _object_column(name, array.tolist())
    else:
        fix = "Split complex numbers into two columns." if kind == "c" else "Convert the column first."
        raise SchemaError(f"column {name!r}", _VALUES, f"the dtype {array.dtype}", fix)
    return series if mask is None else series.zip_with(pl.Series(~mask), pl.Series([None], dtype=series.dtype))


def _time_unit(kind: str, unit: str) -> str:
    """The nearest unit that polars has: it counts days, milli-, micro- and nanoseconds, and durations not in days."""
    if unit in ("Y", "M", "W", "D"):
        return "D" if kind == "M" else "ms"
    return {"us": "us", "ns": "ns", "ps": "ns", "fs": "ns", "as": "ns"}.get(unit, "ms")


_VALUES = "must hold numbers, text, booleans or times"
_TIMES = (date, datetime, time, timedelta)


def _object_column(name: str, values: Sequence[Any]) -> pl.Series:
    """Python objects: of one kind as that kind, integers with floats as floats, other mixtures as text."""
    cleaned = [_python_value(value) for value in values]
    for row, value in enumerate(cleaned):
        if value is not None and not isinstance(value, str | int | float | Decimal | date | time | timedelta):
            fix = "Convert or drop the column."
            raise SchemaError(f"column {name!r}, row {row}", _VALUES, f"a {kind_of(value)}", fix)
    kinds = {type(value) for value in cleaned if value is not None}
    if kinds <= {str}:
        return pl.Series(cleaned, dtype=pl.String)
    if kinds == {bool} or (kinds == {int} and max(map(abs, (v for v in cleaned if v is not None))) < 2**63):
        return pl.Series(cleaned)
    if all(issubclass(kind, int | float | Decimal) and kind is not bool for kind in kinds):
        return pl.Series([None if value is None else float(value) for value in cleaned], nan_to_null=True)
    if len(kinds) == 1 and issubclass(next(iter(kinds)), _TIMES):
        return pl.Series(cleaned)
    return pl.Series([None if value is None else str(value) for value in cleaned], dtype=pl.String)


def _python_value(value: Any) -> Any:
    """A value as Python's own kind, ``None`` if it stands for a missing one."""
    if type(value).__name__ in ("NAType", "NaTType"):  # pandas' own, by name: it may not be installed
        return None
    if isinstance(value, np.datetime64 | np.timedelta64):
        return value.astype(f"{value.dtype.kind}8[us]").item()  # of NaT None; of nanoseconds it would be an integer
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float | Decimal) and value != value else value
