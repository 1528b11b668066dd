from __future__ import annotations

from benchmarks.memory import HEAD, Peak, line, over

TABLE = """\
MB             eager   files  compiled   files   ratio
california       318      94       541     218    1.70 ×  over 1.2 ×
fashion          500      94       600     218    1.20 ×"""


def peaks(eager: float, compiled: float, note: str = "compiled: as asked") -> dict[str, Peak]:
    return {"eager": Peak(eager, 94.0, "eager: as asked"), "compiled": Peak(compiled, 218.0, note)}


def test_a_fifth_more_than_eagerly_is_allowed() -> None:
    assert not over(peaks(300.0, 360.0))
    assert over(peaks(300.0, 361.0))


def test_an_eager_training_in_the_place_of_a_compiled_one_is_no_answer() -> None:
    found = peaks(300.0, 301.0, "eager: no JAX (No module named 'jax')")
    assert over(found)
    assert line("california", found).endswith("  eager: no JAX (No module named 'jax')")


def test_a_row_stands_below_its_head_and_says_what_is_over() -> None:
    assert "\n".join((HEAD, line("california", peaks(317.6, 540.8)), line("fashion", peaks(500.0, 600.0)))) == TABLE
