"""What goes wrong on the way: losses that explode, full disks, too little memory, Ctrl-C. What is trained is kept."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small import RUN_FILES, files_of, learning, quick_fit

import stoker
from stoker.errors import DiskFullError, NonFiniteLossError, OutOfMemoryError, RunError

HOMES = learning("price", 60)


def test_a_loss_that_explodes_at_once_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(
        NonFiniteLossError, match=r"^epoch 1, step \d+: the loss must be finite, got (inf|nan)\."
    ) as caught:
        quick_fit(HOMES, tmp_path / "new" / "run", target="price", lr=1e12, optimizer="sgd", batch_size=4)
    assert "kept in" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("target", "valid_size"), [("price", 0.2), ("price", 0), ("grade", 0.2)])
def test_a_loss_that_only_the_last_step_breaks_leaves_nothing(target: str, valid_size: float, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "lr": 1e30,
        "optimizer": "sgd",
        "batch_size": 1000,
        "epochs": 1,
        "valid_size": valid_size,
    }
    with pytest.raises(NonFiniteLossError, match=r"epoch 1\b.*: .* must be finite, got ") as caught:
        quick_fit(learning(target, 60), tmp_path / "new" / "run", target=target, **settings)
    assert "kept in" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("valid_size", [0.2, 0])
def test_a_loss_that_explodes_later_leaves_the_run_of_the_best_epoch(valid_size: float, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"target": "price", "optimizer": "sgd", "lr": 0.01, "valid_size": valid_size}
    explosive: dict[str, Any] = {"schedule": "step", "schedule_settings": {"step_size": 2, "gamma": 1e30}}
    with pytest.raises(NonFiniteLossError, match=r"^epoch 3, step \d+: the loss must be finite") as caught:
        quick_fit(HOMES, tmp_path / "run", **settings, **explosive, epochs=5)
    assert f"The run up to there is kept in {tmp_path / 'run'}." in str(caught.value)
    kept = stoker.load(tmp_path / "run")
    assert kept.stopped == "non-finite"
    assert len(kept.history) == 2
    good = quick_fit(HOMES, tmp_path / "good", **settings, epochs=2)
    state, wanted = (load_file(run.path / "model.safetensors") for run in (kept, good))
    assert all(torch.equal(state[name], wanted[name]) for name in wanted), "the weights of the last good epoch"
    assert kept.metrics == good.metrics
    assert "stopped because the loss became NaN or infinite" in (kept.path / "README.md").read_text()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MB of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    try:
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", disk], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no mount command here")
    if made.returncode:
        pytest.skip(f"no disk can be mounted here: {made.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


class FillsTheDisk(stoker.Callback):
    """Leaves so many bytes once training is over."""

    def __init__(self, disk: Path, left: int) -> None:
        self.disk, self.left = disk, left

    def on_fit_end(self, *_: object) -> None:
        free = os.statvfs(self.disk)
        (self.disk / "filler").write_bytes(b"x" * (free.f_bavail * free.f_frsize - self.left))


def test_a_disk_that_is_full_is_told_of_before_training(small_disk: Path) -> None:
    began: list[object] = []

    class Notes(stoker.Callback):
        def on_fit_start(self, plan: object) -> None:
            began.append(plan)

    FillsTheDisk(small_disk, 100_000).on_fit_end()
    match = r"new/run: the run needs about \d\.\d MB of disk, got 0\.1 MB free\. Make room, or choose another --out\."
    with pytest.raises(DiskFullError, match=match):
        quick_fit(HOMES, small_disk / "new" / "run", target="price", callbacks=[Notes()])
    assert not began
    assert files_of(small_disk) == {"filler"}
    assert not (small_disk / "new").exists()


@pytest.mark.parametrize("left", [0, 4096, 8192, 24_000])
def test_a_disk_that_fills_up_meanwhile_costs_nothing(
    left: int, small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rescue = tmp_path / "rescue"
    rescue.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(rescue))
    match = (
        r"run/.*: no room left on the disk, got .*\. The run is kept in .* instead: move it to where there is room\."
    )
    settings: dict[str, Any] = {"callbacks": [FillsTheDisk(small_disk, left)], "pictures": True}
    with pytest.raises(DiskFullError, match=match) as caught:
        quick_fit(HOMES, small_disk / "run", target="price", **settings)
    assert files_of(small_disk) == {"filler"}
    assert not (small_disk / "run").exists()
    (path,) = rescue.iterdir()
    assert f"kept in {path} instead" in str(caught.value)
    assert files_of(path) == RUN_FILES | {"figures/predicted_vs_true.png"}
    wanted = quick_fit(HOMES, tmp_path / "run", target="price")
    assert stoker.load(path).metrics == wanted.metrics


def test_where_no_disk_has_room_nothing_is_left_half_written(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    match = r"no room left on the disk, .* Make room and train again: the temporary directory has none either\."
    with pytest.raises(DiskFullError, match=match):
        quick_fit(HOMES, small_disk / "run", target="price", callbacks=[FillsTheDisk(small_disk, 8192)])
    assert [path.name for path in small_disk.iterdir()] == ["filler"]


def test_where_only_pictures_find_no_room_the_rescued_run_has_none(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    calls: list[Path] = []

    def full_at_once(path: Path, _: object) -> None:
        calls.append(path)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stoker.jobs.writing._draw", full_at_once)
    with pytest.raises(DiskFullError, match="The run is kept in"):
        quick_fit(HOMES, tmp_path / "run", target="price")
    assert len(calls) == 2
    assert files_of(calls[1].parent) == RUN_FILES - {"figures/learning_curves.png"}
    assert stoker.load(calls[1].parent).metrics["test"]["loss"] > 0


def test_a_directory_that_is_gone_in_the_end_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Removes(stoker.Callback):
        def on_fit_end(self, *_: object) -> None:
            shutil.rmtree(tmp_path / "new" / "run")

    (tmp_path / "rescue").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "rescue"))
    match = r"new/run: the run must be written where it was to be, got .*No such file.* The run is kept in .* instead\."
    with pytest.raises(RunError, match=match) as caught:
        quick_fit(HOMES, tmp_path / "new" / "run", target="price", callbacks=[Removes()])
    (kept,) = (tmp_path / "rescue").iterdir()
    assert f"kept in {kept} instead" in str(caught.value)
    assert not (tmp_path / "new").exists()
    assert stoker.load(kept).metrics == quick_fit(HOMES, tmp_path / "run", target="price").metrics


def test_a_fault_in_writing_is_told_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> str:
        raise ZeroDivisionError("a bug")

    (tmp_path / "rescue").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "rescue"))
    monkeypatch.setattr("stoker.jobs.writing.model_card", fail)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        quick_fit(HOMES, tmp_path / "run", target="price")
    assert [path.name for path in tmp_path.rglob("*")] == ["rescue"]


@pytest.mark.parametrize("hidden", [(10**11,), (10**30, 10**30)])
def test_a_model_for_which_there_is_no_memory(hidden: tuple[int, ...], tmp_path: Path) -> None:
    match = r"^model: its weights must fit into memory, got name mlp, .*hidden \[1000+.*\], .*Make it smaller\."
    with pytest.raises(OutOfMemoryError, match=match):
        quick_fit(HOMES, tmp_path / "new" / "run", target="price", hidden=hidden)
    assert list(tmp_path.iterdir()) == []


MEMORY = """
import resource, sys
import numpy as np
import stoker, stoker.jobs.fit, sklearn.model_selection, torchmetrics
from stoker.errors import OutOfMemoryError
X = np.random.default_rng(0).normal(size=(20_000, 4))
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
now = int(status["VmSize"].split()[0]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (now + (600 << 20), -1))
try:
    stoker.fit((X, X[:, 0]), out=sys.argv[1], batch_size=12_000, hidden=(20_000,), epochs=1, progress="none")
