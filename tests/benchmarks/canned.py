"""Results as a run of the benchmark writes them, made up."""

from __future__ import annotations

from typing import Any


def call(
    side: str,
    epochs: int,
    first_s: float,
    steady_s: float,
    *,
    job: str = "california",
    turn: int = 0,
    loss: float = 0.3,
    threads: int = 1,
    batch_size: int = 32,
    process_mb: float | None = 300.0,
    imports_s: float = 0.0,
) -> dict[str, Any]:
    return {
        "job": job,
        "side": side,
        "batch_size": batch_size,
        "threads": threads,
        "epochs": epochs,
        "rows": None,
        "round": turn,
        "epochs_s": [first_s, *[steady_s] * (epochs - 1)],
        "total_s": first_s + (epochs - 1) * steady_s + 0.001,
        "memory_mb": 50.0,
        "process_mb": process_mb,
        "imports_s": imports_s,
        "loss": loss,
        "steps": 100,
        "note": f"{side.removeprefix('stoker-')}: as asked" if side.startswith("stoker") else "",
    }


def absent(side: str, *, job: str = "fashion", **why: str) -> dict[str, Any]:
    fields = {"job": job, "side": side, "batch_size": 32, "threads": 1, "epochs": 1, "rows": None, "round": 0}
    return {**fields, **why}


def results() -> dict[str, Any]:
    measurements: list[dict[str, Any]] = []
    seconds = {"stoker-auto": 0.03, "stoker-compiled": 0.002, "stoker-eager": 0.03, "jax": 0.003, "loop": 0.06}
    for turn in range(3):
        for job in ("california", "fashion"):
            for side, steady_s in seconds.items():
                first_s = 1.0 if side in ("stoker-compiled", "jax") else steady_s
                settings: dict[str, Any] = {"job": job, "turn": turn}
                measurements += [call(side, epochs, first_s + turn / 10, steady_s, **settings) for epochs in (1, 20)]
    measurements.append(absent("transforms", skipped="ImportError: no torchvision"))
    measurements.append(absent("skorch", failed="ValueError: what it said"))
    return {
        "about": {
            "date": "2026-01-02T03:04+00:00",
            "cpu": "Some Processor",
            "cores": 2,
            "system": "Linux",
            "python": "3.11.1",
            "versions": {"torch": "2.13.0", "torchvision": None},
            "quick": False,
            "runs": [
                {
                    "date": "2026-01-02T03:04+00:00",
                    "commit": "abc1234",
                    "limits": {"steady_s": 6.0, "longest_s": 15.0, "timeout_s": 900.0},
                    "seconds": 3000.0,
                    "jobs": [],
                    "sides": [],
                    "threads": [1],
                }
            ],
        },
        "missing": {"flights": "no flights.csv in $STOKER_DATA"},
        "measurements": measurements,
    }
