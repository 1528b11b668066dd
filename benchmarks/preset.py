"""``--preset best`` beside the plain MLP of the defaults, on California housing: the error on the test split, by seed.

    make bench-preset            # or: python benchmarks/preset.py [--seeds 0,1,2] [SOURCE --target COLUMN]

Each seed splits the rows anew, and all sides get the same split. The test split is used once, after training. The
second side is the plain MLP with the preset's way of training, to tell what the model gains from what longer training
does. Seconds are those of whole jobs, pictures and all.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import stoker
from stoker.jobs.presets import PRESETS

SIDES: dict[str, dict[str, Any]] = {
    "plain MLP, the defaults": {},
    "plain MLP, trained as the preset": PRESETS["best"]["training"],
    "--preset best": {"preset": "best"},
}


def measured(source: str, target: str | None, seed: int, settings: dict[str, Any]) -> tuple[float, float, str]:
    """The test split's error, the seconds that the job took, and what the error is."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        started = time.perf_counter()
        run = stoker.fit(source, out=out, target=target, seed=seed, device="cpu", progress="none", **settings)
        seconds = time.perf_counter() - started
        metric = "rmse" if run.task == "regression" else "log_loss"
        return run.metrics["test"][metric], seconds, metric


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("source", nargs="?", default="california-housing", help="a table")
    parser.add_argument("--target", help="its column to predict, unless it is a named data set")
    parser.add_argument("--seeds", default="0,1,2", help="with commas between")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    print(f"{arguments.source}, torch {torch.__version__}, {arguments.threads} threads")
    head = "".join(f"{f'seed {seed}':>10}" for seed in seeds)
    print(f"{'test split':36}{head}{'mean':>10}{'seconds each':>14}")
    for side, settings in SIDES.items():
        results = [measured(arguments.source, arguments.target, seed, settings) for seed in seeds]
        errors, seconds = [error for error, _, _ in results], [spent for _, spent, _ in results]
        told = "".join(f"{error:10.4f}" for error in errors)
        mean, each = statistics.mean(errors), statistics.mean(seconds)
        print(f"{side:36}{told}{mean:10.4f}{each:14.1f}  {results[0][2]}", flush=True)


if __name__ == "__main__":
    main()
