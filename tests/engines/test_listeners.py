"""What callbacks change in the middle of an epoch is trained on, whichever engine was asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny import DATA, X, assert_near, mlp
from torch import Tensor, nn

from stoker.engines import eager, takeover
from stoker.training.callbacks import Callback, EpochProgress, StepProgress
from stoker.training.trainer import Trainer


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.scale = nn.Linear(4, 8), nn.Linear(8, 1), 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(x) * self.scale))  # type: ignore[no-any-return]


def clipped(trainer: Trainer) -> None:
    for parameter in trainer.model.parameters():
        parameter.data.clamp_(-0.2, 0.2)  # past the counter of versions


def scaled(trainer: Trainer) -> None:
    trainer.model.scale = 2.0  # type: ignore[assignment]


def frozen(trainer: Trainer) -> None:
    trainer.model.get_submodule("first").requires_grad_(False)


def forgetful(trainer: Trainer) -> None:
    trainer.optimizer.state.clear()


def slower(trainer: Trainer) -> None:
    trainer.optimizer.param_groups[0]["lr"] = 1e-4


EDITS = [clipped, scaled, frozen, forgetful, slower]
Edit = Callable[[Trainer], None]


@pytest.mark.parametrize("edit", EDITS)
def test_what_a_listener_to_each_step_changes_counts(edit: Edit) -> None:
    class Edits(Callback):
        def on_step_end(self, step: StepProgress) -> None:
            if step.step in (6, 14):
                edit(trainer)

    models = []
    for engine in ("compiled", "eager"):
        torch.manual_seed(0)
        model = Scaled()
        trainer = Trainer(model, "mse", "adam", lr=0.01, engine=engine, device="cpu", metrics=())
        trainer.fit(DATA, epochs=2, batch_size=16, progress="none", check=False, callbacks=[Edits()])
        models.append(model)
        if engine == "compiled":
            assert trainer.engine_reason == "eager: a callback listens to each step"
    assert all(torch.equal(*pair) for pair in zip(*(model.parameters() for model in models), strict=True))


def test_a_listener_to_each_step_sees_its_gradients() -> None:
    class Ear(Callback):
        def on_step_end(self, step: StepProgress) -> None:  # noqa: ARG002
            norms.append(float(trainer.model.get_parameter("0.weight").grad.norm()))  # type: ignore[union-attr]

    norms: list[float] = []
    trainer = Trainer(mlp(), "mse", "sgd", lr=0.01, engine="compiled", device="cpu", metrics=())
    trainer.fit(DATA, epochs=1, batch_size=16, progress="none", check=False, callbacks=[Ear()])
    assert len(set(norms)) == 10


@pytest.mark.parametrize("deterministic", [False, True])
def test_auto_listens_too(deterministic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Ear(Callback):
        def on_step_end(self, step: StepProgress) -> None:
            pass

    monkeypatch.setattr("stoker.engines.auto.CERTAIN_UPDATES", 1)
    settings: dict[str, Any] = {"engine": "auto", "deterministic": deterministic, "device": "cpu", "metrics": ()}
    trainer = Trainer(mlp(), "mse", "sgd", **settings)
    trainer.fit(DATA, epochs=1, batch_size=16, progress="none", check=False, callbacks=[Ear()])
    assert trainer.engine_reason == "eager: a callback listens to each step"


def test_a_hook_on_the_criterion_is_called() -> None:
    calls = []
    criterion = nn.MSELoss()
    criterion.register_forward_hook(lambda *_: calls.append(1))
    trainer = Trainer(mlp(), criterion, "sgd", lr=0.01, engine="compiled", device="cpu", metrics=())
    trainer.fit((X, X[:, :1]), epochs=2, batch_size=15, progress="none", check=False)
    assert trainer.engine_reason == "eager: a hook on the criterion"
    assert len(calls) == 20


@pytest.mark.parametrize("edit", [*EDITS, lambda trainer: trainer.model.get_parameter("last.bias").data.fill_(3.0)])
@pytest.mark.parametrize("schedule", [None, "cosine"])
def test_what_is_changed_between_segments_counts(
    edit: Edit, schedule: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Edits(Callback):
        def on_progress(self, progress: EpochProgress) -> None:
            if progress.steps == 6:
                edit(trainer)

    monkeypatch.setattr(takeover, "FIRST_SEGMENT", 1)
    monkeypatch.setattr(takeover, "SEGMENT_SECONDS", 0.0)
    monkeypatch.setattr(eager, "SEGMENT_SECONDS", 0.0)
    models, rows = [], []
    for engine in ("compiled", "eager"):
        torch.manual_seed(0)
        model = Scaled()
        settings: dict[str, Any] = {"engine": engine, "schedule": schedule, "ema": 0.9, "device": "cpu", "metrics": ()}
        trainer = Trainer(model, "mse", "adam", lr=0.01, **settings)
        fitting: dict[str, Any] = {"epochs": 2, "batch_size": 16, "progress": "none", "check": False}
        history = trainer.fit(DATA, callbacks=[Edits()], **fitting)
        assert trainer.engine_reason == f"{engine}: as asked"
        models.append(model)
        rows.append((history.column("train_loss"), history.column("lr")))
    assert_near(*models)
    assert rows[0][0] == pytest.approx(rows[1][0], rel=1e-4)
    assert rows[0][1] == pytest.approx(rows[1][1])
