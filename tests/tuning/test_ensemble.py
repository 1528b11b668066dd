from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import nn

from stoker.errors import RunNotFoundError
from stoker.tuning.ensemble import Averaged, Ensemble, average


def test_probabilities_are_averaged_not_logits() -> None:
    logits = [torch.randn(5, 3, generator=torch.Generator().manual_seed(seed)) * 4 for seed in range(3)]
    mean = np.mean([softmax(one.numpy(), axis=1) for one in logits], axis=0)
    for task in ("multiclass", "binary"):
        np.testing.assert_allclose(softmax(average(logits, task).numpy(), axis=1), mean, rtol=1e-5)


def test_very_sure_members_give_no_infinities() -> None:
    mean = average([torch.tensor([[500.0, -500.0]]), torch.tensor([[-500.0, 500.0]])], "binary")
    torch.testing.assert_close(mean.softmax(dim=1), torch.tensor([[0.5, 0.5]]))


def test_predictions_are_averaged() -> None:
    outputs = [torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [6.0]])]
    assert average(outputs, "regression").tolist() == [[2.0], [4.0]]
    twice, thrice = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    nn.init.constant_(twice.weight, 2.0)
    nn.init.constant_(thrice.weight, 3.0)

    class Named(nn.Module):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, numeric: torch.Tensor) -> torch.Tensor:
            return self.layer(numeric)  # type: ignore[no-any-return]

    averaged = Averaged([Named(twice), Named(thrice)], "regression")
    assert averaged(numeric=torch.tensor([[4.0]])).item() == 10.0


def test_a_directory_without_runs_is_no_ensemble(tmp_path: Path) -> None:
    with pytest.raises(RunNotFoundError, match="ensemble: must be a directory with runs in it"):
        Ensemble(tmp_path)
