"""What a training that goes on says, asks for and refuses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from interrupted import Killed, X, Y, bits, everything, fit, killed_after, net, trainer_of
from torch import nn

from stoker.data.batches import as_batches
from stoker.engines import auto, beside
from stoker.engines.standing import Standing
from stoker.errors import CheckpointError, ConfigError
from stoker.training.callbacks import Callback, EpochProgress, FitPlan
from stoker.training.checkpoints.files import checkpoint_paths, read_checkpoint, write_checkpoint
from stoker.training.checkpoints.resuming import Checkpoints, CheckpointWarning
from stoker.training.checkpoints.when import Every
from stoker.training.history import Row


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the checkpoints of a training that was killed after two of its four epochs."""
    with monkeypatch.context() as patched:
        killed_after(2, patched)
        with pytest.raises(Killed):
            fit(trainer_of(), checkpoint=tmp_path / "kept")
    return tmp_path / "kept"


@pytest.mark.parametrize(
    ("text", "every"),
    [
        ("1epoch", Every(epochs=1)),
        ("2 epochs", Every(epochs=2)),
        ("500steps", Every(steps=500)),
        ("30s", Every(seconds=30)),
        ("2min", Every(seconds=120)),
        ("1.5hours", Every(seconds=5400)),
    ],
)
def test_how_often(text: str, every: Every) -> None:
    assert Every.of(text) == every


@pytest.mark.parametrize("text", ["", "epoch", "0steps", "1.5epochs", "2 weeks", "-1epoch", "ss", 3])
def test_how_often_it_cannot_be(text: Any) -> None:
    with pytest.raises(ConfigError, match=r'checkpoint_every: must be a number of epochs, .*Such as "1epoch"'):
        Every.of(text)


@pytest.mark.parametrize("keep", [0, -1, True, 1.5])
def test_keep_is_a_count(keep: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"keep: must be a whole number of checkpoints from 1 on, got {keep}"):
        fit(trainer_of(), checkpoint=tmp_path, keep=keep)


def test_so_many_remain(tmp_path: Path) -> None:
    fit(trainer_of(), checkpoint=tmp_path / "kept", keep=2)
    steps = [read_checkpoint(path)["step"] for path in checkpoint_paths(tmp_path / "kept")]
    assert steps == [40, 30]


def test_a_time_between_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    monkeypatch.setattr(
        "stoker.training.checkpoints.checkpointer.write_checkpoint", lambda _, step, *__: written.append(step)
    )
    monkeypatch.setattr("stoker.engines.eager.SEGMENT_SECONDS", 0.0)

    class Slow(Callback):
        def on_progress(self, _progress: EpochProgress) -> None:
            time.sleep(0.03)

    fit(trainer_of(engine="eager"), epochs=1, checkpoint=tmp_path, checkpoint_every="0.1s", callbacks=[Slow()])
    assert 1 < len(written) < 5
    assert written[-1] == 10


def test_checkpoints_that_nobody_asked_to_go_on_from_are_no_place_for_others(begun: Path) -> None:
    with pytest.raises(CheckpointError, match=r"kept: must have no checkpoints yet, got some\. Pass resume=True"):
        fit(trainer_of(), checkpoint=begun)


def test_those_of_another_training_are_not_written_over(begun: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    fit(trainer_of(seed=5), epochs=9, checkpoint=other)
    before = {path: path.read_bytes() for path in other.iterdir()}
    with pytest.raises(CheckpointError, match=r"other: must have no checkpoints yet, got some\. Pass resume=True"):
        fit(trainer_of(), checkpoint=other, resume=begun)
    assert {path: path.read_bytes() for path in other.iterdir()} == before
    fit(trainer_of(), checkpoint=begun, resume=begun.parent / "other" / ".." / begun.name)  # the same one is


def test_there_must_be_one_where_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"must have a checkpoint to go on from, got none\."):
        fit(trainer_of(), resume=tmp_path)
    with pytest.raises(ConfigError, match="resume: needs the folder of the checkpoints, got True alone"):
        fit(trainer_of(), resume=True)


