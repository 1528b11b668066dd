"""What a checkpoint after each epoch costs, on Fashion-MNIST with the network 784-300-100-10.

    make bench-checkpoints
    python -m benchmarks.checkpoints [--epochs 5] [--batch-size 32] [--engines eager,compiled]

Two figures for each engine and optimizer. The first is the time within the writing of checkpoints, over that of the
whole training: it does not depend on what else the machine does, as far as both wait for it alike. The second is how
much longer the training takes than one without, the median of pairs, which is what counts but is noisy.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stoker.data.dataset import ImageSet
from stoker.data.sources import load
from stoker.training.checkpoints.checkpointer import Checkpointer
from stoker.training.trainer import Trainer

TARGET = 0.03


class Timed:
    """Adds up the time within a function."""

    def __init__(self, function: Any) -> None:
        self.function, self.seconds, self.calls = function, 0.0, 0

    def of(self, *arguments: Any, **named: Any) -> Any:
        began = time.perf_counter()
        try:
            return self.function(*arguments, **named)
        finally:
            self.seconds += time.perf_counter() - began
            self.calls += 1


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
    )


def trained(data: Any, given: argparse.Namespace, engine: str, optimizer: str, folder: Path | None) -> float:
    """Seconds of a training."""
    trainer = Trainer(network(), "cross-entropy", optimizer, engine=engine, device="cpu", metrics=())
    began = time.perf_counter()
    trainer.fit(data, epochs=given.epochs, batch_size=given.batch_size, progress="none", checkpoint=folder)
    return time.perf_counter() - began


def main() -> int:
    """Measure; the status is 1 where a checkpoint costs more than it may."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--engines", default="eager,compiled")
    parser.add_argument("--optimizers", default="sgd,adam")
    parser.add_argument("--pairs", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    images = load("fashion-mnist")
    assert isinstance(images, ImageSet)
    assert images.labels is not None
    data = images.images.float() / 255, images.labels
    print(f"{len(data[1]):,} images, batches of {given.batch_size}, {given.epochs} epochs, torch {torch.__version__}")
    print(f"{'':18}{'training':>10}{'a checkpoint':>15}{'size':>10}{'share':>9}{'longer by':>12}")
    over = 0
    for engine in given.engines.split(","):
        for optimizer in given.optimizers.split(","):
            trained(data, argparse.Namespace(epochs=1, batch_size=given.batch_size), engine, optimizer, None)  # warm up
            longer, shares, seconds, each, size = [], [], [], [], 0
            for _ in range(given.pairs):
                bare = trained(data, given, engine, optimizer, None)
                timed, real = Timed(Checkpointer.write), Checkpointer.write
                Checkpointer.write = lambda *a, timed=timed: timed.of(*a)  # type: ignore[method-assign]
                try:
                    with tempfile.TemporaryDirectory(dir=".") as folder:
                        kept = trained(data, given, engine, optimizer, Path(folder))
                        size = max(path.stat().st_size for path in Path(folder).iterdir())
                finally:
                    Checkpointer.write = real  # type: ignore[method-assign]
                longer.append(kept / bare - 1)
                shares.append(timed.seconds / kept)
                seconds.append(kept)
                each.append(timed.seconds / timed.calls)
            share = statistics.median(shares)
            told = f"{statistics.median(seconds):>8.1f} s{statistics.median(each) * 1e3:>12.1f} ms{size / 1e6:>7.1f} MB"
            over += share > TARGET
            verdict = "" if share <= TARGET else f"  over {TARGET:.0%}"
            print(
                f"{engine + ', ' + optimizer:18}{told}{share:>9.1%}{statistics.median(longer):>+12.1%}{verdict}",
                flush=True,
            )
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
