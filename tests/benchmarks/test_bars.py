from __future__ import annotations

from typing import Any

from canned import absent, call

from benchmarks.bars import Bar, bars
from benchmarks.report import BATCH_SIZES, LABELS
from benchmarks.summary import summarise


def found(*calls: dict[str, Any]) -> dict[str, Bar]:
    return {bar.what: bar for bar in bars(summarise(calls), BATCH_SIZES, LABELS)}


def ratio(loop_s: float, compiled_s: float) -> Bar:
    calls = [call("loop", 20, 1.0, loop_s), call("stoker-compiled", 20, 1.0, compiled_s)]
    return found(*calls)["california: PyTorch by hand, DataLoader / Stoker, compiled, steady step"]


def test_a_ratio_is_met_from_the_wanted_one_on() -> None:
    assert ratio(0.25, 0.01).met is True
    assert ratio(0.23, 0.01).met is False
    assert (ratio(0.23, 0.01).wanted, ratio(0.23, 0.01).measured) == ("≥ 24 ×", "23.00 ×")


def test_a_ratio_without_one_of_its_sides_says_which() -> None:
    calls = [absent("transforms", skipped="ImportError: no torchvision"), call("loop", 20, 1.0, 1.0, job="fashion")]
    bar = found(*calls)["fashion: PyTorch by hand, torchvision's transforms / Stoker, compiled, steady step"]
    assert bar.met is None
    side = "PyTorch by hand, torchvision's transforms"
    assert bar.measured == f"{side}: ImportError: no torchvision; Stoker, compiled: not run"


def test_larger_batches_do_not_count_for_the_ratios() -> None:
    calls = [call(side, 20, 1.0, s, batch_size=256) for side, s in (("loop", 1.0), ("stoker-compiled", 0.01))]
    assert all(bar.met is None for bar in found(*calls).values())


def test_twenty_epochs_are_to_be_finished_sooner_than_eagerly() -> None:
    calls = [
        call("stoker-eager", 20, 0.1, 0.1),
        call("stoker-compiled", 20, 1.5, 0.01),
        call("stoker-auto", 20, 2, 0.01),
    ]
    start = "california: 20 epochs from start to finish, "
    assert found(*calls)[f"{start}Stoker, compiled sooner than Stoker, eager"].met is True
    assert found(*calls)[f"{start}Stoker, auto sooner than Stoker, eager"].met is False


def test_memory_is_that_of_the_whole_process() -> None:
    eager = call("stoker-eager", 20, 1.0, 0.1, process_mb=500.0)
    what = "california: peak memory of the process, compiled beside eager"
    bar = found(eager, call("stoker-compiled", 20, 1.0, 0.1, process_mb=600.0))[what]
    assert (bar.wanted, bar.measured, bar.met) == ("≤ 1.2 ×", "1.20 × (600 and 500 MB)", True)
    assert found(eager, call("stoker-compiled", 20, 1.0, 0.1, process_mb=601.0))[what].met is False
    assert found(eager, call("stoker-compiled", 20, 1.0, 0.1, process_mb=None))[what].met is None


def auto(auto_s: float, eager: tuple[float, float], compiled_s: float) -> tuple[bool | None, bool | None]:
    calls = [call("stoker-auto", 1, auto_s, 0.0), call("stoker-compiled", 1, compiled_s, 0.0)]
    calls += [call("stoker-eager", 1, seconds, 0.0) for seconds in eager]
    where = "california, batch 32, 1 epochs: auto beside "
    return found(*calls)[f"{where}eager"].met, found(*calls)[f"{where}the better engine"].met


def test_auto_may_take_a_tenth_more_than_eager_and_the_noise() -> None:
    assert auto(10.9, (10.0, 10.0), 99.0) == (True, True)
    assert auto(11.2, (10.0, 10.0), 99.0) == (False, True)  # a grace of 0.3 s is for the better engine
    assert auto(11.2, (9.5, 10.5), 99.0) == (True, True)  # noise of 0.5 s
    assert auto(11.6, (9.5, 10.5), 99.0) == (False, False)


def test_auto_is_measured_against_the_better_engine() -> None:
    assert auto(5.0, (10.0, 10.0), 4.0) == (True, False)
    assert auto(4.6, (10.0, 10.0), 4.0) == (True, True)


def test_imports_that_auto_makes_within_its_call_count_for_both_in_a_bar_of_its_own() -> None:
    def two(auto_s: float) -> list[Bar]:
        compiled = call("stoker-compiled", 1, 4.0, 0.0, imports_s=0.5)
        every = found(compiled, call("stoker-auto", 1, auto_s, 0.0), call("stoker-eager", 1, 10.0, 0.0))
        what = "california, batch 32, 1 epochs: auto beside the better engine"
        return [every[what], every[f"{what}, JAX's import in both"]]

    assert [bar.wanted for bar in two(5.2)] == ["≤ 1.1 × 4.00 s + 0.3 s", "≤ 1.1 × 4.50 s + 0.3 s"]
    assert [bar.met for bar in two(4.6)] == [True, True]
    assert [bar.met for bar in two(5.2)] == [False, True]
    assert [bar.met for bar in two(5.3)] == [False, False]


def test_each_table_has_its_bars_for_auto_but_for_lengths_at_which_it_was_not_measured() -> None:
    calls = [
        call(side, epochs, 1.0, 0.1, threads=threads, batch_size=batch_size)
        for side in ("stoker-auto", "stoker-eager", "stoker-compiled")
        for epochs in (1, 20)
        for threads, batch_size in ((1, 32), (2, 32), (1, 256))
    ]
    every = [bar for bar in bars(summarise(calls), BATCH_SIZES, LABELS) if "auto beside" in bar.what]
    assert len(every) == 3 * 2 * 2
    assert not any("200 epochs" in bar.what for bar in every)  # it may take another engine for a longer call
