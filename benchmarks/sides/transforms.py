"""The hand-written loop over Fashion-MNIST as the book writes it: each image from PIL through torchvision's transforms.

The PIL images are made once, beforehand; ``torchvision.datasets.FashionMNIST`` makes each anew whenever it is asked.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torchvision.transforms.v2 as T
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from benchmarks.jobs import Data, Job
from benchmarks.sides import Mark, Trained
from benchmarks.sides.loop import train_on


class TransformedImages(Dataset[Any]):
    def __init__(self, data: Data) -> None:
        (images,) = data.inputs
        self.images = [Image.fromarray(np.rint(image[0] * 255).astype(np.uint8)) for image in images]
        self.labels = data.targets.tolist()
        self.transform = T.Compose([T.ToImage(), T.ToDtype(torch.float32, scale=True)])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), self.labels[index]


def train(job: Job, data: Data, epochs: int, batch_size: int, mark: Mark) -> Trained:
    return train_on(TransformedImages(data), job, data, epochs, batch_size, mark)