def test_going_on_without_writing_more(begun: Path) -> None:
    before = {path: path.read_bytes() for path in begun.iterdir()}
    whole, going_on = trainer_of(), trainer_of()
    wanted = everything(whole, fit(whole))
    assert everything(going_on, fit(going_on, resume=begun)) == wanted
    assert {path: path.read_bytes() for path in begun.iterdir()} == before


def wider() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 9), nn.BatchNorm1d(9), nn.Dropout(0.5), nn.Linear(9, 1))


def quieter() -> nn.Module:
    model = net()
    model[2] = nn.Dropout(0.9)
    return model


def slower() -> nn.Module:
    model = net()
    model[1] = nn.BatchNorm1d(8, momentum=0.2)
    return model


@pytest.mark.parametrize(
    ("trainer", "settings", "text"),
    [
        ({"seed": 4}, {}, r"the seed must be the checkpoint's, 3, got 4\. Go on with what it was begun with"),
        ({"lr": 0.02}, {}, r"the optimizer must be the checkpoint's, AdamW?\(.*lr=0.01.*\), got AdamW?\(.*lr=0.02"),
        ({"optimizer": "sgd"}, {}, r"the optimizer must be the checkpoint's, Adam\(.*\), got SGD\("),
        ({"criterion": "mae"}, {}, r"the criterion must be the checkpoint's, .*MSELoss.*, got .*L1Loss"),
        ({"schedule": "cosine"}, {}, r"the schedule must be the checkpoint's, None, got cosine"),
        ({"engine": "eager"}, {}, r"the engine must be the checkpoint's, auto, got eager"),
        ({"ema": 0.9}, {}, r"ema must be the checkpoint's, None, got 0\.9"),
        ({}, {"patience": 3}, r"patience must be the checkpoint's, None, got 3"),
        (
            {},
            {"batch_size": 8},
            r"the training data must be the checkpoint's, 150 rows in batches of 16 .*batches of 8",
        ),
        ({}, {"shuffle": False}, r"shuffle must be the checkpoint's, True, got False"),
        ({}, {"data": (X + 1, Y)}, r"the training data must be the checkpoint's, 150 rows"),
        ({}, {"valid": (X, Y)}, r"the validation data must be the checkpoint's, 40 rows"),
        ({"model": wider}, {}, r"the model's 0 must be the checkpoint's, Linear\(.*out_features=8\), got Linear.*=9\)"),
        ({"model": lambda: nn.Linear(3, 1)}, {}, r"the model must be the checkpoint's, Sequential\(\), got Linear"),
        ({"model": quieter}, {}, r"the model's 2 must be the checkpoint's, Dropout\(.*p=0\.5\), got .*p=0\.9\)"),
        ({"model": slower}, {}, r"the model's 1 must be the checkpoint's, BatchNorm1d\(.*momentum=0\.1"),
        ({"groups": {"0": {"lr": 0.1}}}, {}, r"the optimizer must be .*, got Adam\(.*\) of 4 tensors, 2 .*\(lr=0\.1"),
        ({"criterion": nn.MSELoss(reduction="sum")}, {}, r"the criterion's settings must .*mean'\), got .*sum'\)"),
    ],
)
def test_what_differs_is_named(trainer: dict[str, Any], settings: dict[str, Any], text: str, begun: Path) -> None:
    with pytest.raises(CheckpointError, match=f"resume: {text}"):
        fit(trainer_of(**trainer), resume=begun, **settings)


