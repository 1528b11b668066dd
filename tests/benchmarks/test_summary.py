from __future__ import annotations

import pytest
from canned import absent, call

from benchmarks.summary import Key, steady, step_us, summarise, total

HERE = Key("california", 32, 1, None)


def test_the_first_two_epochs_are_not_steady() -> None:
    assert steady([9.0, 5.0, 1.0, 2.0], "loop") == [1.0, 2.0]


def test_of_a_side_that_may_change_over_the_last_third_is_steady() -> None:
    assert steady([9.0, 5.0, 4.0, 3.0, 2.0, 1.0], "stoker-auto") == [2.0, 1.0]


def test_a_steady_step_is_the_median_over_calls_that_are_long_enough() -> None:
    calls = [call("loop", 20, 1.0, steady) for steady in (0.1, 0.2, 0.9)]
    assert step_us([*calls, call("loop", 1, 5.0, 5.0)]) == pytest.approx(0.2 / 100 * 1e6)
    assert step_us([call("loop", 1, 5.0, 5.0)]) is None


def test_a_measured_total_is_the_median_with_its_noise() -> None:
    found = total([call("loop", 20, first, 0.1) for first in (1.0, 1.2, 2.0)], 20)
    assert found is not None
    assert found.seconds == pytest.approx(1.2 + 1.9 + 0.001)
    assert found.noise == pytest.approx(0.5)
    assert not found.extrapolated


def test_a_total_is_extrapolated_from_the_longest_shorter_call() -> None:
    found = total([call("loop", 1, 7.0, 7.0), call("loop", 4, 7.0, 7.0), call("loop", 20, 1.0, 0.1)], 200)
    assert found is not None
    assert found.extrapolated
    assert found.seconds == pytest.approx(1.0 + 199 * 0.1)


def test_nothing_is_extrapolated_from_a_single_epoch() -> None:
    assert total([call("loop", 1, 7.0, 7.0)], 20) is None


def test_a_far_loss_is_marked_on_the_side_that_has_it() -> None:
    sides = ["loop", "jax", "resident", "skorch"]
    calls = [call(side, 20, 1.0, 0.1, loss=0.3) for side in sides] + [call("keras-jax", 20, 1.0, 0.1, loss=0.38)]
    assert [row.side for row in summarise(calls)[HERE] if row.loss_is_far] == ["keras-jax"]


def test_a_small_loss_may_differ_by_more_of_itself() -> None:
    losses = {"loop": 0.05, "jax": 0.05, "resident": 0.05, "skorch": 0.09, "keras-jax": 0.11}
    calls = [call(side, 20, 1.0, 0.1, loss=loss) for side, loss in losses.items()]
    assert [row.side for row in summarise(calls)[HERE] if row.loss_is_far] == ["keras-jax"]


def test_a_loss_that_is_no_number_is_far() -> None:
    calls = [call("loop", 20, 1.0, 0.1), call("resident", 20, 1.0, 0.1), call("jax", 20, 1.0, 0.1, loss=float("nan"))]
    assert [row.side for row in summarise(calls)[HERE] if row.loss_is_far] == ["jax"]


def test_losses_are_those_of_calls_of_equal_length() -> None:
    calls = [call("loop", 20, 1.0, 0.1, loss=0.3), call("loop", 4, 1.0, 0.1, loss=0.8)]
    calls.append(call("lightning", 4, 1.0, 0.1, loss=0.8))
    assert [(row.side, row.loss) for row in summarise(calls)[HERE]] == [("loop", 0.8), ("lightning", 0.8)]


def test_what_was_skipped_or_failed_says_why() -> None:
    rows = summarise(
        [absent("loop", job="california", skipped="ImportError: x"), absent("jax", job="california", failed="y")]
    )
    assert [(row.side, row.absent, row.step_us) for row in rows[HERE]] == [
        ("loop", "ImportError: x", None),
        ("jax", "failed: y", None),
    ]


def test_a_failure_after_a_success_is_told() -> None:
    rows = summarise([call("loop", 1, 1.0, 0.1), {**absent("loop", job="california", failed="y"), "epochs": 20}])
    assert rows[HERE][0].note == "a call of 20 epochs failed: y"


def test_tables_are_told_apart_by_batch_size_and_threads() -> None:
    calls = [call("loop", 1, 1.0, 1.0), call("loop", 1, 1.0, 1.0, threads=2), call("loop", 1, 1.0, 1.0, batch_size=256)]
    larger, threads = Key("california", 256, 1, None), Key("california", 32, 2, None)
    assert list(summarise(calls)) == [HERE, larger, threads]  # as the plan has them
