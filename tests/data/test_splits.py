from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from stoker.data.splits import Split, split_rows
from stoker.errors import ConfigError, SplitError, StokerError
from stoker.randomness import derive_seed


def sizes(split: Split) -> tuple[int, int, int]:
    return len(split.train), len(split.valid), len(split.test)


def check_whole(split: Split, n: int) -> None:
    parts = (split.train, split.valid, split.test)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(n))
    for part in parts:
        assert part.dtype == np.int64
        assert (np.diff(part) > 0).all()


def equal(one: Split, other: Split) -> bool:
    return all(np.array_equal(getattr(one, part), getattr(other, part)) for part in ("train", "valid", "test"))


@settings(deadline=None)
@given(
    n=st.integers(1, 60),
    seed=st.integers(0, 2**31),
    valid_size=st.floats(0, 0.6) | st.integers(0, 20),
    test_size=st.floats(0, 0.6) | st.integers(0, 20),
    by=st.sampled_from(["rows", "labels", "groups", "times"]),
    distinct=st.integers(1, 8),
)
def test_a_split_has_all_rows_once_or_says_why_not(
    n: int, seed: int, valid_size: float, test_size: float, by: str, distinct: int
) -> None:
    values = np.random.default_rng(seed).integers(0, distinct, n)
    try:
        split = split_rows(
            n, seed=seed, valid_size=valid_size, test_size=test_size, **({} if by == "rows" else {by: values})
        )
    except SplitError:
        return
    check_whole(split, n)
    assert len(split.train) > 0
    assert (len(split.valid) > 0) == (valid_size > 0)
    assert (len(split.test) > 0) == (test_size > 0)


def test_sizes_are_fractions_of_all_rows_or_numbers_of_rows() -> None:
    assert sizes(split_rows(100, seed=0)) == (60, 20, 20)
    assert sizes(split_rows(1000, seed=0, valid_size=0.05, test_size=0.333)) == (617, 50, 333)
    assert sizes(split_rows(100, seed=0, valid_size=7, test_size=1)) == (92, 7, 1)
    assert sizes(split_rows(100, seed=0, valid_size=0, test_size=0.0)) == (100, 0, 0)
    assert sizes(split_rows(3, seed=0)) == (1, 1, 1)


def test_the_work_is_scikit_learns() -> None:
    split = split_rows(50, seed=3, valid_size=0, test_size=10)
    _, test = train_test_split(np.arange(50), test_size=10, random_state=derive_seed(3, "split", "test", bits=32))
    assert np.array_equal(split.test, np.sort(test))


def test_the_seed_decides_and_the_test_rows_do_not_depend_on_the_others() -> None:
    assert equal(split_rows(200, seed=1), split_rows(200, seed=1))
    assert not equal(split_rows(200, seed=1), split_rows(200, seed=2))
    assert np.array_equal(split_rows(200, seed=1).test, split_rows(200, seed=1, valid_size=0).test)


def test_labels_are_in_proportion_in_every_part() -> None:
    labels = np.array(["rare"] * 50 + ["common"] * 450, dtype=object)
    split = split_rows(500, seed=0, labels=labels)
    for part, rare in ((split.train, 30), (split.valid, 10), (split.test, 10)):
        assert (labels[part] == "rare").sum() == rare


def test_a_class_with_a_row_for_each_part_can_always_be_stratified() -> None:
    labels = np.array([0] * 3 + [1] * 60)
    for seed in range(20):
        split = split_rows(63, seed=seed, labels=labels, test_size=0.45, valid_size=0.1)
        check_whole(split, 63)
        assert (labels[split.train] == 0).any() or (labels[split.test] == 0).sum() == 2


def uneven_groups(n: int) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(0)
    return np.repeat(np.arange(n), rng.geometric(0.05, n))


def test_groups_stay_whole_and_sizes_are_met_in_rows() -> None:
    groups = uneven_groups(60)
    n = len(groups)
    for seed in range(10):
        split = split_rows(n, seed=seed, groups=groups)
        check_whole(split, n)
        sets = [set(groups[part]) for part in (split.train, split.valid, split.test)]
        assert not sets[0] & sets[1]
        assert not sets[0] & sets[2]
        assert not sets[1] & sets[2]
        # a part ends with the group that brings it nearest, so it is off by less than the largest group
        largest = np.bincount(groups).max()
        assert abs(len(split.test) - n / 5) < largest
        assert abs(len(split.valid) - n / 5) < largest


def test_groups_may_be_text_and_larger_than_a_part() -> None:
    groups = np.array(["ann"] * 10 + ["bob"] * 30 + ["cy"] * 12)
    split = split_rows(52, seed=0, groups=groups, valid_size=0.01, test_size=0.01)
    check_whole(split, 52)
    assert {tuple(sorted(set(groups[part]))) for part in (split.train, split.valid, split.test)} == {
        ("ann",),
        ("bob",),
        ("cy",),
    }


