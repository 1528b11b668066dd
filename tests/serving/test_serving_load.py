"""Under load no request is lost or mixed up; a server that is killed loses what was in flight, and nothing else."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import time
from typing import Any

import httpx
import pytest
from served_process import Server, serving
from served_runs import mixed

import stoker
from benchmarks.load import Outcome, send_all


def rows_of(count: int) -> tuple[Any, list[dict[str, Any]]]:
    """Rows that all have predictions of their own."""
    frame = mixed("price", count, seed=9).drop("price")
    return frame, json.loads(json.dumps(frame.to_dicts(), default=str))


def address(server: Server) -> tuple[str, int]:
    url = httpx.URL(server.url)
    return url.host, url.port or 80


@pytest.mark.parametrize("connections", [1, 8, 64])
def test_no_request_is_lost_or_mixed_up(connections: int, prices: Server, price_run: stoker.Run) -> None:
    frame, rows = rows_of(60 if connections == 1 else 400)
    wanted = price_run.predict(frame).values
    assert len(set(wanted)) == len(wanted)
    outcome = asyncio.run(send_all(*address(prices), rows, wanted, connections))
    assert (outcome.lost, outcome.wrong, outcome.statuses) == ([], [], {})
    assert sorted(outcome.answered.elements()) == list(range(len(rows)))


@pytest.mark.slow
def test_requests_of_one_row_queue_as_others_do(price_run: stoker.Run) -> None:
    frame, rows = rows_of(400)
    wanted = price_run.predict(frame).values
    with serving(price_run.path, "--max-rows", "1") as server:
        outcome = asyncio.run(send_all(*address(server), rows, wanted, 64))
    assert (outcome.lost, outcome.wrong, outcome.statuses) == ([], [], {})


def test_batches_form_under_load(prices: Server, price_run: stoker.Run) -> None:
    def batches() -> tuple[float, float]:
        text = httpx.get(f"{prices.url}/metrics", trust_env=False).text
        lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return float(lines["stoker_batch_rows_count"]), float(lines["stoker_batch_rows_sum"])

    frame, rows = rows_of(400)
    count, total = batches()
    asyncio.run(send_all(*address(prices), rows, price_run.predict(frame).values, 64))
    after, rows_after = batches()
    assert rows_after - total == 400
    assert after - count < 300, "several at once"


@pytest.mark.slow
def test_a_server_that_is_killed_loses_only_what_was_in_flight(price_run: stoker.Run) -> None:
    connections = 8
    frame, rows = rows_of(6000)
    wanted = price_run.predict(frame).values
    first = Server(price_run.path)
    host, port = address(first)
    outcomes: list[Outcome] = []
    clients = threading.Thread(
        target=lambda: outcomes.append(asyncio.run(send_all(host, port, rows, wanted, connections, patience=60)))
    )
    clients.start()
    time.sleep(0.7)
    killed = time.monotonic()
    first.stop(signal.SIGKILL)
    dead = time.monotonic()
    assert not outcomes, "it was killed in the midst of it"
    with serving(price_run.path, "--port", str(port)):
        clients.join(90)
    outcome = outcomes[0]
    assert (outcome.wrong, outcome.statuses) == ([], {})
    assert all(lost.sent <= dead and lost.broke >= killed for lost in outcome.lost)
    assert 0 < len(outcome.lost) <= 3 * connections, "while it dies it takes connections still, which break too"
    assert set(outcome.answered) | {lost.number for lost in outcome.lost} == set(range(len(rows)))
    assert max(outcome.answered.values()) == 1
