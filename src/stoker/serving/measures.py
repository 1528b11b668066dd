"""What the server measures of itself, in Prometheus' text format (version 0.0.4).

Where several processes serve, each writes its measures to a shared directory every second, and whichever is asked adds
them up; those of a process that ended stay, so that counters never fall.
"""

from __future__ import annotations

import json
import os
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["CONTENT_TYPE", "Measures"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
_STALE = 5.0  # seconds after which a process that writes no more counts as gone, and with it what waits there


class _Histogram:
    """How many observations are at most so large, by bounds; and their sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Measures:
    """Counts requests by path and status, their seconds, the rows of batches, and what waits.

    Args:
        waiting: Asked for the number of rows that wait.
        shared: The directory that several processes share, if there are several.
    """

    def __init__(self, waiting: Callable[[], int] = lambda: 0, shared: Path | None = None) -> None:
        self.waiting = waiting
        self._shared = shared
        self._requests: dict[tuple[str, str, int], int] = {}
        self._seconds = _Histogram(_SECONDS)
        self._batches = _Histogram(_ROWS)

    def request(self, method: str, path: str, status: int, seconds: float) -> None:
        """Count a request that was answered.

        Args:
            method: Of HTTP; ``other`` for one that is none of the usual.
            path: One of the server's own; never what a client made up, since each makes a series of its own.
            status: Of the answer.
            seconds: From its first byte here to the last byte of its answer.
        """
        key = (method, path, status)
        self._requests[key] = self._requests.get(key, 0) + 1
        if path == "/predict" or path.endswith("/infer"):
            self._seconds.observe(seconds)

    def batch(self, rows: int) -> None:
        """Count a batch."""
        self._batches.observe(rows)

    def write(self) -> None:
        """Write them where the other processes find them; a reader never sees half of them."""
        if self._shared is not None:
            path = self._shared / f"{os.getpid()}.json"
            temporary = path.with_suffix(".new")
            temporary.write_text(json.dumps(self._snapshot()))
            temporary.replace(path)

    def render(self) -> str:
        """Those of all processes in Prometheus' text format."""
        parts = [self._snapshot(), *self._others()]
        requests: dict[tuple[str, str, int], int] = {}
        for part in parts:
            for method, path, status, count in part["requests"]:
                key = (method, path, status)
                requests[key] = requests.get(key, 0) + count
        lines = ["# HELP stoker_requests_total Requests answered.", "# TYPE stoker_requests_total counter"]
        lines += [
            f'stoker_requests_total{{method="{method}",path="{path}",status="{status}"}} {count}'
            for (method, path, status), count in sorted(requests.items())
        ]
        about = "Seconds from a prediction's request to the end of its answer."
        lines += _histogram("stoker_request_seconds", about, _SECONDS, [part["seconds"] for part in parts])
        lines += _histogram("stoker_batch_rows", "Rows computed at once.", _ROWS, [part["batches"] for part in parts])
        lines += ["# HELP stoker_queue_rows Rows that wait.", "# TYPE stoker_queue_rows gauge"]
        lines.append(f"stoker_queue_rows {sum(part['waiting'] for part in parts)}")
        return "\n".join(lines) + "\n"

    def _snapshot(self) -> dict[str, Any]:
        return {
            "requests": [[*key, count] for key, count in self._requests.items()],
            "seconds": {"counts": self._seconds.counts, "sum": self._seconds.sum},
            "batches": {"counts": self._batches.counts, "sum": self._batches.sum},
            "waiting": self.waiting(),
        }

    def _others(self) -> Iterable[dict[str, Any]]:
        if self._shared is None:
            return
        for path in sorted(self._shared.glob("*.json")):
            if path.stem != str(os.getpid()):
                part: dict[str, Any] = json.loads(path.read_text())
                if time.time() - path.stat().st_mtime > _STALE:
                    part["waiting"] = 0
                yield part


def _histogram(name: str, about: str, bounds: Sequence[float], parts: list[dict[str, Any]]) -> list[str]:
    lines = [f"# HELP {name} {about}", f"# TYPE {name} histogram"]
    total = 0
    for place, bound in enumerate((*bounds, float("inf"))):
        total += sum(part["counts"][place] for part in parts)
        lines.append(f'{name}_bucket{{le="{"+Inf" if bound == float("inf") else f"{bound:g}"}"}} {total}')
    return [*lines, f"{name}_sum {sum(part['sum'] for part in parts):.9g}", f"{name}_count {total}"]