@pytest.mark.parametrize("kind", ["numbers", "datetime64", "text"])
def test_times_go_forward(kind: str) -> None:
    days = np.random.default_rng(0).permutation(100)
    dates = np.datetime64("2020-01-01") + days
    times = {"numbers": days.astype(float), "datetime64": dates, "text": dates.astype(str).astype(object)}[kind]
    split = split_rows(100, seed=0, times=times)
    check_whole(split, 100)
    assert sizes(split) == (60, 20, 20)
    assert days[split.train].max() < days[split.valid].min()
    assert days[split.valid].max() < days[split.test].min()


def test_rows_of_one_time_stay_together() -> None:
    times = np.repeat(np.arange(4), [40, 25, 25, 10])
    split = split_rows(100, seed=0, times=times)
    assert [set(times[part].tolist()) for part in (split.train, split.valid, split.test)] == [{0, 1}, {2}, {3}]
    split = split_rows(100, seed=0, times=np.repeat([0, 1, 2], [1, 98, 1]))
    assert sizes(split) == (1, 98, 1)


def test_labels_are_of_no_use_beside_groups_or_times() -> None:
    groups, labels = np.arange(20) % 5, np.arange(20)
    assert equal(split_rows(20, seed=0, groups=groups, labels=labels), split_rows(20, seed=0, groups=groups))
    assert equal(split_rows(20, seed=0, times=groups, labels=labels), split_rows(20, seed=0, times=groups))


ABC = np.array(["a"] * 10 + ["b"] * 8 + ["c"] * 2)


@pytest.mark.parametrize(
    ("n", "arguments", "message"),
    [
        (0, {}, "split: must have rows to divide, got 0"),
        (2, {}, "split: must leave rows to train on, got 1 for validation and 1 for the test, of 2 rows. Make valid_"),
        (10, {"valid_size": 0.5, "test_size": 0.5}, "got 5 for validation and 5 for the test, of 10 rows"),
        (10, {"valid_size": 20}, "got 20 for validation and 2 for the test, of 10 rows"),
        (10, {"valid_size": 1.0}, r"valid_size: must be a fraction in \[0, 1\), got 1.0. Give 0.2 for a fifth"),
        (10, {"test_size": -0.1}, r"test_size: must be a fraction in \[0, 1\), got -0.1"),
        (10, {"test_size": float("nan")}, r"test_size: must be a fraction in \[0, 1\), got nan"),
        (10, {"test_size": -1}, "test_size: must be 0 or more rows, got -1"),
        (10, {"test_size": True}, "test_size: must be a fraction or a number of rows, got True"),
        (10, {"test_size": "a"}, "test_size: must be a fraction or a number of rows, got 'a'"),
        (20, {"labels": ABC}, "labels: must have a row of each class for each of 3 parts, got 2 of class 'c'. Merge"),
        (
            21,
            {"labels": np.repeat(np.arange(3), 7), "valid_size": 2},
            "split: must have a row of each of 3 classes in valid, got 2 rows. Make valid larger, or do not stratify",
        ),
        (
            20,
            {"labels": np.array(["a", None] * 10, dtype=object)},
            r"labels, row 1 \(counting from 0\): must have a value",
        ),
        (10, {"groups": np.zeros(10)}, "groups: must have a group for each of 3 parts, got 1 groups. Group by another"),
        (10, {"groups": np.arange(9)}, r"groups: must have one value a row, got shape \(9,\) for 10 rows"),
        (10, {"times": np.zeros(10)}, "times: must have a time for each of 3 parts, got 1 distinct. Split by another"),
        (
            3,
            {"times": np.array([1, np.nan, 2])},
            r"times, row 1 \(counting from 0\): must have a value, got a missing one",
        ),
        (3, {"times": np.array(["2020-01-01", "NaT", "2020-01-02"], "M8[D]")}, r"times, row 1 .*: must have a value"),
        (3, {"times": np.array(["2020-01-01", None, "x"], dtype=object)}, r"times, row 2 .*: must be a time, got 'x'"),
    ],
)
def test_splits_that_cannot_be_made(n: int, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SplitError, match=message):
        split_rows(n, seed=0, **arguments)


def test_what_scikit_learn_refuses_is_no_bare_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ValueError("The sky is falling.")

    monkeypatch.setattr("sklearn.model_selection.train_test_split", refuse)
    with pytest.raises(SplitError, match=r"split: must be possible, got The sky is falling. Choose other sizes"):
        split_rows(10, seed=0)


def test_a_missing_value_of_pandas_is_missing() -> None:
    pd = pytest.importorskip("pandas")
    with pytest.raises(SplitError, match=r"groups, row 1 \(counting from 0\): must have a value, got a missing one"):
        split_rows(3, seed=0, groups=np.array(["a", pd.NA, "b"], dtype=object))


def test_groups_and_times_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match=r"split: must be by groups or by times, got both. Keep the one"):
        split_rows(10, seed=0, groups=np.arange(10), times=np.arange(10))
    assert issubclass(ConfigError, StokerError)
