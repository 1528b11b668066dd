"""A worker of a small study, as a process that tests can kill: python one_worker.py URL TRIALS LOG [EPOCH_SECONDS]."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna

from stoker.tuning.sampling import make_pruner, make_sampler
from stoker.tuning.storage import open_storage
from stoker.tuning.study import Outcome, Plan, Roster, open_study
from stoker.tuning.worker import work

EPOCHS = 4


def loss(x: float, kind: str, epoch: int) -> float:
    return (x - 0.3) ** 2 + (0.1 if kind == "a" else 0.0) + 1.0 / epoch


class Objective:
    reports = True

    def __init__(self, log: Path, seconds: float) -> None:
        self.log = log
        self.seconds = seconds

    def __call__(self, trial: optuna.Trial, stop: Callable[[], bool]) -> Outcome:
        self.note("begin", trial.number)
        x = trial.suggest_float("x", 0.0, 1.0)
        kind = trial.suggest_categorical("kind", ["a", "b"])
        for epoch in range(1, EPOCHS + 1):
            time.sleep(self.seconds)
            trial.report(loss(x, kind, epoch), epoch)
            if trial.should_prune():
                self.note("end", trial.number)
                return Outcome("pruned")
            if stop():
                return Outcome("interrupted")
        self.note("end", trial.number)
        return Outcome("complete", loss(x, kind, EPOCHS), {"pid": os.getpid()})

    def over(self, number: int) -> None:
        self.note("over", number)

    def note(self, what: str, number: int) -> None:
        with self.log.open("a") as file:  # one short write, so that lines of several processes do not mix
            file.write(f"{what} {number} {os.getpid()}\n")


def main(url: str, trials: int, log: Path, seconds: float = 0.01, seed: int = 0) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with open_storage(url) as storage:
        plan = Plan("small", "minimize", trials)
        study, plan = open_study(storage, plan, make_sampler("tpe", seed, None), make_pruner("median"))
        with log.open("a") as file:
            file.write(f"working - {os.getpid()}\n")
        work(Roster(storage, study, plan.trials), Objective(log, seconds), beat_every=0.5, poll=0.05)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4]))