class Own(nn.Module):
    """What it consists of besides torch's modules shows in its tensors alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x @ self.weight).mean(1, keepdim=True)


def test_other_tensors_are_named(tmp_path: Path) -> None:
    fit(trainer_of(lambda: Own(2)), checkpoint=tmp_path)
    text = r"resume: weight of the model must be the checkpoint's, float32 \[3, 2\], got float32 \[3, 5\]"
    with pytest.raises(CheckpointError, match=text):
        fit(trainer_of(lambda: Own(5)), resume=tmp_path)


@pytest.mark.parametrize(
    ("criterion", "other", "text"),
    [
        (nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.5), "settings must .*, got .*smoothing=0.5"),
        (
            nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0])),
            nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0])),
            r"tensors must be the checkpoint's, float32 \[2\], ",
        ),
    ],
)
def test_other_settings_of_a_criterion_are_named(criterion: Any, other: Any, text: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"model": lambda: nn.Linear(3, 2), "metrics": ()}
    data = {"data": (X, (Y[:, 0] > 0).long()), "valid": None}
    fit(trainer_of(criterion=criterion, **settings), checkpoint=tmp_path, **data)
    with pytest.raises(CheckpointError, match=f"resume: the criterion's {text}"):
        fit(trainer_of(criterion=other, **settings), resume=tmp_path, **data)


def test_the_same_trainer_goes_on_too(tmp_path: Path) -> None:
    """A schedule has moved its rate meanwhile, which is not what it was made with."""
    trainer, whole = (trainer_of(schedule="exponential", groups={"0": {"lr": 0.1}}) for _ in range(2))
    history = fit(trainer, callbacks=[At(17, signal.SIGINT)], checkpoint=tmp_path, checkpoint_every="1h")
    assert history.stopped == "interrupted"
    wanted = everything(whole, fit(whole, callbacks=[At(10**9, signal.SIGINT)]))
    assert everything(trainer, fit(trainer, checkpoint=tmp_path, checkpoint_every="1h", resume=True)) == wanted


@pytest.mark.parametrize(
    ("name", "value"), [("Stoker's version", "0.0.1"), ("torch's version", "1.0"), ("the number of threads", 99)]
)
def test_other_software_is_named_and_may_be_forced(
    name: str, value: Any, begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = trainer_of().device
    from stoker.training.checkpoints.identity import environment

    now = environment(real)
    monkeypatch.setattr("stoker.training.checkpoints.identity.environment", lambda _: now | {name: value})
    with pytest.raises(CheckpointError, match=rf"{name} must be the checkpoint's, .*, got {value}\. .*or force it"):
        fit(trainer_of(), resume=begun)
    told: list[str] = []
    keeping = Checkpoints(None, resume=begun, force=True, notify=told.append)
    assert len(fit(trainer_of(), checkpoint=keeping)) == 4
    assert told[0].startswith(f"forced: {name} must be the checkpoint's")


def test_a_damaged_one_is_passed_over_with_a_warning(begun: Path) -> None:
    newest = checkpoint_paths(begun)[0]
    newest.write_bytes(newest.read_bytes()[:-1])
    whole, going_on = trainer_of(), trainer_of()
    with pytest.warns(CheckpointWarning) as told:
        history = fit(going_on, checkpoint=begun, resume=True)
    assert "passed over a checkpoint that is damaged" in str(told[0].message)
    assert everything(going_on, history) == everything(whole, fit(whole))


def test_what_ended_is_given_back_at_once(tmp_path: Path) -> None:
    whole, again = trainer_of(lr=0.3), trainer_of(lr=0.3)
    settings: dict[str, Any] = {"epochs": 30, "patience": 2, "checkpoint": tmp_path / "kept"}
    history = fit(whole, **settings)
    assert history.stopped == "patience"
    assert everything(again, fit(again, resume=True, **settings)) == everything(whole, history)


@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_more_epochs_are_as_another_call_of_fit(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"engine": engine, "schedule": "cosine", "ema": 0.9}
    at_once, later = trainer_of(**settings), trainer_of(**settings)
    fit(at_once, epochs=2, valid=None)
    keeping = {"checkpoint": tmp_path / "kept", "resume": True, "valid": None}
    first = fit(trainer_of(**settings), epochs=2, **keeping)
    with monkeypatch.context() as patched:
        killed_after(1, patched)
        with pytest.raises(Killed):
            fit(trainer_of(**settings), epochs=4, **keeping)
    history = fit(later, epochs=4, **keeping)
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    assert list(history)[:2] == list(first)
    # The moving average goes on, instead of beginning anew as another call of fit has it.
    on = fit(at_once, epochs=2, valid=None)
    assert history.column("train_loss")[2:] != []
    assert history.column("lr")[2:] == on.column("lr")


def test_more_epochs_only_once_the_first_are_trained(begun: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"epochs: must be the checkpoint's, 4, until they are trained, got 9\. Train"
    ):
        fit(trainer_of(), epochs=9, resume=begun)
    fit(trainer_of(), epochs=4, checkpoint=begun, resume=True)
    with pytest.raises(ConfigError, match="epochs: must be more than the 4 that are trained, got 3"):
        fit(trainer_of(), epochs=3, resume=begun)


class Counting(Callback):
    def __init__(self) -> None:
        self.rows = 0
        self.plan: FitPlan | None = None

    def on_fit_start(self, plan: FitPlan) -> None:
        self.plan = plan

    def on_epoch_end(self, _row: Row, _is_best: bool) -> None:
        self.rows += 1

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state: Any) -> None:
        self.rows = state["rows"]


def test_callbacks_may_have_a_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        killed_after(3, patched)
        with pytest.raises(Killed):
            fit(trainer_of(), checkpoint=tmp_path, callbacks=[Counting()])
    counting = Counting()
    fit(trainer_of(), resume=tmp_path, callbacks=[counting])
    assert counting.rows == 4
    assert counting.plan is not None
    assert (counting.plan.first_epoch, counting.plan.epochs) == (4, 4)
    with pytest.raises(CheckpointError, match="callbacks: must have a Counting in place 1, as the checkpoint"):
        fit(trainer_of(), resume=tmp_path)


def test_a_state_that_cannot_be_kept_is_told_before_the_first_step(tmp_path: Path) -> None:
    class Strange(Callback):
        def state_dict(self) -> dict[str, Any]:
            return {"it": self}

    with pytest.raises(CheckpointError, match="can hold numbers, texts, tensors, lists and dicts, got Strange"):
        fit(trainer_of(), checkpoint=tmp_path / "kept", callbacks=[Strange()])
    assert not (tmp_path / "kept").exists()


class Extra(nn.Module):
    """Keeps something besides tensors, by torch's own protocol, and a buffer that grows."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(3, 1)
        self.calls = 0
        self.seen: torch.Tensor
        self.register_buffer("seen", torch.zeros(0), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.calls += 1
            self.seen = torch.cat([self.seen, x[:1, 0]])
        out: torch.Tensor = self.line(x) * (1 + 0.001 * self.calls) + self.seen.sum() * 0.001
        return out

    def get_extra_state(self) -> dict[str, int]:
        return {"calls": self.calls}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.calls = state["calls"]


def test_what_modules_keep_besides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = Extra()
    weights = {name: tensor.clone() for name, tensor in model.line.state_dict().items()}

    def make() -> nn.Module:
        made = Extra()
        made.line.load_state_dict(weights)
        return made

    settings: dict[str, Any] = {"model": make, "engine": "eager"}
    whole, going_on = trainer_of(**settings), trainer_of(**settings)
    wanted = fit(whole, check=False)
    with monkeypatch.context() as patched:
        killed_after(2, patched)
        with pytest.raises(Killed):
            fit(trainer_of(**settings), checkpoint=tmp_path, check=False, checkpoint_every="6steps")
    history = fit(going_on, resume=tmp_path, check=False)
    assert list(history) == list(wanted)
    assert bits(list(going_on.model.buffers())) == bits(list(whole.model.buffers()))


def press(number: int) -> None:
    os.kill(os.getpid(), number)
    for _ in range(1000):
        pass


class At(Callback):
    """Gets a signal when an update has been made."""

    def __init__(self, step: int, number: int) -> None:
        self.step, self.number = step, number

    def on_step_end(self, step: Any) -> None:
        if step.step == self.step:
            press(self.number)


@pytest.mark.parametrize("step", [3, 17, 20, 40])
@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_sigterm_keeps_what_there_is(engine: str, step: int, tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    whole, going_on = trainer_of(engine=engine), trainer_of(engine=engine)
    deaf = At(10**9, signal.SIGTERM)
    wanted = everything(whole, fit(whole, callbacks=[deaf]))
    keeping = {"checkpoint": tmp_path / "kept", "checkpoint_every": "1h"}
    with pytest.raises(SystemExit) as ended:
        fit(trainer_of(engine=engine), callbacks=[At(step, signal.SIGTERM)], **keeping)
    assert ended.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is handler
    assert len(checkpoint_paths(tmp_path / "kept")) == 1
    assert everything(going_on, fit(going_on, resume=True, callbacks=[deaf], **keeping)) == wanted


class Between(Callback):
    """Gets a signal between two segments."""

    def __init__(self, step: int, number: int) -> None:
        self.step, self.number = step, number

    def on_progress(self, progress: EpochProgress) -> None:
        if 10 * (progress.epoch - 1) + progress.steps == self.step:
            press(self.number)


@pytest.mark.parametrize("step", [7, 25])
def test_sigterm_keeps_what_a_program_has_come_to(step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stoker.engines.takeover.FIRST_SEGMENT", 1)
    monkeypatch.setattr("stoker.engines.takeover.SEGMENT_SECONDS", 0.0)
    whole, going_on = trainer_of(engine="compiled"), trainer_of(engine="compiled")
    wanted = everything(whole, fit(whole))
    assert whole.engine_reason == "compiled: as asked"
    keeping = {"checkpoint": tmp_path, "checkpoint_every": "1h"}
    with pytest.raises(SystemExit):
        fit(trainer_of(engine="compiled"), callbacks=[Between(step, signal.SIGTERM)], **keeping)
    (kept,) = checkpoint_paths(tmp_path)
    assert read_checkpoint(kept)["under_way"]["steps"] == step % 10
    assert everything(going_on, fit(going_on, resume=True, **keeping)) == wanted


@pytest.mark.parametrize("step", [17, 20, 40])
def test_after_ctrl_c_training_goes_on_as_if_it_had_not_been_pressed(step: int, tmp_path: Path) -> None:
    whole, going_on = trainer_of(engine="eager"), trainer_of(engine="eager")
    wanted = everything(whole, fit(whole))
    keeping = {"checkpoint": tmp_path / "kept", "checkpoint_every": "1h"}
    history = fit(trainer_of(engine="eager"), callbacks=[At(step, signal.SIGINT)], **keeping)
    assert history.stopped == "interrupted"
    assert everything(going_on, fit(going_on, resume=True, **keeping)) == wanted


def test_replicas_are_refused(tmp_path: Path) -> None:
    class Two:
        world, first = 2, True

    trainer = trainer_of()
    trainer.replicas = Two()  # type: ignore[assignment]
    with pytest.raises(ConfigError, match="checkpoint: is for training in one process, got 2 processes"):
        fit(trainer, checkpoint=tmp_path)


class Unhurried(Callback):
    """Until the program has taken over, an epoch has time for it."""

    def on_progress(self, _progress: EpochProgress) -> None:
        time.sleep(0.02)


def handed_over(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Settings with which ``auto`` hands over to a program in the middle of some epoch."""
    monkeypatch.setattr(auto, "BUILD_SECONDS", 0.0)
    monkeypatch.setattr(auto, "COLD_SECONDS", 0.0)
    monkeypatch.setattr(auto, "WARM_SECONDS", 0.0)
    monkeypatch.setattr(auto, "WARM_BUILD", 0.0)
    monkeypatch.setattr(beside, "forks", lambda: False)
    monkeypatch.setattr(auto, "forks", lambda: False)
    monkeypatch.setattr("stoker.engines.eager.SEGMENT_SECONDS", 0.0)
    return {"epochs": 25, "valid": None, "callbacks": [Unhurried()]}


@pytest.mark.slow
def test_what_auto_chose_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = handed_over(monkeypatch)
    first = trainer_of(engine="auto")
    with monkeypatch.context() as patched:
        write = killed_and_copied(tmp_path, patched)
        wanted = everything(first, fit(first, checkpoint=tmp_path / "kept", checkpoint_every="1h", **settings))
    assert first.engine.name == "compiled", first.engine_reason
    copies = sorted(tmp_path.glob("copy-*"))
    assert len(copies) == 2, "one at the hand-over, one at the end"
    saved = read_checkpoint(copies[0])
    assert saved["engine"]["program"]
    assert saved["engine"]["since"] in first.engine_reason
    folder = tmp_path / "again"
    folder.mkdir()
    copies[0].rename(folder / write[0])
    going_on = trainer_of(engine="auto")
    found = everything(going_on, fit(going_on, resume=folder, **settings))
    assert going_on.engine_reason == first.engine_reason
    assert found == wanted


def killed_and_copied(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each checkpoint is copied where it stays."""
    names: list[str] = []

    def write(*arguments: Any) -> Path:
        path = write_checkpoint(*arguments)
        (folder / f"copy-{len(names)}").write_bytes(path.read_bytes())
        names.append(path.name)
        return path

    monkeypatch.setattr("stoker.training.checkpoints.checkpointer.write_checkpoint", write)
    return names


@pytest.mark.slow
def test_auto_by_shape_is_kept_when_little_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "CERTAIN_UPDATES", 30)  # four epochs are worth a program, the last two are not
    settings: dict[str, Any] = {"engine": "auto", "deterministic": True}
    whole, going_on = trainer_of(**settings), trainer_of(**settings)
    wanted = everything(whole, fit(whole))
    assert whole.engine.name == "compiled"
    with monkeypatch.context() as patched:
        killed_after(2, patched)
        with pytest.raises(Killed):
            fit(trainer_of(**settings), checkpoint=tmp_path)
    assert everything(going_on, fit(going_on, resume=tmp_path)) == wanted
    assert going_on.engine.name == "compiled"


@pytest.mark.parametrize(
    "settings", [{"engine": "compiled"}, {"engine": "auto", "deterministic": True}, {"engine": "auto"}]
)
def test_an_engine_that_has_trained_resumes_as_a_new_one(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto, "CERTAIN_UPDATES", 30)
    used, new = trainer_of(**settings), trainer_of(**settings)
    with monkeypatch.context() as patched:
        clocked = handed_over(patched) if settings == {"engine": "auto"} else {}
        fit(used, **clocked)
    assert used.engine.name == "compiled"
    batches = as_batches((X, Y), batch_size=16)
    for trainer in (used, new):
        trainer.engine.resume(Standing(settings["engine"], reason="before"))
    for under_way in (True, False):
        found, wanted = (one.engine.standing(one._step(), batches, under_way=under_way) for one in (used, new))
        assert found == wanted


SCRIPT = """
import sys, time
sys.path.insert(0, sys.argv[1])
from interrupted import fit, trainer_of
import stoker

class Slow(stoker.Callback):
    def on_progress(self, progress):
        print("at work", flush=True)
        time.sleep(0.05)

fit(trainer_of(), epochs=100000, checkpoint=sys.argv[2], checkpoint_every="1h", callbacks=[Slow()])
"""


@pytest.mark.slow
def test_sigterm_from_outside(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(tmp_path / "kept")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "at work\n"
        process.terminate()
        process.stdout.read()
        assert process.wait(30) == 143
    assert len(checkpoint_paths(tmp_path / "kept")) == 1


@pytest.mark.parametrize("name", ["modules", "optimizer", "best", "rows", "engine", "snapshot", "legs", "under_way"])
@pytest.mark.parametrize("value", [None, 3, [], {}, {"state": {}, "param_groups": []}, {"model": {"0.weight": 1}}])
def test_a_forged_one_is_refused(name: str, value: Any, tmp_path: Path, begun: Path) -> None:
    if (name, value) in [("under_way", None), ("rows", []), ("snapshot", {})]:
        pytest.skip("that is well-formed")
    saved = read_checkpoint(checkpoint_paths(begun)[0])
    write_checkpoint(tmp_path / "forged", 20, saved | {name: value}, keep=1)
    with pytest.raises(CheckpointError, match="must"):
        fit(trainer_of(), resume=tmp_path / "forged")
