"""A step that was another in each epoch and then is the same: a program is made once it would last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import X, assert_near
from torch import Tensor, nn

from stoker.data.resident import ResidentBatches
from stoker.engines import auto, beside, settled
from stoker.engines.plan import CHANGES, CHANGING
from stoker.engines.settled import Changes, settled_digest
from stoker.engines.step import Step
from stoker.engines.xla.program import Program
from stoker.training.callbacks import Callback
from stoker.training.trainer import Trainer

LABELS = torch.arange(150) % 3


class Tempered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.temperature, self.shift = nn.Linear(4, 3), 1.0, [torch.zeros(3)]

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) / self.temperature + self.shift[0]  # type: ignore[no-any-return]


class Annealed(Callback):
    """Another temperature in each of the first six epochs."""

    def __init__(self, model: Tempered, last: int = 6) -> None:
        self.model, self.last = model, last

    def on_epoch_start(self, epoch: int) -> None:
        self.model.temperature = 1.0 + 0.1 * min(epoch, self.last)


def trained(engine: str, last: int = 6, epochs: int = 9, **fitting: Any) -> tuple[Trainer, list[str]]:
    torch.manual_seed(0)
    model, reasons = Tempered(), []

    class Notes(Callback):
        def on_epoch_end(self, *_: Any) -> None:
            reasons.append(trainer.engine_reason)

    trainer = Trainer(model, "cross-entropy", "adam", lr=0.01, engine=engine, device="cpu", metrics=())
    fitting = {"batch_size": 16, "progress": "none", "check": False, **fitting}
    trainer.fit((X, LABELS), epochs=epochs, callbacks=[Annealed(model, last), Notes()], **fitting)
    return trainer, reasons


def test_a_program_is_made_once_two_epochs_running_are_the_same() -> None:
    trainer, reasons = trained("compiled")
    # the sixth is the first of its temperature
    assert reasons == ["compiled: as asked"] * 3 + [f"eager: {CHANGING}"] * 3 + ["compiled: as asked"] * 3
    assert_near(trainer.model, trained("eager")[0].model)


@pytest.mark.parametrize("every", ["1epoch", "7steps"])
@pytest.mark.parametrize("until", [2, 4, 5, 6, 7, 8])
def test_a_resumed_training_comes_to_the_same_bits(every: str, until: int, tmp_path: Path) -> None:
    whole, reasons = trained("compiled")
    keeping: dict[str, Any] = {"checkpoint": tmp_path, "checkpoint_every": every}

    class OverError(Exception):
        pass

    with pytest.MonkeyPatch.context() as patched:

        def ends(self: Any, epoch: int) -> None:
            self.model.temperature = 1.0 + 0.1 * min(epoch, self.last)
            if epoch == until + 1:
                raise OverError

        patched.setattr(Annealed, "on_epoch_start", ends)
        with pytest.raises(OverError):
            trained("compiled", **keeping)
    again, rest = trained("compiled", resume=True, **keeping)
    assert rest == reasons[-len(rest) :]
    assert all(torch.equal(*pair) for pair in zip(whole.model.parameters(), again.model.parameters(), strict=True))


def test_auto_makes_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BUILD_SECONDS", "COLD_SECONDS", "WARM_SECONDS", "WARM_BUILD", "AT_ONCE", "READY", "UNKNOWN"):
        monkeypatch.setattr(auto, name, 0.0)
    for module in (auto, beside):
        monkeypatch.setattr(module, "forks", lambda: False)
    monkeypatch.setattr(auto, "surely_saved", lambda *_: 1.0)
    monkeypatch.setattr("stoker.engines.eager.SEGMENT_SECONDS", 0.0)
    trainer, reasons = trained("auto", epochs=40)
    assert f"eager: {CHANGING}" in reasons
    assert trainer.engine.name == "compiled"


class Steps:
    """The forms of the epochs, one after the other."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(settled, "settled_digest", lambda step, _: step)

    def made(self, forms: str) -> str:
        """In which epochs programs are made, if none lasts."""
        changes, found = Changes(), ""
        for form in forms:
            changes.begin(form, None, fits=False)  # type: ignore[arg-type]
            found += " " if changes.too_many else "x"
        return found


def test_fewer_and_fewer_are_made_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Steps(monkeypatch).made
    assert made("abcdefghijkl") == "xxx" + " " * 9
    assert made("abcddefghijk") == "xxx x" + " " * 7
    # what looks the same, and yet no program lasts: after 2 epochs, after 4, after 8
    assert made("a" * 20) == "xxx x   x       x   "


def test_a_program_that_lasts_is_none_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    Steps(monkeypatch)
    changes = Changes()
    for form in "abcdd":
        changes.begin(form, None, fits=False)  # type: ignore[arg-type]
    changes.begin("d", None, fits=True)  # type: ignore[arg-type]
    assert changes == Changes(0, 0, None)
    assert CHANGES == 3


def digest(model: nn.Module, criterion: nn.Module | None = None) -> str | None:
    criteria = () if criterion is None else (criterion,)
    step = Step(model, nn.functional.mse_loss, torch.optim.SGD(model.parameters(), lr=0.1), criteria=criteria)
    return settled_digest(step, ResidentBatches(X, LABELS, batch_size=16))


def test_the_values_of_what_modules_hold_are_in_the_digest() -> None:
    model, criterion = Tempered(), nn.CrossEntropyLoss(weight=torch.ones(3))
    first = digest(model, criterion)
    assert digest(Tempered(), nn.CrossEntropyLoss(weight=torch.ones(3))) == first is not None
    model.shift[0].add_(1)
    second = digest(model, criterion)
    assert criterion.weight is not None
    criterion.weight.mul_(2)
    assert len({first, second, digest(model, criterion)}) == 3


def test_what_has_no_pure_update_has_none() -> None:
    model = Tempered()
    step = Step(model, nn.functional.mse_loss, torch.optim.LBFGS(model.parameters()))
    assert settled_digest(step, ResidentBatches(X, LABELS, batch_size=16)) is None


def test_programs_are_not_made_for_what_is_another_each_time(made: list[Program]) -> None:
    _, reasons = trained("compiled", last=100)
    assert len(made) == CHANGES
    assert reasons[3:] == [f"eager: {CHANGING}"] * 6
