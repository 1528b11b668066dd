"""The Wide & Deep networks of chapter 10 of Géron, "Hands-On Machine Learning … and PyTorch", on California housing.

The chapter prints no figures for them. Its forms can be held against Stoker all the same: each is trained by the same
steps as a network and a loop written by hand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from housing import Splits, split_and_scaled
from torch import Tensor, nn
from torch.utils.data import Dataset

from stoker import Loss, Table, Trainer, WideAndDeep
from stoker.data.resident import epoch_order

WIDE, DEEP = slice(0, 5), slice(2, 8)


@pytest.fixture(scope="module")
def splits(california: Table) -> Splits:
    return split_and_scaled(california)


class Written(nn.Module):
    """The same network, written out."""

    def __init__(self, n_wide: int, n_deep: int, auxiliary: bool) -> None:
        super().__init__()
        self.stack = nn.Sequential(nn.Linear(n_deep, 50), nn.ReLU(), nn.Linear(50, 40), nn.ReLU())
        self.out = nn.Linear(n_wide + 40, 1)
        self.aux = nn.Linear(40, 1) if auxiliary else None

    def forward(self, wide: Tensor, deep: Tensor) -> tuple[Tensor, Tensor | None]:
        hidden = self.stack(deep)
        main = self.out(torch.cat((wide, hidden), dim=1))
        return main, None if self.aux is None else self.aux(hidden)


def by_hand(network: Written, wide: Tensor, deep: Tensor, y: Tensor, epochs: int, lr: float) -> None:
    """The loop that one writes by hand, in the order of rows that Stoker has with seed 42."""
    optimizer = torch.optim.SGD(network.parameters(), lr=lr)
    for epoch in range(epochs):
        for rows in torch.split(epoch_order(len(y), 42, epoch), 32):
            main, aux = network(wide[rows], deep[rows])
            loss = nn.functional.mse_loss(main, y[rows])
            if aux is not None:
                loss = 0.8 * loss + 0.2 * nn.functional.mse_loss(aux, y[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()


class Named(Dataset[tuple[dict[str, Tensor], Tensor]]):
    """Rows whose inputs have names."""

    def __init__(self, X: Tensor, y: Tensor) -> None:
        self.X, self.y = X, y

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, row: int) -> tuple[dict[str, Tensor], Tensor]:
        return {"X_wide": self.X[row, WIDE], "X_deep": self.X[row, DEEP]}, self.y[row]


class Cut(nn.Module):
    """Takes one tensor and cuts it up."""

    def __init__(self, network: WideAndDeep, wide: slice, deep: slice) -> None:
        super().__init__()
        self.network, self.wide, self.deep = network, wide, deep

    def forward(self, X: Tensor) -> Any:
        return self.network(X[:, self.wide], X[:, self.deep])


ALL = slice(0, 8)
FORMS: dict[str, tuple[slice, slice, bool, bool, Callable[[Tensor, Tensor], Any]]] = {
    "one input, which goes both ways": (ALL, ALL, False, True, lambda X, y: (X, y)),
    "one input, cut in two": (WIDE, DEEP, False, True, lambda X, y: (X, y)),
    "two inputs by position": (WIDE, DEEP, False, False, lambda X, y: ((X[:, WIDE], X[:, DEEP]), y)),
    "two inputs by name": (WIDE, DEEP, False, False, lambda X, y: ({"X_wide": X[:, WIDE], "X_deep": X[:, DEEP]}, y)),
    "two inputs by name, from a Dataset": (WIDE, DEEP, False, False, Named),
    "an auxiliary output": (WIDE, DEEP, True, False, lambda X, y: ({"X_wide": X[:, WIDE], "X_deep": X[:, DEEP]}, y)),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_trained_as_by_hand(form: str, splits: Splits) -> None:
    wide, deep, auxiliary, cut, data = FORMS[form]
    X, y = (part[:2000] for part in splits.train)
    n_wide, n_deep = wide.stop - wide.start, deep.stop - deep.start
    torch.manual_seed(42)
    network = WideAndDeep(n_wide, n_deep, hidden=(50, 40), auxiliary=auxiliary)
    torch.manual_seed(42)
    written = Written(n_wide, n_deep, auxiliary)
    objective: Any = "mse"
    if auxiliary:
        objective = {"main": Loss("mse", weight=0.8), "aux": Loss("mse", weight=0.2, train_only=True)}
    model = Cut(network, wide, deep) if cut else network
    trainer = Trainer(model, objective, "sgd", lr=0.002, device="cpu", seed=42, metrics=["rmse"])
    trainer.fit(data(X, y), epochs=2, batch_size=32, progress="none")
    by_hand(written, X[:, wide], X[:, deep], y, epochs=2, lr=0.002)
    for mine, theirs in zip(network.parameters(), written.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-7)

    X_valid, y_valid = splits.valid
    with torch.no_grad():
        main, _ = written(X_valid[:, wide], X_valid[:, deep])
    measured = trainer.evaluate(data(X_valid, y_valid))
    assert measured["rmse"] == pytest.approx(float((main - y_valid).square().mean().sqrt()), rel=1e-5)
    assert set(measured) == {"loss", "rmse"}, "the auxiliary output is not measured"


@pytest.mark.slow
def test_trained_to_the_end(splits: Splits) -> None:
    errors = {}
    for auxiliary in (False, True):
        torch.manual_seed(42)
        model = WideAndDeep(5, 6, hidden=(50, 40), auxiliary=auxiliary)
        parts = {"main": Loss("mse", weight=0.8), "aux": Loss("mse", weight=0.2, train_only=True)}
        trainer = Trainer(model, parts if auxiliary else "mse", "sgd", lr=0.02, device="cpu", seed=42)
        train, valid = (({"X_wide": X[:, WIDE], "X_deep": X[:, DEEP]}, y) for X, y in (splits.train, splits.valid))
        trainer.fit(train, valid, epochs=20, batch_size=32, progress="none")
        errors[auxiliary] = trainer.evaluate(valid)["rmse"]
    assert max(errors.values()) < 0.6388, "what the chapter prints for its network without a wide path"
