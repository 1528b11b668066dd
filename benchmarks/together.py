"""Trials one at a time, and several as one program: the same trainings on California housing, in turn.

    python -m benchmarks.together [--sizes 1,4,8] [--trials 8] [--epochs 20] [--repeats 3]

The trials are those of ``benchmarks.study``: 8-50-40-1, batch 32, SGD, the learning rate and the momentum, each
validated after every epoch, all of them compiled. What a study takes besides (its database, its pictures) is left out.
Seconds are those of the process's cores, and those of the clock; those of the first round, in which the programs are
made, are told by themselves. The differences are those of validation losses, after the first epoch and after all.
"""

from __future__ import annotations

import argparse
import statistics
import time
from functools import partial
from typing import Any

import optuna

from benchmarks.study import BATCH, STUDIES, build_regressor, splits
from stoker.engines.registry import choose_engine
from stoker.engines.together import Lane, abreast

STUDY = STUDIES["california"]


def trained(values: dict[str, Any], data: Any, epochs: int, lane: Lane | None) -> list[float]:
    """Losses on the validation split."""
    trainer = build_regressor(values)
    trainer.engine = choose_engine("compiled", lane=lane)
    history = trainer.fit(*data, epochs=epochs, batch_size=BATCH, progress="none", check=False)
    return history.column("valid_loss")


def measured(size: int, trials: list[dict[str, Any]], data: Any, epochs: int) -> tuple[float, float, list[list[float]]]:
    """Seconds of the cores and of the clock, and the trials' losses."""
    cores, clock = time.process_time(), time.perf_counter()
    losses: list[list[float]] = [[] for _ in trials]
    if size == 1:
        losses = [trained(values, data, epochs, None) for values in trials]
    else:
        for start in range(0, len(trials), size):
            works: list[Any] = [partial(trained, values, data, epochs) for values in trials[start : start + size]]
            part: dict[int, list[float]] = {}
            abreast([Lane() for _ in works], works, part.__setitem__)
            losses[start : start + size] = [part[place] for place in range(len(works))]
    return time.process_time() - cores, time.perf_counter() - clock, losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1,4,8")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    sizes = [int(size) for size in asked.sizes.split(",")]
    data = splits(STUDY)
    sampler = optuna.samplers.RandomSampler(seed=0)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=sampler)
    trials = [STUDY.space.suggest(study.ask()) for _ in range(asked.trials)]
    rounds: dict[int, list[tuple[float, float]]] = {size: [] for size in sizes}
    found: dict[int, list[list[float]]] = {}
    for _ in range(asked.repeats + 1):
        for size in sizes:
            cores, clock, found[size] = measured(size, trials, data, asked.epochs)
            rounds[size].append((cores, clock))
    steps = asked.trials * asked.epochs * -(-len(data[0][1]) // BATCH)
    head = ("trials at once", "µs of the cores a step", "ratio", "clock, s", "first round, cores, s", "difference")
    print(f"| {' | '.join(head)} |\n|{' ---: |' * len(head)}")
    pace = {size: statistics.median(cores for cores, _ in rounds[size][1:]) / steps * 1e6 for size in sizes}
    for size in sizes:
        clock = statistics.median(seconds for _, seconds in rounds[size][1:])
        differs = [
            max(abs(one[epoch] / other[epoch] - 1) for one, other in zip(found[size], found[sizes[0]], strict=True))
            for epoch in (0, -1)
        ]
        numbers = (
            f"{pace[size]:.1f}",
            f"{pace[size] / pace[sizes[0]]:.2f}",
            f"{clock:.2f}",
            f"{rounds[size][0][0]:.2f}",
        )
        print(f"| {size} | {' | '.join(numbers)} | {differs[0]:.0e}, {differs[1]:.0e} |")


if __name__ == "__main__":
    main()
