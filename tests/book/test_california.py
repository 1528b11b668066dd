"""The published figures on California housing: chapter 10 of Géron, "Hands-On Machine Learning … and PyTorch"."""

from __future__ import annotations

import math

import pytest
import torch
from housing import Splits, split_and_scaled
from torch import Tensor, nn

from stoker import Table, Trainer
from stoker.models.inputs import TableSpec
from stoker.models.mlp import MLPConfig, TableMLP


@pytest.fixture(scope="module")
def splits(california: Table) -> Splits:
    return split_and_scaled(california)


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 50), nn.ReLU(), nn.Linear(50, 40), nn.ReLU(), nn.Linear(40, 1))


def full_batch_losses(model: nn.Module, lr: float, data: tuple[Tensor, Tensor]) -> tuple[Trainer, list[float]]:
    trainer = Trainer(model, nn.MSELoss(), "sgd", lr=lr, device="cpu", metrics=())
    history = trainer.fit(data, epochs=20, batch_size=None, shuffle=False, progress="none")
    return trainer, [history[0]["train_loss"], history[1]["train_loss"], history[19]["train_loss"]]


def test_tensors_and_autograd_alone(splits: Splits) -> None:
    # Nothing of Stoker in the loop: it shows that data, split and scaling are the book's.
    X, y = splits.train
    torch.manual_seed(42)
    w = torch.randn((8, 1), requires_grad=True)
    b = torch.tensor(0.0, requires_grad=True)
    losses = []
    for _ in range(20):
        loss = ((X @ w + b - y) ** 2).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.item())
        with torch.no_grad():
            for parameter in (w, b):
                assert parameter.grad is not None
                parameter -= 0.4 * parameter.grad
                parameter.grad.zero_()
    assert [losses[0], losses[1], losses[19]] == pytest.approx(
        [16.158456802368164, 4.8793754577, 0.5684100389480591], abs=1e-5
    )
    with torch.no_grad():
        preds = splits.test[0][:3] @ w + b
    assert preds[:, 0].tolist() == pytest.approx([0.8916, 1.6480, 2.6577], abs=5e-5)


def test_linear_regression(splits: Splits) -> None:
    torch.manual_seed(42)
    trainer, losses = full_batch_losses(nn.Linear(8, 1), 0.4, splits.train)
    assert losses == pytest.approx([4.3378496170043945, 0.7802939414978027, 0.5374288558959961], abs=1e-5)
    preds = trainer.predict(splits.test[0][:3])
    assert preds[:, 0].tolist() == pytest.approx([0.8061, 1.7116, 2.6973], abs=5e-5)


@pytest.mark.parametrize("ours", [False, True], ids=["nn.Sequential", "stoker's MLP"])
def test_regression_mlp(splits: Splits, ours: bool) -> None:
    torch.manual_seed(42)
    X, y = splits.train
    if ours:
        model: nn.Module = TableMLP(MLPConfig(hidden=(50, 40)), TableSpec(n_numeric=8), 1)
        _, losses = full_batch_losses(model, 0.1, ({"numeric": X}, y))  # type: ignore[arg-type]
    else:
        _, losses = full_batch_losses(mlp(), 0.1, (X, y))
    assert losses == pytest.approx([5.045480251312256, 2.05231, 0.565444827079773], abs=1e-5)


@pytest.mark.slow
def test_mini_batches(splits: Splits) -> None:
    torch.manual_seed(42)
    trainer = Trainer(mlp(), nn.MSELoss(), "sgd", lr=0.02, device="cpu", seed=42)
    trainer.fit(splits.train, splits.valid, epochs=20, batch_size=32, progress="none")
    valid = trainer.evaluate(splits.valid)
    assert valid["mse"] <= 0.41
    assert valid["rmse"] == math.sqrt(valid["mse"])  # to the last bit: not a mean of batches' roots