except OutOfMemoryError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_a_batch_for_which_there_is_no_memory(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, tmp_path / "new" / "run"], capture_output=True, text=True, timeout=120
    )
    text = "fit: a batch must fit into memory, got batch size 12000. Use a smaller one, or a smaller model."
    assert done.stdout.strip() == text, done.stderr
    assert list(tmp_path.iterdir()) == []


INTERRUPTED = """
import sys
import stoker

class Tells(stoker.Callback):
    def on_epoch_end(self, row, is_best):
        print("epoch", flush=True)

run = stoker.fit("iris", out=sys.argv[1], epochs=100_000, hidden=(8,), progress="none", callbacks=[Tells()])
print(run.stopped, len(run.history))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT to send to a process of one's own")
def test_ctrl_c_keeps_what_is_trained(tmp_path: Path) -> None:
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path / "run")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "epoch\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    stopped, epochs = out.split()[-2:]
    run = stoker.load(tmp_path / "run")
    assert stopped == run.stopped == "interrupted"
    assert int(epochs) == len(run.history) < 100_000
    (kept,) = (run.path / "checkpoints").glob("step-*.safetensors")
    going_on = {f"checkpoints/{name}" for name in ("job.json", "lock", kept.name)}
    assert files_of(run.path) == RUN_FILES | {"figures/confusion_matrix.png"} | going_on
    assert run.evaluate() == run.metrics["test"]
    assert "it was interrupted, and what was trained until then kept" in (run.path / "README.md").read_text()


def test_ctrl_c_before_the_first_step_keeps_the_little_that_is_trained(tmp_path: Path) -> None:
    class Presses(stoker.Callback):
        def on_fit_start(self, *_: object) -> None:
            signal.raise_signal(signal.SIGINT)

    run = quick_fit(HOMES, tmp_path / "run", target="price", epochs=1000, callbacks=[Presses()])
    assert run.stopped == "interrupted"
    assert len(run.history) == 1
    assert files_of(run.path) >= RUN_FILES


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_while_the_run_is_written(presses: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def press(*_: object, **__: object) -> None:
        for _press in range(presses):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("stoker.jobs.writing._draw", press)
    if presses == 1:
        run = quick_fit(HOMES, tmp_path / "run", target="price")
        assert run.stopped == "finished"
        assert files_of(run.path) == RUN_FILES - {"figures/learning_curves.png"}
    else:
        with pytest.raises(KeyboardInterrupt):
            quick_fit(HOMES, tmp_path / "run", target="price")
        assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_errors_name_no_two_places(tmp_path: Path) -> None:
    """The sentence on the kept run stands once, at the end."""
    settings: dict[str, Any] = {
        "optimizer": "sgd",
        "schedule": "step",
        "schedule_settings": {"step_size": 1, "gamma": 1e30},
    }
    with pytest.raises(NonFiniteLossError) as caught:
        quick_fit(HOMES, tmp_path / "run", target="price", epochs=3, **settings)
    assert len(re.findall("kept in", str(caught.value))) == 1
    assert str(caught.value).endswith(f"kept in {tmp_path / 'run'}.")
