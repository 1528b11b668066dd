"""The published figure on Fashion-MNIST: the chapter's 784-300-100-10 reaches 87.2 % on its validation split."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stoker import ImageSet, Trainer


@pytest.mark.slow
def test_image_classifier(fashion: ImageSet) -> None:
    assert fashion.labels is not None
    order = torch.randperm(60_000, generator=torch.Generator().manual_seed(42))
    images = fashion.images.flatten(1).float() / 255  # [60000, 784], from 0 to 1 as the book has them
    train, valid = order[:55_000], order[55_000:]
    torch.manual_seed(42)
    model = nn.Sequential(nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))
    trainer = Trainer(model, nn.CrossEntropyLoss(), "sgd", lr=0.05, device="cpu", metrics=("accuracy",), seed=42)
    history = trainer.fit(
        (images[train], fashion.labels[train]),
        (images[valid], fashion.labels[valid]),
        epochs=20,
        batch_size=32,
        progress="none",
    )
    assert history.rows[-1]["step"] == 20 * 1719
    assert history.rows[-1]["valid_accuracy"] >= 0.872
