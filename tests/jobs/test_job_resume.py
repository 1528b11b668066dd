"""Runs that go on: to the same files as runs that were never interrupted."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from small import RUN_FILES, files_of, learning, quick_fit
from typer.testing import CliRunner

import stoker
from stoker.cli.app import app
from stoker.errors import CheckpointError, ConfigError, DataError, RunError, RunNotFoundError, SourceNotFoundError
from stoker.jobs.keeping import alone
from stoker.training.callbacks import Callback
from stoker.training.checkpoints.files import checkpoint_paths, read_checkpoint, write_checkpoint
from stoker.training.history import Row

SETTINGS: dict[str, Any] = {
    "target": "price",
    "epochs": 6,
    "dropout": 0.2,
    "schedule": "cosine",
    "ema": 0.9,
    "patience": 3,
    "checkpoint_every": "1epoch",
}


class Dies(BaseException):
    """As sudden as SIGKILL: nothing is tidied up, see ``dying``."""


class DiesAfter(Callback):
    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_epoch_start(self, epoch: int) -> None:
        if epoch > self.epoch:
            raise Dies


def dying(source: Any, out: Path, monkeypatch: pytest.MonkeyPatch, epoch: int = 3, **settings: Any) -> Path:
    """A run whose process died after some epochs."""
    with monkeypatch.context() as patched:
        patched.setattr("stoker.runs.files._remove_run", lambda _: None)
        with pytest.raises(Dies):
            quick_fit(source, out, callbacks=[DiesAfter(epoch)], **{**SETTINGS, **settings})
    return out


@pytest.fixture
def homes(tmp_path: Path) -> Path:
    path = tmp_path / "homes.csv"
    learning("price").write_csv(path)
    return path


def contents(run: Path) -> dict[str, Any]:
    """What must be the same; how long it took may differ."""
    record = json.loads((run / "config.json").read_text())
    del record["training"]["seconds"]
    files = {name: (run / name).read_bytes() for name in ("model.safetensors", "metrics.json", "history.csv")}
    return {**files, "record": record}


def test_it_comes_to_the_same_files(homes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = quick_fit(homes, tmp_path / "whole", **SETTINGS)
    broken = dying(homes, tmp_path / "broken", monkeypatch)
    with pytest.raises(RunError, match=r"has not ended\. Train it to its end: stoker resume \S*broken\.$"):
        stoker.load(broken)
    run = stoker.resume(broken, progress="none")
    assert contents(run.path) == contents(whole.path)
    assert files_of(run.path) >= RUN_FILES
    assert len(checkpoint_paths(run.path / "checkpoints")) == 3


def test_killed_before_the_first_checkpoint_it_begins_anew(
    homes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"checkpoint_every": None, "lr": "auto", "epochs": 2}
    whole = quick_fit(homes, tmp_path / "whole", **{**SETTINGS, **settings})
    assert files_of(whole.path) & {"checkpoints/job.json"} == set(), "nobody asked for checkpoints"
    run = stoker.resume(dying(homes, tmp_path / "broken", monkeypatch, 0, **settings), progress="none")
    assert contents(run.path) == contents(whole.path)
    assert not (run.path / "checkpoints").exists()


def test_killed_while_the_run_was_written(homes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = quick_fit(homes, tmp_path / "whole", **SETTINGS)

    def die(*_: Any) -> None:
        raise Dies

    with monkeypatch.context() as patched:
        patched.setattr("stoker.runs.files._remove_run", lambda _: None)
        patched.setattr("stoker.jobs.writing.model_card", die)
        with pytest.raises(Dies):
            quick_fit(homes, tmp_path / "broken", **SETTINGS)
    assert contents(stoker.resume(tmp_path / "broken", progress="none").path) == contents(whole.path)


def test_a_finished_run_stays_as_it_is(homes: Path, tmp_path: Path) -> None:
    run = quick_fit(homes, tmp_path / "run", **SETTINGS)
    before = contents(run.path)
    told: list[str] = []
    assert stoker.resume(run.path, notify=told.append).metrics == run.metrics
    assert told == ["this run is finished: --epochs N (epochs=N) trains it further"]
    assert contents(run.path) == before


def test_more_epochs_also_after_a_kill(homes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"epochs": 2, "patience": None}
    for name in ("whole", "broken"):
        quick_fit(homes, tmp_path / name, **{**SETTINGS, **settings})
    whole = stoker.resume(tmp_path / "whole", epochs=5, progress="none")
    with pytest.raises(Dies):
        stoker.resume(tmp_path / "broken", epochs=5, progress="none", callbacks=[DiesAfter(3)])
    assert stoker.load(tmp_path / "broken").history[-1]["epoch"] == 2, "until it is replaced, the run is as it was"
    run = stoker.resume(tmp_path / "broken", progress="none")
    assert contents(run.path) == contents(whole.path)
    assert run.history.column("epoch") == [1, 2, 3, 4, 5]
    with pytest.raises(ConfigError, match="epochs: must be more than the 5 that are trained, got 3"):
        stoker.resume(run.path, epochs=3)
    assert stoker.resume(run.path, epochs=6, progress="none").history[-1]["epoch"] == 6


def test_without_checkpoints_a_finished_run_cannot_go_further(homes: Path, tmp_path: Path) -> None:
    run = quick_fit(homes, tmp_path / "run", target="price")
    with pytest.raises(RunError, match=r"must have its checkpoints to go on, got none\. Train with --checkpoint-every"):
        stoker.resume(run.path, epochs=9)


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_no_run(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunNotFoundError, match=r"^run: (no such directory|must be a directory that stoker fit made)"):
        stoker.resume(tmp_path / name)


def test_other_data_are_refused(homes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = dying(homes, tmp_path / "broken", monkeypatch)
    kept = homes.read_bytes()
    learning("price", seed=1).write_csv(homes)
    text = r"the run's train source must be as it was when the training began, got other contents in \S+homes.csv"
    for force in (False, True):
        with pytest.raises(DataError, match=text):
            stoker.resume(broken, force=force)
    homes.unlink()
    with pytest.raises(SourceNotFoundError):
        stoker.resume(broken)
    elsewhere = tmp_path / "elsewhere.csv"
    elsewhere.write_bytes(kept)
    assert stoker.resume(broken, source=elsewhere, progress="none").stopped in ("finished", "patience")


def test_an_object_in_memory_is_passed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = learning("price")
    broken = dying(frame, tmp_path / "broken", monkeypatch)
    with pytest.raises(RunError, match=r"train source was an object in memory, .* Pass it again .*source=\.\.\."):
        stoker.resume(broken)
    with pytest.raises(DataError, match="train source must be as it was"):
        stoker.resume(broken, source=frame.with_columns(pl.col("price") * 2))
    whole = quick_fit(frame, tmp_path / "whole", **SETTINGS)
    assert contents(stoker.resume(broken, source=frame, progress="none").path) == contents(whole.path)


def test_other_software_is_named(homes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = dying(homes, tmp_path / "broken", monkeypatch)
    monkeypatch.setattr("stoker.training.checkpoints.identity.__version__", "9.9")
    with pytest.raises(CheckpointError, match=r"Stoker's version must be the checkpoint's, \S+, got 9\.9\. .*force it"):
        stoker.resume(broken)
    told: list[str] = []
    stoker.resume(broken, force=True, progress="none", notify=told.append)
    assert any(text.startswith("forced: Stoker's version") for text in told)


def asked(*arguments: str) -> tuple[int, str]:
    """The exit status of the command, and all that it said, in one line."""
    done = CliRunner().invoke(app, ["resume", *arguments])
    return done.exit_code, " ".join(done.output.split())


def test_the_command_goes_on_with_other_software_if_it_is_forced_to(
    homes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = quick_fit(homes, tmp_path / "whole", **SETTINGS)
    broken = dying(homes, tmp_path / "broken", monkeypatch)
    paths = checkpoint_paths(broken / "checkpoints")
    kept = read_checkpoint(paths[0])
    kept["environment"]["torch's version"] = "1.0"
    write_checkpoint(broken / "checkpoints", int(paths[0].stem.removeprefix("step-")), kept, keep=len(paths))
    code, said = asked(str(broken))
    assert code == 1
    assert "error: resume: torch's version must be the checkpoint's, 1.0, got 2." in said
    assert "--force" in said, "how to go on all the same"
    assert read_checkpoint(paths[0])["environment"]["torch's version"] == "1.0", "it is as it was"

    data = homes.read_bytes()
    learning("price", seed=1).write_csv(homes)
    code, said = asked(str(broken), "--force")
    assert code == 1, "for other data there is no force"
    assert "train source must be as it was when the training began, got other contents in" in said
    homes.write_bytes(data)

    code, said = asked(str(broken), "--force")
    assert code == 0, said
    assert "forced: torch's version must be the checkpoint's, 1.0, got 2." in said
    assert contents(broken) == contents(whole.path), "the software is the same in truth"
    code, said = asked(str(broken), "--force")
    assert (code, "this run is finished" in said) == (0, True)


def test_damaged_checkpoints_are_told(homes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = quick_fit(homes, tmp_path / "whole", **SETTINGS)
    broken = dying(homes, tmp_path / "broken", monkeypatch)
    newest = checkpoint_paths(broken / "checkpoints")[0]
    newest.write_bytes(newest.read_bytes()[:100])
    shutil.copytree(broken, tmp_path / "hopeless")
    told: list[str] = []
    run = stoker.resume(broken, progress="none", notify=told.append)
    assert any(f"{newest}: must be a whole safetensors file" in text for text in told)
    assert contents(run.path) == contents(whole.path)
    for path in checkpoint_paths(tmp_path / "hopeless" / "checkpoints"):
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="must have a checkpoint that is whole, got 3 damaged"):
        stoker.resume(tmp_path / "hopeless")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "settings": 3}'])
def test_a_damaged_job(text: str, homes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = dying(homes, tmp_path / "broken", monkeypatch)
    (broken / "checkpoints" / "job.json").write_text(text)
    with pytest.raises(RunError, match=r"job\.json: must"):
        stoker.resume(broken)


def test_a_model_of_your_own_is_named_again(homes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"model": "stoker.models.own:OwnNetwork", "hidden": None}
    broken = dying(homes, tmp_path / "broken", monkeypatch)
    job = broken / "checkpoints" / "job.json"
    raw = json.loads(job.read_text())
    raw["settings"]["model"] = {"name": settings["model"]}
    job.write_text(json.dumps(raw))
    with pytest.raises(ConfigError, match=r"must be named to go on, got none\. Name it: --model stoker\.models\.own"):
        stoker.resume(broken)
    with pytest.raises(ConfigError, match="model: must be the run's own"):
        stoker.resume(broken, model="os:getcwd")


def test_one_process_at_a_time(homes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = dying(homes, tmp_path / "broken", monkeypatch)
    script = "import sys, stoker; stoker.resume(sys.argv[1])"
    with alone(broken):
        done = subprocess.run(
            [sys.executable, "-c", script, str(broken)], capture_output=True, text=True, timeout=100, check=False
        )
    assert "must be trained by one process at a time, got another at work on it. Wait for it" in done.stderr


def test_a_job_that_did_not_go_on_is_as_it_was(homes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = dying(homes, tmp_path / "broken", monkeypatch)
    job = broken / "checkpoints" / "job.json"
    before = job.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr("stoker.training.checkpoints.identity.__version__", "9.9")
        with pytest.raises(CheckpointError, match=r"Stoker's version must be the checkpoint's"):
            stoker.resume(broken, epochs=50)
    assert job.read_bytes() == before
    assert stoker.resume(broken, progress="none").stopped in ("finished", "patience")

    class Fails(Callback):
        def __init__(self, epoch: int) -> None:
            self.epoch = epoch

        def on_epoch_end(self, row: Row, _is_best: bool) -> None:
            if row["epoch"] == self.epoch:
                raise RunError("a callback", "must be happy")

    last = len(stoker.load(broken).history)
    for epoch, epochs in ((last + 1, 6), (last + 2, 9)):  # nothing is kept of the new epochs; one of them is
        with pytest.raises(RunError, match="must be happy"):
            stoker.resume(broken, epochs=9, progress="none", callbacks=[Fails(epoch)])
        assert json.loads(job.read_text())["settings"]["training"]["epochs"] == epochs
    assert stoker.resume(broken, progress="none").history[-1]["epoch"] > last


class Terminates(Callback):
    def on_epoch_end(self, row: Row, _is_best: bool) -> None:
        if row["epoch"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("every", ["1epoch", None])
def test_sigterm_leaves_a_run_that_goes_on(every: str | None, homes: Path, tmp_path: Path) -> None:
    settings = {**SETTINGS, "checkpoint_every": every}
    whole = quick_fit(homes, tmp_path / "whole", **settings)
    told: list[str] = []
    with pytest.raises(SystemExit) as ended:
        quick_fit(homes, tmp_path / "broken", callbacks=[Terminates()], notify=told.append, **settings)
    assert ended.value.code == 143
    assert told[-1] == f"stopped by SIGTERM; it goes on with: stoker resume {tmp_path / 'broken'}"
    run = stoker.resume(tmp_path / "broken", progress="none")
    assert contents(run.path) == contents(whole.path)
    assert (run.path / "checkpoints").exists() is (every is not None)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to send")
@pytest.mark.parametrize("engine", ["eager", pytest.param("compiled", marks=pytest.mark.long)])
def test_sigterm_ends_the_command_with_143_and_it_goes_on(engine: str, homes: Path, tmp_path: Path) -> None:
    stoker_fit = [sys.executable, "-m", "stoker", "fit", str(homes), "--target", "price", "--engine", engine]
    settings = ["--epochs", "150", "--hidden", "8", "--dropout", "0.2", "--checkpoint-every", "23steps", "--quiet"]
    command = [*stoker_fit, *settings, "--device", "cpu", "--out"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    subprocess.run([*command, str(whole)], check=True, timeout=100, capture_output=True)
    with subprocess.Popen([*command, str(broken)], stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 60
        while len(checkpoint_paths(broken / "checkpoints")) < 2 and process.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.002)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 143, said
    assert "Traceback" not in said
    kept = read_checkpoint(checkpoint_paths(broken / "checkpoints")[0])
    assert kept["stopped"] == "running", "it was at work"
    assert not (broken / "config.json").exists(), "it is no finished run"
    resume = [sys.executable, "-m", "stoker", "resume", str(broken), "--quiet"]
    subprocess.run(resume, check=True, timeout=100, capture_output=True)
    found, wanted = contents(broken), contents(whole)
    for part in (found, wanted):
        part["record"]["training"].pop("engine_reason")
    assert found == wanted


class Interrupts(Callback):
    def on_epoch_end(self, row: Row, _is_best: bool) -> None:
        if row["epoch"] == 2:
            signal.raise_signal(signal.SIGINT)


def test_after_ctrl_c_it_goes_on(homes: Path, tmp_path: Path) -> None:
    settings = {**SETTINGS, "checkpoint_every": None}
    whole = quick_fit(homes, tmp_path / "whole", **settings)
    run = quick_fit(homes, tmp_path / "run", callbacks=[Interrupts()], **settings)
    assert run.stopped == "interrupted"
    assert run.evaluate() == run.metrics["test"]
    assert contents(stoker.resume(run.path, progress="none").path) == contents(whole.path)
    assert not (run.path / "checkpoints").exists()


def test_a_full_disk_ends_a_training_only_where_checkpoints_were_asked_for(
    homes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stoker.training.checkpoints import checkpointer

    def full(folder: Path, *_: Any) -> None:
        raise stoker.errors.DiskFullError(str(folder), "no room left on the disk")

    monkeypatch.setattr(checkpointer, "write_checkpoint", full)
    monkeypatch.setattr("stoker.jobs.fit.DEFAULT_EVERY", "1epoch")
    with pytest.raises(stoker.errors.DiskFullError):
        quick_fit(homes, tmp_path / "asked", **SETTINGS)
    told: list[str] = []
    run = quick_fit(homes, tmp_path / "not", notify=told.append, **{**SETTINGS, "checkpoint_every": None})
    assert run.stopped in ("finished", "patience")
    assert any("this training keeps no checkpoints: " in text for text in told)


def test_what_fails_later_can_go_on(homes: Path, tmp_path: Path) -> None:
    class Fails(Callback):
        def on_epoch_end(self, row: Row, _is_best: bool) -> None:
            if row["epoch"] == 3:
                raise RunError("a callback", "must be happy")

    with pytest.raises(RunError, match=r"What was trained goes on with: stoker resume \S*run\.$"):
        quick_fit(homes, tmp_path / "run", callbacks=[Fails()], **SETTINGS)
    assert read_checkpoint(checkpoint_paths(tmp_path / "run" / "checkpoints")[0])["epoch"] == 2
    assert stoker.resume(tmp_path / "run", progress="none").stopped in ("finished", "patience")


def test_the_command(homes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = dying(homes, tmp_path / "broken", monkeypatch)

    def run(*arguments: object) -> Any:
        return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "80"})

    for command in ("evaluate", "predict"):
        result = run(command, broken, *([homes] if command == "predict" else []))
        assert result.exit_code == 1
        assert "stoker resume" in result.stderr
    result = run("resume", broken)
    assert result.exit_code == 0, result.output
    assert "epoch 4/6" in result.stderr
    assert "epoch 3/6" not in result.stderr
    assert f"Run       {broken}" in result.stdout
    assert run("resume", broken, "--epochs", 8, "--quiet").stdout.strip() == str(broken)
    assert stoker.load(broken).history[-1]["epoch"] > 4
    assert run("resume", tmp_path / "nowhere").exit_code == 1
