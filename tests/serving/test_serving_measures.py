"""Measures in Prometheus' text format, of one process and of several."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pytest

from stoker.serving.measures import Measures


def read(text: str) -> dict[str, float]:
    """Each series with its value; the format by https://prometheus.io/docs/instrumenting/exposition_formats/."""
    values = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            found = re.fullmatch(r'([a-z_]+(?:\{(?:[a-z]+="[^"\\\n]*",?)*\})?) (\S+)', line)
            assert found, line
            values[found[1]] = float(found[2])
    assert text.endswith("\n")
    return values


def test_a_histogram_counts_what_is_at_most_its_bounds() -> None:
    measures = Measures(waiting=lambda: 7)
    for seconds in (0.001, 0.0011, 0.3, 99.0):
        measures.request("POST", "/predict", 200, seconds)
    measures.request("GET", "/info", 200, 5.0)
    measures.batch(3)
    values = read(measures.render())
    assert values['stoker_requests_total{method="POST",path="/predict",status="200"}'] == 4
    assert values['stoker_request_seconds_bucket{le="0.001"}'] == 1
    assert values['stoker_request_seconds_bucket{le="0.0025"}'] == 2
    assert values['stoker_request_seconds_bucket{le="10"}'] == 3
    assert values['stoker_request_seconds_bucket{le="+Inf"}'] == values["stoker_request_seconds_count"] == 4
    assert values["stoker_request_seconds_sum"] == pytest.approx(99.3021), "of predictions alone"
    assert (values['stoker_batch_rows_bucket{le="2"}'], values['stoker_batch_rows_bucket{le="4"}']) == (0, 1)
    assert values["stoker_queue_rows"] == 7


def test_those_of_several_processes_are_added_up(tmp_path: Path) -> None:
    here = Measures(waiting=lambda: 1, shared=tmp_path)
    here.request("POST", "/predict", 200, 0.1)
    here.write()
    other = json.loads((tmp_path / f"{os.getpid()}.json").read_text())
    (tmp_path / "1.json").write_text(json.dumps(other))
    (tmp_path / "2.json").write_text(json.dumps(other))
    an_hour_ago = time.time() - 3600
    os.utime(tmp_path / "2.json", (an_hour_ago, an_hour_ago))
    values = read(here.render())
    assert values['stoker_requests_total{method="POST",path="/predict",status="200"}'] == 3
    assert values["stoker_request_seconds_count"] == 3
    assert values["stoker_queue_rows"] == 2, "a process that is gone has counted, and has nothing waiting"
