"""Which rows train, which choose the best epoch, and which test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from stoker.data.kinds import shorten
from stoker.errors import ConfigError, SplitError
from stoker.randomness import derive_seed

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Split", "split_rows"]

Rows: TypeAlias = "NDArray[np.int64]"


@dataclass(frozen=True, eq=False)
class Split:
    """Row numbers, counted from 0, in ascending order: no row twice, and together all rows.

    Attributes:
        train: int64, the rows to train on.
        valid: int64, the rows to choose by (the best epoch, when to stop); may be empty.
        test: int64, the rows to measure on, once; may be empty.
    """

    train: Rows
    valid: Rows
    test: Rows


def split_rows(
    n: int,
    *,
    seed: int,
    valid_size: float | int = 0.2,
    test_size: float | int = 0.2,
    labels: NDArray[Any] | None = None,
    groups: NDArray[Any] | None = None,
    times: NDArray[Any] | None = None,
) -> Split:
    """Divide rows into training, validation and test.

    - By default at random, by scikit-learn's ``train_test_split``.
    - With ``labels``, at random with each label in each part in proportion (stratified).
    - With ``groups``, at random by whole groups: no group is in two parts. Groups are drawn one after the other, and
      taken while that brings a part's number of *rows* nearer to its size. (scikit-learn's ``GroupShuffleSplit`` counts
      groups, not rows, and misses the size where groups are uneven.)
    - With ``times``, not at random: the latest rows are for the test, those before them for validation. Rows of one
      time stay together, so that the sizes are met as nearly as that allows.

    The test rows depend on ``seed``, ``n`` and ``test_size``, and not on ``valid_size``.

    Args:
        n: The number of rows.
        seed: The user's seed.
        valid_size: The size of the validation part: a fraction of all rows in [0, 1), of which at least one row comes
            if it is not 0, or a number of rows. 0 for none.
        test_size: Likewise for the test part.
        labels: Shape ``[n]``, the class of each row, to stratify by; not used with ``groups`` or ``times``, which leave
            no choice of rows.
        groups: Shape ``[n]``, what each row belongs to, such as a patient.
        times: Shape ``[n]``, when each row happened: numbers, ``datetime64``, or text in ISO 8601.

    Returns:
        The split.

    Raises:
        SplitError: The sizes leave nothing to train on or are out of range; there are too few rows, groups, distinct
            times or rows of one class; or a label, group or time is missing.
        ConfigError: Both ``groups`` and ``times`` are given.
    """
    named = {"labels": labels, "groups": groups, "times": times}
    if groups is not None and times is not None:
        fix = "Keep the one that matters more."
        raise ConfigError("split", "must be by groups or by times", "both", fix)
    if n < 1:
        raise SplitError("split", "must have rows to divide", str(n), "Check the source.")
    n_valid, n_test = _count(valid_size, n, "valid_size"), _count(test_size, n, "test_size")
    if n_valid + n_test >= n:
        got = f"{n_valid:,} for validation and {n_test:,} for the test, of {n:,} rows"
        raise SplitError("split", "must leave rows to train on", got, "Make valid_size or test_size smaller, or 0.")
    for name, values in named.items():
        if values is not None and np.shape(values) != (n,):
            got = f"shape {np.shape(values)} for {n:,} rows"
            raise SplitError(name, "must have one value a row", got, "Take the column of the same table.")
    if times is not None:
        return _split_by_time(_time_codes(times), n_valid, n_test)
    if groups is not None:
        return _split_by_group(_codes(groups, "groups")[0], n_valid, n_test, seed)
    return _split_at_random(n, n_valid, n_test, seed, None if labels is None else _codes(labels, "labels"))


def _count(size: float | int, n: int, name: str) -> int:
    """A size as a number of rows."""
    if isinstance(size, bool) or not isinstance(size, (int, float, np.integer, np.floating)):
        raise SplitError(name, "must be a fraction or a number of rows", repr(size), "Give 0.2, or 1000.")
    if isinstance(size, (float, np.floating)):
        if not 0 <= size < 1:
            fix = "Give 0.2 for a fifth of the rows; give an integer for a number of rows."
            raise SplitError(name, "must be a fraction in [0, 1)", str(size), fix)
        return max(1, int(size * n + 0.5)) if size > 0 else 0
    if size < 0:
        raise SplitError(name, "must be 0 or more rows", str(size), "Give 0 for none.")
    return int(size)


def _codes(values: NDArray[Any], name: str) -> tuple[Rows, NDArray[Any]]:
    """Number the distinct values from 0: the code of each row, and the values."""
    array = np.asarray(values)
    missing = array != array if array.dtype.kind in "fcmM" else np.zeros(len(array), bool)  # NaN, NaT
    if array.dtype.kind == "O":
        missing = np.array([_is_missing(value) for value in array.tolist()], bool)
        array = array.astype(str)
    if missing.any():
        row = int(missing.argmax())
        raise SplitError(f"{name}, row {row} (counting from 0)", "must have a value", "a missing one", "Drop the row.")
    distinct, codes = np.unique(array, return_inverse=True)
    return codes.astype(np.int64), distinct


def _is_missing(value: object) -> bool:
    try:
        return value is None or bool(value != value)  # NaN, NaT
    except (TypeError, ValueError):  # pandas.NA refuses to be compared
        return True


def _time_codes(times: NDArray[Any]) -> Rows:
    """Number the distinct times in their order."""
    array = np.asarray(times)
    if array.dtype.kind in "OUS":
        import polars as pl

        from stoker.data import cells

        text = pl.Series("times", [None if value is None else str(value) for value in array.tolist()], dtype=pl.String)
        reading = cells.datetimes(text)
        assert reading is not None
        row = reading.first_odd()
        if row is not None:
            fix = "Write times as 2013-01-31T10:05:59."
            raise SplitError(f"times, row {row} (counting from 0)", "must be a time", shorten(text[row]), fix)
        array = reading.values.to_numpy()
    return _codes(array, "times")[0]


def _split_at_random(n: int, n_valid: int, n_test: int, seed: int, labels: tuple[Rows, NDArray[Any]] | None) -> Split:
    if labels is not None:
        _check_classes(labels, n, n_valid, n_test)
    codes = None if labels is None else labels[0]
    rows = np.arange(n, dtype=np.int64)
    rest, test = _draw(rows, n_test, derive_seed(seed, "split", "test", bits=32), codes)
    train, valid = _draw(rest, n_valid, derive_seed(seed, "split", "valid", bits=32), codes)
    return Split(np.sort(train), np.sort(valid), np.sort(test))


def _draw(rows: Rows, size: int, seed: int, codes: Rows | None) -> tuple[Rows, Rows]:
    """Draw ``size`` of the rows: those left, and those drawn."""
    if size == 0:
        return rows, rows[:0]
    from sklearn.model_selection import train_test_split

    kept = rows[:0]
    if codes is not None:
        # a class that the test left with one row cannot be in two parts any more: it is trained on
        counts = np.bincount(codes[rows])
        alone = counts[codes[rows]] == 1
        kept, rows = rows[alone], rows[~alone]
    stratify = None if codes is None else codes[rows]
    try:
        left, drawn = train_test_split(rows, test_size=size, random_state=seed, stratify=stratify)
    except ValueError as error:
        fix = "Choose other sizes, or do not stratify."
        raise SplitError("split", "must be possible", str(error).rstrip("."), fix) from None
    return np.concatenate([kept, left]), drawn


def _check_classes(labels: tuple[Rows, NDArray[Any]], n: int, n_valid: int, n_test: int) -> None:
    """Say beforehand, and by name, what scikit-learn would refuse to stratify."""
    codes, names = labels
    sizes = {"train": n - n_valid - n_test, "valid": n_valid, "test": n_test}
    parts = {part: size for part, size in sizes.items() if size > 0}
    counts = np.bincount(codes)
    rarest = int(counts.argmin())
    if counts[rarest] < len(parts):
        got = f"{counts[rarest]} of class {shorten(names[rarest])}"
        fix = (
            "Merge the class with another, drop it, make fewer parts (valid_size=0 or test_size=0), or do not stratify."
        )
        raise SplitError("labels", f"must have a row of each class for each of {len(parts)} parts", got, fix)
    for part, size in parts.items():
        if len(parts) > 1 and size < len(names):
            fix = f"Make {part} larger, or do not stratify."
            raise SplitError("split", f"must have a row of each of {len(names)} classes in {part}", f"{size} rows", fix)


def _split_by_group(codes: Rows, n_valid: int, n_test: int, seed: int) -> Split:
    sizes = np.bincount(codes)
    parts = 1 + (n_valid > 0) + (n_test > 0)
    if len(sizes) < parts:
        fix = "Group by another column, or make fewer parts (valid_size=0 or test_size=0)."
        raise SplitError("groups", f"must have a group for each of {parts} parts", f"{len(sizes)} groups", fix)
    order = np.random.default_rng(derive_seed(seed, "split", "groups")).permutation(len(sizes))
    test, rest = _take_groups(order, sizes, n_test, leave=1 + (n_valid > 0))
    valid, train = _take_groups(rest, sizes, n_valid, leave=1)
    return Split(*(np.flatnonzero(np.isin(codes, part)).astype(np.int64) for part in (train, valid, test)))


def _take_groups(order: Rows, sizes: Rows, wanted: int, leave: int) -> tuple[Rows, Rows]:
    """Take groups in the order given while each brings the rows nearer to ``wanted``: those taken, and the others."""
    if wanted == 0:
        return order[:0], order
    taken = np.zeros(len(order), bool)
    rows = 0
    for i, size in enumerate(sizes[order].tolist()):
        if abs(rows + size - wanted) < abs(rows - wanted) and len(order) - taken.sum() > leave:
            taken[i] = True
            rows += size
            if rows >= wanted:
                break
    if rows == 0:  # every group is more than twice what is wanted
        taken[sizes[order].argmin()] = True
    return order[taken], order[~taken]


def _split_by_time(codes: Rows, n_valid: int, n_test: int) -> Split:
    n = len(codes)
    order = np.argsort(codes, kind="stable")
    borders = np.flatnonzero(np.diff(codes[order])) + 1  # where in that order a new time begins
    parts = 1 + (n_valid > 0) + (n_test > 0)
    if len(borders) < parts - 1:
        fix = "Split by another column, or make fewer parts (valid_size=0 or test_size=0)."
        raise SplitError("times", f"must have a time for each of {parts} parts", f"{len(borders) + 1} distinct", fix)
    test_start = n
    if n_test:
        usable = borders[int(n_valid > 0) :]
        test_start = int(usable[np.abs(usable - (n - n_test)).argmin()])
    valid_start = test_start
    if n_valid:
        usable = borders[borders < test_start]
        valid_start = int(usable[np.abs(usable - (test_start - n_valid)).argmin()])
    pieces = (order[:valid_start], order[valid_start:test_start], order[test_start:])
    return Split(*(np.sort(piece).astype(np.int64) for piece in pieces))
