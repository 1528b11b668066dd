"""Studies by ``stoker.tune`` beside the objective written by hand, which is measured for two trials and extrapolated.

    make bench-study    # or: python -m benchmarks.study [fashion] [california] [--workers 1,2] [--threads auto,1] …

``fashion``: the book's study, 784-h-h-10 on Fashion-MNIST, h from 20 to 300, learning rate log-uniform from 1e-5 to
1e-1, batch 32, SGD, 20 trials of 10 epochs, TPE with seed 42, median pruner. ``california``: 64 trials of 20 epochs of
8-50-40-1 on California housing, batch 32, SGD, the learning rate and the momentum.

The hand-written objective is a ``DataLoader`` over a ``TensorDataset`` (with ``--transforms`` over images that
torchvision's transforms make tensors of, as in the book), ``loss.item()`` at each step, and the validation split
measured after each epoch. Its seconds per epoch are measured for a narrow and a wide network, and a
line through both gives those of the others; it is charged for as many epochs of as many trials as Stoker's study came
to, and not for the study itself. Stoker's seconds are those of the whole command but for imports: workers' start, data
and all. Each study is a process of its own, since JAX takes its number of threads once.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import stoker
from benchmarks.jobs import JOBS, Data
from stoker.tuning.space import Float, Int, Space

Values = dict[str, Any]
BATCH = 32


@dataclass(frozen=True)
class Study:
    """A study.

    Attributes:
        job: Whose data.
        trials, epochs: How many.
        space: What is tried.
        metric: On the validation split.
        ends: Values of two trials that the hand-written objective is measured for.
        size: What its seconds per epoch are a linear function of.
        build: From values to a Trainer.
    """

    job: str
    trials: int
    epochs: int
    space: Space
    metric: str
    ends: tuple[Values, Values]
    size: Callable[[Values], float]
    build: Callable[[Values], stoker.Trainer]


def classifier(values: Values) -> nn.Module:
    torch.manual_seed(42)
    h = values["n_hidden"]
    return nn.Sequential(nn.Flatten(), nn.Linear(784, h), nn.ReLU(), nn.Linear(h, h), nn.ReLU(), nn.Linear(h, 10))


def regressor(_: Values) -> nn.Module:
    torch.manual_seed(42)
    return nn.Sequential(nn.Linear(8, 50), nn.ReLU(), nn.Linear(50, 40), nn.ReLU(), nn.Linear(40, 1))


def build_classifier(values: Values) -> stoker.Trainer:
    model = classifier(values)
    return stoker.Trainer(model, "cross-entropy", "sgd", lr=values["lr"], metrics=["accuracy"], device="cpu")


def build_regressor(values: Values) -> stoker.Trainer:
    settings: Values = {"lr": values["lr"], "momentum": values["momentum"]}
    return stoker.Trainer(regressor(values), "mse", "sgd", metrics=(), device="cpu", **settings)


STUDIES = {
    "fashion": Study(
        "fashion",
        20,
        10,
        Space({"lr": Float(1e-5, 1e-1, log=True), "n_hidden": Int(20, 300)}),
        "accuracy",
        ({"lr": 0.01, "n_hidden": 40}, {"lr": 0.01, "n_hidden": 280}),
        lambda values: float(values["n_hidden"]),
        build_classifier,
    ),
    "california": Study(
        "california",
        64,
        20,
        Space({"lr": Float(1e-4, 1e-2, log=True), "momentum": Float(0.0, 0.9)}),
        "loss",
        ({"lr": 0.01, "momentum": 0.0}, {"lr": 0.01, "momentum": 0.9}),
        lambda _: 0.0,
        build_regressor,
    ),
}


def splits(study: Study) -> tuple[Any, Any]:
    """Training and validation rows: a tenth is held back of Fashion-MNIST's 55,000, a quarter of California's."""
    data = JOBS[study.job].read()
    inputs, targets = torch.from_numpy(data.inputs[0]), torch.from_numpy(data.targets)
    held = len(targets) // (11 if study.job == "fashion" else 4)
    return (inputs[held:].clone(), targets[held:].clone()), (inputs[:held].clone(), targets[:held].clone())


def datasets(rows: tuple[Tensor, Tensor], transforms: bool) -> Dataset[Any]:
    """What the hand-written objective's ``DataLoader`` is given: tensors, or images as the book has them."""
    if not transforms:
        return TensorDataset(*rows)
    from benchmarks.sides.transforms import TransformedImages

    return TransformedImages(Data((rows[0].numpy(),), rows[1].numpy()))


