from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from canned import results
from PIL import Image

from benchmarks import report


def test_the_page_says_what_was_measured_on_what() -> None:
    page = report.page(results())
    assert "Measured 2026-01-02T03:04+00:00 on Some Processor, 2 cores, Linux, Python 3.11.1." in page
    assert "torch 2.13.0. Without torchvision." in page
    assert "One run: 2026-01-02T03:04+00:00, commit abc1234, duration 50 minutes." in page


def test_figures_of_several_runs_are_said_to_be_so() -> None:
    changed = results()
    (first,) = changed["about"]["runs"]
    changed["about"]["runs"].append({**first, "jobs": ["cnn"], "sides": ["jax", "loop"], "commit": ""})
    page = report.page(changed)
    assert "Not one run but 2: " in page
    assert "commit unknown, duration 50 minutes (jobs cnn; sides jax, loop; threads 1)" in page
    assert ", in 2 runs. All of it" in report.short(changed)


def test_a_table_has_a_row_for_each_side_the_fastest_first() -> None:
    lines = report.page(results()).splitlines()
    start = lines.index("## California housing, 8-50-40-1: batch 32, 1 thread")
    assert lines[start + 1].startswith("| ")
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines[start + 3 : start + 8]]
    assert [row[0] for row in rows] == [
        "**Stoker, compiled**",
        "JAX by hand",
        "**Stoker, auto**",
        "**Stoker, eager**",
        "PyTorch by hand, DataLoader",
    ]
    # µs per step, first epoch, 1, 20, 200 and 500 epochs, memory, loss
    assert rows[0][1:] == ["20.0", "1.10", "1.10", "1.14", "~1.50", "~2.10", "50", "0.3000"]


def test_the_page_says_what_is_missing_and_why() -> None:
    page = report.page(results())
    assert "## Flights, 3 embeddings of 8, 64-32-1\nSkipped: no flights.csv in $STOKER_DATA" in page
    assert "- PyTorch by hand, torchvision's transforms: no figures: ImportError: no torchvision" in page
    assert "- skorch: no figures: failed: ValueError: what it said" in page
    assert "- Stoker, compiled: compiled: as asked" in page


def test_the_page_says_what_each_side_that_was_measured_does() -> None:
    page = report.page(results())
    assert (
        "- *JAX by hand*: JAX by hand, as fast as we know how: `jit` of a `lax.scan` over an epoch's batches." in page
    )
    assert page.count("- *Stoker, compiled*: ") == 1
    assert "*Keras on JAX*" not in page


def test_wishes_that_are_not_met_come_first() -> None:
    lines = report.page(results()).split("## What is wanted")[1].split("## The sides")[0].strip().splitlines()
    answers = [line.strip("| ").split("|")[-1].strip() for line in lines[4:]]
    assert lines[0].startswith(f"{answers.count('yes')} met, {answers.count('**no**')} not met, ")
    assert answers == sorted(answers, key=["**no**", "not measured", "yes"].index)
    assert {"**no**", "not measured", "yes"} == set(answers)


def test_a_far_loss_is_marked() -> None:
    changed = results()
    for one in changed["measurements"]:
        if one["side"] == "jax":
            one["loss"] = 0.9
    assert "| 0.9000 **!** |" in report.page(changed)
    assert "**!** |" not in report.page(results())


def test_a_quick_run_says_that_it_is_one() -> None:
    changed = results()
    changed["about"]["quick"] = True
    assert "A quick run" in report.page(changed)
    assert "A quick run" not in report.page(results())


def test_the_short_table_has_ratios_to_the_compiled_engine() -> None:
    assert "| PyTorch by hand, DataLoader | 600 | 30.00 | 600 | 30.00 |" in report.short(results())
    assert "; Some Processor, torch 2.13.0, 2026-01-02. All of it" in report.short(results())


def test_only_what_stands_between_the_markers_is_replaced() -> None:
    text = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    assert report.between(text, "new") == f"before\n{report.BEGIN}\nnew\n{report.END}\nafter\n"
    assert report.between(report.between(text, "x"), "new") == report.between(text, "new")
    with pytest.raises(ValueError, match="the README must have the lines"):
        report.between("no markers", "new")


def test_the_readme_has_the_markers() -> None:
    assert report.between(report.README.read_text(encoding="utf-8"), "new") != ""


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, file in {"PAGE": "benchmark.md", "PICTURE": "images/benchmark.png", "README": "README.md"}.items():
        monkeypatch.setattr(report, name, tmp_path / file)
    monkeypatch.setattr(report, "ROOT", tmp_path)
    (tmp_path / "README.md").write_text(f"{report.BEGIN}\n{report.END}\n")
    return tmp_path


def test_the_report_is_made_from_the_file_alone(
    places: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = places / "results.json"
    file.write_text(json.dumps(results()))
    monkeypatch.setattr(sys, "argv", ["report", str(file)])
    report.main()
    assert "benchmark.md" in capsys.readouterr().out
    assert (places / "benchmark.md").read_text(encoding="utf-8").startswith("# Benchmark\n")
    assert "| **Stoker, compiled** |" in (places / "README.md").read_text(encoding="utf-8")
    with Image.open(places / "images" / "benchmark.png") as image:
        assert image.width > 1000
        assert len(set(image.convert("RGB").resize((200, 100)).get_flattened_data())) > 10  # not an empty sheet


def test_no_results_say_how_to_make_some(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["report", str(places / "none.json")])
    with pytest.raises(SystemExit, match="Make some: make bench"):
        report.main()


def test_results_of_nothing_but_skips_make_a_report_all_the_same(places: Path) -> None:
    empty: dict[str, Any] = {**results(), "measurements": []}
    report.write(empty)
    assert "0 met, 0 not met, 0 not measured" in (places / "benchmark.md").read_text(encoding="utf-8")
