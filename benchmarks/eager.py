"""Stoker's engines beside the hand-written loop: microseconds per step, same data, same network, same updates.

    make bench-eager            # or: python benchmarks/eager.py [--epochs 3] [--threads 2]

Networks and data are those of the book chapter: California housing through 8-50-40-1, Fashion-MNIST through
784-300-100-10, batch 32, SGD. The sides take turns; each figure is the median of its epochs but the first. The final
training losses are printed so that nobody skips work. The hand-written loop on Fashion-MNIST comes twice: with
torchvision's per-image transforms, as the book writes it (if torchvision is installed), and over ready-made tensors.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import torch
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import stoker
from stoker.training.trainer import Trainer


def california() -> tuple[Tensor, Tensor]:
    frame = stoker.load_data("california-housing").frame
    target = torch.from_numpy(frame["MedHouseVal"].to_numpy().copy()).float().reshape(-1, 1)
    features = torch.from_numpy(frame.drop("MedHouseVal").to_numpy().copy()).float()
    X, _, y, _ = train_test_split(features, target, random_state=42)
    X, _, y, _ = train_test_split(X, y, random_state=42)
    return (X - X.mean(0)) / X.std(0), y


def fashion() -> tuple[Tensor, Tensor]:
    images = stoker.load_data("fashion-mnist")
    return images.images[:55_000].float() / 255, images.labels[:55_000]


def mlp(*widths: int) -> nn.Sequential:
    torch.manual_seed(42)
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class TransformedImages(Dataset[Any]):
    """What torchvision.datasets.FashionMNIST does for each image: from PIL through the book's transforms."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        import torchvision.transforms.v2 as T
        from PIL import Image

        self.images = [Image.fromarray(image) for image in (images[:, 0] * 255).round().to(torch.uint8).numpy()]
        self.labels = labels.tolist()
        self.transform = T.Compose([T.ToImage(), T.ToDtype(torch.float32, scale=True)])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), self.labels[index]


def by_hand(model: nn.Module, criterion: nn.Module, lr: float, data: Dataset[Any]) -> Iterator[tuple[float, float]]:
    """The book's loop; yields (seconds per step, mean loss) of each epoch."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    torch.manual_seed(0)
    loader = DataLoader(data, batch_size=32, shuffle=True)
    while True:
        model.train()
        started, total = time.perf_counter(), 0.0
        for inputs, targets in loader:
            loss = criterion(model(inputs), targets)
            total += loss.item()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        yield (time.perf_counter() - started) / len(loader), total / len(loader)


def by_stoker(
    model: nn.Module, criterion: nn.Module, lr: float, data: tuple[Tensor, Tensor], engine: str = "eager"
) -> Iterator[tuple[float, float]]:
    trainer = Trainer(model, criterion, "sgd", lr=lr, metrics=(), device="cpu", engine=engine)
    steps = -(-len(data[1]) // 32)
    while True:
        started = time.perf_counter()
        history = trainer.fit(data, epochs=1, batch_size=32, progress="none", check=False)
        yield (time.perf_counter() - started) / steps, history.rows[-1]["train_loss"]


def race(name: str, sides: dict[str, Callable[[], Iterator[tuple[float, float]]]], epochs: int) -> None:
    running = {side: make() for side, make in sides.items()}
    times: dict[str, list[float]] = {side: [] for side in sides}
    losses: dict[str, float] = {}
    for _ in range(epochs + 1):
        for side, epoch in running.items():
            seconds, losses[side] = next(epoch)
            times[side].append(seconds)
    ours = statistics.median(times["stoker"][1:])
    print(f"\n{name}\n{'':44}{'µs per step':>12}{'ratio':>8}{'train loss':>12}")
    for side, seconds in times.items():
        median = statistics.median(seconds[1:])
        print(f"{side:44}{median * 1e6:12.0f}{median / ours:8.2f}{losses[side]:12.5f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--epochs", type=int, default=3, help="timed epochs of each side, after one to warm up")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"torch {torch.__version__}, {arguments.threads} threads, batch 32, SGD, median of {arguments.epochs} epochs")

    X, y = california()
    race(
        "California housing, 8-50-40-1",
        {
            "stoker": lambda: by_stoker(mlp(8, 50, 40, 1), nn.MSELoss(), 0.02, (X, y)),
            "stoker, compiled": lambda: by_stoker(mlp(8, 50, 40, 1), nn.MSELoss(), 0.02, (X, y), "compiled"),
            "by hand": lambda: by_hand(mlp(8, 50, 40, 1), nn.MSELoss(), 0.02, TensorDataset(X, y)),
        },
        arguments.epochs * 3,
    )
    images, labels = fashion()
    sides: dict[str, Callable[[], Iterator[tuple[float, float]]]] = {
        "stoker": lambda: by_stoker(mlp(784, 300, 100, 10), nn.CrossEntropyLoss(), 0.05, (images, labels)),
        "stoker, compiled": lambda: by_stoker(
            mlp(784, 300, 100, 10), nn.CrossEntropyLoss(), 0.05, (images, labels), "compiled"
        ),
        "by hand, over tensors": lambda: by_hand(
            mlp(784, 300, 100, 10), nn.CrossEntropyLoss(), 0.05, TensorDataset(images, labels)
        ),
    }
    try:
        transformed = TransformedImages(images, labels)
    except ImportError:
        print("torchvision is not installed: the book's loop with its transforms is left out")
    else:
        sides["by hand, with torchvision's transforms"] = lambda: by_hand(
            mlp(784, 300, 100, 10), nn.CrossEntropyLoss(), 0.05, transformed
        )
    race("Fashion-MNIST, 784-300-100-10", sides, arguments.epochs)


if __name__ == "__main__":
    main()