def by_hand(study: Study, values: Values, train: Dataset[Any], valid: Dataset[Any], epochs: int) -> float:
    """Seconds of an epoch of the objective as it is written by hand: the median but for the first."""
    classifies = study.metric == "accuracy"
    model = (classifier if classifies else regressor)(values)
    loss_of: nn.Module = nn.CrossEntropyLoss() if classifies else nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=values["lr"], momentum=values.get("momentum", 0.0))
    loader = DataLoader(train, batch_size=BATCH, shuffle=True)
    other = DataLoader(valid, batch_size=BATCH)
    seconds = []
    for _ in range(epochs):
        began = time.perf_counter()
        model.train()
        total = 0.0
        for x, y in loader:
            loss = loss_of(model(x), y)
            total += loss.item()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        model.eval()
        found = 0.0
        with torch.no_grad():
            for x, y in other:
                outputs = model(x)
                found += ((outputs.argmax(1) == y).float().sum() if classifies else loss_of(outputs, y) * len(y)).item()
        seconds.append(time.perf_counter() - began)
    return sorted(seconds[1:])[len(seconds[1:]) // 2]


def line(study: Study, each: list[float]) -> Callable[[Values], float]:
    """Seconds of an epoch by a trial's values, from those of the two ends."""
    low, high = (study.size(values) for values in study.ends)
    slope = (each[1] - each[0]) / (high - low) if high > low else 0.0
    base = each[0] if slope else sum(each) / 2
    return lambda values: base + slope * (study.size(values) - low)


@dataclass(frozen=True)
class Measured:
    """What a study came to.

    Attributes:
        seconds: Of the whole.
        done: The values of each trial, and how many epochs it had.
        best: Value and parameters, in words.
        counts: How the trials ended.
    """

    seconds: float
    done: list[tuple[Values, int]]
    best: str
    counts: dict[str, int]


def measured(name: str, workers: int, threads: int | Literal["auto"]) -> Measured:
    """A study of this name, in this process."""
    study = STUDIES[name]
    train, valid = splits(study)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        result = stoker.tune(
            study.build,
            study.space,
            train=train,
            valid=valid,
            trials=study.trials,
            epochs=study.epochs,
            batch_size=BATCH,
            metric=study.metric,
            sampler="tpe",
            pruner="median" if study.metric == "accuracy" else "none",
            seed=42,
            workers=workers,
            threads=threads,
            refit=False,
            out=Path(folder) / "study",
            progress="none",
        )
        seconds = time.perf_counter() - began
    done = [(dict(trial.params), len(trial.intermediate_values)) for trial in result.trials]
    return Measured(seconds, done, f"{result.best_value:.4f} with {result.best_params}", dict(result.counts))


def in_a_process(name: str, workers: int, threads: int | Literal["auto"]) -> Measured:
    """The same in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measured, name, workers, threads).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("studies", nargs="*", help=f"of {', '.join(STUDIES)}; all by default")
    parser.add_argument("--workers", default="1,2", help="with commas between")
    parser.add_argument("--threads", default="auto", help="of each worker, with commas between; see stoker tune")
    parser.add_argument("--epochs", type=int, default=3, help="that the hand-written objective is measured for")
    parser.add_argument("--transforms", action="store_true", help="by hand with torchvision's transforms, as the book")
    asked = parser.parse_args()
    if asked.epochs < 2:
        parser.error(f"--epochs must be at least 2, since the first does not count, got {asked.epochs}")
    if wrong := [name for name in asked.studies if name not in STUDIES]:
        parser.error(f"no study {wrong[0]!r}; there are {', '.join(STUDIES)}")
    for name in asked.studies or STUDIES:
        study = STUDIES[name]
        train, valid = splits(study)
        print(f"{name}: {study.trials} trials of {study.epochs} epochs, {len(train[1]):,} and {len(valid[1]):,} rows")
        torch.set_num_threads(1)
        images = asked.transforms and study.metric == "accuracy"
        mine, other = datasets(train, images), datasets(valid, images)
        each = [by_hand(study, values, mine, other, asked.epochs) for values in study.ends]
        cost = line(study, each)
        print(f"  by hand: {each[0]:.2f} and {each[1]:.2f} s an epoch, one thread", flush=True)
        for workers, threads in itertools.product(asked.workers.split(","), asked.threads.split(",")):
            result = in_a_process(name, int(workers), "auto" if threads == "auto" else int(threads))
            hand = sum(cost(values) * epochs for values, epochs in result.done)
            epochs = sum(epochs for _, epochs in result.done)
            spent = f"{result.seconds:.1f} s for {epochs} epochs, by hand {hand:.0f}: {hand / result.seconds:.1f} ×"
            print(f"  {workers} worker(s), threads {threads}: {spent}")
            print(f"    best {study.metric} {result.best}; {result.counts}", flush=True)


if __name__ == "__main__":
    main()
