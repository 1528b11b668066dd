"""A step with operators that nobody has lowered is made eagerly, and they are named."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_explain import Strange
from tiny import DATA
from torch import Tensor, nn

from stoker.engines import auto
from stoker.training.trainer import Trainer


class Bessel(nn.Module):
    """Of I₀, whose derivative is I₁."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.special.i0(self.layer(x))  # type: ignore[no-any-return]


MODELS: dict[str, tuple[Any, list[str]]] = {
    "one of torch's": (Bessel, ["aten.i0.default", "aten.special_i1.default"]),
    "one of ones own": (
        Strange,
        ["aten._linalg_svd.default", "stoker_tests.doubled_by_an_operator_of_ones_own.default"],
    ),
}


@pytest.mark.parametrize("engine", ["auto", "compiled"])
@pytest.mark.parametrize("name", MODELS)
def test_they_are_named_after_a_training(name: str, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for least in ("AT_ONCE", "UNKNOWN", "READY"):
        monkeypatch.setattr(auto, least, 0.0)
    monkeypatch.setattr(auto, "EARLY", (1, 2))
    make, operators = MODELS[name]
    found = []
    for asked in (engine, "eager"):
        torch.manual_seed(0)
        trainer = Trainer(make(), "mse", "sgd", lr=0.01, engine=asked, device="cpu", metrics=())
        history = trainer.fit(DATA, epochs=2, batch_size=16, progress="none", check=False)
        found.append((history.column("train_loss"), list(trainer.model.parameters())))
        if asked == engine:
            reason = f"operators without a lowering to XLA: {', '.join(operators)}"
            assert trainer.engine_reason == f"eager: {reason}"
            assert trainer.explain(DATA, batch_size=16).reason == reason  # beforehand, the same is told
    assert found[0][0] == found[1][0]
    assert all(torch.equal(*pair) for pair in zip(found[0][1], found[1][1], strict=True))
