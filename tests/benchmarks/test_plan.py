from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.bars import RATIOS
from benchmarks.jobs import JOBS
from benchmarks.measure import Spec
from benchmarks.plan import FEWEST, Limits, Setting, chosen, epochs_that_fit, full, next_call, predicted, quick
from benchmarks.run import continued, in_turn, written
from benchmarks.sides import SIDES

LIMITS = Limits(steady_s=100.0, longest_s=20.0)


def test_every_job_is_run_by_every_side_that_can_with_one_and_two_threads() -> None:
    own: dict[tuple[str, int], list[str]] = {}
    for s in full():
        if s.batch_size == JOBS[s.job].batch_size:
            own.setdefault((s.job, s.threads), []).extend(s.sides)
    assert all(len(sides) == len(set(sides)) for sides in own.values())
    assert set(own) == {(job, threads) for job in JOBS for threads in (1, 2)}
    assert set(own["fashion", 1]) == set(SIDES)
    assert set(SIDES) - set(own["california", 2]) == {"transforms"}
    assert set(SIDES) - set(own["cnn", 1]) == {"transforms", "scikit-learn"}


def test_california_is_run_with_larger_batches() -> None:
    assert {(s.batch_size, s.threads) for s in full() if s.job == "california"} == {
        (size, threads) for size in (32, 256, 1024, 4096) for threads in (1, 2)
    }


def test_what_the_wanted_ratios_are_of_is_measured_in_several_rounds() -> None:
    several = [s for s in full(rounds=5) if s.rounds > 1]
    assert {s.rounds for s in several} == {5}
    ratios = {(ratio.job, side) for ratio in RATIOS for side in (ratio.ours, ratio.other)} - {("fashion", "transforms")}
    assert ratios <= {(s.job, side) for s in several for side in s.sides if s.batch_size == JOBS[s.job].batch_size}
    assert {s.threads for s in several} == {1}


def test_the_quick_plan_has_every_job_with_stokers_choice() -> None:
    assert {s.job for s in quick()} == set(JOBS)
    assert {s.job for s in quick() if "stoker-auto" in s.sides} == set(JOBS)


def test_some_jobs_and_sides_are_chosen() -> None:
    kept = chosen(full([1]), ["california"], ["loop", "transforms"])
    assert {s.job for s in kept} == {"california"}
    assert {s.sides for s in kept} == {("loop",)}
    assert {s.lengths for s in chosen(full([1]), [], ["skorch"])} == {(FEWEST, 20)}
    assert chosen(full([1]), ["cnn"], ["scikit-learn"]) == []


def test_epochs_that_fit() -> None:
    assert predicted(20, 5.0, 2.0) == 43.0
    assert epochs_that_fit(20, first_s=10.0, steady_s=10.0, limit_s=100.0) == 10
    assert epochs_that_fit(20, first_s=1.0, steady_s=1.0, limit_s=100.0) == 20
    assert epochs_that_fit(20, first_s=500.0, steady_s=90.0, limit_s=100.0) == FEWEST


@pytest.mark.parametrize(
    ("length", "done", "expected"),
    [
        (1, [], 1),
        (20, [], 20),
        (20, [[2.0]], 20),  # at most 40 s
        (20, [[9.0]], FEWEST),  # 180 s, if the first epoch is like the others: a closer look
        (20, [[9.0], [9.0, 1.0, 1.0, 1.0]], 20),  # it is not
        (20, [[9.0], [9.0, 9.0, 9.0, 9.0]], 11),
        (20, [[60.0], [60.0] * 4], None),  # four are as many as are made in any case
        (200, [[1.0], [1.0, *[0.05] * 19]], 200),
        (200, [[1.0], [1.0, *[0.5] * 19]], None),  # 100 s, to be extrapolated
        (200, [[9.0], [9.0] * 4, [9.0] * 11], None),
    ],
)
def test_the_next_call_is_as_long_as_is_predicted_to_fit(
    length: int, done: list[list[float]], expected: int | None
) -> None:
    assert next_call(length, done, LIMITS) == expected


def trainings(first_s: float, steady_s: float) -> tuple[list[Spec], Callable[[Spec], dict[str, Any]]]:
    seen: list[Spec] = []

    def one(spec: Spec) -> dict[str, Any]:
        seen.append(spec)
        if spec.side == "transforms":
            return {**vars(spec), "skipped": "ImportError: no torchvision"}
        return {**vars(spec), "epochs_s": [first_s, *[steady_s] * (spec.epochs - 1)]}

    return seen, one


def test_sides_take_turns_and_what_is_skipped_is_not_tried_again() -> None:
    seen, one = trainings(1.0, 0.01)
    setting = Setting("fashion", 32, 1, ("loop", "transforms"), lengths=(1, 20, 200), rounds=2)
    results = list(in_turn([setting], LIMITS, one))
    assert [(s.round, s.side, s.epochs) for s in seen] == [
        (0, "loop", 1),
        (0, "loop", 20),
        (0, "loop", 200),
        (0, "transforms", 1),
        (1, "loop", 1),
        (1, "loop", 20),
        (1, "loop", 200),
    ]
    assert [r["epochs"] for r in results if "skipped" in r] == [1]


def test_a_closer_look_is_not_repeated() -> None:
    seen, one = trainings(9.0, 1.0)
    list(in_turn([Setting("cnn", 32, 1, ("loop",), rounds=2)], LIMITS, one))
    assert [(s.round, s.epochs) for s in seen] == [(0, 1), (0, FEWEST), (0, 20), (1, 1), (1, 20)]


ABOUT = {"cpu": "a", "cores": 2, "system": "b", "python": "3", "versions": {"torch": "2"}, "quick": False}
RUN = {"date": "then", "jobs": ["cnn"]}


def test_results_are_added_to_earlier_ones_of_the_same_machine() -> None:
    about = {**ABOUT, "date": "then", "runs": [RUN]}
    earlier = {"about": about, "missing": {"flights": "no file"}, "measurements": [{"job": "cnn"}]}
    found = continued(earlier, {**ABOUT, "date": "now", "runs": [{"date": "now", "jobs": ["lstm"]}]})
    assert found["about"] == {**ABOUT, "date": "then", "runs": [RUN, {"date": "now", "jobs": ["lstm"]}]}
    assert found["missing"] == {"flights": "no file"}
    found["measurements"].append({"job": "lstm"})
    assert earlier["measurements"] == [{"job": "cnn"}]


@pytest.mark.parametrize("name", ["cpu", "cores", "system", "python", "versions", "quick"])
def test_results_of_something_else_are_not_added_to(name: str) -> None:
    earlier = {"about": {**ABOUT, name: "other"}, "missing": {}, "measurements": []}
    with pytest.raises(ValueError, match=rf"its {name} must be this run's, .*, got other\. Measure all anew\."):
        continued(earlier, ABOUT)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_each_measurement_is_a_line(count: int) -> None:
    one = {"job": "lstm", "epochs_s": [0.1, 1 / 3], "note": "a\nb"}
    results = {"about": ABOUT, "missing": {"cnn": "no data"}, "measurements": [one] * count}
    text = written(results)
    assert json.loads(text) == results
    assert sum('"epochs_s"' in line for line in text.splitlines()) == count
